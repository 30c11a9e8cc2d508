"""Finds the run of a mesh: by the processes of this machine, by etcd, and by the copy in the data folder.

Knows in which order they are to be believed. What always holds: a mesh with its own Ray on this machine runs if its
supervisor does; of any other mesh etcd knows whether it runs, and ``run.json`` is believed only if etcd does not
answer, which is said. An embedded etcd ends with its mesh, which is on this machine, so it is not asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, final

from mesh.cluster.known import ask, members, silent
from mesh.cluster.run import Run, as_plain, load_run, run_of, supervised_run
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.registry.settings import SettingsStore
from mesh.topology.topology import Topology

# Seconds for the one key that says whether a mesh runs: less than for one call of etcd, whose error says less.
_ANSWER: Final = 2.5


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The run of a mesh, living or ended, or ``None``. ``notes``: what could not be reached, one sentence each;
    ``silent``: whether that is etcd."""

    run: Run | None
    alive: bool
    notes: tuple[str, ...] = ()
    silent: bool = False


def find(topology: Topology) -> Found:
    """The run of a mesh. Raises ``NotPrivate``, ``ValueError``."""
    copy = load_run(topology.data)
    if copy is None or not (copy.local and copy.is_alive()):
        copy = supervised_run(topology.data) or copy
    if topology.etcd.embedded or (copy is not None and copy.local and copy.here and copy.is_alive()):
        return Found(copy, copy is not None and copy.is_alive())
    try:
        kept, nodes = ask(topology, topology.etcd.endpoints, lambda client: _kept(client, topology.mesh), _ANSWER)
    except (RegistryError, OSError, ValueError) as error:
        note = f"{silent(error)}; {_instead(copy, topology)}"
        return Found(copy, copy is not None and copy.is_alive(), (note,), True)
    if kept is None:
        # With nodes that are announced, etcd has lost its keys, and not the mesh its nodes.
        return Found(copy, copy is not None and copy.is_alive() and nodes)
    run = replace(run_of(kept), data=str(topology.data))
    if not run.here and not nodes:
        text = f"mesh {run.mesh!r} was started on {run.host}, and none of its nodes is announced in etcd"
        return Found(run, False, (text,))
    return Found(run, run.is_alive())


async def _kept(client: EtcdClient, mesh: str) -> tuple[dict[str, Any] | None, bool]:
    """The run in etcd, and whether any node is announced there."""
    return await SettingsStore(client, mesh).run(), bool(await members(client, mesh))


def _instead(copy: Run | None, topology: Topology) -> str:
    if copy is None:
        return f"whether mesh {topology.mesh!r} runs on another machine is not known"
    return f"what is known without it is from {topology.data}"


def record(topology: Topology, run: Run) -> str:
    """Write the run to etcd for commands on other machines; one sentence if etcd does not take it."""
    return _write(topology, lambda store: store.write_run(as_plain(run)), "other machines do not find this mesh")


def forget(topology: Topology) -> str:
    """Remove the run from etcd; one sentence if etcd does not take it."""
    return _write(topology, lambda store: store.remove_run(), "other machines may take this mesh for running")


def _write(topology: Topology, request: Callable[[SettingsStore], Awaitable[None]], otherwise: str) -> str:
    if topology.etcd.embedded:
        return ""

    async def question(client: EtcdClient) -> None:
        await request(SettingsStore(client, topology.mesh))

    try:
        ask(topology, topology.etcd.endpoints, question, _ANSWER)
    except (RegistryError, OSError, ValueError) as error:
        return f"{silent(error)}; {otherwise}"
    return ""
