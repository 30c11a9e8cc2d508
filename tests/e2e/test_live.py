"""Every live key: put in force under traffic, it is in the parts of all nodes within two seconds, and nothing is lost.

The tables say for each key which part of which kind of node must have the new value; what clients see of it is below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.request import urlopen

import pytest

from mesh.cluster.inforce import InForce
from mesh.policy.secrettext import SecretText
from mesh.topology.load import load
from mesh.topology.topology import (
    BackendUser,
    CoreSpec,
    EdgeSpec,
    FrontDoorSpec,
    InboxSpec,
    ListenerSpec,
    LogsSpec,
    PoolSpec,
    RoleSpec,
    Topology,
)
from mesh.topology.units import Address
from mesh.wire.packets import MQTT5, Ack, Connack, Connect, Disconnect, Publish, SubAck, Subscribe, Subscription
from mesh.wire.reasons import (
    BAD_USER_NAME_OR_PASSWORD,
    IMPLEMENTATION_SPECIFIC_ERROR,
    NOT_AUTHORIZED,
    USE_ANOTHER_SERVER,
)
from tests.e2e.fleet import Fleet
from tests.e2e.live import Expected, Live, at
from tests.e2e.scraping import scrape
from tests.support.bare import Bare
from tests.support.livekeys import live_keys
from tests.support.mesh import kill_and_wait
from tests.support.ports import free_port, free_ports
from tests.support.waiting import until, wait_until
from tools.tracing.collector import Collector

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.long]
VEHICLES = 24
MB = 1 << 20

# By key: the new value, and where each kind of node has it; "=" stands for the value itself.
LIMITS: Final[dict[str, tuple[Any, dict[str, dict[str, Any]]]]] = {
    "connect_timeout": (11.0, {
        "door": {"vehicles/connect_timeout": "="}, "core": {"clients/connect_timeout": "="},
        "edge": {"cores/connect_timeout": "="},
    }),
    "wrong_passwords": (40, {
        "door": {"wrong_passwords/address": 2000, "wrong_passwords/pair": 10},
        "core": {"clients/wrong_passwords/address": "=", "clients/wrong_passwords/pair": 10},
    }),
    "pending_connects": (4000, {"door": {"vehicles/pending": "="}, "core": {"clients/pending": "="}}),
    "connects": (19_000, {"door": {"vehicles/rates/node": 380_000}, "core": {"clients/rates/node": 380_000}}),
    "network_connects": (4900, {"door": {"vehicles/rates/network": 98_000}, "core": {"clients/rates/network": 98_000}}),
    "address_connects": (900, {"door": {"vehicles/rates/address": 18_000}, "core": {"clients/rates/address": 18_000}}),
    "vehicle_connects": (700, {"door": {"vehicles/vehicle_connects": "="}}),
    "max_packet_size": (2 * MB, {
        "door": {"vehicles/packets/max_packet_size": "="}, "edge": {"broker/max_packet": "="},
        "core": {"broker/max_packet": "=", "clients/packets/max_packet_size": "="},
    }),
    "topic_levels": (100, {
        "door": {"vehicles/packets/max_topic_levels": "="}, "edge": {"doors/packets/max_topic_levels": "="},
        "core": {"clients/packets/max_topic_levels": "="},
    }),
    "in_flight": (30, {"edge": {"broker/in_flight": "="}}),
    "receive_maximum": (900, {"edge": {"broker/receive_maximum": "="}}),
    "backend_in_flight": (901, {"core": {"broker/in_flight": "="}}),
    "backend_receive_maximum": (902, {"core": {"broker/receive_maximum": "="}}),
    "max_keep_alive": (1800, {"edge": {"broker/max_keep_alive": "="}, "core": {"broker/max_keep_alive": "="}}),
    "packet_rate": (200, {"door": {"vehicles/packet_rate": "="}, "core": {"clients/packet_rate": "="}}),
    "queue_messages": (1100, {"edge": {"broker/max_queue_messages": "="}, "core": {"broker/max_queue_messages": "="}}),
    "queue_bytes": (65 * MB, {"edge": {"broker/max_queue_bytes": "="}}),
    "queue_patience": (9.0, {
        "edge": {"broker/queue_patience": "="},
        "core": {"broker/queue_patience": "=", "edges/edge-1/patience": "=", "edges/edge-2/patience": "="},
    }),
    "tier_queue_messages": (900_000, {"edge": {"broker/tier_queue_messages": "="}}),
    "tier_queue_bytes": (900 * MB, {"edge": {"broker/tier_queue_bytes": "="}}),
    "backend_queue_messages": (900_001, {"core": {"broker/backend_queue_messages": "="}}),
    "backend_queue_bytes": (901 * MB, {"core": {"broker/backend_queue_bytes": "="}}),
    "backend_session_expiry": (86_400.0, {"core": {"broker/max_session_expiry": 86_400}}),
    "spool_messages": (900_002, {"core": {"edges/edge-1/spool_messages": "=", "edges/edge-2/spool_messages": "="}}),
    "spool_bytes": (902 * MB, {"core": {"edges/edge-1/spool_bytes": "=", "edges/edge-2/spool_bytes": "="}}),
    "held_bytes": (300 << 10, {"door": {"vehicles/links/held_per_vehicle": "="}}),
    "connections": (400, {"door": {"vehicles/connections": "="}, "core": {"clients/connections": "="}}),
    "sessions": (900_003, {"edge": {"broker/max_sessions": "="}, "core": {"broker/max_sessions": "="}}),
    "retained": (900_004, {"edge": {"broker/max_retained": "="}, "core": {"broker/max_retained": "="}}),
    "vehicle_sessions": (15, {"edge": {"broker/vehicle_sessions": "="}}),
    "vehicle_subscription_bytes": (63 * MB, {"edge": {"broker/vehicle_subscription_bytes": "="}}),
    "vehicle_retained_bytes": (62 * MB, {"edge": {"broker/vehicle_retained_bytes": "="}}),
    "vehicle_queue_bytes": (127 * MB, {"edge": {"broker/vehicle_queue_bytes": "="}}),
    "match_nodes": (8000, {"edge": {"broker/match_nodes": "="}, "core": {"broker/match_nodes": "="}}),
    "memory": (512 * MB, {"edge": {"broker/memory": "="}, "core": {"broker/memory": "="}}),
    "disk": (4096 * MB, {"edge": {"broker/disk": "="}, "core": {"broker/disk": "="}}),
    "subscriptions": (9999, {"edge": {"broker/max_subscriptions": "="}, "core": {"broker/max_subscriptions": "="}}),
    "topic_aliases": (20, {
        "door": {"vehicles/topic_aliases": "="}, "edge": {"broker/topic_aliases": "="},
        "core": {"broker/topic_aliases": "="},
    }),
    "session_expiry": (172_800.0, {"edge": {"broker/max_session_expiry": 172_800}}),
    "shared_patience": (20.0, {"edge": {"broker/shared_patience": "="}, "core": {"broker/shared_patience": "="}}),
    "owner_timeout": (3.0, {"core": {"edges/edge-1/owner_timeout": "=", "edges/edge-2/owner_timeout": "="}}),
    "connect_wait": (29.0, {"door": {"vehicles/answer_timeout": "="}}),
    "attach_grace": (50.0, {"edge": {"broker/attach_grace": "=", "doors/attach_grace": "="}}),
}  # fmt: skip

# Other sections, with the path of the section in the topology. Lists as JSON has them.
ACCESS: Final[dict[str, dict[str, Any]]] = {
    "core": {
        "backends/publish": ["#"], "backends/subscribe": ["#", "$SYS/#", "$dead-letters/#"],
        "backends/refuse": ["never/#"], "backends/refusal": IMPLEMENTATION_SPECIFIC_ERROR, "broker/on_refusal": 1,
    },
    "edge": {
        "vehicles/publish": ["shared/#"], "vehicles/subscribe": ["notices/#"], "vehicles/refuse": ["+/+/secret"],
        "vehicles/refusal": IMPLEMENTATION_SPECIFIC_ERROR, "broker/on_refusal": 1, "vehicles/fleet": ["fleet/#", "n/#"],
    },
}  # fmt: skip

for _settings in ACCESS.values():
    _settings |= {
        "roles/guest/publish": ["g/#"], "roles/guest/subscribe": ["h"], "roles/guest/will": False,
        "roles/guest/retain": False, "roles/guest/qos": 1,
    }  # fmt: skip

# The keys whose test is below, with its name.
ELSEWHERE: Final = {
    "topics.fleet": "values", "inbox": "inboxes", "front_doors": "nodes", "front_doors.*.replicas": "nodes",
    "front_doors.*.listen": "listeners", "front_doors.*.redirect": "redirects", "cores": "nodes",
    "cores.*.replicas": "nodes", "cores.*.listen": "listeners", "cores.*.redirect": "redirects", "pools": "pools",
    "pools.*.match.prefix": "pools", "pools.*.edges": "pools", "pools.*.edges.*.weight": "pools",
    "backends.anonymous": "anonymous", "backends.users": "users", "backends.users.*.password": "users",
    "backends.when_full": "values", "telemetry.otlp": "telemetry", "telemetry.sample": "telemetry",
    "telemetry.watch": "telemetry", "telemetry.sys_interval": "values", "telemetry.prometheus": "telemetry",
    "console": "telemetry", "logs.level": "values", "logs.nodes": "values", "logs.modules": "values",
}  # fmt: skip
SECTIONS: Final = ("inbox.", "access.", "dead_letters.")  # all of their keys are in ``values`` and ``inboxes``
# Who clients are, and the ways in: tests/frontdoor and tests/core change these keys at real nodes.
AT_NODES: Final = (
    "backends.providers", "backends.users.*.roles", "cores.*.listen.*.", "front_doors.*.listen.*.",
    "identity.client_ids", "identity.providers", "identity.set_username",
)  # fmt: skip


def test_every_live_key_has_a_case() -> None:
    keys = set(live_keys())
    cases = {*(f"limits.{name}" for name in LIMITS), *ELSEWHERE}
    assert {key for key in keys - cases if not key.startswith((*SECTIONS, *AT_NODES))} == set()
    assert cases - keys == set()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = Live(tmp_path_factory.mktemp("live"))
    running.start()
    try:
        yield running
    finally:
        running.stop()


def merged(*all: Expected) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in all:
        for kind, values in one.items():
            found.setdefault(kind, {}).update(values)
    return found


def of_limits() -> Expected:
    return merged(*(
        {kind: {path: value if at == "=" else at for path, at in paths.items()} for kind, paths in places.items()}
        for value, places in LIMITS.values()
    ))  # fmt: skip


async def vehicle(mesh: Live, name: str, port: int = 0) -> Bare:
    return await Bare(MQTT5).hello(port or mesh.vehicles, name)


async def knock(port: int, name: str, user: str | None = None, password: str = "") -> Bare:
    """A client that has sent CONNECT."""
    client = await Bare(MQTT5).connect(port)
    client.send(Connect(MQTT5, name, username=user, password=password.encode() if password else None))
    return client


async def subscribe(client: Bare, filter: str) -> int:
    """The reason code of a SUBACK."""
    before = len([one for one in client.packets if isinstance(one, SubAck)])
    client.send(Subscribe(before + 1, [Subscription(filter, 1)]))
    return int((await client.wait_all(SubAck, before + 1))[-1].reasons[0])


async def publish(client: Bare, topic: str) -> int:
    """The reason code of a PUBACK."""
    before = len([one for one in client.packets if isinstance(one, Ack)])
    client.send(Publish(topic, b"1", 1, False, False, before + 1))
    return (await client.wait_all(Ack, before + 1))[-1].reason


async def values(mesh: Live) -> None:
    """All values of limits, access and dead letters in one revision."""
    early = await vehicle(mesh, "early")
    told = (await early.wait(Connack)).properties
    assert told is not None
    assert told.receive_maximum == 1024
    for filter in ("notices/a", "n/a"):
        assert await subscribe(early, filter) == NOT_AUTHORIZED
    assert await subscribe(early, "vehicles/early/secret") == 1
    assert await publish(early, "shared/a") == NOT_AUTHORIZED

    def edit(topology: Topology) -> Topology:
        access, letters = topology.access, topology.dead_letters
        return replace(
            topology,
            fleet=("fleet/#", "n/#"),
            limits=replace(topology.limits, **{name: value for name, (value, _) in LIMITS.items()}),
            access=replace(
                access, refusal=IMPLEMENTATION_SPECIFIC_ERROR, on_refusal="disconnect",
                vehicles=replace(
                    access.vehicles, publish=("shared/#",), subscribe=("notices/#",), refuse=("+/+/secret",)
                ),
                backends=replace(access.backends, refuse=("never/#",)),
                roles=(RoleSpec(name="guest", publish=("g/#",), subscribe=("h",), will=False, retain=False, qos=1),),
            ),
            dead_letters=replace(
                letters, bytes=900 * MB, share=60 * MB, age=86_400.0, expired=True, when_full="hold"
            ),
            backends=replace(topology.backends, when_full="hold"),
            telemetry=replace(topology.telemetry, sys_interval=2.0),
            logs=LogsSpec(
                level="warning", nodes={"edge-1": "error", "edge-2": "error"}, modules={"mesh.transport": "debug"}
            ),
        )  # fmt: skip

    letters = {
        "broker/dead_letter_bytes": 900 * MB, "broker/dead_letter_share": 60 * MB, "broker/dead_letter_age": 86_400.0,
        "broker/dead_letter_expired": True, "broker/dead_letter_when_full": 3, "broker/system_interval": 2.0,
        "broker/backend_when_full": 3,
    }  # fmt: skip
    fleet = {"core": {"fleet": ["fleet/#", "n/#"], "edges/edge-1/fleet": ["fleet/#", "n/#"]}}
    logs = {
        kind: {"log/mesh": level, "log/mesh.transport": "DEBUG"}
        for kind, level in (("door", "WARNING"), ("core", "WARNING"), ("edge", "ERROR"))
    }
    await mesh.change(edit, merged(of_limits(), ACCESS, fleet, logs, {"core": letters, "edge": letters}))

    late = await vehicle(mesh, "late")
    told = (await late.wait(Connack)).properties
    assert told is not None
    assert (told.receive_maximum, told.maximum_packet_size) == (900, 2 * MB)
    for client in (early, late):
        assert await publish(client, "shared/a") in (0, 0x10)
        assert await publish(client, "shared-not/a") == IMPLEMENTATION_SPECIFIC_ERROR
        for filter in ("notices/a", "n/a"):
            assert await subscribe(client, filter) == 1
    sender = await Bare(MQTT5).hello(mesh.second, "sender")
    assert await publish(sender, "n/a") in (0, 0x10)
    for client in (early, late):
        await until(lambda client=client: [one.topic for one in client.publishes()] == ["n/a"], "the fleet's message")  # type: ignore[misc]
        await client.close()
    await sender.close()


async def inboxes(mesh: Live) -> None:
    """Values of the inbox rule, then an end of all inboxes, then others."""
    inbox = InboxSpec(
        subscribe=("vehicles/{vehicle}/cmd/#", "vehicles/{vehicle}/more"), qos=2, expiry=86_400.0, max_messages=999,
        max_bytes=50 * MB, when_full="drop_oldest",
    )  # fmt: skip
    expected = {
        "inbox/subscribe": ["vehicles/VEHICLE/cmd/#", "vehicles/VEHICLE/more"], "inbox/qos": [2],
        "inbox/expiry": 86_400, "broker/inbox_messages": 999, "broker/inbox_bytes": 50 * MB,
        "broker/inbox_when_full": 1,
    }  # fmt: skip
    await mesh.change(lambda topology: replace(topology, inbox=None), {"edge": {"inbox": {}}})
    await mesh.change(lambda topology: replace(topology, inbox=inbox), {"edge": expected})
    sender = await Bare(MQTT5).hello(mesh.backends, "sender")
    assert await publish(sender, "vehicles/never-seen/more") in (0, 0x10)
    await sender.close()
    car = await vehicle(mesh, "never-seen")
    assert await subscribe(car, "vehicles/never-seen/more") == 1
    await until(lambda: [one.topic for one in car.publishes()] == ["vehicles/never-seen/more"], "what waited for it")
    await car.close()


async def users(mesh: Live) -> None:
    """A removed user's connection is closed; one whose password has changed stays, and needs the new one later."""
    stays = await knock(mesh.backends, "stays", "app", "first-1")
    goes = [await knock(port, "goes", "old", "first-2") for port in (mesh.backends, mesh.second)]
    for client in (stays, *goes):
        assert (await client.wait(Connack)).reason == 0
    def known(told: InForce) -> dict[str, str]:
        """The users of a core, with the seals of their passwords."""
        seals: dict[str, str] = told.settings["clients"]["providers"]["users"]["users"]
        return seals

    before = known((await mesh.told())["core"])
    words = {"app": "other-1", "new": "first-3"}
    rule = tuple([BackendUser(user=user, password=SecretText(text=word)) for user, word in words.items()])
    await mesh.change(lambda topology: replace(topology, backends=replace(topology.backends, users=rule)))
    after = await mesh.told()
    for core in ("core", "second"):
        assert list(known(after[core])) == ["app", "new"]
    assert known(after["core"])["app"] != before["app"]
    for client in goes:
        await client.wait_closed()
        assert (await client.wait(Disconnect)).reason == NOT_AUTHORIZED
    for user, password, reason in (
        ("app", "first-1", BAD_USER_NAME_OR_PASSWORD), ("app", "other-1", 0), ("new", "first-3", 0),
    ):  # fmt: skip
        client = await knock(mesh.second, f"asks-{password}", user, password)
        assert (await client.wait(Connack)).reason == reason, (user, password)
        await client.close()
    assert await publish(stays, "x") in (0, 0x10)
    await stays.close()


async def telemetry(mesh: Live) -> None:
    """Spans of a watched vehicle go to a receiver; metrics and console have addresses; all end with their keys."""
    collector = Collector()
    cars = [await vehicle(mesh, "watched"), await vehicle(mesh, "plain")]
    ports = 20_000 + free_port() % 10_000 // 16 * 16
    console = free_port()

    def edit(topology: Topology) -> Topology:
        changed = replace(
            topology.telemetry, otlp=collector.endpoint, sample=0.0, watch=("watched",),
            prometheus=Address("127.0.0.1", ports),
        )  # fmt: skip
        return replace(topology, telemetry=changed, console=Address("127.0.0.1", console))

    seen = {"telemetry/otlp": collector.endpoint, "telemetry/sample": 0.0, "telemetry/watch": ["watched"]}
    await mesh.change(edit, dict.fromkeys(("door", "edge", "core"), seen))
    found = await mesh.told()
    for name in mesh.names():
        text = await asyncio.to_thread(scrape, found[name].settings["telemetry"]["prometheus"])
        assert f'node="{name}"' in text
    for name, car in zip(("watched", "plain"), cars, strict=True):
        for _ in range(3):
            await publish(car, f"vehicles/{name}/up")
    spans = await asyncio.to_thread(collector.wait, lambda all: len(all) >= 3, 20.0)
    topics = {str(span.attributes.get("messaging.destination.name")) for span in spans}
    assert topics == {"vehicles/watched/up"}
    await asyncio.to_thread(serve_status, f"http://127.0.0.1:{console}/api/status")

    def undo(topology: Topology) -> Topology:
        gone = replace(topology.telemetry, otlp=None, watch=(), prometheus=None, sample=0.5)
        return replace(topology, telemetry=gone, console=None)

    seen = {"telemetry/otlp": None, "telemetry/sample": 0.5, "telemetry/watch": [], "telemetry/prometheus": ""}
    await mesh.change(undo, dict.fromkeys(("door", "edge", "core"), seen))
    for car in cars:
        await car.close()
    collector.close()


def serve_status(url: str) -> None:
    def serves() -> bool:
        try:
            with urlopen(url, timeout=5) as answer:
                return bool(json.load(answer)["nodes"])
        except OSError:
            return False

    wait_until(serves, f"{url} answers")


async def listeners(mesh: Live) -> None:
    """Added ones serve; connections of removed ones end, and no others."""
    door, core = free_ports(2)

    def edit(topology: Topology) -> Topology:
        def more(group: Any, port: int) -> Any:
            return replace(
                group, listen=(*group.listen, ListenerSpec(kind="mqtt", address=Address("127.0.0.1", port)))
            )

        return replace(
            topology, front_doors=(more(topology.front_doors[0], door),),
            cores=(more(topology.cores[0], core), topology.cores[1]),
        )  # fmt: skip

    before = mesh.topology
    early = await vehicle(mesh, "early")
    await mesh.change(edit)
    found = await mesh.told()
    for name, part, port in (("door", "vehicles", door), ("door-2", "vehicles", door), ("core", "clients", core)):
        assert f"mqtt://127.0.0.1:{port}" in [one["address"] for one in found[name].settings[part]["listen"]], name
    added = [await vehicle(mesh, "added", door), await Bare(MQTT5).hello(core, "added")]
    await mesh.change(lambda _topology: before)
    for client in added:
        await client.wait_closed()
        assert isinstance(client.packets[-1], Disconnect)
    assert await publish(early, "vehicles/early/up") in (0, 0x10)
    await early.close()
    with pytest.raises(OSError, match="Connect"):
        await Bare(MQTT5).connect(core)


async def redirects(mesh: Live) -> None:
    """New clients are sent away, those that are connected stay."""
    cases = (("front_doors", mesh.vehicles), ("cores", mesh.backends))
    early = [await Bare(MQTT5).hello(port, "early") for _, port in cases]
    before = mesh.topology

    def edit(topology: Topology) -> Topology:
        return replace(
            topology, **{name: tuple(replace(one, redirect="other:1883") for one in getattr(topology, name))
                         for name, _ in cases}
        )  # fmt: skip

    seen = {"door": {"vehicles/redirect": "other:1883"}, "core": {"clients/redirect": "other:1883"}}
    await mesh.change(edit, seen)
    for (_, port), client in zip(cases, early, strict=True):
        late = await knock(port, "late", "late")
        assert (await late.wait(Connack)).reason == USE_ANOTHER_SERVER
        assert await publish(client, "vehicles/early/up") in (0, 0x10)
        await late.close()
        await client.close()
    await mesh.change(lambda _topology: before, {"door": {"vehicles/redirect": ""}, "core": {"clients/redirect": ""}})


async def pools(mesh: Live) -> None:
    """New vehicles follow weights and rules at once; those that have an edge stay."""
    old = await vehicle(mesh, "north-old")
    home = await asyncio.to_thread(mesh.where, "north-old")

    def edit(topology: Topology) -> Topology:
        (standard,) = topology.pools
        first, second = standard.edges
        return replace(topology, pools=(
            replace(standard, edges=(first, replace(second, weight=0))),
            PoolSpec(name="north", prefix="north-", edges=(EdgeSpec(name="edge-3"),)),
        ))  # fmt: skip

    north = {"prefix": "north-", "edges": {"edge-3": 100}}
    seen = {"pools/standard/edges": {"edge-1": 100, "edge-2": 0}, "pools/north": north}
    await mesh.change(edit, dict.fromkeys(("door", "edge", "core"), seen))
    await until(lambda: "edge-3" in mesh.names() and mesh.figures("edge-3"), "edge-3 is ready")
    for number in range(4):
        car = await vehicle(mesh, f"weighed-{number}")
        assert await asyncio.to_thread(mesh.where, f"weighed-{number}") == "edge-1"
        await car.close()
    new = await vehicle(mesh, "north-new")
    assert await asyncio.to_thread(mesh.where, "north-new") == "edge-3"
    assert await asyncio.to_thread(mesh.where, "north-old") == home
    for car in (old, new):
        await car.close()

    def wider(topology: Topology) -> Topology:
        standard, north = topology.pools
        return replace(topology, pools=(standard, replace(north, prefix="no")))

    await mesh.change(wider, {kind: {"pools/north/prefix": "no"} for kind in ("door", "edge", "core")})
    car = await vehicle(mesh, "nomad")
    assert await asyncio.to_thread(mesh.where, "nomad") == "edge-3"
    await car.close()


async def nodes(mesh: Live) -> None:
    """A group and replicas come and go; the others stay."""
    before, kept = mesh.topology, {name: mesh.pid(name) for name in mesh.names()}
    side = free_port()

    def listen(port: int) -> tuple[ListenerSpec, ...]:
        return (ListenerSpec(kind="mqtt", address=Address("127.0.0.1", port)),)

    def edit(topology: Topology) -> Topology:
        return replace(
            topology,
            front_doors=(
                replace(topology.front_doors[0], replicas=3), FrontDoorSpec(name="side", listen=listen(side)),
            ),
            cores=(*topology.cores, CoreSpec(name="third", replicas=2, listen=listen(0))),
        )  # fmt: skip

    added = {"door-3", "side", "third", "third-2"}
    await mesh.change(edit)
    await until(lambda: added <= set(mesh.names()) and all(mesh.figures(name) for name in added), "the added nodes")
    car = await vehicle(mesh, "aside", side)
    await mesh.change(lambda topology: replace(
        topology, cores=tuple(replace(one, replicas=1) for one in topology.cores)
    ))  # fmt: skip
    await until(lambda: "third-2" not in mesh.names(), "the end of a replica")
    await mesh.change(lambda _topology: before)
    await car.wait_closed()
    await until(lambda: not added & set(mesh.names()), "the end of the added nodes")
    assert {name: mesh.pid(name) for name in kept} == kept


async def anonymous(mesh: Live) -> None:
    """Without ``anonymous`` those that gave no password are closed."""
    client = await Bare(MQTT5).hello(mesh.backends, "nameless")
    user = await knock(mesh.backends, "user", "app", "other-1")
    await mesh.change(
        lambda topology: replace(topology, backends=replace(topology.backends, anonymous=False)),
        {"core": {"clients/order": {"": ["users"]}}},
    )
    await client.wait_closed()
    assert (await client.wait(Disconnect)).reason == NOT_AUTHORIZED
    assert await publish(user, "x") in (0, 0x10)
    await user.close()


async def without_etcd(mesh: Live) -> None:
    """Settings stay in force, also in a node that starts; commands say what they could not reach, and change nothing.
    Afterwards one of two changes at the same time goes through, and the other is told."""
    file = str(mesh.file)
    revision = {name: one.revision for name, one in (await mesh.told()).items()}
    mesh.file.write_text(mesh.file.read_text() + "limits: {in_flight: 77}\n")
    mesh.stop_etcd()
    try:
        plan, up, status = await asyncio.gather(*(
            asyncio.to_thread(mesh.outcome, *words)
            for words in (("plan", file), ("up", file), ("status", "--topology", file))
        ))  # fmt: skip
        assert "etcd does not answer" in plan.stderr + plan.stdout
        assert "in_flight" in plan.stdout, plan
        assert up.returncode == 1, up
        assert "nothing was changed" in up.stderr
        assert "etcd does not answer" in status.stderr + status.stdout
        await kill_and_wait(mesh, "edge-1")
        await until(lambda: mesh.revisions() == revision, "edge-1 follows what it has on disk")
    finally:
        mesh.start_etcd()
    await asyncio.to_thread(
        wait_until, lambda: mesh.answers() == revision, "all nodes follow the same revision as before"
    )
    ups = await asyncio.gather(*(asyncio.to_thread(mesh.outcome, "up", file) for _ in range(2)))
    assert sorted(one.returncode for one in ups) in ([0, 0], [0, 1]), ups
    told = "".join(one.stdout + one.stderr for one in ups)
    assert told.count("confirmed") >= 1, told
    found = await mesh.told()
    assert {name: at(found[name], "broker/in_flight") for name in ("edge-1", "edge-2")} == {"edge-1": 77, "edge-2": 77}
    assert {one.revision for one in found.values()} == {max(revision.values()) + 1}
    mesh.topology = load(file)


async def every_live_key(mesh: Live) -> None:
    fleet = Fleet(mesh, "live", VEHICLES, stock=2)
    await fleet.connect()
    async with fleet.traffic():
        await without_etcd(mesh)
        await fleet.rounds(1)
    before = {name: mesh.pid(name) for name in mesh.names()}
    async with fleet.traffic():
        await fleet.rounds(1)
        for step in (values, inboxes, users, telemetry, listeners, redirects, pools, nodes):
            await step(mesh)
            await fleet.rounds(1)
    assert {name: mesh.pid(name) for name in before} == before
    await fleet.leave()
    await anonymous(mesh)


def test_every_live_key_takes_effect_under_traffic(mesh: Live) -> None:
    asyncio.run(every_live_key(mesh))
