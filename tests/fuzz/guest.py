"""A client that sends a fuzzed sequence through a socket, and checks the answers."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.frames import Framer
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, PINGREQ, PINGRESP, Connect, Ping
from tests.fuzz.mutate import mutate_bytes, pieces
from tests.fuzz.peer import BURSTS, DISCONNECT, encoded_answer
from tests.fuzz.sequences import Sequence
from tests.fuzz.watch import Breach, Watch

_GIVES_UP: Final = 0.3  # seconds without an answer; an incomplete packet never gets one
_FLYING: Final = 0xFFFF
_PING: Final = encode(Ping(PINGREQ), MQTT5)


class Wire(asyncio.Protocol):
    """One connection. ``reactions`` are acknowledgements to send; ``breach`` is the rule that the server broke."""

    def __init__(self, dice: Random, sequence: Sequence) -> None:
        self._dice = dice
        self._sequence = sequence
        self._mine = Reader(PacketLimits(), SERVER)  # the server's view of the bytes sent here
        self._theirs = Framer(PacketLimits().max_packet_size + 1024)
        self._watch: Watch | None = None
        self._pongs = 0
        self._event = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self.reactions: list[bytes] = []
        self.breach: Breach | None = None
        self.closed = False
        self.handled = 0
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._event.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._hear(self._theirs.feed(data))
        except Breach as breach:
            self.breach = breach
        self._event.set()

    def _hear(self, raws: list[bytes]) -> None:
        watch = self._watch
        if self._theirs.error is not None:
            raise Breach(f"the server's bytes are not packets: {self._theirs.error}")
        if watch is None or not raws:
            return  # the server refused something other than CONNECT
        for packet in watch.heard(raws):
            if isinstance(packet, Ping) and packet.type == PINGRESP:
                self._pongs += 1
            answer = encoded_answer(packet, watch.protocol)
            if answer and self._dice.random() < self._sequence.polite:
                self.reactions.append(answer if self._dice.random() < 0.98 else mutate_bytes(self._dice, answer))

    def say(self, data: bytes) -> None:
        """Send bytes, in pieces or whole, after telling the watch."""
        for packet in self._mine.feed(data):
            self.handled += 1
            if isinstance(packet, Connect):
                self._watch = Watch(packet, _FLYING, crossing=True)
            elif self._watch is not None:
                self._watch.said(packet)
        if self._mine.error is not None and not self.refused:
            self.refused = 1
            if self._watch is not None:
                self._watch.lost_track()
        assert self.transport is not None
        for piece in pieces(self._dice, data):
            self.transport.write(piece)

    async def answered(self) -> bool:
        """Send PINGREQ and wait until the server has read all; ``False`` if there is no answer."""
        before = self._pongs
        self.say(_PING)
        try:
            async with asyncio.timeout(_GIVES_UP):
                while self._pongs == before and not self.closed:
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            return False
        return not self.closed


class Guest:
    """Sends one sequence, over as many connections as it needs."""

    def __init__(self, dice: Random, sequence: Sequence, port: int) -> None:
        self._dice = dice
        self._sequence = sequence
        self._port = port
        self._at = 0
        self.sent = 0
        self.handled = 0
        self.refused = 0
        self.connections = 0
        self.said: list[bytes] = []

    async def run(self) -> None:
        """Send the sequence. Raises ``Breach``."""
        packets = self._sequence.packets
        while self._at < len(packets):
            wire = await self._connect()
            try:
                await self._talk(wire)
            finally:
                self.handled += wire.handled
                self.refused += wire.refused
                assert wire.transport is not None
                if self._dice.random() < 0.5:
                    wire.transport.abort()
                else:
                    wire.transport.close()
            if wire.breach is not None:
                raise wire.breach

    async def _connect(self) -> Wire:
        self.connections += 1
        self.said.clear()
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: Wire(self._dice, self._sequence), "127.0.0.1", self._port)
        if self._sequence.packets[self._at][:1] != b"\x10":
            wire.reactions.append(self._sequence.hello)
        return wire

    async def _talk(self, wire: Wire) -> None:
        """Send until the sequence or the connection ends."""
        packets = self._sequence.packets
        while self._at < len(packets) and wire.breach is None:
            burst, wire.reactions = wire.reactions, []
            end = min(self._at + self._dice.choice(BURSTS), len(packets))
            for at in range(self._at, end):
                if packets[at][:1] == DISCONNECT:
                    end = at + 1
                    break
            burst += packets[self._at : end]
            self._at = end
            self.sent += len(burst)
            self.said += burst
            wire.say(b"".join(burst))
            if not await wire.answered():
                return
