"""The topology as values: the content of the file, with every default filled in.

It knows the shape of the data. It must never know YAML or running nodes. What always holds: a ``Topology`` that
``load`` returned is consistent (names are unique, every port is used once, patterns and templates compile); values are
frozen, can be pickled, and convert to plain dictionaries and back (``as_dict``, ``from_dict``). Times are seconds,
sizes bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from ipaddress import ip_network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, final, get_args, get_origin, get_type_hints

from mesh.broker.grant import ALL_FILTERS, ALL_TOPICS, MOST_QOS, Grant
from mesh.policy.anonymous import ANONYMOUS, AnyUser
from mesh.policy.attempts import Attempts
from mesh.policy.order import Order, Planned
from mesh.policy.providers import Provider
from mesh.policy.secrettext import SecretText
from mesh.policy.template import Template
from mesh.policy.users import USERS, Users, bind_user
from mesh.topology import effects
from mesh.topology.keys import KEY, LIVE, PARTS, SECRET, SIZE, TIME, Form, Parts
from mesh.topology.provider import USER, IdentityRule, ProviderSpec, asked, given, planned
from mesh.topology.units import Address
from mesh.transport.listen import NONE, REQUIRED, HeaderRule, KeyPair, Listen, TlsFiles
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED, UNSPECIFIED_ERROR

EMBEDDED: Final = "embedded"
LOCAL: Final = "local"
IGNORE: Final = "ignore"
DISCONNECT: Final = "disconnect"
REJECT: Final = "reject"
DROP_OLDEST: Final = "drop_oldest"
DEAD_LETTER: Final = "dead_letter"
HOLD: Final = "hold"
NODE: Final = "{node}"  # in the path of a file: the name of the node
NEVER: Final = float(0xFFFFFFFF)  # a session expiry that means never (MQTT 5.0 section 3.1.2.11.2)
# The reason code for a client without permission; the second one does not reveal the reason.
REFUSALS: Final = {"not_authorized": NOT_AUTHORIZED, "unspecified_error": UNSPECIFIED_ERROR}
_CODES: Final = tuple((code, word) for word, code in REFUSALS.items())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdTlsSpec:
    """Files in PEM format. ``cert`` and ``key`` are the client's, for servers that ask for a certificate."""

    ca: Annotated[Path | None, effects.ETCD] = None
    cert: Annotated[Path | None, effects.ETCD] = None
    key: Annotated[Path | None, effects.ETCD] = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAuthSpec:
    user: Annotated[str, effects.ETCD]
    password: Annotated[SecretText, effects.ETCD, SECRET]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSpec:
    """``endpoints`` such as ``https://etcd-1:2379``; empty: the mesh runs its own etcd."""

    endpoints: Annotated[tuple[str, ...], effects.ETCD, Form(words=(((), EMBEDDED),))] = ()
    tls: Annotated[EtcdTlsSpec | None, Parts(effects.ETCD)] = None
    auth: Annotated[EtcdAuthSpec | None, Parts(effects.ETCD)] = None

    @property
    def embedded(self) -> bool:
        return not self.endpoints


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InboxSpec:
    """The session that every known vehicle has before its first connection; its filters contain ``{vehicle}``."""

    subscribe: Annotated[tuple[str, ...], LIVE]
    qos: Annotated[int, LIVE] = 1
    expiry: Annotated[float, LIVE, TIME] = 30 * 86400.0
    max_messages: Annotated[int, LIVE] = 1000
    max_bytes: Annotated[int, LIVE, SIZE] = 64 << 20
    when_full: Annotated[str, LIVE] = REJECT


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSpec:
    """Files in PEM format, and what TLS asks of clients; see ``TlsFiles``. ``more``: further certificates."""

    cert: Annotated[Path, effects.CERTIFICATES]
    key: Annotated[Path, effects.CERTIFICATES]
    more: Annotated[tuple[KeyPair, ...], effects.CERTIFICATES] = ()
    client: Annotated[str, effects.CERTIFICATES] = NONE
    ca: Annotated[Path | None, effects.CERTIFICATES] = None
    crl: Annotated[Path | None, effects.CERTIFICATES] = None
    min: Annotated[str, effects.CERTIFICATES] = "1.2"
    ciphers: Annotated[str, effects.CERTIFICATES] = ""
    resumption: Annotated[bool, effects.CERTIFICATES] = True

    def files(self) -> TlsFiles:
        """The same in the form that a listener takes."""
        return TlsFiles(
            (KeyPair(self.cert, self.key), *self.more), self.client, self.ca, self.crl, self.min, self.ciphers,
            self.resumption,
        )  # fmt: skip


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSpec:
    """``kind`` is ``mqtt``: plain TCP, or ``ws``: WebSocket, which has ``path``; ``mqtts`` and ``wss`` have ``tls``.
    ``proxy``: the networks of load balancers that send the PROXY protocol. ``identify``: the names of the providers of
    identities that it asks, in this order; empty: all of the section."""

    kind: Annotated[str, KEY]
    address: Annotated[Address, KEY]
    path: Annotated[str, KEY] = ""
    tls: Annotated[TlsSpec | None, PARTS] = None
    proxy: Annotated[tuple[str, ...], effects.NEW_CONNECTIONS] = ()
    origins: Annotated[tuple[str, ...], effects.NEW_CONNECTIONS] = ()
    headers: Annotated[tuple[HeaderRule, ...], effects.NEW_CONNECTIONS, SECRET] = field(default=(), repr=False)
    identify: Annotated[tuple[str, ...], effects.PROVIDERS_ASKED] = ()

    @property
    def local(self) -> bool:
        """Whether only clients of this machine reach it: a load balancer brings others."""
        return self.address.loopback and not self.proxy

    def listen(self) -> Listen:
        """The listener in the form that a node takes."""
        return Listen(
            self.kind, self.address.host, self.address.port, self.path, None if self.tls is None else self.tls.files(),
            tuple([ip_network(network) for network in self.proxy]), self.origins, self.headers,
        )  # fmt: skip


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDoorSpec:
    """Replicas share the addresses (SO_REUSEPORT on one machine). ``redirect``: the server that clients are sent to;
    empty: no redirect. ``resources`` are Ray resources, for placement."""

    name: Annotated[str, KEY]
    replicas: Annotated[int, effects.DOORS] = 1
    listen: Annotated[tuple[ListenerSpec, ...], effects.LISTENERS]
    redirect: Annotated[str, LIVE] = ""
    resources: Annotated[dict[str, float], effects.DOOR_MACHINE] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSpec:
    """As ``FrontDoorSpec``, for back-end applications."""

    name: Annotated[str, KEY]
    replicas: Annotated[int, effects.CORES] = 1
    listen: Annotated[tuple[ListenerSpec, ...], effects.LISTENERS]
    redirect: Annotated[str, LIVE] = ""
    resources: Annotated[dict[str, float], effects.MACHINE] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSpec:
    """New vehicles go to an edge in proportion to its ``weight``; 0 takes none."""

    name: Annotated[str, KEY]
    weight: Annotated[int, effects.NEW_VEHICLES] = 100
    resources: Annotated[dict[str, float], effects.MACHINE] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """``prefix``: the pool takes the vehicles whose identity begins with it; the empty one takes all others."""

    name: Annotated[str, KEY]
    prefix: Annotated[str, effects.NEW_VEHICLES, Form("match.prefix")] = ""
    edges: Annotated[tuple[EdgeSpec, ...], effects.EDGES]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BackendUser:
    user: Annotated[str, KEY]
    password: Annotated[SecretText, effects.PASSWORD, SECRET]
    roles: Annotated[tuple[str, ...], effects.ROLES_GIVEN] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRule:
    """The clients that may connect to a core: ``users`` with a password, then what ``providers`` admit, and clients
    without a password if ``anonymous``. ``when_full``: what becomes of messages for a full queue of a back end."""

    anonymous: Annotated[bool, effects.ANONYMOUS]
    users: Annotated[tuple[BackendUser, ...], effects.USERS] = ()
    providers: Annotated[tuple[ProviderSpec, ...], effects.PROVIDERS] = ()
    when_full: Annotated[str, LIVE] = DEAD_LETTER

    def names(self) -> tuple[str, ...]:
        """The names of all providers that a core asks, in their order."""
        users = (USERS,) if self.users else ()
        return (*users, *(spec.name for spec in self.providers), *((ANONYMOUS,) if self.anonymous else ()))

    def order(self, attempts: Attempts, seal: Callable[[bytes], str], listeners: Iterable[ListenerSpec] = ()) -> Order:
        """The chains of a core with these listeners. ``seal`` makes a text of a digest that tells nothing of it."""
        passwords = {user.user: user.password for user in self.users}

        def users(before: Provider | None) -> Provider:
            return Users(passwords, attempts, seal, before if isinstance(before, Users) else None)

        def anonymous(_: Provider | None) -> Provider:
            return AnyUser()

        plans = [planned(spec, USER, _user, attempts) for spec in self.providers]
        if self.users:
            plans.insert(0, Planned(USERS, tuple(passwords.items()), users))
        if self.anonymous:
            plans.append(Planned(ANONYMOUS, ANONYMOUS, anonymous))
        clients = {(USERS, user.user): user.roles for user in self.users if user.roles}
        return Order(tuple(plans), asked(listeners), bind_user, given(self.providers, clients))


def _user(connect: Connect) -> str:
    return connect.username or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """Topic filters that one class of clients may publish to and subscribe to; ``refuse`` takes precedence. ``will``
    and ``retain``: whether they may have a will and publish retained messages; ``qos``: the highest of their publishes
    and subscriptions. ``{vehicle}``, ``{client_id}`` and ``{role}`` may be whole levels of filters."""

    publish: Annotated[tuple[str, ...], effects.ACCESS]
    subscribe: Annotated[tuple[str, ...], effects.ACCESS]
    refuse: Annotated[tuple[str, ...], effects.ACCESS] = ()
    will: Annotated[bool, effects.ACCESS] = True
    retain: Annotated[bool, effects.ACCESS] = True
    qos: Annotated[int, effects.ACCESS] = MOST_QOS


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec(AccessRule):
    """What clients with this role may do, besides what all of their class may."""

    name: Annotated[str, KEY]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """``vehicles``: in addition to each vehicle's own subtree. ``roles``: in addition, for those that have them.
    ``refusal``: the MQTT 5.0 reason code of a refusal. ``on_refusal``: ``ignore`` or ``disconnect``, for a
    publish or will of a client that cannot get a reason code."""

    vehicles: Annotated[AccessRule, PARTS] = AccessRule(publish=(), subscribe=())
    backends: Annotated[AccessRule, PARTS] = AccessRule(publish=ALL_TOPICS, subscribe=ALL_FILTERS)
    roles: Annotated[tuple[RoleSpec, ...], effects.ROLES] = ()
    refusal: Annotated[int, LIVE, Form(words=_CODES)] = NOT_AUTHORIZED
    on_refusal: Annotated[str, LIVE] = IGNORE

    def grant(self, rule: AccessRule, fleet: tuple[str, ...] = ()) -> Grant:
        return Grant(
            rule.publish, rule.subscribe, rule.refuse, self.refusal, fleet, rule.qos, rule.retain, rule.will
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersSpec:
    """Of each edge and core: ``bytes`` for all dead letters, ``share`` for those of one vehicle or back end, ``age``
    until a letter is dropped. ``expired``: also keep messages that expire in a queue."""

    bytes: Annotated[int, LIVE, SIZE] = 1 << 30
    share: Annotated[int, LIVE, SIZE] = 64 << 20
    age: Annotated[float, LIVE, TIME] = 30 * 86_400.0
    expired: Annotated[bool, LIVE] = False
    when_full: Annotated[str, LIVE] = DROP_OLDEST


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MapRule:
    """``cache``: how many records of vehicles a node keeps in memory; about 300 bytes each."""

    cache: Annotated[int, effects.MAP] = 200_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InternalTlsSpec:
    """Files in PEM format, for what nodes, scrapers and operators send to each other; ``{node}`` in a path is the name
    of the node. Both ends show a certificate that an authority in ``ca`` has signed."""

    ca: Annotated[Path, effects.INTERNAL]
    cert: Annotated[Path, effects.INTERNAL]
    key: Annotated[Path, effects.INTERNAL]

    def files(self, node: str) -> TlsFiles:
        """Those of one node, for its listeners and its connections to others."""
        ca, cert, key = (Path(str(file).replace(NODE, node)) for file in (self.ca, self.cert, self.key))
        return TlsFiles((KeyPair(cert, key),), REQUIRED, ca)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySpec:
    """``otlp``: the receiver of spans, or ``None``; ``sample``: the share of messages traced; ``watch``: vehicles that
    are always traced; ``sys_interval``: seconds between two updates of $SYS, 0 for none."""

    otlp: Annotated[str | None, LIVE] = None
    sample: Annotated[float, LIVE] = 1.0
    watch: Annotated[tuple[str, ...], LIVE] = ()
    sys_interval: Annotated[float, LIVE, TIME] = 10.0
    prometheus: Annotated[Address | None, LIVE] = None


LEVELS: Final = ("debug", "info", "warning", "error")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogsSpec:
    """``level``: the lowest level of lines that are in the logs, one of ``LEVELS``; ``nodes``: for single nodes;
    ``modules``: for loggers, such as ``mesh.broker``, on all nodes."""

    level: Annotated[str, LIVE] = "info"
    nodes: Annotated[dict[str, str], LIVE] = field(default_factory=dict)
    modules: Annotated[dict[str, str], LIVE] = field(default_factory=dict)

    def of(self, node: str) -> str:
        """The level of a node, or of the controller."""
        return self.nodes.get(node, self.level)


AUTO: Final = 0  # a limit that follows from what a process may do
# auto, none: a size, or this word for the default 0; files: a count, or auto for the default ``AUTO``.
Unit = Literal["count", "files", "size", "time", "auto", "none"]


def limit(default: float, unit: Unit, least: float, most: float) -> Any:
    """A field of ``LimitsSpec``: its default, unit and range."""
    return field(default=default, metadata={"unit": unit, "least": least, "most": most})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec:
    """Every bound of the mesh. "Session" and "connection" mean those of one client."""

    # A CONNECT that trickles in holds a slot (SlowITe, CVE-2020-13849); a vehicle on a poor radio link needs some
    # seconds.
    connect_timeout: Annotated[float, LIVE] = limit(10.0, "time", 1, 120)
    # Wrong passwords a minute at a core, from one address and for one user. A person mistypes a few; with this one a
    # guesser needs a year for ten million. Front doors allow more (``Attempts``).
    wrong_passwords: Annotated[int, LIVE] = limit(20, "count", 1, 1_000_000)
    # Connections whose TLS handshake, CONNECT or proof is not complete, per front door or core: a client that holds its
    # CONNECT back, one of the oldest, makes room for others.
    pending_connects: Annotated[int, LIVE] = limit(4096, "count", 16, 1_000_000)
    # CONNECTs a second, and TLS handshakes a second, at a front door or core, from one address and from one network,
    # on average over 20 s. Thousands of vehicles share an address of a phone network, and come back at once after a
    # fault.
    connects: Annotated[int, LIVE] = limit(20_000, "count", 1, 1_000_000)
    network_connects: Annotated[int, LIVE] = limit(5_000, "count", 1, 1_000_000)
    address_connects: Annotated[int, LIVE] = limit(1_000, "count", 1, 1_000_000)
    # CONNECTs a minute of one vehicle: two clients with one client id end each other's connections for ever.
    vehicle_connects: Annotated[int, LIVE] = limit(600, "count", 1, 1_000_000)
    # The largest packet that is read. MQTT's own limit is 256 MiB, all of which one client could make a node hold.
    max_packet_size: Annotated[int, effects.TOLD] = limit(1 << 20, "size", 1024, 268_435_455)
    # Very deep topics cost a step each (mosquitto#1412, CVE-2021-33176).
    topic_levels: Annotated[int, LIVE] = limit(128, "count", 3, 1024)
    # Unacknowledged deliveries per vehicle, unless it sets a lower limit itself, and its own unanswered publishes. The
    # second number is higher, as some clients ignore it and send at once all that they collected while offline.
    in_flight: Annotated[int, effects.TOLD] = limit(32, "count", 1, 65_535)
    receive_maximum: Annotated[int, effects.TOLD] = limit(1024, "count", 1, 65_535)
    # The same for a back end, which pipelines its publishes.
    backend_in_flight: Annotated[int, effects.TOLD] = limit(1024, "count", 1, 65_535)
    backend_receive_maximum: Annotated[int, effects.TOLD] = limit(1024, "count", 1, 65_535)
    # A longer keep alive is shortened (5.0) or not granted (3.x): a dead connection would keep its slot for most of a
    # day.
    max_keep_alive: Annotated[int, effects.TOLD] = limit(3600, "time", 10, 65_535)
    # Bytes a second. A packet that comes more slowly is no sign of life: single bytes would keep a connection, and the
    # part of the packet that is buffered, for ever.
    packet_rate: Annotated[int, LIVE] = limit(256, "size", 16, 1 << 20)
    # Queued messages per session.
    queue_messages: Annotated[int, LIVE] = limit(1000, "count", 1, 1_000_000)
    queue_bytes: Annotated[int, LIVE] = limit(64 << 20, "size", 1024, 1 << 40)
    # How long the messages for a connected vehicle with a full queue wait at the core before they are refused: more
    # than a busy vehicle needs for half its queue, less than most publishers wait for an answer.
    queue_patience: Annotated[float, LIVE] = limit(10.0, "time", 0.1, 3600)
    # A core's session on an edge carries the messages of all its back ends.
    tier_queue_messages: Annotated[int, LIVE] = limit(1_000_000, "count", 1, 1_000_000_000)
    tier_queue_bytes: Annotated[int, LIVE] = limit(1 << 30, "size", 1 << 20, 1 << 44)
    # The queue of a durable session of a back end, which may wait for a program that is down for days.
    backend_queue_messages: Annotated[int, LIVE] = limit(1_000_000, "count", 1, 1_000_000_000)
    backend_queue_bytes: Annotated[int, LIVE] = limit(1 << 30, "size", 1024, 1 << 44)
    # A forgotten session of a back end would keep messages for ever.
    backend_session_expiry: Annotated[float, effects.TOLD] = limit(30 * 86_400.0, "time", 0, NEVER)
    # What a core keeps for one disconnected edge.
    spool_messages: Annotated[int, LIVE] = limit(1_000_000, "count", 1, 1_000_000_000)
    spool_bytes: Annotated[int, LIVE] = limit(1 << 30, "size", 1 << 20, 1 << 44)
    # What a front door holds per connection and direction while the edge is unavailable; at the limit the door stops
    # reading.
    held_bytes: Annotated[int, LIVE] = limit(256 << 10, "size", 1024, 1 << 30)
    # Per front door or core. A connection costs some kilobytes and a file descriptor; see ``descriptors``.
    connections: Annotated[int, LIVE] = limit(AUTO, "files", 1, 10_000_000)
    # Per edge or core.
    sessions: Annotated[int, LIVE] = limit(1_000_000, "count", 1, 100_000_000)
    retained: Annotated[int, LIVE] = limit(1_000_000, "count", 0, 100_000_000)
    # Of one vehicle, with all its clients. The bytes of a subscription are those that it takes in memory: 600, twice
    # its text, and 350 for each level; of a retained message 400, twice its topic, 350 for each level, and its bytes on
    # disk. At the defaults 1,000 subscriptions of 128 levels and 10,000 retained topics of eight levels fit.
    vehicle_sessions: Annotated[int, LIVE] = limit(16, "count", 1, 1_000_000)
    vehicle_subscription_bytes: Annotated[int, LIVE] = limit(64 << 20, "size", 1024, 1 << 40)
    vehicle_retained_bytes: Annotated[int, LIVE] = limit(64 << 20, "size", 1024, 1 << 40)
    vehicle_queue_bytes: Annotated[int, LIVE] = limit(128 << 20, "size", 1024, 1 << 40)
    # Filters, and parts of filters, that one topic may have to be compared with on its way through the tree of filters.
    match_nodes: Annotated[int, LIVE] = limit(8192, "count", 256, 1_000_000)
    # Budgets of one node: memory of all that clients make it keep, 0 for a part of what the machine has; and bytes of
    # its journal (with the spools) on disk, 0 for none.
    memory: Annotated[int, LIVE] = limit(0, "auto", 64 << 20, 1 << 44)
    disk: Annotated[int, LIVE] = limit(0, "none", 256 << 20, 1 << 50)
    # Per session.
    subscriptions: Annotated[int, LIVE] = limit(10_000, "count", 1, 1_000_000)
    topic_aliases: Annotated[int, effects.TOLD] = limit(16, "count", 0, 65_535)
    session_expiry: Annotated[float, effects.TOLD] = limit(NEVER, "time", 0, NEVER)
    # The messages of a member of a shared group that acknowledges nothing for this time go to other members.
    shared_patience: Annotated[float, LIVE] = limit(30.0, "time", 1, 86_400)
    # An edge that does not acknowledge in this time counts as unavailable, so that its back ends do not wait for it.
    owner_timeout: Annotated[float, LIVE] = limit(2.0, "time", 0.05, 60)
    # How long a vehicle's CONNECT waits for its edge: less than the timeout of usual clients.
    connect_wait: Annotated[float, LIVE] = limit(30.0, "time", 1, 300)
    # How long a session waits for its connection after a restart of its edge or a break of the device link.
    attach_grace: Annotated[float, LIVE] = limit(60.0, "time", 1, 3600)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """``fleet``: topic filters that back ends publish to and all vehicles may read. ``data`` is absolute; ``bind`` is
    the host of the internal ports; ``ray`` is ``local`` or a cluster's address."""

    mesh: Annotated[str, effects.MESH]
    etcd: Annotated[EtcdSpec, PARTS]
    identity: Annotated[IdentityRule, PARTS]
    template: Annotated[str, effects.TEMPLATE, Form("topics.vehicle")]
    fleet: Annotated[tuple[str, ...], LIVE, Form("topics.fleet")]
    inbox: Annotated[InboxSpec | None, Parts(LIVE)]
    front_doors: Annotated[tuple[FrontDoorSpec, ...], effects.DOORS]
    cores: Annotated[tuple[CoreSpec, ...], effects.CORES]
    pools: Annotated[tuple[PoolSpec, ...], effects.POOLS]
    backends: Annotated[BackendRule, PARTS]
    access: Annotated[Access, PARTS]
    dead_letters: Annotated[DeadLettersSpec, PARTS]
    limits: Annotated[LimitsSpec, PARTS]
    map: Annotated[MapRule, PARTS]
    telemetry: Annotated[TelemetrySpec, PARTS]
    logs: Annotated[LogsSpec, PARTS]
    console: Annotated[Address | None, LIVE]
    internal: Annotated[InternalTlsSpec | None, Parts(effects.INTERNAL), Form("internal.tls")] = None
    data: Annotated[Path, effects.DATA]
    ray: Annotated[str, effects.RAY]
    bind: Annotated[str, effects.BIND]

    def vehicle_template(self) -> Template:
        return Template(self.template)

    def pool_of(self, vehicle: str) -> PoolSpec | None:
        """The pool with the longest matching prefix, or ``None`` if no pool takes this vehicle."""
        fitting = [pool for pool in self.pools if vehicle.startswith(pool.prefix)]
        return max(fitting, key=lambda pool: len(pool.prefix), default=None)

    def edges(self) -> list[EdgeSpec]:
        """All edges of all pools, in the order of the file."""
        return [edge for pool in self.pools for edge in pool.edges]


def written_secrets(topology: Topology) -> list[str]:
    """The keys of the secrets whose values are in the topology itself."""
    auth = topology.etcd.auth
    found = [] if auth is None else [("etcd.auth.password", auth.password)]
    found += [(f"backends.users.{user.user}.password", user.password) for user in topology.backends.users]
    for section, providers in (("identity", topology.identity.providers), ("backends", topology.backends.providers)):
        for spec in providers:
            headers = () if spec.http is None else spec.http.headers
            found += [(f"{section}.providers.{spec.name}.http.headers.{one.name}", one.value) for one in headers]
    return [key for key, secret in found if secret.written]


def as_dict(topology: Topology) -> dict[str, Any]:
    """The topology in dictionaries, lists, texts and numbers only (fit for JSON). It has the secrets that the topology
    has itself, and of others where they are."""
    plain = _plain(asdict(topology))
    assert isinstance(plain, dict)
    return plain


def from_dict(data: dict[str, Any]) -> Topology:
    """The inverse of ``as_dict``. Raises ``KeyError`` or ``TypeError`` for other dictionaries."""
    restored = _restore(Topology, data)
    assert isinstance(restored, Topology)
    return restored


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _restore(kind: Any, value: Any) -> object:
    """``value`` as an instance of the annotation ``kind``."""
    if isinstance(kind, UnionType):
        if value is None:
            return None
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{item.name: _restore(hints[item.name], value[item.name]) for item in fields(kind)})
    if get_origin(kind) is tuple:
        return tuple(_restore(get_args(kind)[0], item) for item in value)
    return Path(value) if kind is Path else value
