"""Settings of an edge that change while it serves: a vehicle that was connected before, and one that comes after."""

from __future__ import annotations

from dataclasses import replace

from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import AccessRule, InboxSpec, Topology
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, Ack, Connack, Publish, SubAck, Subscribe, Subscription
from tests.support.effects import effect_of
from tests.support.nodes import Change, Nodes, etcd, publish, with_nodes
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture


def vehicles(rule: AccessRule) -> Change:
    def change(topology: Topology) -> Topology:
        return replace(topology, access=replace(topology.access, vehicles=rule))

    return change


@effect_of("access.vehicles.publish", "access.vehicles.subscribe", "access.vehicles.refuse")
def test_access_of_vehicles(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        allowed = AccessRule(publish=("common/#",), subscribe=("common/#",))
        before = await mesh.vehicle("V1")
        publish(before, "common/x")
        await before.acked(PUBACK, [1])
        await mesh.change(vehicles(allowed))
        after = await mesh.vehicle("V2")
        for client in (before, after):
            publish(client, "common/x", packet_id=2)
            client.send(Subscribe(3, [Subscription("common/x", 1)]))
            assert (await client.wait(SubAck)).reasons == [1]
        await mesh.change(vehicles(replace(allowed, refuse=("common/x",))))
        backend = await mesh.backend("b")
        publish(backend, "common/x")
        for client, name in ((before, "V1"), (after, "V2")):
            publish(client, "common/x", packet_id=4)
            await client.acked(PUBACK, [1, 2, 4] if client is before else [2, 4])
            codes = [(ack.packet_id, ack.reason) for ack in client.packets if isinstance(ack, Ack)]
            assert codes[-1] == (4, reasons.NOT_AUTHORIZED)
            assert (2, reasons.NOT_AUTHORIZED) not in codes
            assert not client.closed.is_set()
            assert mesh.edge._broker_host is not None
            session = mesh.edge._broker_host.broker.sessions.get((0, name, name))
            assert session is not None
            assert list(session.interests) == []

    with_nodes(etcd, main)


@effect_of("inbox")
def test_an_inbox_is_added_to_a_running_mesh(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        backend = await mesh.backend("b")
        publish(backend, "vehicles/NEW/cmd")
        await backend.acked(PUBACK, [1])
        spec = InboxSpec(subscribe=("vehicles/{vehicle}/cmd",))
        await mesh.change(lambda topology: replace(topology, inbox=spec))
        publish(backend, "vehicles/NEW/cmd", b"waits", packet_id=2)
        await backend.acked(PUBACK, [1, 2])
        codes = [ack.reason for ack in backend.packets if isinstance(ack, Ack)]
        assert codes == [reasons.NO_MATCHING_SUBSCRIBERS, 0]
        vehicle = await mesh.vehicle("NEW", "vehicles/NEW/cmd")
        assert (await vehicle.wait(Publish)).payload == b"waits"

    with_nodes(etcd, main)


@effect_of("fleet")
def test_a_fleet_filter_is_added_and_removed(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1", "fleet/news")
        backend = await mesh.backend("b")
        backend.send(Publish("site/map", b"map", 1, True, False, 7))
        await backend.acked(PUBACK, [7])
        await mesh.change(lambda topology: replace(topology, fleet=("site/#",)))
        after = await mesh.vehicle("V2")
        assert mesh.edge._broker_host is not None
        kept = mesh.edge._broker_host.broker.retained
        await until(lambda: kept.get("site/map"), "the retained message")
        for client in (before, after):
            client.packets.clear()
            client.send(Subscribe(9, [Subscription("site/map", 1), Subscription("fleet/news", 1)]))
            assert (await client.wait(SubAck)).reasons == [1, reasons.NOT_AUTHORIZED]
            assert (await client.wait(Publish)).payload == b"map"

    with_nodes(etcd, main)


@effect_of("limits.attach_grace")
def test_grace_of_a_lost_link(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        await mesh.vehicle("V1")
        await mesh.limits(attach_grace=500.0)
        devices = mesh.edge._devices
        assert devices is not None
        assert devices.grace == 500.0
        assert mesh.edge._broker_host is not None
        assert mesh.edge._broker_host.broker.settings.attach_grace == 500.0

    with_nodes(etcd, main)


@effect_of("limits.receive_maximum", "limits.in_flight")
def test_what_connack_said_to_vehicles(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1", "vehicles/V1/cmd")
        await mesh.limits(receive_maximum=7, in_flight=1)
        after = await mesh.vehicle("V2", "vehicles/V2/cmd")
        told = []
        for client in (before, after):
            properties = (await client.wait(Connack)).properties
            assert properties is not None
            told.append(properties.receive_maximum)
        assert told == [1024, 7]
        backend = await mesh.backend("b")
        for number in range(1, 7, 2):
            publish(backend, "vehicles/V2/cmd", packet_id=number)
            publish(backend, "vehicles/V1/cmd", packet_id=number + 1)
        await before.wait_all(Publish, 3)
        assert len(after.publishes()) == 1

    with_nodes(etcd, main)
