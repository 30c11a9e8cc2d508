"""Bytes that are no MQTT, announce what never comes, or are forbidden to a client: each ends its own connection only.

Known from other brokers: CVE-2017-7651, CVE-2023-0809, CVE-2026-21888, CVE-2021-34432, CVE-2021-28166.
"""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Connack
from tests.attacks.attack import Attack
from tests.attacks.raw import Raw, hello

ROUNDS: Final = 300
FIRST: Final = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
    "TLS": bytes.fromhex("160301010001000000fc0303") + bytes(50),
    "PUBLISH first": b"\x30\x05\x00\x01ahi",
    "a length of 256 MB": b"\x10\xff\xff\xff\x7f",
    "a length of five bytes": b"\x10\xff\xff\xff\xff\x01",
    "PINGREQ first": b"\xc0\x00",
    "an unknown protocol": b"\x10\x0c\x00\x04MQTX\x05\x02\x00\x00\x00\x00",
    "zeros": bytes(100),
}
LATER: Final = {
    "a second CONNECT": encode(hello("again", "attacker"), MQTT5),
    "CONNACK": encode(Connack(), MQTT5),
    "an empty topic": b"\x30\x05\x00\x00\x00hi",
    "a topic with #": b"\x30\x06\x00\x01#\x00hi",
    "QoS 3": b"\x36\x07\x00\x01a\x00\x01\x00x",
    "a packet of type 0": b"\x00\x00",
    "an identifier of 0": b"\x32\x06\x00\x01a\x00\x00\x00",
    "a SUBSCRIBE without filters": b"\x82\x03\x00\x01\x00",
    "text that is not UTF-8": b"\x30\x06\x00\x02\xc3\x28\x00x",
    "a length of 256 MB": b"\x30\xff\xff\xff\x7f",
}


@final
class WrongPackets(Attack):
    about: ClassVar[str] = f"{ROUNDS} rounds of {len(FIRST) + len(LATER)} kinds of bytes that no client may send"

    async def run(self) -> None:
        for _ in range(self.full(ROUNDS)):
            for what, data in FIRST.items():
                for address in (self.target.door, self.target.core):
                    async with await Raw.dial(address) as raw:
                        raw.say(data)
                        assert await raw.closed(), f"{what} does not end the connection"
                        self.count("connections ended")
            for what, data in LATER.items():
                async with await self.vehicle("wrong") as raw:
                    raw.say(data)
                    assert await raw.closed(), f"{what} does not end the connection"
                    self.count("connections ended")
