"""Every mistake is reported with its place and with what would be right."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.topology.load import load, loads
from mesh.topology.mistakes import Mistake, TopologyErrors
from mesh.topology.topology import Topology
from mesh.topology.tree import MAX_BYTES, MAX_DEPTH
from tests.topology.small import CORE, DOOR, LISTEN, POOL, SMALL, mistakes, only

JWT = "keys: 'https://issuer.example/keys', issuer: i"

# The line added to a valid file, the path in the message, and a part of the message.
ADDED = [
    ("telemtry: {sample: 1}", "telemtry", "unknown key; did you mean 'telemetry'? Known keys: mesh"),
    ("flavour: x", "flavour", "unknown key. Known keys: mesh, etcd"),
    ("mesh: again", "mesh", "duplicate key (first in line 1)"),
    ("etcd: embeded", "etcd", "write embedded"),
    ("etcd: []", "etcd", "empty"),
    ("etcd: [etcd-1]", "etcd[0]", "http://host:port"),
    ('etcd: ["https://a:1", "http://b:1"]', "etcd", "all http:// or all https://"),
    ('etcd: {endpoints: ["http://a:1"], tls: {}}', "etcd.tls", "https://"),
    ('etcd: {endpoints: ["https://a:1"], tls: {ca: /no/such/file}}', "etcd.tls.ca", "is not a file"),
    ('etcd: {endpoints: ["https://a:1"], auth: {user: me}}', "etcd.auth.password", "missing"),
    ("etcd: {auth: {user: me, password: x}}", "etcd.endpoints", "missing"),
    ("identity: {from: certificate}", "identity.from", "client_id or tls_common_name"),
    ("identity: {from: user_name}", "identity.from", "did you mean 'username'?"),
    ("identity: {from: tls_common_name, providers: [anonymous]}", "identity.from", "write all of it in providers"),
    ("identity: {providers: []}", "identity.providers", "write at least one, such as providers: [{name: cert"),
    ("identity: {providers: [anonymus]}", "identity.providers[0]", "expected a mapping"),
    ("identity: {providers: [{name: cert}]}", "identity.providers[0].name", "has one of the keys certificate"),
    ("identity: {providers: [{certificate: dns}]}", "identity.providers[0].name", "every provider needs a name"),
    ("identity: {providers: [{name: users, certificate: dns}]}", "identity.providers[0].name", "is taken"),
    ("identity: {providers: [{name: c, certificate: dns}, {name: c, certificate: uri}]}", "identity.providers[1]",
     "is taken by another provider"),
    ("identity: {providers: [{name: c, certificate: cn}]}", "identity.providers[0].certificate", "common_name"),
    ("identity: {providers: [{name: c, certificate: dns, template: V}]}", "identity.providers[0].template",
     "must have {vehicle} once"),
    ("identity: {providers: [{name: s, scram: /no/such/file}]}", "identity.providers[0].scram", "cannot be read"),
    ("identity: {providers: [{name: f, password: /no/such/file}]}", "identity.providers[0].password", "cannot be read"),
    ("identity: {providers: [{name: f, password: x, scram: x}]}", "identity.providers[0].scram", "has one of"),
    ("identity: {providers: [{name: t, jwt: {issuer: i, algorithms: [ES256]}}]}", "identity.providers[0].jwt.keys",
     "missing key; write a file or a URL"),
    ("identity: {providers: [{name: t, jwt: {keys: 'https://i.example', algorithms: [ES256]}}]}",
     "identity.providers[0].jwt.issuer", "missing"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}}}}}]}}", "identity.providers[0].jwt.algorithms",
     "such as [ES256]"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}, algorithms: [none]}}}}]}}",
     "identity.providers[0].jwt.algorithms", "'none' is not known; known are RS256"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}, algorithms: [RS256, HS256]}}}}]}}",
     "identity.providers[0].jwt.algorithms", "a public key could be taken for the secret"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}, algorithms: [HS256]}}}}]}}",
     "identity.providers[0].jwt.keys", "put it into a private file"),
    ("identity: {providers: [{name: t, jwt: {keys: 'http://issuer.example/k', issuer: i, algorithms: [ES256]}}]}",
     "identity.providers[0].jwt.keys", "must begin with https://"),
    ("identity: {providers: [{name: t, jwt: {keys: /no/such/file, issuer: i, algorithms: [ES256]}}]}",
     "identity.providers[0].jwt.keys", "cannot be read"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}, algorithms: [ES256], leeway: 1h}}}}]}}",
     "identity.providers[0].jwt.leeway", "from 0s to 300s"),
    (f"identity: {{providers: [{{name: t, jwt: {{{JWT}, algorithms: [ES256], ca: /no/such/file}}}}]}}",
     "identity.providers[0].jwt.ca", "cannot be read"),
    ("identity: {providers: [{name: h, http: {url: 'https://a.example', ca: /etc/passwd}}]}",
     "identity.providers[0].http.ca", "is not a file of certificates in PEM"),
    ("identity: {providers: [{name: h, http: {}}]}", "identity.providers[0].http.url", "missing key; write the URL"),
    ("identity: {providers: [{name: h, http: {url: 'http://auth.example'}}]}", "identity.providers[0].http.url",
     "must begin with https://"),
    ("identity: {providers: [{name: h, http: {url: 'https://u:p@auth.example'}}]}", "identity.providers[0].http.url",
     "use a header"),
    ("identity: {providers: [{name: h, http: {url: 'https://a.example', timeout: 9s}}]}",
     "identity.providers[0].http.timeout", "from 0.1s to 8s"),
    ("identity: {providers: [{name: h, http: {url: 'https://a.example', on_failure: allow}}]}",
     "identity.providers[0].http.on_failure", "deny or next"),
    ("identity: {providers: [{name: h, http: {url: 'https://a.example', headers: {Host: x}}}]}",
     "identity.providers[0].http.headers", "'Host' is not a header that can be set here"),
    ("identity: {providers: [{name: h, http: {url: 'https://a.example', headers: {'a b': x}}}]}",
     "identity.providers[0].http.headers", "write one such as X-Token"),
    ("identity: {providers: [anonymous, {name: c, certificate: dns}]}", "identity.providers[1]",
     "write anonymous at the end"),
    ("identity: {default: V1, providers: [{name: c, certificate: dns}]}", "identity.default", "remove one, or add"),
    ("identity: {client_ids: [car]}", "identity.client_ids[0]", "must have {vehicle} once"),
    ("backends: {providers: [{name: c, certificate: dns, template: '{vehicle}'}]}", "backends.providers[0].template",
     "must have {user} once"),
    ("backends: {providers: [anonymous]}", "backends.providers", "write anonymous: true beside"),
    ('identity: {pattern: "[A-Z]+"}', "identity.pattern", "{1,64}"),
    ("identity: username", "identity", "Known keys: from, pattern"),
    ("identity:", "identity", "Known keys: from, pattern"),
    ("telemetry: {watch: [VIN/1]}", "telemetry.watch[0]", "'VIN/1' is no vehicle: it does not match identity.pattern"),
    ("logs: {level: verbose}", "logs.level", "write debug or info or warning or error"),
    ("logs: {nodes: {edge-9: debug}}", "logs.nodes.edge-9", "there is no node 'edge-9'; the nodes are"),
    ("logs: {nodes: {console: debug}}", "logs.nodes.console", "there is no node 'console'; the nodes are"),
    ("logs: {modules: {mesh.brokr: debug}}", "logs.modules.mesh.brokr", "'mesh.brokr' is no module of the mesh"),
    ("logs: {modules: {mesh.brokr.x: debug}}", "logs.modules.mesh.brokr.x", "is no module of the mesh"),
    ("logs: {modules: {asyncio: debug}}", "logs.modules.asyncio", "write one, such as mesh.broker"),
    ("topics: {vehicle: vehicles/#}", "topics.vehicle", "vehicles/{vehicle}/#"),
    ("topics: {fleet: ['#']}", "topics.fleet[0]", "literal level"),
    ("topics: {fleet: ['+/news']}", "topics.fleet[0]", "literal level"),
    ("topics: {fleet: [$SYS/x]}", "topics.fleet[0]", "literal level"),
    ("topics: {fleet: ['vehicles/all/#']}", "topics.fleet[0]", "topics of single vehicles"),
    ("topics: {vehicle: 'eu/cars/{vehicle}/#', fleet: ['eu/#']}", "topics.fleet[0]", "topics of single vehicles"),
    ("topics: {vehicle: 'eu/cars/{vehicle}/#', fleet: ['eu/+/+/cmd']}", "topics.fleet[0]", "topics of single vehicles"),
    ("topics: {fleet: ['a/#/b']}", "topics.fleet[0]", "wildcard # must be"),
    ("inbox: {qos: 1}", "inbox.subscribe", "vehicles/{vehicle}/cmd/#"),
    ('inbox: {subscribe: ["#"]}', "inbox.subscribe[0]", "begins with vehicles/{vehicle}/ and has no further"),
    ('inbox: {subscribe: ["vehicles/+/cmd"]}', "inbox.subscribe[0]", "begins with"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/#/x"]}', "inbox.subscribe[0]", "wildcard #"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/#"], qos: 3}', "inbox.qos", "from 0 to 2"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/#"], expiry: 30}', "inbox.expiry", "30d"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/#"], max_bytes: 5 apples}', "inbox.max_bytes", "64MiB"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/#"], when_full: drop}', "inbox.when_full", "or dead_letter"),
    ("backends: {when_full: reject}", "backends.when_full", "dead_letter or hold"),
    ("dead_letters: {when_full: reject}", "dead_letters.when_full", "drop_oldest or hold"),
    ("dead_letters: {bytes: 8MiB, share: 16MiB}", "dead_letters.share", "more than dead_letters.bytes"),
    ("dead_letters: {share: 1MiB}", "dead_letters.share", "write 1049600B or more"),
    ("dead_letters: {expired: true, when_full: hold}", "dead_letters.expired", "cannot wait for room"),
    ('access: {vehicles: {subscribe: ["$dead-letters/#"]}}', "access.vehicles.subscribe[0]", "only back ends"),
    ('access: {vehicles: {publish: ["a/x{vehicle}"]}}', "access.vehicles.publish[0]", "are whole levels"),
    ('access: {backends: {publish: ["a/{vehicle}"]}}', "access.backends.publish[0]", "a back end is no vehicle"),
    ("access: {vehicles: {qos: 3}}", "access.vehicles.qos", "an integer from 0 to 2"),
    ('access: {roles: {"a b": {}}}', "access.roles.a b", "without blanks"),
    ("access: {roles: {a: {publsh: [x]}}}", "access.roles.a.publsh", "did you mean 'publish'?"),
    ("access: {roles: [a]}", "access.roles", "expected a mapping"),
    ("identity: {providers: [{name: c, certificate: dns, roles: [fleat]}]}\naccess: {roles: {fleet: {}}}",
     "identity.providers[0].roles[0]", "the roles are fleet; did you mean 'fleet'?"),
    ("backends: {users: [{user: a, password: b, roles: [x]}]}", "backends.users[0].roles[0]",
     "there are none; write them in access.roles"),
    ("backends: {providers: [{name: c, certificate: dns, template: '{user}', roles: [x]}]}",
     "backends.providers[0].roles[0]", "there is no role 'x'"),
    ("backends: {anonymous: yes}", "backends.anonymous", "write true or false"),
    ("backends: {anonymous: false}", "backends", "no back end could connect"),
    ("backends: {users: [{user: a, password: b}, {user: a, password: c}]}", "backends.users[1].user", "duplicate user"),
    ("backends: {users: [{user: a}]}", "backends.users[0].password", "missing"),
    ("limits: {in_flite: 5}", "limits.in_flite", "did you mean 'in_flight'?"),
    ("limits: {in_flight: many}", "limits.in_flight", "'many' is not an integer from 1"),
    ("limits: {in_flight: -3}", "limits.in_flight", "'-3' is not an integer from 1 to 65535"),
    ("limits: {in_flight: 0}", "limits.in_flight", "from 1 to 65535"),
    ("limits: {connect_timeout: 10}", "limits.connect_timeout", "15s"),
    ("limits: {connect_timeout: 1h}", "limits.connect_timeout", "from 1s to 120s"),
    ("limits: {memory: much}", "limits.memory", "such as 64MiB, or auto"),
    ("limits: {memory: 1MiB}", "limits.memory", "from 67108864B to"),
    ("limits: {disk: auto}", "limits.disk", "such as 64MiB, or none"),
    ("limits: {vehicle_sessions: 0}", "limits.vehicle_sessions", "from 1 to"),
    ("limits: {max_packet_size: 1TiB}", "limits.max_packet_size", "268435455B"),
    ("map: {cache: 5}", "map.cache", "from 1000"),
    ("telemetry: {sample: 1.5}", "telemetry.sample", "from 0 to 1"),
    ("telemetry: {sample: nan}", "telemetry.sample", "from 0 to 1"),
    ("telemetry: {otlp: localhost}", "telemetry.otlp", "http://host:port"),
    ("telemetry: {prometheus: 9464}", "telemetry.prometheus", "host:port"),
    ("telemetry: {prometheus: '127.0.0.1:1883'}", "telemetry.prometheus", "'edge-1' would have 127.0.0.1:1883"),
    ("telemetry: {prometheus: '127.0.0.1:1881'}", "telemetry.prometheus", "which front_doors[0].listen[0].mqtt"),
    ("telemetry: {prometheus: '0.0.0.0:1883'}", "telemetry.prometheus", "choose 0.0.0.0:1885"),
    ("telemetry: {prometheus: '127.0.0.1:65534'}", "telemetry.prometheus", "'door' would have 65536"),
    ("telemetry: {prometheus: '127.0.0.1:65534'}", "telemetry.prometheus", "choose 127.0.0.1:9464"),
    ("console: 127.0.0.1:1883", "console", "used by front_doors[0].listen[0].mqtt"),
    ("console: 0.0.0.0:1884", "console", "used by cores[0].listen[0].mqtt"),
    ("console: ::1:8080", "console", "[::1]:8080"),
    ("console: 127.0.0.1:99999", "console", "port"),
    ("console: 127.0.0.256:80", "console", "not a host"),
    ("ray: remote", "ray", "local, or host:port"),
    ("ray: auto", "ray", "local, or the address"),
    ("bind: 127.0.0.1:80", "bind", "not a host"),
    ("data: [a]", "data", "one value"),
    ("data:", "data", "the value is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "key", "word"), ADDED)
def test_wrong_line_is_reported_with_its_place(line: str, key: str, word: str) -> None:
    found = only(f"{SMALL}{line}\n")
    assert (found.line, found.key) == (5, key)
    assert word in found.what, found.what


# A whole file, the path in the message, and a part of the message.
OPEN = SMALL.replace("127.0.0.1:1883", "0.0.0.0:1883")
NODES = [
    (f"mesh: Demo\n{DOOR}{CORE}{POOL}", "mesh", "lower-case"),
    (f"{DOOR}{CORE}{POOL}", "mesh", "missing"),
    (f"mesh: demo\n{CORE}{POOL}", "front_doors", "missing"),
    (f"mesh: demo\n{DOOR}{CORE}pools: []\n", "pools", "empty"),
    (f"mesh: demo\n{DOOR}{CORE}pools: [{{name: standard, edges: []}}]\n", "pools[0].edges", "empty"),
    (f"mesh: demo\n{DOOR}{CORE}pools: [{{edges: [{{name: edge-1}}]}}]\n", "pools[0].name", "missing"),
    (f"mesh: demo\n{DOOR}{CORE}pools: edge-1\n", "pools", "expected a list"),
    (SMALL.replace("edge-1", "core"), "pools[0].edges[0].name", "taken by cores[0].name"),
    (SMALL.replace("edge-1", "etcd"), "pools[0].edges[0].name", "mesh itself"),
    (SMALL.replace("edge-1", "edge_1"), "pools[0].edges[0].name", "hyphens"),
    (SMALL.replace("edge-1", "edge-1, external: mqtt://a:1883"), "pools[0].edges[0].external", "later release"),
    (SMALL.replace("edge-1", "edge-1, weight: 0"), "pools[0].edges", "weight 0"),
    (SMALL.replace("edge-1", "edge-1, resources: {a: x}"), "pools[0].edges[0].resources.a", "not a number"),
    (SMALL.replace("1884", "1883"), "cores[0].listen[0].mqtt", "used by front_doors[0].listen[0].mqtt"),
    (SMALL.replace(LISTEN, f"mqt: x, {LISTEN}"), "front_doors[0].listen[0].mqt", "did you mean 'mqtt'"),
    (SMALL.replace(LISTEN, f"{LISTEN}, path: /x"), "front_doors[0].listen[0].path", "remove it"),
    (SMALL.replace("name: door,", "name: door, replicas: 0,"), "front_doors[0].replicas", "from 1"),
    (SMALL.replace("127.0.0.1:1884", "0.0.0.0:1884"), "backends", "beyond this machine"),
    (OPEN, "identity", "beyond this machine (0.0.0.0:1883)"),
    (f"{OPEN}identity: {{from: client_id}}\n", "identity",
     "identity: {from: client_id, providers: [anonymous]} to take every client's word"),
    (SMALL.replace(LISTEN, f"{LISTEN}, identify: [cert]"), "front_doors[0].listen[0].identify[0]",
     "there is no provider 'cert' here; the providers are anonymous"),
    (SMALL.replace(LISTEN, 'mqtt: "127.0.0.1:0", identify: [anonymous]'), "front_doors[0].listen[0].identify",
     "port 0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "word"), NODES)
def test_wrong_nodes_are_reported_with_their_place(text: str, key: str, word: str) -> None:
    found = only(text)
    assert found.key == key
    assert word in found.what, found.what


def test_metrics_ports_must_not_include_the_console() -> None:
    found = only(f'{SMALL}telemetry: {{prometheus: "127.0.0.1:9464"}}\nconsole: "127.0.0.1:9465"\n')
    assert (found.line, found.key) == (5, "telemetry.prometheus")
    assert "'core' would have 127.0.0.1:9465, which console (127.0.0.1:9465) uses" in found.what
    assert found.what.endswith("choose 127.0.0.1:9466, for example")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:65533", "127.0.0.2:1883", "127.0.0.1:1880"])
def test_metrics_addresses_without_a_conflict_are_accepted(address: str) -> None:
    assert loads(f'{SMALL}telemetry: {{prometheus: "{address}"}}\n'.encode(), "t.yaml", Path("/")).telemetry.prometheus


def test_names_of_replicas_are_reserved() -> None:
    text = SMALL.replace("name: door,", "name: door, replicas: 2,").replace("edge-1", "door-2")
    assert only(text).what.startswith("the name 'door-2' is taken by front_doors[0].name")


def test_two_pools_for_the_same_vehicles_are_refused() -> None:
    second = "pools:\n- {name: a, edges: [{name: e1}]}\n- {name: b, edges: [{name: e2}]}\n"
    found = only(f"mesh: demo\n{DOOR}{CORE}{second}")
    assert (found.line, found.key) == (6, "pools[1]")
    assert "'a'" in found.what
    second = second.replace("name: a", "match: {prefix: X}, name: a").replace("name: b", "match: {prefix: X}, name: b")
    assert "begin with 'X'" in only(f"mesh: demo\n{DOOR}{CORE}{second}").what


def test_all_mistakes_are_reported_in_the_order_of_the_file() -> None:
    text = (
        "colour: red\nmesh: UP\nfront_doors:\n  - name: door\n    listen: [{mqtt: here}]\ncores: 5\n"
        + POOL
        + "ray: auto\n"
    )
    found = mistakes(text)
    assert [(mistake.line, mistake.column, mistake.key) for mistake in found] == [
        (1, 1, "colour"),
        (2, 7, "mesh"),
        (5, 21, "front_doors[0].listen[0].mqtt"),
        (6, 8, "cores"),
        (8, 6, "ray"),
    ]


def test_mistake_text_has_place_key_and_advice() -> None:
    assert str(only(SMALL + "ray: remote\n")) == (
        "t.yaml:5:6: ray: 'remote' is not valid here; write local, or host:port of a running Ray cluster"
    )


def test_topology_errors_can_be_pickled() -> None:
    with pytest.raises(TopologyErrors) as errors:
        loads(b"ray: auto", "t.yaml", Path("/"))
    assert str(pickle.loads(pickle.dumps(errors.value))) == str(errors.value)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        (b"mesh: [demo\n", 2, "not YAML"),
        (b"mesh: demo\n\tetcd: x\n", 2, "not YAML"),
        (b"mesh: demo\nx: \xff\n", 2, "UTF-8"),
        (b"mesh: demo\nx: \x07\n", 2, "U+0007"),
        (b"a: &x 1\nb: *x\n", 2, "alias"),
        (b"mesh: !!python/object:os.system x\n", 1, "tag"),
        (b"mesh: demo\n---\nmesh: other\n", 2, "second document"),
        (b"? [a]\n: b\n", 1, "plain word"),
        (b"a: " + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), 1, "levels"),
        (b"#" * (MAX_BYTES + 1), 1, "at most"),
    ],
)
def test_unsupported_text_is_refused_with_its_line(text: bytes, line: int, word: str) -> None:
    found = only(text)
    assert found.line == line
    assert word in found.what


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"null\n"])
def test_empty_file_is_refused(text: bytes) -> None:
    assert mistakes(text)


def test_list_at_the_top_is_refused() -> None:
    assert "expected a mapping, found a list. Known keys: mesh" in only(b"- mesh: demo\n").what


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TopologyErrors, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(TopologyErrors, match="directory"):
        load(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_topology_or_topology_errors(data: bytes) -> None:
    attempt(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_file_gives_a_topology_or_topology_errors(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SMALL)))
    removed = data.draw(st.integers(0, 8))
    attempt((SMALL[:at] + data.draw(st.text(":,[]{}-'\"# \nab1", max_size=5)) + SMALL[at + removed :]).encode())


def attempt(data: bytes) -> None:
    """Load; the result is a topology or a list of mistakes with places."""
    found: list[Mistake] = []
    try:
        assert isinstance(loads(data, "t.yaml", Path("/")), Topology)
    except TopologyErrors as errors:
        found = errors.mistakes or [Mistake("", 0, 0, "", "")]
    assert all(mistake.line >= 1 and mistake.column >= 1 and mistake.what for mistake in found)
