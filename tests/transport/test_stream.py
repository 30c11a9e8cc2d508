"""Large reads are handled in portions."""

from __future__ import annotations

import asyncio

from mesh.transport.stream import HOLD_BROKER, HOLD_TURN, PORTION, Stream, StreamGroup
from mesh.transport.wheel import Wheel
from tests.support.loop import run


class FakeTransport(asyncio.Transport):
    """Records whether the stream reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing is sent."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""


class Recorder(Stream):
    """Records what it receives, and what it was told at its end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(StreamGroup(loop, Wheel(loop)))
        self.got: list[bytes] = []
        self.fake = FakeTransport()
        self.connection_made(self.fake)

    def received(self, data: bytes) -> None:
        self.got.append(data)

    def lost(self, error: Exception | None) -> None:
        self.got.append(b"lost")

    def expired(self) -> None:
        raise AssertionError


DATA = bytes(range(256)) * (PORTION // 64)  # four portions


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_large_read_is_handled_one_portion_in_a_turn() -> None:
    async def main() -> None:
        stream = Recorder()
        stream.data_received(DATA)
        for number in range(1, 5):
            assert len(stream.got) == number
            assert stream.fake.reading == (number == 4)
            await asyncio.sleep(0)
        assert b"".join(stream.got) == DATA
        assert max(len(data) for data in stream.got) == PORTION
        assert stream.holds == 0
        stream.data_received(b"more")
        assert stream.got[-1] == b"more"

    run(main())


def test_what_the_transport_has_read_already_comes_after_the_rest() -> None:
    async def main() -> None:
        stream = Recorder()
        stream.data_received(DATA)
        stream.data_received(b"more")
        await settle()
        assert b"".join(stream.got) == DATA + b"more"
        assert stream.fake.reading

    run(main())


def test_the_rest_waits_while_the_stream_is_held_for_another_reason() -> None:
    async def main() -> None:
        stream = Recorder()
        stream.data_received(DATA)
        stream.hold(HOLD_BROKER)
        await settle()
        assert len(stream.got) == 1
        assert stream.group.held().turn == 1
        stream.release(HOLD_BROKER)
        assert stream.holds == HOLD_TURN
        await settle()
        assert b"".join(stream.got) == DATA
        assert stream.fake.reading

    run(main())


def test_what_came_before_the_end_of_the_connection_counts() -> None:
    async def main() -> None:
        stream = Recorder()
        stream.data_received(DATA)
        stream.connection_lost(ConnectionResetError())
        assert b"".join(stream.got) == DATA + b"lost"
        await settle()
        assert stream.got[-1] == b"lost"

    run(main())


def test_the_rest_is_discarded_when_this_end_closes() -> None:
    async def main() -> None:
        stream = Recorder()
        stream.data_received(DATA)
        stream.finish()
        await settle()
        assert len(stream.got) == 1
        stream.connection_lost(None)
        assert stream.got[1:] == [b"lost"]

    run(main())
