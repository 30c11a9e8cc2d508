"""When TLS handshakes start and how they end: deadlines, limits, turns, and what a client is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from mesh.transport.accept import FIRST
from mesh.transport.listen import NONE, REQUIRED
from mesh.transport.pace import LONGEST, Pace, Starting
from mesh.transport.rates import BURST, Rates
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.tlsclient import SECONDS, Client, call, close
from tests.support.town import Town
from tests.support.waiting import until

HELLO = bytes.fromhex("160301")  # the first bytes of a handshake


def test_a_handshake_counts_as_a_connection_until_its_deadline(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(limit=2, tls=town.files(), handshake=0.5) as hall:
            _, silent = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            _, begun = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            begun.write(HELLO)
            await until(lambda: len(hall.streams()) == 2 and handshakes(hall) == (1, 0, 0, 0))
            assert [one.transport for one in hall.streams()] == [None, None]
            third, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            with contextlib.suppress(ConnectionError):
                assert await third.read() == b""
            assert hall.listener.refused == 1
            await until(lambda: not hall.streams() and handshakes(hall) == (1, 0, 0, 2))
            answer, client = await call(hall.listener.port, town.client(town.authority.issue("VIN7")))
            assert answer == b"hello"
            await close(client)
            for one in (silent, begun, writer):
                one.close()

    run(main())



def test_a_stream_that_ends_before_its_handshake_closes_the_socket(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            ends = [await asyncio.open_connection("127.0.0.1", hall.listener.port) for _ in range(2)]
            ends[1][1].write(HELLO)
            await until(lambda: len(hall.streams()) == 2 and handshakes(hall)[0] == 1)
            for stream in hall.streams():
                stream.finish()  # it gives way to others
            ends[0][1].write(HELLO)
            for reader, writer in ends:
                with contextlib.suppress(ConnectionError):
                    while await asyncio.wait_for(reader.read(1000), SECONDS):
                        pass
                writer.close()
            assert hall.streams() == []

    run(main())



def test_handshakes_that_come_too_often_do_not_begin(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), Rates(address=1))
        async with Hall(limit=1000, tls=town.files(NONE), pace=pace) as hall:
            for _ in range(int(BURST)):
                pace.rates.check("127.0.0.1")
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await call(hall.listener.port, town.client())
            assert handshakes(hall)[0] == 0
            pace.rates.allow(1000, 1000, 1000)
            answer, client = await call(hall.listener.port, town.client())
            assert answer == b"hello"
            await close(client)

    run(main())



def test_bytes_that_are_no_handshake_end_the_connection_at_once(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            mqtt = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
            for data in (mqtt, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" * 9):
                reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(data)
                writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000):
                        pass
                writer.close()
            await until(lambda: not hall.streams() and handshakes(hall)[3] == 3)

    run(main())



def test_stop_ends_connections_that_have_not_arrived_and_no_other(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files(NONE)) as hall:
            _, client = await call(hall.listener.port, town.client())
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            await until(lambda: len(hall.streams()) == 2)
            hall.listener.stop()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert await asyncio.to_thread(client.echo) == b"hello"
            await until(lambda: len(hall.streams()) == 1)
            await close(client)
            writer.close()

    run(main())



def handshakes(hall: Hall) -> tuple[int, int, int, int]:
    status = hall.listener.status().tls
    assert status is not None
    return status.begun, status.done, status.resumed, status.failed



def client_hello(context: ssl.SSLContext) -> bytes:
    """The first flight of a client."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()



def test_handshakes_that_are_begun_and_left_give_way_to_others(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.most, pace.old = 20, 0.2
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, context = hall.listener.port, town.client()
            hello = client_hello(context)
            _, before = await call(port, context)
            left = []
            for _ in range(100):
                left.append((await asyncio.open_connection("127.0.0.1", port))[1])
                left[-1].write(hello)
            answer, after = await call(port, context)
            assert answer == b"hello"
            assert handshakes(hall)[3] >= 80, "the others gave way"
            assert await asyncio.to_thread(before.echo) == b"hello"
            for client in (before, after):
                await close(client)
            for writer in left:
                writer.close()

    run(main())



class Start(Starting):
    """Notes its start in ``started``, and ends with it."""

    def __init__(self, pace: Pace, name: str, started: list[str]) -> None:
        super().__init__()
        self.pace, self.name, self.started = pace, name, started

    def start(self) -> None:
        self.started.append(self.name)
        self.pace.over(self)



def test_clients_that_are_connected_are_served_between_two_handshakes_that_start() -> None:
    started: list[str] = []

    async def main() -> None:
        clock = [0.0]
        pace = Pace(asyncio.get_running_loop(), clock=lambda: clock[0])
        for number in range(50):
            pace.ask(Start(pace, str(number), started), "192.0.2.1", 0.001)
        assert started == ["0"]
        for turn in range(5):
            before = len(started)
            await asyncio.sleep(0)
            assert len(started) - before <= 1, f"one in a turn without time, turn {turn}"
        clock[0] += 10.0
        for _ in range(3):
            before = len(started)
            await asyncio.sleep(0)
            assert len(started) - before <= 1 + LONGEST / 0.001
        await until(lambda: len(started) == 50)
        assert started == [str(number) for number in range(50)]
        await until(lambda: pace._timer is None)
        pace.ask(Start(pace, "later", started), "192.0.2.1", 0.001)
        assert started[-1] == "later", "it starts at once if none has started in this turn"

    run(main())



def test_networks_take_turns() -> None:
    started: list[str] = []

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), clock=lambda: 0.0)
        many = [f"192.0.2.{number}" for number in range(100)]
        others = ["198.51.100.1", "2001:db8::1", "198.51.100.2", "2001:db8::2"]
        pace.ask(Start(pace, "", started), "203.0.113.1", 0.001)  # the others wait
        for address in (*many, *others):
            pace.ask(Start(pace, address, started), address, 0.001)
        await until(lambda: len(started) == 105)
        assert started[1:8] == [many[0], *others[:2], many[1], *others[2:], many[2]]
        assert started[8:] == many[3:]

    run(main())



def test_others_are_accepted_while_most_that_wait_are_of_one_network(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.room, pace.most = 10, 0
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, hello = hall.listener.port, client_hello(town.client())
            pairs = []

            async def come(address: str) -> asyncio.StreamReader:
                pairs.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
                pairs[-1][1].write(hello)
                return pairs[-1][0]

            await come("127.3.0.1")
            await until(lambda: pace.waiting == 1)
            for number in range(9):
                await come(f"127.1.1.{number + 1}")
                await until(lambda number=number: pace.waiting == number + 2)
            for number in range(3):
                reader = await come(f"127.1.1.{100 + number}")
                async with asyncio.timeout(SECONDS):
                    with contextlib.suppress(ConnectionResetError):
                        assert await reader.read() == b"", "one more of that network"
            for number in range(5):
                await come(f"127.2.{number}.1")
                await until(lambda number=number: pace.waiting == 11 + number)
            status = hall.listener.status()
            assert (status.accepted, status.turned_away) == (15, 3)
            for _, writer in pairs:
                writer.close()

    run(main())



def test_no_connection_is_accepted_while_too_many_handshakes_wait(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.room, pace.most = 4, 0
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, context = hall.listener.port, town.client()
            hello = client_hello(context)
            left = []
            for number in range(30):
                left.append((await asyncio.open_connection("127.0.0.1", port))[1])
                left[-1].write(hello)
                if number < 4:
                    await until(lambda number=number: len(hall.streams()) == number + 1)
            await until(lambda: hall.listener.status().accepted >= 4)
            await asyncio.sleep(0.1)
            assert hall.listener.status().accepted < 30, "the others wait in the kernel's queue"
            pace.most = 100
            answer, client = await call(port, context)
            assert (answer, hall.listener.status().accepted) == (b"hello", 31)
            await close(client)
            for writer in left:
                writer.close()

    run(main())



def test_a_client_is_told_why_its_handshake_fails(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files(REQUIRED)) as hall:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = town.client(version=version)
                with pytest.raises(ssl.SSLError, match=r"(?i)alert.*(handshake.failure|certificate.required)"):
                    await asyncio.to_thread(lambda: Client(hall.listener.port, context).socket.recv(1))  # noqa: B023
            await until(lambda: not hall.streams() and handshakes(hall) == (2, 0, 0, 2))

    run(main())



def test_few_bytes_are_kept_of_a_client_whose_handshake_has_not_started(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.most = 0  # none starts
        async with Hall(tls=town.files(NONE), pace=pace) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(bytes(FIRST))
            await until(lambda: pace.waiting == 1)
            writer.write(b"one more")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await until(lambda: not hall.streams() and handshakes(hall) == (0, 0, 0, 1))
            writer.close()

    run(main())

