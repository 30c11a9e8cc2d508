"""What is in force in the parts of each node, as the nodes themselves say.

Knows the registry's questions and confirmations: never a part. What always holds: nodes that did not answer are named;
equal settings have equal digests, whatever the number of their revision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, final

from mesh.cluster.known import members
from mesh.registry.client import EtcdClient
from mesh.registry.inquiry import inquire
from mesh.registry.settings import SettingsStore

WAIT: Final = 3.0  # seconds for the answers of all nodes


@final
@dataclass(frozen=True, slots=True)
class InForce:
    """``settings``: the values of one node, by part and name; ``revision``: the one that it follows, 0 for none."""

    revision: int
    settings: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """A text that differs if the settings do."""
        return sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]

    def lines(self) -> dict[str, str]:
        """Each value as JSON, by its path with dots."""
        return dict(_lines("", self.settings))


def _lines(path: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict) or not value:
        return [(path, json.dumps(value))]
    return [line for name, item in value.items() for line in _lines(f"{path}.{name}" if path else name, item)]


async def in_force(client: EtcdClient, mesh: str, wait: float = WAIT) -> tuple[dict[str, InForce], list[str]]:
    """What each node of a mesh says, by name, and the names of those that did not answer. Raises ``RegistryError``."""
    nodes = await _present(client, mesh)
    answers = await inquire(client, mesh, nodes, wait)
    found = {name: InForce(one["revision"], one["settings"]) for name, one in sorted(answers.items())}
    silent = nodes - set(found)
    return found, sorted(silent & await _present(client, mesh)) if silent else []


async def _present(client: EtcdClient, mesh: str) -> set[str]:
    """The nodes that are announced, and those that follow the settings."""
    return {*(await SettingsStore(client, mesh).confirmed()), *(await members(client, mesh))}
