"""The packets of back ends and nodes in whose handling this node's process has ended.

Back ends and the tier links of cores send a packet again by themselves until it is answered. So a packet that ends the
process would end the next one, for ever. It knows how the last process ended, what its trail says, and one
file in the node's folder: never connections or sessions. The rules:

*No trail at first.* To note each read costs a back end that sends one message at a time a fifth of its publish. So a
process has a trail only if a process before it has crashed or hung in the last ``ACCIDENT`` seconds.

*The first death* may be an accident: its packet is not known, or it is suspected.

*The second death*, of which the trail says the packet, condemns it: the packet is not handled again, but put aside.

*A kill from outside* does not count.

What always holds: the file is written before the process handles a packet; each process is counted once; at most
``MOST`` packets are remembered, for ``ACCIDENT`` seconds after one death and ``CONDEMNED`` seconds after more.
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

from mesh.node.block import lay_block, read_block, remove_block
from mesh.node.ending import Ended, last_ending, process_token
from mesh.transport.trail import BLOCK, Footprint, Trail, read_trail

DEATHS: Final = 2

MOST: Final = 64
ACCIDENT: Final = 3600.0
CONDEMNED: Final = 86_400.0

_TRAIL: Final = "trail"
_FILE: Final = "poison.json"

log = logging.getLogger(__name__)


@final
@dataclass(slots=True)
class Suspect:
    """One packet, as in ``Footprint``; without a fingerprint it is not known, and may be any. ``at``: the time of the
    last death, in seconds since 1970; ``token`` identifies the process that died."""

    source: str
    packet: str
    fingerprint: str
    at: float
    deaths: int = 1
    token: str = ""

    @property
    def condemned(self) -> bool:
        """Whether the packet is not handled again."""
        return self.deaths >= DEATHS


@final
class Poison:
    """``folder`` is the node's."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        now = clock()
        self._found = [it for it in self._load() if now - it.at < (CONDEMNED if it.condemned else ACCIDENT)]

    def __bool__(self) -> bool:
        """Whether a process died not long ago, so that this one notes which packet it handles."""
        return bool(self._found)

    def blame(self, ended: Ended | None, left: Footprint | None) -> None:
        """Take note of how the process before this one ended, and of the packet that it handled, if that is known."""
        if ended is None or not ended.responsible or any(it.token == ended.token for it in self._found):
            return
        if left is None or left.token != ended.token:
            left = Footprint(ended.token, "", "", "")
        fresh = Suspect(left.source, left.packet, left.fingerprint, self._clock(), token=ended.token)
        self._add(fresh)
        self._save()
        if not fresh.fingerprint:
            of = f" ({left.packet or 'a packet'} of {left.source})" if left.source else ""
            log.error("the last process: %s; the message that it handled is not known; this process notes each one%s",
                      ended.what, of)  # fmt: skip
            return
        log.error(
            "the last process: %s; it handled a %s of %s (death %d of %d)%s",
            ended.what, fresh.packet, fresh.source, fresh.deaths, DEATHS,
            ": it is not handled again" if fresh.condemned else "",
        )  # fmt: skip

    def _add(self, fresh: Suspect) -> None:
        """Add a packet, or its deaths if it is known. An unknown packet before it was the same one."""
        for it in self._found:
            if it.fingerprint == fresh.fingerprint or not it.fingerprint:
                fresh.deaths += it.deaths if fresh.fingerprint else 0
                self._found.remove(it)
                break
        self._found = [*self._found, fresh][-MOST:]

    @property
    def condemned(self) -> frozenset[str]:
        """The fingerprints of the packets that are not handled again."""
        return frozenset(it.fingerprint for it in self._found if it.condemned and it.fingerprint)

    def _load(self) -> list[Suspect]:
        path = self._folder / _FILE
        try:
            return [Suspect(**value) for value in json.loads(path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read and is replaced: %s", path, error)
            return []

    def _save(self) -> None:
        path = self._folder / _FILE
        draft = path.with_suffix(".draft")
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as text:
                json.dump([asdict(it) for it in self._found], text)
            draft.replace(path)
        except OSError as error:
            log.error("%s cannot be written: a packet may end this process more than twice: %s", path, error)


def begin_trail(folder: Path, explained: bool = False) -> Trail | None:
    """The trail of this process, which knows what the processes before it died of. ``None`` if none died not long ago,
    or there is no room for a trail. ``folder`` is the node's; ``explained``: it is known what the last one died of."""
    poison = Poison(folder)
    if not explained:
        poison.blame(last_ending(folder), read_trail(read_block(folder / _TRAIL)))
    if not poison:
        return None
    try:
        trail = Trail(lay_block(folder / _TRAIL, BLOCK), process_token())
    except OSError as error:
        log.warning("a packet that ends this process will not be found: %s", error)
        return None
    trail.refused = poison.condemned
    return trail


def end_trail(folder: Path) -> None:
    """The process stops in order."""
    remove_block(folder / _TRAIL)
