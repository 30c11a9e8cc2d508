"""The topology files of the scenarios."""

from __future__ import annotations

from pathlib import Path

IDENTITY = '{from: username, pattern: "[A-Za-z0-9_-]{1,64}"}'


def topology(
    folder: Path,
    vehicles: int,
    backends: int,
    edge_names: list[str],
    otlp: str = "",
    cores: int = 1,
    extra: str = "",
    identity: str = IDENTITY,
    users: str = "{anonymous: true}",
    redirect: str = "",
    sys_interval: float = 10.0,
    prometheus: str = "",
    identify: str = "",
    more_vehicles: str = "",
    more_backends: str = "",
) -> Path:
    """Write the file for a mesh with these ports and edges; ``extra`` is appended. ``identify``: the providers
    of the vehicles' listener; ``more_vehicles`` and ``more_backends`` are further listeners, each behind a comma."""
    shown = f'prometheus: "{prometheus}", ' if prometheus else ""
    asks = f", identify: {identify}" if identify else ""
    edges = ", ".join(f"{{name: {name}}}" for name in edge_names)
    sent_away = f', redirect: "{redirect}"' if redirect else ""
    sampled = f"sample: 1.0, otlp: '{otlp}', " if otlp else ""
    text = f"""\
mesh: {folder.name}
etcd: embedded
identity: {identity}
topics: {{vehicle: "vehicles/{{vehicle}}/#", fleet: ["fleet/#"]}}
inbox: {{subscribe: ["vehicles/{{vehicle}}/cmd/#"], qos: 1, expiry: 30d, max_messages: 1000, when_full: reject}}
front_doors: [{{name: door, listen: [{{mqtt: "127.0.0.1:{vehicles}"{asks}}}{more_vehicles}]{sent_away}}}]
cores: [{{name: core, replicas: {cores}, listen: [{{mqtt: "127.0.0.1:{backends}"}}{more_backends}]{sent_away}}}]
backends: {users}
pools: [{{name: standard, edges: [{edges}]}}]
telemetry: {{{sampled}{shown}sys_interval: {sys_interval:g}s}}
data: {folder / "data"}
ray: local
{extra}
"""
    path = folder / "mesh.yaml"
    path.write_text(text)
    return path
