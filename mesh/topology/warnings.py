"""What is allowed in a topology, and dangerous: each warning says what can happen, and what would prevent it.

It knows the topology. It must never look at the machine. What always holds: a warning keeps no mesh from starting.
"""

from __future__ import annotations

from mesh.topology.topology import Topology


def warnings(topology: Topology) -> list[str]:
    """One sentence each, which begins with the key."""
    found = []
    console = topology.console
    if console is not None and not console.loopback:
        found.append(
            f"console: the console has no login, so every client that reaches {console} sees the mesh; "
            "write an address of this machine only, such as 127.0.0.1:8080, or let a firewall admit operators alone"
        )
    open_to_others = [
        str(listener.address)
        for core in topology.cores
        for listener in core.listen
        if not listener.address.loopback
    ]
    if topology.backends.anonymous and open_to_others:
        found.append(
            f"backends.anonymous: every client that reaches {', '.join(open_to_others)} may command all vehicles; "
            "write backends: {users: [{user: ..., password: ...}]} and anonymous: false"
        )
    return found
