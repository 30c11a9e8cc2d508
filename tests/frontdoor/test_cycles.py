"""What a connection leaves behind is freed without the cycle collector, which never looks at old objects."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path

from mesh.wire.packets import MQTT5, PUBACK, PUBREC, PUBREL, Ack, Disconnect, Publish, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.real import RealMesh
from tests.support.waiting import until

# Of the clients in this test there are readers and packets as well, so these are only of the server.
TYPES = (
    "Connection", "Delivery", "Device", "DevicePath", "EndpointClient", "Exchange", "HeldFrame", "Inbound", "Interest",
    "Lifecycle", "Message", "Outbound", "Receipt", "RetainedBacklog", "Search", "Session", "Timer", "TopicNode",
    "Vehicle",
)  # fmt: skip


async def lives(mesh: RealMesh, names: list[str]) -> None:
    """Connections of all kinds: they subscribe, get retained and other messages, and end in different ways."""
    back_end = await mesh.back_end("back-end", "vehicles/#")
    for name in names:
        for round in range(4):
            properties = Properties()
            properties.session_expiry = 0 if round % 2 else 60
            fields = {"properties": properties} if round else {}
            car = await Bare(MQTT5 if round else 4).hello(mesh.port, name, clean_start=round % 2 == 1, **fields)
            car.send(Publish(f"vehicles/{name}/r", b"r", 1, True, packet_id=1))
            car.send(Publish(f"vehicles/{name}/t", b"t", 2, packet_id=2))
            await car.acked(PUBREC, [2])
            car.send(Ack(PUBREL, 2), Subscribe(3, [Subscription("+/+/#", 1), Subscription(f"vehicles/{name}/+", 1)]))
            await car.wait(SubAck)
            publish = (await car.wait_all(Publish, 1))[0]
            if publish.qos:
                car.send(Ack(PUBACK, publish.packet_id))
            if round == 1:
                await car.close()
            elif round == 2:
                car.send(Disconnect())
                await car.wait_closed()
            # else the next connection, or the next round, takes the session over
    await back_end.close()
    last = await Bare(4).hello(mesh.port, names[-1], clean_start=True)
    await last.close()


def test_the_end_of_a_connection_leaves_no_cycle(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealMesh(tmp_path) as mesh:
            await lives(mesh, ["WARM"])
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await lives(mesh, [f"CAR{number}" for number in range(5)])
                mesh.edge.devices.turn.wake()
                await until(lambda: len(mesh.edge.back_ends.group.streams) == 0)
                await asyncio.sleep(0)
                gc.collect()
                found = Counter(
                    type(one).__name__ for one in gc.garbage if type(one).__module__.startswith("mesh.")
                )
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
            assert {name: count for name, count in found.items() if name in TYPES} == {}

    run(main())
