"""Door and edge with the real broker and journal, and with bare and stock clients."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.wire.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.real import RealMesh
from tests.support.waiting import PATIENCE, until


def complete(received: list[tuple[bytes, int]]) -> bool:
    return len(received) == 30


def test_upstream_across_restarts_is_acked_once_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealMesh(tmp_path) as mesh:
            await (await mesh.back_end("audit", "vehicles/#")).close()
            cars = [await Bare(4 + n % 2).hello(mesh.port, f"CAR{n}") for n in range(4)]
            for round in range(3):
                for number, car in enumerate(cars):
                    car.send(*[
                        Publish(f"vehicles/CAR{number}/t", b"%d" % n, 1 + n % 2, packet_id=n + 1)
                        for n in range(20 * round, 20 * round + 20)
                    ])  # fmt: skip
                await mesh.restart(kill=round != 1)
            for car in cars:
                await car.acked(PUBACK, range(1, 61, 2))
                await car.acked(PUBREC, range(2, 62, 2))
                car.send(*[Ack(PUBREL, packet_id) for packet_id in car.acks(PUBREC)])
                await car.acked(PUBCOMP, range(2, 62, 2))
                assert not car.closed.is_set()
            audit = await mesh.back_end("audit")

            def arrived(n: int) -> list[int]:
                return [int(p.payload) for p in audit.publishes() if p.topic == f"vehicles/CAR{n}/t"]

            seen: set[int] = set()

            def answer() -> bool:
                for publish in audit.publishes():
                    if publish.qos and publish.packet_id not in seen:
                        seen.add(publish.packet_id)
                        audit.send(Ack(PUBACK if publish.qos == 1 else PUBREC, publish.packet_id))
                return all(set(range(60)) <= set(arrived(n)) for n in range(4))

            await until(answer)
            for n in range(4):
                firsts = list(dict.fromkeys(arrived(n)))
                assert firsts == sorted(firsts)
                twice = [value for value in arrived(n) if value % 2]
                assert len(twice) == 30  # QoS 2: exactly once

    run(main())


def test_downstream_across_restarts_reaches_a_connected_vehicle_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealMesh(tmp_path) as mesh:
            car = await Bare().hello(mesh.port, "CAR", clean_start=False)
            car.send(Subscribe(1, [Subscription("vehicles/CAR/cmd/#", 2)]))
            await car.wait(SubAck)
            for round in range(4):
                sender = await mesh.back_end(f"sender{round}")
                sender.send(*[
                    Publish("vehicles/CAR/cmd/x", b"%d" % (10 * round + n), 1 + n % 2, packet_id=n + 1)
                    for n in range(10)
                ])  # fmt: skip
                await sender.acked(PUBACK, range(1, 11, 2))
                await sender.acked(PUBREC, range(2, 12, 2))
                await car.wait_all(Publish, 10 * round + 10)
                if round % 2:  # in the other rounds the acknowledgements are missing at first
                    for publish in car.publishes()[10 * round - 10 :]:
                        car.send(Ack(PUBACK if publish.qos == 1 else PUBREC, publish.packet_id))
                await mesh.restart(kill=round != 2)
            await until(lambda: len(car.acks(PUBREL)) == 20)
            car.send(*[Ack(PUBCOMP, packet_id) for packet_id in car.acks(PUBREL)])
            assert [publish.payload for publish in car.publishes()] == [b"%d" % n for n in range(40)]
            assert not any(publish.dup for publish in car.publishes())
            await until(lambda: sum(len(s.outbound) for s in mesh.edge.broker.sessions.all() if s.vehicle) == 0)
            assert not car.closed.is_set()

    run(main())


def test_stock_clients_exchange_messages_through_door_and_edge(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealMesh(tmp_path) as mesh:
            for version in (MQTTProtocolVersion.MQTTv31, MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5):
                name = f"CAR{int(version)}"
                received: list[tuple[bytes, int]] = []
                ready = threading.Event()
                car = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
                car.username_pw_set(name)
                car.on_connect = lambda client, *_, name=name: client.subscribe(f"vehicles/{name}/#", 2)
                car.on_subscribe = lambda *_, ready=ready: ready.set()
                car.on_message = lambda _c, _u, m, received=received: received.append((m.payload, m.qos))
                car.connect_async("127.0.0.1", mesh.port)
                car.loop_start()
                assert await asyncio.to_thread(ready.wait, PATIENCE)
                sent = [car.publish(f"vehicles/{name}/t", f"{n}", n % 3) for n in range(30)]
                for info in sent:
                    await asyncio.to_thread(info.wait_for_publish, PATIENCE)
                await until(partial(complete, received))
                assert sorted(received, key=lambda pair: int(pair[0])) == [(b"%d" % n, n % 3) for n in range(30)]
                car.disconnect()
                car.loop_stop()

    run(main())
