"""Reads a topology file: ``load(path)`` returns a ``Topology`` or raises ``TopologyErrors`` with every mistake.

It knows the sections of the file and their defaults; the larger sections are in ``etcd``, ``groups`` and ``access``. It
must never touch the network or make a folder. What always holds: each reader of a section returns a value even if the
section is wrong; ``load`` raises if there is at least one mistake.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from mesh.policy.template import PLACE, Template
from mesh.private import read_named
from mesh.topology import checks, units
from mesh.topology.access import read_access
from mesh.topology.etcd import read_etcd
from mesh.topology.fields import Notes, Table, table
from mesh.topology.groups import read_backends, read_cores, read_front_doors, read_pools
from mesh.topology.identity import read_identity
from mesh.topology.internal import check_internal, read_internal
from mesh.topology.mistakes import Mistake, TopologyErrors
from mesh.topology.ranges import or_word, within
from mesh.topology.topology import (
    DEAD_LETTER,
    DROP_OLDEST,
    HOLD,
    LEVELS,
    LOCAL,
    NEVER,
    REJECT,
    DeadLettersSpec,
    InboxSpec,
    LimitsSpec,
    LogsSpec,
    MapRule,
    TelemetrySpec,
    Topology,
    written_secrets,
)
from mesh.topology.tree import MAX_BYTES, BrokenText, Mapping, parse
from mesh.wire.topics import filter_error, overlap

SECTIONS: Final = (
    "mesh", "etcd", "identity", "topics", "inbox", "front_doors", "cores", "pools", "backends", "access",
    "dead_letters", "limits", "map", "telemetry", "logs", "console", "internal", "data", "ray", "bind",
)  # fmt: skip


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
    if not written_secrets(topology):
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
        check_internal(top, topology)
    if topology is None or notes.mistakes:
        raise TopologyErrors(notes.mistakes)
    return topology


def _topology(top: Table, folder: Path) -> Topology:
    path = _path(folder)
    template, fleet = _topics(top)
    doors = read_front_doors(top, path)
    cores = read_cores(top, path)
    limits = _limits(top)
    return Topology(
        mesh=top.value("mesh", units.name, "mesh", "write the name of the mesh, such as mesh: demo"),
        etcd=read_etcd(top, path),
        identity=read_identity(top, path, doors),
        template=template,
        fleet=fleet,
        inbox=_inbox(top, template),
        front_doors=doors,
        cores=cores,
        pools=read_pools(top),
        backends=read_backends(top, path, cores),
        access=read_access(top),
        dead_letters=_dead_letters(top, limits),
        limits=limits,
        map=_map(top),
        telemetry=_telemetry(top),
        logs=_logs(top),
        console=top.value("console", units.address, None),
        internal=read_internal(top, path),
        data=top.value("data", path, path(".mesh")),
        ray=top.value("ray", _ray, LOCAL),
        bind=top.value("bind", units.host, "127.0.0.1"),
    )


def _path(folder: Path) -> Callable[[str], Path]:
    """A reader of paths; a relative path starts at the folder of the topology file."""

    def read(text: str) -> Path:
        return Path(os.path.normpath(folder / Path(units.plain(text)).expanduser()))

    return read


def _ray(text: str) -> str:
    if text == LOCAL:
        return text
    if text == "auto":
        raise ValueError("'auto' is not supported; write local, or the address of a Ray cluster such as 10.0.0.5:6379")
    try:
        return str(units.address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not valid here; write local, or host:port of a running Ray cluster") from None


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
        expiry=section.value("expiry", within(units.duration, 1, NEVER), defaults.expiry),
        max_messages=section.value("max_messages", units.integer(1, 1_000_000), defaults.max_messages),
        max_bytes=section.value("max_bytes", within(units.size, 1024, 1 << 40), defaults.max_bytes),
        when_full=section.value("when_full", units.choice(REJECT, DROP_OLDEST, DEAD_LETTER), defaults.when_full),
    )


def _dead_letters(top: Table, limits: LimitsSpec) -> DeadLettersSpec:
    section = top.table("dead_letters", ("bytes", "share", "age", "expired", "when_full"))
    share = max(DeadLettersSpec().share, limits.max_packet_size + checks.LETTER)
    defaults = DeadLettersSpec(share=share, bytes=max(DeadLettersSpec().bytes, share))
    if section is None:
        return defaults
    size = within(units.size, 1 << 20, 1 << 44)
    return DeadLettersSpec(
        bytes=section.value("bytes", size, defaults.bytes),
        share=section.value("share", size, defaults.share),
        age=section.value("age", within(units.duration, 1, NEVER), defaults.age),
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
        return or_word("auto", units.integer(least, most))
    read = within(units.duration if item.metadata["unit"] == "time" else units.size, least, most)
    word = item.metadata["unit"]
    return or_word(word, read) if word in ("auto", "none") else read


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
        otlp=section.value("otlp", units.url("http", "https"), None),
        sample=section.value("sample", units.decimal(0, 1), 1.0),
        watch=section.values("watch", units.plain),
        sys_interval=section.value("sys_interval", within(units.duration, 0, 3600), TelemetrySpec().sys_interval),
        prometheus=section.value("prometheus", units.address, None),
    )


def _logs(top: Table) -> LogsSpec:
    section = top.table("logs", ("level", "nodes", "modules"))
    if section is None:
        return LogsSpec()
    level = units.choice(*LEVELS)
    return LogsSpec(
        level=section.value("level", level, LogsSpec().level),
        nodes=section.free("nodes", level),
        modules=section.free("modules", level),
    )
