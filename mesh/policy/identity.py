"""The identity of a vehicle: the field of CONNECT that names it, and what each claim of one must meet.

It knows the field that the topology names, the pattern of identities and the form of client identifiers. It must never
know whether the vehicle exists, nor how it proved who it is. What always holds: a claim that was bound matches the
pattern as a whole, so it is one safe level of a topic.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.claim import Claim
from mesh.policy.pattern import Pattern
from mesh.policy.template import PLACE
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import CLIENT_IDENTIFIER_NOT_VALID, NOT_AUTHORIZED

USERNAME: Final = "username"
CLIENT_ID: Final = "client_id"
SOURCES: Final = (USERNAME, CLIENT_ID)


@final
class ClientIds:
    """The client identifiers that a vehicle may use: ``{vehicle}``, or that with text around it; ``*`` at the end
    stands for any text. Without forms it may use any."""

    __slots__ = ("forms",)

    def __init__(self, forms: tuple[str, ...] = ()) -> None:
        """Raises ``ValueError`` for a form that does not have ``{vehicle}`` once, or has ``*`` elsewhere."""
        for form in forms:
            if form.count(PLACE) != 1 or "*" in form[:-1]:
                right = f'write it like "{PLACE}" or "{PLACE}-*"'
                raise ValueError(f"{form!r} must have {PLACE} once, and * at its end only; {right}")
        self.forms = forms

    def allows(self, vehicle: str, client_id: str) -> bool:
        """Whether the vehicle may use a client identifier."""
        for form in self.forms:
            filled = form.replace(PLACE, vehicle)
            if client_id == filled or (filled.endswith("*") and client_id.startswith(filled[:-1])):
                return True
        return not self.forms


@final
class Identity:
    """Takes the identity from ``source``, one of ``SOURCES``, and checks it with ``pattern``. A client that leaves the
    field out gets the identity ``default``, unless that is empty. ``client_ids``: those that a vehicle may use."""

    __slots__ = ("_client_ids", "default", "pattern", "source")

    def __init__(self, source: str, pattern: Pattern, default: str = "", client_ids: tuple[str, ...] = ()) -> None:
        if source not in SOURCES:
            raise ValueError(f"an identity comes from {' or '.join(SOURCES)}, not from {source!r}")
        self.source = source
        self.pattern = pattern
        self.default = default
        self._client_ids = ClientIds(client_ids)

    def named(self, connect: Connect) -> str:
        """The vehicle that a CONNECT names, not checked; empty if it names none."""
        return connect.client_id if self.source == CLIENT_ID else connect.username or ""

    def vehicle_of_connect(self, connect: Connect) -> str:
        """The vehicle that connects, if its word is enough.

        Raises ``Refused``: 0x85 for an invalid client id, 0x87 for an invalid user name (return codes 2 and 5 before
        MQTT 5.0 [MQTT-3.2.2-5]).
        """
        named = self.named(connect)
        if not named and self.default:
            return self.default
        if self.source == CLIENT_ID:
            if not self.pattern.matches(named):
                raise Refused(CLIENT_IDENTIFIER_NOT_VALID, "the client id does not match the identity pattern")
        elif connect.username is None:
            raise Refused(NOT_AUTHORIZED, "CONNECT has no user name, which must be the vehicle's identity")
        elif not self.pattern.matches(named):
            raise Refused(NOT_AUTHORIZED, "the user name does not match the identity pattern")
        return named

    def bind(self, connect: Connect, claim: Claim, proven: bool) -> None:
        """Check a claim against its CONNECT. A client that proved it by an authentication method (``proven``) may leave
        the identity out of CONNECT but must not contradict it.

        Raises ``Refused``: 0x87 for an identity that is not valid, 0x85 (2 before MQTT 5.0) for a client identifier
        that the vehicle may not use.
        """
        named = self.named(connect)
        if (proven and named and named != claim.name) or not self.pattern.matches(claim.name):
            raise Refused(NOT_AUTHORIZED, "the proven identity does not match CONNECT or the identity pattern")
        if not self._client_ids.allows(claim.name, connect.client_id):
            raise Refused(CLIENT_IDENTIFIER_NOT_VALID, f"{claim.name} may not use the client id it chose")
