"""What a node shows Prometheus: the numbers of its status, under names that Prometheus takes.

It knows the form of a status, never what a number means. What always holds: a node works without its metrics, and the
number of series is bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from mesh.node.place import Place
from mesh.telemetry.exposition import Exposition
from mesh.telemetry.figures import MAX_SERIES, Figures
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology
from mesh.topology.units import Address

_LAST_PORT: Final = 65_535

log = logging.getLogger(__name__)


def metrics_address(topology: Topology, name: str) -> Address | None:
    """Where the node ``name`` shows its figures: one port cannot serve all nodes of a machine, so each node has the
    next one, in the order of ``mesh.topology.nodes``. Port 0 is 0 for all. ``None`` if nothing is to be shown.
    """
    first = topology.telemetry.prometheus
    if first is None or first.port == 0:
        return first
    return Address(first.host, first.port + [spec.name for spec in nodes(topology)].index(name))


@final
class Metrics:
    """GET /metrics of one node. ``status`` is read at each request."""

    def __init__(self, place: Place, status: Callable[[], Mapping[str, object]]) -> None:
        self._labels = {"mesh": place.topology.mesh, "node": place.name}
        self._address = metrics_address(place.topology, place.name)
        self._status = status
        self._exposition = Exposition(self.render)
        self._cut = False
        self.port = 0  # where it listens; 0: nowhere

    async def open(self) -> None:
        """Listen, if the topology says where. A port that cannot be had is logged."""
        address = self._address
        if address is None:
            return
        if address.port > _LAST_PORT:
            log.error("no metrics: telemetry.prometheus gives this node port %d; choose a lower one", address.port)
            return
        try:
            self.port = await self._exposition.open(address.host, address.port)
        except OSError as error:
            log.error("no metrics: %s cannot be listened on: %s", address, error)
        else:
            log.info("metrics at http://%s/metrics", Address(address.host, self.port))

    def render(self) -> str:
        """The status now, in Prometheus' text format."""
        figures = Figures(self._labels)
        numbers = dict(_numbers("mesh", self._status()))
        if len(numbers) > MAX_SERIES and not self._cut:
            self._cut = True
            log.warning("this node has %d figures; the metrics show the first %d", len(numbers), MAX_SERIES)
        for name, value in list(numbers.items())[:MAX_SERIES]:
            figures.gauge(name, "A number of the node's status", _constant(value))
        return figures.exposition()

    async def close(self) -> None:
        """Stop listening."""
        await self._exposition.close()


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    """All numbers in ``value``; keys, and places in lists, are joined to ``name`` with underscores."""
    if isinstance(value, bool | int | float):
        yield name, value if isinstance(value, float) else int(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}_{_plain(str(key))}", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _numbers(f"{name}_{number}", inner)


def _plain(key: str) -> str:
    """``key`` with what Prometheus takes in a name: ``edge-1`` becomes ``edge_1``."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in key)


def _constant(value: float) -> Callable[[], float]:
    return lambda: value
