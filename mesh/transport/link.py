"""One end of a device link: a stream that carries frames.

It knows framing, the deadline of the handshake and the signs of life: never vehicles or sessions. Door and edge derive
their ends from it. What always holds:

* frames that are sent during a turn are written at once at its end; reading never waits for writing, or two ends could
  wait for each other;
* before ``trusted`` a frame has at most ``HANDSHAKE_BODY`` bytes, then ``MAX_BODY``; the handshake has ``HANDSHAKE``
  seconds;
* an end that receives nothing for ``SILENCE`` seconds closes, and an idle end sends ALIVE, so a machine that failed is
  noticed;
* a frame that breaks the protocol ends the link with one log line.
"""

from __future__ import annotations

import logging
import time
from typing import Final, final

from mesh.broker.notices import Notices
from mesh.transport.frame import ALIVE, HANDSHAKE_BODY, LINK, MAX_BODY, Decoder, LinkError, head
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.turn import Turn
from mesh.transport.wheel import Timed

HANDSHAKE: Final = 5.0  # seconds: four small frames between machines of one site
SILENCE: Final = 15.0  # seconds: longer than a garbage collection or a slow disk takes, shorter than a vehicle waits
PULSE: Final = 3.0  # seconds between signs of life: five may get lost before the link is given up

log = logging.getLogger(__name__)
notices: Final = Notices(log.warning, time.monotonic)


@final
class Pulse(Timed):
    """Sends ALIVE on a link that has sent nothing for ``PULSE`` seconds."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def expired(self) -> None:
        """Nothing was sent for ``PULSE`` seconds."""
        self._link.send(ALIVE, LINK)
        self._link.group.wheel.watch(self, PULSE)


class Link(Stream):
    """Subclasses implement ``arrived`` and ``ended``, and call ``trust`` when the other end has proved its identity."""

    __slots__ = ("_decoder", "_out", "_pulse", "name", "trusted", "turn")

    def __init__(self, name: str, group: StreamGroup, turn: Turn) -> None:
        super().__init__(group)
        self.name = name
        self.turn = turn
        self.trusted = False
        self._decoder = Decoder(HANDSHAKE_BODY)
        self._out: list[bytes] = []
        self._pulse = Pulse(self)

    # For subclasses

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        """A frame came. ``LinkError`` ends the link."""
        raise NotImplementedError

    def ended(self) -> None:
        """The link is closed, by either end."""

    # For users

    def send(self, kind: int, connection: int, body: bytes = b"") -> None:
        """Send a frame at the end of this turn."""
        out = self._out
        if not out:
            self.turn.mark(self)
        out.append(head(kind, connection, len(body)))
        if body:
            out.append(body)

    def flush(self) -> None:
        """Write the frames of this turn."""
        out = self._out
        if out:
            self._out = []
            self._pulse.heard = self.group.wheel.now
            self.write(b"".join(out))

    def trust(self) -> None:
        """The other end has proved its identity."""
        self.trusted = True
        self._decoder.max_body = MAX_BODY
        self.group.wheel.watch(self, SILENCE)
        self.group.wheel.watch(self._pulse, PULSE)

    def fail(self, why: object) -> None:
        """End the link with a line in the log."""
        if not self.finishing:
            notices.warn("link", "%s: device link with %s closed: %s", self.name, self.peer, why)
            self.abort()

    # Stream

    def opened(self) -> None:
        self.group.wheel.watch(self, HANDSHAKE)

    def received(self, data: bytes) -> None:
        if self.trusted:
            self.heard = self.group.wheel.now  # before that, single bytes must not extend the deadline
        try:
            for kind, connection, body in self._decoder.feed(data):
                if kind != ALIVE:
                    self.arrived(kind, connection, body)
        except LinkError as error:
            self.fail(error)

    def expired(self) -> None:
        if self.trusted and self.holds:
            self.group.wheel.watch(self, SILENCE)  # nothing can arrive: this end does not read
        elif self.trusted:
            self.fail(f"nothing was received for {SILENCE:g} s")
        else:
            self.fail(f"the handshake did not end within {HANDSHAKE:g} s")

    def lost(self, error: Exception | None) -> None:
        self.group.wheel.forget(self._pulse)
        self._out = []
        self.ended()
