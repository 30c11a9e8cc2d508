"""Every live key of edges and cores has a test of its effect."""

from __future__ import annotations

from importlib import import_module

import pytest

from mesh.topology.keys import Live, Members, declared
from mesh.topology.topology import (
    Access,
    AccessRule,
    BackendRule,
    DeadLettersSpec,
    InboxSpec,
    LimitsSpec,
    LogsSpec,
    TelemetrySpec,
)
from tests.support.effects import SHOWN

SECTIONS: dict[str, type] = {
    "limits": LimitsSpec,
    "access": Access,
    "access.vehicles": AccessRule,
    "access.backends": AccessRule,
    "backends": BackendRule,
    "dead_letters": DeadLettersSpec,
    "inbox": InboxSpec,
    "telemetry": TelemetrySpec,
    "logs": LogsSpec,
}
OF_DOORS = {"limits.held_bytes", "limits.connect_wait"}
ROOMS = (
    "tests.broker.test_live",
    "tests.console.test_moves",
    "tests.core.test_live",
    "tests.edge.test_live",
    "tests.node.test_live_services",
)


def live_keys() -> list[str]:
    found = [
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        for field in declared(kind)
        if isinstance(field.mark, (Live, Members))
    ]
    return [key for key in found if key not in OF_DOORS]


@pytest.mark.parametrize("key", live_keys())
def test_a_live_key_has_a_test_of_its_effect(key: str) -> None:
    for room in ROOMS:
        import_module(room)
    assert SHOWN.get(key), f"no test is marked with effect_of({key!r})"


def test_the_tests_name_keys_that_exist() -> None:
    for room in ROOMS:
        import_module(room)
    others = {"fleet", "cores.redirect", "cores.listen", "inbox", "pools", "pools.prefix", "pools.edges.weight"}
    known = {*live_keys(), "console", *others}
    assert set(SHOWN) - known == set()
