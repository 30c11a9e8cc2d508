"""The ways of traced messages through a mesh, and the trace contexts at their ends."""

from __future__ import annotations

import secrets

from tests.support.client import Received

# (role, operation), from the publisher to the receiver: each is the child of the one before.
DOWNSTREAM = [
    ("core", "process"),
    ("core", "relay"),
    ("edge", "process"),
    ("edge", "wait"),
    ("edge", "send"),
    ("door", "relay"),
]
UPSTREAM = [
    ("edge", "process"),
    ("edge", "wait"),
    ("edge", "send"),
    ("core", "process"),
    ("core", "wait"),
    ("core", "send"),
]


def context() -> tuple[str, str, str]:
    """A publisher's own trace and span, and its traceparent."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-01"


def parent_of(message: Received) -> tuple[str, str]:
    """Trace and span in the ``traceparent`` that a receiver got."""
    (value,) = [value for name, value in message.user if name == "traceparent"]
    return value[3:35], value[36:52]
