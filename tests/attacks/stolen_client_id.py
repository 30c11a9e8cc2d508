"""Another valid login uses the client id of a vehicle, to take over its session and read its queue (mosquitto#3553)."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import Connack, Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all
from tests.attacks.raw import Raw

ATTEMPTS: Final = 500


@final
class StolenClientId(Attack):
    about: ClassVar[str] = (
        f"{ATTEMPTS} logins as another vehicle, with the client id of a vehicle that has messages waiting"
    )

    async def run(self) -> None:
        topic = self.target.topic("cmd/secret")
        async with await self.vehicle("victim", expiry=600) as raw:
            raw.say(Subscribe(1, [Subscription(topic, 1)]))
            await raw.find(SubAck)
        async with await self.backend("sender") as sender:
            await publish_all(sender, (Publish(topic, b"secret", 1) for _ in range(10)))
        for number in range(self.full(ATTEMPTS)):
            async with await Raw.dial(self.target.door) as thief:
                answer = await thief.connect("victim", f"thief-{number}", clean=False)
                self.note(answer)
                present = isinstance(answer, Connack) and answer.session_present
                assert not present, "another vehicle's session is present"
                assert not isinstance(await thief.next(0.01), Publish), "another vehicle's message came"
        async with await self.vehicle("victim", clean=False) as raw:
            arrived = 0
            while arrived < 10 and isinstance(await raw.next(5.0), Publish):
                arrived += 1
            self.count("messages that the vehicle still got", arrived)
            assert arrived == 10, "messages of the vehicle are missing"
