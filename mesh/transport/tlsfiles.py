"""The files of one listener with TLS, read again when they change.

It knows files, when they changed, and which connections their change ends: never what connections carry. What always
holds:

* new files take effect together, for new handshakes; files that cannot be used leave the old ones in force, and a log
  line, the status and a metric say so until they can be used;
* a change of the lists of revoked certificates alone keeps the contexts, so clients may still resume their sessions;
* within a second after a change, or after the end of its certificate, an open connection whose client certificate is no
  longer accepted ends, also if it is because its authority is no longer in ``ca``; no other one does;
* the files are read in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

from mesh.broker.peer import TlsFacts
from mesh.transport.accept import Figures, Gate, Refusal
from mesh.transport.certificates import DAY, UNREADABLE, day_of
from mesh.transport.listen import NONE, TlsFiles
from mesh.transport.status import CertificateStatus, TlsStatus
from mesh.transport.stream import Stream
from mesh.transport.tlscontext import Contexts, load, load_trust
from mesh.transport.trust import UNTRUSTED
from mesh.wire.reasons import NOT_AUTHORIZED

PERIOD: Final = 0.5  # seconds between two looks at the files
WARNING: Final = 30.0  # days before the end of a certificate
_LOOKED_AT: Final = 1024  # connections that are looked at in one turn
_TRACED: Final = 64  # connections whose signers are looked for in one turn; some 10 ms
_ENDED: Final = 64  # connections that end in one turn

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int, int]


@final
class WatchedTls(Gate):
    """``name`` is the listener's; ``protocol`` the ALPN name. ``streams`` returns the open connections of the
    listener. Call ``read`` first, then ``start``."""

    def __init__(
        self, name: str, files: TlsFiles, protocol: str, streams: Callable[[], Iterable[Stream]], figures: Figures
    ) -> None:
        self.files = files
        self.figures = figures
        self.fault = ""  # why the present files cannot be used
        self._name = name
        self._protocol = protocol
        self._streams = streams
        self._contexts: Contexts | None = None
        self._stamps: dict[Path, Stamp | None] = {}
        self._earliest = math.inf  # the end of the first client certificate of an open connection
        self._task: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Read the files for the first time. A certificate that has expired is used, loudly: a node that starts must
        not fail, as it has other listeners. Raises ``Unusable``; ``NotPrivate``, ``OSError``."""
        self._stamps, self._contexts = await asyncio.to_thread(self._read, False)

    def start(self) -> None:
        """Watch the files from now on, and check the connections that are open already."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=f"certificates of {self._name}")

    def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # Gate

    @property
    def context(self) -> ssl.SSLContext:
        return self._present().first

    @property
    def cost(self) -> float:
        return self._present().cost

    def admit(self, session: ssl.SSLObject) -> TlsFacts:
        contexts = self._present()
        trust = contexts.trust
        try:
            facts = trust.facts(session)
            why = trust.refusal(facts)
            # Of a handshake that began when other authorities were in force.
            if not why and facts.fingerprint and session.context not in contexts.every and not trust.vouches(session):
                why = UNTRUSTED
        except UNREADABLE as error:
            raise Refusal(f"its certificate cannot be read: {error}") from None
        if why:
            raise Refusal(why)
        if facts.fingerprint and facts.not_after < self._earliest:
            self._earliest = facts.not_after
        return facts

    # Status

    def status(self) -> TlsStatus:
        contexts, figures, now = self._present(), self.figures, time.time()
        return TlsStatus(
            figures.begun, figures.done, figures.resumed, figures.failed, bool(self.fault), contexts.trust.count,
            tuple([CertificateStatus(str(one.file), (one.not_after - now) / DAY) for one in contexts.dated]),
        )  # fmt: skip

    def detail(self) -> str:
        if self.fault:
            return f"{self._name}: the new files are not in force: {self.fault}"
        now = time.time()
        contexts = self._present()
        for one in contexts.dated:
            left = (one.not_after - now) / DAY
            if left <= 0:
                return f"{self._name}: a certificate of {one.file} expired on {day_of(one.not_after)}"
            if left < WARNING:
                return f"{self._name}: a certificate of {one.file} expires in {int(left)} days"
        return contexts.trust.stale and f"{self._name}: {contexts.trust.stale}"

    # Internal

    def _present(self) -> Contexts:
        assert self._contexts is not None, "the files were read"
        return self._contexts

    async def _watch(self) -> None:
        if self.detail():
            log.warning("%s", self.detail())
        await self._check(traced=True)  # they may have come when other authorities were in force
        while True:
            await asyncio.sleep(PERIOD)
            try:
                known = self._present().trust.authorities
                changed = await self._look()
                if changed or time.time() >= self._earliest:
                    await self._check(traced=not known <= self._present().trust.authorities)
            except Exception:
                log.exception("%s: its certificates could not be looked at", self._name)

    async def _look(self) -> bool:
        """Read the files if they have changed. Returns whether others are in force."""
        stamps = await asyncio.to_thread(stamps_of, self.files)
        if stamps == self._stamps:
            return False
        listed = self.files.crl
        lists_only = all(stamps[file] == self._stamps[file] for file in stamps if file != listed) and not self.fault
        try:
            self._stamps, contexts = await asyncio.to_thread(self._read_lists if lists_only else self._read)
        except OSError as error:
            self._stamps = stamps
            self.fault = error.strerror or str(error)
            log.error("%s: the files that changed cannot be used, so the old ones stay in force: %s", self._name,
                      self.fault)  # fmt: skip
            return False
        self.fault = ""
        self._contexts = contexts
        log.info("%s: certificates read again: %s", self._name, ", ".join(
            f"{one.file} is valid until {day_of(one.not_after)}" for one in contexts.dated
        ))  # fmt: skip
        return True

    def _read(self, valid: bool = True) -> tuple[dict[Path, Stamp | None], Contexts]:
        stamps = stamps_of(self.files)  # first: a change while they are read is seen the next time
        return stamps, load(self.files, self._protocol, valid)

    def _read_lists(self) -> tuple[dict[Path, Stamp | None], Contexts]:
        stamps = stamps_of(self.files)
        return stamps, self._present().revised(load_trust(self.files))

    async def _check(self, traced: bool) -> None:
        """End the open connections whose certificates are not accepted now. ``traced``: look for those who signed them,
        as fewer authorities may be in force."""
        if self.files.client == NONE:
            return
        self._earliest = math.inf
        most = _TRACED if traced else _LOOKED_AT
        ended = 0
        for number, stream in enumerate(list(self._streams()), 1):
            facts = stream.peer.tls
            if facts is not None and facts.fingerprint and not stream.finishing:
                ended += self._checked(stream, facts, traced)
            if number % most == 0 or ended >= _ENDED:
                ended = 0
                await asyncio.sleep(0)

    def _checked(self, stream: Stream, facts: TlsFacts, traced: bool) -> bool:
        """Returns whether the connection ends."""
        why = self._present().trust.refusal(facts)
        try:
            if not why and traced and not self._vouched(stream):
                why = UNTRUSTED
            if not why:
                self._earliest = min(self._earliest, facts.not_after)
                return False
            stream.expel(NOT_AUTHORIZED, why)
        except Exception:
            log.exception("%s: the connection of %s could not be ended", self._name, stream.peer)
        return True

    def _vouched(self, stream: Stream) -> bool:
        if stream.transport is None:
            return True  # it has ended
        session = stream.transport.get_extra_info("ssl_object")
        try:
            return self._present().trust.vouches(session)
        except UNREADABLE:
            return False


def stamps_of(files: TlsFiles) -> dict[Path, Stamp | None]:
    """What changes when a file changes; ``None`` for a file that cannot be reached."""
    return {file: _stamp(file) for file in files.files()}


def _stamp(file: Path) -> Stamp | None:
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode
