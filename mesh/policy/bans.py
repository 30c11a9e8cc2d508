"""The bans in force at one node, by what they look at.

It knows values of clients: never etcd, nor connections. What always holds:

* a look-up takes the same time however many bans there are; for an address it grows with the number of different prefix
  lengths, of which IPv4 has 33 and IPv6 129;
* a ban that has ended counts no more, whether it was removed or not;
* a ban of an address or network needs nothing but the address, so it holds before a client is identified.
"""

from __future__ import annotations

import heapq
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final, final

from mesh.broker.peer import Peer
from mesh.policy.status import BansStatus
from mesh.registry.bans import ADDRESS, CLIENT_ID, FINGERPRINT, SERIAL, Ban, network
from mesh.transport.admission import Barrier
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BANNED

_MAPPED: Final = bytes(10) + b"\xff\xff"  # the beginning of an IPv4 address in IPv6


@final
class Bans(Barrier):
    """``clock`` gives seconds since 1970. ``ended`` and ``kicked`` count connections that were ended by a ban or a
    kick."""

    __slots__ = ("_by_value", "_clock", "_ends", "_networks", "ended", "kicked", "refused")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._by_value: dict[tuple[str, str], Ban] = {}
        self._networks: dict[int, dict[int, dict[int, Ban]]] = {32: {}, 128: {}}  # bits, prefix length, prefix
        self._ends: list[tuple[float, str, str]] = []  # a heap; some are of bans that are gone
        self.refused = 0
        self.ended = 0
        self.kicked = 0

    def __len__(self) -> int:
        """The bans in force."""
        self._drop_ended()
        return len(self._by_value)

    def put(self, bans: Iterable[Ban]) -> None:
        """These bans are in force, in place of those with the same values."""
        for ban in bans:
            self.up = True
            self._by_value[ban.kind, ban.value] = ban
            if ban.kind == ADDRESS:
                bits, length, prefix = _place(ban)
                self._networks[bits].setdefault(length, {})[prefix] = ban
            if ban.expires:
                heapq.heappush(self._ends, (ban.expires, ban.kind, ban.value))
        if len(self._ends) > 2 * len(self._by_value) + 64:  # bans that were replaced or removed before their end
            self._ends = [(ban.expires, *key) for key, ban in self._by_value.items() if ban.expires]
            heapq.heapify(self._ends)

    def remove(self, bans: Iterable[Ban]) -> None:
        """These bans are gone."""
        for ban in bans:
            if self._by_value.pop((ban.kind, ban.value), None) is not None and ban.kind == ADDRESS:
                bits, length, prefix = _place(ban)
                of_length = self._networks[bits][length]
                del of_length[prefix]
                if not of_length:
                    del self._networks[bits][length]
        self.up = bool(self._by_value)

    def found(self, peer: Peer, client_id: str, kind: str = "", name: str = "") -> Ban | None:
        """The ban that concerns a client, if there is one. ``kind`` is that of ``name``, vehicle or user; empty for a
        client that is not identified."""
        if not self._by_value:
            return None
        ban = self._at(peer.address) or self._of(CLIENT_ID, client_id) or self._of(kind, name)
        tls = peer.tls
        if ban is None and tls is not None and tls.fingerprint:
            ban = self._of(FINGERPRINT, tls.fingerprint) or self._of(SERIAL, tls.serial)
        return ban

    def arrive(self, peer: Peer) -> None:
        ban = self._at(peer.address)
        if ban is not None:
            raise self._refused(ban)

    def check(self, connect: Connect, peer: Peer, kind: str = "", name: str = "") -> None:
        ban = self.found(peer, connect.client_id, kind, name)
        if ban is not None:
            raise self._refused(ban)

    def status(self) -> BansStatus:
        """The status, for ``mesh status`` and metrics."""
        return BansStatus(len(self), self.refused, self.ended, self.kicked)

    def _refused(self, ban: Ban) -> Refused:
        self.refused += 1
        return Refused(BANNED, f"banned by {ban.by}: {ban}")

    def _of(self, kind: str, value: str) -> Ban | None:
        return self._valid(self._by_value.get((kind, value))) if value else None

    def _valid(self, ban: Ban | None) -> Ban | None:
        return None if ban is None or 0 < ban.expires <= self._clock() else ban

    def _at(self, address: str) -> Ban | None:
        """The ban of an address or of a network that it is in."""
        if not (self._networks[32] or self._networks[128]):
            return None
        packed = _packed(address)
        bits = 8 * len(packed)
        number = int.from_bytes(packed)
        for length, bans in self._networks.get(bits, {}).items():
            ban = self._valid(bans.get(number >> bits - length))
            if ban is not None:
                return ban
        return None

    def _drop_ended(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            expires, kind, value = heapq.heappop(self._ends)
            ban = self._by_value.get((kind, value))
            if ban is not None and ban.expires == expires:
                self.remove((ban,))


def _packed(address: str) -> bytes:
    """An address of a client as bytes; none for a path of a Unix socket. An IPv4 address in IPv6 is the IPv4
    address."""
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _place(ban: Ban) -> tuple[int, int, int]:
    """Bits, prefix length and prefix of a ban of a network."""
    found = network(ban.value)
    return found.max_prefixlen, found.prefixlen, int(found.network_address) >> found.max_prefixlen - found.prefixlen
