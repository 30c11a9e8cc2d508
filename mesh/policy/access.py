"""Who is let in as what: the principals of vehicles, of back ends and of the mesh's own tier links.

It knows the template of the vehicles' topics and the back ends' credentials. It must never read a packet other than
CONNECT. What always holds: a vehicle publishes to the literal subtree of that vehicle only, whatever its name looks
like; a password is compared in a time that does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, final

from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal, everything
from mesh.policy.template import Template
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

ANONYMOUS: Final = "anonymous"


@final
class Grant:
    """What one class of clients may do: filters of topics to publish to and to subscribe to, and of those refused
    whatever else says; ``reason`` is the MQTT 5.0 code for what is not allowed."""

    __slots__ = ("publish", "reason", "refused", "subscribe")

    def __init__(
        self, publish: tuple[str, ...], subscribe: tuple[str, ...], refused: tuple[str, ...], reason: int
    ) -> None:
        self.publish = publish
        self.subscribe = subscribe
        self.refused = refused
        self.reason = reason

    def permissions(self, prefix: str = "", fleet: tuple[str, ...] = ()) -> Permissions:
        """These, and the subtree below ``prefix``, and to read, what is the fleet's."""
        return Permissions(prefix, fleet, self.publish, self.subscribe, self.refused, self.reason)


def vehicle_principal(template: Template, vehicle: str, grant: Grant, fleet: tuple[str, ...] = ()) -> Principal:
    """A vehicle, which may publish and subscribe below its own subtree, read what the filters in ``fleet`` match, and
    do what all vehicles may.
    """
    return Principal(vehicle, VEHICLE, grant.permissions(template.subtree(vehicle), fleet), vehicle)


def tier_principal(core: str) -> Principal:
    """A core as a client of an edge, after it has proved that it knows the mesh secret."""
    return Principal(core, TIER, everything())


@final
class Backends:
    """The back-end applications that a core lets in: those with a password, or all.

    ``users`` maps names to passwords. Without ``anonymous`` only those names get in; with it, a client without a user
    name too, as ``anonymous``, and so does a name that has no password here.
    """

    __slots__ = ("_anonymous", "_passwords", "_permissions")

    def __init__(self, anonymous: bool, users: Mapping[str, str], grant: Grant) -> None:
        self._anonymous = anonymous
        self._permissions = grant.permissions()
        self._passwords = {name: _digest(password.encode()) for name, password in users.items()}

    def principal_of(self, connect: Connect, peer: Peer) -> Principal:
        """The back end that connects from ``peer``. Raises ``Refused`` with 0x86 (4 before MQTT 5.0)."""
        name = connect.username
        if name is None:
            if self._anonymous:
                return Principal(ANONYMOUS, BACKEND, self._permissions)
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the back end at {peer} gave no user name")
        known = self._passwords.get(name)
        if known is None and self._anonymous:
            return Principal(name, BACKEND, self._permissions)
        # An unknown name costs the same comparison, so that its time does not tell which names exist.
        right = compare_digest(_digest(connect.password or b""), known if known is not None else _NOBODY)
        if not right or known is None:
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the back end at {peer} gave a wrong user name or password")
        return Principal(name, BACKEND, self._permissions)

    def proven(self, identity: str) -> Principal:
        """The back end that has proved that it is ``identity``."""
        return Principal(identity, BACKEND, self._permissions)


def _digest(password: bytes) -> bytes:
    """Digests have one length, so comparing them does not tell the length of the password."""
    return sha256(password).digest()


_NOBODY: Final = bytes(32)
