"""The identity of a vehicle, from its CONNECT.

It knows the field that the topology names and the pattern of identities. It must never know whether the vehicle exists.
What always holds: a returned identity matches the pattern as a whole, so it is one safe level of a topic.
"""

from __future__ import annotations

from typing import Final, final

from mesh.policy.pattern import Pattern
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import CLIENT_IDENTIFIER_NOT_VALID, NOT_AUTHORIZED

USERNAME: Final = "username"
CLIENT_ID: Final = "client_id"
SOURCES: Final = (USERNAME, CLIENT_ID)


@final
class Identity:
    """Takes the identity from ``source``, one of ``SOURCES``, and checks it with ``pattern``. A client that leaves the
    field out gets the identity ``default``, unless that is empty."""

    __slots__ = ("default", "pattern", "source")

    def __init__(self, source: str, pattern: Pattern, default: str = "") -> None:
        if source not in SOURCES:
            raise ValueError(f"an identity comes from {' or '.join(SOURCES)}, not from {source!r}")
        self.source = source
        self.pattern = pattern
        self.default = default

    def vehicle_of_connect(self, connect: Connect) -> str:
        """The vehicle that connects.

        Raises ``Refused``: 0x85 for an invalid client id, 0x87 for an invalid user name (return codes 2 and 5 before
        MQTT 5.0 [MQTT-3.2.2-5]).
        """
        if self.default and not (connect.client_id if self.source == CLIENT_ID else connect.username):
            return self.default
        if self.source == CLIENT_ID:
            if not self.pattern.matches(connect.client_id):
                raise Refused(CLIENT_IDENTIFIER_NOT_VALID, "the client id does not match the identity pattern")
            return connect.client_id
        if connect.username is None:
            raise Refused(NOT_AUTHORIZED, "CONNECT has no user name, which must be the vehicle's identity")
        if not self.pattern.matches(connect.username):
            raise Refused(NOT_AUTHORIZED, "the user name does not match the identity pattern")
        return connect.username

    def vehicle_of_proof(self, connect: Connect, identity: str) -> str:
        """The vehicle that proved the identity ``identity``. Its CONNECT may omit the identity but must not contradict
        it.

        Raises ``Refused``: 0x87.
        """
        named = connect.client_id if self.source == CLIENT_ID else connect.username
        if (named and named != identity) or not self.pattern.matches(identity):
            raise Refused(NOT_AUTHORIZED, "the proven identity does not match CONNECT or the identity pattern")
        return identity
