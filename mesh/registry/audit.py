"""The audit log: what operators have changed in a mesh, who, when, and with which command.

It knows acts and their keys: never what was changed. What always holds: an act that changes keys of etcd is written in
the transaction that changes them, so that neither is there without the other; the log has at most ``KEPT`` acts and
some that are being written; no act has a secret.
"""

from __future__ import annotations

import getpass
import json
import socket
import time
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any, Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, put
from mesh.registry.errors import BadRecord
from mesh.registry.keys import Keys, after

KEPT: Final = 1000
"""Acts that are kept."""

LONGEST: Final = 2000
"""Characters of one act's text: a change of many settings is cut."""


@final
@dataclass(frozen=True, slots=True)
class Act:
    """One change. ``at``: seconds since 1970; ``by`` and ``host``: the user and the machine; ``command``: the command,
    such as ``mesh ban add``; ``what``: what has changed, in one line."""

    at: float
    by: str
    host: str
    command: str
    what: str

    def __str__(self) -> str:
        return f"{self.by}@{self.host}: {self.command}: {self.what}"


def act(command: str, what: str) -> Act:
    """An act of the user who runs this process, now."""
    return Act(time.time(), user(), socket.gethostname(), command, shortened(what))


def shortened(what: str) -> str:
    """A text of at most ``LONGEST`` characters."""
    return what if len(what) <= LONGEST else f"{what[: LONGEST - 1]}…"


def user() -> str:
    """The name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user has no name on this machine, as in a container
        return "unknown"


@final
class AuditLog:
    """Reads and writes the acts of one mesh. Every method but ``noting`` raises RegistryError."""

    __slots__ = ("_client", "_keys")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self._client = client
        self._keys = Keys(mesh)

    def noting(self, act: Act) -> pb.Operation:
        """What a transaction has to do besides to note ``act``. The digits make etcd sort the acts by their times."""
        key = self._keys.audit + f"{int(act.at * 1000):015d}-{token_hex(4)}".encode()
        return put(key, json.dumps(asdict(act)).encode())

    async def note(self, act: Act) -> None:
        """Note an act that changes nothing in etcd, and forget the oldest ones."""
        await self._client.txn(pb.TxnRequest(success=[self.noting(act)]))
        await self.trim()

    async def trim(self) -> None:
        """Forget the oldest acts beyond ``KEPT``. Called after each act; if a call fails, the next one makes up."""
        prefix = self._keys.audit
        counted = await self._client.range(pb.RangeRequest(key=prefix, range_end=after(prefix), count_only=True))
        over = counted.count - KEPT
        if over > 0:
            found = await self._client.range(
                pb.RangeRequest(key=prefix, range_end=after(prefix), limit=over, keys_only=True)
            )
            if found.kvs:
                await self._client.delete(prefix, found.kvs[-1].key + b"\0", retry=True)

    async def acts(self) -> list[Act]:
        """The acts, newest first. A value that is none is left out."""
        found: list[Act] = []
        async for page in self._client.pages(self._keys.audit):
            for entry in page.kvs:
                try:
                    found.append(act_in(entry))
                except BadRecord:
                    continue  # foreign
        return found[::-1]


def from_plain(value: dict[str, Any]) -> Act:
    """An act from plain values, as ``dataclasses.asdict`` makes them. Raises ``KeyError``, ``TypeError``,
    ``ValueError``."""
    return Act(float(value["at"]), str(value["by"]), str(value["host"]), str(value["command"]), str(value["what"]))


def act_in(entry: pb.KeyValue) -> Act:
    """The act in a value. Raises ``BadRecord``."""
    try:
        return from_plain(json.loads(entry.value))
    except (ValueError, KeyError, TypeError) as error:
        raise BadRecord(
            f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}; right would be an object with at, by, "
            "host, command and what"
        ) from error
