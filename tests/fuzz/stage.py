"""The broker, its model and a few users. Each method is one event, and checks its effects.

Publishes and acknowledgements may or may not be on disk when the server crashes (``commit``); all else is committed at
once, so that the model knows the state after a crash.
"""

from __future__ import annotations

from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.peer import NOWHERE
from mesh.broker.principal import BACKEND, Principal, everything
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from mesh.wire.properties import Properties
from tests.fakes.clock import FakeClock
from tests.fuzz import sizes
from tests.fuzz.model import FOREVER, Interest, Model
from tests.fuzz.store import CrashStore
from tests.fuzz.user import User

_PRINCIPAL: Final = Principal("users", BACKEND, everything())
_REQUEST: Final = 60_000  # the identifier of SUBSCRIBE and UNSUBSCRIBE


class Stage:
    """``users`` by name, which is also the client id."""

    def __init__(self, names: list[str]) -> None:
        self.clock = FakeClock()
        self.store = CrashStore()
        self.model = Model()
        self.users = {name: User(name, self.model) for name in names}
        self.settings = Settings()
        self.settings.system_interval = 0.0
        self._number = 0
        self.broker = self._start()

    def _start(self) -> Broker:
        broker = Broker(self.settings, self.store, self.clock, Tracer())
        broker.recover(self.store.live())
        broker.durable(self.store.commit())
        return broker

    # Turns

    def turn(self, commit: bool) -> None:
        """End a turn of the node."""
        broker = self.broker
        broker.end_turn()
        if commit:
            self._commit()
        dirty = broker.dirty[:]
        broker.dirty.clear()
        for connection in dirty:
            connection.dirty = False
            user = connection.shell
            assert isinstance(user, User)
            if user.connection is connection:
                user.flush()
                user.hear()

    def _commit(self) -> None:
        self.model.commit()
        self.broker.durable(self.store.commit())

    def _send(self, user: User, packet: Packet) -> None:
        """Encode and read the packet, as over a socket."""
        assert user.connection is not None
        reader = Reader(PacketLimits(), SERVER, user.protocol)
        for read in reader.feed(encode(packet, user.protocol)):
            self.broker.receive(user.connection, read)
        assert reader.error is None, reader.error

    # Connections

    def connect(self, name: str, protocol: int, clean: bool, expiry: int, window: int) -> None:
        """CONNECT, also while connected. If the session is present, the user repeats its unanswered packets."""
        user = self.users[name]
        user.drop()
        properties = None
        if protocol == MQTT5:
            properties = Properties()
            properties.session_expiry = expiry
            properties.receive_maximum = window or None
        else:
            expiry, window = 0 if clean else FOREVER, 0
        present = self.model.connect(name, clean, expiry)
        if not present:
            user.forget()
        hello = Connect(protocol, name, clean, 0, properties=properties)
        user.begin(self.broker.open(hello, _PRINCIPAL, NOWHERE, user), protocol, window)
        self._check_not_early(user, Connack)
        self._commit()
        user.flush()
        connack = user.packets.pop(0)
        assert isinstance(connack, Connack), connack
        assert (connack.reason, connack.session_present) == (0, present), connack
        user.hear()
        self.turn(True)
        self._send_again(user)

    def _send_again(self, user: User) -> None:
        for packet_id, message in list(user.published.items()):
            if message is None:
                self._release(user, packet_id, True)
            else:
                message.dup = True
                self._publish(user, message, True)

    def leave(self, name: str, politely: bool) -> None:
        """DISCONNECT, or the socket is lost."""
        user = self.users[name]
        if user.connection is None:
            return
        if politely:
            self._send(user, Disconnect())
        else:
            self.broker.lost(user.connection)
        user.drop()
        self.model.leave(name, self.clock.now)
        self.turn(True)

    def crash(self) -> None:
        """The server dies and restarts with the state on disk."""
        for user in self.users.values():
            user.drop()
        self.store = self.store.crash()
        self.model.crash(self.clock.now)
        self.broker = self._start()

    def wait(self, seconds: float) -> None:
        """Advance the clock."""
        self.clock.now += seconds
        self.broker.tick()
        self.model.tick(self.clock.now)
        self.turn(True)

    # Subscriptions

    def subscribe(self, name: str, filter: str, qos: int, no_local: bool) -> None:
        """SUBSCRIBE and its answer."""
        user = self.users[name]
        if user.connection is None:
            return
        no_local = no_local and user.protocol == MQTT5
        user.session.interests[filter] = Interest(qos, no_local)
        assert self._request(user, Subscribe(_REQUEST, [Subscription(filter, qos, no_local)])) == [qos]

    def unsubscribe(self, name: str, filter: str) -> None:
        """UNSUBSCRIBE and its answer."""
        user = self.users[name]
        if user.connection is None:
            return
        known = user.session.interests.pop(filter, None) is not None
        answer = self._request(user, Unsubscribe(_REQUEST, [filter]))
        assert answer == ([0 if known else 0x11] if user.protocol == MQTT5 else []), answer

    def _request(self, user: User, packet: Packet) -> list[int]:
        self._send(user, packet)
        self._check_not_early(user, SubAck)
        self._commit()
        user.flush()
        (answer,) = [packet for packet in user.packets if isinstance(packet, SubAck)]
        user.packets.remove(answer)
        assert answer.packet_id == _REQUEST
        user.hear()
        self.turn(True)
        return answer.reasons

    def _check_not_early(self, user: User, answer: type[Connack | SubAck]) -> None:
        """Check that no change is answered that a crash would undo."""
        if user.session.durable and self.store.position > self.broker.outbox.durable:
            user.flush()
            early = [packet for packet in user.packets if isinstance(packet, answer)]
            assert not early, f"{user.name}: {early} before it is on disk"

    # Messages

    def publish(self, name: str, topic: str, qos: int, commit: bool) -> None:
        """A new message."""
        user = self.users[name]
        if user.connection is None:
            return
        packet_id = 0
        if qos:
            packet_id = user.last_id = user.last_id + 1
        self._publish(user, Publish(topic, b"", qos, packet_id=packet_id), commit)

    def _publish(self, user: User, message: Publish, commit: bool) -> None:
        """Give a number of its own to each message that is new to the server, also to a repeat, so that the deliveries
        can be distinguished."""
        packet_id = message.packet_id
        session = user.session
        if not (message.qos == 2 and packet_id in session.incoming):
            self._number += 1
            message.payload = b"%d" % self._number
            receivers = self.model.publish(user.name, message.topic, message.qos, self._number)
            for name, qos in receivers.items():
                if qos == 0 and self.users[name].connection is not None:
                    self.users[name].unreliable.add(self._number)
            user.receivers[packet_id] = receivers
        if message.qos:
            user.published[packet_id] = message
        if message.qos == 2:
            session.incoming.add(packet_id)
        self._send(user, message)
        self.turn(commit)

    def acknowledge(self, name: str, count: int, commit: bool) -> None:
        """Send the oldest PUBACKs, PUBRECs and PUBCOMPs that are due from a user."""
        user = self.users[name]
        for _ in range(count):
            if user.connection is None or not user.acks_due:
                return
            answer = user.acks_due.pop(0)
            user.acknowledge(answer)
            self._send(user, answer)
            self.turn(commit)

    def release(self, name: str, commit: bool) -> None:
        """Send PUBREL for the oldest message of a user that has its PUBREC."""
        user = self.users[name]
        if user.connection is None:
            return
        for packet_id, message in user.published.items():
            if message is None and packet_id not in user.releasing:
                self._release(user, packet_id, commit)
                return

    def _release(self, user: User, packet_id: int, commit: bool) -> None:
        user.releasing.add(packet_id)
        user.session.incoming.discard(packet_id)
        self._send(user, Ack(PUBREL, packet_id))
        self.turn(commit)

    # What always holds

    def check(self) -> None:
        """No state is lost or left over, and each window is filled."""
        sizes.check(self.broker, self.store)
        assert len(self.broker.sessions) == len(self.model.sessions)
        if self.store.position != self.broker.outbox.durable:
            return
        for user in self.users.values():
            if user.connection is not None:
                due = user.session.due
                window = user.window or self.settings.in_flight
                assert len(user.flying()) >= min(window, len(due)), f"{user.name} waits for {due}"

    def finish(self) -> None:
        """All users reconnect and answer all packets: then no message is due."""
        self.turn(True)
        for name, session in list(self.model.sessions.items()):
            if self.users[name].connection is None:
                self.connect(name, MQTT5, False, session.expiry, 0)
        busy = True
        while busy:
            for name in self.users:
                self.acknowledge(name, 10, True)
                self.release(name, True)
            present = [user for user in self.users.values() if user.connection is not None]
            busy = any(user.acks_due or None in user.published.values() for user in present)
        for name, session in self.model.sessions.items():
            assert not session.due, f"{name} never got {session.due}"
            assert not self.users[name].published, f"{name} was never answered: {self.users[name].published}"
        assert self.broker.persistence.depth.messages == 0
