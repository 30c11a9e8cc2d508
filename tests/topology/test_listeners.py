"""Listeners with TLS in the topology: their keys, and what is wrong with their files."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.topology.change import changes
from mesh.topology.load import loads
from mesh.topology.mistakes import Mistake, TopologyErrors
from mesh.topology.topology import Topology, as_dict, from_dict
from mesh.topology.warnings import warnings
from mesh.transport.listen import HeaderRule, KeyPair, TlsFiles
from tests.support.certificates import DAY, Authority, now, put
from tests.topology.small import LISTEN, SMALL

ALL = "cert: server.pem, key: server.key, client: required, ca: ca.pem, crl: crl.pem"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files of a listener: ``server``, ``other`` and ``rsa`` with certificate and key, ``ca.pem``, ``crl.pem``."""
    authority = Authority()
    authority.issue("server", dns=["a.example"], server=True).write(tmp_path, "server")
    authority.issue("other", dns=["b.example"], server=True).write(tmp_path, "other")
    authority.issue("rsa", dns=["a.example"], server=True, kind="rsa").write(tmp_path, "rsa")
    put(tmp_path / "ca.pem", authority.pem())
    put(tmp_path / "crl.pem", authority.revoke())
    return tmp_path


def text(tls: str, kind: str = "mqtts") -> str:
    return SMALL.replace(LISTEN, f'{kind}: "127.0.0.1:8883", tls: {{{tls}}}')


def read(folder: Path, tls: str) -> Topology:
    return loads(text(tls).encode(), "t.yaml", folder)


def only(folder: Path, tls: str) -> Mistake:
    with pytest.raises(TopologyErrors) as errors:
        read(folder, tls)
    assert len(errors.value.mistakes) == 1, "\n".join(map(str, errors.value.mistakes))
    return errors.value.mistakes[0]


def test_an_mqtts_listener_has_all_keys(folder: Path) -> None:
    more = "more: [{cert: other.pem, key: other.key}, {cert: rsa.pem, key: rsa.key}]"
    found = read(folder, f"{ALL}, {more}, min: '1.3', ciphers: ECDHE+AESGCM, resumption: false")
    (listen,) = [one.listen() for one in found.front_doors[0].listen]
    pairs = tuple(KeyPair(folder / f"{name}.pem", folder / f"{name}.key") for name in ("server", "other", "rsa"))
    assert (str(listen), listen.staged) == ("mqtts://127.0.0.1:8883", True)
    assert listen.tls == TlsFiles(
        pairs, "required", folder / "ca.pem", folder / "crl.pem", "1.3", "ECDHE+AESGCM", False
    )
    assert from_dict(as_dict(found)) == found


def test_a_certificate_and_its_key_are_enough(folder: Path) -> None:
    (listener,) = read(folder, "cert: server.pem, key: server.key").front_doors[0].listen
    assert listener.listen().tls == TlsFiles((KeyPair(folder / "server.pem", folder / "server.key"),))


def test_cores_have_the_same_keys_and_ipv6_addresses(folder: Path) -> None:
    core = SMALL.replace('mqtt: "127.0.0.1:1884"', 'mqtts: "[::1]:8884", tls: {cert: server.pem, key: server.key}')
    (listener,) = loads(core.encode(), "t.yaml", folder).cores[0].listen
    assert str(listener.listen()) == "mqtts://[::1]:8884"


# The keys below ``tls``, the key of the mistake, and a part of what it says.
KEYS = [
    ("key: server.key", "tls.cert", "missing key; write the file of the server's certificate"),
    ("cert: server.pem", "tls.key", "missing key; write the file of its key"),
    ("cert: no.pem, key: server.key", "tls.cert", "no.pem: there is no such file"),
    ("cert: ., key: server.key", "tls.cert", "not a file; write the path of a PEM file"),
    ("cert: server.key, key: server.key", "tls.cert", "no certificate in PEM format"),
    ("cert: server.pem, key: server.pem", "tls.key", "not a private key in PEM format"),
    ("cert: server.pem, key: other.key", "tls.key", "the key does not fit the certificate of CN=server"),
    ("cert: server.pem, key: server.key, client: yes", "tls.client", "write none or optional or required"),
    ("cert: server.pem, key: server.key, client: required", "tls.ca", "missing key; write the file of"),
    ("cert: server.pem, key: server.key, ca: ca.pem", "tls.ca", "write client: required, or remove ca"),
    ("cert: server.pem, key: server.key, min: '1.1'", "tls.min", "write 1.2 or 1.3"),
    ("cert: server.pem, key: server.key, ciphers: RC4-MD5X", "tls.ciphers", "no list of ciphers"),
    ("cert: server.pem, key: server.key, ciphers: 'AESGCM:aNULL'", "tls.ciphers", "protects nothing; remove it"),
    ("cert: server.pem, key: server.key, resumption: false", "tls.resumption", 'write min: "1.3", too, or true'),
    ("cert: server.pem, key: server.key, chiphers: x", "tls.chiphers", "did you mean 'ciphers'"),
    ("cert: server.pem, key: server.key, client: required, ca: server.pem", "tls.ca", "may not sign others; remove it"),
    ("cert: server.pem, key: server.key, client: required, ca: ca.pem, crl: ca.pem", "tls.crl", "no list of revoked"),
    ("cert: server.pem, key: server.key, more: [{cert: other.pem}]", "tls.more[0].key", "missing key"),
    ("cert: server.pem, key: server.key, more: [{cert: server.pem, key: other.key}]", "tls.more[0].key", "not fit"),
]  # fmt: skip


@pytest.mark.parametrize(("tls", "key", "word"), KEYS)
def test_a_wrong_key_is_named_with_what_would_be_right(folder: Path, tls: str, key: str, word: str) -> None:
    found = only(folder, tls)
    assert (found.line, found.key) == (2, f"front_doors[0].listen[0].{key}")
    assert word in found.what, found.what


# What happens to the files, the key of the mistake, and a part of what it says.
FILES: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda at: os.chmod(at / "server.key", 0o644), "key", "has mode 0644: other users could read it; run: chmod 600"),
    (lambda at: os.chmod(at / "server.pem", 0o666), "cert", "other users could change it; run: chmod 664"),
    (lambda at: os.truncate(at / "ca.pem", 1 << 21), "ca", "2097152 bytes; the file may have 1048576"),
    (
        lambda at: Authority().issue("server", server=True, end=now() - DAY).write(at, "server"),
        "cert", "the certificate expired on ",
    ),
    (
        lambda at: Authority().issue("server", server=True, kind="P-192").write(at, "server"),
        "cert", "clients of TLS do not use its kind of key; make an RSA key, or one for ECDSA with P-256",
    ),
    (lambda at: Authority().issue("server").write(at, "server"), "cert", "not for servers: its extended key usage"),
    (lambda at: put(at / "crl.pem", Authority("else").revoke()), "crl", "is signed by none of the certificates in ca"),
    (lambda at: put(at / "crl.pem", Authority().revoke()), "crl", "is signed by none of the certificates in ca"),
    (
        lambda at: put(at / "server.pem", (at / "server.pem").read_bytes() + (at / "other.pem").read_bytes()),
        "cert", "certificate 2 did not sign certificate 1; write the server's certificate first",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "key", "word"), FILES)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, spoil: Callable[[Path], object], key: str, word: str
) -> None:
    read(folder, ALL)
    spoil(folder)
    found = only(folder, ALL)
    assert found.key == f"front_doors[0].listen[0].tls.{key}"
    assert str(folder) in found.what
    assert word in found.what, found.what


def test_an_encrypted_key_is_named(folder: Path) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = Authority().issue("server", server=True).key
    put(folder / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert "the key is encrypted; write it without a pass phrase: openssl pkey" in only(folder, ALL).what


def test_two_certificates_of_one_name_and_kind_of_key_are_refused(folder: Path) -> None:
    Authority().issue("again", dns=["a.example"], server=True).write(folder, "again")
    found = only(folder, f"{ALL}, more: [{{cert: again.pem, key: again.key}}]")
    assert found.key == "front_doors[0].listen[0].tls"
    assert "has the names and the kind of key of" in found.what


@pytest.mark.parametrize(
    ("listen", "key", "word"),
    [
        ('mqtts: "127.0.0.1:1"', "tls", "missing key; an mqtts listener needs tls"),
        ('mqtt: "127.0.0.1:1", tls: {}', "tls", "an mqtt listener has no tls; remove it, or write mqtts"),
        ('mqtt: "127.0.0.1:1", mqtts: "127.0.0.1:2"', "mqtts", "two kinds, mqtt and mqtts; write two listeners"),
        ("path: /mqtt", "mqtt", "missing key; write at least one listener"),
        ('wss: "127.0.0.1:1"', "tls", "missing key; a wss listener needs tls"),
        ('ws: "127.0.0.1:1", tls: {}', "tls", "a ws listener has no tls; remove it, or write wss"),
        ('mqtt: "127.0.0.1:1", path: /mqtt', "path", "an mqtt listener has no path; remove it, or write ws or wss"),
        ('mqtt: "127.0.0.1:1", origins: ["*"]', "origins", "an mqtt listener has no origins"),
        ('mqtt: "127.0.0.1:1", headers: {a: b}', "headers", "an mqtt listener has no headers"),
        ('ws: "127.0.0.1:1", wss: "127.0.0.1:2"', "wss", "two kinds, ws and wss; write two listeners"),
        ('ws: "127.0.0.1:1", path: mqtt', "path", "'mqtt' is no path of a URL; begin it with /"),
        ('ws: "127.0.0.1:1", path: "/mqtt?a=b"', "path", "leave out ? and #"),
        ('ws: "127.0.0.1:1", path: "/a b"', "path", "is no path of a URL"),
        ('ws: "127.0.0.1:1", origins: []', "origins", "the list is empty; write at least one"),
        ('ws: "127.0.0.1:1", origins: [fleet.example.com]', "origins[0]", "'fleet.example.com' is no origin; write it"),
        ('ws: "127.0.0.1:1", origins: ["https://a.example/"]', "origins[0]", "scheme and host without a path"),
        ('ws: "127.0.0.1:1", origins: ["https://*.example"]', "origins[0]", '"*" stands for all origins'),
        ('ws: "127.0.0.1:1", origins: ["https://a.example"], headers: 7', "headers", "expected a mapping"),
        ('ws: "127.0.0.1:1", headers: {"x y": b}', "headers.x y", "'x y' is no name of an HTTP header"),
        ('ws: "127.0.0.1:1", headers: {X-A: b, x-a: c}', "headers.x-a", "the header x-a stands there twice"),
        ('ws: "127.0.0.1:1", headers: {X-A: }', "headers.X-A", "the value is empty"),
        ('ws: "127.0.0.1:1", headers: {X-A: "b\\n"}', "headers.X-A", "printable ASCII characters only"),
        ('ws: "127.0.0.1:1", headers: {X-A: {}}', "headers.X-A.pattern", 'missing key; write the value, or a pattern'),
        ('ws: "127.0.0.1:1", headers: {X-A: {pattern: "["}}', "headers.X-A.pattern", "the class has no closing ]"),
        ('mqtt: "127.0.0.1:1", proxy: [10.0.0.1/8]', "proxy[0]", "has host bits set; write the networks"),
        ('mqtt: "127.0.0.1:1", proxy: [balancer]', "proxy[0]", "proxy: [10.0.0.0/8]"),
        ('mqtt: "127.0.0.1:1", proxy: []', "proxy", "the list is empty; write the networks of the load balancers"),
    ],
)
def test_a_listener_has_one_kind_and_what_belongs_to_it(folder: Path, listen: str, key: str, word: str) -> None:
    with pytest.raises(TopologyErrors) as errors:
        loads(SMALL.replace(LISTEN, listen).encode(), "t.yaml", folder)
    found = errors.value.mistakes[0]
    assert found.key == f"front_doors[0].listen[0].{key}"
    assert word in found.what, found.what


WEB = (
    'ws: "127.0.0.1:8083", origins: ["https://Fleet.example.com", "null"], proxy: [10.0.0.0/8, "2001:db8::/32"], '
    'headers: {X-Fleet: blue, X-Env: {pattern: "prod-[a-z]{1,20}"}}'
)


def web(folder: Path, listen: str = WEB) -> Topology:
    rule = 'identity: {from: username, pattern: "[A-Z]{1,9}", providers: [anonymous]}\n'
    return loads((SMALL.replace(LISTEN, listen) + rule).encode(), "t.yaml", folder)


def test_a_websocket_listener_has_all_keys(folder: Path) -> None:
    (spec,) = web(folder).front_doors[0].listen
    listen = spec.listen()
    assert (str(listen), listen.staged, spec.local) == ("ws://127.0.0.1:8083/mqtt", True, False)
    assert listen.origins == ("https://fleet.example.com", "null")
    assert listen.proxy == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert listen.headers == (HeaderRule("x-fleet", "blue"), HeaderRule("x-env", "prod-[a-z]{1,20}", pattern=True))
    assert from_dict(as_dict(web(folder))) == web(folder)
    assert listen.in_force() == {
        "address": "ws://127.0.0.1:8083/mqtt", "origins": ["https://fleet.example.com", "null"],
        "proxy": ["10.0.0.0/8", "2001:db8::/32"], "headers": ["x-fleet", "x-env"],
    }  # fmt: skip
    assert "blue" not in repr(spec) + repr(listen)


def test_a_wss_listener_of_a_core_has_a_path_and_tls(folder: Path) -> None:
    listener = 'wss: "[::1]:8884", path: /app, origins: ["*"], tls: {cert: server.pem, key: server.key}'
    (spec,) = loads(SMALL.replace('mqtt: "127.0.0.1:1884"', listener).encode(), "t.yaml", folder).cores[0].listen
    listen = spec.listen()
    assert (str(listen), listen.origins, spec.local) == ("wss://[::1]:8884/app", ("*",), True)
    assert listen.tls is not None


def test_behind_a_load_balancer_no_listener_is_for_this_machine_alone(folder: Path) -> None:
    with pytest.raises(TopologyErrors) as errors:
        loads(SMALL.replace(LISTEN, f"{LISTEN}, proxy: [127.0.0.1/32]").encode(), "t.yaml", folder)
    (found,) = errors.value.mistakes
    assert found.key == "identity"
    assert "a front door listens beyond this machine" in found.what
    assert "every client that reaches 127.0.0.1:8083" in warnings(web(folder))[0]


@pytest.mark.parametrize(
    ("old", "new", "path", "what"),
    [
        ('"null"', '"*"', ".origins", "[https://fleet.example.com, null] -> [https://fleet.example.com, *]"),
        ("blue", "red", ".headers", "changed"),
        ('10.0.0.0/8, "2001:db8::/32"', "10.0.0.0/8", ".proxy", "[10.0.0.0/8, 2001:db8::/32] -> [10.0.0.0/8]"),
    ],
)
def test_what_a_websocket_s_request_needs_changes_live(folder: Path, old: str, new: str, path: str, what: str) -> None:
    found = changes(web(folder), web(folder, WEB.replace(old, new)))
    place = "front_doors.door.listen.ws://127.0.0.1:8083/mqtt"
    assert [(change.path, change.kind, change.what) for change in found] == [(place + path, "live", what)]


def test_another_path_is_another_listener(folder: Path) -> None:
    found = changes(web(folder), web(folder, f"{WEB}, path: /app"))
    assert [change.what for change in found] == ["ws://127.0.0.1:8083/app added", "ws://127.0.0.1:8083/mqtt removed"]


def test_a_change_of_a_file_name_is_live(folder: Path) -> None:
    found = changes(read(folder, ALL), read(folder, ALL.replace("server.", "other.")))
    place = "front_doors.door.listen.mqtts://127.0.0.1:8883.tls"
    assert [(change.path, change.kind) for change in found] == [(f"{place}.cert", "live"), (f"{place}.key", "live")]
