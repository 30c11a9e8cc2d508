"""Where Prometheus reads a node: an address that may change, come and go while the node serves.

It knows the addresses of the topology: never what is read there. What always holds:

- A new address is taken before it is in force, and the old one is given up afterwards. Where another node of the mesh
  has the new address and gives it up with the same change, it is taken as soon as it is free.
- A node works without its metrics: an address that cannot be had after the change is in force costs a line in the log.
- prometheus-client, which takes 5 MB, is loaded only where there is an address.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from mesh.figures.node import NodeStatus
from mesh.node.config import NodeConfig
from mesh.node.endings import Endings
from mesh.node.prepared import Prepared
from mesh.topology.nodes import metrics_addresses
from mesh.topology.units import Address

if TYPE_CHECKING:
    from mesh.node.metrics import Metrics

_GRACE: Final = 2.0  # seconds for the requests at an address that is given up
_FREE: Final = 3.0  # seconds for another node to give its address up
_AGAIN: Final = 0.05  # seconds between two attempts to take it

log = logging.getLogger(__name__)


@final
class Scraped:
    """The metrics of one node, from ``start`` to ``stop``. ``status`` is read at each request."""

    def __init__(self, config: NodeConfig, status: Callable[[], NodeStatus], endings: Endings) -> None:
        self._config = config
        self._status = status
        self._endings = endings
        self._present: Metrics | None = None

    @property
    def address(self) -> str:
        """Host and port for others; empty if there are no metrics."""
        return "" if self._present is None else self._present.address

    async def start(self) -> None:
        """Serve the metrics, if the topology has an address for them."""
        if _own(self._config) is not None:
            metrics = self._present = await self._make(self._config)
            await metrics.open()

    async def stop(self) -> None:
        """Serve no metrics from now on."""
        metrics, self._present = self._present, None
        if metrics is not None:
            await metrics.close()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings. Raises ``OSError`` if the address cannot be taken."""
        prepared = Prepared()
        own = _own(config)
        if own == _own(self._config):
            prepared.add(lambda: self._take(config))
        elif own is None:
            prepared.add(lambda: self._move(config, None))
        else:
            metrics = await self._make(config)
            await self._listen(metrics, own)
            prepared.add(lambda: self._move(config, metrics), lambda: self._end(metrics))
        return prepared

    async def _make(self, config: NodeConfig) -> Metrics:
        # In a thread: to import it takes longer than a turn of the loop may.
        module = await asyncio.to_thread(importlib.import_module, "mesh.node.metrics")
        made: Metrics = module.Metrics(config, self._status)
        return made

    async def _listen(self, metrics: Metrics, own: Address) -> None:
        """Take the address, unless another node of the mesh gives it up with this change."""
        try:
            await metrics.open_own()
        except OSError as error:
            given_up = metrics_addresses(self._config.topology).values()
            if error.errno != errno.EADDRINUSE or not any(own.clashes(address) for address in given_up):
                name = self._config.name
                raise OSError(error.errno, f"{name}: no metrics at {own}: {error.strerror or error}") from error
        except BaseException:
            await metrics.close()
            raise

    def _take(self, config: NodeConfig) -> None:
        self._config = config

    def _move(self, config: NodeConfig, metrics: Metrics | None) -> None:
        self._take(config)
        before, self._present = self._present, metrics
        if before is not None:
            self._end(before)
        if metrics is None:
            log.info("no metrics from now on")
        elif metrics.address:
            log.info("metrics at %s from now on", metrics.address)
        else:
            self._endings.add(self._open_when_free(metrics), "the start of the metrics")

    def _end(self, metrics: Metrics) -> None:
        self._endings.add(metrics.close(_GRACE), "the end of the metrics at an earlier address")

    async def _open_when_free(self, metrics: Metrics) -> None:
        """Take the address that another node gives up; after ``_FREE`` seconds another one, as at a start."""
        clock = asyncio.get_running_loop().time
        late = clock() + _FREE
        while self._present is metrics and not metrics.address:
            try:
                await metrics.open_own()
            except OSError:
                if clock() > late:
                    await metrics.open()
                    break
                await asyncio.sleep(_AGAIN)
        if self._present is not metrics:  # it was given up meanwhile
            await metrics.close()


def _own(config: NodeConfig) -> Address | None:
    return metrics_addresses(config.topology).get(config.name)
