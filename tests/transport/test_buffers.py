"""The bound on what the clients of a node make it buffer."""

from __future__ import annotations

import asyncio

from mesh.transport.buffers import CLOSINGS, SAMPLE, Buffering, Buffers
from mesh.transport.stream import StreamGroup
from mesh.transport.wheel import Wheel
from tests.support.loop import run


class Sock(Buffering):
    """A connection of the client ``name``."""

    def __init__(self, group: StreamGroup, name: str) -> None:
        super().__init__(group)
        self.name = name
        self.why = ""

    def client(self) -> str:
        return self.name

    def shed(self, why: str) -> None:
        self.why = why


async def _group() -> StreamGroup:
    loop = asyncio.get_running_loop()
    return StreamGroup(loop, Wheel(loop))


def test_sum_follows_what_connections_report() -> None:
    async def main() -> None:
        buffers, group = Buffers(1000), await _group()
        one, two = Sock(group, "A"), Sock(group, "B")
        buffers.count(one, 300)
        buffers.count(two, 700)
        buffers.count(one, 100)
        buffers.count(one, 100)
        assert (buffers.used, one.counted, two.counted) == (800, 100, 700)
        buffers.count(one, 0)
        buffers.count(two, 0)
        buffers.count(two, 0)
        assert (buffers.used, buffers.closed, buffers._entries, buffers._totals) == (0, 0, {}, {})

    run(main())


def test_the_client_that_uses_most_loses_connections_until_the_rest_fits() -> None:
    async def main() -> None:
        buffers, group = Buffers(10_000), await _group()
        good = Sock(group, "GOOD")
        buffers.count(good, 5000)
        assert buffers.strain() == ""
        bad = [Sock(group, "BAD") for _ in range(20)]
        for sock in bad:
            buffers.count(sock, 1000)
        assert good.why == ""
        assert sum(1 for sock in bad if sock.why) == 15
        assert (buffers.used, buffers.closed) == (10_000, 15)
        assert bad[0].why == "all 10000 bytes for buffers are in use, and BAD uses the most, 6000"
        assert buffers.strain() == "10000 of 10000 bytes for buffers are in use; GOOD uses the most, 5000"

    run(main())


def test_a_lowered_limit_closes_some_connections_with_each_packet() -> None:
    """Not all that are too many in one turn."""

    async def main() -> None:
        buffers, group = Buffers(10_000_000), await _group()
        for number in range(2 * CLOSINGS + 10):
            buffers.count(Sock(group, f"CAR{number}"), 5000)
        buffers.limit = 40_000
        closed = []
        for number in range(3):
            buffers.count(Sock(group, f"NEW{number}"), 5000)
            closed.append(buffers.closed)
        assert closed[:2] == [CLOSINGS, 2 * CLOSINGS]
        assert buffers.used == 40_000

    run(main())


def test_of_clients_with_as_much_the_one_that_buffers_for_longest_is_closed() -> None:
    async def main() -> None:
        buffers, group = Buffers(10_000), await _group()
        socks = [Sock(group, f"CAR{n}") for n in range(SAMPLE + 20)]
        for sock in socks:
            buffers.count(sock, 1000)
        assert [sock.name for sock in socks if not sock.why] == [sock.name for sock in socks[-10:]]

    run(main())


def test_one_connection_with_more_than_all_is_closed() -> None:
    async def main() -> None:
        buffers, group = Buffers(1000), await _group()
        sock = Sock(group, "A")
        buffers.count(sock, 1001)
        assert (buffers.used, buffers.closed, sock.counted) == (0, 1, 0)

    run(main())
