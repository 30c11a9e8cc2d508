"""The packets during whose handling this edge's process ended: which are suspected, and which are refused.

It knows how the last process ended, its breadcrumb and one file in the node's folder: never links or sessions. The
rules:

*The first death* may be an accident. The front door repeats the packet to the next process, which handles it.

*The second death* condemns the packet: it is refused. Its connection is not attached, and later connections of the same
client are closed when they send the packet.

*A kill from outside* does not count, nor does the end of a process that handled no frame.

What always holds: the file is written before the process handles a frame; a packet that cannot be told apart from
another (too little of it was kept) counts as the same one on the same connection only; at most ``MOST`` packets are
remembered, for ``ACCIDENT`` seconds after one death and ``CONDEMNED`` seconds after more.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from mesh.edge.breadcrumb import Crumb
from mesh.edge.fingerprint import examine
from mesh.node.ending import Ended

DEATHS: Final = 2

MOST: Final = 64

# Seconds. A packet that ends the process does so again within a minute: as soon as the door has repeated it.
ACCIDENT: Final = 3600.0
# Seconds. Long enough that a client which repeats the packet ends its edge twice a day at most, and short enough that
# the packet is accepted soon after the fault in the program is mended.
CONDEMNED: Final = 86_400.0

log = logging.getLogger(__name__)


@final
@dataclass(slots=True)
class Suspect:
    """One packet. ``door``, ``instance`` and ``connection`` are those of the last death; ``vehicle`` and ``client``
    are empty until the connection is attached again; ``packet`` is the name of its type; ``fingerprint`` is empty if
    too little of the packet was kept; ``at`` is the time of the last death, in seconds since 1970."""

    door: str
    instance: str
    connection: int
    packet: str
    fingerprint: str
    at: float
    deaths: int = 1
    vehicle: str = ""
    client: str = ""

    @property
    def condemned(self) -> bool:
        """Whether the packet is refused."""
        return self.deaths >= DEATHS

    def same(self, other: Suspect) -> bool:
        """Whether both are the same packet."""
        if self.fingerprint and other.fingerprint:
            known = self.vehicle != "" and self.owner == other.owner
            return self.fingerprint == other.fingerprint and (known or self.of(other))
        return self.packet == other.packet and self.of(other)

    def of(self, other: Suspect) -> bool:
        """Whether both came over the same connection."""
        return (self.connection, self.instance) == (other.connection, other.instance)

    @property
    def owner(self) -> tuple[str, str]:
        """Vehicle and client id."""
        return self.vehicle, self.client


@final
class Suspects:
    """``path`` is the file; ``None`` remembers nothing beyond this process."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._found = self._load()
        self._forget()

    def __bool__(self) -> bool:
        return bool(self._found)

    def blame(self, ended: Ended | None, crumb: Crumb | None) -> Suspect | None:
        """Record how the process before this one ended. Returns the packet that it handled, if that counts as a
        death."""
        if ended is None or crumb is None or not ended.responsible or ended.token != crumb.token:
            return None
        packet, fingerprint = examine(crumb)
        fresh = Suspect(crumb.door, crumb.instance.hex(), crumb.connection, packet, fingerprint, self._clock())
        self._add(fresh)
        self._save()
        log.error(
            "the last process: %s; it handled a %s of connection %d of front door %s (death %d of %d)",
            ended.what, packet, crumb.connection, crumb.door, fresh.deaths, DEATHS,
        )  # fmt: skip
        return fresh

    def meet(self, instance: bytes, connection: int, vehicle: str, client: str) -> Suspect | None:
        """A connection is opened or attached: note vehicle and client of its suspected packets. Returns the packet
        that is condemned."""
        self._forget()
        mine = [it for it in self._found if it.connection == connection and it.instance == instance.hex()]
        for it in mine:
            if it.vehicle:
                continue
            it.vehicle, it.client = vehicle, client
            self._add(it)
            self._save()
            if it.condemned:
                continue
            log.warning(
                "the last process ended while it handled a %s of vehicle %s, client %r: if that happens again, this "
                "connection is closed", it.packet, vehicle, client,
            )  # fmt: skip
        return next((it for it in mine if it.condemned), None)

    def condemned(self, vehicle: str, client: str) -> frozenset[str]:
        """The fingerprints of the packets of a client that are refused."""
        owner = vehicle, client
        refused = [it for it in self._found if it.condemned and it.owner == owner]
        return frozenset(it.fingerprint for it in refused if it.fingerprint)

    @property
    def detail(self) -> str:
        """One sentence on the last packet that was condemned; empty if there is none."""
        last = max((it for it in self._found if it.condemned), key=lambda it: it.at, default=None)
        if last is None:
            return ""
        whose = f"vehicle {last.vehicle}" if last.vehicle else f"connection {last.connection} of {last.door}"
        return f"its process ended {last.deaths} times in the handling of a {last.packet} of {whose}, which is refused"

    def _add(self, fresh: Suspect) -> None:
        """Add a packet, or its deaths if it is known."""
        self._found = [it for it in self._found if it is not fresh]
        for it in self._found:
            if it.same(fresh):
                fresh.deaths += it.deaths
                fresh.fingerprint = fresh.fingerprint or it.fingerprint
                fresh.vehicle, fresh.client = fresh.vehicle or it.vehicle, fresh.client or it.client
                self._found.remove(it)
                break
        self._found.append(fresh)
        del self._found[:-MOST]

    def _forget(self) -> None:
        now = self._clock()
        self._found = [it for it in self._found if now - it.at < (CONDEMNED if it.condemned else ACCIDENT)]

    def _load(self) -> list[Suspect]:
        if self._path is None:
            return []
        try:
            return [Suspect(**value) for value in json.loads(self._path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read and is replaced: %s", self._path, error)
            return []

    def _save(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(".draft")
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as text:
                json.dump([asdict(it) for it in self._found], text)
            draft.replace(self._path)
        except OSError as error:
            log.error("%s cannot be written: a packet may end this process more than twice: %s", self._path, error)
