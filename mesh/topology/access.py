"""Reads the section ``access``: what vehicles, back ends and roles may do, and the reason code of a refusal.

A mistake is noted, and a value returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mesh.broker.grant import MOST_QOS, VEHICLE_PLACE
from mesh.policy.rights import rule_filter
from mesh.policy.rolenames import MAX_ROLE, is_name
from mesh.topology import units
from mesh.topology.fields import Table, table
from mesh.topology.topology import DISCONNECT, IGNORE, REFUSALS, Access, AccessRule, RoleSpec

_DEAD_LETTERS: Final = "$dead-letters"
_RULE: Final = ("publish", "subscribe", "refuse", "will", "retain", "qos")
_MOST: Final = 256  # roles
_NOTHING: Final = AccessRule(publish=(), subscribe=())


def read_access(top: Table) -> Access:
    section = top.table("access", ("vehicles", "backends", "roles", "refusal", "on_refusal"))
    if section is None:
        return Access()
    defaults = Access()
    vehicles, backends = section.table("vehicles", _RULE), section.table("backends", _RULE)
    return Access(
        vehicles=defaults.vehicles
        if vehicles is None
        else AccessRule(**_rule(vehicles, defaults.vehicles, _vehicles_filter)),
        backends=defaults.backends
        if backends is None
        else AccessRule(**_rule(backends, defaults.backends, _backends_filter)),
        roles=_roles(section),
        refusal=section.value("refusal", _refusal, defaults.refusal),
        on_refusal=section.value("on_refusal", units.choice(IGNORE, DISCONNECT), defaults.on_refusal),
    )


def _roles(section: Table) -> tuple[RoleSpec, ...]:
    found: list[RoleSpec] = []
    for name, node, at in section.entries("roles"):
        try:
            role(name)
        except ValueError as error:
            section.notes.add(node, at, str(error))
        rule = table(section.notes, node, at, _RULE)
        if rule is not None:
            found.append(RoleSpec(name=name, **_rule(rule, _NOTHING, rule_filter)))
    if len(found) > _MOST:
        section.wrong("roles", f"there are {len(found)} roles, and at most {_MOST} are possible")
    return tuple(found)


def _rule(rule: Table, default: AccessRule, read: Callable[[str], str]) -> dict[str, Any]:
    """The values of an ``AccessRule``."""

    def filters(name: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        return rule.values(name, read) if rule.has(name) else otherwise

    return {
        "publish": filters("publish", default.publish),
        "subscribe": filters("subscribe", default.subscribe),
        "refuse": filters("refuse", ()),
        "will": rule.value("will", units.boolean, True),
        "retain": rule.value("retain", units.boolean, True),
        "qos": rule.value("qos", units.integer(0, MOST_QOS), MOST_QOS),
    }


def role(text: str) -> str:
    """The name of a role, as tokens and other servers have them."""
    if not is_name(text) or " " in text:
        raise ValueError(
            f"{text!r} is no role; write 1 to {MAX_ROLE} printable characters without blanks, and no brace before them"
        )
    return text


def _backends_filter(text: str) -> str:
    if VEHICLE_PLACE in text.split("/"):
        raise ValueError(f"{text!r}: a back end is no vehicle; write + in place of {VEHICLE_PLACE}")
    return rule_filter(text)


def _vehicles_filter(text: str) -> str:
    if text.split("/")[0] == _DEAD_LETTERS:
        raise ValueError(f"{text!r}: only back ends may read dead letters, which are messages of other vehicles, too")
    return rule_filter(text)


def _refusal(text: str) -> int:
    return REFUSALS[units.choice(*REFUSALS)(text)]
