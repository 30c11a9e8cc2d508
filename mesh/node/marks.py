"""The mark of a node's journal in etcd: that it existed, its id, and how far it was durable at the node's last start.

It knows one small key, ``/mesh/{mesh}/journals/{node}``; it must never know what a journal contains. What always holds:
the mark is written only for a journal whose manifest is on the disk, and never over the mark of another journal that
the node has not given up.
"""

from __future__ import annotations

import json
from typing import Final, final

from mesh.journal.manifest import Mark
from mesh.registry.client import EtcdClient
from mesh.registry.errors import BadRecord
from mesh.registry.keys import Keys

_ID_DIGITS: Final = 32


@final
class JournalMarks:
    """The mark of one node."""

    def __init__(self, client: EtcdClient, mesh: str, node: str) -> None:
        self._client = client
        self._key = Keys(mesh).journal(node)

    async def read(self, wait: float) -> Mark | None:
        """The mark; ``None`` if etcd has none. ``Unavailable`` if etcd does not answer within ``wait`` seconds,
        ``BadRecord`` if the key holds something else."""
        entry = await self._client.get(self._key, timeout=wait)
        return None if entry is None else decode(self._key, entry.value)

    async def write(self, mark: Mark, wait: float) -> None:
        """Write the mark; ``RegistryError`` if that did not succeed within ``wait`` seconds."""
        text = json.dumps({"journal": mark.id, "position": mark.position}, separators=(",", ":"))
        await self._client.put(self._key, text.encode(), timeout=wait, retry=True)


def decode(key: bytes, value: bytes) -> Mark:
    """The mark in a value. Raises ``BadRecord``."""
    try:
        fields = json.loads(value)
        id, position = fields["journal"], fields["position"]
        if type(id) is str and len(id) == _ID_DIGITS and type(position) is int and position >= 0:
            return Mark(id, position)
    except (ValueError, KeyError, TypeError):
        pass
    raise BadRecord(
        f"{key.decode(errors='replace')} holds {value[:80]!r}; right would be "
        '{"journal": "32 hexadecimal digits", "position": 0}'
    )
