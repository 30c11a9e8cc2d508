"""The load generator against an independent broker, Mosquitto."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.bench.plan import DIRECT, SCENARIOS, LoadPlan
from mesh.bench.run import LoadFailed, Workers, measure, measure_connections
from tests.support.ports import free_port
from tests.support.waiting import wait_until

PAIRS = LoadPlan("pairs", DIRECT, pairs=4, window=8, size=64)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tuple[str, int], int]]:
    """The address and the process number of a Mosquitto."""
    port = free_port()
    settings = tmp_path_factory.mktemp("mosquitto") / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\nuser root\n")
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None, "scripts/test gets it"
    process = subprocess.Popen([program, "-c", str(settings)])
    wait_until(lambda: listens(port), "mosquitto listens")
    yield ("127.0.0.1", port), process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("rate", [0, 400])
def test_every_sent_message_is_accounted_for(broker: tuple[tuple[str, int], int], qos: int, rate: int) -> None:
    address, pid = broker
    plan = replace(PAIRS, qos=qos, rate=rate)
    result = measure(plan, address, address, {"broker": pid}, seconds=0.5, warm_up=0.2, workers=2)
    assert result.connected == 8
    assert result.sent == result.received > 0
    assert (result.lost, result.repeated, result.missing, result.overdue, result.lost_connections) == (0, 0, 0, 0, 0)
    assert 0 < result.p50 <= result.p99 <= result.greatest
    assert set(result.cpu) == {"broker"}


def test_each_receiver_of_a_fan_out_is_counted(broker: tuple[tuple[str, int], int]) -> None:
    address, pid = broker
    plan = LoadPlan("fan", fan_out=10, window=2)
    result = measure(plan, address, address, {"broker": pid}, seconds=0.5, warm_up=0.1)
    assert result.received == 10 * result.sent > 0
    assert result.lost == 0


def test_a_fleet_is_split_over_several_processes(broker: tuple[tuple[str, int], int]) -> None:
    address, pid = broker
    plan = LoadPlan("fleet", fleet=31, window=100, rate=800, size=64)
    result = measure(plan, address, address, {"broker": pid}, seconds=0.6, warm_up=0.2, workers=3)
    assert result.connected == 31 + 3 + 1
    assert result.sent == result.received > 0
    assert (result.lost, result.repeated, result.missing, result.overdue, result.lost_connections) == (0, 0, 0, 0, 0)


def test_idle_vehicles_connect_twice_and_are_counted(broker: tuple[tuple[str, int], int]) -> None:
    address, pid = broker
    found = measure_connections(LoadPlan("idle", idle=50), address, {"broker": pid})
    assert found.count == 50
    assert found.first > 0
    assert found.again > 0


def test_busy_nodes_fail_the_measurement(
    broker: tuple[tuple[str, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pid = broker
    used = count()  # each reading is one second more, independent of this machine's load
    monkeypatch.setattr("mesh.bench.run.cpu_of", lambda pids: {pid: float(next(used))})
    with pytest.raises(LoadFailed, match=r"edge-1 were still busy 0\.5 s after"):
        measure(PAIRS, address, address, {"edge-1": pid}, seconds=0.1, warm_up=0.0, settle=0.5)


def test_a_failed_connect_names_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        address = ("127.0.0.1", taken.getsockname()[1])
        with Workers(1) as load, pytest.raises(LoadFailed, match=f"127.0.0.1:{address[1]}"):
            load.connect(PAIRS, address, address)


def test_a_group_shares_the_messages_of_all_sources(broker: tuple[tuple[str, int], int]) -> None:
    address, pid = broker
    # at a fixed rate, because Mosquitto with its default settings drops messages when a group's queue is full
    plan = replace(SCENARIOS["sharedsub-20-5"], rate=800)
    result = measure(plan, address, address, {"broker": pid}, seconds=0.3, warm_up=0.1)
    assert result.connected == 25
    assert result.sent == result.received > 0
    assert (result.lost, result.repeated, result.lost_connections) == (0, 0, 0)


@given(st.integers(0, 5000), st.integers(1, 8))
def test_the_shares_of_a_plan_add_up(pairs: int, processes: int) -> None:
    plan = LoadPlan("many", pairs=pairs, first=7)
    parts = [plan.part(number, processes) for number in range(processes)]
    names = [number for part in parts for number in range(part.first, part.first + part.pairs)]
    assert names == list(range(7, 7 + pairs))


def test_scenario_names_match_their_plans() -> None:
    for name, plan in SCENARIOS.items():
        assert plan.name == name
        assert plan.pairs or plan.fan_out or plan.idle or plan.fleet


@pytest.mark.parametrize("name", ["fanout-1-2000", "sharedsub-20-5"])
def test_sinks_that_belong_to_one_process_are_not_split(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: its sinks must be in one process"):
        SCENARIOS[name].part(0, 2)
