"""The journal's record of a delivery: records of earlier versions are read, and the bytes have not changed."""

from __future__ import annotations

import pytest

from mesh.broker.persistence import Persistence
from mesh.broker.records import BODY, DELIVERY
from mesh.broker.session import Session
from mesh.core.spool import SPOOLED, Spool, edge_of
from mesh.session.message import Message
from mesh.session.outbound import Delivery, Depth, Outbound
from mesh.session.record import SHARED, WHOLE, Layout
from mesh.session.store import Item
from tests.fakes.store import MemoryStore, Stored
from tests.support.items import recovered

SINCE, EXPIRES = 1_700_000_000.5, 1_700_000_060.25
# Written by the version before broker and spool shared a record: with a shared body, two subscription identifiers and a
# group, and without any of them.
BROKER = bytes.fromhex(
    "000000000001117000000002dfdc1c35000001590641d954fc4020000041d954fc4f1000000002000000070000012c"
    "2473686172652f672f76656869636c65732f2b2f636d64"
)
BROKER_PLAIN = bytes.fromhex("00000000000000030000000000000000000000110141d954fc4020000000000000000000000000")
SPOOL = bytes.fromhex("0000000000011170000001590641d954fc4020000041d954fc4f1000000006656467652d31")
SPOOL_PLAIN = bytes.fromhex("0000000000000003000000110141d954fc4020000000000000000000000006656467652d31")


def rich() -> Delivery:
    delivery = Delivery(None, 2, True, (7, 300), SINCE, EXPIRES, 345)
    delivery.number = 70_000
    delivery.body = 12_345_678_901
    delivery.group = "$share/g/vehicles/+/cmd"
    return delivery


def plain() -> Delivery:
    delivery = Delivery(None, 1, False, (), SINCE, 0.0, 17)
    delivery.number = 3
    return delivery


def fields(delivery: Delivery) -> tuple[object, ...]:
    return (
        delivery.number, delivery.qos, delivery.retain, delivery.since, delivery.expires, delivery.size
    )  # fmt: skip


@pytest.mark.parametrize(("delivery", "meta"), [(rich(), BROKER), (plain(), BROKER_PLAIN)], ids=["rich", "plain"])
def test_broker_reads_records_of_earlier_versions(delivery: Delivery, meta: bytes) -> None:
    item = delivery.body + 5
    items = {item: Stored(item, DELIVERY, 1, meta, b"")}
    if delivery.body:
        items = {delivery.body: Stored(delivery.body, BODY, 0, b"", b""), **items}
    store = MemoryStore(items, item)
    Persistence(store).keep_session(Session(1, (1, "app", "c"), "", 10, Depth()))
    found = recovered(Persistence(store), store.live(), 10)
    (restored,) = found.sessions[1].outbound.waiting
    assert fields(restored) == fields(delivery)
    assert (restored.subscription_ids, restored.group) == (delivery.subscription_ids, delivery.group)
    assert (restored.body, restored.item, restored.position) == (delivery.body, item, item)


@pytest.mark.parametrize(("delivery", "meta"), [(rich(), BROKER), (plain(), BROKER_PLAIN)], ids=["rich", "plain"])
def test_broker_writes_the_same_bytes_as_earlier_versions(delivery: Delivery, meta: bytes) -> None:
    store = MemoryStore()
    body, delivery.body = delivery.body, 0
    session = Session(1, (1, "app", "c"), "", 10, Depth())
    Persistence(store).keep(session, delivery, Message("t", b"", 1, False, b"", 0.0))
    written = store.items[delivery.item].meta
    assert written[:8] + body.to_bytes(8, "big") + written[16:] == meta


@pytest.mark.parametrize(("delivery", "meta"), [(rich(), SPOOL), (plain(), SPOOL_PLAIN)], ids=["rich", "plain"])
def test_spool_reads_and_writes_the_bytes_of_earlier_versions(delivery: Delivery, meta: bytes) -> None:
    outbound = Outbound(Depth())
    item = Item(5, SPOOLED, 0, meta)
    store = MemoryStore()
    spool = Spool(store, "edge-1", 10, 1000)
    spool.restore([item], outbound)
    (restored,) = outbound.waiting
    assert edge_of(item) == "edge-1"
    assert fields(restored) == fields(delivery)
    assert (restored.item, restored.position, spool.bytes) == (5, 5, delivery.size)
    spool.keep(delivery, Message("t", b"", 1, False, b"", 0.0), delivery.number)
    assert store.items[delivery.item].meta == meta


@pytest.mark.parametrize("layout", [SHARED, WHOLE])
def test_fields_of_the_owner_follow_the_record(layout: Layout) -> None:
    meta = layout.pack(plain(), 65_535) + b"mine"
    delivery, count = layout.unpack(Item(9, 1, 1, meta))
    assert (fields(delivery), count) == (fields(plain()), 65_535)
    assert meta[layout.size :] == b"mine"
