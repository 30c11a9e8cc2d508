"""The router: messages whose vehicle is being looked up are bounded in bytes, and always answered."""

from __future__ import annotations

import asyncio

import pytest

from mesh.core.owners import Owners
from mesh.core.router import Router
from mesh.session.inbound import Publisher, Receipt
from mesh.session.message import Message
from mesh.version import compiled
from mesh.wire.packets import PUBREC, Ack
from mesh.wire.reasons import IMPLEMENTATION_SPECIFIC_ERROR, NO_MATCHING_SUBSCRIBERS, QUOTA_EXCEEDED
from tests.core.harness import vehicle_of
from tests.fakes.store import FaultyStore, MemoryStore
from tests.support.bench import Bench, Client

MIB = 1 << 20

pure = pytest.mark.skipif(compiled(), reason="a compiled router takes no other class for a link")


class SlowOwners(Owners):
    """The map does not answer before ``answer`` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    def cached(self, vehicle: str) -> str | None:
        return None

    async def find(self, vehicle: str) -> str | None:
        await self.answer.wait()
        return None


class FaultyOwners(Owners):
    """The look-up has a fault, or the map refuses the name."""

    def cached(self, vehicle: str) -> str | None:
        return None

    async def find(self, vehicle: str) -> str | None:
        raise ValueError("the name of a vehicle must have at most 512 bytes")


class KnownOwners(Owners):
    """Every vehicle belongs to ``edge``, after a look-up."""

    def cached(self, vehicle: str) -> str | None:
        return None

    async def find(self, vehicle: str) -> str | None:
        await asyncio.sleep(0)
        return "edge"


class FaultyLink:
    """Sends what it gets, but raises at the payload ``bad``, when it counts as one that has to answer."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: Message, receipt: Receipt | None) -> None:
        if message.payload == b"bad":
            if receipt is not None:
                receipt.pending += 1
            raise ValueError("a fault of this program")
        self.sent.append(message.payload)


def _no_link(_edge: str) -> object:
    raise AssertionError("no vehicle has an edge in this test")


def test_messages_that_wait_for_a_look_up_are_bounded_in_bytes() -> None:
    async def run() -> None:
        owners = SlowOwners()
        router = Router(vehicle_of, (), owners, {}, _no_link, lambda: None)  # type: ignore[arg-type]
        router.broker = Bench().broker
        receipts = [Receipt(number + 1, 1, Publisher()) for number in range(100)]

        def forward(some: list[Receipt]) -> None:
            for number, receipt in enumerate(some):
                message = Message(f"vehicles/V{number % 7}/cmd", b"x" * MIB, 1, False, b"", 1.0)
                router.forward(message, receipt)

        forward(receipts)
        refused = [receipt.reason == QUOTA_EXCEEDED for receipt in receipts]
        assert refused.index(True) == 63  # 64 MiB, with the topics
        assert all(refused[63:])
        owners.answer.set()
        async with asyncio.timeout(5):
            while any(receipt.pending for receipt in receipts):
                await asyncio.sleep(0)
        more = [Receipt(200 + number, 1, Publisher()) for number in range(10)]
        forward(more)
        assert [receipt.reason for receipt in more] == [NO_MATCHING_SUBSCRIBERS] * 10
        await router.stop()

    asyncio.run(run())


@pure
def test_an_error_at_one_message_leaves_no_other_without_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        link = FaultyLink()
        router = Router(vehicle_of, (), KnownOwners(), {}, lambda edge: link, lambda: None)  # type: ignore[arg-type, return-value]
        router.broker = Bench().broker
        receipts = [Receipt(number, 1, Publisher()) for number in (1, 2, 3)]
        for receipt, payload in zip(receipts, (b"one", b"bad", b"two"), strict=True):
            router.forward(Message("vehicles/V1/cmd", payload, 1, False, b"", 1.0), receipt)
        assert [receipt.pending for receipt in receipts] == [1, 1, 1]
        async with asyncio.timeout(5):
            while any(receipt.pending for receipt in receipts):
                await asyncio.sleep(0)
        assert link.sent == [b"one", b"two"]
        reason = IMPLEMENTATION_SPECIFIC_ERROR
        assert [receipt.reason for receipt in receipts] == [NO_MATCHING_SUBSCRIBERS, reason, NO_MATCHING_SUBSCRIBERS]
        assert "cannot be sent to edge" in caplog.text
        await router.stop()

    asyncio.run(run())


@pure
def test_a_message_that_can_be_neither_sent_nor_refused_closes_its_publisher() -> None:
    async def run() -> None:
        link, bench = FaultyLink(), Bench(store=(store := FaultyStore()))
        publishers = [bench.client(name, protocol=protocol) for name, protocol in (("old", 4), ("new", 5))]
        router = Router(vehicle_of, (), KnownOwners(), {}, lambda edge: link, lambda: None)  # type: ignore[arg-type, return-value]
        router.broker = bench.broker
        receipts = [Receipt(1, 1, client.connection) for client in publishers]
        for receipt, payload in zip(receipts, (b"bad", b"two"), strict=True):
            router.forward(Message("vehicles/V1/cmd", payload, 1, False, b"", 1.0), receipt)
        store.faulty = True  # no dead letter can be written
        async with asyncio.timeout(5):
            while any(receipt.pending for receipt in receipts):
                await asyncio.sleep(0)
        bench.turn()
        assert [client.closed for client in publishers] == [True, False]
        assert link.sent == [b"two"]
        await router.stop()

    asyncio.run(run())


def test_an_error_in_the_look_up_is_an_answer() -> None:
    async def run() -> None:
        router = Router(vehicle_of, (), FaultyOwners(), {}, _no_link, lambda: None)  # type: ignore[arg-type]
        router.broker = Bench().broker
        receipts = [Receipt(number, 1, Publisher()) for number in (1, 2)]
        for receipt in receipts:
            router.forward(Message("vehicles/V1/cmd", b"x", 1, False, b"", 1.0), receipt)
        async with asyncio.timeout(5):
            while any(receipt.pending for receipt in receipts):
                await asyncio.sleep(0)
        assert [receipt.reason for receipt in receipts] == [IMPLEMENTATION_SPECIFIC_ERROR] * 2
        await router.stop()

    asyncio.run(run())


def _core(store: MemoryStore, owners: Owners) -> tuple[Bench, Router]:
    router = Router(vehicle_of, (), owners, {}, _no_link, lambda: None)  # type: ignore[arg-type]
    bench = Bench(store=store, forwarder=router, vehicle_of=vehicle_of)
    router.broker = bench.broker
    return bench, router


def _answers(sender: Client) -> list[tuple[int, int]]:
    return [(ack.packet_id, ack.reason) for ack in sender.take(Ack) if ack.type == PUBREC]


async def _placed(router: Router) -> None:
    async with asyncio.timeout(5):
        while router._pending_count:
            await asyncio.sleep(0)


def test_crash_before_the_owner_is_found_leaves_no_qos_2_identifier() -> None:
    """The message was in memory only, so its repeat is a new message."""

    async def run() -> None:
        store = MemoryStore()
        bench, router = _core(store, SlowOwners())
        sender = bench.client("s", expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1)
        bench.turn()
        await router.stop()
        owners = SlowOwners()
        bench, router = _core(store.crash(), owners)
        sender = bench.client("s", auto_ack=False, clean=False, expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1, dup=True)
        bench.turn()
        assert (_answers(sender), router._pending_count) == ([], 1)
        owners.answer.set()
        await _placed(router)
        bench.turn()
        assert _answers(sender) == [(1, NO_MATCHING_SUBSCRIBERS)]
        bench, router = _core(bench.store.crash(), SlowOwners())
        sender = bench.client("s", clean=False, expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1, dup=True)
        bench.turn()
        assert (_answers(sender), router._pending_count) == ([(1, 0)], 0)

    asyncio.run(run())


def test_repeat_of_a_qos_2_message_waits_for_the_same_look_up() -> None:
    async def run() -> None:
        owners = SlowOwners()
        bench, router = _core(MemoryStore(), owners)
        sender = bench.client("s", expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1)
        bench.turn()
        sender.lose()
        sender.connect(clean=False, expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1, dup=True)
        bench.turn()
        assert (_answers(sender), router._pending_count) == ([], 1)
        owners.answer.set()
        await _placed(router)
        bench.turn()
        assert _answers(sender) == [(1, NO_MATCHING_SUBSCRIBERS)]

    asyncio.run(run())


def test_session_that_ends_during_the_look_up_leaves_nothing_in_the_journal() -> None:
    async def run() -> None:
        owners = SlowOwners()
        bench, router = _core(MemoryStore(), owners)
        sender = bench.client("s", expiry=100)
        sender.publish("vehicles/V1/cmd", qos=2, packet_id=1)
        bench.turn()
        sender.lose()
        bench.client("s", clean=True, expiry=0).lose()
        owners.answer.set()
        await _placed(router)
        bench.turn()
        assert bench.store.items == {}

    asyncio.run(run())
