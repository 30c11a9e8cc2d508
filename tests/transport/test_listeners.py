"""Lists of listeners that change while they serve: what is taken, what is given back, and which connections end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest

from mesh.broker.peer import Peer
from mesh.transport import listeners as room
from mesh.transport.listen import Listen
from mesh.transport.listeners import Listeners
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.wheel import Wheel
from mesh.wire.packets import MQTT5, Connack, Connect, Disconnect
from tests.fakes.endpoint import EndpointNode
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.ports import free_port
from tests.support.waiting import until

ANY = Listen("mqtt", "127.0.0.1", 0)


def at(port: int, host: str = "127.0.0.1") -> Listen:
    return Listen("mqtt", host, port)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Another program listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def free(port: int) -> bool:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


class Idle(Stream):
    def received(self, data: bytes) -> None:
        """Ignores what comes."""


class Hall:
    """Listeners whose streams are noted in ``ended`` and aborted when their listener is removed."""

    def __init__(self, *listen: Listen, shared: bool = False) -> None:
        self._listen = listen
        self._shared = shared
        self.ended: list[Peer] = []
        self._writers: list[asyncio.StreamWriter] = []  # a connection without one is closed

    async def __aenter__(self) -> Hall:
        loop = asyncio.get_running_loop()
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.group = StreamGroup(loop, self.wheel)
        self.listeners = Listeners(
            "core", self.group, lambda: Idle(self.group), self._end, 10, shared=self._shared
        )  # fmt: skip
        await self.listeners.start(self._listen)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.listeners.close()
        for stream in list(self.group.streams):
            stream.abort()
        for writer in self._writers:
            writer.close()
        self.wheel.stop()

    def _end(self, stream: Stream) -> None:
        self.ended.append(stream.peer)
        stream.abort()

    async def change(self, *listen: Listen) -> list[int]:
        (await self.listeners.prepare(listen)).commit()
        return self.listeners.ports

    async def open(self, port: int) -> asyncio.StreamReader:
        before = len(self.group.streams)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        await until(lambda: len(self.group.streams) == before + 1)
        return reader


def test_an_added_listener_serves_from_the_commit_on() -> None:
    async def main() -> None:
        first, second = free_port(), free_port()
        async with Hall(at(first)) as hall:
            change = await hall.listeners.prepare([at(first), at(second)])
            assert not free(second), "it is taken"
            assert not await answers(second), "and does not serve"
            assert hall.listeners.ports == [first]
            change.commit()
            assert hall.listeners.ports == [first, second]
            assert await answers(second)
            assert await answers(first)

    run(main())


def test_a_withdrawn_change_gives_the_address_back() -> None:
    async def main() -> None:
        first, second = free_port(), free_port()
        async with Hall(at(first)) as hall:
            stays = await hall.open(first)
            (await hall.listeners.prepare([at(second)])).withdraw()
            assert free(second)
            assert hall.listeners.ports == [first]
            assert await answers(first)
            assert not stays.at_eof()
            await hall.change(at(first), at(second))
            assert await answers(second), "the next attempt is not in the way of the first"

    run(main())


def test_a_taken_address_refuses_the_change_and_nothing_stays_bound() -> None:
    async def main() -> None:
        first, second, third = free_port(), free_port(), free_port()
        async with Hall(at(first)) as hall:
            with taken(third), pytest.raises(OSError, match=f"core: cannot listen on 127.0.0.1:{third}: in use by an"):
                await hall.listeners.prepare([at(second), at(third)])
            assert free(second)
            assert hall.listeners.ports == [first]
            assert await answers(first)

    run(main())


def test_a_cancelled_preparation_leaves_nothing_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        first, second = free_port(), free_port()
        async with Hall(at(first)) as hall:
            real = room.Listener.bind

            async def slow(self: room.Listener) -> None:
                await real(self)
                await asyncio.sleep(3600)

            monkeypatch.setattr(room.Listener, "bind", slow)
            task = asyncio.create_task(hall.listeners.prepare([at(first), at(second)]))
            await until(lambda: not free(second))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert free(second)

    run(main())


def test_connections_of_a_removed_listener_end_and_those_of_others_stay() -> None:
    async def main() -> None:
        async with Hall(ANY, at(port := free_port())) as hall:
            stays, ends = await hall.open(hall.listeners.ports[0]), await hall.open(port)
            await hall.change(ANY)
            assert await ends.read() == b""
            assert [peer.listener for peer in hall.ended] == [f"mqtt://127.0.0.1:{port}"]
            assert not stays.at_eof()
            assert len(hall.group.streams) == 1
            assert not await answers(port)

    run(main())


def test_connections_of_a_removed_listener_end_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """All their clients connect again elsewhere: not all in one turn."""

    async def main() -> None:
        monkeypatch.setattr(room, "ENDING", 0.2)
        async with Hall(ANY) as hall:
            for _ in range(8):
                await hall.open(hall.listeners.ports[0])
            real, over, slices = hall._end, [0], []

            def end(stream: Stream) -> None:
                slices.append(over[0])  # the same number for all that end in one turn
                asyncio.get_running_loop().call_soon(lambda: over.append(over.pop() + 1))
                real(stream)

            hall.listeners._end = end
            await hall.change()
            await until(lambda: len(hall.ended) == 8)
            assert len(set(slices)) == 4, "as many as fit"

    run(main())


def test_a_listener_that_is_added_again_keeps_its_new_connections() -> None:
    async def main() -> None:
        port = free_port()
        async with Hall(at(port)) as hall:
            await hall.open(port)
            await hall.change()
            assert await hall.change(at(port)) == [port]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: len(hall.ended) == 1)
            await until(lambda: len(hall.group.streams) == 1)
            await until(lambda: not hall.listeners._endings)
            assert len(hall.ended) == 1
            assert not reader.at_eof()
            writer.close()

    run(main())


def test_the_same_list_in_another_order_changes_no_socket() -> None:
    async def main() -> None:
        port = free_port()
        async with Hall(ANY, at(port)) as hall:
            chosen = hall.listeners.ports[0]
            readers = [await hall.open(chosen), await hall.open(port)]
            assert await hall.change(at(port), ANY) == [port, chosen]
            assert not any(reader.at_eof() for reader in readers)
            assert await answers(chosen)
            assert hall.ended == []

    run(main())


def test_each_port_0_is_a_listener_of_its_own() -> None:
    async def main() -> None:
        async with Hall(ANY) as hall:
            (first,) = hall.listeners.ports
            two = await hall.change(ANY, ANY)
            assert two[0] == first
            assert len(set(two)) == 2
            assert await hall.change(ANY) == [first], "the later one is removed"
            assert not await answers(two[1])
            assert await answers(first)

    run(main())


@pytest.mark.parametrize("shared", [False, True])
def test_a_listener_moves_from_one_address_to_another(shared: bool) -> None:
    async def main() -> None:
        first, second = free_port(), free_port()
        async with Hall(at(first), shared=shared) as hall:
            reader = await hall.open(first)
            assert await hall.change(at(second)) == [second]
            assert await answers(second)
            assert not await answers(first)
            assert await reader.read() == b""

    run(main())


def test_a_move_on_one_port_names_the_two_steps_that_it_takes() -> None:
    """The address of all interfaces has that of one of them in it."""

    async def main() -> None:
        port = free_port()
        async with Hall(at(port)) as hall:
            with pytest.raises(OSError, match="remove this one with one change, and add the other with the next one"):
                await hall.listeners.prepare([at(port, "0.0.0.0")])
            assert await answers(port)
            await hall.change()
            assert await hall.change(at(port, "0.0.0.0")) == [port]
            assert await answers(port)

    run(main())


@pytest.mark.parametrize("shared", [False, True])
def test_load_balancers_come_and_go_and_no_connection_is_closed(shared: bool) -> None:
    async def main() -> None:
        port = free_port()
        balanced = replace(at(port), proxy=(ip_network("127.0.0.1/32"),))
        async with Hall(at(port), shared=shared) as hall:
            await hall.open(port)
            for listen, header in (
                (balanced, b"PROXY TCP4 192.0.2.7 198.51.100.1 5 1883\r\n"),
                (at(port), b""),
                (balanced, b"PROXY UNKNOWN\r\n"),
            ):
                assert await hall.change(listen) == [port]
                before = set(hall.group.streams)
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                hall._writers.append(writer)
                writer.write(header + b"x")
                count = hall.group.bytes_in
                await until(lambda count=count: hall.group.bytes_in == count + 1, "the byte")  # type: ignore[misc]
                (stream,) = set(hall.group.streams) - before
                assert stream.peer.address == ("192.0.2.7" if b"TCP4" in header else "127.0.0.1")
            assert len(hall.group.streams) == 4
            assert not hall.ended
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"no header")
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert not await answers(port)

    run(main())


def test_shared_listeners_move_on_one_port_at_once() -> None:
    async def main() -> None:
        port = free_port()
        async with Hall(at(port), shared=True) as hall:
            reader = await hall.open(port)
            assert await hall.change(at(port, "0.0.0.0")) == [port]
            assert await answers(port)
            assert await reader.read() == b""
            assert [peer.listener for peer in hall.ended] == [f"mqtt://127.0.0.1:{port}"]

    run(main())


def test_an_address_that_is_lost_before_the_commit_does_not_keep_the_others() -> None:
    async def main() -> None:
        first, second, third = free_port(), free_port(), free_port()
        async with Hall(at(first)) as hall:
            change = await hall.listeners.prepare([at(second), at(third)])
            with taken(second):
                with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{second}: in use by another program"):
                    change.commit()
                assert await answers(third)
            assert not await answers(first)
            assert hall.listeners.ports == [third]
            assert await hall.change(at(second), at(third)) == [second, third], "the next change tries again"
            assert await answers(second)

    run(main())


def test_another_limit_holds_for_all_listeners_and_closes_none() -> None:
    async def main() -> None:
        async with Hall(ANY, ANY) as hall:
            readers = [await hall.open(port) for port in hall.listeners.ports for _ in range(2)]
            hall.listeners.allow(1, 5.0)
            ports = await hall.change(ANY, ANY, ANY)
            assert [listener.limit for listener in hall.listeners._present] == [1, 1, 1]
            assert not any(reader.at_eof() for reader in readers)
            assert await answers(ports[2])

    run(main())


def test_a_stop_ends_no_connection_and_cancels_the_endings() -> None:
    async def main() -> None:
        async with Hall(ANY) as hall:
            for _ in range(4):
                await hall.open(hall.listeners.ports[0])
            await hall.change()
            await until(lambda: len(hall.ended) == 1)
            hall.listeners.close()
            await until(lambda: not hall.listeners._endings)
            assert len(hall.ended) == 1, "the node's stop ends the others"

    run(main())


def test_clients_of_a_removed_listener_of_an_endpoint_are_told() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            (await node.endpoint.prepare([ANY, ANY])).commit()
            stays, ends = node.endpoint.ports
            other = await Bare(MQTT5).hello(stays, "other")
            new, old = await Bare(MQTT5).hello(ends, "new"), await Bare().hello(ends, "old")
            early = await Bare(MQTT5).connect(ends)
            (await node.endpoint.prepare([ANY])).commit()
            assert (await new.wait(Disconnect)).reason == 0x8B
            for one in (new, old, early):
                await one.wait_closed()
            assert [packet for packet in old.packets if isinstance(packet, Disconnect)] == []
            assert sorted(node.engine.lost_clients) == ["new", "old"], "their wills are due"
            node.admission.redirect = "other.example"
            third = await Bare(MQTT5).connect(stays)
            third.send(Connect(MQTT5, "third", username="third"))
            assert (await third.wait(Connack)).reason == 0x9C
            await third.close()
            assert not other.closed.is_set()

    run(main())


def test_vehicles_of_a_removed_listener_of_a_door_are_told() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            (await mesh.door.prepare([ANY, ANY])).commit()
            stays, ends = mesh.door.ports
            other = await Bare(MQTT5).hello(stays, "OTHER")
            car = await Bare(MQTT5).hello(ends, "CAR")
            mesh.admission.redirect = "other.example"
            (await mesh.door.prepare([ANY])).commit()
            told = await car.wait(Disconnect)
            assert told.reason == 0x9C
            assert told.properties is not None
            assert told.properties.server_reference == "other.example"
            await car.wait_closed()
            await until(lambda: mesh.edge.engine.lost_clients == ["CAR"])
            assert not other.closed.is_set()

    run(main())
