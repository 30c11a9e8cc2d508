"""The corpus: sequences that are worth being said again, each in a small text file.

One packet a line, or several that come with one read, in hexadecimal (spaces are allowed, and ``7a*100`` is a hundred
times 7a). ``#`` begins a comment; the first one says what it is. Other lines say what happens besides: ``-`` the socket
of the client is lost, ``@b`` client b speaks from here on (at first it is client a), ``wait 60`` the clock goes so many
seconds, ``crash`` the server dies and comes back, ``repeat 100`` all of that so many times, and it is the last line. A
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

# How a sequence is said.
TURNS: Final = "a turn for each line"
AT_ONCE: Final = "all in one turn"
BYTES: Final = "byte by byte"
BEHIND: Final = "the disk is a turn behind"
NEVER: Final = "the disk is stuck"
MANNERS: Final = (TURNS, AT_ONCE, BYTES, BEHIND, NEVER)
_DISK: Final = {BEHIND: LATE, NEVER: STUCK}


def files() -> list[Path]:
    """All of the corpus."""
    return sorted(FOLDER.glob("*.hex"))


def lines(path: Path) -> list[str]:
    """The lines of a file without comments; what is to be repeated is there as often as that."""
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
    """Says the lines of one file to an engine with a neighbour."""

    def __init__(self, manner: str) -> None:
        self.world = World("corpus", edge=False, large=True)
        self._manner = manner
        self._clients: dict[str, Line] = {}
        self._speaker = "a"

    def run(self, lines: list[str]) -> None:
        """All lines, then the end of all sessions."""
        for line in lines:
            self._act(line)
            self.world.neighbour.step()
            if self._manner != AT_ONCE:
                self.world.end_turn(_DISK.get(self._manner, SYNCED))
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
            self._speaker = line[1:]
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
            self._say(packet(line))

    def _say(self, packet: bytes) -> None:
        client = self._client()
        if self._manner != BYTES:
            client.feed(packet)
            return
        for byte in packet:
            client.feed(bytes((byte,)))

    def _client(self) -> Line:
        """The connection of who speaks, a new one if it was closed."""
        client = self._clients.get(self._speaker)
        if client is None or client.closed:
            principal = Principal(self._speaker, BACKEND, everything())
            client = self._clients[self._speaker] = self.world.line(principal)
        return client
