"""The exchange of providers while a node serves: what stays, what is stopped, and when connections are looked at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.node.guard import Guard
from mesh.policy.bans import Bans
from mesh.policy.given import GivenRoles
from mesh.policy.order import Order, Planned
from mesh.policy.providers import Provider, Verdict
from mesh.policy.users import USERS
from mesh.registry.bans import VEHICLE
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.support.loop import run
from tests.support.waiting import until


class Known(Provider):
    """Admits every client, and tells what becomes of it."""

    def __init__(self, name: str, key: object, before: Provider | None, faulty: bool) -> None:
        super().__init__(name)
        self.key = key
        self.before = before
        self.faulty = faulty
        self.life: list[str] = []
        self.names: set[str] = set()

    def knows(self, name: str) -> bool:
        return name in self.names

    async def start(self) -> None:
        self.life.append("start")
        if self.faulty:
            raise OSError(2, f"{self.name} is faulty")

    async def stop(self) -> None:
        self.life.append("stop")

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        return Claim(f"{self.name}{self.key}", self.name)


class Town:
    def __init__(self) -> None:
        self.made: list[Known] = []
        self.told = 0
        self.guard = Guard(self._changed, Bans(), VEHICLE)

    def _changed(self) -> None:
        self.told += 1

    def order(self, *plans: str, listeners: Mapping[str, tuple[str, ...]] | None = None, faulty: str = "") -> Order:
        """``a1`` is a provider ``a`` with the key 1."""

        def planned(text: str) -> Planned:
            def make(before: Provider | None) -> Provider:
                self.made.append(Known(text[0], text[1:], before, text == faulty))
                return self.made[-1]

            return Planned(text[0], text[1:], make)

        return Order(tuple(planned(text) for text in plans), listeners or {})

    def asked(self, listener: str = "") -> str:
        claim = self.guard.chains.decide(Connect(), Peer(listener=listener), None)
        assert isinstance(claim, Claim)
        return claim.name


def test_a_provider_whose_plan_is_the_same_stays_and_others_are_exchanged() -> None:
    async def main() -> None:
        town = Town()
        await town.guard.start(town.order("a1", "b1"))
        assert (town.asked(), town.told) == ("a1", 1)
        a, b = town.made
        (await town.guard.prepare(town.order("a1", "b2"))).commit()
        assert (town.asked(), town.told) == ("a1", 2)
        assert (town.made[2].before, len(town.made)) == (b, 3)
        await until(lambda: b.life == ["start", "stop"], "the end of the one that was exchanged")
        assert a.life == ["start"]
        (await town.guard.prepare(town.order("b2", "a1"))).commit()
        assert (town.asked(), town.told, len(town.made)) == ("b2", 3, 3)
        await town.guard.stop()
        assert [one.life for one in town.made] == [["start", "stop"]] * 3
        with pytest.raises(Refused):
            town.asked()

    run(main())


def test_the_code_of_a_provider_is_loaded_in_a_thread_before_it_is_made() -> None:
    told: list[object] = []

    def load() -> None:
        told.append(threading.current_thread())

    def make(before: Provider | None) -> Provider:
        told.append("made")
        return Known("a", 1, before, False)

    async def main() -> None:
        town = Town()
        order = Order((Planned("a", 1, make, load),))
        await town.guard.start(order)
        (await town.guard.prepare(order)).commit()
        thread, made = told
        assert thread is not threading.current_thread()
        assert made == "made"
        await town.guard.stop()

    run(main())


def test_a_change_of_other_settings_looks_at_no_connection() -> None:
    async def main() -> None:
        town = Town()
        await town.guard.start(town.order("a1", listeners={"x": ("a",)}))
        (await town.guard.prepare(town.order("a1", listeners={"x": ("a",)}))).commit()
        assert (town.told, len(town.made)) == (1, 1)
        (await town.guard.prepare(town.order("a1"))).commit()
        assert town.told == 2, "another listener asks another chain"
        given = replace(town.order("a1"), given=GivenRoles({"a": ("fleet",)}))
        (await town.guard.prepare(given)).commit()
        assert (town.told, town.guard.roles_of(Claim("V1", "a"))) == (3, ("fleet",)), "roles are given to clients"
        assert len(town.made) == 1
        await town.guard.stop()

    run(main())


def test_a_change_that_is_withdrawn_or_fails_leaves_what_was_there() -> None:
    async def main() -> None:
        town = Town()
        await town.guard.start(town.order("a1"))
        prepared = await town.guard.prepare(town.order("a2", "b1"))
        assert town.asked() == "a1"
        prepared.withdraw()
        await until(lambda: [one.life for one in town.made[1:]] == [["start", "stop"]] * 2, "the end of both")
        with pytest.raises(OSError, match="b is faulty"):
            await town.guard.prepare(town.order("c1", "b1", faulty="b1"))
        await until(lambda: all(one.life[-1] == "stop" for one in town.made[1:]), "the end of those that were begun")
        assert (town.asked(), town.told, town.made[0].life) == ("a1", 1, ["start"])
        await town.guard.stop()

    run(main())


def test_each_listener_asks_its_own_chain_and_a_provider_tells_its_changes() -> None:
    async def main() -> None:
        town = Town()
        await town.guard.start(town.order("a1", "b1", listeners={"mqtts://[::]:8883": ("b",)}))
        assert (town.asked(), town.asked("mqtts://[::]:8883")) == ("a1", "b1")
        town.made[1].changed()
        assert town.told == 2
        assert not town.guard.chains.holds(Claim("a1", "a"), Peer(listener="mqtts://[::]:8883"))
        assert town.guard.chains.holds(Claim("a1", "a"), NOWHERE)
        await town.guard.stop()
        await asyncio.sleep(0)

    run(main())


def test_the_roles_of_a_client_that_is_away_are_those_of_today() -> None:
    async def main() -> None:
        town = Town()
        standing = town.guard.standing
        assert standing("a", "CAR", ("old",)) == ("old",), "before the providers are started"
        order = town.order("a1", "b1", "c1")
        given = GivenRoles({"a": ("all",), "b": ("all",), "c": ("all",)}, {("a", "CAR"): ("own",)})
        await town.guard.start(replace(order, given=given))
        a, b, c = town.made
        a.lists = c.names_roles = True
        a.names = {"CAR", "BUS"}
        assert standing("a", "CAR", ("old",)) == ("all", "own")
        assert standing("a", "BUS", ("old",)) == ("all",)
        assert standing("a", "VAN", ("old",)) is None
        assert standing("b", "VAN", ("old",)) == ("all",), "it has no list"
        assert standing("c", "VAN", ("old",)) == ("old",), "those that it named itself are not known apart"
        assert standing("d", "VAN", ("old",)) == ("old",), "a provider that has another name now"
        assert standing(USERS, "app", ("old",)) is None, "there are no users now"
        await town.guard.stop()
        assert standing("a", "VAN", ("old",)) == ("old",), "the end of the node takes no right away"
        assert standing(USERS, "app", ("old",)) == ("old",)
        assert b.life == ["start", "stop"]

    run(main())
