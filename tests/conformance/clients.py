"""Clients of the scenarios: their MQTT versions, sessions and wills."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.wire.packets import Will
from tests.conformance.peer import Peer
from tests.conformance.world import World, properties

VERSIONS = (3, 4, 5)
PROTOCOLS = pytest.mark.parametrize("protocol", VERSIONS)


def watch(world: World) -> tuple[Peer, str]:
    """A client that is subscribed to a topic of its own."""
    watcher, topic = world.client(), world.topic("will")
    watcher.subscribe(topic)
    return watcher, topic


def will(topic: str, delay: int | None = None, qos: int = 0, retain: bool = False, **fields: Any) -> Will:
    """A will with these properties (5.0)."""
    if delay is not None:
        fields["will_delay"] = delay
    return Will(topic, b"will", qos, retain, properties(**fields) if fields else None)


def lasting(world: World, protocol: int = 5, client_id: str | None = None, expiry: int = 600) -> Peer:
    """A client whose session outlives its connection."""
    return world.client(client_id, protocol, clean=False, expiry=expiry if protocol == 5 else None)


def resume(world: World, peer: Peer) -> Peer:
    """Connect the client again and check that its session is present."""
    again = lasting(world, peer.protocol, peer.client_id)
    assert again.connack.session_present or peer.protocol == 3  # 3.1 has no Session Present
    return again
