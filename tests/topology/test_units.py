"""Readers of durations, sizes and addresses."""

from __future__ import annotations

import pytest

from mesh.topology import units
from mesh.topology.units import Address


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("15s", 15), ("500ms", 0.5), ("1.5h", 5400), ("2 m", 120), ("0s", 0)]
)
def test_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "-5s", "1e5s", "1..5s", "5 weeks", "1" * 30 + "s", "٣s"])
def test_duration_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match="15s or 30d"):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 << 20), ("1MB", 10**6), ("512 KiB", 512 << 10), ("17", 17), ("1.5KiB", 1536)]
)
def test_size_is_read_as_bytes(text: str, size: int) -> None:
    assert units.size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "5 apples", "1mib"])
def test_size_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match="64MiB"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:1883", "127.0.0.1", 1883), ("[::1]:0", "::1", 0), ("edge-1.example:65535", "edge-1.example", 65535)],
)
def test_address_is_read_and_printed(text: str, host: str, port: int) -> None:
    assert units.address(text) == Address(host, port)
    assert str(units.address(text)) == text


@pytest.mark.parametrize(
    "text", ["", "1883", ":1883", "a:b", "a:65536", "a:-1", "::1:80", "a b:80", "10.0.0.999:80", "a:٣"]
)
def test_address_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|brackets"):
        units.address(text)


def test_loopback_hosts_are_recognised() -> None:
    assert all(Address(host, 1).loopback for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(Address(host, 1).loopback for host in ("0.0.0.0", "10.0.0.1", "::", "example"))


def test_addresses_clash_on_the_same_port_and_host() -> None:
    one = Address("127.0.0.1", 1883)
    assert one.clashes(Address("127.0.0.1", 1883))
    assert one.clashes(Address("0.0.0.0", 1883))
    assert one.clashes(Address("localhost", 1883))
    assert Address("localhost", 1883).clashes(Address("::1", 1883))
    assert not Address("localhost", 1883).clashes(Address("10.0.0.5", 1883))
    assert not one.clashes(Address("127.0.0.2", 1883))
    assert not one.clashes(Address("127.0.0.1", 1884))
    assert not Address("127.0.0.1", 0).clashes(Address("127.0.0.1", 0))
