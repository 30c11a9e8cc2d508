"""How often wrong passwords are tried: from one address, for one user, and for one user from one address.

It knows addresses, names and times: never passwords. A password that comes when too many wrong ones came before it is
refused unseen, so that guessing is slow however many connections guess. What always holds:

- each table is bounded, and so is each of its keys;
- an unknown name is treated like a known one, so that a refusal does not tell which names exist;
- a client that once gave the right password is not slowed by others that guess for its user from other addresses;
- a client that repeats one wrong password, as after a change of the password, slows itself long before it slows the
  other clients of its address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Final, final

from mesh.policy.status import AttemptsStatus
from mesh.transport.refusal import Refused
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED

ENTRIES: Final = 65_536
"""Keys of one table; some 15 MB. At the limit the key that was used least recently is forgotten."""

SHARED: Final = 50
"""How many times as much an address and a user may try where many clients share an address: a mobile network has
thousands of vehicles behind one, and a vehicle gets a new one with each drive."""

_SHARE: Final = 4  # one user from one address has this part of the wrong passwords of an address
_PREFIX: Final = 64  # bits: an IPv6 host has the 64 bits after them for itself (RFC 4291 section 2.5.1)


@final
class Allowances:
    """A leaky bucket for each key: ``most`` at once, and again within ``seconds``."""

    __slots__ = ("_most", "_rate", "_seconds", "_taken")

    def __init__(self, most: int, seconds: float) -> None:
        self._seconds = seconds
        self.allow(most)
        # Key: what is taken, and when that was so. A key that is not there has taken nothing.
        self._taken: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def most(self) -> int:
        """What each key may take at once."""
        return self._most

    def allow(self, most: int) -> None:
        """Another ``most`` from now on; what is taken stays taken."""
        self._most = most
        self._rate = most / self._seconds

    def wait(self, key: str, now: float) -> float:
        """Seconds until the key has something left; 0 if it has."""
        return max(0.0, (1.0 - self._most + self._now(key, now)) / self._rate)

    def take(self, key: str, now: float) -> None:
        """Take one of what the key has left."""
        self._taken[key] = (self._now(key, now) + 1.0, now)
        self._taken.move_to_end(key)
        if len(self._taken) > ENTRIES:
            self._taken.popitem(last=False)

    def _now(self, key: str, now: float) -> float:
        taken, then = self._taken.get(key, (0.0, now))
        return max(0.0, taken - (now - then) * self._rate)


@final
class Attempts:
    """``most`` wrong passwords a minute are looked at from one address, and for one user; a quarter of that, at least
    one, for one user from one address. ``clock`` gives seconds.

    ``shared``: many honest clients share an address. Then an address and a user have ``SHARED`` times as much, so that
    neither a neighbour with a wrong password nor a few guessers lock a client out, and a user that gave the right
    password from an address is not slowed by the others of this address.
    """

    __slots__ = ("_addresses", "_clock", "_good", "_pairs", "_shared", "_users", "failures", "refusals")

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic, *, shared: bool = False) -> None:
        self._clock = clock
        self._shared = shared
        self._addresses = Allowances(most, 60.0)
        self._users = Allowances(most, 60.0)
        self._pairs = Allowances(most, 60.0)
        self.allow(most)
        self._good: OrderedDict[str, None] = OrderedDict()  # pairs that gave the right password
        self.failures = 0
        self.refusals = 0

    def allow(self, most: int) -> None:
        """Look at ``most`` wrong passwords a minute from now on; those that came before still count."""
        of_many = SHARED * most if self._shared else most
        self._addresses.allow(of_many)
        self._users.allow(of_many)
        self._pairs.allow(max(1, most // _SHARE))

    def in_force(self) -> dict[str, object]:
        """Wrong passwords a minute: of an address, of a user, and of one user from one address."""
        return {"address": self._addresses.most, "user": self._users.most, "pair": self._pairs.most}

    def check(self, address: str, name: str) -> None:
        """Called before a password is looked at. Raises ``Refused`` with 0x9F (3 before MQTT 5.0) if too many wrong
        ones came before it."""
        now = self._clock()
        source, user = _host(address), _brief(name)
        pair = f"{source} {user}"
        good = pair in self._good
        of_user = 0.0 if good else self._users.wait(user, now)
        of_address = 0.0 if good and self._shared else self._addresses.wait(source, now)
        wait = max(self._pairs.wait(pair, now), of_address, of_user)
        if wait > 0:
            self.refusals += 1
            raise Refused(
                CONNECTION_RATE_EXCEEDED,
                f"too many wrong passwords came from {address or 'this machine'} or for {name!r:.80}; "
                f"the next one is looked at in {wait:.0f} s",
            )

    def status(self) -> AttemptsStatus:
        """The status, for ``mesh status`` and metrics."""
        return AttemptsStatus(self.failures, self.refusals)

    def failed(self, address: str, name: str) -> None:
        """The password was wrong."""
        now = self._clock()
        source, user = _host(address), _brief(name)
        self.failures += 1
        self._addresses.take(source, now)
        self._users.take(user, now)
        self._pairs.take(f"{source} {user}", now)

    def succeeded(self, address: str, name: str) -> None:
        """The password was right. The wrong ones before it still count: who has one password may guess others."""
        pair = f"{_host(address)} {_brief(name)}"
        self._good[pair] = None
        self._good.move_to_end(pair)
        if len(self._good) > ENTRIES:
            self._good.popitem(last=False)


def _host(address: str) -> str:
    """The part of an address that one host cannot choose."""
    try:
        found = ip_address(address)
    except ValueError:
        return _brief(address)
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> (128 - _PREFIX):x}"


def _brief(text: str) -> str:
    """A key of bounded size for any text."""
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
