"""A client beside the model: it records the packets that it got and must answer, and rejects wrong ones."""

from __future__ import annotations

from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Disconnect, Packet, Publish
from mesh.wire.reasons import PROTOCOL_ERROR
from tests.fuzz.model import DeadLetter, Due, Model, Session

NO_RECEIVER = 0x10  # the reason code of a publish without a receiver
FULL = 0x97  # of one that every receiver has no room for
LETTERS = "$dead-letters/"


class User(Flushable):
    """``window`` is its receive maximum. The payload of each message is its number."""

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self.model = model
        self.protocol = MQTT5
        self.window = 0
        self.connection: Connection | None = None
        self.reader = Reader(PacketLimits(), CLIENT, MQTT5)
        self.packets: list[Packet] = []
        # As a receiver.
        self.delivered: set[int] = set()  # numbers of QoS 2 that its application got
        self.seen: set[int] = set()  # numbers of QoS 1 and 2 from all connections of the session
        self.now: list[int] = []  # those of this connection, in order
        self.unreliable: set[int] = set()  # numbers that may come with QoS 0 on this connection
        self.numbers: dict[int, int] = {}  # identifiers of the server -> numbers
        self.received: set[int] = set()  # QoS 2 identifiers that are not released
        self.acks_due: list[Ack] = []  # acknowledgements that it has still to send
        self.lent: dict[int, DeadLetter] = {}  # dead letters that it has not acknowledged, by identifier
        self.copies: list[int] = []  # numbers of dead letters that may come as copies
        # As a publisher.
        self.published: dict[int, Publish | None] = {}  # unanswered, in order; ``None`` once PUBREC came
        self.receivers: dict[int, dict[str, int]] = {}  # of unanswered messages
        self.letters: dict[int, list[DeadLetter]] = {}  # of unanswered messages that receivers missed
        self.refused: set[int] = set()  # unanswered messages that no receiver has room for
        self.releasing: set[int] = set()  # identifiers whose PUBREL was sent on this connection
        self.last_id = 0

    @property
    def session(self) -> Session:
        """The session in the model."""
        return self.model.sessions[self.name]

    def begin(self, connection: Connection, protocol: int, window: int) -> None:
        """A new connection."""
        self.connection, self.protocol, self.window = connection, protocol, window
        self.reader = Reader(PacketLimits(), CLIENT, protocol)

    def drop(self) -> None:
        """The connection is closed: drop its state."""
        self.connection = None
        self.packets.clear()
        self.now.clear()
        self.acks_due.clear()
        self.unreliable.clear()
        self.releasing.clear()
        self.lent.clear()
        self.copies.clear()
        self.refused.clear()

    def forget(self) -> None:
        """CONNACK says that the session is not present: drop its state."""
        self.seen.clear()
        self.received.clear()
        self.numbers.clear()
        self.published.clear()
        self.receivers.clear()
        self.letters.clear()

    def flush(self) -> None:
        """Read the output of the server."""
        connection = self.connection
        assert connection is not None
        data = b"".join(connection.out)
        connection.out.clear()
        self.packets += self.reader.feed(data)
        assert self.reader.error is None, self.reader.error
        assert not connection.closing, f"the server has closed the connection of {self.name}: {self.packets}"

    def hear(self) -> None:
        """Check the packets that came."""
        packets, self.packets = self.packets, []
        for packet in packets:
            if isinstance(packet, Publish):
                self._hear_publish(packet)
            elif isinstance(packet, Ack) and packet.type == PUBREL:
                self._hear_release(packet)
            elif isinstance(packet, Ack):
                self._hear_answer(packet)
            else:
                assert isinstance(packet, Disconnect), packet

    # As a receiver

    def _hear_publish(self, packet: Publish) -> None:
        number = int(packet.payload)
        if packet.topic.startswith(LETTERS):
            self._hear_letter(packet, number)
            return
        if packet.qos == 0:
            assert number in self.unreliable, f"{self.name}: {packet} was not sent, or came twice"
            self.unreliable.discard(number)
            return
        due = self.due(number)
        assert due is not None, f"{self.name}: {packet} is not due"
        assert packet.qos == due.qos, (packet, due)
        assert not due.released, f"{self.name}: {packet} after PUBREC"
        assert packet.dup or number not in self.seen, f"{self.name}: {packet} was sent before, and has no DUP"
        assert not self.now or number > self.now[-1], f"{self.name}: {packet} after {self.now}"
        if self.session.durable:
            assert self.model.on_disk(self.name, number), f"{self.name}: {packet} is not on disk"
        self.seen.add(number)
        self.now.append(number)
        self._take(packet, number)
        assert self._in_flight() <= (self.window or 0xFFFF), f"{self.name}: more than its receive maximum"

    def _in_flight(self) -> int:
        return len(self.flying()) + len(self.lent)

    def _hear_letter(self, packet: Publish, number: int) -> None:
        """A dead letter: a durable reader gets it until it has acknowledged it; another gets one copy."""
        user = [] if packet.properties is None else packet.properties.user
        if self.protocol == MQTT5:
            assert [name for name, _ in user[:4]] == ["reason", "time", "share", "expires"], packet
        if packet.qos == 0 or not self.session.durable:
            assert number in self.copies, f"{self.name}: {packet} is no copy of a new dead letter"
            self.copies.remove(number)
            if packet.qos:
                self.numbers.pop(packet.packet_id, None)
                self.acks_due.append(Ack(PUBACK, packet.packet_id))
            return
        share = user[2][1] if self.protocol == MQTT5 else None
        letters = self.model.letters + self.model.dropped
        found = [one for one in letters if one.number == number and share in (None, one.share)]
        found = [one for one in found if one not in self.lent.values()]
        assert found, f"{self.name}: {packet} is no dead letter"
        assert packet.qos == 1
        assert not self.model.forgets_letter(found[0]), f"{self.name}: {packet} is not on disk"
        self.lent[packet.packet_id] = found[0]
        self.acks_due.append(Ack(PUBACK, packet.packet_id))
        assert self._in_flight() <= (self.window or 0xFFFF), f"{self.name}: more than its receive maximum"

    def _take(self, packet: Publish, number: int) -> None:
        packet_id = packet.packet_id
        if packet.qos == 1:
            self.acks_due.append(Ack(PUBACK, packet_id))
        else:
            if packet_id in self.received:
                assert self.numbers[packet_id] == number, f"{self.name}: {packet} has an identifier in use"
            else:
                assert number not in self.delivered, f"{self.name}: {packet} comes twice to the application"
                self.received.add(packet_id)
                self.delivered.add(number)
            self.acks_due.append(Ack(PUBREC, packet_id))
        self.numbers[packet_id] = number

    def _hear_release(self, packet: Ack) -> None:
        assert packet.reason == 0, packet
        due = self.due(self.numbers[packet.packet_id])
        assert due is not None and due.released, f"{self.name}: {packet} for {due}"  # noqa: PT018  one thought
        undone = self.model.forgets_release(self.name, due.number)
        assert not undone, f"{self.name}: {packet} before the release is on disk"
        self.received.discard(packet.packet_id)
        self.acks_due.append(Ack(PUBCOMP, packet.packet_id))

    def due(self, number: int) -> Due | None:
        """The message that is due to it."""
        return next((due for due in self.session.due if due.number == number), None)

    def flying(self) -> list[Due]:
        """The deliveries that it has and has not acknowledged."""
        return [due for due in self.session.due if due.number in self.now or due.released]

    def misfits(self) -> list[Ack]:
        """The acknowledgements that do not fit the state of a delivery that it has, in the order of the deliveries."""
        found: list[Ack] = []
        identifiers = {number: packet_id for packet_id, number in self.numbers.items()}
        for due in self.flying():
            wrong = (PUBREC, PUBCOMP) if due.qos == 1 else (PUBACK,) if due.released else (PUBACK, PUBCOMP)
            found += [Ack(type, identifiers[due.number]) for type in wrong]
        return found

    def expect_end(self) -> None:
        """The server has closed the connection for a protocol error, and has said nothing else."""
        connection = self.connection
        assert connection is not None
        assert connection.closing, f"the server has not closed the connection of {self.name}"
        packets = self.reader.feed(b"".join(connection.out))
        connection.out.clear()
        reasons = [packet.reason if isinstance(packet, Disconnect) else -1 for packet in packets]
        assert reasons == ([PROTOCOL_ERROR] if self.protocol == MQTT5 else []), packets

    def acknowledge(self, answer: Ack) -> None:
        """It sends ``answer``: update the model."""
        if answer.packet_id in self.lent:
            letter = self.lent.pop(answer.packet_id)
            if letter in self.model.letters:
                self.model.letters.remove(letter)
            return
        if answer.packet_id not in self.numbers:
            return  # a copy of a letter
        due = self.due(self.numbers[answer.packet_id])
        assert due is not None, f"{self.name} acknowledges twice: {answer}"
        if answer.type == PUBREC:
            due.released = True
        else:
            self.session.due.remove(due)

    # As a publisher

    def _hear_answer(self, packet: Ack) -> None:
        packet_id = packet.packet_id
        assert packet_id in self.published, f"{self.name}: {packet} answers nothing"
        if packet.type == PUBCOMP:
            undone = self.model.forgets_completion(self.name, packet_id)
            assert not undone, f"{self.name}: {packet}, and a crash would open the identifier again"
        else:
            self._check_answer(packet)
        if packet.type == PUBREC and packet.reason < 0x80:
            self.published[packet_id] = None
        else:
            del self.published[packet_id]
            self.releasing.discard(packet_id)

    def _check_answer(self, packet: Ack) -> None:
        """Check that answers come in the order of publishing, and that the message is on disk for each durable receiver
        of QoS 1 or 2."""
        message = self.published[packet.packet_id]
        assert message is not None, f"{self.name}: {packet} comes twice"
        oldest = next(packet_id for packet_id, one in self.published.items() if one is not None)
        assert oldest == packet.packet_id, f"{self.name}: {packet}, and {oldest} was published before"
        assert packet.type == (PUBACK if message.qos == 1 else PUBREC), packet
        receivers = self.receivers.pop(packet.packet_id, {})
        if packet.packet_id in self.refused:
            self.refused.discard(packet.packet_id)
            assert (self.protocol, packet.reason) == (MQTT5, FULL), packet
            return
        for letter in self.letters.pop(packet.packet_id, ()):
            assert not self.model.forgets_letter(letter), f"{packet}, and a crash would undo {letter}"
        for name, qos in receivers.items():
            kept = not qos or self.model.keeps(name, int(message.payload))
            assert kept, f"{packet}, and {name} would lose it in a crash"
        if self.protocol == MQTT5 and not message.dup:
            assert packet.reason == (0 if receivers else NO_RECEIVER), (packet, receivers)
