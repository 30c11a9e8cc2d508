"""Reads a topology file: ``load(path)`` returns a ``Topology`` or raises ``TopologyErrors`` with every mistake.

It knows every key of the file, its default and its right values. It must never touch the network or make a folder. What
always holds: each reader below reads one section and returns a value even if the section is wrong; ``load`` raises if
there is at least one mistake.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from mesh.policy.identity import CLIENT_ID, SOURCES, USERNAME
from mesh.policy.pattern import Pattern
from mesh.policy.scram import read_verifiers
from mesh.policy.template import PLACE, Template
from mesh.private import read_given, read_named
from mesh.topology import checks, units
from mesh.topology.fields import Notes, Table, kind, table
from mesh.topology.mistakes import Mistake, TopologyErrors
from mesh.topology.topology import (
    DEAD_LETTER,
    DISCONNECT,
    DROP_OLDEST,
    EMBEDDED,
    HOLD,
    IGNORE,
    LOCAL,
    NEVER,
    REJECT,
    Access,
    AccessRule,
    BackendRule,
    CoreSpec,
    DeadLettersSpec,
    EdgeSpec,
    EtcdAuthSpec,
    EtcdSpec,
    EtcdTlsSpec,
    FrontDoorSpec,
    IdentityRule,
    InboxSpec,
    LimitsSpec,
    ListenerSpec,
    MapRule,
    PoolSpec,
    TelemetrySpec,
    Topology,
)
from mesh.topology.tree import MAX_BYTES, BrokenText, Mapping, Scalar, Sequence, parse
from mesh.wire.reasons import NOT_AUTHORIZED, UNSPECIFIED_ERROR
from mesh.wire.topics import filter_error, is_shared, overlap

SECTIONS: Final = (
    "mesh", "etcd", "identity", "topics", "inbox", "front_doors", "cores", "pools", "backends", "access",
    "dead_letters", "limits", "map", "telemetry", "console", "data", "ray", "bind",
)  # fmt: skip
GROUP: Final = ("name", "replicas", "listen", "redirect", "resources")
# The reason code for a client without permission; the second one does not reveal the reason.
REFUSALS: Final = {"not_authorized": NOT_AUTHORIZED, "unspecified_error": UNSPECIFIED_ERROR}
_DEAD_LETTERS: Final = "$dead-letters"
LATER: Final = "comes with a later release"
# Replicas share one machine; larger groups need names of their own.
MAX_REPLICAS: Final = 64
# Each edge is a process with a journal.
MAX_WEIGHT: Final = 1000


def load(path: str | os.PathLike[str]) -> Topology:
    """The topology in a file. Raises ``TopologyErrors``; a file that cannot be read is one of them."""
    place = Path(path)
    try:
        data = read_named(place, MAX_BYTES + 1)
    except OSError as error:
        raise TopologyErrors([Mistake(str(path), 1, 1, "", f"the file cannot be read: {error.strerror}")]) from None
    return loads(data, str(path), place.resolve().parent)


def exposure(path: str | os.PathLike[str], topology: Topology) -> str:
    """One sentence if every user of the host can read the passwords in the file of a topology; else empty. A mesh must
    not start with such passwords. Raises ``OSError``."""
    if topology.etcd.auth is None and not topology.backends.users:
        return ""
    if not Path(path).stat().st_mode & stat.S_IROTH:
        return ""
    return f"{path} has passwords, and every user of this machine can read it; run: chmod o-r {path}"


def loads(data: bytes, file: str, folder: Path) -> Topology:
    """The topology in ``data``. Messages name ``file``; relative paths start at ``folder``.

    Raises ``TopologyErrors``.
    """
    try:
        root = parse(data)
    except BrokenText as error:
        raise TopologyErrors([Mistake(file, error.line, error.column, "", error.what)]) from None
    notes = Notes(file)
    top = table(notes, root or Mapping(1, 1), "", SECTIONS)
    topology = None if top is None else _topology(top, folder)
    if topology is not None and top is not None:
        checks.run(top, topology)
    if topology is None or notes.mistakes:
        raise TopologyErrors(notes.mistakes)
    return topology


def _topology(top: Table, folder: Path) -> Topology:
    path = _path(folder)
    template, fleet = _topics(top)
    cores = _cores(top)
    limits = _limits(top)
    return Topology(
        mesh=top.value("mesh", units.name, "mesh", "write the name of the mesh, such as mesh: demo"),
        etcd=_etcd(top, path),
        identity=_identity(top, path),
        template=template,
        fleet=fleet,
        inbox=_inbox(top, template),
        front_doors=_front_doors(top),
        cores=cores,
        pools=_pools(top),
        backends=_backends(top, cores),
        access=_access(top),
        dead_letters=_dead_letters(top, limits),
        limits=limits,
        map=_map(top),
        telemetry=_telemetry(top),
        console=_optional(top, "console", units.address),
        data=top.value("data", path, path(".mesh")),
        ray=top.value("ray", _ray, LOCAL),
        bind=top.value("bind", units.host, "127.0.0.1"),
    )


def _path(folder: Path) -> Callable[[str], Path]:
    """A reader of paths; a relative path starts at the folder of the topology file."""

    def read(text: str) -> Path:
        return Path(os.path.normpath(folder / Path(units.plain(text)).expanduser()))

    return read


def _optional(section: Table, key: str, read: Callable[[str], Any]) -> Any:
    """The value of a key, or ``None``."""
    return section.value(key, read, None)


def _ray(text: str) -> str:
    if text == LOCAL:
        return text
    if text == "auto":
        raise ValueError("'auto' is not supported; write local, or the address of a Ray cluster such as 10.0.0.5:6379")
    try:
        return str(units.address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not valid here; write local, or host:port of a running Ray cluster") from None


def _etcd(top: Table, path: Callable[[str], Path]) -> EtcdSpec:
    right = (
        "write embedded, a list such as [https://etcd-1:2379], "
        "or {endpoints: [...], tls: {ca: ...}, auth: {user: ..., password: ...}}"
    )
    endpoint = units.url("http", "https")
    node = top.node_of("etcd")
    if not top.has("etcd"):
        return EtcdSpec()
    if isinstance(node, Scalar):
        if node.text != EMBEDDED:
            top.wrong("etcd", f"found {kind(node)}; {right}")
        return EtcdSpec()
    if isinstance(node, Sequence):
        endpoints = top.values("etcd", endpoint, right)
        _one_scheme(top, "etcd", endpoints)
        return EtcdSpec(endpoints=endpoints)
    section = top.table("etcd", ("endpoints", "tls", "auth"))
    if section is None:
        return EtcdSpec()
    endpoints = section.values("endpoints", endpoint, right)
    _one_scheme(section, "endpoints", endpoints)
    tls = _tls(section, path)
    if tls is not None and any(one.startswith("http:") for one in endpoints):
        section.wrong("tls", "tls needs https:// endpoints, and one endpoint is http://; write https:// or remove tls")
    return EtcdSpec(endpoints=endpoints, tls=tls, auth=_auth(section))


def _one_scheme(section: Table, key: str, endpoints: tuple[str, ...]) -> None:
    if len({endpoint.partition(":")[0] for endpoint in endpoints}) > 1:
        section.wrong(key, "the endpoints mix http:// and https://; write all http:// or all https://")


def _tls(section: Table, path: Callable[[str], Path]) -> EtcdTlsSpec | None:
    inner = section.table("tls", ("ca", "cert", "key"))
    if inner is None:
        return None

    def file(text: str, secret: bool = False) -> Path:
        found = path(text)
        if not found.is_file():
            raise ValueError(f"{found} is not a file; write the path of a PEM file")
        try:
            read_given(found, secret)
        except OSError as error:
            raise ValueError(f"the file cannot be used: {error.strerror}") from None
        return found

    tls = EtcdTlsSpec(
        ca=_optional(inner, "ca", file),
        cert=_optional(inner, "cert", file),
        key=_optional(inner, "key", lambda text: file(text, secret=True)),
    )
    if inner.has("cert") != inner.has("key"):
        section.wrong("tls", "cert and key belong together; write both or neither")
    return tls


def _auth(section: Table) -> EtcdAuthSpec | None:
    inner = section.table("auth", ("user", "password"))
    if inner is None:
        return None
    return EtcdAuthSpec(
        user=inner.value("user", units.plain, "", "write the user's name"),
        password=inner.value("password", units.plain, "", "write the user's password"),
    )


def _identity(top: Table, path: Callable[[str], Path]) -> IdentityRule:
    usual = IdentityRule(source=USERNAME, pattern="[A-Za-z0-9_-]{1,64}")
    section = top.table("identity", ("from", "pattern", "default", "scram"))
    if section is None:
        return usual
    source = section.value("from", _source, usual.source)
    pattern = section.value("pattern", lambda text: Pattern(text).text, usual.pattern)

    def fitting(text: str) -> str:
        if not Pattern(pattern).matches(text):
            raise ValueError(f"{text!r} does not match the pattern {pattern}; write an identity that does")
        return text

    def verifiers(text: str) -> Path:
        file = path(text)
        try:
            read_verifiers(file)
        except OSError as error:
            raise ValueError(f"the file {file} cannot be read: {error.strerror}") from None
        return file

    default = section.value("default", fitting, "")
    scram = _optional(section, "scram", verifiers)
    if default and scram is not None:
        section.wrong("default", "with scram every vehicle proves its identity, so there is no default; remove one")
    return IdentityRule(source=source, pattern=pattern, default=default, scram=scram)


def _source(text: str) -> str:
    if text == "tls_common_name":
        raise ValueError(f"tls_common_name {LATER}, with TLS listeners; write {USERNAME} or {CLIENT_ID}")
    return units.choice(*SOURCES)(text)


def _topics(top: Table) -> tuple[str, tuple[str, ...]]:
    """The template of the vehicles' topics, and the filters of the fleet topics."""
    default = f"vehicles/{PLACE}/#"
    section = top.table("topics", ("vehicle", "fleet"))
    if section is None:
        return default, ()
    template = section.value("vehicle", lambda text: Template(text).text, default)

    def common(text: str) -> str:
        error = filter_error(text)
        if error:
            raise ValueError(f"{text!r}: {error}")
        if text[0] in "+#$":
            raise ValueError(f"{text!r} begins with a wildcard or $; begin with a literal level, such as fleet/#")
        if overlap(text, template.replace(PLACE, "+")):
            raise ValueError(f"{text!r} matches topics of single vehicles; write a filter such as fleet/#")
        return text

    return template, section.values("fleet", common)


def _inbox(top: Table, template: str) -> InboxSpec | None:
    section = top.table("inbox", ("subscribe", "qos", "expiry", "max_messages", "max_bytes", "when_full"))
    if section is None:
        return None
    subtree = Template(template).subtree(PLACE)

    def own_filter(text: str) -> str:
        error = filter_error(text)
        if error:
            raise ValueError(f"{text!r}: {error}")
        if not text.startswith(subtree) or text.count(PLACE) != 1:
            raise ValueError(f"{text!r} must be a filter that begins with {subtree} and has no further {PLACE}")
        return text

    defaults = InboxSpec(subscribe=())
    return InboxSpec(
        subscribe=section.values("subscribe", own_filter, f"write the filters, such as [{subtree}cmd/#]"),
        qos=section.value("qos", units.integer(0, 2), defaults.qos),
        expiry=section.value("expiry", _within(units.duration, 1, NEVER), defaults.expiry),
        max_messages=section.value("max_messages", units.integer(1, 1_000_000), defaults.max_messages),
        max_bytes=section.value("max_bytes", _within(units.size, 1024, 1 << 40), defaults.max_bytes),
        when_full=section.value("when_full", units.choice(REJECT, DROP_OLDEST, DEAD_LETTER), defaults.when_full),
    )


def _within(read: Callable[[str], float], least: float, most: float) -> Callable[[str], Any]:
    """``read`` with a range. The message gives the range in seconds or bytes."""

    def ranged(text: str) -> float:
        if text == "never" and most == NEVER:
            return NEVER
        value = read(text)
        if not least <= value <= most:
            unit = "B" if read is units.size else "s"
            raise ValueError(f"{text!r} is out of range; write a value from {least:.15g}{unit} to {most:.15g}{unit}")
        return value

    return ranged


def _front_doors(top: Table) -> tuple[FrontDoorSpec, ...]:
    right = 'write at least one: front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]'
    return tuple(FrontDoorSpec(**_group(section)) for section in top.tables("front_doors", GROUP, right))


def _cores(top: Table) -> tuple[CoreSpec, ...]:
    right = 'write at least one: cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]'
    return tuple(CoreSpec(**_group(section)) for section in top.tables("cores", GROUP, right))


def _group(section: Table) -> dict[str, Any]:
    """The keys that doors and cores share."""
    return {
        "name": section.value("name", units.name, "", "every front door and core needs a name"),
        "replicas": section.value("replicas", units.integer(1, MAX_REPLICAS), 1),
        "listen": _listeners(section),
        "redirect": section.value("redirect", units.plain, ""),
        "resources": section.free("resources", units.decimal(0, 1_000_000)),
    }


def _listeners(section: Table) -> tuple[ListenerSpec, ...]:
    found: list[ListenerSpec] = []
    right = 'write at least one listener: listen: [{mqtt: "127.0.0.1:1883"}]'
    for listener in section.tables("listen", ("mqtt", "mqtts", "ws", "wss", "tls", "path"), right):
        later = [key for key in ("mqtts", "ws", "wss") if listener.has(key)]
        for key in later:
            listener.wrong(key, f"the listener kind {key} {LATER}; use mqtt")
        if not later:
            for key in ("tls", "path"):
                if listener.has(key):
                    listener.wrong(key, f"an mqtt listener has no {key}; remove it")
            if address := listener.value("mqtt", units.address, None, right):
                found.append(ListenerSpec(kind="mqtt", address=address))
    return tuple(found)


def _pools(top: Table) -> tuple[PoolSpec, ...]:
    found: list[PoolSpec] = []
    right = "write at least one: pools: [{name: standard, edges: [{name: edge-1}]}]"
    for section in top.tables("pools", ("name", "match", "edges"), right):
        match = section.table("match", ("prefix",))
        prefix = (
            ""
            if match is None
            else match.value("prefix", units.plain, "", "write the first characters of the identities: {prefix: OLD}")
        )
        edges = section.tables(
            "edges", ("name", "weight", "resources", "external"), "write at least one edge: [{name: edge-1}]"
        )
        found.append(
            PoolSpec(
                name=section.value("name", units.name, "", "every pool needs a name"),
                prefix=prefix,
                edges=tuple(_edge(edge) for edge in edges),
            )
        )
    return tuple(found)


def _edge(section: Table) -> EdgeSpec:
    if section.has("external"):
        section.wrong(
            "external", f"an external edge (another broker) {LATER}; remove the key to use an edge of this mesh"
        )
    return EdgeSpec(
        name=section.value("name", units.name, "", "every edge needs a name"),
        weight=section.value("weight", units.integer(0, MAX_WEIGHT), 100),
        resources=section.free("resources", units.decimal(0, 1_000_000)),
    )


def _backends(top: Table, cores: tuple[CoreSpec, ...]) -> BackendRule:
    """Without users: if the cores listen on loopback only they admit every client, else the file must say so."""
    section = top.table("backends", ("anonymous", "users", "when_full"))
    inner = [] if section is None else list(section.tables("users", ("user", "password")))
    users = tuple(
        EtcdAuthSpec(
            user=user.value("user", units.plain, "", "write the back end's user name"),
            password=user.value("password", units.plain, "", "write the back end's password"),
        )
        for user in inner
    )
    local = all(listener.address.loopback for core in cores for listener in core.listen)
    anonymous = local and not users
    when_full = DEAD_LETTER
    if section is not None:
        when_full = section.value("when_full", units.choice(DEAD_LETTER, HOLD), when_full)
        anonymous = section.value("anonymous", units.boolean, anonymous)
    if not anonymous and not users:
        what = "no back end could connect; write users: [{user: ..., password: ...}]"
        if section is None or not section.has("anonymous"):
            what = f"a core listens beyond this machine, so {what}, or anonymous: true to admit every client"
        top.wrong("backends", what)
    return BackendRule(anonymous=anonymous, users=users, when_full=when_full)


def _access(top: Table) -> Access:
    section = top.table("access", ("vehicles", "backends", "refusal", "on_refusal"))
    if section is None:
        return Access()
    defaults = Access()
    return Access(
        vehicles=_access_rule(section, "vehicles", defaults.vehicles),
        backends=_access_rule(section, "backends", defaults.backends),
        refusal=section.value("refusal", _refusal, defaults.refusal),
        on_refusal=section.value("on_refusal", units.choice(IGNORE, DISCONNECT), defaults.on_refusal),
    )


def _access_rule(section: Table, key: str, default: AccessRule) -> AccessRule:
    rule = section.table(key, ("publish", "subscribe", "refuse"))
    if rule is None:
        return default

    read = _vehicles_filter if key == "vehicles" else _plain_filter

    def filters(name: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        return rule.values(name, read) if rule.has(name) else otherwise

    return AccessRule(
        publish=filters("publish", default.publish),
        subscribe=filters("subscribe", default.subscribe),
        refuse=filters("refuse", ()),
    )


def _plain_filter(text: str) -> str:
    error = filter_error(text)
    if error:
        raise ValueError(f"{text!r}: {error}")
    if is_shared(text):
        raise ValueError(f"{text!r}: write the filter without $share; it applies to shared subscriptions too")
    return text


def _vehicles_filter(text: str) -> str:
    if text.split("/")[0] == _DEAD_LETTERS:
        raise ValueError(f"{text!r}: only back ends may read dead letters, which are messages of other vehicles, too")
    return _plain_filter(text)


def _refusal(text: str) -> int:
    return REFUSALS[units.choice(*REFUSALS)(text)]


def _dead_letters(top: Table, limits: LimitsSpec) -> DeadLettersSpec:
    section = top.table("dead_letters", ("bytes", "share", "age", "expired", "when_full"))
    share = max(DeadLettersSpec().share, limits.max_packet_size + checks.LETTER)
    defaults = DeadLettersSpec(share=share, bytes=max(DeadLettersSpec().bytes, share))
    if section is None:
        return defaults
    size = _within(units.size, 1 << 20, 1 << 44)
    return DeadLettersSpec(
        bytes=section.value("bytes", size, defaults.bytes),
        share=section.value("share", size, defaults.share),
        age=section.value("age", _within(units.duration, 1, NEVER), defaults.age),
        expired=section.value("expired", units.boolean, defaults.expired),
        when_full=section.value("when_full", units.choice(DROP_OLDEST, HOLD), defaults.when_full),
    )


def _limits(top: Table) -> LimitsSpec:
    known = {item.name: item for item in fields(LimitsSpec)}
    section = top.table("limits", tuple(known))
    if section is None:
        return LimitsSpec()
    values: dict[str, Any] = {name: section.value(name, _limit(item), item.default) for name, item in known.items()}
    return LimitsSpec(**values)


def _limit(item: Field[Any]) -> Callable[[str], Any]:
    """The reader for one of the limits."""
    least, most = item.metadata["least"], item.metadata["most"]
    if item.metadata["unit"] == "count":
        return units.integer(least, most)
    if item.metadata["unit"] == "files":
        return _or_word("auto", units.integer(least, most))
    read = _within(units.duration if item.metadata["unit"] == "time" else units.size, least, most)
    word = item.metadata["unit"]
    return _or_word(word, read) if word in ("auto", "none") else read


def _or_word(word: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The reader of a word that stands for 0, or of what ``read`` takes."""

    def either(text: str) -> Any:
        if text == word:
            return 0
        try:
            return read(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return either


def _map(top: Table) -> MapRule:
    section = top.table("map", ("cache",))
    return (
        MapRule()
        if section is None
        else MapRule(cache=section.value("cache", units.integer(1000, 100_000_000), MapRule().cache))
    )


def _telemetry(top: Table) -> TelemetrySpec:
    section = top.table("telemetry", ("otlp", "sample", "watch", "sys_interval", "prometheus"))
    if section is None:
        return TelemetrySpec()
    return TelemetrySpec(
        otlp=_optional(section, "otlp", units.url("http", "https")),
        sample=section.value("sample", units.decimal(0, 1), 1.0),
        watch=section.values("watch", units.plain),
        sys_interval=section.value("sys_interval", _within(units.duration, 0, 3600), TelemetrySpec().sys_interval),
        prometheus=_optional(section, "prometheus", units.address),
    )
