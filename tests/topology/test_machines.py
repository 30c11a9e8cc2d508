"""Which nodes may listen on the same port: those that cannot be on the same machine."""

from __future__ import annotations

import pytest

from tests.topology.small import CORE, DOOR, POOL, mistakes, only

ON_CLUSTER = 'ray: "10.0.0.5:6379"\netcd: ["http://10.0.0.6:2379"]\n'


def doors(*resources: str) -> str:
    """A door for each of these resources, all on one port."""
    listed = "".join(
        f'  - {{name: door-{letter}, listen: [{{mqtt: "0.0.0.0:1883"}}], resources: {{{words}}}}}\n'
        for letter, words in zip("abc", resources, strict=False)
    )
    return f"identity: {{providers: [anonymous]}}\nfront_doors:\n{listed}"


def accepted(text: str) -> bool:
    try:
        return not mistakes(text)
    except pytest.fail.Exception:  # no error was raised
        return True


def test_doors_on_three_machines_share_a_port() -> None:
    text = f"mesh: demo\n{ON_CLUSTER}{doors('host-a: 1', 'host-b: 1', 'host-c: 1')}{CORE}{POOL}"
    assert accepted(text)


@pytest.mark.parametrize("second", ["", "host-a: 1", "host-a: 1, host-b: 1", "host-b: 0"])
def test_doors_that_may_be_on_one_machine_need_a_port_each(second: str) -> None:
    what = only(f"mesh: demo\n{ON_CLUSTER}{doors('host-a: 1', second)}{CORE}{POOL}").what
    assert "0.0.0.0:1883 is already used by front_doors[0].listen[0].mqtt" in what
    assert "different resources" in what


def test_without_a_cluster_all_doors_are_on_one_machine() -> None:
    mistake = only(f"mesh: demo\n{doors('host-a: 1', 'host-b: 1')}{CORE}{POOL}")
    assert mistake.key == "front_doors[1].listen[0].mqtt"
    assert "resources" not in mistake.what


def cores(port: int) -> str:
    return f'cores: [{{name: core, replicas: 2, listen: [{{mqtt: "127.0.0.1:{port}"}}]}}]\n'


def test_cores_on_one_machine_cannot_share_a_port() -> None:
    mistake = only(f"mesh: demo\n{DOOR}{cores(1884)}{POOL}")
    assert mistake.key == "cores[0].replicas"
    assert "the session of a back end belongs to one core" in mistake.what
    assert "a port of its own" in mistake.what


def test_cores_on_several_machines_share_a_port() -> None:
    assert accepted(f"mesh: demo\n{ON_CLUSTER}{DOOR}{cores(1884)}{POOL}")


def test_cores_with_ports_that_the_system_chooses_share_none() -> None:
    assert accepted(f"mesh: demo\n{DOOR}{cores(0)}{POOL}")


def test_a_cluster_needs_an_etcd_that_its_machines_reach() -> None:
    mistake = only(f'mesh: demo\nray: "10.0.0.5:6379"\netcd: embedded\n{DOOR}{CORE}{POOL}')
    assert mistake.key == "etcd"
    assert "etcd: [http://etcd-1:2379]" in mistake.what
    assert only(f'mesh: demo\nray: "10.0.0.5:6379"\n{DOOR}{CORE}{POOL}').key == "ray"


def test_the_metrics_take_no_port_of_a_listener_or_of_the_console() -> None:
    small = f"mesh: demo\n{DOOR}{CORE}{POOL}"
    listener = only(f'{small}telemetry: {{prometheus: "127.0.0.1:1882"}}\n')
    assert (listener.key, "which front_doors[0].listen[0].mqtt" in listener.what) == ("telemetry.prometheus", True)
    console = only(f'{small}console: "127.0.0.1:9465"\ntelemetry: {{prometheus: "127.0.0.1:9464"}}\n')
    assert (console.key, "which console" in console.what) == ("telemetry.prometheus", True)


def test_metrics_may_have_the_port_of_a_listener_on_another_machine() -> None:
    telemetry = 'telemetry: {prometheus: "0.0.0.0:1882"}\n'
    pool = "pools: [{name: standard, edges: [{name: edge-1}, {name: edge-2, resources: {host-b: 1}}]}]\n"
    core = CORE.replace("1884", "1900")  # the core's metrics have 1884
    text = f"mesh: demo\n{ON_CLUSTER}{doors('host-a: 1')}{core}{pool}{telemetry}"
    assert accepted(text)
    here = only(text.replace("resources: {host-b: 1}", "resources: {host-a: 1}"))
    assert "'edge-2' would have 0.0.0.0:1883, which front_doors[0].listen[0].mqtt" in here.what


@pytest.mark.parametrize(
    ("etcd", "place"),
    [
        ('["http://10.0.0.6:2379", "http://127.0.0.1:1883"]', "etcd[1]"),
        ('["http://localhost:1883"]', "etcd[0]"),
        ('{endpoints: ["http://127.0.0.1:1883"]}', "etcd.endpoints[0]"),
    ],
)
def test_a_listener_takes_no_port_of_an_etcd_on_this_machine(etcd: str, place: str) -> None:
    mistake = only(f"mesh: demo\netcd: {etcd}\n{DOOR}{CORE}{POOL}")
    assert mistake.key == "front_doors[0].listen[0].mqtt"
    assert f"127.0.0.1:1883 is already used by {place}" in mistake.what


def test_the_metrics_take_no_port_of_an_etcd_on_this_machine() -> None:
    text = f'mesh: demo\netcd: ["http://127.0.0.1:9465"]\n{DOOR}{CORE}{POOL}'
    mistake = only(f'{text}telemetry: {{prometheus: "127.0.0.1:9464"}}\n')
    assert mistake.key == "telemetry.prometheus"
    assert "which etcd[0]" in mistake.what


def test_an_etcd_of_another_machine_takes_no_port_of_this_one() -> None:
    assert accepted(f'mesh: demo\netcd: ["http://10.0.0.6:1883"]\n{DOOR}{CORE}{POOL}')
