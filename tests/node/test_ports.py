"""The ports that a node keeps for the life of its folder."""

from __future__ import annotations

import socket
from pathlib import Path

from mesh.node.ports import keep_ports

HOST = "127.0.0.1"
NAMES = ("device", "tier")


def test_a_restart_has_the_ports_of_before(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path / "node", HOST, NAMES)
    assert len(set(ports.values())) == len(NAMES)
    assert keep_ports(tmp_path / "node", HOST, NAMES) == ports


def test_a_port_that_somebody_has_taken_is_replaced_and_the_other_kept(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path, HOST, NAMES)
    with socket.socket() as other:
        other.bind((HOST, ports["device"]))
        other.listen()
        again = keep_ports(tmp_path, HOST, NAMES)
    assert again["device"] != ports["device"]
    assert again["tier"] == ports["tier"]
    assert keep_ports(tmp_path, HOST, NAMES) == again


def test_a_damaged_file_costs_the_ports_and_not_the_node(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"device": "x", "tier": 0}', '{"device": 70000}'):
        (tmp_path / "ports.json").write_text(text)
        assert set(keep_ports(tmp_path, HOST, NAMES)) == set(NAMES)


def test_one_port_is_not_given_twice(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"device": 23456, "tier": 23456}')
    ports = keep_ports(tmp_path, HOST, NAMES)
    assert ports["device"] != ports["tier"]
