"""The golden packets: written by hand from the specifications, byte by byte.

``GOLDEN`` tests the decoder and the encoder; each packet has the one form that the encoder writes. ``READ_ONLY`` are
other forms that the decoder must accept. ``BROKEN`` are bytes that it must refuse, with the reason code. ``role`` is
the role of the reader: SERVER reads what clients send.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.wire.decode import CLIENT, SERVER
from mesh.wire.packets import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mesh.wire.properties import Properties


class Golden(NamedTuple):
    """One packet and its bytes in hexadecimal."""

    name: str
    protocol: int
    role: int
    packet: Packet
    hex: str


class Broken(NamedTuple):
    """Bytes that are refused with ``reason``. ``protocol`` 0: they are the first on the connection."""

    name: str
    protocol: int
    role: int
    hex: str
    reason: int


def properties(**values: object) -> Properties:
    """Properties with some fields set."""
    made = Properties()
    for name, value in values.items():
        assert name in Properties.FIELDS
        setattr(made, name, value)
    return made


def hexed(text: str) -> str:
    """A string field (length and UTF-8) in hexadecimal."""
    data = text.encode()
    return f"{len(data):04x}{data.hex()}"


GOLDEN: list[Golden] = [
    Golden("connect 3.1", 3, SERVER, Connect(3, "a", True, 60), "10 0f 0006 4d5149736470 03 02 003c 0001 61"),
    Golden("connect 3.1.1", 4, SERVER, Connect(4, "a", True, 60), "10 0d 0004 4d515454 04 02 003c 0001 61"),
    Golden("connect 3.1.1 empty id", 4, SERVER, Connect(4, "", True, 0), "10 0c 0004 4d515454 04 02 0000 0000"),
    Golden(
        "connect 3.1.1 kept session", 4, SERVER, Connect(4, "a", False, 65535), "10 0d 0004 4d515454 04 00 ffff 0001 61"
    ),
    Golden(
        "connect 3.1.1 all",
        4,
        SERVER,
        Connect(4, "zen", True, 10, "u", b"\x00p", Will("w/t", b"bye", 1, True)),
        "10 20 0004 4d515454 04 ee 000a 0003 7a656e 0003 772f74 0003 627965 0001 75 0002 0070",
    ),
    Golden("connect 5.0", 5, SERVER, Connect(5, "a", True, 60), "10 0e 0004 4d515454 05 02 003c 00 0001 61"),
    Golden(
        "connect 5.0 password only",
        5,
        SERVER,
        Connect(5, "a", False, 60, None, b"p"),
        "10 11 0004 4d515454 05 40 003c 00 0001 61 0001 70",
    ),
    Golden(
        "connect 5.0 properties",
        5,
        SERVER,
        Connect(
            5,
            "a",
            True,
            60,
            properties=properties(
                session_expiry=120,
                auth_method="m",
                auth_data=b"\x01",
                request_problem_info=0,
                request_response_info=1,
                receive_maximum=10,
                topic_alias_maximum=5,
                maximum_packet_size=1024,
                user=[("k", "v"), ("k", "w")],
            ),
        ),
        "10 38 0004 4d515454 05 02 003c 2a 11 00000078 15 0001 6d 16 0001 01 17 00 19 01 21 000a 22 0005 27 00000400"
        " 26 0001 6b 0001 76 26 0001 6b 0001 77 0001 61",
    ),
    Golden(
        "connect 5.0 will properties",
        5,
        SERVER,
        Connect(5, "a", True, 60, None, None, Will("w", b"", 2, False, properties(will_delay=5, content_type="c"))),
        "10 1d 0004 4d515454 05 16 003c 00 0001 61 09 03 0001 63 18 00000005 0001 77 0000",
    ),
    Golden("connack 3.1", 3, CLIENT, Connack(False, 0), "20 02 00 00"),
    Golden("connack 3.1.1 present", 4, CLIENT, Connack(True, 0), "20 02 01 00"),
    Golden("connack 3.1.1 refused", 4, CLIENT, Connack(False, 5), "20 02 00 05"),
    Golden("connack 5.0", 5, CLIENT, Connack(True, 0), "20 03 01 00 00"),
    Golden("connack 5.0 refused", 5, CLIENT, Connack(False, 0x87), "20 03 00 87 00"),
    Golden(
        "connack 5.0 properties",
        5,
        CLIENT,
        Connack(
            False,
            0,
            properties(
                session_expiry=1,
                receive_maximum=2,
                topic_alias_maximum=4,
                maximum_packet_size=3,
                reason_string="r",
                assigned_client_id="i",
                server_keep_alive=9,
                response_info="x",
                server_reference="s",
                maximum_qos=1,
                retain_available=0,
                wildcard_available=0,
                subscription_id_available=0,
                shared_available=1,
            ),
        ),
        "20 30 00 00 2d 11 00000001 1f 0001 72 21 0002 22 0004 27 00000003 12 0001 69 13 0009 1a 0001 78 1c 0001 73"
        " 24 01 25 00 28 00 29 00 2a 01",
    ),
    Golden("publish 3.1 QoS 1", 3, SERVER, Publish("a", b"x", 1, packet_id=1), "32 06 0001 61 0001 78"),
    Golden("publish 3.1.1 QoS 0", 4, SERVER, Publish("a/b", b"hello"), "30 0a 0003 612f62 68656c6c6f"),
    Golden("publish 3.1.1 QoS 0 retain, no payload", 4, SERVER, Publish("a/b", b"", 0, True), "31 05 0003 612f62"),
    Golden("publish 3.1.1 QoS 1", 4, CLIENT, Publish("a/b", b"h", 1, packet_id=7), "32 08 0003 612f62 0007 68"),
    Golden("publish 3.1.1 QoS 2 dup retain", 4, SERVER, Publish("a", b"", 2, True, True, 65535), "3d 05 0001 61 ffff"),
    Golden("publish 3.1.1 other letters", 4, SERVER, Publish("ä/€/😀"), "30 0d 000b c3a4 2f e282ac 2f f09f9880"),
    Golden("publish 3.1.1 two bytes of length", 4, SERVER, Publish("a", b"x" * 125), "30 8001 0001 61" + "78" * 125),
    Golden("publish 5.0 QoS 0", 5, SERVER, Publish("a/b", b"h"), "30 07 0003 612f62 00 68"),
    Golden("publish 5.0 QoS 1", 5, SERVER, Publish("a/b", b"h", 1, packet_id=258), "32 09 0003 612f62 0102 00 68"),
    Golden(
        "publish 5.0 alias only",
        5,
        SERVER,
        Publish("", b"h", properties=properties(topic_alias=3)),
        "30 07 0000 03 23 0003 68",
    ),
    Golden(
        "publish 5.0 all properties of a client",
        5,
        SERVER,
        Publish(
            "t",
            b"p",
            1,
            packet_id=1,
            properties=properties(
                payload_format=1,
                message_expiry=60,
                content_type="c",
                response_topic="r",
                correlation_data=b"\xff",
                topic_alias=1,
                user=[("traceparent", "x")],
            ),
        ),
        "32 2e 0001 74 0001 27 01 01 02 0000003c 03 0001 63 08 0001 72 09 0001 ff 23 0001"
        " 26 000b 7472616365706172656e74 0001 78 70",
    ),
    Golden(
        "publish 5.0 subscription identifiers",
        5,
        CLIENT,
        Publish("t", b"", properties=properties(subscription_ids=[1, 128, 268435455])),
        "30 0e 0001 74 0a 0b 01 0b 8001 0b ffffff7f",
    ),
    Golden("puback 3.1.1", 4, SERVER, Ack(PUBACK, 1), "40 02 0001"),
    Golden("pubrec 3.1.1", 4, CLIENT, Ack(PUBREC, 258), "50 02 0102"),
    Golden("pubrel 3.1.1", 4, SERVER, Ack(PUBREL, 65535), "62 02 ffff"),
    Golden("pubcomp 3.1", 3, CLIENT, Ack(PUBCOMP, 1), "70 02 0001"),
    Golden("puback 5.0 short", 5, SERVER, Ack(PUBACK, 1), "40 02 0001"),
    Golden("puback 5.0 reason", 5, SERVER, Ack(PUBACK, 1, 0x10), "40 03 0001 10"),
    Golden("pubrec 5.0 reason", 5, SERVER, Ack(PUBREC, 1, 0x97), "50 03 0001 97"),
    Golden("pubrel 5.0 reason", 5, SERVER, Ack(PUBREL, 1, 0x92), "62 03 0001 92"),
    Golden(
        "pubcomp 5.0 properties",
        5,
        CLIENT,
        Ack(PUBCOMP, 1, 0x92, properties(reason_string="no")),
        "70 09 0001 92 05 1f 0002 6e6f",
    ),
    Golden(
        "puback 5.0 success, properties",
        5,
        CLIENT,
        Ack(PUBACK, 1, 0, properties(user=[("", "")])),
        "40 09 0001 00 05 26 0000 0000",
    ),
    Golden("subscribe 3.1", 3, SERVER, Subscribe(1, [Subscription("a", 1)]), "82 06 0001 0001 61 01"),
    Golden(
        "subscribe 3.1.1",
        4,
        SERVER,
        Subscribe(10, [Subscription("a/+", 1), Subscription("#", 2)]),
        "82 0c 000a 0003 612f2b 01 0001 23 02",
    ),
    Golden(
        "subscribe 5.0",
        5,
        SERVER,
        Subscribe(
            10, [Subscription("a", 1, True, True, 2), Subscription("$share/g/b", 2)], properties(subscription_ids=[300])
        ),
        "82 17 000a 03 0b ac02 0001 61 2d 000a 24 73686172652f672f62 02",
    ),
    Golden("suback 3.1.1", 4, CLIENT, SubAck(SUBACK, 10, [0, 1, 2, 128]), "90 06 000a 00 01 02 80"),
    Golden("suback 5.0", 5, CLIENT, SubAck(SUBACK, 10, [0, 0x87]), "90 05 000a 00 00 87"),
    Golden("unsubscribe 3.1.1", 4, SERVER, Unsubscribe(2, ["a", "b/#"]), "a2 0a 0002 0001 61 0003 622f23"),
    Golden(
        "unsubscribe 5.0",
        5,
        SERVER,
        Unsubscribe(2, ["a"], properties(user=[("k", "v")])),
        "a2 0d 0002 07 26 0001 6b 0001 76 0001 61",
    ),
    Golden("unsuback 3.1.1", 4, CLIENT, SubAck(UNSUBACK, 2, []), "b0 02 0002"),
    Golden("unsuback 5.0", 5, CLIENT, SubAck(UNSUBACK, 2, [0, 0x11]), "b0 05 0002 00 00 11"),
    Golden("pingreq", 4, SERVER, Ping(PINGREQ), "c0 00"),
    Golden("pingresp", 5, CLIENT, Ping(PINGRESP), "d0 00"),
    Golden("disconnect 3.1.1", 4, SERVER, Disconnect(), "e0 00"),
    Golden("disconnect 5.0", 5, SERVER, Disconnect(), "e0 00"),
    Golden("disconnect 5.0 with will", 5, SERVER, Disconnect(4), "e0 01 04"),
    Golden("disconnect 5.0 expiry", 5, SERVER, Disconnect(0, properties(session_expiry=0)), "e0 07 00 05 11 00000000"),
    Golden(
        "disconnect 5.0 of a server",
        5,
        CLIENT,
        Disconnect(0x9D, properties(server_reference="s")),
        "e0 06 9d 04 1c 0001 73",
    ),
    Golden(
        "auth 5.0", 5, SERVER, Auth(0x18, properties(auth_method="m", auth_data=b"")), "f0 09 18 07 15 0001 6d 16 0000"
    ),
    Golden("auth 5.0 success", 5, CLIENT, Auth(), "f0 00"),
]

READ_ONLY: list[Golden] = [
    Golden(
        "connect 3.1 without the user name it flags",
        3,
        SERVER,
        Connect(3, "a", True, 60),
        "10 0f 0006 4d5149736470 03 c2 003c 0001 61",
    ),
    Golden(
        "connect 3.1 with a reserved flag",
        3,
        SERVER,
        Connect(3, "a", True, 60),
        "10 0f 0006 4d5149736470 03 03 003c 0001 61",
    ),
    Golden("connack 3.1 with a reserved byte", 3, CLIENT, Connack(False, 0), "20 02 ff 00"),
    Golden("subscribe 3.1 repeated", 3, SERVER, Subscribe(1, [Subscription("a", 1)]), "8a 06 0001 0001 61 f9"),
    Golden("pubrel 3.1 repeated", 3, SERVER, Ack(PUBREL, 1), "6a 02 0001"),
    Golden("publish 3.1 QoS 0 with DUP", 3, SERVER, Publish("a", dup=True), "38 03 0001 61"),
    Golden("puback 5.0 with reason success", 5, SERVER, Ack(PUBACK, 1), "40 03 0001 00"),
    Golden("puback 5.0 with empty properties", 5, SERVER, Ack(PUBACK, 1, 0x10), "40 04 0001 10 00"),
    Golden("disconnect 5.0 with reason success", 5, SERVER, Disconnect(), "e0 01 00"),
    Golden("disconnect 5.0 with empty properties", 5, SERVER, Disconnect(0x04), "e0 02 04 00"),
]

_MQTT4 = "0004 4d515454 04"
_MQTT5 = "0004 4d515454 05"
_DEEP = hexed("/".join("a" * 129))

BROKEN: list[Broken] = [
    # The start of a connection.
    Broken("not a CONNECT", 0, SERVER, "30", 0x82),
    Broken("the start of TLS", 0, SERVER, "16 0301", 0x82),
    Broken("CONNECT with flags", 0, SERVER, "11", 0x82),
    Broken("unknown name", 0, SERVER, "10 0d 0004 4d515458 04 02 003c 0001 61", 0x84),
    Broken("name of another version", 0, SERVER, "10 0f 0006 4d5149736470 04 02 003c 0001 61", 0x84),
    Broken("level 3 with the new name", 0, SERVER, "10 0d 0004 4d515454 03 02 003c 0001 61", 0x84),
    Broken("level 6", 0, SERVER, "10 0d 0004 4d515454 06 02 003c 0001 61", 0x84),
    Broken("a bridge's level", 0, SERVER, "10 0d 0004 4d515454 84 02 003c 0001 61", 0x84),
    Broken("long name", 0, SERVER, "10 0d 0007 4d515454545454 03 02 003c", 0x84),
    Broken("CONNECT too large", 0, SERVER, "10 ffff7f", 0x95),
    Broken("reserved flag", 0, SERVER, f"10 0d {_MQTT4} 03 003c 0001 61", 0x81),
    Broken("will QoS without will", 0, SERVER, f"10 0d {_MQTT4} 0a 003c 0001 61", 0x81),
    Broken("will retain without will", 0, SERVER, f"10 0d {_MQTT4} 22 003c 0001 61", 0x81),
    Broken("will QoS 3", 0, SERVER, f"10 12 {_MQTT4} 1e 003c 0001 61 0001 77 0000", 0x81),
    Broken("will topic with wildcard", 0, SERVER, f"10 12 {_MQTT4} 06 003c 0001 61 0001 23 0000", 0x81),
    Broken("empty will topic", 0, SERVER, f"10 11 {_MQTT4} 06 003c 0001 61 0000 0000", 0x81),
    Broken("password without user name", 0, SERVER, f"10 10 {_MQTT4} 42 003c 0001 61 0001 70", 0x81),
    Broken("user name missing in 3.1.1", 0, SERVER, f"10 0d {_MQTT4} 82 003c 0001 61", 0x81),
    Broken("bytes after CONNECT's last field", 0, SERVER, f"10 0e {_MQTT4} 02 003c 0001 61 00", 0x81),
    Broken("client id beyond the packet", 0, SERVER, f"10 0d {_MQTT4} 02 003c 0002 61", 0x81),
    Broken("client id with NUL", 0, SERVER, f"10 0d {_MQTT4} 02 003c 0001 00", 0x81),
    Broken("empty client id with a kept session", 0, SERVER, f"10 0c {_MQTT4} 00 003c 0000", 0x85),
    Broken("empty client id in 3.1", 0, SERVER, "10 0e 0006 4d5149736470 03 02 003c 0000", 0x85),
    Broken("CONNECT without its properties", 0, SERVER, f"10 0a {_MQTT5} 02 003c", 0x81),
    Broken("receive maximum 0", 0, SERVER, f"10 11 {_MQTT5} 02 003c 03 21 0000 0001 61", 0x82),
    Broken("maximum packet size 0", 0, SERVER, f"10 13 {_MQTT5} 02 003c 05 27 00000000 0001 61", 0x82),
    Broken("session expiry twice", 0, SERVER, f"10 18 {_MQTT5} 02 003c 0a 11 00000001 11 00000001 0001 61", 0x82),
    Broken("request problem information 2", 0, SERVER, f"10 10 {_MQTT5} 02 003c 02 17 02 0001 61", 0x82),
    Broken("authentication data alone", 0, SERVER, f"10 11 {_MQTT5} 02 003c 03 16 0000 0001 61", 0x82),
    Broken("a server's property", 0, SERVER, f"10 10 {_MQTT5} 02 003c 02 24 01 0001 61", 0x81),
    Broken("will delay among CONNECT's", 0, SERVER, f"10 13 {_MQTT5} 02 003c 05 18 00000001 0001 61", 0x81),
    # Headers.
    Broken("type 0", 4, SERVER, "00 00", 0x81),
    Broken("AUTH before 5.0", 4, SERVER, "f0 00", 0x81),
    Broken("second CONNECT", 4, SERVER, f"10 0d {_MQTT4} 02 003c 0001 61", 0x82),
    Broken("CONNACK from a client", 4, SERVER, "20 02 0000", 0x82),
    Broken("SUBACK from a client", 4, SERVER, "90 03 000a 00", 0x82),
    Broken("UNSUBACK from a client", 4, SERVER, "b0 02 000a", 0x82),
    Broken("PINGRESP from a client", 4, SERVER, "d0 00", 0x82),
    Broken("CONNECT from a server", 4, CLIENT, f"10 0d {_MQTT4} 02 003c 0001 61", 0x82),
    Broken("SUBSCRIBE from a server", 4, CLIENT, "82 06 0001 0001 61 01", 0x82),
    Broken("UNSUBSCRIBE from a server", 4, CLIENT, "a2 05 0001 0001 61", 0x82),
    Broken("PINGREQ from a server", 4, CLIENT, "c0 00", 0x82),
    Broken("PUBACK with flags", 4, SERVER, "41 02 0001", 0x81),
    Broken("PUBREL without flags", 4, SERVER, "60 02 0001", 0x81),
    Broken("SUBSCRIBE without flags", 4, SERVER, "80 06 0001 0001 61 01", 0x81),
    Broken("SUBSCRIBE of 3.1 with QoS 0", 3, SERVER, "80 06 0001 0001 61 01", 0x81),
    Broken("UNSUBSCRIBE with flags", 5, SERVER, "a3 06 0001 00 0001 61", 0x81),
    Broken("PINGREQ with flags", 4, SERVER, "c1 00", 0x81),
    Broken("DISCONNECT with flags", 4, SERVER, "e1 00", 0x81),
    Broken("length of five bytes", 4, SERVER, "30 8080808001", 0x81),
    Broken("length longer than it need be", 4, SERVER, "c0 8000", 0x81),
    Broken("packet too large", 4, SERVER, "30 808040", 0x95),
    # PUBLISH.
    Broken("QoS 3", 4, SERVER, "36 05 0001 61 0001", 0x81),
    Broken("DUP with QoS 0", 4, SERVER, "38 03 0001 61", 0x81),
    Broken("no topic length", 4, SERVER, "30 01 00", 0x81),
    Broken("topic beyond the packet", 4, SERVER, "30 03 0002 61", 0x81),
    Broken("topic with +", 4, SERVER, "30 03 0001 2b", 0x81),
    Broken("topic with #", 5, SERVER, "30 04 0001 23 00", 0x81),
    Broken("topic with NUL", 4, SERVER, "30 03 0001 00", 0x81),
    Broken("topic with a surrogate", 4, SERVER, "30 05 0003 eda080", 0x81),
    Broken("topic with an overlong slash", 4, SERVER, "30 04 0002 c0af", 0x81),
    Broken("topic too deep", 4, SERVER, f"30 8302 {_DEEP}", 0x90),
    Broken("empty topic before 5.0", 4, SERVER, "30 02 0000", 0x81),
    Broken("empty topic without alias", 5, SERVER, "30 03 0000 00", 0x82),
    Broken("no packet identifier", 4, SERVER, "32 04 0001 61 00", 0x81),
    Broken("packet identifier 0", 4, SERVER, "32 05 0001 61 0000", 0x82),
    Broken("no properties", 5, SERVER, "30 03 0001 61", 0x81),
    Broken("properties beyond the packet", 5, SERVER, "30 05 0001 61 05 01", 0x81),
    Broken("property cut off", 5, SERVER, "30 06 0001 61 02 02 00", 0x81),
    Broken("unknown property", 5, SERVER, "30 06 0001 61 02 04 00", 0x81),
    Broken("property identifier of two bytes", 5, SERVER, "30 07 0001 61 03 8001 00", 0x81),
    Broken("property of another packet", 5, SERVER, "30 09 0001 61 05 11 00000000", 0x81),
    Broken("payload format twice", 5, SERVER, "30 08 0001 61 04 01 00 01 00", 0x82),
    Broken("payload format 2", 5, SERVER, "30 06 0001 61 02 01 02", 0x82),
    Broken("alias 0", 5, SERVER, "30 07 0001 61 03 23 0000", 0x94),
    Broken("response topic with wildcard", 5, SERVER, "30 08 0001 61 04 08 0001 23", 0x82),
    Broken("subscription identifier from a client", 5, SERVER, "30 06 0001 61 02 0b 01", 0x82),
    Broken("user property with broken UTF-8", 5, SERVER, "30 0a 0001 61 06 26 0001 ff 0000", 0x81),
    # Acknowledgements.
    Broken("PUBACK too short", 4, SERVER, "40 01 00", 0x81),
    Broken("PUBACK with identifier 0", 4, SERVER, "40 02 0000", 0x82),
    Broken("PUBACK with reason before 5.0", 4, SERVER, "40 03 0001 00", 0x81),
    Broken("PUBACK with a reason of CONNACK", 5, SERVER, "40 03 0001 84", 0x82),
    Broken("PUBREL with a reason of PUBACK", 5, SERVER, "62 03 0001 10", 0x82),
    Broken("PUBACK with bytes too many", 5, SERVER, "40 05 0001 00 00 00", 0x81),
    # SUBSCRIBE and UNSUBSCRIBE.
    Broken("SUBSCRIBE without filters", 4, SERVER, "82 02 0001", 0x82),
    Broken("SUBSCRIBE with identifier 0", 4, SERVER, "82 06 0000 0001 61 01", 0x82),
    Broken("SUBSCRIBE without options", 4, SERVER, "82 05 0001 0001 61", 0x81),
    Broken("SUBSCRIBE for QoS 3", 4, SERVER, "82 06 0001 0001 61 03", 0x82),
    Broken("reserved bits of QoS", 4, SERVER, "82 06 0001 0001 61 05", 0x81),
    Broken("reserved bits of options", 5, SERVER, "82 07 0001 00 0001 61 41", 0x81),
    Broken("retain handling 3", 5, SERVER, "82 07 0001 00 0001 61 31", 0x82),
    Broken("No Local on a shared subscription", 5, SERVER, f"82 10 0001 00 {hexed('$share/g/b')} 05", 0x82),
    Broken("subscription identifier 0", 5, SERVER, "82 09 0001 02 0b 00 0001 61 01", 0x82),
    Broken("subscription identifier twice", 5, SERVER, "82 0b 0001 04 0b 01 0b 02 0001 61 01", 0x82),
    Broken("empty filter", 4, SERVER, "82 05 0001 0000 01", 0x81),
    Broken("# inside", 4, SERVER, f"82 08 0001 {hexed('#/a')} 01", 0x81),
    Broken("+ in a level", 4, SERVER, f"82 07 0001 {hexed('a+')} 01", 0x81),
    Broken("$share without filter", 5, SERVER, f"82 0e 0001 00 {hexed('$share/g')} 01", 0x81),
    Broken("UNSUBSCRIBE without filters", 5, SERVER, "a2 03 0001 00", 0x82),
    Broken("UNSUBSCRIBE with a bad filter", 4, SERVER, f"a2 06 0001 {hexed('a#')}", 0x81),
    # What servers send.
    Broken("CONNACK with reserved flags", 4, CLIENT, "20 02 02 00", 0x81),
    Broken("CONNACK with an unknown code", 4, CLIENT, "20 02 00 06", 0x81),
    Broken("CONNACK with an unknown reason", 5, CLIENT, "20 03 00 01 00", 0x82),
    Broken("refusal with a session", 5, CLIENT, "20 03 01 87 00", 0x82),
    Broken("CONNACK with bytes too many", 4, CLIENT, "20 03 00 00 00", 0x81),
    Broken("SUBACK without codes", 5, CLIENT, "90 03 0001 00", 0x82),
    Broken("SUBACK with an unknown code", 4, CLIENT, "90 03 0001 03", 0x81),
    Broken("SUBACK with a reason of UNSUBACK", 5, CLIENT, "90 04 0001 00 11", 0x82),
    Broken("UNSUBACK of 3.1.1 with codes", 4, CLIENT, "b0 03 0001 00", 0x81),
    Broken("session expiry in a server's DISCONNECT", 5, CLIENT, "e0 07 00 05 11 00000000", 0x82),
    Broken("DISCONNECT with will from a server", 5, CLIENT, "e0 01 04", 0x82),
    # The rest.
    Broken("PINGREQ with a body", 4, SERVER, "c0 01 00", 0x81),
    Broken("DISCONNECT of 3.1.1 with a body", 4, SERVER, "e0 01 00", 0x81),
    Broken("DISCONNECT with a server's reason", 5, SERVER, "e0 01 8e", 0x82),
    Broken("AUTH without method", 5, SERVER, "f0 02 18 00", 0x82),
    Broken("AUTH with success from a client", 5, SERVER, "f0 06 00 04 15 0001 6d", 0x82),
    Broken("empty AUTH from a client", 5, SERVER, "f0 00", 0x82),
]
