"""How soon a change of bans, certificates, passwords or keys of tokens ends the connections that it should.

A front door, an edge and a core run in processes of their own. A thousand vehicles each are connected with TLS and a
client certificate, with a password, and with a token. After each change the time until the last connection that should
go is gone is printed; no other one may go, and each of those that stay must answer.

    ./scripts/measure changes
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvloop

import tools.checkout  # noqa: F401
from mesh.policy.hashes import Cost, make_hash
from mesh.policy.passwordfile import write_passwords

# isort: split
from tests.support.certificates import Authority, put
from tests.support.crowd import Crowd, Member
from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.tokens import Keys, claims, public, token
from tests.support.topologies import IDENTITY

MANY: Final = 1000
CERTIFICATES: Final = 20
_QUICK: Final = Cost(1, 8)  # hashes are not what is measured


class Certified:
    """Vehicles with certificates of two authorities; half of them come from another network."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.folder = folder
        self.own, self.other = Authority("own"), Authority("other")
        self.ca = put(folder / "ca.pem", self.own.pem() + self.other.pem())
        self.crl = put(folder / "crl.pem", self.own.revoke())
        issued = [(self.other if number % 2 else self.own).issue(f"V{number}") for number in range(CERTIFICATES)]
        self.revoked = [one.certificate for one in issued[:10:2]]
        contexts = []
        for one in issued:
            context = ssl.create_default_context(cadata=self.own.pem().decode())
            context.load_cert_chain(*one.write(folder, "vehicle"))
            contexts.append(context)
        self.crowd = Crowd(
            Member(f"C{number}", contexts[number % CERTIFICATES], f"127.{1 + number // 500}.0.{1 + number % 250}")
            for number in range(MANY)
        )

    def listener(self) -> str:
        cert, key = self.own.issue("localhost", dns=["localhost"], server=True).write(self.folder, "server")
        return (
            f', {{mqtts: "127.0.0.1:{self.port}", identify: [anonymous], tls: '
            f"{{cert: {cert}, key: {key}, client: required, ca: {self.ca}, crl: {self.crl}}}}}"
        )

    async def measure(self, mesh: Processes) -> None:
        crowd = self.crowd
        await crowd.join(self.port)
        await crowd.changed(
            "a ban of a network", lambda: asyncio.to_thread(mesh.ban, "address", "127.2.0.0/16"),
            lambda member: member.address.startswith("127.2."),
        )  # fmt: skip
        await crowd.changed("a list of revoked certificates", _put(self.crl, self.own.revoke(*self.revoked)),
                            lambda member: _certificate(member) in range(0, 10, 2))  # fmt: skip
        await crowd.changed("an authority that is gone", _put(self.ca, self.own.pem()),
                            lambda member: _certificate(member) % 2 == 1)  # fmt: skip
        crowd.leave()


class Known:
    """Vehicles with passwords."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.file = folder / "passwords.txt"
        self._hashes = {f"P{number}": make_hash(b"right", _QUICK) for number in range(MANY)}
        write_passwords(self.file, self._hashes)
        self.crowd = Crowd(Member(name, password=b"right") for name in self._hashes)

    async def measure(self) -> None:
        await self.crowd.join(self.port)
        left = {name: hash for name, hash in self._hashes.items() if int(name[1:]) % 2}

        async def remove() -> None:
            write_passwords(self.file, left)

        await self.crowd.changed("a file of passwords", remove, lambda member: member.name not in left)
        self.crowd.leave()


class Bearers:
    """Vehicles with tokens that two keys have signed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.keys = Keys(folder)
        self.keys.give(public("ES256", "a"), public("ES256", "b", 1))
        self.crowd = Crowd(
            Member(f"T{number}", password=token(claims(f"T{number}"), id="ab"[number % 2], number=number % 2))
            for number in range(MANY)
        )

    async def measure(self) -> None:
        await self.crowd.join(self.port)

        async def take_away() -> None:
            self.keys.give(public("ES256", "b", 1))

        await self.crowd.changed("a set of keys", take_away, lambda member: int(member.name[1:]) % 2 == 0)
        self.crowd.leave()


def _certificate(member: Member) -> int:
    return int(member.name[1:]) % CERTIFICATES


def _put(file: Path, data: bytes) -> Callable[[], Awaitable[object]]:
    async def change() -> None:
        put(file, data)

    return change


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/measure changes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mesh-changes-") as name:
        folder = Path(name) / "changes"
        folder.mkdir()
        first, second, third = free_ports(3)
        certified, known, bearers = Certified(folder, first), Known(folder, second), Bearers(folder, third)
        tokens = bearers.keys.identity.partition("providers: [")[2].removesuffix("]}")
        listeners = "".join([
            certified.listener(), f', {{mqtt: "127.0.0.1:{known.port}", identify: [file]}}',
            f', {{mqtt: "127.0.0.1:{bearers.port}", identify: [tokens]}}',
        ])  # fmt: skip
        identity = f"{IDENTITY[:-1]}, providers: [{{name: file, password: {known.file}}}, {tokens}, anonymous]}}"
        limits = f"limits: {{address_connects: {MANY}, network_connects: {MANY}}}"

        async def measure(mesh: Processes) -> None:
            await certified.measure(mesh)
            await known.measure()
            await bearers.measure()

        with Processes(
            folder, ["edge-1"], identity=identity, identify="[anonymous]", more_vehicles=listeners, extra=limits
        ) as mesh, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(mesh))


if __name__ == "__main__":
    main()
