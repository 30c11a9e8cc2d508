"""The broker, its model and a few users. Each method is one event, and checks its effects.

Publishes and acknowledgements may or may not be on disk when the server crashes (``commit``); all else is committed at
once, so that the model knows the state after a crash.
"""

from __future__ import annotations

from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.letter import ALL, COST
from mesh.broker.peer import NOWHERE
from mesh.broker.principal import BACKEND, VEHICLE, Principal, everything
from mesh.broker.session import Session
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
from tests.fuzz.model import FOREVER, DeadLetter, Interest, Model
from tests.fuzz.store import CrashStore
from tests.fuzz.user import User

DESK: Final = "desk"  # the user that reads dead letters
_LETTER: Final = COST + 40  # bytes of a dead letter: its topic, its number and its share have up to forty
_REQUEST: Final = 60_000  # the identifier of SUBSCRIBE and UNSUBSCRIBE


class Stage:
    """``users`` by name, which is also the client id. ``room``: messages that may wait for one of them (0: many).
    ``vehicles``: they are vehicles, whose publishers are told if no receiver has room; else they are back ends, whose
    queues spill into the dead letters. ``letters``: how many of those have room, of one receiver and of all."""

    def __init__(
        self, names: list[str], room: int = 0, vehicles: bool = False, letters: tuple[int, int] = (1000, 1000)
    ) -> None:
        self.clock = FakeClock()
        self.store = CrashStore()
        share, whole = letters[0] * _LETTER, letters[1] * _LETTER
        self.model = Model(whole, share)
        self.users = {name: User(name, self.model) for name in names}
        self.vehicles = vehicles
        self.room = room or 1000
        self.settings = Settings()
        self.settings.system_interval = 0.0
        self.settings.max_queue_messages = self.settings.backend_queue_messages = self.room
        self.settings.dead_letter_share = share
        self.settings.dead_letter_bytes = whole
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
        user.begin(self.broker.open(hello, self._principal(name), NOWHERE, user), protocol, window)
        self._check_not_early(user, Connack)
        self._commit()
        user.flush()
        connack = user.packets.pop(0)
        assert isinstance(connack, Connack), connack
        assert (connack.reason, connack.session_present) == (0, present), connack
        user.hear()
        self.turn(True)
        self._send_again(user)

    def _principal(self, name: str) -> Principal:
        if self.vehicles and name != DESK:
            return Principal(name, VEHICLE, everything(), name)
        return Principal("users", BACKEND, everything())

    def _share(self, name: str) -> str:
        return f"vehicle/{name}" if self.vehicles and name != DESK else f"backend/users/{name}"

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

    def compact(self) -> None:
        """The journal copies its live items."""
        self.store.compact()

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
        new = not (message.qos == 2 and packet_id in session.incoming)
        if new:
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
        before = self._letters()
        self._send(user, message)
        if new:
            self._miss(user, message, [one for one in self._letters() if one not in before])
        self.turn(commit)

    def _letters(self) -> list[DeadLetter]:
        """The dead letters of the server."""
        letters = self.broker.letters
        return [
            DeadLetter(int(letters.load(one).payload), one.share, one.size)
            for one in letters.queue.after(0, len(letters))
        ]

    def _miss(self, user: User, message: Publish, letters: list[DeadLetter]) -> None:
        """Check which receivers missed a new message, and that they had no room. ``letters`` are new."""
        packet_id = message.packet_id
        receivers = [name for name, qos in user.receivers.get(packet_id, {}).items() if qos]
        took = [name for name in receivers if self._holds(name, self._number)]
        user.letters[packet_id] = letters
        for letter in letters:
            (name,) = [name for name in receivers if self._share(name) == letter.share]
            assert name not in took, f"{letter}, and {name} has the message, too"
            self._check_full(name)
            self.model.miss(name, letter)
            self._copy(letter)
            del user.receivers[packet_id][name]
        missed = [name for name in receivers if name not in took and name in user.receivers[packet_id]]
        if not missed:
            if letters and not user.receivers[packet_id]:
                user.receivers[packet_id][DESK] = 0  # it counts as taken
            return
        assert not took, f"{missed} lost a message that {took} have"
        assert not letters, f"{missed} lost a message, and others have {letters}"
        assert user.protocol == MQTT5, f"{missed} lost a message whose publisher cannot be told"
        for name in missed:
            self._check_full(name)
            due = self.model.sessions[name].due
            self.model.sessions[name].due = [one for one in due if one.number != self._number]
        user.refused.add(packet_id)
        user.session.incoming.discard(packet_id)

    def _holds(self, name: str, number: int) -> bool:
        """Whether the queue of a user has a message, in memory or in the journal."""
        session = self._session(name)
        found = [*session.outbound.waiting, *session.outbound.in_flight.values()]
        return any(int(self.broker.persistence.load(one).payload) == number for one in found if one.state < 2)

    def _session(self, name: str) -> Session:
        principal = self._principal(name)
        session = self.broker.sessions.get((principal.kind, principal.name, name))
        assert session is not None
        return session

    def _unreliable(self, name: str) -> int:
        """How many messages of QoS 0 wait in the queue of a user."""
        return sum(one.qos == 0 for one in self._session(name).outbound.waiting)

    def _check_full(self, name: str) -> None:
        due = len(self.model.sessions[name].due) - 1
        if name == DESK:
            return  # the dead letters that it has not acknowledged take room, too
        due += self._unreliable(name)  # those wait in the same queue
        assert due >= self.room, f"{name} missed a message with {due} in its queue of {self.room}"

    def _copy(self, letter: DeadLetter) -> None:
        """A reader that is connected and not durable gets a copy of a new letter."""
        desk = self.users.get(DESK)
        if desk is None or desk.connection is None:
            return
        interest = desk.session.interests.get(ALL)
        if interest is not None and (interest.qos == 0 or not desk.session.durable):
            desk.copies.append(letter.number)

    def read_letters(self, qos: int) -> None:
        """The desk subscribes to all dead letters."""
        self.subscribe(DESK, ALL, qos, False)

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

    def misfit(self, name: str, index: int) -> None:
        """Send an acknowledgement that does not fit a delivery: the server closes the connection, and the delivery
        stays due. For the model the connection is lost, too."""
        user = self.users[name]
        wrong = [] if user.connection is None else user.misfits()
        if not wrong:
            return
        self._send(user, wrong[index % len(wrong)])
        user.expect_end()
        user.drop()
        self.model.leave(name, self.clock.now)
        self.turn(True)

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
                assert len(user.flying()) >= min(window - len(user.lent), len(due)), f"{user.name} waits for {due}"
        self._check_letters()

    def _check_letters(self) -> None:
        found, wanted = _by_number(self._letters()), _by_number(self.model.letters)
        assert found == wanted, f"the dead letters are {found}, not {wanted}"

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
        self._check_letters()
        assert self.broker.persistence.depth.messages == 0


def _by_number(letters: list[DeadLetter]) -> list[tuple[int, str]]:
    return sorted((one.number, one.share) for one in letters)
