"""What TLS has decrypted comes to a protocol whole and in order."""

from __future__ import annotations

import asyncio

from mesh.transport.plaintext import Plaintext


class Upper(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(exc)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


def fill(plaintext: Plaintext, data: bytes, hint: int) -> None:
    buffer = plaintext.get_buffer(hint)
    assert len(buffer) >= min(len(data), 1 << 18)
    buffer[: len(data)] = data
    plaintext.buffer_updated(len(data))


def test_what_was_read_is_kept_when_others_read_into_the_same_block() -> None:
    first, second = Upper(), Upper()
    one, other = Plaintext(first), Plaintext(second)
    for number in range(3):
        fill(one, bytes([number]) * 1000, 1256)
        fill(other, bytes([100 + number]) * (1 << 18), 1 << 20)
    assert first.calls == [bytes([number]) * 1000 for number in range(3)]
    assert second.calls == [bytes([100 + number]) * (1 << 18) for number in range(3)]


def test_everything_else_is_passed_on() -> None:
    upper, error = Upper(), ConnectionResetError()
    plaintext = Plaintext(upper)
    plaintext.pause_writing()
    plaintext.resume_writing()
    plaintext.eof_received()
    plaintext.connection_lost(error)
    assert upper.calls == ["pause", "resume", "eof", error]
    assert len(plaintext.get_buffer(-1)) == 1 << 18
