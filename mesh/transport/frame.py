"""The frames of a device link: ``length:u32 connection:u32 kind:u8 body``, where ``length`` counts the body's bytes.

It knows where a frame begins and ends and how each body is laid out: never what a frame causes. What always holds: a
frame longer than ``max_body`` is refused from its header alone; at most one incomplete frame is buffered; numbers are
big endian, texts are UTF-8 after a u16 length.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, final

from mesh.broker.peer import Peer, TlsFacts
from mesh.wire.tracecontext import TraceContext

# Kinds. DATA and CLOSE from a door are replayable: it keeps them until CONFIRM.
DATA: Final = 1
TRACED: Final = 2
CREDIT: Final = 3
CONFIRM: Final = 4
OPEN: Final = 5
ACCEPTED: Final = 6
CLOSE: Final = 7
ATTACH: Final = 8
LIVE: Final = 9
ALIVE: Final = 10
HELLO: Final = 11
CHALLENGE: Final = 12
PROOF: Final = 13
WELCOME: Final = 14
ROLES: Final = 15

LINK: Final = 0  # the connection number of frames that concern the link itself

# Bytes of one connection that may be on their way from edge to vehicle. It bounds what a vehicle that does not read
# costs the door; it is a few times what a phone network takes in a round trip, so it does not slow a vehicle that
# reads.
WINDOW: Final = 256 * 1024
CREDIT_STEP: Final = WINDOW // 4  # the door gives credit back in steps, so that most vehicles never need the frame

# The largest packet of MQTT, with a topic in place of its alias, and what else one read of a socket returned: a frame
# may carry all that. Not the topology's limit: an edge has stored packets, and open connections send some, that were
# within an earlier limit; a frame that was refused for one vehicle would end the link of all, again and again.
MAX_BODY: Final = 268_435_460 + (64 << 10) + (512 << 10)
HANDSHAKE_BODY: Final = 1024  # until the other end has proved its identity

_HEADER: Final = struct.Struct("!IIB")
_OPENING: Final = struct.Struct("!QQIHH")  # epoch, opened, bytes under way, peer's port, number of identifiers
_COUNT: Final = struct.Struct("!Q")
_SIZE: Final = struct.Struct("!I")
_SHORT: Final = struct.Struct("!H")

Frame = tuple[int, int, bytes]  # kind, connection, body


@final
class LinkError(Exception):
    """The other end of a device link broke its protocol; the text says how."""


def head(kind: int, connection: int, size: int) -> bytes:
    """The header of a frame whose body has ``size`` bytes."""
    return _HEADER.pack(size, connection, kind)


@final
class Decoder:
    """Cuts a stream into frames. ``max_body`` may be raised once the other end is trusted."""

    __slots__ = ("_need", "_partial", "max_body")

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self._partial = bytearray()
        self._need = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes. Raises ``LinkError`` if a header announces a frame that is too long."""
        if self._need:
            self._partial += data
            if len(self._partial) < self._need:
                return []
            data = bytes(self._partial)
            self._partial.clear()
            self._need = 0
        frames: list[Frame] = []
        size = len(data)
        pos = 0
        while pos < size:
            start = pos + 9
            if start > size:
                self._keep(data, pos, 9)
                break
            # By hand: values from ``struct`` have no static type, which costs more in compiled code than these shifts.
            length: int = data[pos] << 24 | data[pos + 1] << 16 | data[pos + 2] << 8 | data[pos + 3]
            connection: int = data[pos + 4] << 24 | data[pos + 5] << 16 | data[pos + 6] << 8 | data[pos + 7]
            if length > self.max_body:
                raise LinkError(f"a frame of {length} bytes is announced; at most {self.max_body} are accepted")
            end = start + length
            if end > size:
                self._keep(data, pos, 9 + length)
                break
            frames.append((data[pos + 8], connection, data[start:end]))
            pos = end
        return frames

    def _keep(self, data: bytes, pos: int, need: int) -> None:
        self._partial += data[pos:]
        self._need = need


@final
class Opening:
    """The body of OPEN and ATTACH.

    ``epoch``: of the vehicle's map record; ``opened``: when the door accepted the connection, milliseconds since 1970;
    ``peer``: where the vehicle connects from; of its facts of TLS and HTTP only those that tell one certificate from
    another, which bans go by: the others only the door uses; ``roles``: those of the vehicle; ``provider``: who
    admitted it; ``client_id``: the one that the edge assigned, else empty; ``unacked``: identifiers of PUBLISHes that
    the vehicle has but has not acknowledged; ``under_way``: bytes from the edge for which no credit was given back yet;
    ``connect``: the CONNECT packet.
    All but ``roles``, ``provider``, ``client_id``, ``unacked`` and ``under_way`` are the same in OPEN and ATTACH.
    """

    __slots__ = (
        "client_id", "connect", "epoch", "opened", "peer", "provider", "roles", "unacked", "under_way", "vehicle",
    )  # fmt: skip

    def __init__(
        self,
        vehicle: str,
        epoch: int,
        opened: int,
        peer: Peer,
        connect: bytes,
        client_id: str = "",
        unacked: list[int] | None = None,
        under_way: int = 0,
        roles: tuple[str, ...] = (),
        provider: str = "",
    ) -> None:
        self.vehicle = vehicle
        self.provider = provider
        self.epoch = epoch
        self.opened = opened
        self.peer = peer
        self.roles = roles
        self.client_id = client_id
        self.unacked = unacked or []
        self.under_way = under_way
        self.connect = connect

    def pack(self) -> bytes:
        """The body."""
        count, tls = len(self.unacked), self.peer.tls
        return b"".join((
            _OPENING.pack(self.epoch, self.opened, self.under_way, self.peer.port, count),
            struct.pack(f"!{count}H", *self.unacked) if count else b"",
            _text(self.vehicle),
            _text(self.peer.address),
            _text(self.peer.listener),
            _text("" if tls is None else tls.serial),
            _text("" if tls is None else tls.fingerprint),
            _text(self.client_id),
            pack_roles(self.roles),
            _text(self.provider),
            self.connect,
        ))

    @staticmethod
    def unpack(body: bytes) -> Opening:
        """The opening in ``body``; ``LinkError`` if it is not one."""
        try:
            epoch, opened, under_way, port, count = _OPENING.unpack_from(body)
            unacked = list(struct.unpack_from(f"!{count}H", body, _OPENING.size)) if count else []
            vehicle, pos = _read_text(body, _OPENING.size + 2 * count)
            address, pos = _read_text(body, pos)
            listener, pos = _read_text(body, pos)
            serial, pos = _read_text(body, pos)
            fingerprint, pos = _read_text(body, pos)
            client_id, pos = _read_text(body, pos)
            roles, pos = _read_roles(body, pos)
            provider, pos = _read_text(body, pos)
        except (struct.error, UnicodeDecodeError) as error:
            raise LinkError(f"an OPEN or ATTACH frame cannot be read: {error}") from None
        # A door has few listeners and many vehicles: each listener's name is kept once.
        tls = TlsFacts("", "", serial=serial, fingerprint=fingerprint) if fingerprint else None
        peer = Peer(address, port, sys.intern(listener), tls)
        return Opening(
            vehicle, epoch, opened, peer, body[pos:], client_id, unacked, under_way, roles, sys.intern(provider)
        )  # fmt: skip


def pack_roles(roles: tuple[str, ...]) -> bytes:
    """The body of ROLES: the roles that the vehicle of an open connection has from now on."""
    return _SHORT.pack(len(roles)) + b"".join([_text(role) for role in roles])


def unpack_roles(body: bytes) -> tuple[str, ...]:
    """The roles of a ROLES."""
    try:
        roles, pos = _read_roles(body, 0)
    except (struct.error, UnicodeDecodeError) as error:
        raise LinkError(f"a ROLES frame cannot be read: {error}") from None
    if pos != len(body):
        raise LinkError("a ROLES frame is longer than its roles")
    return roles


def _read_roles(body: bytes, pos: int) -> tuple[tuple[str, ...], int]:
    (count,) = _SHORT.unpack_from(body, pos)
    pos += _SHORT.size
    roles: list[str] = []
    for _ in range(count):
        role, pos = _read_text(body, pos)
        roles.append(sys.intern(role))  # many vehicles have the same
    return tuple(roles), pos


def pack_accepted(keep_alive: int, client_id: str, connack: bytes) -> bytes:
    """The body of ACCEPTED: seconds of keep alive, the client id if the edge assigned it, the CONNACK."""
    return _SHORT.pack(keep_alive) + _text(client_id) + connack


def unpack_accepted(body: bytes) -> tuple[int, str, bytes]:
    """Keep alive, assigned client id, CONNACK."""
    try:
        (keep_alive,) = _SHORT.unpack_from(body)
        client_id, pos = _read_text(body, _SHORT.size)
    except (struct.error, UnicodeDecodeError) as error:
        raise LinkError(f"an ACCEPTED frame cannot be read: {error}") from None
    return keep_alive, client_id, body[pos:]


def pack_traced(context: TraceContext, publish: bytes) -> bytes:
    """The body of TRACED."""
    packed = context.pack()
    return _SHORT.pack(len(packed)) + packed + publish


def unpack_traced(body: bytes) -> tuple[TraceContext, bytes]:
    """The context and the PUBLISH."""
    try:
        (size,) = _SHORT.unpack_from(body)
        context = TraceContext.unpack(body[_SHORT.size : _SHORT.size + size])
    except (struct.error, ValueError) as error:
        raise LinkError(f"a TRACED frame cannot be read: {error}") from None
    return context, body[_SHORT.size + size :]


def pack_credit(size: int) -> bytes:
    """The body of CREDIT: bytes that have left towards the vehicle since the last one."""
    return _SIZE.pack(size)


def unpack_credit(body: bytes) -> int:
    """The bytes of a CREDIT."""
    return _number(_SIZE, body, "CREDIT")


def pack_confirm(count: int) -> bytes:
    """The body of CONFIRM: the total of replayable frames of this link that are processed and durable."""
    return _COUNT.pack(count)


def unpack_confirm(body: bytes) -> int:
    """The count of a CONFIRM."""
    return _number(_COUNT, body, "CONFIRM")


def _number(form: struct.Struct, body: bytes, name: str) -> int:
    if len(body) != form.size:
        raise LinkError(f"a {name} frame has {form.size} bytes, not {len(body)}")
    value: int = form.unpack(body)[0]
    return value


def _text(value: str) -> bytes:
    data = value.encode()
    return _SHORT.pack(len(data)) + data


def _read_text(body: bytes, pos: int) -> tuple[str, int]:
    (size,) = _SHORT.unpack_from(body, pos)
    end = pos + _SHORT.size + size
    if end > len(body):
        raise struct.error("a text is longer than the frame")
    return body[pos + _SHORT.size : end].decode(), end
