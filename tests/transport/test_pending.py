"""Connections that hold their CONNECT back give way to others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mesh.broker.peer import Peer
from mesh.transport.buffers import Buffering
from mesh.transport.pending import CLOSINGS, Pending
from mesh.transport.stream import StreamGroup
from mesh.transport.wheel import Wheel


@pytest.fixture
def group() -> Iterator[StreamGroup]:
    loop = asyncio.new_event_loop()
    yield StreamGroup(loop, Wheel(loop))
    loop.close()


class Waiting(Buffering):
    """A connection without a CONNECT."""

    def __init__(self, group: StreamGroup, pending: Pending, address: str) -> None:
        super().__init__(group)
        self.peer = Peer(address)
        self.closed = ""
        pending.add(self)

    def shed(self, why: str) -> None:
        self.closed = why


def test_the_oldest_connection_of_the_largest_network_ends(group: StreamGroup) -> None:
    pending = Pending(5)
    first = Waiting(group, pending, "198.51.100.1")
    attackers = [Waiting(group, pending, f"192.0.2.{number}") for number in range(4)]
    assert len(pending) == 5
    late = Waiting(group, pending, "192.0.2.99")
    assert [one.closed != "" for one in (first, *attackers, late)] == [False, True, False, False, False, False]
    assert "5 connections have not completed their CONNECT" in attackers[0].closed
    assert (len(pending), pending.closed) == (5, 1)


def test_a_complete_connect_makes_room(group: StreamGroup) -> None:
    pending = Pending(1)
    first = Waiting(group, pending, "192.0.2.1")
    pending.remove(first)
    pending.remove(first)
    second = Waiting(group, pending, "192.0.2.1")
    assert (first.closed, second.closed, len(pending)) == ("", "", 1)


def test_a_lower_limit_is_reached_in_steps(group: StreamGroup) -> None:
    pending = Pending(1000)
    for _ in range(CLOSINGS + 10):
        Waiting(group, pending, "192.0.2.1")
    pending.limit = 1
    Waiting(group, pending, "192.0.2.1")
    assert pending.closed == CLOSINGS
    Waiting(group, pending, "192.0.2.1")
    assert len(pending) == 1
