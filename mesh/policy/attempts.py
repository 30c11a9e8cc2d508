"""How often wrong passwords are tried: from one address, for one user, and for one user from one address.

A forged token is a wrong password here; tokens have tables of their own. It knows addresses, names and times: never
passwords. A password that comes when too many wrong ones came before it is refused unseen, so that guessing is slow
however many connections guess. What always holds:

- each table is bounded, and so is each of its keys;
- an unknown name is treated like a known one, so that a refusal does not tell which names exist;
- a client that once gave the right password is not slowed by others that guess for its user from other addresses;
- a client that goes on with wrong passwords waits longer each time, up to ``LONGEST``;
- a client that repeats one wrong password, as after a change of the password, slows itself long before it slows the
  other clients of its address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, final

from mesh.policy.status import AttemptsStatus
from mesh.transport.buckets import ENTRIES, Buckets
from mesh.transport.origin import host_of, network_of
from mesh.transport.refusal import Refused
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED

LONGEST: Final = 300.0
"""Seconds that a client waits at most for the next look at a password."""

SHARED: Final = 50
"""How many times as much an address and a user may try where many clients share an address: a mobile network has
thousands of vehicles behind one, and a vehicle gets a new one with each drive."""

_KNOWN: Final = 60  # looks a minute for a user at an address that gave the right password there before
_SHARE: Final = 4  # one user from one address has this part of the wrong passwords of an address


@final
class Delays:
    """A delay for each key that grows with each failure: none for the first ``free`` ones, then 1 s, and twice as much
    each time, up to ``LONGEST``. A key that fails no more for as long as that is forgotten."""

    __slots__ = ("_failed", "_free")

    def __init__(self, free: int) -> None:
        self._free = free
        # Key: how often it failed, when it may try again, and when it is forgotten.
        self._failed: OrderedDict[str, tuple[int, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def allow(self, free: int) -> None:
        """Another number of failures without a delay; those that came before still count."""
        self._free = free

    def wait(self, key: str, now: float) -> float:
        """Seconds until the key may try again; 0 if it may."""
        found = self._failed.get(key)
        return 0.0 if found is None else max(0.0, found[1] - now)

    def failed(self, key: str, now: float) -> None:
        """The key has failed."""
        count, _, forgotten = self._failed.get(key, (0, now, now))
        count = 1 if forgotten <= now else count + 1
        beyond = count - self._free
        delay = 0.0 if beyond <= 0 else min(2.0 ** min(beyond - 1, 30), LONGEST)
        self._failed[key] = (count, now + delay, now + delay + LONGEST)
        self._failed.move_to_end(key)
        if len(self._failed) > ENTRIES:
            self._failed.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """The key has not failed this time: it begins anew."""
        self._failed.pop(key, None)


@final
class Attempts:
    """``most`` wrong passwords a minute are looked at from one address, and for one user; a quarter of that, at least
    one, for one user from one address. ``clock`` gives seconds.

    ``shared``: many honest clients share an address. Then an address and a user have ``SHARED`` times as much, so that
    neither a neighbour with a wrong password nor a few guessers lock a client out, and a user that gave the right
    password from an address is not slowed by the others of this address. Guesses from many networks do not lock a user
    out of one from which none came; guesses from its own address leave it a look each second.
    """

    __slots__ = (
        "_addresses", "_clock", "_delays", "_good", "_known", "_networks", "_pairs", "_shared", "_sources", "_users",
        "failures", "refusals",
    )  # fmt: skip

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic, *, shared: bool = False) -> None:
        self._clock = clock
        self._shared = shared
        self._addresses = Buckets(most, 60.0)
        self._users = Buckets(most, 60.0)
        self._pairs = Buckets(most, 60.0)
        self._networks = Buckets(most, 60.0)  # one user from one network
        self._known = Buckets(_KNOWN, 60.0)  # pairs that gave the right password before
        self._delays = Delays(most)  # of pairs
        self.allow(most)
        self._good: OrderedDict[str, None] = OrderedDict()  # pairs that gave the right password
        self._sources: dict[str, int] = {}  # how many of them each address has
        self.failures = 0
        self.refusals = 0

    def allow(self, most: int) -> None:
        """Look at ``most`` wrong passwords a minute from now on; those that came before still count."""
        of_many = SHARED * most if self._shared else most
        self._addresses.allow(of_many)
        self._users.allow(of_many)
        of_one = max(1, most // _SHARE)
        self._pairs.allow(of_one)
        self._networks.allow(of_one)
        self._delays.allow(of_one)

    def in_force(self) -> dict[str, object]:
        """Wrong passwords a minute: of an address, of a user, and of one user from one address."""
        return {"address": self._addresses.most, "user": self._users.most, "pair": self._pairs.most}

    def bars(self, address: str) -> bool:
        """Whether ``check`` refuses every name from this address at present."""
        source = host_of(address)
        if self._addresses.wait(source, self._clock()) <= 0:
            return False
        return not self._shared or source not in self._sources

    def trusts(self, address: str, name: str) -> bool:
        """Whether the user gave the right password from this address before."""
        return f"{host_of(address)} {_brief(name)}" in self._good

    def check(self, address: str, name: str) -> None:
        """Called before a password is looked at. Raises ``Refused`` with 0x9F (3 before MQTT 5.0) if too many wrong
        ones came before it."""
        wait = self._wait(address, name)
        if wait > 0:
            self.refusals += 1
            raise Refused(
                CONNECTION_RATE_EXCEEDED,
                f"too many wrong passwords or tokens came from {address or 'this machine'} or for {name!r:.80}; "
                f"the next one is looked at in {wait:.0f} s",
            )

    def _wait(self, address: str, name: str) -> float:
        """Seconds until the next password is looked at."""
        now = self._clock()
        source, user = host_of(address), _brief(name)
        pair = f"{source} {user}"
        good = pair in self._good
        if good and self._shared:
            return self._known.wait(pair, now)
        wait = max(self._pairs.wait(pair, now), self._delays.wait(pair, now), self._addresses.wait(source, now))
        if good or (self._shared and not self._networks.taken(f"{network_of(address)} {user}", now)):
            return wait
        return max(wait, self._users.wait(user, now))

    def status(self) -> AttemptsStatus:
        """The status, for ``mesh status`` and metrics."""
        return AttemptsStatus(self.failures, self.refusals)

    def failed(self, address: str, name: str) -> None:
        """The password was wrong."""
        now = self._clock()
        source, user = host_of(address), _brief(name)
        pair = f"{source} {user}"
        self.failures += 1
        self._addresses.take(source, now)
        self._users.take(user, now)
        self._pairs.take(pair, now)
        self._known.take(pair, now)
        self._networks.take(f"{network_of(address)} {user}", now)
        self._delays.failed(pair, now)

    def succeeded(self, address: str, name: str) -> None:
        """The password was right. The wrong ones before it still count: who has one password may guess others."""
        source = host_of(address)
        pair = f"{source} {_brief(name)}"
        self._delays.succeeded(pair)
        if pair in self._good:
            self._good.move_to_end(pair)
            return
        self._good[pair] = None
        self._sources[source] = self._sources.get(source, 0) + 1
        if len(self._good) > ENTRIES:
            self._forget()

    def _forget(self) -> None:
        """Forget the pair that was used least recently."""
        source = self._good.popitem(last=False)[0].rpartition(" ")[0]
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


def _brief(text: str) -> str:
    """A key of bounded size for any text."""
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
