"""Asks the etcd of a running mesh about bans, kicks and the audit log, and notes there what a command has changed.

Knows how the mesh is found: never what is asked. What always holds: an etcd that does not answer is one sentence; a
change that was made and could not be noted is said, and stays.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from mesh.cli.failed import Failed
from mesh.cli.which import RunningMesh, reached_mesh
from mesh.cluster.known import ask
from mesh.cluster.run import Run, running, topology_of
from mesh.registry.audit import AuditLog, act
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.topology.topology import Topology, as_dict

Result = TypeVar("Result")

_DEADLINE: Final = 8.0  # seconds; with the search for the mesh, less than the ten that a command may take

_NOTE: Final = 2.0  # seconds: the change is made already


def asked(file: str | None, question: Callable[[EtcdClient, str], Awaitable[Result]]) -> Result:
    """The answer to a question, which gets a client and the mesh's name. Raises ``Failed``, ``Unclear``."""
    return asked_of(reached_mesh(file), question)


def asked_of(found: RunningMesh, question: Callable[[EtcdClient, str], Awaitable[Result]]) -> Result:
    """The same of a mesh that is found already. Raises ``Failed``."""
    try:
        if found.silent:
            raise RegistryError("etcd, which keeps it, does not answer")
        mesh = found.run.mesh
        return ask(found.topology, found.run.endpoints, lambda client: question(client, mesh), _DEADLINE)
    except (RegistryError, OSError, ValueError) as error:
        raise Failed(str(error)) from error


def note(topology: Topology, run: Run, command: str, what: str) -> None:
    """Note in the audit log of a running mesh what a command has changed. ``what`` has no secret."""
    try:
        ask(topology, run.endpoints, lambda client: AuditLog(client, run.mesh).note(act(command, what)), _NOTE)
    except (RegistryError, OSError, ValueError) as error:
        print(f"this is not in the audit log of mesh {run.mesh!r}: {error}", file=sys.stderr)


def note_files(files: Iterable[Path], command: str, what: str) -> None:
    """Note the change of files in the audit logs of the meshes that run on this machine and whose topologies name one
    of them."""
    paths = {str(file.resolve()) for file in files}
    for run in running():
        try:
            topology = topology_of(run)
        except (OSError, ValueError):
            continue  # another user's
        if _has(as_dict(topology), paths):
            note(topology, run, command, what)


def _has(value: object, texts: set[str]) -> bool:
    """Whether one of the texts is one of the values, however deep."""
    if isinstance(value, dict):
        return any(_has(one, texts) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_has(one, texts) for one in value)
    return value in texts
