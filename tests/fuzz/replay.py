"""The corpus: sequences that are replayed in every run, each in a small text file.

A line is one packet, or several that come with one read, in hexadecimal (spaces are allowed, and ``7a*100`` is 7a a
hundred times). ``#`` begins a comment; the first comment describes the file. Other lines are events: ``-`` the socket
of the client is lost, ``@b`` client b sends from here on (at first client a does), ``wait 60`` the clock advances 60
seconds, ``crash`` the server dies and restarts, ``repeat 100`` (the last line) runs all lines before it 100 times. A
client whose connection was closed connects with its next packet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mesh.broker.principal import BACKEND, Principal, everything
from tests.fuzz import sizes
from tests.fuzz.line import Line
from tests.fuzz.target_engine import LATE, STUCK, SYNCED, World

FOLDER: Final = Path(__file__).with_name("corpus")

# How a sequence is sent.
TURNS: Final = "a turn for each line"
AT_ONCE: Final = "all in one turn"
BYTES: Final = "byte by byte"
BEHIND: Final = "the disk is a turn behind"
NEVER: Final = "the disk is stuck"
MODES: Final = (TURNS, AT_ONCE, BYTES, BEHIND, NEVER)
_DISK: Final = {BEHIND: LATE, NEVER: STUCK}


def files() -> list[Path]:
    """The files of the corpus."""
    return sorted(FOLDER.glob("*.hex"))


def lines(path: Path) -> list[str]:
    """The lines of a file without comments, with repetitions written out."""
    found: list[str] = []
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("repeat "):
            found *= int(text.removeprefix("repeat "))
        elif text:
            found.append(text)
    return found


def packet(line: str) -> bytes:
    """The bytes of a line."""
    found = b""
    for part in line.split():
        data, _, count = part.partition("*")
        found += bytes.fromhex(data) * int(count or 1)
    return found


class Replay:
    """Sends the lines of one file to a broker with a neighbour."""

    def __init__(self, mode: str) -> None:
        self.world = World("corpus", edge=False, large=True)
        self._mode = mode
        self._clients: dict[str, Line] = {}
        self._sender = "a"

    def run(self, lines: list[str]) -> None:
        """Run all lines, then end all sessions."""
        for line in lines:
            self._act(line)
            self.world.neighbour.step()
            if self._mode != AT_ONCE:
                self.world.end_turn(_DISK.get(self._mode, SYNCED))
        self.world.end_turn()
        world = self.world
        sizes.check(world.broker, world.store)
        sizes.check_timers(world.broker)
        for client in self._clients.values():
            client.lose()
        world.finish()

    def _act(self, line: str) -> None:
        world = self.world
        if line.startswith("@"):
            self._sender = line[1:]
        elif line == "-":
            self._client().lose()
        elif line == "crash":
            world.end_turn()
            self._clients.clear()
            world.crash()
        elif line.startswith("wait "):
            world.clock.now += float(line.removeprefix("wait "))
            world.broker.tick()
        else:
            self._send(packet(line))

    def _send(self, packet: bytes) -> None:
        client = self._client()
        if self._mode != BYTES:
            client.feed(packet)
            return
        for byte in packet:
            client.feed(bytes((byte,)))

    def _client(self) -> Line:
        """The connection of the current client; a new one if it was closed."""
        client = self._clients.get(self._sender)
        if client is None or client.closed:
            principal = Principal(self._sender, BACKEND, everything())
            client = self._clients[self._sender] = self.world.line(principal)
        return client
