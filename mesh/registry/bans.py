"""Bans and kicks in etcd: the records, how commands write them, and the watch with which nodes follow both.

It knows keys and records: never connections, nor what a ban ends. What always holds:

- The value of a ban is in one form (``normal``), so that a ban is found and removed in whatever way it is written.
- A ban with an end is under a lease, so that etcd removes it; nodes look at the end themselves.
- A kick is under a lease of ``KICK`` seconds. A node sees each kick once; one that starts does not see earlier ones.
- Without etcd the bans stay as they were. At most ``MOST`` bans are followed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.audit import Act, AuditLog
from mesh.registry.client import EtcdClient, put
from mesh.registry.errors import BadRecord, TooMany
from mesh.registry.keys import Keys, after
from mesh.registry.watch import PORTION, Watch

log = logging.getLogger("mesh.registry.bans")

VEHICLE: Final = "vehicle"
CLIENT_ID: Final = "client_id"
ADDRESS: Final = "address"
SERIAL: Final = "serial"
FINGERPRINT: Final = "fingerprint"
USER: Final = "user"
KINDS: Final = (VEHICLE, CLIENT_ID, ADDRESS, SERIAL, FINGERPRINT, USER)

MOST: Final = 10_000
"""Bans of one mesh. A network is one ban."""

LONGEST: Final = 512
"""Bytes of a value and of a reason."""

KICK: Final = 60
"""Seconds that a kick stays in etcd."""

_HEX: Final = frozenset("0123456789abcdef")


@final
@dataclass(frozen=True, slots=True)
class Ban:
    """``kind`` is one of ``KINDS``. ``by``: user@host; ``since`` and ``expires``: seconds since 1970, ``expires`` 0 for
    never."""

    kind: str
    value: str
    reason: str
    by: str
    since: float
    expires: float = 0.0

    def __str__(self) -> str:
        return told(self.kind, self.value) + (f" ({self.reason})" if self.reason else "")


@final
@dataclass(frozen=True, slots=True)
class Kick:
    """Connections to be ended once. ``kind``: ``VEHICLE``, ``CLIENT_ID`` or ``USER``; ``number`` names the kick;
    ``lease`` is that of its key in etcd."""

    kind: str
    value: str
    by: str
    number: str
    lease: int = 0

    def __str__(self) -> str:
        return told(self.kind, self.value)


def told(kind: str, value: str) -> str:
    """A kind and a value for people: in the words of the command; a value with spaces or control characters, which
    would deceive the reader or change the terminal, in quotes and escaped."""
    plain = value.isprintable() and not any(character.isspace() for character in value)
    return f"{kind.replace('_', '-')} {value if plain else repr(value)}"


def normal(kind: str, value: str) -> str:
    """The one form of a value. Raises ``ValueError`` with a sentence if it is no value of this kind."""
    if kind not in KINDS:
        raise ValueError(f"there is no ban by {kind!r}; write {', '.join(KINDS)}")
    if kind == ADDRESS:
        return str(network(value))
    if kind == SERIAL:
        digits = value.replace(":", "").lower().removeprefix("0x")
        if not digits or not _HEX.issuperset(digits) or len(digits) > 40:  # RFC 5280: at most 20 bytes
            raise ValueError(f"{value!r} is no serial number; write its hexadecimal digits, such as 0a:1b:2c")
        return f"{int(digits, 16):x}"
    if kind == FINGERPRINT:
        digits = value.replace(":", "").lower()
        if len(digits) != 64 or not _HEX.issuperset(digits):
            raise ValueError(f"{value!r} is no fingerprint; write the 64 hexadecimal digits of the SHA-256")
        return digits
    if not value or "\0" in value or not _is_text(value) or len(value.encode()) > LONGEST:
        raise ValueError(f"a {kind.replace('_', ' ')} has 1 to {LONGEST} bytes of UTF-8, without NUL")
    return value


def _is_text(value: str) -> bool:
    """Whether it can be a text of MQTT: bytes of a command line that are no UTF-8 are surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or network, such as ``192.0.2.7``, ``10.0.0.0/8`` or ``2001:db8::/32``. An IPv4 address in IPv6 is the
    IPv4 address; the zone of a link-local one (``fe80::1%eth0``) does not count. Raises ``ValueError``."""
    address, slash, length = value.partition("/")
    try:
        found = ipaddress.ip_network(address.strip("[]").partition("%")[0] + slash + length, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address or network; write one, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


@final
class BanStore:
    """Reads and writes bans and kicks, for commands and nodes. Every method raises RegistryError."""

    __slots__ = ("_audit", "_client", "_keys")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self._client = client
        self._keys = Keys(mesh)
        self._audit = AuditLog(client, mesh)

    async def add(self, ban: Ban, act: Act) -> None:
        """Put a ban in force, in place of one with the same value. Raises ``TooMany`` if there are ``MOST``."""
        keys = self._keys
        counted = await self._client.range(
            pb.RangeRequest(key=keys.bans, range_end=after(keys.bans), count_only=True)
        )
        if counted.count >= MOST and await self._client.get(keys.ban(ban.kind, ban.value)) is None:
            raise TooMany(f"there are {counted.count} bans, as many as a mesh may have; ban networks, or remove some")
        lease = 0
        if ban.expires:
            lease, _ = await self._client.grant(max(1, math.ceil(ban.expires - ban.since)))
        value = json.dumps(asdict(ban)).encode()
        request = pb.TxnRequest(
            success=[put(keys.ban(ban.kind, ban.value), value, lease), self._audit.noting(act)]
        )
        await self._client.txn(request, retry=True)
        await self._audit.trim()

    async def remove(self, kind: str, value: str, act: Act) -> bool:
        """Remove a ban; returns whether there was one."""
        key = self._keys.ban(kind, value)
        if await self._client.get(key) is None:
            return False
        request = pb.TxnRequest(
            success=[pb.Operation(delete=pb.DeleteRequest(key=key)), self._audit.noting(act)]
        )
        await self._client.txn(request, retry=True)
        await self._audit.trim()
        return True

    async def bans(self) -> list[Ban]:
        """All bans, by kind and value."""
        found: list[Ban] = []
        async for page in self._client.pages(self._keys.bans):
            for entry in page.kvs:
                try:
                    found.append(ban_in(entry))
                except BadRecord as error:
                    log.error("ignoring a ban: %s", error)
        return found

    async def kick(self, kick: Kick, act: Act) -> None:
        """Tell all nodes to end the connections of a client."""
        lease, _ = await self._client.grant(KICK)
        value = json.dumps({"kind": kick.kind, "value": kick.value, "by": kick.by}).encode()
        request = pb.TxnRequest(
            success=[put(self._keys.kick(kick.number), value, lease), self._audit.noting(act)]
        )
        await self._client.txn(request, retry=True)
        await self._audit.trim()

    async def answer(self, kick: Kick, name: str, ended: int) -> None:
        """Node ``name`` has ended so many connections."""
        key = self._keys.kicked_by(kick.number, name)
        await self._client.put(key, json.dumps({"ended": ended}).encode(), lease=kick.lease, retry=True)

    async def answers(self, kick: Kick) -> dict[str, int]:
        """How many connections each node has ended, by name."""
        prefix = self._keys.kicked_by(kick.number, "")
        found: dict[str, int] = {}
        async for page in self._client.pages(prefix):
            for entry in page.kvs:
                found[entry.key[len(prefix) :].decode(errors="replace")] = int(_object(entry).get("ended", 0))
        return found


OnBans = Callable[[Sequence[Ban], Sequence[Ban]], None]
"""Bans that are new or have changed, and bans that are gone."""


def _no_bans(fresh: Sequence[Ban], gone: Sequence[Ban]) -> None:
    """The default: no listener."""


def _no_kick(kick: Kick) -> None:
    """The default: no listener."""


@final
class BanWatch:
    """One watch of one mesh's bans and kicks. ``assume`` gives it the bans of an earlier process before the start."""

    __slots__ = ("_found", "_keys", "_kicks", "_known", "_over", "_present", "_seen", "_watch", "on_bans", "on_kick")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self._keys = Keys(mesh)
        self._watch = Watch(client, self._keys.revoked, self)
        self._present: dict[bytes, Ban] = {}
        self._found: dict[bytes, Ban] = {}
        self._kicks: dict[str, Kick] = {}  # of the snapshot
        self._seen: set[str] = set()
        self._known = False
        self._over = False
        self.on_bans: OnBans = _no_bans
        self.on_kick: Callable[[Kick], None] = _no_kick

    @property
    def live(self) -> bool:
        """Whether the watch is open and up to date."""
        return self._watch.live

    def present(self) -> list[Ban]:
        """The bans as far as they are known, also those that have ended meanwhile."""
        return list(self._present.values())

    def assume(self, bans: Sequence[Ban]) -> None:
        """These bans hold until etcd answers."""
        self._present = {self._keys.ban(ban.kind, ban.value): ban for ban in bans[:MOST]}
        self.on_bans(bans[:MOST], ())

    async def start(self, wait: float) -> bool:
        """Start following; return whether etcd answered within ``wait`` seconds. If not, the attempts continue.

        Raises RegistryError if waiting cannot help (wrong password)."""
        return await self._watch.start(wait)

    async def stop(self) -> None:
        await self._watch.stop()

    # The follower of the watch

    def begin(self, revision: int, since: int) -> None:
        self._found, self._kicks = {}, {}

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        for entry in entries:
            if entry.key.startswith(self._keys.kicks):
                kick = self._kick_in(entry)
                if kick is not None:
                    self._kicks[kick.number] = kick
            else:
                self._read(self._found, entry)
        return True

    def end(self) -> Iterator[None]:
        before, self._present, self._found = self._present, self._found, {}
        fresh = [ban for key, ban in self._present.items() if before.get(key) != ban]
        gone = [ban for key, ban in before.items() if key not in self._present]
        for start in range(0, max(len(fresh), len(gone)), PORTION):
            self.on_bans(fresh[start : start + PORTION], gone[start : start + PORTION])
            yield
        kicks, self._kicks = self._kicks, {}
        unseen = [kick for number, kick in kicks.items() if number not in self._seen]
        self._seen = set(kicks)  # those that etcd has forgotten do not come again
        for kick in unseen if self._known else ():
            self.on_kick(kick)
        self._known = True

    def apply(self, events: Sequence[pb.Event]) -> None:
        fresh: dict[bytes, Ban] = {}
        gone: dict[bytes, Ban] = {}
        for event in events:
            key = event.kv.key
            if key.startswith(self._keys.kicks):
                self._kicked(event)
            elif event.type == pb.Event.DELETE:
                ban = self._present.pop(key, None)
                fresh.pop(key, None)
                if ban is not None:
                    gone[key] = ban
            elif self._read(self._present, event.kv):
                gone.pop(key, None)
                fresh[key] = self._present[key]
        if fresh or gone:
            self.on_bans(list(fresh.values()), list(gone.values()))

    def _kicked(self, event: pb.Event) -> None:
        number = event.kv.key[len(self._keys.kicks) :].decode(errors="replace")
        if event.type == pb.Event.DELETE:
            self._seen.discard(number)
        elif number not in self._seen:
            kick = self._kick_in(event.kv)
            if kick is not None:
                self._seen.add(number)
                self.on_kick(kick)

    def _read(self, into: dict[bytes, Ban], entry: pb.KeyValue) -> bool:
        """Note a ban. A value of another form is logged, and what was known before stays."""
        try:
            ban = ban_in(entry)
        except BadRecord as error:
            log.error("ignoring a ban: %s", error)
            return False
        if len(into) >= MOST and entry.key not in into:
            if not self._over:
                self._over = True
                log.error("there are more than %d bans; the others are not in force here: %s is one", MOST, ban)
            return False
        into[entry.key] = ban
        return True

    def _kick_in(self, entry: pb.KeyValue) -> Kick | None:
        try:
            value = _object(entry)
            number = entry.key[len(self._keys.kicks) :].decode()
            return Kick(str(value["kind"]), str(value["value"]), str(value["by"]), number, entry.lease)
        except (BadRecord, KeyError, ValueError) as error:
            log.error("ignoring a kick: %r", error)
            return None


def from_plain(value: dict[str, Any]) -> Ban:
    """A ban from plain values, as ``dataclasses.asdict`` makes them. Raises ``KeyError``, ``TypeError``,
    ``ValueError``."""
    kind = str(value["kind"])
    return Ban(
        kind, normal(kind, str(value["value"])), str(value["reason"])[:LONGEST], str(value["by"])[:LONGEST],
        float(value["since"]), float(value["expires"]),
    )  # fmt: skip


def ban_in(entry: pb.KeyValue) -> Ban:
    """The ban in a value. Raises ``BadRecord``."""
    try:
        return from_plain(_object(entry))
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(
            f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}, which is no ban; right would be an "
            "object with kind, value, reason, by, since and expires"
        ) from error


def _object(entry: pb.KeyValue) -> dict[str, Any]:
    try:
        value = json.loads(entry.value)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise BadRecord(f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}; right would be a JSON object")
