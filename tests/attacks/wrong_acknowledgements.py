"""Acknowledgements that do not fit their messages: each ends the connection, and none ends a message."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all

ROUNDS: Final = 500


@final
class WrongAcknowledgements(Attack):
    about: ClassVar[str] = f"a vehicle answers a message {ROUNDS} times with an acknowledgement of another exchange"

    async def run(self) -> None:
        topic = self.target.topic("cmd/wrong")
        async with await self.vehicle("acks", expiry=600) as raw, await self.backend("acks") as sender:
            raw.say(Subscribe(1, [Subscription(topic, 1)]))
            await raw.find(SubAck)
            await publish_all(sender, [Publish(topic, b"kept", 1)])
        for number in range(self.full(ROUNDS)):
            async with await self.vehicle("acks", clean=False, expiry=600) as raw:
                packet = await raw.find(Publish)
                assert packet is not None, "the message is gone"
                raw.say(Ack((PUBREC, PUBCOMP)[number % 2], packet.packet_id))
                assert await raw.closed(), "a wrong acknowledgement does not end the connection"
                self.count("connections ended")
        async with await self.vehicle("acks", clean=False) as raw:
            packet = await raw.find(Publish)
            assert packet is not None, "the message is gone"
            raw.say(Ack(PUBACK, packet.packet_id))
            await raw.flush()
