"""Random pairs of topologies on a real mesh: what ``mesh plan`` says is what ``mesh up`` does.

After each pair the nodes have in force what those of a mesh have that starts freshly from the new file: its nodes run
in this process, on another loopback address. Vehicles and a back end exchange QoS 1 messages all the time, and connect
again when a pair closes them.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import paho.mqtt.client as paho
import yaml

from mesh.cluster.host import all_file_descriptors
from mesh.cluster.inforce import in_force
from mesh.cluster.lifecycle import planned
from mesh.cluster.present import asked
from mesh.topology.load import load
from mesh.topology.nodes import nodes
from tests.e2e.checker import missing
from tests.e2e.live import TEXT, Live
from tests.support.planned import Nodes
from tests.support.ports import free_ports
from tests.support.stock import Stock
from tests.support.waiting import wait_until

Text = dict[str, Any]
Edit = Callable[[random.Random, Text], None]

HERE: Final = "127.0.0.1"
THERE: Final = "127.0.0.3"  # of the fresh mesh
CARS: Final = 3
REFUSED: Final = 6
DIFFERS: Final = 5
PAUSE: Final = 0.05  # seconds between two messages to and from each vehicle


# Changes of a topology file, as its text in plain values


def _limit(name: str, *choices: object) -> Edit:
    def edit(chance: random.Random, text: Text) -> None:
        text.setdefault("limits", {})[name] = chance.choice(choices)

    return edit


def _key(section: str, name: str, *choices: object) -> Edit:
    def edit(chance: random.Random, text: Text) -> None:
        text.setdefault(section, {})[name] = chance.choice(choices)

    return edit


def _users(chance: random.Random, text: Text) -> None:
    names = chance.sample(["app", "old", "new", "night"], chance.randint(0, 3))
    text["backends"]["users"] = [{"user": name, "password": f"word-{chance.randint(1, 3)}"} for name in names]


def _weights(chance: random.Random, text: Text) -> None:
    for pool in text["pools"]:
        for edge in pool["edges"]:
            edge["weight"] = chance.choice([50, 100, 200])


def _rule(chance: random.Random, text: Text) -> None:
    spare = text["pools"][-1]
    if len(text["pools"]) > 1:
        spare["match"] = {"prefix": chance.choice(["n-", "north-", "x"])}


def _pool(chance: random.Random, text: Text) -> None:
    """A second pool comes or goes; its vehicles' prefix is one that no vehicle has."""
    if len(text["pools"]) > 1:
        text["pools"].pop()
    else:
        text["pools"].append({"name": "north", "match": {"prefix": "n-"}, "edges": [{"name": "edge-3"}]})


def _listener(chance: random.Random, text: Text) -> None:
    group = chance.choice([*text["front_doors"], *text["cores"]])
    if len(group["listen"]) > 1:
        group["listen"].pop()
    else:
        group["listen"].append({"mqtt": f"{HERE}:{free_ports(1)[0]}"})


def _replicas(chance: random.Random, text: Text) -> None:
    text["front_doors"][0]["replicas"] = chance.choice([1, 2])


def _inbox(chance: random.Random, text: Text) -> None:
    text["inbox"] = {
        "subscribe": ["vehicles/{vehicle}/cmd/#"], "qos": 1, "max_messages": chance.choice([1000, 2000, 3000]),
        "when_full": chance.choice(["reject", "drop_oldest"]),
    }  # fmt: skip


def _access(chance: random.Random, text: Text) -> None:
    text["access"] = {
        "vehicles": {"publish": chance.choice([[], ["shared/#"]]), "subscribe": chance.choice([[], ["notices/#"]])},
        "refusal": chance.choice(["not_authorized", "unspecified_error"]),
    }


def _fleet(chance: random.Random, text: Text) -> None:
    text["topics"]["fleet"] = chance.choice([["fleet/#"], ["fleet/#", "news/#"], []])


def _console(chance: random.Random, text: Text) -> None:
    text["console"] = f"{HERE}:{free_ports(1)[0]}"


def _no_console(chance: random.Random, text: Text) -> None:
    text.pop("console", None)


def _identity(chance: random.Random, text: Text) -> None:
    text["identity"]["pattern"] = chance.choice(["[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9-]{1,60}"])


def _template(chance: random.Random, text: Text) -> None:
    text["topics"]["vehicle"] = "cars/{vehicle}/#"
    text["inbox"]["subscribe"] = ["cars/{vehicle}/cmd/#"]


def _without_edge(chance: random.Random, text: Text) -> None:
    text["pools"][0]["edges"].pop()


LIVE: Final[tuple[Edit, ...]] = (
    _limit("queue_messages", 1000, 1500, 2000), _limit("receive_maximum", 512, 1024), _limit("sessions", 5000, 6000),
    _limit("max_packet_size", "1MiB", "2MiB"), _limit("topic_levels", 64, 128), _limit("packet_rate", 128, 256),
    _limit("connections", 300, 400), _limit("held_bytes", "256KiB", "512KiB"), _limit("attach_grace", "30s", "60s"),
    _limit("owner_timeout", "2s", "5s"), _limit("spool_messages", 50_000, 60_000), _limit("topic_aliases", 8, 16),
    _limit("wrong_passwords", 10, 20), _limit("connect_wait", "20s", "30s"), _limit("memory", "512MiB", "1GiB"),
    _key("telemetry", "sample", 0.0, 0.25, 1.0), _key("telemetry", "watch", [], ["a-car"], ["a-car", "b-car"]),
    _key("telemetry", "sys_interval", "5s", "10s"), _key("telemetry", "otlp", "http://127.0.0.1:9", None),
    _key("dead_letters", "age", "1d", "30d"), _key("backends", "when_full", "hold", "dead_letter"),
    _users, _weights, _rule, _pool, _listener, _replicas, _inbox, _access, _fleet, _console, _no_console,
)  # fmt: skip
ROLLING: Final[tuple[Edit, ...]] = (_key("map", "cache", 100_000, 150_000), _identity)
REFUSABLE: Final[tuple[Edit, ...]] = (_template, _without_edge)


def changed(chance: random.Random, text: Text, rolling: float, refused: float) -> Text:
    """Another topology: some live changes, and with these chances a rolling one and one that is refused."""
    made: Text = json.loads(json.dumps(text))
    for edit in chance.sample(LIVE, chance.randint(1, 8)):
        edit(chance, made)
    if chance.random() < rolling:
        chance.choice(ROLLING)(chance, made)
    if chance.random() < refused:
        chance.choice(REFUSABLE)(chance, made)
    if made.get("telemetry", {}).get("otlp", "") is None:
        del made["telemetry"]["otlp"]
    return made


# The traffic


@final
class Traffic:
    """Commands to some vehicles and their reports, all QoS 1, in durable sessions."""

    def __init__(self, mesh: Live) -> None:
        self._mesh = mesh
        self.cars = [Stock(f"car-{number}", paho.MQTTv311, clean=False) for number in range(CARS)]
        self.back_end = Stock("back-end", paho.MQTTv311, clean=False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def start(self) -> None:
        self.back_end.connect(self._mesh.second)
        self.back_end.subscribe("vehicles/+/status", 1)
        for car in self.cars:
            car.connect(self._mesh.vehicles)
            car.subscribe(f"vehicles/{car.name}/cmd/#", 1)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            self.rounds += 1
            for car in self.cars:
                car.publish(f"vehicles/{car.name}/status", str(self.rounds))
                self.back_end.publish(f"vehicles/{car.name}/cmd/go", str(self.rounds))

    def stop(self) -> None:
        """End it; every message must have arrived."""
        self._ended.set()
        self._thread.join(10.0)
        clients = [*self.cars, self.back_end]
        wait_until(lambda: all(len(one.acked) == len(one.published) for one in clients), "all acknowledgements", 60.0)
        reports = [message for car in self.cars for message in car.acked]
        wait_until(lambda: not missing(reports, self.back_end.received), "all reports", 60.0)
        for car in self.cars:
            sent = [one for one in self.back_end.acked if one[0].split("/")[1] == car.name]
            wait_until(lambda sent=sent, car=car: not missing(sent, car.received), "all commands", 60.0)  # type: ignore[misc]
        for client in clients:
            client.leave()


# A fresh mesh


def fresh(text: Text, folder: Path, secret: Path) -> dict[str, Any]:
    """What each node has in force of a mesh that starts with this topology; ``secret``: the file of the mesh secret."""
    made = json.loads(json.dumps(text).replace(f"{HERE}:", f"{THERE}:"))
    made["data"] = str(folder / "data")
    file = folder / "fresh.yaml"
    file.write_text(json.dumps(made))
    topology = load(file)
    topology.data.mkdir(mode=0o700)
    shutil.copy(secret, topology.data / "secret")
    plan = planned(topology)
    running = Nodes(plan)
    try:
        running.start()
        found, silent = asked(topology, plan.endpoints, lambda client: in_force(client, topology.mesh))
    finally:
        running.stop()
    assert not silent, f"no answer of {silent}"
    values = {name: one.settings for name, one in found.items()}
    restored: dict[str, Any] = json.loads(json.dumps(values).replace(f"{THERE}:", f"{HERE}:"))
    return restored


# Bounds of packets between nodes are raised at once and lowered at the next start only.
OWN: Final = ("log.", "cores.listen")  # the log's levels are those of this process; an edge chooses its internal ports
RAISED: Final = ("doors.frame", "cores.packets.", "vehicles.links.frame", "vehicles.topic_aliases")


def differences(present: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """How what is in force differs from that of a fresh mesh."""
    found: list[str] = []
    for name in sorted({*present, *expected}):
        if name not in present or name not in expected:
            found.append(f"{name} is in one mesh only")
            continue
        one, other = flat(present[name]), flat(expected[name])
        for path in sorted({*one, *other}):
            old, new = one.get(path), other.get(path)
            if old == new or path.startswith(OWN):
                continue
            if path.startswith(RAISED) and isinstance(old, int) and isinstance(new, int) and old >= new:
                continue
            found.append(f"{name}: {path} is {old}, and {new} in a fresh mesh")
    return found


def flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        inner: item
        for name, part in value.items()
        for inner, item in flat(part, f"{path}.{name}" if path else name).items()
    }


# Pairs


@final
class Pairs:
    """One mesh and its pairs: each begins with what the one before has left."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        (folder / "pairs").mkdir()
        self.mesh = Live(folder / "pairs")
        self._number = 0
        self.kinds: dict[str, int] = {}

    def start(self) -> None:
        self.mesh.start()
        text: Text = yaml.safe_load(
            TEXT.format(
                name=self.mesh.name, vehicles=self.mesh.vehicles, backends=self.mesh.backends,
                second=self.mesh.second, data=self.mesh.topology.data,
            )
        )  # fmt: skip
        self._text = text

    def next(self, rolling: float = 0.25, refused: float = 0.15) -> str:
        """One pair; a line about it. Raises ``AssertionError``."""
        self._number += 1
        chance = random.Random(f"{self._seed}:{self._number}")
        new = changed(chance, self._text, rolling, refused)
        traffic = Traffic(self.mesh)
        traffic.start()
        try:
            said = self._pair(new)
        except AssertionError as error:
            raise AssertionError(f"seed {self._seed}, pair {self._number}: {error}\n{json.dumps(new)}") from error
        finally:
            traffic.stop()
        return f"pair {self._number}: {said}, {traffic.rounds * CARS * 2} messages"

    def _pair(self, new: Text) -> str:
        mesh, file = self.mesh, str(self.mesh.file)
        mesh.file.write_text(json.dumps(new))
        before = self._in_force()
        pids = {name: mesh.pid(name) for name in mesh.names()}
        code, plan = self._plan(file)
        kinds = sorted({change["kind"] for change in plan["changes"]})
        self.kinds.update({kind: self.kinds.get(kind, 0) + 1 for kind in kinds or ["none"]})
        if "refused" in kinds:
            assert code == REFUSED
            said = mesh.command("up", file, expected=1)
            mesh.file.write_text(json.dumps(self._text))
            assert self._in_force() == before, f"a refused change has an effect: {said}"
            assert {name: mesh.pid(name) for name in mesh.names()} == pids
            return "refused, nothing was changed"
        assert code == (DIFFERS if plan["changes"] else 0)
        mesh.command("up", file, "--wait", "--over", "1s")
        self._text = new
        mesh.topology = load(mesh.file)
        expected = set(self._names())
        wait_until(lambda: set(mesh.names()) == expected, f"the nodes {sorted(expected)}")
        wait_until(lambda: all(mesh.figures(name) for name in expected), "all nodes are ready")
        restarted = {name for name, pid in pids.items() if name in expected and mesh.pid(name) != pid}
        assert restarted == set(plan["restarts"]) & set(pids), f"{restarted} were restarted, not {plan['restarts']}"
        code, after = self._plan(file)
        assert (code, after["changes"]) == (0, [])
        folder = self._folder / f"fresh-{self._number}"
        folder.mkdir()
        wrong = differences(self._in_force(), fresh(new, folder, mesh.topology.data / "secret"))
        assert not wrong, "\n".join(wrong)
        return f"{len(plan['changes'])} changes ({', '.join(kinds)}), {len(restarted)} nodes restarted"

    def _plan(self, file: str) -> tuple[int, dict[str, Any]]:
        """The exit code of ``mesh plan``, and what it says."""
        done = self.mesh.outcome("plan", file, "--json")
        assert done.stdout, done.stderr
        plan: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, plan

    def _names(self) -> list[str]:
        return [spec.name for spec in nodes(self.mesh.topology)]

    def _in_force(self) -> dict[str, Any]:
        return {name: dict(one.settings) for name, one in self.mesh.in_force(10.0).items()}

    def stop(self) -> None:
        self.mesh.file.write_text(json.dumps(self._text))  # a pair that failed may have left another one
        self.mesh.stop()


@contextmanager
def pairs(folder: Path, seed: int) -> Iterator[Pairs]:
    """A running mesh for pairs."""
    all_file_descriptors()
    running = Pairs(folder, seed)
    running.start()
    try:
        yield running
    finally:
        running.stop()
