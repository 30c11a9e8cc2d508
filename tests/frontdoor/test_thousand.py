"""Certificates and bans that change under a thousand live connections over TLS: those end that should, no other one.

A door, an edge, a core and a real etcd. How long the end of all takes is printed and not asserted. (Passwords are in
test_live.py, keys of tokens and roles in tests/node.)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256

from mesh.registry.audit import act
from mesh.registry.bans import Ban, BanStore, normal
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import Topology
from mesh.transport.listen import REQUIRED
from tests.support.certificates import DAY, Authority, now, put
from tests.support.crowd import Crowd, Member
from tests.support.nodes import Nodes, etcd, with_nodes
from tests.support.secured import Secured
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture

MANY: Final = 1000
CERTIFICATES: Final = 20  # each of them has 50 of the vehicles


class Fleet:
    """A thousand vehicles with certificates of two authorities. A vehicle's certificate is ``issued[number % 20]``."""

    def __init__(self, folder: Path) -> None:
        self.secured = Secured(folder)
        self.other = Authority("other")
        self.ca = put(self.secured.ca, self.secured.authority.pem() + self.other.pem())
        self.issued = [self._authority(number).issue(f"certificate {number}") for number in range(CERTIFICATES)]
        contexts = [self.secured.context(one) for one in self.issued]
        self.crowd = Crowd(
            Member(f"CAR{number}", contexts[number % CERTIFICATES], _address(number)) for number in range(MANY)
        )

    def _authority(self, number: int) -> Authority:
        return self.other if number % 2 else self.secured.authority


    async def join(self, mesh: Nodes) -> None:
        await mesh.change(self._settings)
        await self.crowd.join(self.secured.door)
        await self.crowd.alive()

    def _settings(self, topology: Topology) -> Topology:
        """All certificates are listed, and a thousand vehicles may come at once."""
        changed = self.secured.listens(client=REQUIRED, ca=self.ca, crl=self.secured.crl)(topology)
        limits = replace(changed.limits, connects=MANY, address_connects=MANY, network_connects=MANY)
        return replace(changed, limits=limits)


def number_of(member: Member) -> int:
    return int(member.name[3:])


def _address(number: int) -> str:
    """Two networks; in the second one 100 vehicles have the same address."""
    if number % 4 != 3:
        return f"127.1.{number // 250}.{1 + number % 250}"
    return "127.2.0.1" if number % 40 in (3, 7, 11, 15) else f"127.2.{1 + number // 250}.{1 + number % 250}"


def has(*certificates: int) -> Callable[[Member], bool]:
    return lambda member: number_of(member) % CERTIFICATES in certificates


def test_certificates_that_change_under_1000_connections_end_those_that_lose_their_right_and_no_other(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path)
    secured, authority = fleet.secured, fleet.secured.authority
    new = authority.issue("new", dns=["localhost"], server=True)
    expired = authority.issue("expired", dns=["localhost"], server=True, end=now() - DAY)

    async def main(mesh: Nodes) -> None:
        async def sees(name: str) -> bool:
            return await secured.accepts(secured.context(fleet.issued[0])) == f"TLSv1.3 {name}"

        async def served_with(name: str) -> None:
            while not await sees(name):
                pass

        async def exchange() -> None:
            new.write(tmp_path, "server")
            await served_with("new")

        async def expire() -> None:
            expired.write(tmp_path, "server")
            await until(lambda: "expired" in mesh.door.status().detail, "the status says what is wrong")
            assert await sees("new")

        async def mend() -> None:
            new.write(tmp_path, "server")
            await until(lambda: not mesh.door.status().detail, "the files are good again")

        async def revoke() -> None:
            put(secured.crl, authority.revoke(*[fleet.issued[number].certificate for number in revoked]))

        async def drop() -> None:
            put(fleet.ca, authority.pem())

        revoked = (2, 6, 10, 14, 18)
        try:
            await fleet.join(mesh)
            for what, change in (("server's certificate", exchange), ("expired", expire), ("mended", mend)):
                assert not await fleet.crowd.changed(what, change, lambda _: False)
            assert len(await fleet.crowd.changed("list of revoked", revoke, has(*revoked))) == 250
            assert len(await fleet.crowd.changed("authority", drop, has(*range(1, CERTIFICATES, 2)))) == 500
            for number, accepted in ((0, "TLSv1.3 new"), (2, ""), (1, "")):
                assert await secured.accepts(secured.context(fleet.issued[number])) == accepted
        finally:
            fleet.crowd.leave()

    with_nodes(etcd, main)


def test_bans_of_every_kind_under_1000_connections_end_those_that_they_name_and_no_other(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path)

    async def main(mesh: Nodes) -> None:
        assert mesh.door._services is not None
        store, made = BanStore(mesh.door._services.client, mesh.topology.mesh), list[Ban]()

        def banning(kind: str, value: str) -> Callable[[], Awaitable[object]]:
            ban = Ban(kind, normal(kind, value), "a test", "me@here", time.time())
            made.append(ban)
            return lambda: store.add(ban, act("test", str(ban)))

        serial = f"{fleet.issued[4].certificate.serial_number:X}"
        fingerprint = fleet.issued[8].certificate.fingerprint(SHA256()).hex(":")
        bans: list[tuple[str, str, Callable[[Member], bool]]] = [
            ("vehicle", "CAR500", lambda member: member.name == "CAR500"),
            ("client_id", "CAR501", lambda member: member.name == "CAR501"),
            ("serial", serial, has(4)),
            ("fingerprint", fingerprint, has(8)),
            ("address", "127.2.0.1", lambda member: member.address == "127.2.0.1"),
            ("address", "127.2.0.0/16", lambda member: member.address.startswith("127.2.")),
        ]
        try:
            await fleet.join(mesh)
            ended = []
            for kind, value, ends in bans:
                ended.append(len(await fleet.crowd.changed(f"ban of {kind}", banning(kind, value), ends)))
            assert ended == [1, 1, 50, 50, 100, 150]
        finally:
            for ban in made:
                await store.remove(ban.kind, ban.value, act("test", "no ban"))
            fleet.crowd.leave()

    with_nodes(etcd, main)
