"""Headers of the PROXY protocol, requests and frames of WebSocket: a slice of ``scripts/fuzz --ways``."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from mesh.transport.stream import HOLD_BROKER
from mesh.transport.upgrade import Rules
from mesh.transport.websocket import FRAMES, PORTION
from tests.fuzz.target_ways import ROUND, Connection, run_ways
from tests.fuzz.watch import Breach
from tests.support.websockets import BINARY, frame

ROUNDS = 4


def test_any_pieces_give_the_same_as_a_simple_reader() -> None:
    ends: Counter[str] = Counter()
    for number in range(ROUNDS):
        ends += run_ways(1, number)
    assert ends.total() == ROUNDS * ROUND
    for end in (
        "header", "wrong header", "short header", "request 101", "request 400", "request 403", "request short",
        "frames open", "frames failed", "frames closed",
    ):  # fmt: skip
        assert ends[end] > ends.total() // 100, f"too few cases end as {end}: {ends}"


def test_a_failure_names_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rules, "check", lambda rules, headers: None)
    with pytest.raises(Breach, match=r"seed 1, round 0, case \d+ \(requested\): Breach\("):
        run_ways(1, 0)


def test_frames_beyond_a_turn_wait_for_the_next_and_while_the_stream_is_held() -> None:
    connection = Connection(Random(1), 0.0)
    loop, stream, below = connection.loop, connection.stream, connection.below
    connection.socket.data_received(frame(BINARY, b"x") * (3 * FRAMES))
    assert (len(stream.got), below.reading) == (PORTION, False)
    loop.turn()
    handled = PORTION + FRAMES // 2
    assert (len(stream.got), below.reading) == (handled, False)
    stream.hold(HOLD_BROKER)
    loop.turn()
    assert len(stream.got) == handled
    stream.release(HOLD_BROKER)
    assert not below.reading, "what has come is handled first"
    while not below.reading:
        loop.turn()
    assert len(stream.got) == 3 * FRAMES
