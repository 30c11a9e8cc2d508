"""The ports that a node keeps for the life of its folder."""

from __future__ import annotations

import socket
from pathlib import Path

from mesh.node.ports import keep_ports

HOST = "127.0.0.1"
NAMES = ("device", "tier")


def test_restarted_node_keeps_its_ports(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path / "node", HOST, NAMES)
    assert len(set(ports.values())) == len(NAMES)
    assert keep_ports(tmp_path / "node", HOST, NAMES) == ports


def test_taken_port_is_replaced_and_the_other_port_kept(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path, HOST, NAMES)
    with socket.socket() as other:
        other.bind((HOST, ports["device"]))
        other.listen()
        again = keep_ports(tmp_path, HOST, NAMES)
    assert again["device"] != ports["device"]
    assert again["tier"] == ports["tier"]
    assert keep_ports(tmp_path, HOST, NAMES) == again


def test_damaged_port_file_is_replaced(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"device": "x", "tier": 0}', '{"device": 70000}'):
        (tmp_path / "ports.json").write_text(text)
        assert set(keep_ports(tmp_path, HOST, NAMES)) == set(NAMES)


def test_duplicate_port_in_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"device": 23456, "tier": 23456}')
    ports = keep_ports(tmp_path, HOST, NAMES)
    assert ports["device"] != ports["tier"]
