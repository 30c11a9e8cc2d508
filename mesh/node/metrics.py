"""Serves a node's status to Prometheus at one address, at ``GET /metrics``.

It knows ports and addresses: never what a figure means, or when the address changes (``scraped``). What always holds:
a node works without its metrics; the status is read on the loop and formatted in another thread, so that a scrape of
thousands of series does not stop the node; a port on loopback answers no request for another host.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from mesh.figures.node import NodeStatus
from mesh.node.address import own_host
from mesh.node.config import NodeConfig
from mesh.telemetry.exposition import Exposition
from mesh.telemetry.prometheus import exposition
from mesh.topology.nodes import metrics_addresses
from mesh.topology.units import Address, names_loopback

if TYPE_CHECKING:
    from mesh.transport.tlsserving import ServingTls

log = logging.getLogger(__name__)


def choices(config: NodeConfig) -> list[Address]:
    """The addresses where a node may serve its metrics, in order of preference: its own port in the topology's range,
    then the ports after it. Its own may be taken, by another program or by a node that has not given it up yet."""
    addresses = metrics_addresses(config.topology)
    own = list(addresses).index(config.name)
    found = list(addresses.values())
    return found[own:] + found[:own]


def _any_name(_header: str) -> bool:
    """A port that other machines can reach may have any name."""
    return True


def _port(address: Address) -> int:
    return address.port


@final
class Metrics:
    """Used only if the topology has an address for metrics. ``status`` is read at each request. ``address`` is the host
    and port for others; empty before ``open``, and if no port is free."""

    def __init__(self, config: NodeConfig, status: Callable[[], NodeStatus]) -> None:
        self.address = ""
        self._config = config
        self._labels = {"mesh": config.topology.mesh, "node": config.name}
        self._status = status
        first = config.topology.telemetry.prometheus
        local = first is not None and first.loopback
        self._tls: ServingTls | None = None
        self._context: ssl.SSLContext | None = None
        self._exposition = Exposition(self._render, names_loopback if local else _any_name)

    async def open(self) -> None:
        """Listen on the first port that can be bound; the others are logged."""
        addresses = choices(self._config)
        for address in addresses:
            try:
                await self._listen(address)
            except OSError as error:
                log.warning("no metrics at %s: %s", address, error)
                continue
            log.info("metrics at %s://%s/metrics", "http" if self._context is None else "https", self.address)
            return
        log.error("no metrics: none of the %d ports from %s on can be bound", len(addresses), min(addresses, key=_port))

    async def open_own(self) -> None:
        """Listen on the node's own port. Raises ``OSError``."""
        await self._listen(choices(self._config)[0])

    async def _listen(self, address: Address) -> None:
        if self._context is None and (tls := self._config.serving("metrics")) is not None:
            self._context = await tls.start()
            self._tls = tls
        port = await self._exposition.open(address.host, address.port, self._context)
        self.address = str(Address(await own_host(address.host, self._config.endpoints), port))

    async def _render(self) -> bytes:
        return await asyncio.to_thread(exposition, self._status(), self._labels)

    async def close(self, grace: float = 0.0) -> None:
        """Stop listening; requests end within ``grace`` seconds."""
        self.address = ""
        if self._tls is not None:
            self._tls.stop()
        await self._exposition.close(grace)
