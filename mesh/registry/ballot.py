"""What one node says of the settings: its vote on a proposal, and its confirmation of the revision in force.

It knows two keys and a lease. It must never know why a node agrees or not. What always holds:

- Both keys are under the lease of this process, so that no node is counted that does not live.
- The last word of each kind is written as soon as etcd is available, and again if the lease was lost.
"""

from __future__ import annotations

import json
import logging
from typing import final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, put
from mesh.registry.keys import Keys
from mesh.registry.lease import TTL, Lease

log = logging.getLogger("mesh.registry.ballot")


@final
class Ballot:
    """The words of one node."""

    __slots__ = ("_client", "_confirmation", "_confirmed", "_lease", "_vote", "_voted")

    def __init__(self, client: EtcdClient, mesh: str, node: str, *, ttl: int = TTL) -> None:
        keys = Keys(mesh)
        self._client = client
        self._vote = keys.vote(node)
        self._confirmation = keys.confirmation(node)
        self._voted = b""
        self._confirmed = b""
        self._lease = Lease(client, self._write, self._lost, ttl=ttl)

    @property
    def written(self) -> bool:
        """Whether the last words are in etcd, as far as this process knows."""
        return self._lease.held

    async def start(self, wait: float) -> bool:
        """Take the lease and write what was said; return whether that succeeded within ``wait`` seconds. If not, the
        attempts continue.

        Raises RegistryError if waiting cannot help (wrong password)."""
        return await self._lease.start(wait)

    async def stop(self) -> None:
        """Remove both keys."""
        await self._lease.stop()

    def vote(self, revision: int, error: str) -> None:
        """Vote on a proposal: ``error`` says in one sentence why not; empty: the node agrees."""
        self._voted = json.dumps({"revision": revision, "error": error}).encode()
        self._lease.refresh()

    def confirm(self, revision: int, error: str, at: float) -> None:
        """Say that the node follows a revision since ``at`` (seconds since 1970), or in ``error`` why it does not."""
        self._confirmed = json.dumps({"revision": revision, "error": error, "at": at}).encode()
        self._lease.refresh()

    async def _write(self, lease: int) -> None:
        said = ((self._vote, self._voted), (self._confirmation, self._confirmed))
        words = [put(key, value, lease) for key, value in said if value]
        if words:
            await self._client.txn(pb.TxnRequest(success=words), retry=True)

    def _lost(self) -> None:
        log.info("the node's words on the settings may have left etcd; they are written again when it answers")
