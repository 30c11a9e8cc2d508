"""A door whose settings change, and clients that try them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mesh.topology.topology import Topology
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    Connect,
    Ping,
)
from tests.support.bare import Bare
from tests.support.nodes import Change, Nodes


def doors(**values: Any) -> Change:
    def change(topology: Topology) -> Topology:
        return replace(topology, front_doors=(replace(topology.front_doors[0], **values),))

    return change


async def knock(mesh: Nodes, client_id: str, username: str | None = None, protocol: int = MQTT5) -> Bare:
    """A vehicle that sends CONNECT; the caller looks at the answer."""
    client = await Bare(protocol).connect(mesh.vehicles)
    mesh.clients.append(client)
    client.send(Connect(protocol, client_id, username=username))
    return client


async def alive(*clients: Bare) -> None:
    """All of them are connected and answered."""
    for client in clients:
        before = len([packet for packet in client.packets if isinstance(packet, Ping)])
        client.send(Ping(PINGREQ))
        await client.wait_all(Ping, before + 1)
