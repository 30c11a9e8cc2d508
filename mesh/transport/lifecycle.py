"""One client's connection from accept to its end, for every kind of listener: bytes in, answers out.

It knows CONNECT, the rules of admission, AUTH packets, and the words in which a client is refused or dismissed. It must
never touch a socket or a clock, and never knows sessions, topics or who the client is. What always holds:

* nothing but CONNECT is read first, and nothing but AUTH and DISCONNECT until the client has proved who it is
  [MQTT-3.1.0-1] [MQTT-3.1.2-30]; what comes after that stays bytes (``take_early``) until the session is there;
* a client is answered in its own version of the protocol or not at all, with no packet larger than it takes
  [MQTT-3.1.2-24];
* before CONNACK the only answer is a CONNACK or an AUTH, after it the only last word is a DISCONNECT [MQTT-3.2.0-1].
"""

from __future__ import annotations

from typing import Final, final

from mesh.transport.admission import Admission
from mesh.transport.authentication import Authentication, GaveUp
from mesh.transport.refusal import Refused, farewell, goodbye, malformed, maximum_of, refusal
from mesh.transport.states import ASK, BEGIN, CONNECTING, IDENTIFY, IDENTIFYING, NEW, OPEN, WAITING, State
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.frames import Splitter
from mesh.wire.packets import CONNECT, MQTT5, Auth, Connect, Packet
from mesh.wire.reasons import PROTOCOL_ERROR, QUOTA_EXCEEDED, SERVER_UNAVAILABLE, ProtocolError, name_of

# Bytes that may come behind CONNECT before the session is there: what one read of a socket brings, since the socket is
# not read while the client is looked up.
EARLY: Final = 256 * 1024


@final
class Rejection(Exception):
    """The connection must end. The text is for the log; ``answer`` is what the client is told, often nothing."""

    def __init__(self, why: str, answer: bytes = b"") -> None:
        super().__init__(why)
        self.answer = answer


@final
class Lifecycle(State):
    """``protocol`` is 3, 4 or 5, and 0 until CONNECT named it; ``maximum`` is the client's maximum packet size in
    bytes, 0 if it has none."""

    __slots__ = ("_admission", "_authentication", "_connect", "_raw", "_splitter", "maximum", "protocol")

    def __init__(self, admission: Admission) -> None:
        super().__init__()
        self.protocol = 0
        self.maximum = 0
        self._admission = admission
        self._splitter: Splitter | None = None
        self._connect: Connect | None = None
        self._raw = b""
        self._authentication: Authentication | None = None

    # Before the session

    def receive(self, data: bytes, present: int) -> bytes:
        """Bytes came before the session is there, while ``present`` connections are open, this one included.

        Returns what is to be written. Once the state is IDENTIFYING, ``connect`` may be called. Raises ``Rejection``.
        """
        if self.state == NEW:
            if data[0] != CONNECT << 4:  # [MQTT-3.1.0-1]
                raise Rejection("its first packet is no CONNECT")
            self.move(BEGIN)
            self._splitter = Splitter()
        splitter = self._splitter
        assert splitter is not None
        splitter.feed(data)
        answer = b""
        while self.state < IDENTIFYING:
            try:
                raw = self._next(splitter)
                if not raw:
                    return answer
                answer += self._greeted(raw, present) if self.state == CONNECTING else self._proved(raw)
            except Rejection as end:
                end.answer = answer + end.answer  # a question that was asked is not taken back
                raise
        if splitter.size() > EARLY:
            raise self.rejected(Refused(QUOTA_EXCEEDED, f"more than {EARLY} bytes came before CONNACK"))
        return answer

    def connect(self) -> Connect:
        """The CONNECT of a client that is IDENTIFYING; if it went through an authentication, with what CONNACK is to
        say of that in place of the proof."""
        assert self._connect is not None
        return self._connect

    def connect_packet(self) -> bytes:
        """The same as the bytes of a packet."""
        return self._raw or encode(self.connect(), MQTT5)

    def identity(self) -> str:
        """Who the client has proved to be; empty if it named no authentication method."""
        return "" if self._authentication is None else self._authentication.identity

    def take_early(self) -> bytes:
        """What came behind CONNECT so far. The session is there now, so later bytes are not for ``receive``."""
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

    def _greeted(self, raw: bytes, present: int) -> bytes:
        """CONNECT is complete."""
        reader = Reader(self._admission.limits, SERVER)
        packets = reader.feed(raw)
        self.protocol = reader.protocol
        connect = packets[0] if packets else None
        if not isinstance(connect, Connect):
            error = reader.error or ProtocolError(PROTOCOL_ERROR, "this is no CONNECT")
            raise Rejection(str(error), malformed(reader.protocol, error.reason))
        self._connect = connect
        self._raw = raw
        self.maximum = maximum_of(connect)
        try:
            self._authentication = authentication = self._admission.check(connect, present)
            return self._step(b"" if authentication is None else authentication.begin())
        except Refused as refused:
            raise self.rejected(refused) from None

    def _proved(self, raw: bytes) -> bytes:
        """A packet came while the client proves who it is."""
        authentication = self._authentication
        assert authentication is not None
        try:
            return self._step(authentication.proceed(self._read(raw)))
        except GaveUp:
            raise Rejection("it gave up proving who it is") from None
        except Refused as refused:
            raise self.rejected(refused) from None

    def _step(self, answer: bytes) -> bytes:
        """The authentication has an answer for the client, or it is over."""
        if answer:
            self.move(ASK)
        else:
            self.move(IDENTIFY)
            if self._authentication is not None:
                self._raw = b""  # the proof stays here
        return answer

    def _read(self, raw: bytes) -> Packet:
        """A whole packet. Raises ``Refused`` if it is malformed."""
        reader = Reader(self._admission.limits, SERVER, self.protocol)
        packets = reader.feed(raw)
        if not packets:
            error = reader.error
            raise Refused(PROTOCOL_ERROR if error is None else error.reason, str(error))
        return packets[0]

    # With the session

    def proves(self) -> bool:
        """Whether the client uses an authentication method, and may prove again who it is (MQTT 5.0 section 4.12.1).
        """
        return self._authentication is not None

    def prove_again(self, packet: Auth) -> bytes:
        """AUTH came on an open connection: the answer. Raises ``Refused``, and then the connection must end."""
        assert self._authentication is not None
        return self._authentication.again(packet)

    def prove_again_raw(self, raw: bytes) -> bytes:
        """The same for the bytes of an AUTH packet."""
        packet = self._read(raw)
        if not isinstance(packet, Auth):
            raise Refused(PROTOCOL_ERROR, "this is no AUTH")
        return self.prove_again(packet)

    # The end

    def rejected(self, refused: Refused) -> Rejection:
        """The end for a client that is not let in."""
        answer = refusal(self.protocol, refused.reason, refused.reference, self.maximum)
        return Rejection(f"refused: {name_of(refused.reason)}: {refused}", answer)

    def goodbye(self, reason: int, why: str = "") -> bytes:
        """The DISCONNECT that tells why the connection ends; nothing unless it is OPEN."""
        return goodbye(self.protocol, reason, self.maximum, why) if self.state == OPEN else b""

    def farewell(self) -> bytes:
        """The last word of a server that stops (MQTT 5.0 section 4.11): a DISCONNECT, or a CONNACK to who waits."""
        if self.state == OPEN:
            return farewell(self.protocol, self._admission.redirect, self.maximum)
        if self.state in (IDENTIFYING, WAITING):
            return refusal(self.protocol, SERVER_UNAVAILABLE, "", self.maximum)
        return b""
