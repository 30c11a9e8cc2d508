"""The configuration of one node: all its inputs, as plain values.

It knows the topology and this node's part of it. What always holds: two processes with the same configuration are the
same node, so a process that starts after a crash continues where the other one ended.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.settings import DEAD_LETTER, DISCONNECT, DROP_OLDEST, HOLD, IGNORE, REJECT, Settings
from mesh.node.budget import memory_budget
from mesh.policy.access import Grants, tier_principal
from mesh.policy.secrets import MeshSecret
from mesh.topology import descriptors
from mesh.topology import topology as terms
from mesh.topology.nodes import NodeSpec, nodes
from mesh.topology.topology import Topology
from mesh.transport.arrivals import ArrivalLimits
from mesh.transport.listen import Listen, TlsFiles
from mesh.transport.refusal import Refused
from mesh.transport.unixsocket import Secure, UnixPath, socket_path
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

if TYPE_CHECKING:
    from mesh.transport.tlsserving import ServingTls

# The two ports of an edge: front doors connect to one, cores to the other.
DEVICE: Final = "device"
TIER: Final = "tier"
_MAX_TOPIC: Final = 1 << 16
_WHEN_FULL: Final = {
    terms.REJECT: REJECT,
    terms.DROP_OLDEST: DROP_OLDEST,
    terms.DEAD_LETTER: DEAD_LETTER,
    terms.HOLD: HOLD,
}

_TIER: Final = "tier link"
_SEAL: Final = "seal"
_MAX_PACKET_OF_MESH: Final = 1 << 20  # room for properties that the mesh adds to a client's largest packet
_OWN_PROPERTIES: Final = 16  # user properties that the mesh adds: a trace context, and those of a dead letter
_OWN_LEVELS: Final = 1  # of a topic: $dead-letters/
_CLIENTS: Final = PacketLimits()


@final
@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``folder`` is this node's folder, ``endpoints`` are the URLs of etcd, ``secret`` is the mesh secret, ``revision``
    is the number of the topology, 0 if it has none, ``since`` is when this run of the mesh began, in seconds since
    1970."""

    topology: Topology
    spec: NodeSpec
    endpoints: tuple[str, ...]
    folder: Path
    secret: MeshSecret
    revision: int = 0
    since: float = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.spec.name

    def unix_path(self, node: str, purpose: str) -> UnixPath:
        """The Unix socket of a node, if it is on this machine, where all nodes' folders are in one directory."""
        folder = self.folder.parent / node
        return lambda port: socket_path(folder, purpose, port)

    def seal(self, digest: bytes) -> str:
        """A text that changes with a secret and tells nothing of it: ``digest`` is the secret's."""
        return self.secret.prove(_SEAL, self.name.encode(), digest).hex()[:16]

    def tier_password(self, edge: str) -> bytes:
        """The password of this core for ``edge``; it is invalid at any other edge."""
        return self.secret.prove(_TIER, self.name.encode(), edge.encode()).hex().encode()

    def admit_core(self, connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
        """The principal of a tier link to this edge. Raises ``Refused`` if its password does not prove the secret."""
        core = connect.username or ""
        proof = _unhex(connect.password or b"")
        if not self.secret.verifies(proof, _TIER, core.encode(), self.name.encode()):
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"{peer} did not prove that it belongs to the mesh")
        return tier_principal(core)

    def client_limits(self) -> PacketLimits:
        """Limits of packets from vehicles and back ends."""
        limits = self.topology.limits
        return PacketLimits(limits.max_packet_size, max_topic_levels=limits.topic_levels)

    def device_limits(self) -> PacketLimits:
        """Limits of packets from vehicles through a front door, which replaces topic aliases by topic names."""
        limits = self.topology.limits
        return PacketLimits(limits.max_packet_size + _MAX_TOPIC, max_topic_levels=limits.topic_levels)

    def arrivals(self) -> ArrivalLimits:
        """Limits of clients that are not known yet."""
        limits = self.topology.limits
        return ArrivalLimits(
            limits.pending_connects, limits.connects, limits.address_connects, limits.network_connects
        )

    def listens(self) -> list[Listen]:
        """Where this node listens for clients."""
        return [listener.listen() for listener in self.spec.listen]

    def inside(self, kind: str, port: int) -> Listen:
        """Where this node listens for other nodes."""
        return Listen(kind, self.topology.bind, port, tls=self.internal())

    def internal(self) -> TlsFiles | None:
        """The certificates with which this node meets others; ``None`` without TLS between them."""
        internal = self.topology.internal
        return None if internal is None else internal.files(self.name)

    def secure(self) -> Secure | None:
        """The TLS context of a connection to another node; ``None`` without TLS between them. Call it once."""
        files = self.internal()
        if files is None:
            return None
        from mesh.transport.tlsdialling import DiallingTls  # takes 10 MB, and most meshes have no TLS inside

        return DiallingTls(files).context

    def serving(self, what: str) -> ServingTls | None:
        """TLS for a server of this node for scrapers or operators; ``None`` without TLS inside the mesh."""
        files = self.internal()
        if files is None:
            return None
        from mesh.transport.tlsserving import ServingTls  # takes 10 MB, and most meshes have no TLS inside

        return ServingTls(f"{self.name}, {what}", files)

    def member_limits(self) -> PacketLimits:
        """Limits of packets between members of the mesh."""
        limits = self.topology.limits
        return PacketLimits(
            limits.max_packet_size + _MAX_PACKET_OF_MESH, _CLIENTS.max_user_properties + _OWN_PROPERTIES,
            limits.topic_levels + _OWN_LEVELS,
        )  # fmt: skip

    def broker_settings(self) -> Settings:
        """The broker's settings that edge and core have in common."""
        limits = self.topology.limits
        settings = Settings()
        settings.node = self.name
        settings.max_packet = limits.max_packet_size
        settings.tier_packet = self.member_limits().max_packet_size
        settings.max_keep_alive = int(limits.max_keep_alive)
        settings.max_queue_messages = limits.queue_messages
        settings.max_queue_bytes = limits.queue_bytes
        settings.queue_patience = limits.queue_patience
        settings.tier_queue_messages = limits.tier_queue_messages
        settings.tier_queue_bytes = limits.tier_queue_bytes
        settings.max_sessions = limits.sessions
        settings.max_retained = limits.retained
        settings.max_subscriptions = limits.subscriptions
        settings.vehicle_sessions = limits.vehicle_sessions
        settings.vehicle_subscription_bytes = limits.vehicle_subscription_bytes
        settings.match_nodes = limits.match_nodes
        settings.vehicle_retained_bytes = limits.vehicle_retained_bytes
        settings.vehicle_queue_bytes = limits.vehicle_queue_bytes
        settings.memory = self.memory_budget()
        settings.disk = limits.disk
        settings.topic_aliases = limits.topic_aliases
        settings.max_session_expiry = int(limits.session_expiry)
        settings.attach_grace = limits.attach_grace
        settings.shared_patience = limits.shared_patience
        ignored = self.topology.access.on_refusal == terms.IGNORE
        settings.on_refusal = IGNORE if ignored else DISCONNECT
        settings.system_interval = self.topology.telemetry.sys_interval
        inbox = self.topology.inbox
        if inbox is not None:
            settings.inbox_messages = inbox.max_messages
            settings.inbox_bytes = inbox.max_bytes
            settings.inbox_when_full = _WHEN_FULL[inbox.when_full]
        settings.backend_queue_messages = limits.backend_queue_messages
        settings.backend_queue_bytes = limits.backend_queue_bytes
        settings.backend_when_full = _WHEN_FULL[self.topology.backends.when_full]
        letters = self.topology.dead_letters
        settings.dead_letter_bytes = letters.bytes
        settings.dead_letter_share = letters.share
        settings.dead_letter_age = letters.age
        settings.dead_letter_expired = letters.expired
        settings.dead_letter_when_full = _WHEN_FULL[letters.when_full]
        return settings

    def memory_budget(self) -> int:
        """The bytes of memory that this node may use for what clients make it keep."""
        topology = self.topology
        local = topology.ray == terms.LOCAL
        return memory_budget(topology.limits.memory, len(nodes(topology)), local)

    def connections(self) -> int:
        """How many clients this node lets in. Raises ``OSError``, which names the limit, if its process may not open as
        many files as the topology asks for."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            return descriptors.connections(self.topology, files)
        except ValueError as error:
            raise OSError(errno.EMFILE, f"{self.name}: limits.connections: {error}") from None

    def buffer_bytes(self) -> int:
        """The bytes that clients may make this node buffer, and those that a front door may hold for its edges: a
        quarter of its memory each, with room for some of the largest packets in any case."""
        return max(self.memory_budget() // 4, 4 * self.topology.limits.max_packet_size)

    def members(self, most: int) -> int:
        """How many nodes may be connected to one internal port of this node: ``most``, or fewer if its process may open
        few files."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return descriptors.members(self.topology, files, most)

    def vehicle_of(self) -> Callable[[str], str | None]:
        """The function that returns the vehicle of a topic."""
        return self.topology.vehicle_template().vehicle_of

    def grants(self) -> Grants:
        """What clients may do, as the topology says."""
        access = self.topology.access
        vehicles = access.grant(access.vehicles, self.topology.fleet)
        roles = {role.name: access.grant(role) for role in access.roles}
        return Grants(self.topology.vehicle_template(), vehicles, access.grant(access.backends), roles)


def _unhex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""
