"""The broker that edges and cores run: it takes the packets of all connections and makes the packets for them.

It makes all parts, and knows which part handles each packet and when each has its turn: ``Opening`` and ``Closing``
take the begin and the end of connections, ``Intake`` publishes, ``Subscriber`` subscriptions, ``Courier``
acknowledgements, ``LongPackets`` what takes several turns, ``Due`` what is due in time. It must never touch a socket, a
file or a clock of its own. What always holds:

* a connection that is closing has no session, and its packets are ignored;
* no packet of a client raises: the broker answers it with a reason code, or closes the connection with one;
* an error in this program in one part of a turn, or at one connection, does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.api import BrokerApi
from mesh.broker.catchup import CatchUp
from mesh.broker.claim import Ended, Ends, ignore
from mesh.broker.closing import Closing
from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.deadletters import DeadLetters
from mesh.broker.dispatcher import Dispatcher, Forwarder
from mesh.broker.due import Due
from mesh.broker.enforcement import Enforcement
from mesh.broker.figures import Figures
from mesh.broker.inbox import Inbox, InboxRules
from mesh.broker.intake import Intake
from mesh.broker.letter import read_letter
from mesh.broker.letterreaders import LetterReaders
from mesh.broker.longpackets import LongPackets
from mesh.broker.notices import Notices
from mesh.broker.opening import Opening
from mesh.broker.outbox import Outbox
from mesh.broker.peer import Peer
from mesh.broker.persistence import Persistence
from mesh.broker.principal import Permissions, Principal, everything
from mesh.broker.quotas import Quotas
from mesh.broker.recovery import Recovery
from mesh.broker.refusals import Refusals
from mesh.broker.retained import Retained
from mesh.broker.roles import RolesOf
from mesh.broker.room import Room
from mesh.broker.session import Connection, Key, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import HOLD, Settings
from mesh.broker.sharing import Sharing
from mesh.broker.shell import Flushable
from mesh.broker.status import BrokerStatus
from mesh.broker.subscriber import Subscriber
from mesh.broker.subscriptions import Subscriptions
from mesh.broker.system import SystemTopics
from mesh.broker.trace import Tracer
from mesh.broker.work import Work
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import RELEASED, Delivery
from mesh.session.store import Item, Store
from mesh.wire import reasons
from mesh.wire.encode import encode
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
)
from mesh.wire.properties import Properties

_LOOK: Final = 2  # at the roles of a back end, see ``work``
_RELEASE: Final = 8  # steps of what one connection waited for, see ``work``
_RELEASED: Final = 512  # connections whose packets are released at once, some 5 ms

_PINGRESP: Final = encode(Ping(PINGRESP), MQTT5)
_ACKS: Final = {PUBACK: "PUBACK", PUBREC: "PUBREC", PUBCOMP: "PUBCOMP"}


@final
class Broker(BrokerApi):
    """``clock`` gives seconds since 1970. ``vehicle_of`` gives the vehicle of a topic, for traces. ``notices`` are the
    lines of the log about refusals. ``permissions_of`` gives what the client with the key of a session may do
    today, that had these roles, and was admitted by the provider with this name."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], float],
        tracer: Tracer,
        forwarder: Forwarder | None = None,
        inbox: InboxRules | None = None,
        vehicle_of: Callable[[str], str | None] | None = None,
        notices: Notices | None = None,
        permissions_of: Callable[[Key, tuple[str, ...], str], Permissions] | None = None,
    ) -> None:
        permissions_of = permissions_of or _all_permissions
        self.settings = settings
        self.store = store
        self.clock = clock
        self.tracer = tracer
        self.notices = notices or Notices(_discard, clock)
        self.counters = BrokerCounters()
        self.persistence = Persistence(store)
        self.outbox = Outbox(self.counters)
        self.dirty = self.outbox.dirty  # connections with something to write; the node empties it at the end of a turn
        self.work = Work()
        self._vehicle_of = vehicle_of or _no_vehicle
        self.quotas = Quotas(settings, self.persistence.depth, self.vehicle_of)
        self.letters = DeadLetters(settings, self.persistence, self.counters, clock, self.answered, self.notices)
        self.quotas.depths.append(self.letters.depth)
        self.room = Room(settings, self.persistence, self.letters, self.counters, clock, self.quotas, self.notices)
        self.courier = Courier(
            settings, self.persistence, self.outbox, self.letters, self.counters, clock, tracer, self.quotas,
            self.notices, self.work, self.room,
        )  # fmt: skip
        self.subscriptions = Subscriptions(settings.routes, settings.refused)
        self.readers = LetterReaders(
            settings, self.subscriptions, self.letters, self.courier, self.room, self.counters, clock, self.notices
        )
        self.letters.added = self.readers.added
        self.persistence.letter_read = self.readers.read
        self.courier.lost = self.readers.lost
        self.courier.refused = self._refused_by_core
        self.refusals = Refusals(
            settings, self.persistence, self.letters, self.courier, self.room, self.counters, self.answered,
            self.vehicle_of, self.notices,
        )  # fmt: skip
        self.sharing = Sharing(settings, self.subscriptions, self.persistence, self.courier, self.work, self.quotas)
        self.sessions = Sessions(settings, self.persistence, self.subscriptions, self.quotas, self.sharing, self.work)
        self.retained = Retained(self.persistence, settings, self.quotas, self.work)
        rules = inbox or InboxRules()
        self.inbox = Inbox(rules, self.sessions, self.persistence, self.courier, clock, settings, self.quotas)
        self.catch_up = CatchUp(
            settings, self.subscriptions, self.retained, self.persistence, self.courier, self.room, self.counters, clock
        )
        forwarder = forwarder or Forwarder()
        self.dispatcher = Dispatcher(
            self.subscriptions, self.retained, self.catch_up, self.inbox, self.persistence, self.courier,
            self.refusals, forwarder, clock, settings.fan_out, self.work, self._fanned_out,
            permissions_of, self.notices, self.counters,
        )  # fmt: skip
        self.inbox.move = self.dispatcher.fan_outs.move
        self.closing = Closing(
            settings, store, clock, self.outbox, self.courier, self.sessions, self.sharing, self.dispatcher
        )
        self.intake = Intake(
            settings, self.dispatcher, forwarder, self.sessions, self.persistence, self.outbox, self.counters, tracer,
            clock, self.closing.fail, self.vehicle_of, self.notices, self.refusals,
        )  # fmt: skip
        self.courier.slowdown.answered = self.answered
        self.system = SystemTopics(settings.system_interval, clock())
        self.subscriber = Subscriber(
            settings, self.subscriptions, self.catch_up, self.inbox, self.persistence, self.outbox, self.courier,
            self.sharing, self.system, self.closing.fail, self.quotas,
        )  # fmt: skip
        self.enforcement = Enforcement(
            self.sessions, self.subscriber, self.inbox, self.closing, self.notices, permissions_of, clock, self.work,
            self.retained, self.dispatcher.withdraw, self.counters,
        )  # fmt: skip
        self.opening = Opening(
            settings, clock, self.persistence, self.outbox, self.courier, self.sessions, self.sharing, self.inbox,
            self.dispatcher, self.subscriber, self.closing, self.enforcement, self.counters, self.notices,
        )  # fmt: skip
        self.long_packets = LongPackets(self.work, self.subscriptions, self.outbox, self.closing, self._handle)
        self.figures = Figures(
            settings, self.counters, self.persistence, self.quotas, self.letters, self.courier, self.room,
            self.subscriptions, self.refusals, self.sessions, self.retained, self.closing,
        )  # fmt: skip
        self.due = Due(
            clock, self.work, self.counters, self.persistence, self.sessions, self.dispatcher, self.sharing,
            self.quotas, self.retained, self.letters, self.catch_up, self.room, self.system, self.figures,
        )  # fmt: skip
        self._recovery = Recovery(
            settings, clock, self.persistence, self.retained, self.dispatcher, self.sessions, self.courier,
            self.catch_up, self.letters, self.enforcement,
        )  # fmt: skip
        self.releasing = 0  # calls of ``durable`` that are not finished

    def recover(self, items: Iterable[Item]) -> list[Item]:
        """Restore the state from the journal. Returns the items of other kinds. Call it once, before all else."""
        other: list[Item] = []
        for _ in self.recovery(items, other):
            pass
        return other

    def recovery(self, items: Iterable[Item], other: list[Item]) -> Iterator[int]:
        """As ``recover``, in slices: yields now and then, with the steps of work that were done. The items of other
        kinds are added to ``other``."""
        yield from self._recovery.run(items, other)
        if self.retained.senders():
            self.work.add(self.enforcement.retained())  # the rules may have changed meanwhile

    def take(self, settings: Settings, inbox: InboxRules | None = None) -> None:
        """Have other settings and rules of the inboxes from now on, and enforce what ``permissions_of`` says now. What
        a connection was told binds that connection; what depends on the number of sessions is done in slices."""
        adjusted = settings.vehicle_queue_bytes != self.settings.vehicle_queue_bytes
        self.settings.take(settings)
        self.subscriptions.limit(settings.routes, settings.refused)
        self.dispatcher.at_once = settings.fan_out
        self.system.update_every(settings.system_interval, self.clock())
        self.inbox.rules = inbox or InboxRules()
        if adjusted:
            self.work.add(self.quotas.adjust())
        self.judge()

    def withheld(self, cores: Iterable[str]) -> list[str]:
        """Which of ``cores``, and of the cores that are connected, have not given this node all that they keep for
        every edge."""
        connected = {core.principal.name: core.given for core in self.courier.pressure.cores}
        return [name for name in sorted({*cores, *connected}) if not connected.get(name, False)]

    def expel(self, ends: Ends, told: Ended = ignore) -> None:
        """Close the connections of the back ends for which ``ends`` gives a reason, in slices."""
        self.work.add(self.enforcement.expel(ends, told))

    def review(self, roles_of: RolesOf) -> None:
        """The roles of back ends may have changed: look at all that are connected, in slices."""
        self.work.add(self._review(roles_of))

    def _review(self, roles_of: RolesOf) -> Iterator[int]:
        for session in self.sessions.all():
            connection = session.connection
            claim = None if connection is None else connection.principal.claim
            if connection is not None and claim is not None:
                self.entitle(connection, roles_of(claim))
            yield _LOOK

    def judge(self) -> None:
        """What ``permissions_of`` says may have changed: enforce it, in slices."""
        self.work.add(self.enforcement.run())
        self.work.add(self.enforcement.retained())

    def vehicle_of(self, topic: str) -> str:
        """The vehicle of a topic, for traces; empty if there is none."""
        return self._vehicle_of(topic) or ""

    # Connections

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        """Open the connection of a CONNECT. CONNACK is in its ``out``. A refused connection has ``closing`` set."""
        return self.opening.open(connect, principal, peer, shell)

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        """Attach a connection that outlived its device link, or a restart of the edge. Deliveries wait until ``live``.

        If the session has ended, the connection returned has ``closing`` set, so that the client connects again.
        """
        return self.opening.attach(connect, principal, peer, shell, unacked)

    def live(self, connection: Connection) -> None:
        """The replay is complete: send what the client does not have."""
        self.opening.live(connection)

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        """Handle a protocol error or a time-out: tell a 5.0 client why, publish the will, close the connection."""
        self.closing.fail(connection, reason, why)

    def lost(self, connection: Connection) -> None:
        """The socket was closed without DISCONNECT."""
        self.closing.lost(connection)

    def stop(self, reason: int) -> None:
        """The node stops: send DISCONNECT to every client and keep the sessions."""
        self.closing.stop(reason)

    def entitle(self, connection: Connection, roles: tuple[str, ...]) -> None:
        """The client of an open connection has other roles from now on. What they no longer allow ends, in slices."""
        session = connection.session
        if roles == connection.principal.permissions.roles:
            return
        connection.principal.permissions.entitle(roles)
        if session is not None and self.enforcement.entitle(session, connection.principal.permissions):
            self.opening.remember(session)

    # Packets

    def receive(self, connection: Connection, packet: Packet) -> None:
        """Handle one packet of an open connection, or begin to: a long one takes several turns, and those behind it
        wait. Packets after the end of the connection are ignored."""
        session = connection.session
        if connection.closing or session is None:
            return
        if connection.later is not None:
            connection.later.append(packet)
        elif isinstance(packet, Publish):
            if self.work.left <= 0 and self.long_packets.is_long(connection, session, packet):
                self.long_packets.begin(connection, session, None)
                self.receive(connection, packet)
                return
            self.counters.received += 1
            self.intake.publish(connection, session, packet)
            if self.subscriptions.spent:
                self.long_packets.count_match(connection, session)
        elif isinstance(packet, Ack):
            self.counters.received += 1
            self._acknowledged(connection, session, packet)
        else:
            job = self._handle(connection, session, packet)
            if job is not None:
                self.long_packets.begin(connection, session, job)
        if connection.held:
            self.outbox.update_congestion(connection)

    def _handle(self, connection: Connection, session: Session, packet: Packet) -> Iterator[int] | None:
        """Handle a packet. Returns what is still to do, if that may take long."""
        self.counters.received += 1
        if isinstance(packet, Publish):
            self.intake.publish(connection, session, packet)
        elif isinstance(packet, Ack):
            self._acknowledged(connection, session, packet)
        elif isinstance(packet, Subscribe):
            return self.subscriber.subscribe(connection, session, packet)
        elif isinstance(packet, Unsubscribe):
            return self.subscriber.unsubscribe(connection, session, packet)
        elif isinstance(packet, Ping) and packet.type == PINGREQ:
            self.outbox.write(connection, _PINGRESP)
        elif isinstance(packet, Disconnect):
            self.closing.disconnect(connection, session, packet)
        else:
            self.closing.fail(connection, reasons.PROTOCOL_ERROR, "a client may not send this packet here")
        return None

    def set_aside(self, connection: Connection, packet: Packet) -> None:
        """Answer a packet in whose handling this process would end: a PUBLISH goes to the dead letters and is
        acknowledged, SUBSCRIBE and UNSUBSCRIBE are refused."""
        session = connection.session
        if connection.closing or session is None:
            return
        self.counters.received += 1
        if isinstance(packet, Publish):
            self.intake.set_aside(connection, session, packet)
        elif isinstance(packet, (Subscribe, Unsubscribe)):
            self.notices.warn(
                "poison", "%s (client %s): a %s is refused: this process has ended twice in its handling",
                connection.principal, session.key[2], type(packet).__name__.upper(),
            )  # fmt: skip
            self.subscriber.refuse(connection, session, packet)

    def _acknowledged(self, connection: Connection, session: Session, packet: Ack) -> None:
        if packet.type == PUBREL:
            self.intake.released(connection, session, packet.packet_id)
        elif packet.type != PUBREC or reasons.is_error(packet.reason):
            if connection.unacked and packet.packet_id in connection.unacked:  # of a replay
                connection.unacked.remove(packet.packet_id)
            if not self.courier.acknowledged(session, connection, packet):
                self._misfit(connection, packet)
        elif not self.courier.received(session, connection, packet.packet_id):
            self._misfit(connection, packet)

    def _misfit(self, connection: Connection, packet: Ack) -> None:
        """An acknowledgement does not fit the state of the delivery with its identifier: a protocol error. The delivery
        stays as it is."""
        self.counters.misfits += 1
        why = f"a {_ACKS[packet.type]} came for a message that does not wait for one"
        self.notices.warn("misfit", "%s: %s", connection.principal, why)
        self.closing.fail(connection, reasons.PROTOCOL_ERROR, why)

    # Time and the journal

    def end_turn(self) -> bool:
        """End a turn of the node; the journal commits next. Returns whether there is work for another turn. After an
        error in one part the others still do their work; ``ExceptionGroup`` holds what they raised."""
        try:
            return self._end_parts()
        except Exception as error:  # noqa: BLE001 - raised again
            faults = [error]
        for part in (
            self.work.run, self.refusals.release, self.letters.release, self.readers.serve, self.intake.keep_ledgers,
            self.quotas.measure, self.catch_up.serve_all, self.courier.slowdown.serve, self.courier.pressure.serve,
        ):  # fmt: skip
            try:
                part()
            except Exception as error:  # noqa: BLE001 - raised below
                faults.append(error)
        raise ExceptionGroup("at the end of a turn", faults)

    def _end_parts(self) -> bool:
        working = self.work.run()
        more = self.refusals.release()
        more = self.letters.release() or more
        more = self.readers.serve() or more
        self.intake.keep_ledgers()
        self.quotas.measure()
        more = self.catch_up.serve_all() or more
        more = self.courier.slowdown.serve() or more
        return self.courier.pressure.serve() or more or working

    def pause(self, connection: Connection) -> None:
        """The client does not read fast enough: queue in its session."""
        connection.writable = False

    def resume(self, connection: Connection) -> None:
        """The client reads again."""
        connection.writable = True
        if connection.session is not None:
            self.courier.pump(connection.session, connection)

    def answered(self, receipt: Receipt) -> None:
        """A node that ``receipt`` waits for has answered. Answer the publisher if the receipt waits for no other."""
        holder = receipt.holder
        if not receipt.closed and isinstance(holder, Connection):
            self.intake.settle(holder)

    def _fanned_out(self, receipt: Receipt) -> None:
        """All receivers have the message of ``receipt``."""
        self.courier.slowdown.answered(receipt)
        self.courier.slowdown.released()

    def placed(self, receipt: Receipt) -> None:
        """The message of ``receipt``, which was ``unplaced``, is where it belongs, or refused."""
        for one in self.intake.placed(receipt):
            self.answered(one)

    def collect(self, form: Message, properties: Properties | None, receipt: Receipt | None) -> int:
        """Take a dead letter of another node. Returns the reason code for that node, which keeps the letter after an
        error: to withhold the answer would also withhold those of the messages behind it."""
        letter, message = read_letter(form, properties, self.clock())
        if self.letters.keep(letter, message, None):
            if receipt is not None and receipt.position < letter.item:
                receipt.position = letter.item
        elif self.settings.dead_letter_when_full == HOLD:
            return reasons.QUOTA_EXCEEDED
        return reasons.SUCCESS

    def _refused_by_core(self, session: Session, delivery: Delivery, reason: int) -> None:
        """A core has refused a message whose publisher was answered, or a reader cannot take a dead letter."""
        if delivery.body and not delivery.item:
            self.readers.refused(session, delivery, reason)
        elif delivery.qos and delivery.state != RELEASED:
            self.refusals.keep_refused(self.persistence.load(delivery), None, reason, session)

    def opened(self) -> None:
        """A gate may have opened: release the packets that waited for it."""
        self.durable(self.outbox.durable)

    def durable(self, position: int) -> None:
        """The journal is durable up to ``position``: release the packets and deliveries that waited for it. Those of
        many connections, after a disk was slow, are released in this turn and the next: ``releasing`` says so."""
        waiting = self.outbox.reached(position)
        if len(waiting) <= _RELEASED:
            faults: list[Exception] = []
            for connection in waiting:
                self._advance(connection, faults)
            if faults:
                raise ExceptionGroup("when the journal was durable", faults)
        else:
            self.releasing += 1
            self.work.start(self._release(waiting))

    def _release(self, waiting: list[Connection]) -> Iterator[int]:
        faults: list[Exception] = []
        try:
            for connection in waiting:
                self._advance(connection, faults)
                yield _RELEASE
        finally:
            self.releasing -= 1
        if faults:
            raise ExceptionGroup("when the journal was durable", faults)

    def _advance(self, connection: Connection, faults: list[Exception]) -> None:
        """Release what ``connection`` waited for. An error ends this connection and no other."""
        try:
            self._let_go(connection)
        except Exception as error:  # noqa: BLE001 - raised by the caller
            faults.append(error)
            try:
                self.closing.fail(connection, reasons.IMPLEMENTATION_SPECIFIC_ERROR)
            except Exception as another:  # noqa: BLE001 - raised by the caller
                faults.append(another)

    def _let_go(self, connection: Connection) -> None:
        if connection.held:
            self.outbox.release(connection)
        if connection.inbound.receipts:
            self.intake.settle(connection)
        if connection.congested:
            self.outbox.update_congestion(connection)
        session = connection.session
        if session is not None:
            self.courier.pump(session, connection)

    def tick(self) -> None:
        """Called once a second: publish wills that are due and end sessions that have expired."""
        self.due.tick()

    def status(self) -> BrokerStatus:
        """Figures for ``mesh status``, metrics and ``$SYS``."""
        return self.figures.status()


def _discard(_message: str, *_args: object) -> None:
    """There is no log."""


def _all_permissions(_key: Key, _roles: tuple[str, ...], _provider: str) -> Permissions:
    """No access rules are known."""
    return everything()


def _no_vehicle(topic: str) -> str | None:
    return None
