"""The retained backlog against a model: a subscription brings all messages that are due, in any order of events."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mesh.broker.settings import Settings
from mesh.wire.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, Unsubscribe
from tests.support.bench import Bench, Client
from tests.support.items import owned_items

TOPICS = 60
FILTERS = ("r/+", "r/#", "r/7")
FOREVER = 0xFFFFFFFF


class Machine(RuleBasedStateMachine):
    """One subscriber with a small window and a small queue, and the messages that are due to it."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.retained: dict[str, bytes] = {}
        self.due: dict[str, dict[str, bytes]] = {}  # by filter: messages retained at SUBSCRIBE and since
        self.brought: set[tuple[str, bytes]] = set()  # messages that any subscription may have brought until now
        self.unacknowledged: list[int] = []  # on this connection

    @initialize(queue=st.integers(1, 8), size=st.sampled_from([30, 10_000]), window=st.integers(1, 3))
    def begin(self, queue: int, size: int, window: int) -> None:
        limits = Settings()
        limits.max_queue_messages, limits.max_queue_bytes = queue, size
        limits.backend_queue_messages, limits.backend_queue_bytes = queue, size
        limits.in_flight, limits.system_interval = window, 0.0
        self.bench = Bench(limits)
        self.sender = self.bench.client("sender", "other")
        self.subscriber = self._join()
        for number in range(TOPICS):
            self.retain(number)
        self.subscribe("r/+")

    def _join(self) -> Client:
        self.unacknowledged = []
        return self.bench.client("r", auto_ack=False, clean=False, expiry=FOREVER)

    @rule(number=st.integers(0, TOPICS - 1))
    def retain(self, number: int) -> None:
        self.version += 1
        self._set(f"r/{number}", b"%d" % self.version)  # retained even if the publish is refused

    @rule(number=st.integers(0, TOPICS - 1))
    def remove(self, number: int) -> None:
        self._set(f"r/{number}", b"")

    def _set(self, topic: str, payload: bytes) -> None:
        self.sender.publish(topic, payload, 1, retain=True)
        self.retained.pop(topic, None)
        if payload:
            self.retained[topic] = payload
        for due in self.due.values():
            due.pop(topic, None)
        self.hear()

    @rule(filter=st.sampled_from(FILTERS))
    def subscribe(self, filter: str) -> None:
        self._ensure_connected()
        self.subscriber.send(Subscribe(1, [Subscription(filter, 1)]))
        assert [answer.reasons for answer in self.subscriber.take(SubAck)] == [[1]]
        found = {topic: payload for topic, payload in self.retained.items() if filter != "r/7" or topic == "r/7"}
        self.due[filter] = found
        self.brought.update(found.items())
        self.hear()

    @rule(filter=st.sampled_from(FILTERS))
    def unsubscribe(self, filter: str) -> None:
        self._ensure_connected()
        self.subscriber.send(Unsubscribe(1, [filter]))
        self.subscriber.take(SubAck)
        self.due.pop(filter, None)
        self.hear()

    @rule(count=st.integers(1, 5), late=st.booleans())
    def acknowledge(self, count: int, late: bool) -> None:
        """``late``: a crash may lose the record of the acknowledgement."""
        self._ensure_connected()
        self.bench.auto = not late
        for _ in range(count):
            self.hear()
            if not self.unacknowledged:
                break
            self.subscriber.send(Ack(PUBACK, self.unacknowledged.pop(0)))
        self.bench.auto = True
        self.hear()

    @rule()
    def leave(self) -> None:
        if not self.subscriber.connection.closing:
            self.subscriber.lose()

    @rule()
    def crash(self) -> None:
        self.bench = self.bench.restart()
        self.sender = self.bench.client("sender", "other")
        self.subscriber.connection.closing = True

    @rule()
    def pause(self) -> None:
        self._ensure_connected()
        self.bench.broker.pause(self.subscriber.connection)

    @rule()
    def resume(self) -> None:
        self._ensure_connected()
        self.bench.broker.resume(self.subscriber.connection)
        self.bench.turn()
        self.hear()

    def _ensure_connected(self) -> None:
        if self.subscriber.connection.closing:
            self.subscriber = self._join()
            self.hear()

    def hear(self) -> None:
        """Check the messages that came on this connection."""
        for message in self.subscriber.take(Publish):
            if message.qos:
                self.unacknowledged.append(message.packet_id)
            if message.retain:
                assert (message.topic, message.payload) in self.brought
                for due in self.due.values():
                    if due.get(message.topic) == message.payload:
                        del due[message.topic]

    def teardown(self) -> None:
        """The subscriber takes all messages: then no message is due, in memory or in the journal."""
        if sys.exc_info()[0] is not None:
            return  # a rule has failed: keep its exception
        self.resume()
        while self.unacknowledged:
            self.acknowledge(10, False)
        assert not any(self.due.values()), self.due
        for session in self.bench.broker.sessions.all():
            assert not session.retained_backlog
            assert not any(interest.due_until for interest in session.interests.values())
        assert owned_items(self.bench.broker) == {item.id for item in self.bench.store.live()}


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestRetainedBacklog: Any = Machine.TestCase
