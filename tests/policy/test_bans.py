"""The table of bans."""

from __future__ import annotations

import pytest

from mesh.broker.peer import Peer, TlsFacts
from mesh.policy.bans import Bans
from mesh.registry.bans import Ban, normal
from mesh.transport.admission import Admission
from mesh.transport.refusal import Refused
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connect
from mesh.wire.reasons import BANNED

FINGERPRINT = "ab" * 32


def ban(kind: str, value: str, expires: float = 0.0) -> Ban:
    return Ban(kind, normal(kind, value), "", "me@here", 0.0, expires)


def peer(address: str = "192.0.2.1", serial: str = "", fingerprint: str = "") -> Peer:
    return Peer(address, 1, tls=TlsFacts("TLSv1.3", "x", serial=serial, fingerprint=fingerprint))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def concerned(bans: Bans, address: str) -> bool:
    return bans.found(Peer(address, 1), "client") is not None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.3/8", "10.0.0.1", "11.0.0.1"),
        ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
        ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ("::ffff:10.0.0.0/104", "10.1.1.1", "11.0.0.1"),
        ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
        ("fe80::/10", "fe80::1%eth0", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth1", "fe80::2%eth0"),
        ("fe80::1%eth0/64", "fe80::2", "fe80:0:0:1::1"),
        ("[2001:db8::7]", "2001:db8::7", "2001:db8::8"),
    ],
)
def test_a_network_bans_the_addresses_in_it_and_no_others(network: str, inside: str, outside: str) -> None:
    bans = Bans()
    bans.put([ban("address", network)])
    assert concerned(bans, inside)
    assert not concerned(bans, outside)


def test_networks_within_networks_hold_one_by_one() -> None:
    bans = Bans()
    wide, narrow = ban("address", "10.0.0.0/8"), ban("address", "10.1.0.0/16")
    bans.put([wide, narrow])
    bans.remove([wide])
    assert concerned(bans, "10.1.0.1")
    assert not concerned(bans, "10.2.0.1")
    bans.remove([narrow])
    assert not concerned(bans, "10.1.0.1")
    assert len(bans) == 0


@pytest.mark.parametrize("address", ["", "/run/mesh/edge.sock", "not an address", ":::"])
def test_what_is_no_address_is_not_banned_by_address(address: str) -> None:
    bans = Bans()
    bans.put([ban("address", "0.0.0.0/0"), ban("address", "::/0")])
    assert not concerned(bans, address)


def test_each_kind_looks_at_its_own_value() -> None:
    bans = Bans()
    bans.put([
        ban("vehicle", "CAR"), ban("client_id", "tablet"), ban("user", "app"), ban("serial", "0A:1B"),
        ban("fingerprint", FINGERPRINT.upper()),
    ])  # fmt: skip
    assert bans.found(peer(), "c", "vehicle", "CAR") is not None
    assert bans.found(peer(), "c", "user", "CAR") is None
    assert bans.found(peer(), "c", "user", "app") is not None
    assert bans.found(peer(), "CAR", "vehicle", "app") is None
    assert bans.found(peer(), "tablet") is not None
    assert bans.found(peer(serial="a1b", fingerprint="00"), "c") is not None
    assert bans.found(peer(serial="a1c", fingerprint="00"), "c") is None
    assert bans.found(peer(serial="1", fingerprint=FINGERPRINT), "c") is not None
    assert bans.found(peer(), "c") is None  # no certificate


def test_a_banned_client_is_refused_with_the_code_of_bans_and_counted() -> None:
    bans = Bans()
    bans.put([ban("client_id", "tablet")])
    bans.check(Connect(MQTT5, "phone"), peer())
    with pytest.raises(Refused) as refused:
        bans.check(Connect(MQTT5, "tablet"), peer())
    assert refused.value.reason == BANNED
    assert bans.status().refused == 1


def test_a_banned_address_is_refused_when_its_connection_begins_and_counted() -> None:
    bans = Bans()
    bans.put([ban("address", "192.0.2.0/24"), ban("fingerprint", FINGERPRINT)])
    bans.arrive(peer("198.51.100.1", fingerprint=FINGERPRINT))  # its certificate is checked with its CONNECT
    with pytest.raises(Refused) as refused:
        bans.arrive(peer("192.0.2.9"))
    assert refused.value.reason == BANNED
    assert bans.status().refused == 1
    bans.remove([ban("address", "192.0.2.0/24")])
    bans.arrive(peer("192.0.2.9"))


def test_a_table_that_is_empty_at_first_keeps_clients_out_before_they_are_identified() -> None:
    bans = Bans()
    admission = Admission(PacketLimits(), 10, barrier=bans)
    bans.put([ban("address", "192.0.2.1"), ban("client_id", "tablet")])
    for client_id, address in (("phone", "192.0.2.1"), ("tablet", "192.0.2.2")):
        with pytest.raises(Refused):
            admission.check(Connect(MQTT5, client_id), 1, peer(address))
    with pytest.raises(Refused):
        admission.arrive(peer("192.0.2.1"))
    admission.check(Connect(MQTT5, "phone"), 1, peer("192.0.2.2"))


def test_a_ban_ends_at_its_time_without_being_removed() -> None:
    clock = Clock()
    bans = Bans(clock)
    bans.put([ban("vehicle", "CAR", 200.0), ban("address", "10.0.0.0/8", 300.0), ban("user", "app")])
    assert len(bans) == 3
    clock.now = 200.0
    assert bans.found(peer(), "c", "vehicle", "CAR") is None
    assert concerned(bans, "10.0.0.1")
    assert len(bans) == 2
    clock.now = 300.0
    assert not concerned(bans, "10.0.0.1")
    assert bans.status().bans == 1


def test_a_longer_ban_in_place_of_a_shorter_one_holds_to_its_own_end() -> None:
    clock = Clock()
    bans = Bans(clock)
    for expires in [200.0, *(400.0 + number for number in range(1000))]:
        bans.put([ban("vehicle", "CAR", expires)])
    clock.now = 300.0
    assert len(bans) == 1
    assert bans.found(peer(), "c", "vehicle", "CAR") is not None
    assert len(bans._ends) < 100


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("address", "10.0.0.0/33"), ("address", "here"), ("serial", ""), ("serial", "xyz"), ("serial", "1" * 41),
        ("fingerprint", "ab"), ("fingerprint", "g" * 64), ("vehicle", ""), ("vehicle", "A\0"), ("vehicle", "A" * 513),
        ("colour", "red"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_its_kind_is_an_error(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normal(kind, value)
