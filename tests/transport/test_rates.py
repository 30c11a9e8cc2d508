"""Clients that connect too often are refused, and those beside them are not."""

from __future__ import annotations

import pytest

from mesh.transport.buckets import ENTRIES, Buckets
from mesh.transport.origin import host_of, network_of
from mesh.transport.rates import BURST, Rates
from mesh.transport.refusal import Refused
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED, SUCCESS
from tests.fakes.clock import FakeClock


def connects(rates: Rates, address: str, times: int) -> int:
    """How many of these connections are let in."""
    codes = [outcome(rates, address) for _ in range(times)]
    assert set(codes) <= {SUCCESS, CONNECTION_RATE_EXCEEDED}
    return codes.count(SUCCESS)


def outcome(rates: Rates, address: str) -> int:
    """The reason code of one connection."""
    try:
        rates.check(address)
    except Refused as refused:
        return refused.reason
    return SUCCESS


def test_an_address_has_a_burst_and_then_its_rate() -> None:
    clock = FakeClock()
    rates = Rates(1000, 2, 1000, clock)
    assert connects(rates, "192.0.2.1", 100) == 2 * BURST
    clock.now += 5.0
    assert connects(rates, "192.0.2.1", 100) == 10
    assert connects(rates, "192.0.2.2", 100) == 2 * BURST
    assert rates.refusals == 60 + 90 + 60


def test_addresses_of_a_network_share_its_rate() -> None:
    rates = Rates(1000, 1000, 2, FakeClock())
    assert sum(connects(rates, f"192.0.2.{number}", 1) for number in range(100)) == 2 * BURST
    assert connects(rates, "192.0.3.1", 100) == 2 * BURST


def test_all_clients_of_a_node_share_its_rate() -> None:
    rates = Rates(3, 1000, 1000, FakeClock())
    assert sum(connects(rates, f"10.{number}.0.1", 1) for number in range(100)) == 3 * BURST


def test_a_refused_connection_takes_nothing() -> None:
    clock = FakeClock()
    rates = Rates(1000, 1, 1000, clock)
    assert connects(rates, "192.0.2.1", 1000) == BURST
    clock.now += 1.0
    assert connects(rates, "192.0.2.1", 1000) == 1


def test_other_limits_hold_for_what_came_before() -> None:
    rates = Rates(1000, 1000, 1000, FakeClock())
    assert connects(rates, "192.0.2.1", 100) == 100
    rates.allow(1000, 4, 1000)
    assert connects(rates, "192.0.2.1", 100) == 0
    rates.allow(1000, 6, 1000)
    assert connects(rates, "192.0.2.1", 100) == 20
    assert rates.in_force() == {"node": 1000 * BURST, "address": 6 * BURST, "network": 1000 * BURST}


def test_a_refusal_says_what_is_too_much_and_when_the_next_one_is_let_in() -> None:
    rates = Rates(1000, 1, 1000, FakeClock())
    connects(rates, "2001:db8::1", int(BURST))
    with pytest.raises(Refused, match=r"too many connections from 2001:db8::2; the next one is let in after 1\.0 s"):
        rates.check("2001:db8::2")


@pytest.mark.parametrize(
    ("address", "host", "network"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2"),
        ("2001:db8:1:2:3::4", "20010db800010002::/64", "20010db80001::/48"),
        ("2001:db8:1:2:ffff::", "20010db800010002::/64", "20010db80001::/48"),
        ("2001:db8:1:3::1", "20010db800010003::/64", "20010db80001::/48"),
        ("", "", ""),
    ],
)
def test_keys_of_addresses(address: str, host: str, network: str) -> None:
    assert (host_of(address).lstrip("0"), network_of(address).lstrip("0")) == (host, network)


def test_keys_of_what_is_no_address_are_bounded() -> None:
    assert len(host_of("x" * 1000)) <= 64
    assert len(host_of("x:" * 1000)) <= 64
    assert len(network_of("x." * 1000)) <= 64


def test_table_is_bounded_and_keeps_the_keys_that_were_used_lately() -> None:
    buckets, half = Buckets(2, 60.0), ENTRIES // 2
    for number in range(ENTRIES):
        buckets.take(str(number), 0.0)
    assert len(buckets) == ENTRIES
    buckets.take("0", 0.0)  # of the older half
    for number in range(ENTRIES, ENTRIES + half):
        buckets.take(str(number), 0.0)
        assert len(buckets) <= ENTRIES
    taken = [buckets.taken(str(number), 0.0) for number in (0, 1, half, ENTRIES, ENTRIES + half - 1)]
    assert taken == [2.0, 0.0, 0.0, 1.0, 1.0]
