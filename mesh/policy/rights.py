"""The permissions that another server gives one client, read strictly, and the form of filters in rules.

It knows JSON's values and filters: never topics in use. What always holds: a member that is not known is an error, as
it may take away what the others give; filters and their text are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mesh.broker.grant import MOST_QOS, PLACES, ROLE_PLACE, Grant
from mesh.broker.written import write
from mesh.wire.topics import filter_error, is_shared

MOST: Final = 64  # filters
LONGEST: Final = 4096  # characters of all of it
_FILTERS: Final = ("publish", "subscribe", "refuse")
_SWITCHES: Final = ("retain", "will")
_KNOWN: Final = (*_FILTERS, "qos", *_SWITCHES)


def rule_filter(text: str) -> str:
    """A filter of a rule. Raises ``ValueError``."""
    error = filter_error(text)
    if error:
        raise ValueError(f"{text!r}: {error}")
    if is_shared(text):
        raise ValueError(f"{text!r}: write the filter without $share; it applies to shared subscriptions too")
    for level in text.split("/"):
        if level not in PLACES and any(place in level for place in PLACES):
            raise ValueError(f"{text!r}: {', '.join(PLACES)} are whole levels; write a slash before and after them")
    return text


def role_of(permissions: object) -> str:
    """The role, written out, that has these permissions: an object with the keys of a role of the topology. Raises
    ``ValueError``."""
    if not isinstance(permissions, dict):
        raise ValueError("the permissions are not an object")
    unknown = sorted(permissions.keys() - set(_KNOWN))
    if unknown:
        raise ValueError(f"the permissions have {unknown[0]!r:.80}; known are {', '.join(_KNOWN)}")
    publish, subscribe, refuse = (_filters(permissions, name) for name in _FILTERS)
    if len(publish) + len(subscribe) + len(refuse) > MOST:
        raise ValueError(f"the permissions have more than {MOST} filters")
    qos = permissions.get("qos", MOST_QOS)
    if isinstance(qos, bool) or not isinstance(qos, int) or not 0 <= qos <= MOST_QOS:
        raise ValueError(f"the qos {qos!r:.80} of the permissions is not 0, 1 or 2")
    retain, will = (_switch(permissions, name) for name in _SWITCHES)
    found = write(Grant(publish, subscribe, refuse, qos=qos, retain=retain, will=will))
    if len(found) > LONGEST:
        raise ValueError(f"the permissions have {len(found)} characters, and the limit is {LONGEST}")
    return found


def _filters(permissions: Mapping[str, object], name: str) -> tuple[str, ...]:
    listed = permissions.get(name, [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"{name} of the permissions is not a list of filters")
    for one in listed:
        if ROLE_PLACE in rule_filter(one).split("/"):
            raise ValueError(f"{one!r:.80}: {ROLE_PLACE} stands for names of roles, and permissions have none")
    return tuple(dict.fromkeys(listed))


def _switch(permissions: Mapping[str, object], name: str) -> bool:
    found = permissions.get(name, True)
    if not isinstance(found, bool):
        raise ValueError(f"{name} of the permissions is neither true nor false")
    return found
