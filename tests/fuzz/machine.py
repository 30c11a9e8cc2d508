"""The state machine: clients against the broker, step by step, beside a model that says which messages must arrive.

A wrong message is found when it arrives; a missing one at the end of each example, when all clients reconnect and
acknowledge all messages. The rules only choose the steps; ``stage`` and ``user`` perform and check them.
"""

from __future__ import annotations

import sys

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fuzz.model import FOREVER
from tests.fuzz.stage import DESK, Stage

NAMES = ["anna", "bert", "cora", DESK]
TOPICS = ["a", "a/b", "a/c", "b"]
FILTERS = [*TOPICS, "#", "a/#", "+", "a/+", "+/b"]

names = st.sampled_from(NAMES)


class Machine(RuleBasedStateMachine):
    """The rules are actions of clients, crashes and time."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(NAMES)

    @initialize(
        window=st.integers(0, 2),
        qos=st.integers(1, 2),
        room=st.sampled_from([0, 1, 2, 4]),
        vehicles=st.booleans(),
        letters=st.sampled_from([(1000, 1000), (2, 1000), (3, 4)]),
    )
    def begin(self, window: int, qos: int, room: int, vehicles: bool, letters: tuple[int, int]) -> None:
        """A publisher, and a receiver that keeps its session."""
        self.stage = Stage(NAMES, room, vehicles, letters)
        self.stage.connect("anna", 5, True, 100, 0)
        self.stage.connect("bert", 5, True, 100, window)
        self.stage.subscribe("bert", "a/#", qos, False)

    @rule(
        name=names,
        protocol=st.sampled_from([4, 5, 5]),
        clean=st.sampled_from([False, False, False, True]),
        expiry=st.sampled_from([0, 50, 100, FOREVER]),
        window=st.sampled_from([0, 0, 1, 2, 5]),
    )
    def connect(self, name: str, protocol: int, clean: bool, expiry: int, window: int) -> None:
        self.stage.connect(name, protocol, clean, expiry, window)

    def _ensure_connected(self, name: str) -> None:
        """Connect a disconnected client: most steps need a connection."""
        if self.stage.users[name].connection is None:
            self.stage.connect(name, 5, False, 100, 0)

    @rule(name=names, politely=st.booleans())
    def leave(self, name: str, politely: bool) -> None:
        self.stage.leave(name, politely)

    @rule()
    def crash(self) -> None:
        self.stage.crash()

    @rule(seconds=st.sampled_from([1.0, 49.0, 51.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.stage.wait(seconds)

    @rule(name=names, filter=st.sampled_from(FILTERS), qos=st.integers(0, 2), no_local=st.booleans())
    def subscribe(self, name: str, filter: str, qos: int, no_local: bool) -> None:
        self._ensure_connected(name)
        self.stage.subscribe(name, filter, qos, no_local)

    @rule(qos=st.integers(0, 1))
    def read_letters(self, qos: int) -> None:
        self._ensure_connected(DESK)
        self.stage.read_letters(qos)

    @rule(name=names, filter=st.sampled_from(FILTERS))
    def unsubscribe(self, name: str, filter: str) -> None:
        self.stage.unsubscribe(name, filter)

    @rule(
        name=names,
        topic=st.sampled_from(TOPICS),
        qos=st.integers(0, 2),
        count=st.integers(1, 4),
        commit=st.booleans(),
    )
    def publish(self, name: str, topic: str, qos: int, count: int, commit: bool) -> None:
        self._ensure_connected(name)
        for _ in range(count):
            self.stage.publish(name, topic, qos, commit)

    @rule(name=names, count=st.integers(1, 4), commit=st.booleans())
    def acknowledge(self, name: str, count: int, commit: bool) -> None:
        self.stage.acknowledge(name, count, commit)

    @rule(name=names, index=st.integers(0, 9))
    def misfit(self, name: str, index: int) -> None:
        self.stage.misfit(name, index)

    @rule(name=names, commit=st.booleans())
    def release(self, name: str, commit: bool) -> None:
        self.stage.release(name, commit)

    @rule()
    def compact(self) -> None:
        self.stage.compact()

    @rule()
    def commit(self) -> None:
        self.stage.turn(True)

    @invariant()
    def no_message_is_lost(self) -> None:
        self.stage.check()

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else a rule has failed: keep its exception
            self.stage.finish()
