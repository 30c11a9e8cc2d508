"""A role that is written out: what one client may do, in the words of the server that admitted it, in place of a name.

It knows its text, which goes with the names of roles wherever they go: over links, with sessions and to the disk. It
must never know who wrote it. What always holds: no name of a role begins like it; a text that cannot be read gives
nothing.
"""

from __future__ import annotations

import json
from typing import Any, Final

from mesh.broker.grant import MOST_QOS, Grant

BEGIN: Final = "{"


def is_written(role: str) -> bool:
    """Whether a role is written out."""
    return role.startswith(BEGIN)


def write(grant: Grant) -> str:
    """The text of a grant, in JSON; equal grants have equal texts."""
    found: dict[str, Any] = {"publish": grant.publish, "subscribe": grant.subscribe, "refuse": grant.refused}
    found |= {"qos": grant.qos, "retain": grant.retain, "will": grant.will}
    return json.dumps(found, separators=(",", ":"))


def read(role: str, reason: int) -> Grant:
    """The grant in a text; ``reason`` is that of a refusal."""
    try:
        found: dict[str, Any] = json.loads(role)
        qos = found["qos"]
        return Grant(
            _filters(found["publish"]), _filters(found["subscribe"]), _filters(found["refuse"]), reason, (),
            qos if isinstance(qos, int) else MOST_QOS, found["retain"] is True, found["will"] is True,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return Grant((), (), (), reason)


def _filters(listed: Any) -> tuple[str, ...]:
    return tuple([str(filter) for filter in listed])
