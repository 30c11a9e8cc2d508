"""Reads the section ``access``: the filters of vehicles and back ends, and the reason code of a refusal.

A mistake is noted, and a value returned.
"""

from __future__ import annotations

from typing import Final

from mesh.topology import units
from mesh.topology.fields import Table
from mesh.topology.topology import DISCONNECT, IGNORE, REFUSALS, Access, AccessRule
from mesh.wire.topics import filter_error, is_shared

_DEAD_LETTERS: Final = "$dead-letters"


def read_access(top: Table) -> Access:
    section = top.table("access", ("vehicles", "backends", "refusal", "on_refusal"))
    if section is None:
        return Access()
    defaults = Access()
    return Access(
        vehicles=_access_rule(section, "vehicles", defaults.vehicles),
        backends=_access_rule(section, "backends", defaults.backends),
        refusal=section.value("refusal", _refusal, defaults.refusal),
        on_refusal=section.value("on_refusal", units.choice(IGNORE, DISCONNECT), defaults.on_refusal),
    )


def _access_rule(section: Table, key: str, default: AccessRule) -> AccessRule:
    rule = section.table(key, ("publish", "subscribe", "refuse"))
    if rule is None:
        return default

    read = _vehicles_filter if key == "vehicles" else _plain_filter

    def filters(name: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        return rule.values(name, read) if rule.has(name) else otherwise

    return AccessRule(
        publish=filters("publish", default.publish),
        subscribe=filters("subscribe", default.subscribe),
        refuse=filters("refuse", ()),
    )


def _plain_filter(text: str) -> str:
    error = filter_error(text)
    if error:
        raise ValueError(f"{text!r}: {error}")
    if is_shared(text):
        raise ValueError(f"{text!r}: write the filter without $share; it applies to shared subscriptions too")
    return text


def _vehicles_filter(text: str) -> str:
    if text.split("/")[0] == _DEAD_LETTERS:
        raise ValueError(f"{text!r}: only back ends may read dead letters, which are messages of other vehicles, too")
    return _plain_filter(text)


def _refusal(text: str) -> int:
    return REFUSALS[units.choice(*REFUSALS)(text)]
