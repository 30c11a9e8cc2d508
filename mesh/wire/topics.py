"""Topic names and topic filters (MQTT 5.0 section 4.7), and shared subscriptions (4.8.2).

It knows valid names, valid filters and which filter matches which name. It must never know the subscribers. What always
holds: the time of each function is at most linear in the length of its arguments, and none uses a regular expression.
"""

from __future__ import annotations

from typing import Final

from mesh.wire.limits import MAX_LEVELS

SHARE: Final = "$share/"

_MAX_BYTES: Final = 65_535


def name_error(topic: str, max_levels: int = MAX_LEVELS) -> str:
    """Why a topic name is invalid; an empty string if it is valid."""
    if "+" in topic or "#" in topic:
        return "a topic name must not contain the wildcards + and #"  # [MQTT-3.3.2-2] [MQTT-4.7.1-1]
    return _text_error(topic, "topic name", max_levels)


def filter_error(filter: str, max_levels: int = MAX_LEVELS) -> str:
    """Why a topic filter, shared or not, is invalid; an empty string if it is valid."""
    error = _text_error(filter, "topic filter", max_levels)
    if error:
        return error
    if filter.startswith(SHARE):
        group, slash, rest = filter[len(SHARE) :].partition("/")
        if not group or "+" in group or "#" in group:  # [MQTT-4.8.2-1] [MQTT-4.8.2-2]
            return "the group of a shared subscription must have at least one character, and no + or #"
        if not slash or not rest:  # [MQTT-4.8.2-2]
            return "a shared subscription must be $share/{group}/{filter}, with a filter"
        filter = rest
    return _wildcard_error(filter)


def too_deep(text: str, max_levels: int) -> bool:
    """Whether a name or filter has more than ``max_levels`` levels."""
    return text.count("/") >= max_levels


def levels(topic: str) -> list[str]:
    """The levels of a name or filter; a level may be empty (section 4.7.1.1)."""
    return topic.split("/")


def is_shared(filter: str) -> bool:
    """Whether a valid filter is that of a shared subscription."""
    return filter.startswith(SHARE)


def split_shared(filter: str) -> tuple[str, str]:
    """Group and filter of ``$share/{group}/{filter}``; the group is empty if the subscription is not shared."""
    if not filter.startswith(SHARE):
        return "", filter
    group, _, rest = filter[len(SHARE) :].partition("/")
    return group, rest


def matches(filter: str, topic: str) -> bool:
    """Whether a valid filter (not a shared one: see ``split_shared``) matches a valid topic name."""
    if topic.startswith("$") and filter[:1] in "+#":
        return False  # [MQTT-4.7.2-1]
    wanted = filter.split("/")
    given = topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True  # also one level up: "a/#" matches "a", section 4.7.1.2
        if index >= len(given) or (level != "+" and level != given[index]):
            return False
    return len(wanted) == len(given)


def covers(outer: str, inner: str) -> bool:
    """Whether the valid filter ``outer`` matches every topic name that the valid filter ``inner`` matches."""
    if inner[:1] == "$" and outer[:1] in "+#":
        return False  # [MQTT-4.7.2-1]
    wide = outer.split("/")
    narrow = inner.split("/")
    for index, level in enumerate(wide):
        if level == "#":
            return True
        if index >= len(narrow) or narrow[index] == "#" or (level != "+" and level != narrow[index]):
            return False
    return len(wide) == len(narrow)


def overlap(one: str, other: str) -> bool:
    """Whether both valid filters match a common topic name."""
    if one[:1] != other[:1] and "$" in (one[:1], other[:1]):
        return False  # [MQTT-4.7.2-1]
    left, right = one.split("/"), other.split("/")
    for mine, theirs in zip(left, right, strict=False):
        if mine == "#" or theirs == "#":
            return True
        if mine != theirs and mine != "+" and theirs != "+":
            return False
    longer = left if len(left) > len(right) else right
    shorter = min(len(left), len(right))
    return len(left) == len(right) or (len(longer) == shorter + 1 and longer[shorter] == "#")


def _text_error(text: str, what: str, max_levels: int) -> str:
    if not text:
        return f"a {what} must have at least one character"  # [MQTT-4.7.3-1]
    if "\0" in text:
        return f"a {what} must not contain the character U+0000"  # [MQTT-4.7.3-2]
    try:
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return f"a {what} must not contain lone surrogates"  # [MQTT-1.5.4-1]
    if size > _MAX_BYTES:
        return f"a {what} must not be longer than {_MAX_BYTES} bytes"  # [MQTT-4.7.3-3]
    if too_deep(text, max_levels):
        return f"a {what} must not have more than {max_levels} levels"
    return ""


def _wildcard_error(filter: str) -> str:
    if "#" not in filter and "+" not in filter:
        return ""
    parts = filter.split("/")
    last = len(parts) - 1
    for index, level in enumerate(parts):
        if "#" in level and (level != "#" or index != last):
            return "the wildcard # must be a whole level, and the last level"  # [MQTT-4.7.1-1]
        if "+" in level and level != "+":
            return "the wildcard + must be a whole level"  # [MQTT-4.7.1-2]
    return ""
