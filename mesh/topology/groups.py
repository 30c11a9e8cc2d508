"""Reads ``front_doors``, ``cores``, ``pools`` and ``backends``. A mistake is noted, and a value is returned. Listeners
are in ``listeners``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mesh.topology import units
from mesh.topology.access import role
from mesh.topology.fields import Table
from mesh.topology.identity import read_providers
from mesh.topology.listeners import read_listeners
from mesh.topology.mistakes import LATER
from mesh.topology.provider import USER, ProviderSpec
from mesh.topology.secret import read_secret
from mesh.topology.topology import (
    DEAD_LETTER,
    HOLD,
    BackendRule,
    BackendUser,
    CoreSpec,
    EdgeSpec,
    FrontDoorSpec,
    PoolSpec,
)

GROUP: Final = ("name", "replicas", "listen", "redirect", "resources")
# Replicas share one machine; larger groups need names of their own.
MAX_REPLICAS: Final = 64
MAX_WEIGHT: Final = 1000


def read_front_doors(top: Table, path: Callable[[str], Path]) -> tuple[FrontDoorSpec, ...]:
    right = 'write at least one: front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]'
    return tuple(FrontDoorSpec(**_group(section, path)) for section in top.tables("front_doors", GROUP, right))


def read_cores(top: Table, path: Callable[[str], Path]) -> tuple[CoreSpec, ...]:
    right = 'write at least one: cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]'
    return tuple(CoreSpec(**_group(section, path)) for section in top.tables("cores", GROUP, right))


def _group(section: Table, path: Callable[[str], Path]) -> dict[str, Any]:
    """The keys that doors and cores share."""
    return {
        "name": section.value("name", units.name, "", "every front door and core needs a name"),
        "replicas": section.value("replicas", units.integer(1, MAX_REPLICAS), 1),
        "listen": read_listeners(section, path),
        "redirect": section.value("redirect", units.plain, ""),
        "resources": section.free("resources", units.decimal(0, 1_000_000)),
    }


def read_pools(top: Table) -> tuple[PoolSpec, ...]:
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


def read_backends(top: Table, path: Callable[[str], Path], cores: tuple[CoreSpec, ...]) -> BackendRule:
    """Without users and providers: if the cores listen on loopback only they admit every client, else the file must
    say so."""
    section = top.table("backends", ("anonymous", "users", "providers", "when_full"))
    inner = [] if section is None else list(section.tables("users", ("user", "password", "roles")))
    users = tuple(
        BackendUser(
            user=user.value("user", units.plain, "", "write the back end's user name"),
            password=read_secret(user, "password", path, "write the back end's password, {file: PATH} or {env: NAME}"),
            roles=user.values("roles", role),
        )
        for user in inner
    )
    providers: tuple[ProviderSpec, ...] = ()
    if section is not None and section.has("providers"):
        providers = read_providers(section, path, USER)
    local = all(listener.local for core in cores for listener in core.listen)
    anonymous = local and not users and not providers
    when_full = DEAD_LETTER
    if section is not None:
        when_full = section.value("when_full", units.choice(DEAD_LETTER, HOLD), when_full)
        anonymous = section.value("anonymous", units.boolean, anonymous)
        if any(spec.anonymous for spec in providers):
            section.wrong("providers", "write anonymous: true beside the list of providers, not in it")
    if not anonymous and not users and not providers:
        what = "no back end could connect; write users: [{user: ..., password: ...}]"
        if section is None or not section.has("anonymous"):
            what = f"a core listens beyond this machine, so {what}, or anonymous: true to admit every client"
        top.wrong("backends", what)
    return BackendRule(anonymous=anonymous, users=users, providers=providers, when_full=when_full)
