"""Admission: the principals of vehicles, of back ends and of the mesh's own tier links.

It knows the template of the vehicles' topics and the back ends' credentials. It must never read a packet other than
CONNECT. What always holds: a vehicle's own permission covers its literal subtree only, even if its name contains
wildcards; the time to compare a password does not depend on the password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, final

from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Grant, Permissions, Principal, everything
from mesh.policy.attempts import Attempts
from mesh.policy.template import Template
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

ANONYMOUS: Final = "anonymous"


def vehicle_principal(template: Template, vehicle: str, grant: Grant) -> Principal:
    """A vehicle. It may publish and subscribe in its own subtree, and do what ``grant`` allows to all vehicles."""
    return Principal(vehicle, VEHICLE, Permissions(template.subtree(vehicle), grant), vehicle)


def tier_principal(core: str) -> Principal:
    """A core as a client of an edge, after it proved that it knows the mesh secret."""
    return Principal(core, TIER, everything())


@final
class Grants:
    """What each client may do today, by the key of its session: kind, name, client id. ``vehicles`` and ``backends``
    change in place."""

    def __init__(self, template: Template, vehicles: Grant, backends: Grant) -> None:
        self.vehicles = vehicles
        self.backends = backends
        self._template = template
        self._of_backends = Permissions("", backends)
        self._of_cores = everything()

    def vehicle(self, vehicle: str) -> Principal:
        """The principal of a vehicle."""
        return vehicle_principal(self._template, vehicle, self.vehicles)

    def of(self, key: tuple[int, str, str]) -> Permissions:
        """The permissions of the client with the key of a session."""
        kind, name, _ = key
        if kind == VEHICLE:
            return Permissions(self._template.subtree(name), self.vehicles)
        return self._of_backends if kind == BACKEND else self._of_cores

    def take(self, other: Grants) -> None:
        """Allow what ``other`` allows from now on."""
        self.vehicles.take(other.vehicles)
        self.backends.take(other.backends)


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
        self._permissions = Permissions("", grant)
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
        """The back end that proved the identity ``identity``. Raises ``Refused`` with 0x87 if that was removed while
        the client proved it."""
        if identity not in self._passwords:
            raise Refused(NOT_AUTHORIZED, f"the user {identity!r} was removed")
        return Principal(identity, BACKEND, self._permissions)

    def in_force(self, seal: Callable[[bytes], str]) -> dict[str, object]:
        """Who is admitted, with ``seal`` of the digest of each password."""
        return {
            "anonymous": self._anonymous,
            "users": {name: seal(digest) for name, digest in sorted(self._passwords.items())},
        }

    def take(self, other: Backends) -> Callable[[Principal], bool]:
        """Admit the clients that ``other`` admits from now on. Returns the function that says whether a client that was
        admitted before is not admitted in this way now: its user was removed, or it gave no password, which its name
        needs now. A changed password concerns new connections only."""
        before, after, anonymous = self._passwords, other._passwords, other._anonymous
        self._passwords, self._anonymous = after, anonymous
        self._permissions = Permissions("", self._permissions.grant)  # so that later clients can be told apart

        def is_lost(principal: Principal) -> bool:
            name = principal.name
            if principal.permissions is self._permissions:
                return False
            if name in before:
                return name not in after
            return name in after or not anonymous

        return is_lost


def _digest(password: bytes) -> bytes:
    """Digests have equal lengths, so the time to compare them does not reveal the length of the password."""
    return sha256(password).digest()


_NO_DIGEST: Final = bytes(32)
