"""Enhanced authentication (MQTT 5.0 section 4.12): the AUTH packets of one connection, for every method.

It knows AUTH packets, and asks a method what to answer: never passwords, nor how an identity becomes a principal. What
always holds: every packet names the method of the CONNECT [MQTT-4.12.0-5]; re-authentication proves the same identity;
an exchange that fails ends the connection; no answer is larger than the client accepts [MQTT-3.1.2-24].
"""

from __future__ import annotations

from asyncio import Future
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.transport.refusal import Refused, maximum_of
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Auth, Connect, Disconnect, Packet
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    CONTINUE_AUTHENTICATION,
    NOT_AUTHORIZED,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    RE_AUTHENTICATE,
    SUCCESS,
)

_STEPS: Final = 8  # no method needs more packets of a client


@mypyc_attr(allow_interpreted_subclasses=True)
class Proof:
    """One exchange of a method. ``claim`` is set once ``step`` reports that it is proven."""

    def __init__(self) -> None:
        self.claim: Claim | None = None

    def step(self, data: bytes) -> tuple[bytes, bool]:
        """The answer to the client's data, and whether that data completes the proof. Raises ``Refused``, and ``Later``
        if the answer needs something that is on its way: then the same step is repeated."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Methods:
    """The methods that a listener offers. This one offers none."""

    def arrive(self, peer: Peer) -> None:
        """A connection begins. Raises ``Refused`` if nothing that its client could show would be accepted."""

    def begin(self, method: str, peer: Peer) -> Proof | None:
        """A new exchange of a method with a client; ``None`` if its listener does not offer it."""
        return None


@final
class Later(Exception):
    """The answer has to wait for ``ready``. ``answer`` is what was answered before it, and is still to be written."""

    def __init__(self, ready: Future[None]) -> None:
        super().__init__()
        self.ready = ready
        self.answer = b""


class GaveUp(Exception):
    """The client sent DISCONNECT before it was accepted."""


@final
class Authentication:
    """The authentication of one connection, requested by ``connect``. ``claim`` is the last one that was proven;
    ``None`` before the proof. All answers are packets of MQTT 5.0."""

    __slots__ = ("_connect", "_kept", "_max_packet", "_method", "_methods", "_peer", "_proof", "_steps", "claim")

    def __init__(self, methods: Methods, method: str, connect: Connect, peer: Peer) -> None:
        self.claim: Claim | None = None
        self._peer = peer
        self._method = method
        self._methods = methods
        self._connect: Connect | None = connect
        self._max_packet = maximum_of(connect)
        self._steps = 0
        self._kept: bytes | None = None  # the data of a step that has to be repeated
        self._proof: Proof | None = self._begin()

    def begin(self) -> bytes:
        """The answer to CONNECT; empty if CONNECT already proves the claim. Raises ``Refused`` and ``Later``."""
        properties = self._of_connect()
        return self._first(properties.auth_data or b"", properties)

    def proceed(self, packet: Packet) -> bytes:
        """The answer to a packet that came before CONNACK; empty once the claim is proven. Raises ``Refused``,
        ``Later`` and ``GaveUp``."""
        if isinstance(packet, Disconnect):
            raise GaveUp
        if not isinstance(packet, Auth):  # [MQTT-3.1.2-30]
            raise Refused(PROTOCOL_ERROR, "a packet other than AUTH came before CONNACK")
        self._check(packet, CONTINUE_AUTHENTICATION)
        return self._first(_data(packet), self._of_connect())

    def repeat(self) -> bytes:
        """The answer to the packet before CONNACK whose answer had to wait. Raises as ``proceed``."""
        return self._first(self._take_kept(), self._of_connect())

    def again(self, packet: Packet) -> bytes:
        """The answer to an AUTH on an open connection (section 4.12.1). Raises ``Refused``; the caller then closes the
        connection; and ``Later``."""
        if not isinstance(packet, Auth):
            raise Refused(PROTOCOL_ERROR, "the packet is not an AUTH")
        if self._kept is not None:
            raise Refused(PROTOCOL_ERROR, "an AUTH came while the one before it waited for its answer")
        if self._proof is None:
            self._check(packet, RE_AUTHENTICATE)
            self._proof = self._begin()
        else:
            self._check(packet, CONTINUE_AUTHENTICATION)
        return self._next(_data(packet))

    def repeat_again(self) -> bytes:
        """The answer to the AUTH on an open connection whose answer had to wait. Raises as ``again``."""
        return self._next(self._take_kept())

    def _take_kept(self) -> bytes:
        kept, self._kept = self._kept, None
        assert kept is not None, "no answer has to wait"
        return kept

    def _next(self, data: bytes) -> bytes:
        properties = Properties()
        answer = self._advance(data, properties)
        if answer is None:
            properties.auth_method = self._method
            answer = Auth(SUCCESS, properties)
        return self._encode(answer)

    def _of_connect(self) -> Properties:
        """The properties of the CONNECT. They receive the method's last data, for the CONNACK."""
        assert self._connect is not None
        assert self._connect.properties is not None
        return self._connect.properties

    def _first(self, data: bytes, properties: Properties) -> bytes:
        answer = self._advance(data, properties)
        if answer is None:
            self._connect = None
            return b""
        return self._encode(answer)

    def _encode(self, answer: Auth) -> bytes:
        data = encode(answer, MQTT5)
        if self._max_packet and len(data) > self._max_packet:
            raise Refused(
                PACKET_TOO_LARGE,
                f"the authentication needs a packet of {len(data)} bytes; the client accepts {self._max_packet}",
            )
        return data

    def _begin(self) -> Proof:
        proof = self._methods.begin(self._method, self._peer)
        if proof is None:
            raise Refused(BAD_AUTHENTICATION_METHOD, f"the authentication method {self._method!r} is not supported")
        self._steps = 0
        return proof

    def _check(self, auth: Auth, reason: int) -> None:
        named = None if auth.properties is None else auth.properties.auth_method
        if named != self._method:
            raise Refused(PROTOCOL_ERROR, "an AUTH names another method than the CONNECT")  # [MQTT-4.12.0-5]
        if auth.reason != reason:
            raise Refused(
                PROTOCOL_ERROR, f"an AUTH has reason 0x{auth.reason:02X}; only 0x{reason:02X} is allowed here"
            )

    def _advance(self, data: bytes, final: Properties) -> Auth | None:
        """One step of the exchange. The last step puts the method's last data into ``final`` and returns ``None``."""
        proof = self._proof
        assert proof is not None
        self._steps += 1
        if self._steps > _STEPS:
            raise Refused(PROTOCOL_ERROR, f"the authentication did not end within {_STEPS} packets")
        try:
            answer, proven = proof.step(data)
        except Later:
            self._kept = data
            raise
        if not proven:
            properties = Properties()
            properties.auth_method = self._method
            properties.auth_data = answer
            return Auth(CONTINUE_AUTHENTICATION, properties)
        claim, before = proof.claim, self.claim
        assert claim is not None, "a proof that is complete has a claim"
        if before is not None and before.name != claim.name:
            raise Refused(NOT_AUTHORIZED, f"{before.name} re-authenticated as {claim.name}")
        self.claim = claim
        self._proof = None
        final.auth_data = answer or None
        return None


def _data(auth: Auth) -> bytes:
    return b"" if auth.properties is None else auth.properties.auth_data or b""
