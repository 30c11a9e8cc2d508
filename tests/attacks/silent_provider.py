"""A provider of identities that answers after 5 s, or never, while hundreds of vehicles wait for it."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from tests.attacks.attack import Asked, Attack
from tests.attacks.raw import Raw

WAITING: Final = 500
SECONDS: Final = 15.0
_LATE: Final = 5.0  # seconds until half of the questions are answered
_AGAIN: Final = 0.5  # seconds until a vehicle that was refused comes again
_ALLOW: Final = b'{"result": "allow"}'
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ALLOW), _ALLOW)
)


@final
class SilentProvider(Attack):
    about: ClassVar[str] = (
        f"the server that says who vehicles are answers half of its questions after {_LATE:g} s and the others never,"
        f" while {WAITING} vehicles wait for it and come again when they are refused; for {SECONDS:g} s"
    )

    async def run(self) -> None:
        asked = self.target.asked
        if asked is None:
            self.count("vehicles that were asked for: none, as the mesh asks no such server")
            return
        server = await asyncio.start_server(self._answer, *asked.server)
        try:
            async with asyncio.timeout(2 * SECONDS), asyncio.TaskGroup() as tasks:
                vehicles = [
                    tasks.create_task(self._vehicle(asked, number)) for number in range(self.full(WAITING))
                ]
                await asyncio.sleep(SECONDS * self.size)
                for one in vehicles:
                    one.cancel()
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count("questions")
        try:
            if self.seen["questions"] % 2:
                await asyncio.sleep(_LATE)
                writer.write(_ANSWER)
            await reader.read()  # until the mesh gives up
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _vehicle(self, asked: Asked, number: int) -> None:
        while True:
            async with await Raw.dial(asked.listener) as raw:
                answer = await raw.connect(f"waits-{number}", f"waits-{number}")
                self.note(answer)
                if answer is not None and not answer.reason:
                    self.count("vehicles that were admitted")
            await asyncio.sleep(_AGAIN)
