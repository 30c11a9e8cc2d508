"""Providers of identities: the contract. Each kind of provider is in a file of its own.

A provider is asked about a CONNECT and answers in one of three ways:

* allow: it returns a ``Claim``;
* next: it returns ``NEXT``, since this client does not show what it looks at; the chain asks the next provider;
* deny: it raises ``Refused``; the chain asks no other provider.

A client that shows what the provider looks at, and shows it wrongly, is denied: a wrong password is no reason to ask
the next provider. It must never know topics, sessions or sockets. What always holds: a provider that need not wait
answers at once, without a task; what it waits for is bounded in time and in number (``slots``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.transport.authentication import Proof
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED

NEXT: Final = None

Verdict = Claim | None
"""``NEXT`` is ``None``; a denial is raised."""

Named = Callable[[Connect], str]
"""The identity that a CONNECT names, in the field of the topology; empty if it names none. Not checked."""


def _nothing() -> None:
    """A provider without an owner tells no other part of its changes."""


@final
class Decisions:
    """How often a provider decided, by the outcome; ``failed``: it could not; ``cached``: it knew its answer."""

    __slots__ = ("allowed", "cached", "denied", "failed", "passed")

    def __init__(self) -> None:
        self.allowed = 0
        self.denied = 0
        self.passed = 0
        self.failed = 0
        self.cached = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Provider:
    """Base class. ``name`` is the provider's name in the topology, which its claims carry.

    ``method``: the authentication method that it offers (MQTT 5.0 section 4.12); empty: it looks at CONNECT only.
    ``proves``: whether a client has to show more than a name. ``refusal``: the reason code for a client that no
    provider admits, as far as this one is concerned (see ``Chain``)."""

    def __init__(self, name: str, method: str = "", proves: bool = True, refusal: int = NOT_AUTHORIZED) -> None:
        self.name = name
        self.method = method
        self.proves = proves
        self.refusal = refusal
        self.lists = False
        """Whether ``knows`` tells for each of its clients whether there is such a client."""
        self.names_roles = False
        """Whether its claims may have roles."""
        self.decisions = Decisions()
        self.folder: Path | None = None
        """Where it may keep what it has fetched, for a start without its server. Set before ``start``, if at all."""
        self.changed: Callable[[], None] = _nothing
        """To be called after ``holds`` may answer otherwise than before; the owner looks at all connections then."""

    async def start(self) -> None:
        """Load what the provider needs, and follow its changes. Called once, before ``decide``.

        Raises ``OSError`` or ``ValueError`` with a sentence for the operator if it cannot work.
        """

    async def stop(self) -> None:
        """End what ``start`` began."""

    def decide(self, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        """The verdict on a CONNECT without an authentication method. Called in the loop: work that takes longer than
        some hundred microseconds belongs into the awaitable. Raises ``Refused``, and so does the awaitable."""
        return NEXT

    def unknown(self, connect: Connect, peer: Peer) -> None:
        """This provider passed a client on, and no other one admitted it. For those that count failed attempts."""

    def bars(self, address: str) -> bool:
        """Whether it denies every client of an address at present, whatever the client shows. Asked when a connection
        begins."""
        return False

    def begin(self, peer: Peer) -> Proof:
        """A new exchange of ``method``. Its claim is that of ``Proof.claim``. Not called if ``method`` is empty."""
        raise NotImplementedError

    def recognizes(self, data: bytes) -> bool:
        """Whether the first data of an exchange of ``method`` names what this provider knows. It decides only which of
        several providers with one method the exchange is for."""
        return False

    def holds(self, claim: Claim) -> bool:
        """Whether a claim that it gave still holds, its time of expiry aside. Must be quick: it is asked for each
        connection in turn."""
        return True

    def knows(self, name: str) -> bool:
        """Whether clients with this name have to prove it to this provider."""
        return False

    def fault(self) -> str:
        """Why it does not work as the operator meant it, in one sentence; empty if it does."""
        return ""

    def in_force(self) -> dict[str, object]:
        """What it goes by at present, by name; without secrets."""
        return {}
