"""What etcd has of a mesh: the nodes that are announced, and the settings that are in force.

Knows keys of the registry and not Ray. What always holds: reading it takes no longer than its deadline, and what could
not be read is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from mesh.cluster.revisions import topology_in
from mesh.cluster.status import NodeRow
from mesh.cluster.versions import faulty
from mesh.node.registry import client_of
from mesh.registry.client import EtcdClient
from mesh.registry.errors import BadRecord, RegistryError
from mesh.registry.keys import Keys
from mesh.registry.members import Member, decode
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology, from_dict
from mesh.topology.warnings import warnings

# Seconds for all that a command asks of etcd before it goes on without it.
DEADLINE: Final = 5.0

Result = TypeVar("Result")


@final
@dataclass(frozen=True, slots=True)
class Known:
    """``asked``: whether etcd has answered. ``members``: the announced nodes. ``current``: the settings in force.
    ``confirmed``: the revision that each node follows; ``against``: what a node says that does not follow the settings
    in force. ``notes``: why something is not known, ``warnings``: what is dangerous in the settings and the etcd, one
    sentence each."""

    asked: bool = False
    members: Mapping[str, Member] = field(default_factory=dict)
    current: Revision | None = None
    confirmed: Mapping[str, int] = field(default_factory=dict)
    against: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def revision(self) -> int:
        """The number of the settings in force; 0 if it is not known."""
        return 0 if self.current is None else self.current.number

    def rows(self, state: str) -> tuple[NodeRow, ...]:
        """A row for each node of the settings in force; without them for each that is announced."""
        if self.current is None:
            return tuple(NodeRow(one.name, one.role, state) for one in self.members.values())
        rows = []
        for node in nodes(from_dict(self.current.settings)):
            listens = tuple(f"{listener.kind}://{listener.address}" for listener in node.listen)
            rows.append(NodeRow(node.name, node.role, state, listen=listens))
        return tuple(rows)


def ask(
    topology: Topology, endpoints: tuple[str, ...], question: Callable[[EtcdClient], Awaitable[Result]],
    deadline: float = DEADLINE,
) -> Result:  # fmt: skip
    """The answer of etcd to a question. Raises ``RegistryError``, also after the deadline, ``OSError``,
    ``ValueError``."""

    async def run() -> Result:
        client = client_of(topology, endpoints)
        try:
            async with asyncio.timeout(deadline):
                return await question(client)
        except TimeoutError:
            raise RegistryError(f"no answer from {', '.join(endpoints)} within {deadline:g} s") from None
        finally:
            await client.close()

    return asyncio.run(run())


def known(topology: Topology, endpoints: tuple[str, ...]) -> Known:
    """What etcd has of this mesh; never raises. ``topology``: as far as it is known without etcd."""

    async def question(client: EtcdClient) -> Known:
        store = SettingsStore(client, topology.mesh)
        faults = asyncio.create_task(faulty(topology, endpoints))
        try:
            said, current = await store.confirmed(), await store.current()
            announced = await members(client, topology.mesh)
        except BaseException:
            faults.cancel()
            raise
        confirmed = {name: one.revision for name, one in said.items() if not one.error}
        against = {
            name: f"does not follow revision {one.revision}: {one.error}" for name, one in said.items() if one.error
        }
        followed = topology if current is None else topology_in(current)
        cautions = (*warnings(followed), *await faults)
        return Known(True, announced, current, confirmed, against, warnings=cautions)

    try:
        return ask(topology, endpoints, question)
    except (RegistryError, OSError, ValueError) as error:
        return unasked(topology, silent(error))


def unasked(topology: Topology, *notes: str) -> Known:
    """What is known of a mesh without etcd. ``notes``: why it did not answer."""
    return Known(notes=notes, warnings=tuple(warnings(topology)))


AWAY: Final = "etcd does not answer"


def silent(error: Exception) -> str:
    """The sentence for an etcd that could not be asked."""
    return f"{AWAY}: {error}"


async def members(client: EtcdClient, mesh: str) -> dict[str, Member]:
    """The nodes that are announced at present, by name. Raises ``RegistryError``."""
    found: dict[str, Member] = {}
    async for page in client.pages(Keys(mesh).members):
        for entry in page.kvs:
            try:
                member = decode(entry)
            except BadRecord:
                continue  # foreign: the nodes ignore it, too
            found[member.name] = member
    return found
