"""Shared subscriptions: each message goes to one member of the group, and to every other subscriber."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
COUNT = 40
WORK = [str(number).encode() for number in range(COUNT)]


def test_group_members_share_messages(makers: Makers, way: Way, current: Dialect) -> None:
    publisher, plain = makers.pair(current, way)
    members = [makers.join(current, way) for _ in range(2)]
    plain.subscribe(way.topic("work"))
    for member in members:
        assert member.subscribe(f"$share/group/{way.topic('work')}") == 1
    publisher.pipeline(way.topic("work"), WORK)
    plain.expect(COUNT)
    wait_until(lambda: sum(len(member.received) for member in members) >= COUNT, "all messages at the members")
    assert sorted(int(payload) for member in members for payload in member.payloads()) == list(range(COUNT))
    assert all(member.received for member in members)


def test_remaining_member_gets_all_messages(makers: Makers, way: Way, current: Dialect) -> None:
    publisher, leaving = makers.pair(current, way)
    staying = makers.join(current, way)
    for member in (leaving, staying):
        member.subscribe(f"$share/group/{way.topic('work')}")
    leaving.unsubscribe(f"$share/group/{way.topic('work')}")
    publisher.pipeline(way.topic("work"), WORK)
    assert [int(message.payload) for message in staying.expect(COUNT)] == list(range(COUNT))
    assert leaving.received == []


def test_each_group_gets_every_message(makers: Makers, way: Way, current: Dialect) -> None:
    publisher, one = makers.pair(current, way)
    two = makers.join(current, way)
    one.subscribe(f"$share/one/{way.topic('+')}")
    two.subscribe(f"$share/two/{way.topic('#')}")
    publisher.pipeline(way.topic("work"), WORK)
    for member in (one, two):
        assert [int(message.payload) for message in member.expect(COUNT)] == list(range(COUNT))
