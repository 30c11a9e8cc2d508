"""Admission: the principals of vehicles, of back ends and of the mesh's own tier links.

It knows the template of the vehicles' topics and the back ends' credentials. It must never read a packet other than
CONNECT. What always holds: a vehicle's own permission covers its literal subtree only, even if its name contains
wildcards; the time to compare a password does not depend on the password.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, final

from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal, everything
from mesh.policy.attempts import Attempts
from mesh.policy.template import Template
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

ANONYMOUS: Final = "anonymous"


@final
class Grant:
    """The permissions of one class of clients: topic filters to publish to and to subscribe to, and filters that are
    refused in any case; ``reason`` is the MQTT 5.0 reason code of a refusal."""

    __slots__ = ("publish", "reason", "refused", "subscribe")

    def __init__(
        self, publish: tuple[str, ...], subscribe: tuple[str, ...], refused: tuple[str, ...], reason: int
    ) -> None:
        self.publish = publish
        self.subscribe = subscribe
        self.refused = refused
        self.reason = reason

    def permissions(self, prefix: str = "", fleet: tuple[str, ...] = ()) -> Permissions:
        """These permissions, the subtree below ``prefix``, and subscriptions to the topics of ``fleet``."""
        return Permissions(prefix, fleet, self.publish, self.subscribe, self.refused, self.reason)


def vehicle_principal(template: Template, vehicle: str, grant: Grant, fleet: tuple[str, ...] = ()) -> Principal:
    """A vehicle. It may publish and subscribe in its own subtree, subscribe to the topics of ``fleet``, and use the
    permissions of all vehicles.
    """
    return Principal(vehicle, VEHICLE, grant.permissions(template.subtree(vehicle), fleet), vehicle)


def tier_principal(core: str) -> Principal:
    """A core as a client of an edge, after it proved that it knows the mesh secret."""
    return Principal(core, TIER, everything())


@final
class Backends:
    """The back-end applications that a core admits: those with a password, or all.

    ``users`` maps names to passwords. Without ``anonymous`` a core admits only those names. With it, a core also admits
    a client without a user name, as ``anonymous``, and a client whose user name has no password here.
    """

    __slots__ = ("_anonymous", "_attempts", "_passwords", "_permissions")

    def __init__(self, anonymous: bool, users: Mapping[str, str], grant: Grant, attempts: Attempts) -> None:
        self._anonymous = anonymous
        self._attempts = attempts
        self._permissions = grant.permissions()
        self._passwords = {name: _digest(password.encode()) for name, password in users.items()}

    def principal_of(self, connect: Connect, peer: Peer) -> Principal:
        """The back end that connects from ``peer``. Raises ``Refused`` with 0x86 (4 before MQTT 5.0), and with 0x9F (3)
        if too many wrong passwords came before."""
        name = connect.username
        if name is None:
            if self._anonymous:
                return Principal(ANONYMOUS, BACKEND, self._permissions)
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the back end at {peer} gave no user name")
        known = self._passwords.get(name)
        if known is None and self._anonymous:
            return Principal(name, BACKEND, self._permissions)
        self._attempts.check(peer.address, name)
        # An unknown name costs the same comparison, so that the time does not reveal which names exist.
        matches = compare_digest(_digest(connect.password or b""), known if known is not None else _NO_DIGEST)
        if not matches or known is None:
            self._attempts.failed(peer.address, name)
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the back end at {peer} gave a wrong user name or password")
        self._attempts.succeeded(peer.address, name)
        return Principal(name, BACKEND, self._permissions)

    def proven(self, identity: str) -> Principal:
        """The back end that proved the identity ``identity``."""
        return Principal(identity, BACKEND, self._permissions)


def _digest(password: bytes) -> bytes:
    """Digests have equal lengths, so the time to compare them does not reveal the length of the password."""
    return sha256(password).digest()


_NO_DIGEST: Final = bytes(32)
