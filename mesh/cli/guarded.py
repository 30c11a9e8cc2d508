"""Asks the etcd of a running mesh about bans, kicks and the audit log.

Knows how the mesh is found: never what is asked. What always holds: an etcd that does not answer is one sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mesh.cli.failed import Failed
from mesh.cli.which import reached_mesh
from mesh.cluster.known import ask
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError

Result = TypeVar("Result")

_DEADLINE: Final = 8.0  # seconds; with the search for the mesh, less than the ten that a command may take


def asked(file: str | None, question: Callable[[EtcdClient, str], Awaitable[Result]]) -> Result:
    """The answer to a question, which gets a client and the mesh's name. Raises ``Failed``, ``Unclear``."""
    found = reached_mesh(file)
    try:
        if found.silent:
            raise RegistryError("etcd, which keeps it, does not answer")
        mesh = found.run.mesh
        return ask(found.topology, found.run.endpoints, lambda client: question(client, mesh), _DEADLINE)
    except (RegistryError, OSError, ValueError) as error:
        raise Failed(str(error)) from error
