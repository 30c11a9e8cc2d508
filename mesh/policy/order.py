"""What a node's chains shall be: the providers that its settings name, and which listener asks which of them.

It knows names and functions that make providers: never what a provider does. What always holds: two plans with equal
keys make providers that decide alike, so one that runs can stay when the settings change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import final

from mesh.policy.chain import Bind, unbound
from mesh.policy.given import GivenRoles
from mesh.policy.providers import Provider


def _nothing() -> None:
    """Most providers need no code that is not loaded."""


@final
@dataclass(frozen=True, slots=True)
class Planned:
    """One provider. ``make`` gets the running provider of the same name, if there is one, which it replaces. ``load``
    loads the code that ``make`` needs; it may take long, so it is called in a thread, before ``make``."""

    name: str
    key: Hashable
    make: Callable[[Provider | None], Provider]
    load: Callable[[], None] = _nothing


@final
@dataclass(frozen=True, slots=True)
class Order:
    """``providers`` in their order. ``listeners``: the names of the providers that a listener asks, by the listener's
    name; one that is not there asks all. ``bind`` checks every claim. ``given``: the roles that the settings give."""

    providers: tuple[Planned, ...]
    listeners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bind: Bind = unbound
    given: GivenRoles = field(default_factory=GivenRoles)
