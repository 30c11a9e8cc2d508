"""The state machine of a connection without a socket: every way from the first byte to the session, in any pieces."""

from __future__ import annotations

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.transport.admission import Admission
from mesh.transport.authentication import Methods, Proof
from mesh.transport.lifecycle import EARLY, Lifecycle, Rejection
from mesh.transport.refusal import Refused
from mesh.transport.states import (
    ACCEPT,
    CLOSE,
    CONNECTING,
    HAND_OVER,
    IDENTIFYING,
    NEW,
    OPEN,
    PROVING,
    WAITING,
)
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    MQTT31,
    MQTT311,
    PINGREQ,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import CONTINUE_AUTHENTICATION, NOT_AUTHORIZED, RE_AUTHENTICATE, SERVER_BUSY, SUCCESS


class Riddle(Proof):
    """Sends two challenges; the client's third data is its identity."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if self.asked == 2:
            if data == b"wrong":
                raise Refused(NOT_AUTHORIZED, "a wrong answer")
            self.claim = Claim(data.decode(), "riddle")
            return b"welcome", True
        self.asked += 1
        return b"question %d" % self.asked, False


class Riddles(Methods):
    def begin(self, method: str, peer: Peer) -> Proof | None:
        return Riddle() if method == "riddle" else None


def admission(**fields: object) -> Admission:
    return Admission(PacketLimits(max_packet_size=2000, max_connect_size=500), 10, methods=Riddles(), **fields)  # type: ignore[arg-type]


def asking(client_id: str = "car") -> Connect:
    properties = Properties()
    properties.auth_method = "riddle"
    return Connect(MQTT5, client_id, properties=properties)


def auth(data: bytes, reason: int = CONTINUE_AUTHENTICATION) -> Auth:
    properties = Properties()
    properties.auth_method, properties.auth_data = "riddle", data
    return Auth(reason, properties)


def read(data: bytes, protocol: int = MQTT5) -> list[Packet]:
    return Reader(PacketLimits(), CLIENT, protocol).feed(data)


def feed(life: Lifecycle, data: bytes, size: int) -> bytes:
    """Feed ``data`` in pieces of ``size`` bytes; returns the answers."""
    return b"".join(life.receive(data[pos : pos + size], 1) for pos in range(0, len(data), size))


@pytest.mark.parametrize("protocol", [MQTT31, MQTT311, MQTT5])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_connect_leads_to_a_session(protocol: int, size: int) -> None:
    life = Lifecycle(admission())
    assert life.state == NEW
    raw = encode(Connect(protocol, "car"), protocol)
    assert feed(life, raw[:-1], size) == b""
    assert life.state == CONNECTING
    early = encode(Publish("t", b"x"), protocol) + encode(Ping(PINGREQ), protocol)[:1]
    assert life.receive(raw[-1:] + early, 1) == b""
    assert life.state == IDENTIFYING
    assert (life.protocol, life.connect().client_id, life.claim()) == (protocol, "car", None)
    assert life.connect_packet() == raw
    assert not life.proves()
    life.move(HAND_OVER)
    assert life.take_early() == early
    assert life.state == WAITING
    life.move(ACCEPT)
    assert life.state == OPEN


@pytest.mark.parametrize("size", [1, 1000])
def test_client_authenticates_in_several_steps(size: int) -> None:
    life = Lifecycle(admission())
    (first,) = read(feed(life, encode(asking(), MQTT5), size))
    assert isinstance(first, Auth)
    assert life.state == PROVING
    (second,) = read(feed(life, encode(auth(b"one"), MQTT5), size))
    assert isinstance(second, Auth)
    assert second.properties is not None
    assert second.properties.auth_data == b"question 2"
    assert feed(life, encode(auth(b"VIN7"), MQTT5), size) == b""
    assert life.state == IDENTIFYING
    claim = life.claim()
    assert claim is not None
    assert claim.name == "VIN7"
    assert life.proves()
    connect = Reader(PacketLimits(), 0).feed(life.connect_packet())[0]
    assert isinstance(connect, Connect)
    assert connect.properties is not None
    assert connect.properties.auth_data == b"welcome", "the method's last word is for CONNACK"


def test_answers_to_pipelined_auth_packets_keep_their_order() -> None:
    life = Lifecycle(admission())
    packets = (asking(), auth(b"one"), auth(b"VIN7"), Ping(PINGREQ))
    answers = read(life.receive(b"".join(encode(packet, MQTT5) for packet in packets), 1))
    assert [packet.properties.auth_data for packet in answers if isinstance(packet, Auth) and packet.properties] == [
        b"question 1", b"question 2",
    ]  # fmt: skip
    assert life.state == IDENTIFYING
    assert life.take_early() == encode(Ping(PINGREQ), MQTT5)


def test_challenge_precedes_the_refusal_of_a_pipelining_client() -> None:
    life = Lifecycle(admission())
    packets = (asking(), auth(b""), auth(b"wrong"))
    with pytest.raises(Rejection) as ended:
        life.receive(b"".join(encode(packet, MQTT5) for packet in packets), 1)
    first, second, last = read(ended.value.answer)
    assert isinstance(first, Auth)
    assert isinstance(second, Auth)
    assert isinstance(last, Connack)
    assert last.reason == NOT_AUTHORIZED


def test_client_re_authenticates_on_an_open_connection() -> None:
    life = Lifecycle(admission())
    life.receive(b"".join(encode(packet, MQTT5) for packet in (asking(), auth(b""), auth(b"VIN7"))), 1)
    life.move(HAND_OVER)
    life.move(ACCEPT)
    life.prove_again_raw(encode(auth(b"", RE_AUTHENTICATE), MQTT5))
    life.prove_again(auth(b""))
    (last,) = read(life.prove_again(auth(b"VIN7")))
    assert isinstance(last, Auth)
    assert last.reason == SUCCESS
    life.prove_again(auth(b"", RE_AUTHENTICATE))
    life.prove_again(auth(b""))
    with pytest.raises(Refused, match="VIN7 re-authenticated as VIN8"):
        life.prove_again(auth(b"VIN8"))


ENDS = [
    ("no CONNECT", [b"\x30\x00"], b""),
    ("no MQTT", [b"GET / HTTP/1.1\r\n\r\n"], b""),
    ("more than a CONNECT may have", [b"\x10\xff\xff\xff\x7f"], b""),
    ("another version", [b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x3c\x00\x00"], b"\x20\x02\x00\x01"),
    ("a reserved flag", [b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00"], b"\x20\x03\x00\x81\x00"),
    ("PUBLISH instead of AUTH", [encode(asking(), MQTT5), encode(Publish("t"), MQTT5)], b"\x20\x03\x00\x82\x00"),
    ("a malformed AUTH", [encode(asking(), MQTT5), b"\xf1\x00"], b"\x20\x03\x00\x81\x00"),
    ("a large AUTH", [encode(asking(), MQTT5), b"\xf0\xff\xff\x7f"], b"\x20\x03\x00\x95\x00"),
    ("it gives up", [encode(asking(), MQTT5), encode(Disconnect(), MQTT5)], b""),
    ("a wrong answer", [encode(asking(), MQTT5), encode(auth(b""), MQTT5), encode(auth(b"wrong"), MQTT5)],
     b"\x20\x03\x00\x87\x00"),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(("name", "packets", "answer"), ENDS, ids=[end[0] for end in ENDS])
def test_disallowed_packet_ends_the_connection_with_its_answer(
    name: str, packets: list[bytes], answer: bytes, size: int
) -> None:
    life = Lifecycle(admission())
    with pytest.raises(Rejection) as ended:
        feed(life, b"".join(packets), size)
    assert ended.value.answer.endswith(answer)
    assert size > 1 or ended.value.answer == answer, "the questions have been given out before"
    life.move(CLOSE)
    assert not life.was_open()


@pytest.mark.parametrize(
    ("rules", "present", "answer"),
    [
        (admission(), 11, Connack(False, SERVER_BUSY)),
        (admission(redirect="other:1883"), 1, None),
    ],
)
def test_admission_is_checked_before_identity(rules: Admission, present: int, answer: Connack | None) -> None:
    life = Lifecycle(rules)
    with pytest.raises(Rejection) as ended:
        life.receive(encode(Connect(MQTT5, "car"), MQTT5), present)
    if answer is not None:
        assert ended.value.answer == encode(answer, MQTT5)
    else:
        (connack,) = read(ended.value.answer)
        assert isinstance(connack, Connack)
        assert connack.properties is not None
        assert connack.properties.server_reference == "other:1883"


def test_bytes_that_follow_connect_are_bounded() -> None:
    life = Lifecycle(admission())
    life.receive(encode(Connect(MQTT5, "car"), MQTT5), 1)
    life.receive(bytes(EARLY), 1)
    with pytest.raises(Rejection, match="before CONNACK") as ended:
        life.receive(b"x", 1)
    assert ended.value.answer == b"\x20\x03\x00\x97\x00"


def test_no_answer_exceeds_the_maximum_packet_size_of_the_client() -> None:
    properties = Properties()
    properties.maximum_packet_size = 4
    life = Lifecycle(admission())
    life.receive(encode(Connect(MQTT5, "car", properties=properties), MQTT5), 1)
    assert life.maximum == 4
    assert life.rejected(Refused(NOT_AUTHORIZED)).answer == b""
    life.move(HAND_OVER)
    life.move(ACCEPT)
    assert life.goodbye(NOT_AUTHORIZED, "a long explanation") == encode(Disconnect(NOT_AUTHORIZED), MQTT5)


@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_last_packet_fits_the_state(protocol: int) -> None:
    life = Lifecycle(admission())
    assert life.farewell() == b""
    assert life.goodbye(NOT_AUTHORIZED) == b""
    life.receive(encode(Connect(protocol, "car"), protocol), 1)
    for event in (HAND_OVER, ACCEPT):
        (connack,) = read(life.farewell(), protocol)
        assert isinstance(connack, Connack)
        assert connack.reason != SUCCESS
        assert life.goodbye(NOT_AUTHORIZED) == b"", "DISCONNECT never comes before CONNACK"
        life.move(event)
    assert [type(packet) for packet in read(life.farewell(), protocol)] == ([Disconnect] if protocol == MQTT5 else [])
    assert [type(packet) for packet in read(life.goodbye(NOT_AUTHORIZED), protocol)] == (
        [Disconnect] if protocol == MQTT5 else []
    )
    life.move(CLOSE)
    assert life.farewell() == b""
    assert life.goodbye(NOT_AUTHORIZED) == b""


def test_a_method_is_told_the_peer() -> None:
    told: list[Peer] = []

    class Told(Methods):
        def begin(self, method: str, peer: Peer) -> Proof | None:
            told.append(peer)
            return Riddle()

    life = Lifecycle(Admission(PacketLimits(), 10, methods=Told()))
    peer = Peer("192.0.2.7", 50_000)
    life.receive(encode(asking(), MQTT5), 1, peer)
    assert told == [peer]
