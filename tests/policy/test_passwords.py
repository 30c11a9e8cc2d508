"""The provider for a file of passwords: who is admitted, what is hashed, and what a change of the file does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy import hashing as module
from mesh.policy.anonymous import AnyVehicle
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain, Chains
from mesh.policy.hashes import Cost, make_hash, verify
from mesh.policy.hashing import LASTING, PATIENCE, Hasher, Proofs
from mesh.policy.identity import USERNAME, Identity
from mesh.policy.passwordfile import write_passwords
from mesh.policy.passwords import Passwords
from mesh.policy.pattern import Pattern
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.fakes.clock import FakeClock
from tests.support.loop import run
from tests.support.waiting import until

QUICK = Cost(1, 8)
PEER = Peer("192.0.2.7", 50_000)
IDENTITY = Identity(USERNAME, Pattern("[A-Z0-9]{1,9}"))


class Town:
    """A file of passwords, its provider, and what was hashed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **passwords: str) -> None:
        self.file = folder / "passwords.txt"
        self.hashed: list[str] = []
        self.told = 0
        self.gate = threading.Event()
        self.gate.set()
        self.hashes = {name: make_hash(word.encode(), QUICK) for name, word in passwords.items()}
        write_passwords(self.file, self.hashes)
        self.attempts = Attempts(20)
        self.provider = Passwords("file", self.file, IDENTITY.named, self.attempts)
        self.chain = Chain((self.provider,))
        patch.setattr(module, "verify", self._verify)

    def _verify(self, hash: str, password: bytes) -> bool:
        self.hashed.append(hash)
        assert self.gate.wait(60)
        return verify(hash, password)

    def _changed(self) -> None:
        self.told += 1

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await self.provider.start()
            self.provider.changed = self._changed
            try:
                await main()
            finally:
                self.gate.set()
                await self.provider.stop()

        run(whole())

    async def decide(self, username: str | None, password: bytes | None, chain: Chain | None = None) -> Claim:
        found = (chain or self.chain).decide(Connect(username=username, password=password), PEER)
        return found if isinstance(found, Claim) else await found

    async def reason(self, username: str | None, password: bytes | None, chain: Chain | None = None) -> int:
        with pytest.raises(Refused) as refused:
            await self.decide(username, password, chain)
        assert "secret" not in str(refused.value)
        return refused.value.reason


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    return Town(tmp_path, monkeypatch, V1="secret", V2="other")


def test_a_right_password_is_hashed_once_and_then_remembered(town: Town) -> None:
    async def main() -> None:
        assert (await town.decide("V1", b"secret")).name == "V1"
        assert isinstance(town.chain.decide(Connect(username="V1", password=b"secret"), PEER), Claim)
        assert town.hashed == [town.hashes["V1"]]
        assert await town.reason("V1", b"secrets") == 0x86
        assert len(town.hashed) == 2
        assert b"secret" not in repr(town.provider._proofs._known).encode()

    town.run(main)


def test_wrong_passwords_and_unknown_names_are_told_the_same_and_cost_the_same(town: Town) -> None:
    async def main() -> None:
        for name, password in (("V1", b""), ("V1", b"other"), ("V1", b"secret\0"), ("V9", b"secret"), ("V9", b"x")):
            assert await town.reason(name, password) == 0x86
        assert len(town.hashed) == 5
        assert len(set(town.hashed[3:])) == 1, "an unknown name always costs the same"
        assert set(town.hashed) <= set(town.hashes.values())
        for name, missing in ((None, b"secret"), ("", b"secret"), ("V1", None)):
            assert await town.reason(name, missing) == 0x86
        assert len(town.hashed) == 5

    town.run(main)


@pytest.mark.parametrize("name", ["V1", "V9"])
def test_attempts_are_counted_before_the_password_is_hashed(town: Town, name: str) -> None:
    async def main() -> None:
        assert [await town.reason(name, b"wrong") for _ in range(6)] == [0x86] * 5 + [0x9F]
        assert len(town.hashed) == 5
        assert (await town.decide("V2", b"other")).name == "V2"

    town.run(main)


def test_guesses_that_come_at_once_are_not_all_hashed(town: Town) -> None:
    async def main() -> None:
        codes = await asyncio.gather(*[town.reason("V1", b"wrong%d" % number) for number in range(200)])
        assert set(codes) == {0x86, 0x9F}
        assert len(town.hashed) <= 5 + 64, "those that began before the first was known to be wrong"

    town.run(main)


def test_a_name_with_a_password_is_never_admitted_without(town: Town) -> None:
    async def main() -> None:
        chain = Chain((town.provider, AnyVehicle(IDENTITY)), IDENTITY.bind)
        assert await town.reason("V1", None, chain) == 0x86
        assert await town.reason("V1", b"wrong", chain) == 0x86
        anyone = await town.decide("V9", None, chain)
        assert (anyone.name, anyone.provider) == ("V9", "anonymous")
        assert (await town.decide("V9", b"password", chain)).provider == "anonymous"
        write_passwords(town.file, {**town.hashes, "V9": make_hash(b"new", QUICK)})
        await until(lambda: town.told == 1, "the change")
        assert not chain.holds(anyone)
        assert await town.reason("V9", None, chain) == 0x86

    town.run(main)


def test_a_changed_file_ends_claims_of_users_that_are_gone_or_have_another_password(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mesh.policy")

    async def main() -> None:
        write_passwords(town.file, {**town.hashes, "V3": make_hash(b"third", QUICK)})
        await until(lambda: town.told == 1, "the first change")
        first, second = await town.decide("V1", b"secret"), await town.decide("V2", b"other")
        third = await town.decide("V3", b"third")
        write_passwords(town.file, {"V1": town.hashes["V1"], "V2": make_hash(b"changed", QUICK)})
        await until(lambda: town.told == 2, "the second change")
        assert [town.chain.holds(claim) for claim in (first, second, third)] == [True, False, False]
        assert await town.reason("V2", b"other") == 0x86
        assert await town.reason("V3", b"third") == 0x86
        assert (await town.decide("V2", b"changed")).name == "V2"
        assert f"{town.file}: 0 users added, 1 removed, 1 have another password" in caplog.messages

    town.run(main)


def test_a_user_that_is_removed_while_the_password_is_hashed_is_not_admitted(town: Town) -> None:
    async def main() -> None:
        town.gate.clear()
        chains = Chains(town.chain)
        found = chains.decide(Connect(username="V1", password=b"secret"), PEER, None)
        assert not isinstance(found, Claim)
        task = asyncio.create_task(found)
        await until(lambda: len(town.hashed) == 1, "the hash")
        write_passwords(town.file, {"V2": town.hashes["V2"]})
        await until(lambda: town.told == 1, "the change")
        town.gate.set()
        with pytest.raises(Refused) as refused:
            await task
        assert refused.value.reason == 0x87
        assert len(town.provider._proofs) == 0

    town.run(main)


def test_a_client_that_leaves_gives_its_thread_back_when_the_hash_is_done(town: Town) -> None:
    async def main() -> None:
        town.gate.clear()
        hasher = town.provider._hasher
        tasks = [asyncio.create_task(town.decide("V1", b"secret")) for _ in range(20)]
        await until(lambda: len(town.hashed) == hasher._parallel, "all threads are busy")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (len(town.hashed), hasher._slots.waiting) == (hasher._parallel, 0)
        late = asyncio.create_task(town.decide("V2", b"other"))
        await asyncio.sleep(0.05)
        assert len(town.hashed) == hasher._parallel, "the threads still have the work of those that left"
        town.gate.set()
        assert (await late).name == "V2"

    town.run(main)


def test_no_more_passwords_wait_than_can_be_hashed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(module, "verify", lambda hash, password: gate.wait(60))

    async def main() -> None:
        hasher = Hasher(1)
        hasher._mean = 1.0  # seconds: one is hashed, and five may wait
        tasks = list[asyncio.Task[bool]]()
        for _ in range(30):
            tasks.append(asyncio.create_task(hasher.verify("hash", b"x", lambda: None)))
            await asyncio.sleep(0)
        await until(lambda: sum(task.done() for task in tasks) >= 30 - PATIENCE - 2, "the refusals")
        assert all(isinstance(task.exception(), Refused) for task in tasks if task.done())
        gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {one.reason for one in found if isinstance(one, Refused)} == {0x89}
        assert found.count(True) == PATIENCE + 2
        hasher.close()

    run(main())


def test_wrong_passwords_of_a_network_do_not_keep_clients_of_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[bytes] = []
    gate = threading.Event()

    def slow(hash: str, password: bytes) -> bool:
        assert gate.wait(60)
        order.append(password)
        return True

    monkeypatch.setattr(module, "verify", slow)

    async def main() -> None:
        hasher = Hasher(1)
        hasher._mean = 1.0
        flood = [asyncio.create_task(hasher.verify("hash", b"wrong", _unchecked, "10.0.0")) for _ in range(30)]
        await until(lambda: hasher._slots.waiting == PATIENCE + 1, "the flood")
        other = asyncio.create_task(hasher.verify("hash", b"right", _unchecked, "192.0.2"))
        known = asyncio.create_task(hasher.verify("hash", b"known", _unchecked, "10.0.0", True))
        await until(lambda: hasher._slots.waiting == PATIENCE + 3, "both to wait")
        gate.set()
        assert (await other, await known) == (True, True)
        await asyncio.gather(*flood, return_exceptions=True)
        assert order[1] == b"known"
        assert order.index(b"right") <= 3, "after the turn of the flood's network"
        hasher.close()

    run(main())


def test_a_client_that_gave_the_right_password_before_goes_first(town: Town) -> None:
    async def main() -> None:
        await town.decide("V1", b"secret")
        trusted: list[tuple[str, bool]] = []

        async def verify(hash: str, password: bytes, check: object, network: str, known: bool) -> bool:
            trusted.append((network, known))
            return False

        town.provider._hasher.verify = verify  # type: ignore[method-assign, assignment]
        for name in ("V1", "V2"):
            assert await town.reason(name, b"wrong") == 0x86
        assert trusted == [("192.0.2", True), ("192.0.2", False)]

    town.run(main)


def _unchecked() -> None:
    """No attempts are counted."""


def test_a_proof_is_good_for_a_time_and_for_one_hash_and_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    proofs = Proofs(clock)
    proofs.add("V1", b"secret", "hash")
    assert proofs.has("V1", b"secret", "hash")
    assert not proofs.has("V1", b"other", "hash")
    assert not proofs.has("V2", b"secret", "hash")
    assert not proofs.has("V1s", b"ecret", "hash")
    assert not proofs.has("V1", b"secret", "another hash")
    assert not proofs.has("V1", b"secret", "hash"), "it was forgotten with the hash"
    proofs.add("V1", b"secret", "hash")
    clock.now += LASTING + 1
    assert not proofs.has("V1", b"secret", "hash")
    monkeypatch.setattr(module, "REMEMBERED", 3)
    for number in range(9):
        proofs.add(f"V{number}", b"secret", "hash")
    assert len(proofs) == 3
    assert proofs.has("V8", b"secret", "hash")
    assert not Proofs(clock).has("V8", b"secret", "hash")
