"""The frames of the device link: what is written is read in pieces of any size, and other input is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.peer import Peer, TlsFacts
from mesh.transport import frame
from mesh.transport.frame import Decoder, LinkError, Opening
from mesh.wire.tracecontext import TraceContext

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=20)
TEXT = st.text(max_size=60)
CERTIFICATES = st.builds(
    lambda serial, fingerprint: TlsFacts("TLSv1.3", "a cipher", serial=serial, fingerprint=fingerprint),
    TEXT, st.text(min_size=1, max_size=64),
)  # fmt: skip


def written(frames: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(frame.head(kind, connection, len(body)) + body for kind, connection, body in frames)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_frames_are_decoded_from_pieces_of_any_size(frames: list[tuple[int, int, bytes]], sizes: list[int]) -> None:
    data = written(frames)
    decoder = Decoder(300)
    read: list[tuple[int, int, bytes]] = []
    pos = turn = 0
    while pos < len(data):
        size = sizes[turn % len(sizes)]
        read += decoder.feed(data[pos : pos + size])
        pos, turn = pos + size, turn + 1
    assert read == frames
    assert Decoder(300).feed(data) == frames


def test_a_long_frame_is_refused_from_its_header() -> None:
    with pytest.raises(LinkError, match="301 bytes is announced; at most 300"):
        Decoder(300).feed(frame.head(frame.DATA, 1, 301))


@given(st.builds(
    Opening, TEXT, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1),
    st.builds(Peer, TEXT, st.integers(0, 65535), TEXT, st.none() | CERTIFICATES), st.binary(max_size=200), TEXT,
    st.lists(st.integers(1, 65535), max_size=50), st.integers(0, 2**32 - 1),
    st.lists(TEXT, max_size=5).map(tuple), TEXT,
))  # fmt: skip
def test_opening_survives_pack_and_unpack(opening: Opening) -> None:
    read = Opening.unpack(opening.pack())
    assert vars_of(read) == vars_of(opening)


def vars_of(opening: Opening) -> tuple[object, ...]:
    tls = opening.peer.tls
    return (
        opening.vehicle, opening.epoch, opening.opened, opening.peer.address, opening.peer.port, opening.peer.listener,
        opening.connect, opening.client_id,
        opening.unacked, opening.under_way, opening.roles, opening.provider,
        (tls.serial, tls.fingerprint) if tls is not None else None,
    )  # fmt: skip


@given(st.binary(max_size=100))
def test_random_bodies_raise_link_error(body: bytes) -> None:
    for unpack in (
        Opening.unpack, frame.unpack_accepted, frame.unpack_confirm, frame.unpack_credit, frame.unpack_traced,
    ):  # fmt: skip
        with suppress(LinkError):
            unpack(body)


def test_small_bodies_survive_pack_and_unpack() -> None:
    context = TraceContext("a" * 32, "b" * 16, 1, "k=v")
    assert frame.unpack_accepted(frame.pack_accepted(60, "näme", b"connack")) == (60, "näme", b"connack")
    assert frame.unpack_traced(frame.pack_traced(context, b"0123")) == (context, b"0123")
    assert frame.unpack_confirm(frame.pack_confirm(2**40)) == 2**40
    assert frame.unpack_credit(frame.pack_credit(77)) == 77
