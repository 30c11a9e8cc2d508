"""Loading: defaults, every key, and the shipped examples."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import trustme

from mesh.broker.grant import ALL_FILTERS
from mesh.policy.identity import CLIENT_ID
from mesh.policy.secrettext import SecretText
from mesh.topology.load import load, loads
from mesh.topology.nodes import nodes
from mesh.topology.provider import ProviderSpec
from mesh.topology.remote import HeaderSpec, HttpSpec, JwtSpec
from mesh.topology.topology import (
    DEAD_LETTER,
    DROP_OLDEST,
    HOLD,
    NEVER,
    AccessRule,
    BackendUser,
    DeadLettersSpec,
    LimitsSpec,
    RoleSpec,
    Topology,
    as_dict,
    from_dict,
)
from mesh.topology.units import Address
from mesh.wire.packets import Connect
from tests.support.examples import EXAMPLES, example, prepared

SMALL = """\
mesh: demo
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]
pools: [{name: standard, edges: [{name: edge-1}]}]
"""

FULL = """\
mesh: demo
etcd:
  endpoints: ["https://etcd-1:2379", "https://10.0.0.2:2379"]
  tls: {ca: ca.pem, cert: mesh.pem, key: key.pem}
  auth: {user: mesh, password: secret}
identity:
  from: client_id
  pattern: "[A-Z0-9]{3,32}"
  default: GUEST
  client_ids: ["{vehicle}"]
  set_username: true
  providers:
    - {name: cert, certificate: dns, template: "{vehicle}.cars"}
    - name: tokens
      jwt:
        keys: https://issuer.example.com/keys
        ca: auth.pem
        refresh: 1m
        issuer: https://issuer.example.com
        audience: [mesh, fleet]
        algorithms: [ES256, RS256]
        leeway: 5s
        identity: car.vin
        roles: roles
    - name: ours
      http:
        url: https://auth.example.com/mqtt
        ca: auth.pem
        timeout: 1s
        parallel: 8
        cache: 0s
        on_failure: next
        headers: {X-Token: hidden, Authorization: Bearer hidden}
    - anonymous
topics: {vehicle: "fleet/{vehicle}/#"}
inbox:
  subscribe: ["fleet/{vehicle}/cmd/#"]
  qos: 2
  expiry: never
  max_messages: 10
  max_bytes: 1MiB
  when_full: drop_oldest
front_doors:
  - name: door
    replicas: 2
    listen: [{mqtt: "0.0.0.0:1883"}, {mqtt: "[::1]:1885", identify: [anonymous]}]
    resources: {door: 1}
cores:
  - {name: core, listen: [{mqtt: "core.example:1884"}], resources: {core: 0.5}}
pools:
  - {name: standard, edges: [{name: edge-1, weight: 200}, {name: edge-2, weight: 0, resources: {big: 1}}]}
  - {name: legacy, match: {prefix: OLD}, edges: [{name: old-1}]}
  - {name: oldest, match: {prefix: OLDEST}, edges: [{name: old-2}]}
backends: {anonymous: false, users: [{user: fleet, password: "pass word", roles: [fleet, guest]}], when_full: hold}
dead_letters: {bytes: 2GiB, share: 32MiB, age: 7d, expired: true, when_full: drop_oldest}
access:
  vehicles: {publish: [common/#], subscribe: [common/#], refuse: [common/no]}
  backends: {refuse: [closed/#]}
  roles:
    fleet: {publish: ["logs/{role}/{client_id}"], subscribe: [news], refuse: [news/no],
            will: false, retain: false, qos: 1}
    guest: {}
  refusal: unspecified_error
  on_refusal: disconnect
limits: {connect_timeout: 5s, max_packet_size: 64KiB, in_flight: 16, session_expiry: 30d, owner_timeout: 500ms}
map: {cache: 500_000}
telemetry: {otlp: "http://127.0.0.1:4317", sample: 0.25, watch: [VIN1], sys_interval: 30s, prometheus: "127.0.0.1:9464"}
console: "127.0.0.1:8080"
data: /var/lib/mesh
ray: "10.0.0.5:6379"
bind: 10.0.0.7
"""


@pytest.fixture
def full(tmp_path: Path) -> Topology:
    trustme.CA().cert_pem.write_to_path(tmp_path / "auth.pem")
    for name in ("ca.pem", "mesh.pem", "key.pem"):
        (tmp_path / name).touch(0o600)
    return loads(FULL.encode(), "full.yaml", tmp_path)


def test_smallest_file_gets_defaults(tmp_path: Path) -> None:
    topology = loads(SMALL.encode(), "small.yaml", tmp_path)
    assert topology.etcd.embedded
    assert topology.identity.compile().vehicle_of_connect(Connect(username="VIN_1-a")) == "VIN_1-a"
    assert topology.template == "vehicles/{vehicle}/#"
    assert topology.inbox is None
    assert topology.backends.anonymous
    assert topology.limits == LimitsSpec()
    assert topology.dead_letters == DeadLettersSpec()
    assert topology.backends.when_full == DEAD_LETTER
    assert topology.map.cache == 200_000
    assert topology.telemetry.otlp is None
    assert topology.console is None
    assert topology.data == tmp_path / ".mesh"
    assert (topology.ray, topology.bind) == ("local", "127.0.0.1")


def test_every_key_is_read(full: Topology, tmp_path: Path) -> None:
    assert full.etcd.endpoints == ("https://etcd-1:2379", "https://10.0.0.2:2379")
    assert full.etcd.tls is not None
    assert full.etcd.tls.ca == tmp_path / "ca.pem"
    assert full.etcd.auth is not None
    assert (full.etcd.auth.user, full.etcd.auth.password) == ("mesh", SecretText(text="secret"))
    assert full.identity.source == CLIENT_ID
    assert (full.identity.client_ids, full.identity.set_username) == (("{vehicle}",), True)
    assert full.identity.providers == (
        ProviderSpec(name="cert", certificate="dns", template="{vehicle}.cars"),
        ProviderSpec(name="tokens", jwt=JwtSpec(
            keys="https://issuer.example.com/keys", ca=tmp_path / "auth.pem", refresh=60.0,
            issuer=("https://issuer.example.com",), audience=("mesh", "fleet"), algorithms=("ES256", "RS256"),
            leeway=5.0, identity="car.vin", roles="roles",
        )),
        ProviderSpec(name="ours", http=HttpSpec(
            url="https://auth.example.com/mqtt", ca=tmp_path / "auth.pem", timeout=1.0, parallel=8, cache=0.0,
            on_failure="next", headers=(
                HeaderSpec("Authorization", SecretText(text="Bearer hidden")),
                HeaderSpec("X-Token", SecretText(text="hidden")),
            ),
        )),
        ProviderSpec(name="anonymous"),
    )  # fmt: skip
    assert [listener.identify for listener in full.front_doors[0].listen] == [(), ("anonymous",)]
    assert full.vehicle_template().vehicle_of("fleet/V1/x") == "V1"
    assert full.inbox is not None
    assert (full.inbox.qos, full.inbox.expiry, full.inbox.max_bytes, full.inbox.when_full) == (
        2,
        NEVER,
        1 << 20,
        DROP_OLDEST,
    )
    assert [listener.address for listener in full.front_doors[0].listen] == [
        Address("0.0.0.0", 1883),
        Address("::1", 1885),
    ]
    assert str(full.front_doors[0].listen[1].address) == "[::1]:1885"
    assert full.cores[0].resources == {"core": 0.5}
    assert [(edge.name, edge.weight) for edge in full.edges()] == [
        ("edge-1", 200),
        ("edge-2", 0),
        ("old-1", 100),
        ("old-2", 100),
    ]
    assert (full.identity.default, full.telemetry.sys_interval) == ("GUEST", 30)
    assert full.access.vehicles == AccessRule(publish=("common/#",), subscribe=("common/#",), refuse=("common/no",))
    assert full.access.backends == AccessRule(publish=("#",), subscribe=ALL_FILTERS, refuse=("closed/#",))
    assert full.access.roles == (
        RoleSpec(
            name="fleet", publish=("logs/{role}/{client_id}",), subscribe=("news",), refuse=("news/no",), will=False,
            retain=False, qos=1,
        ),
        RoleSpec(name="guest", publish=(), subscribe=()),
    )  # fmt: skip
    assert full.dead_letters == DeadLettersSpec(bytes=2 << 30, share=32 << 20, age=7 * 86_400.0, expired=True)
    assert full.backends.when_full == HOLD
    assert (full.access.refusal, full.access.on_refusal) == (0x80, "disconnect")
    assert full.backends.users == (
        BackendUser(user="fleet", password=SecretText(text="pass word"), roles=("fleet", "guest")),
    )
    assert full.backends.names() == ("users",)
    assert (full.limits.connect_timeout, full.limits.max_packet_size, full.limits.in_flight) == (5.0, 65536, 16)
    assert (full.limits.session_expiry, full.limits.owner_timeout) == (30 * 86400, 0.5)
    assert full.map.cache == 500_000
    assert (full.telemetry.sample, full.telemetry.watch) == (0.25, ("VIN1",))
    assert full.telemetry.prometheus == Address("127.0.0.1", 9464)
    assert (full.console, full.ray, full.bind) == (Address("127.0.0.1", 8080), "10.0.0.5:6379", "10.0.0.7")


def test_a_share_of_the_dead_letters_has_room_for_the_largest_packet(tmp_path: Path) -> None:
    topology = loads(f"{SMALL}limits: {{max_packet_size: 200MiB}}\n".encode(), "x", tmp_path)
    assert topology.dead_letters.share > 200 << 20


def test_longest_prefix_chooses_the_pool(full: Topology, tmp_path: Path) -> None:
    chosen = [full.pool_of(vehicle) for vehicle in ("VIN1", "OLD", "OLDE1", "OLDEST1")]
    assert [pool.name if pool else None for pool in chosen] == ["standard", "legacy", "legacy", "oldest"]
    only_old = loads(SMALL.replace("name: standard,", "name: standard, match: {prefix: OLD},").encode(), "x", tmp_path)
    assert only_old.pool_of("VIN1") is None


def test_nodes_are_listed_in_start_order(full: Topology) -> None:
    found = [(node.role, node.name, node.pool, node.weight, len(node.listen), node.resources) for node in nodes(full)]
    assert found == [
        ("edge", "edge-1", "standard", 200, 0, {}),
        ("edge", "edge-2", "standard", 0, 0, {"big": 1.0}),
        ("edge", "old-1", "legacy", 100, 0, {}),
        ("edge", "old-2", "oldest", 100, 0, {}),
        ("core", "core", "", 0, 1, {"core": 0.5}),
        ("door", "door", "", 0, 2, {"door": 1.0}),
        ("door", "door-2", "", 0, 2, {"door": 1.0}),
    ]


def test_topology_survives_dictionaries_and_pickle(full: Topology, tmp_path: Path) -> None:
    for topology in (full, loads(SMALL.encode(), "small.yaml", tmp_path)):
        assert from_dict(json.loads(json.dumps(as_dict(topology)))) == topology
        assert pickle.loads(pickle.dumps(topology)) == topology


def test_repr_hides_passwords(full: Topology) -> None:
    assert "secret" not in repr(full)
    assert "pass word" not in repr(full)
    assert "hidden" not in repr(full)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_shipped_examples_are_valid(path: Path, tmp_path: Path) -> None:
    topology = load(prepared(path, tmp_path))
    assert nodes(topology)
    assert (topology.inbox is not None) == (path.name != "conformance.yaml")


def test_local_example_stores_its_data_in_the_checkout() -> None:
    local = example("local.yaml")
    topology = load(local)
    assert topology.data == local.parents[1] / ".mesh" / "local"
    assert [str(door.address) for group in topology.front_doors for door in group.listen] == ["127.0.0.1:1883"]
    assert [str(core.address) for group in topology.cores for core in group.listen] == ["127.0.0.1:1884"]


def test_scalars_stay_text(tmp_path: Path) -> None:
    """``no`` is not a boolean, and ``e1e5`` is not a number."""
    text = SMALL.replace("mesh: demo", "mesh: no").replace("edge-1", "e1e5")
    topology = loads(text.encode(), "x.yaml", tmp_path)
    assert (topology.mesh, topology.edges()[0].name) == ("no", "e1e5")


def test_levels_of_the_logs() -> None:
    levels = "level: warning, nodes: {edge-1: debug, controller: error}, modules: {mesh.broker.dispatcher: info}"
    text = f"logs: {{{levels}}}\n"
    logs = loads(f"{SMALL}\n{text}".encode(), "mesh.yaml", Path(".")).logs
    assert [logs.of(name) for name in ("edge-1", "controller", "core")] == ["debug", "error", "warning"]
    assert logs.modules == {"mesh.broker.dispatcher": "info"}
