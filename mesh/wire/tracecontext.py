"""The context of a trace, as defined by W3C Trace Context level 1.

It knows the texts ``traceparent`` and ``tracestate``, their place in MQTT 5 (user properties of the same names, in
lower case) and a short binary form for links and journal. It must never know spans or exporters. What always holds: a
parsed context is valid and within its limits; an invalid context is left out, because a trace must never stop a
message.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.properties import Properties

SAMPLED: Final = 0x01
PARENT: Final = "traceparent"
STATE: Final = "tracestate"

_PARENT_SIZE: Final = 55  # "00-" trace id "-" span id "-" flags
_PACKED_SIZE: Final = 25  # trace id, span id, flags
_MAX_STATE: Final = 512  # section 3.3.1.5: the least that an implementation should propagate; a longer one is dropped
_MAX_MEMBERS: Final = 32  # section 3.3.1.1
_HEX: Final = frozenset("0123456789abcdef")
_KEY: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-*/@")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


@final
class TraceContext:
    """``trace_id``: 32, ``span_id``: 16 lower-case hexadecimal digits; ``state``: the tracestate, empty for none."""

    __slots__ = ("flags", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, flags: int = 0, state: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.state = state

    @property
    def sampled(self) -> bool:
        """Whether the caller recorded its span."""
        return self.flags & SAMPLED != 0

    @staticmethod
    def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
        """The context of two texts; ``None`` if ``traceparent`` is invalid. An invalid ``tracestate`` is dropped."""
        if not _parent_valid(traceparent):
            return None
        # Level 1 defines one flag; unknown ones must not be passed on (section 3.2.2.5.2).
        flags = int(traceparent[53:55], 16) & SAMPLED
        state = tracestate if _state_valid(tracestate) else ""
        return TraceContext(traceparent[3:35], traceparent[36:52], flags, state)

    @staticmethod
    def unpack(data: bytes) -> TraceContext:
        """The inverse of ``pack``; ``ValueError`` if the bytes are invalid."""
        if not _PACKED_SIZE <= len(data) <= _PACKED_SIZE + _MAX_STATE:
            raise ValueError(f"a packed trace context has 25 bytes and at most 512 of state, not {len(data)} bytes")
        return TraceContext(data[:16].hex(), data[16:24].hex(), data[24], data[25:].decode("ascii"))

    def traceparent(self) -> str:
        """The value of ``traceparent``, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def pack(self) -> bytes:
        """Trace id (16 bytes), span id (8), flags (1), then the state."""
        return bytes.fromhex(self.trace_id + self.span_id) + bytes((self.flags,)) + self.state.encode("ascii")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TraceContext) and (self.trace_id, self.span_id, self.flags, self.state) == (
            other.trace_id,
            other.span_id,
            other.flags,
            other.state,
        )

    def __hash__(self) -> int:
        return hash((self.trace_id, self.span_id, self.flags, self.state))

    def __repr__(self) -> str:
        return f"TraceContext({self.traceparent()!r}, state={self.state!r})"


def find(properties: Properties | None) -> TraceContext | None:
    """The context in the user properties of a packet; ``None`` if there is none, or more than one ``traceparent``."""
    if properties is None or not properties.user:
        return None
    parent = ""
    states: list[str] = []
    for name, value in properties.user:
        if name == PARENT:
            if parent:
                return None  # it is unknown which of them is right
            parent = value
        elif name == STATE:
            states.append(value)
    return TraceContext.parse(parent, ",".join(states)) if parent else None


def _parent_valid(text: str) -> bool:
    """Section 3.2.2; a later version may be longer: its start is read as version 00."""
    if len(text) != _PARENT_SIZE and (text.startswith("00") or len(text) < _PARENT_SIZE or text[_PARENT_SIZE] != "-"):
        return False
    if text[2] != "-" or text[35] != "-" or text[52] != "-":
        return False
    version, trace_id, span_id = text[:2], text[3:35], text[36:52]
    if not (_HEX.issuperset(version) and _HEX.issuperset(trace_id) and _HEX.issuperset(span_id)):
        return False
    return _HEX.issuperset(text[53:55]) and version != "ff" and trace_id != _NO_TRACE and span_id != _NO_SPAN


def _state_valid(text: str) -> bool:
    """Section 3.3.1: a list of ``key=value``, each key once."""
    if len(text) > _MAX_STATE:
        return False
    members = text.split(",")
    if len(members) > _MAX_MEMBERS:
        return False
    keys: set[str] = set()
    for member in members:
        key, equals, value = member.strip(" \t").partition("=")
        if not key and not equals:
            continue  # an empty member is allowed
        if not _key_valid(key) or not _value_valid(value) or key in keys:
            return False
        keys.add(key)
    return True


def _key_valid(key: str) -> bool:
    """Section 3.3.1.3.1: at most 256 characters, of them at most 14 after an ``@``."""
    if not key or len(key) > 256 or not _KEY.issuperset(key) or not ("a" <= key[0] <= "z" or "0" <= key[0] <= "9"):
        return False
    tenant, at, system = key.partition("@")
    if not at:
        return "a" <= key[0] <= "z"
    return 0 < len(tenant) <= 241 and 0 < len(system) <= 14 and "@" not in system and "a" <= system[0] <= "z"


def _value_valid(value: str) -> bool:
    """Section 3.3.1.3.2: 1 to 256 printable ASCII characters, without comma and ``=``, and no space last."""
    if not 0 < len(value) <= 256 or value.endswith(" ") or "=" in value:
        return False
    return all(" " <= character <= "~" for character in value)
