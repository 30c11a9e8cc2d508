"""What is allowed in a topology, and dangerous: each warning says what can happen, and what would prevent it.

It knows the topology. It must never look at the machine. What always holds: a warning keeps no mesh from starting.
"""

from __future__ import annotations

from mesh.topology.topology import ListenerSpec, Topology, written_secrets
from mesh.transport.listen import NONE


def warnings(topology: Topology) -> list[str]:
    """One sentence each, which begins with the key."""
    found = []
    console = topology.console
    if console is not None and not console.loopback and topology.internal is None:
        found.append(
            f"console: the console has no login, so every client that reaches {console} sees the mesh; "
            "write an address of this machine only, such as 127.0.0.1:8080, or internal: {tls: ...}, or let a firewall "
            "admit operators alone"
        )
    unproven = [
        str(listener.address)
        for door in topology.front_doors
        for listener in door.listen
        if not listener.local and _asks_nothing(topology, listener)
    ]
    if unproven:
        found.append(
            f"identity.providers: every client that reaches {', '.join(unproven)} may be any vehicle that it names; "
            "write providers that prove who a vehicle is, and let those listeners ask them (identify)"
        )
    for spec in topology.identity.providers:
        if spec.certificate and not _shows_certificates(topology, spec.name):
            found.append(
                f"identity.providers: no client shows a certificate to the provider {spec.name!r}; write "
                "client: optional (or required) and ca into tls of a listener that asks it"
            )
    open_to_others = [
        str(listener.address)
        for core in topology.cores
        for listener in core.listen
        if not listener.local
    ]
    if topology.backends.anonymous and open_to_others:
        found.append(
            f"backends.anonymous: every client that reaches {', '.join(open_to_others)} may command all vehicles; "
            "write backends: {users: [{user: ..., password: ...}]} and anonymous: false"
        )
    for section, providers in (("identity", topology.identity.providers), ("backends", topology.backends.providers)):
        found += [
            f"{section}.providers.{spec.name}.jwt: a token that the issuer made for another service is valid here, "
            "too; write audience: the name that it has for this mesh"
            for spec in providers
            if spec.jwt is not None and not spec.jwt.audience
        ]
    if written := written_secrets(topology):
        found.append(
            f"{', '.join(written)}: the value is in the topology, so etcd and the data folder have it, too; write "
            "{file: PATH} or {env: NAME} in place of it"
        )
    return found


def _shows_certificates(topology: Topology, provider: str) -> bool:
    """Whether a front door's listener that asks a provider has clients' certificates, or a load balancer may tell
    names."""
    return any(
        listener.proxy or (listener.tls is not None and listener.tls.client != NONE)
        for door in topology.front_doors
        for listener in door.listen
        if not listener.identify or provider in listener.identify
    )


def _asks_nothing(topology: Topology, listener: ListenerSpec) -> bool:
    """Whether a front door's listener takes every client's word."""
    return any(
        spec.anonymous
        for spec in topology.identity.providers
        if not listener.identify or spec.name in listener.identify
    )
