"""Packets that take several turns: SUBSCRIBE and UNSUBSCRIBE with many filters, PUBLISH whose topic leads through many.

It knows connections, jobs and steps: never what a packet does, which ``handle`` knows. What always holds:

* packets that come while one of their connection takes several turns wait in ``Connection.later``, in order;
* the connection's shell knows which of these packets is handled now, or that none is, at every step;
* an error in this program ends this connection and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.closing import Closing
from mesh.broker.outbox import Outbox
from mesh.broker.principal import TIER
from mesh.broker.session import Connection, Session
from mesh.broker.subscriptions import Subscriptions
from mesh.broker.work import Work
from mesh.session.fifo import Fifo
from mesh.wire import reasons
from mesh.wire.packets import Packet, Publish

_PACKET: Final = 16  # steps of a packet that waited for one before it, see ``work``


@final
class LongPackets:
    """``handle`` handles a packet, and returns what is still to do if that may take long."""

    __slots__ = ("_closing", "_handle", "_outbox", "_subscriptions", "_work")

    def __init__(
        self,
        work: Work,
        subscriptions: Subscriptions,
        outbox: Outbox,
        closing: Closing,
        handle: Callable[[Connection, Session, Packet], Iterator[int] | None],
    ) -> None:
        self._work = work
        self._subscriptions = subscriptions
        self._outbox = outbox
        self._closing = closing
        self._handle = handle

    def is_long(self, connection: Connection, session: Session, packet: Publish) -> bool:
        """Whether the receivers of a message may take long to find. The turn has no time left for that."""
        topic = packet.topic
        if not topic:
            aliases, properties = connection.inbound.aliases, packet.properties
            alias = 0 if properties is None else properties.topic_alias or 0
            topic = "" if aliases is None else aliases.get(alias, "")
        return session.kind != TIER and self._subscriptions.is_long(topic)

    def count_match(self, connection: Connection, session: Session) -> None:
        """The receivers of a message took long to find: the next packets of its publisher wait if others did so, too.
        """
        self._work.left -= self._take_spent()
        if self._work.left <= 0 and connection.session is session and session.kind != TIER:
            self.begin(connection, session, None)

    def begin(self, connection: Connection, session: Session, job: Iterator[int] | None) -> None:
        """Do ``job`` in slices. Packets that come meanwhile wait for its end."""
        later: Fifo[Packet] = Fifo()
        connection.later = later
        connection.begun += 1
        self._work.start(self._serve(connection, session, job, later))

    def _take_spent(self) -> int:
        spent = self._subscriptions.spent
        self._subscriptions.spent = 0
        return spent

    def _serve(
        self, connection: Connection, session: Session, job: Iterator[int] | None, later: Fifo[Packet]
    ) -> Iterator[int]:
        shell = connection.shell
        try:
            while True:
                if job is not None:
                    for steps in job:
                        shell.rested()
                        yield steps
                        shell.resumed(connection.begun)
                if not later or connection.closing or connection.session is not session:
                    break
                packet = later.popleft()
                connection.begun += 1
                shell.resumed(connection.begun)
                job = self._handle(connection, session, packet)
                if connection.held:
                    self._outbox.update_congestion(connection)
                shell.rested()
                yield _PACKET + self._take_spent()
        except Exception:  # an error in this program ends this connection and no other
            self._closing.fail(connection, reasons.IMPLEMENTATION_SPECIFIC_ERROR)
            raise
        finally:
            shell.rested()
            connection.later = None
            self._outbox.mark(connection)  # its shell reads again
