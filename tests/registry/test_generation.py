"""The generation of the map: a new one when etcd was emptied or set back, and only then."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from mesh.private import NotPrivate
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import BadRecord, Unavailable
from mesh.registry.generation import Generation
from mesh.registry.keeper import GenerationKeeper
from mesh.registry.keys import Keys
from mesh.registry.map import VehicleMap
from tests.support.waiting import until


def clock() -> float:
    return 1000.0


async def emptied(client: EtcdClient, mesh: str) -> None:
    await client.delete(b"/mesh/" + mesh.encode() + b"/", b"/mesh/" + mesh.encode() + b"0")


def test_all_processes_agree_on_the_first_generation(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        several = [Generation(client, mesh, clock=lambda now=now: 1000.0 + now) for now in range(8)]  # type: ignore[misc]
        numbers = await asyncio.gather(*[each.check() for each in several])
        assert len(set(numbers)) == 1
        assert {await each.check() for each in several} == set(numbers)
        await client.close()

    asyncio.run(main())


def test_emptied_etcd_begins_a_higher_generation_even_if_the_clock_was_set_back(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        one, other = Generation(client, mesh, clock=clock), Generation(client, mesh, clock=lambda: 5.0)
        changes: list[int] = []
        one.on_change = changes.append
        first = await one.check()
        await other.check()
        await client.put(Keys(mesh).vehicle("CAR-1"), b"x")
        assert await one.check() == first, "a write is no reset"
        await emptied(client, mesh)
        second = await other.check()
        assert second > first
        assert await one.check() == second
        assert changes == [first, second]
        await client.close()

    asyncio.run(main())


def test_process_that_knew_nothing_does_not_hide_the_reset(etcd: EmbeddedEtcd, mesh: str) -> None:
    """A new front door is the first to see the empty etcd, and its clock is wrong."""

    async def main() -> None:
        client = etcd.client()
        edge = Generation(client, mesh, clock=clock)
        first = await edge.check()
        await emptied(client, mesh)
        door = Generation(client, mesh, clock=lambda: 5.0)
        assert await door.check() < first
        second = await edge.check()
        assert second > first
        assert await door.check() == second
        await client.close()

    asyncio.run(main())


def test_reset_that_a_watch_saw_begins_one_generation(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        one, other = Generation(client, mesh, clock=clock), Generation(client, mesh, clock=clock)
        first = await one.check()
        await other.check()
        second = await one.check(reset=True)
        assert second > first
        assert await other.check(reset=True) == second
        assert await one.check() == second
        await client.close()

    asyncio.run(main())


def test_etcd_that_was_set_back_while_all_were_down_begins_a_new_generation(folder: Path, tmp_path: Path) -> None:
    """The file of an edge remembers the revision."""

    async def main() -> None:
        server = EmbeddedEtcd(folder)
        kept = tmp_path / "map.json"
        await server.start()
        client = server.client()
        first = await Generation(client, "m", kept, clock).check()
        await server.stop()
        shutil.copytree(folder / "data", tmp_path / "backup")
        await server.start()
        assert await Generation(client, "m", kept, clock).check() == first, "a restart is no reset"
        for number in range(5):
            await client.put(b"/mesh/m/vehicles/CAR-%d" % number, b"x", retry=True)
        assert await Generation(client, "m", kept, clock).check() == first
        await server.stop()
        shutil.rmtree(folder / "data")
        shutil.copytree(tmp_path / "backup", folder / "data")
        await server.start()
        assert await Generation(client, "m", kept, clock).check() > first
        await client.close()
        await server.stop()

    asyncio.run(main())


def test_damaged_file_is_replaced_and_that_of_another_user_refused(
    etcd: EmbeddedEtcd, mesh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        client = etcd.client()
        kept = tmp_path / "map.json"
        kept.write_text("{")
        number = await Generation(client, mesh, kept).check()
        assert Generation(client, mesh, kept).number == number
        monkeypatch.setattr(os, "geteuid", lambda: 54_321)
        with pytest.raises(NotPrivate, match="belongs to"):
            Generation(client, mesh, kept)
        await client.close()

    asyncio.run(main())


def test_value_that_is_no_generation_is_named(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.put(Keys(mesh).generation, b'{"generation": "x"}')
        with pytest.raises(BadRecord, match="right would be"):
            await Generation(client, mesh).check()
        await client.close()

    asyncio.run(main())


def test_running_process_gets_the_new_map_before_it_is_told(folder: Path) -> None:
    """Emptied and filled again behind the back of a process: the new history is longer than the old one, so that the
    watch alone cannot see it."""

    async def main() -> None:
        server = EmbeddedEtcd(folder)
        await server.start()
        client = server.client()
        map = VehicleMap(client, "m")
        keeper = GenerationKeeper(map, Generation(client, "m", clock=clock))
        told: list[str] = []
        keeper.follow(lambda: told.append(repr(map.cached("CAR-1"))))
        assert await map.start()
        keeper.start()
        await until(lambda: len(told) == 1, "the first generation")
        assert (await map.claim("CAR-1", "standard", {"edge-1": 1.0})).edge == "edge-1"
        await server.stop()
        shutil.rmtree(folder / "data")
        await server.start()
        await until(lambda: len(told) == 2, "the second generation")
        assert told == ["None", "None"]
        assert (await map.claim("CAR-1", "standard", {"edge-2": 1.0})).edge == "edge-2"
        await keeper.stop()
        await map.stop()
        await client.close()
        await server.stop()

    asyncio.run(main())


def test_loading_of_a_large_map_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is not loaded at the next check goes on loading."""
    monkeypatch.setattr("mesh.registry.keeper.PERIOD", 0.001)

    class LargeMap:
        def __init__(self) -> None:
            self.on_reset: Callable[[], None] = lambda: None
            self.renewed = 0
            self.waited = 0

        async def renew(self) -> bool:
            self.renewed += 1
            self.waited = 0
            return False

        async def start(self) -> bool:
            self.waited += 1
            return self.waited == 3

    class Numbers:
        number = 1

        async def check(self, _reset: bool) -> int:
            return self.number

    async def main() -> None:
        map, numbers, told = LargeMap(), Numbers(), list[int]()
        keeper = GenerationKeeper(cast(VehicleMap, map), cast(Generation, numbers))
        keeper.follow(lambda: told.append(numbers.number))
        keeper.start()
        for numbers.number in (1, 2, 3):
            await until(lambda: told[-1:] == [numbers.number], "the generation")
        assert map.renewed == 2
        await keeper.stop()

    asyncio.run(main())


class SmallMap:
    on_reset: Callable[[], None] = staticmethod(lambda: None)


def test_a_reset_during_the_check_of_another_is_checked_too() -> None:
    class Numbers:
        def __init__(self) -> None:
            self.asked: list[bool] = []

        async def check(self, reset: bool) -> int:
            self.asked.append(reset)
            if len(self.asked) == 2:
                map.on_reset()
            if len(self.asked) == 3:
                raise Unavailable("etcd is away")
            return len(self.asked)

    map = SmallMap()

    async def main() -> None:
        numbers = Numbers()
        keeper = GenerationKeeper(cast(VehicleMap, map), cast(Generation, numbers))
        keeper.start()
        await until(lambda: len(numbers.asked) == 1, "the first check")
        map.on_reset()
        await until(lambda: len(numbers.asked) == 3, "the check of the second reset")
        keeper._wake.set()
        await until(lambda: len(numbers.asked) == 4, "a check after the one that failed")
        assert numbers.asked == [False, True, True, True]
        await keeper.stop()

    asyncio.run(main())


def test_what_hides_a_reset_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("mesh.registry.keeper.PERIOD", 0.001)
    asked = 0

    class Numbers:
        async def check(self, _reset: bool) -> int:
            nonlocal asked
            asked += 1
            raise BadRecord("it is x; right would be a number") if asked < 10 else NotPrivate("it belongs to eve")

    async def main() -> None:
        keeper = GenerationKeeper(cast(VehicleMap, SmallMap()), cast(Generation, Numbers()))
        keeper.start()
        await until(lambda: asked > 20, "checks")
        await keeper.stop()

    asyncio.run(main())
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "it is x; right would be a number", "it belongs to eve",
    ]  # fmt: skip


def test_what_is_known_is_written_outside_of_the_loop(
    etcd: EmbeddedEtcd, mesh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs does not block the loop."""
    wrote: list[int] = []
    monkeypatch.setattr("mesh.registry.generation._save", lambda _path, _known: wrote.append(threading.get_ident()))

    async def main() -> None:
        client = etcd.client()
        await Generation(client, mesh, tmp_path / "map.json").check()
        assert len(wrote) == 1
        assert wrote[0] != threading.get_ident()
        await client.close()

    asyncio.run(main())
