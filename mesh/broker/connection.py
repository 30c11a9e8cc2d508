"""One client's connection, as the engine sees it.

The engine puts packets into ``out`` and marks the connection dirty; the shell that owns the socket (or the place on a
device link) writes them at the end of the turn. What always holds: nothing is put into ``out`` after ``closing`` was
set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.shell import Flushable
from mesh.session.fifo import Fifo
from mesh.session.inbound import Inbound
from mesh.wire.tracecontext import TraceContext

if TYPE_CHECKING:
    from mesh.broker.session import Session
    from mesh.broker.subscriptions import Gate


@final
class Connection:
    """``shell`` owns the way to the client, and writes what is in ``out``."""

    __slots__ = (
        "accepted", "alias_maximum", "aliases", "assigned", "closing", "congested", "dirty", "held", "inbound",
        "keep_alive", "live", "max_packet", "out", "peer", "principal", "problem_info", "protocol", "receive_maximum",
        "session", "shell", "traced", "unacked", "waiting", "writable",
    )  # fmt: skip

    def __init__(self, principal: Principal, protocol: int, peer: Peer, shell: Flushable, alias_maximum: int) -> None:
        self.principal = principal
        self.protocol = protocol
        self.peer = peer
        self.shell = shell
        self.session: Session | None = None
        self.out: list[bytes] = []
        self.traced: list[tuple[int, TraceContext]] = []  # places in ``out`` of PUBLISHes of sampled messages
        self.closing = False
        self.accepted = False  # CONNACK with success has been put into ``out``
        self.assigned = False  # the client id is the server's
        self.unacked: list[int] = []  # from ``attach`` until ``live``: identifiers that are with the client
        self.live = True  # False from ``attach`` until the replay is over
        self.writable = True
        self.congested = False  # too much waits for its answer: the shell stops reading until it is False again
        self.dirty = False
        self.waiting = False  # something of it waits for the journal
        self.keep_alive = 0
        self.max_packet = 0  # the client's own limit in bytes; 0: none
        self.receive_maximum = 0  # how many publishes the client may have unanswered
        self.problem_info = True  # the client wants reason strings also where nothing ends
        self.alias_maximum = 0  # topic aliases that the client takes
        self.aliases: dict[str, int] | None = None  # those that it was told
        self.inbound = Inbound(alias_maximum)
        # Packets that wait for a journal position, and for others to hear of a subscription.
        self.held: Fifo[tuple[int, Gate | None, bytes]] = Fifo()
