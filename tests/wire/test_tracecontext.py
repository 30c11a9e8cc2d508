"""W3C Trace Context: valid contexts are passed on unaltered, invalid ones are left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.tracecontext import TraceContext, find
from tests.support.golden import properties

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def hexadecimal(size: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=size, max_size=size).filter(lambda text: text.strip("0") != "")


def test_example_of_the_recommendation_is_parsed() -> None:
    context = TraceContext.parse(PARENT, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context == TraceContext(TRACE, SPAN, 1, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context is not None
    assert context.sampled
    assert context.traceparent() == PARENT


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-x",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}_{SPAN}-01",
        f"00_{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}_01",
        f"01-{TRACE}-{SPAN}-01x",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
    ],
)
def test_invalid_traceparent_is_left_out(parent: str) -> None:
    assert TraceContext.parse(parent, "") is None


def test_later_version_is_read_as_version_00() -> None:
    for parent in (f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-09-what-comes-later"):
        context = TraceContext.parse(parent, "")
        assert context is not None
        assert context.traceparent() == PARENT


def test_unknown_flags_are_cleared() -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-fe", "")
    assert context is not None
    assert (context.flags, context.sampled) == (0, False)


@pytest.mark.parametrize(
    "state",
    [
        "a=b",
        "a=b,c=d",
        "a=b , \tc=d",
        "a=b,,c=d",
        "1t@vendor=x",
        "a*/_-1=x y",
        "a=" + "v" * 256,
        "k" * 256 + "=v",
        ",".join(f"k{n}=v" for n in range(32)),
    ],
)
def test_valid_tracestate_is_kept(state: str) -> None:
    context = TraceContext.parse(PARENT, state)
    assert context is not None
    assert context.state == state


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "=b",
        "a=",
        "A=b",
        "1a=b",
        "a=b,a=c",
        "a=b=c",
        "a=é",
        "a=\x7f",
        "a@=b",
        "@a=b",
        "a@1=b",
        "a@b@c=d",
        "a@" + "v" * 15 + "=x",
        "a=" + "v" * 257,
        "k" * 257 + "=v",
        ",".join(f"k{n}=v" for n in range(33)),
        "a=" + ",b=" * 200,
        "x" * 513,
    ],
)
def test_invalid_tracestate_is_left_out(state: str) -> None:
    assert TraceContext.parse(PARENT, state) == TraceContext(TRACE, SPAN, 1, "")


@given(hexadecimal(32), hexadecimal(16), st.integers(0, 1), st.sampled_from(["", "a=b", "k=" + "v" * 256]))
def test_packed_context_is_unpacked(trace: str, span: str, flags: int, state: str) -> None:
    context = TraceContext(trace, span, flags, state)
    packed = context.pack()
    assert len(packed) == 25 + len(state)
    assert TraceContext.unpack(packed) == context
    assert TraceContext.parse(context.traceparent(), state) == context
    assert hash(TraceContext.unpack(packed)) == hash(context)
    assert context.traceparent() in repr(context)


@pytest.mark.parametrize("data", [b"", bytes(24), bytes(538), bytes(25) + b"\xff"])
def test_unpack_of_invalid_bytes_raises_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        TraceContext.unpack(data)


def test_context_is_found_in_user_properties() -> None:
    found = find(properties(user=[("x", "y"), ("traceparent", PARENT), ("tracestate", "a=b"), ("tracestate", "c=d")]))
    assert found == TraceContext(TRACE, SPAN, 1, "a=b,c=d")


@pytest.mark.parametrize(
    "user",
    [
        [],
        [("Traceparent", PARENT)],
        [("tracestate", "a=b")],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", "")],
    ],
)
def test_missing_or_ambiguous_context_is_not_found(user: list[tuple[str, str]]) -> None:
    assert find(properties(user=user)) is None
    assert find(None) is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_random_text_parses_to_a_valid_context_or_none(parent: str, state: str) -> None:
    TraceContext.parse(parent, state)
    context = TraceContext.parse(PARENT, state)
    assert context is not None
    assert TraceContext.unpack(context.pack()) == context
