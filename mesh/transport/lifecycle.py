"""One client's connection from accept to its end, for every kind of listener: bytes in, answers out.

It knows CONNECT, the rules of admission, AUTH packets, and the packets that refuse or dismiss a client. It must never
touch a socket or a clock, and never knows sessions, topics or identities. What always holds:

* the first packet must be CONNECT, and only AUTH and DISCONNECT may follow until the client has proved its identity
  [MQTT-3.1.0-1] [MQTT-3.1.2-30]; later packets stay bytes (``take_early``) until the session is ready;
* a client is answered in its own version of the protocol or not at all, with no packet larger than it accepts
  [MQTT-3.1.2-24];
* before CONNACK the only answers are CONNACK and AUTH; after it the last packet may only be DISCONNECT [MQTT-3.2.0-1].
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.transport.admission import Admission
from mesh.transport.authentication import Authentication, GaveUp, Later
from mesh.transport.refusal import Refused, farewell, goodbye, malformed, maximum_of, refusal
from mesh.transport.states import ASK, BEGIN, CONNECTING, IDENTIFY, IDENTIFYING, NEW, OPEN, WAITING, State
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.frames import Splitter
from mesh.wire.packets import CONNECT, MQTT5, Auth, Connect, Packet
from mesh.wire.reasons import PROTOCOL_ERROR, QUOTA_EXCEEDED, SERVER_UNAVAILABLE, ProtocolError, name_of

# Bytes that may follow CONNECT before the session is ready: what one read of a socket returns, since the socket is not
# read while the client is looked up.
EARLY: Final = 256 * 1024


@final
class Rejection(Exception):
    """The connection must end. The text is for the log; ``answer`` is the packet for the client, often empty."""

    def __init__(self, why: str, answer: bytes = b"") -> None:
        super().__init__(why)
        self.answer = answer


@final
class Lifecycle(State):
    """``protocol`` is 3, 4 or 5, and 0 before CONNECT; ``maximum`` is the client's maximum packet size in bytes, 0 if
    it has none."""

    __slots__ = ("_admission", "_authentication", "_connect", "_raw", "_splitter", "_waits", "maximum", "protocol")

    def __init__(self, admission: Admission) -> None:
        super().__init__()
        self.protocol = 0
        self.maximum = 0
        self._admission = admission
        self._splitter: Splitter | None = None
        self._connect: Connect | None = None
        self._raw = b""
        self._waits = False  # the answer to the last packet has to wait
        self._authentication: Authentication | None = None

    # Before the session

    def receive(self, data: bytes, present: int, peer: Peer = NOWHERE) -> bytes:
        """Handle bytes that came before the session is ready; ``present`` connections are open, this one included.
        ``peer`` is the client's end.

        Returns the bytes to write. Once the state is IDENTIFYING, ``connect`` may be called. Raises ``Rejection``, and
        ``Later`` if the answer has to wait: then it is called again, also without bytes, when it is ready.
        """
        if self.state == NEW:
            if data[0] != CONNECT << 4:  # [MQTT-3.1.0-1]
                raise Rejection("its first packet is not CONNECT")
            self.move(BEGIN)
            self._splitter = Splitter()
        splitter = self._splitter
        assert splitter is not None
        splitter.feed(data)
        answer = b""
        while self.state < IDENTIFYING:
            try:
                if self._waits:
                    self._waits = False
                    answer += self._repeated()
                    continue
                raw = self._next(splitter)
                if not raw:
                    return answer
                answer += self._greeted(raw, present, peer) if self.state == CONNECTING else self._proved(raw)
            except Later as later:
                self._waits = True
                later.answer = answer + later.answer
                raise
            except Rejection as end:
                end.answer = answer + end.answer  # an AUTH that was already answered is still written
                raise
        if splitter.size() > EARLY:
            raise self.rejected(Refused(QUOTA_EXCEEDED, f"more than {EARLY} bytes came before CONNACK"))
        return answer

    def connect(self) -> Connect:
        """The CONNECT of a client that is IDENTIFYING. After an enhanced authentication its properties hold the data
        for CONNACK instead of the client's."""
        assert self._connect is not None
        return self._connect

    def connect_packet(self) -> bytes:
        """The same, encoded."""
        return self._raw or encode(self.connect(), MQTT5)

    def buffered(self) -> int:
        """Bytes that are kept until ``take_early``."""
        return len(self._raw) + (0 if self._splitter is None else self._splitter.size())

    def claim(self) -> Claim | None:
        """The claim that the client has proved; ``None`` if it named no authentication method. It changes when the
        client authenticates again."""
        return None if self._authentication is None else self._authentication.claim

    def take_early(self) -> bytes:
        """The bytes that followed CONNECT so far. The session is ready, so ``receive`` is not called again."""
        splitter = self._splitter
        early = b"" if splitter is None else splitter.rest()
        self._splitter = None
        self._connect = None
        self._raw = b""
        return early

    def _next(self, splitter: Splitter) -> bytes:
        limits = self._admission.limits
        try:
            return splitter.take(limits.max_connect_size if self.state == CONNECTING else limits.max_packet_size)
        except ProtocolError as error:
            raise Rejection(str(error), malformed(self.protocol, error.reason)) from None

    def _greeted(self, raw: bytes, present: int, peer: Peer) -> bytes:
        """CONNECT is complete."""
        reader = Reader(self._admission.limits, SERVER)
        packets = reader.feed(raw)
        self.protocol = reader.protocol
        connect = packets[0] if packets else None
        if not isinstance(connect, Connect):
            error = reader.error or ProtocolError(PROTOCOL_ERROR, "the packet is not a CONNECT")
            raise Rejection(str(error), malformed(reader.protocol, error.reason))
        self._connect = connect
        self._raw = raw
        self.maximum = maximum_of(connect)
        try:
            self._authentication = authentication = self._admission.check(connect, present, peer)
            return self._step(b"" if authentication is None else authentication.begin())
        except Refused as refused:
            raise self.rejected(refused) from None

    def _proved(self, raw: bytes) -> bytes:
        """A packet came during the authentication."""
        authentication = self._authentication
        assert authentication is not None
        try:
            return self._step(authentication.proceed(self._read(raw)))
        except GaveUp:
            raise Rejection("it sent DISCONNECT during its authentication") from None
        except Refused as refused:
            raise self.rejected(refused) from None

    def _repeated(self) -> bytes:
        """What the answer to the last packet had to wait for is ready."""
        authentication = self._authentication
        assert authentication is not None
        try:
            return self._step(authentication.repeat())
        except Refused as refused:
            raise self.rejected(refused) from None

    def _step(self, answer: bytes) -> bytes:
        """The authentication goes on with ``answer``, or is complete if that is empty."""
        if answer:
            self.move(ASK)
        else:
            self.move(IDENTIFY)
            if self._authentication is not None:
                self._raw = b""  # the proof is not passed on
        return answer

    def _read(self, raw: bytes) -> Packet:
        """Decode one whole packet. Raises ``Refused`` if it is malformed."""
        reader = Reader(self._admission.limits, SERVER, self.protocol)
        packets = reader.feed(raw)
        if not packets:
            error = reader.error
            raise Refused(PROTOCOL_ERROR if error is None else error.reason, str(error))
        return packets[0]

    # With the session

    def proves(self) -> bool:
        """Whether the client uses an authentication method, and so may re-authenticate (MQTT 5.0 section 4.12.1)."""
        return self._authentication is not None

    def prove_again(self, packet: Auth) -> bytes:
        """The answer to an AUTH on an open connection. Raises ``Refused``; the caller then ends the connection; and
        ``Later``: then ``prove_later`` has the answer when it is ready."""
        assert self._authentication is not None
        return self._authentication.again(packet)

    def prove_later(self) -> bytes:
        """The answer that had to wait. Raises as ``prove_again``."""
        assert self._authentication is not None
        return self._authentication.repeat_again()

    def prove_again_raw(self, raw: bytes) -> bytes:
        """The same for the bytes of an AUTH packet."""
        packet = self._read(raw)
        if not isinstance(packet, Auth):
            raise Refused(PROTOCOL_ERROR, "the packet is not an AUTH")
        return self.prove_again(packet)

    # The end

    def rejected(self, refused: Refused) -> Rejection:
        """The rejection for a client that is refused."""
        answer = refusal(self.protocol, refused.reason, refused.reference, self.maximum)
        return Rejection(f"refused: {name_of(refused.reason)}: {refused}", answer)

    def goodbye(self, reason: int, why: str = "") -> bytes:
        """The DISCONNECT that says why the connection ends; empty unless it is OPEN."""
        return goodbye(self.protocol, reason, self.maximum, why) if self.state == OPEN else b""

    def farewell(self) -> bytes:
        """The last packet of a server that stops (MQTT 5.0 section 4.11): DISCONNECT, or CONNACK if that is due."""
        if self.state == OPEN:
            return farewell(self.protocol, self._admission.redirect, self.maximum)
        if self.state in (IDENTIFYING, WAITING):
            return refusal(self.protocol, SERVER_UNAVAILABLE, "", self.maximum)
        return b""
