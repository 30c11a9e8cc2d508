"""Enhanced authentication with SCRAM-SHA-256 (MQTT 5.0 sections 3.15 and 4.12), at the core and at the front door."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.policy.scram import make_verifier, write_line
from mesh.wire.packets import Auth, Connack, Connect, Disconnect, Ping, Publish, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.conformance.peer import Peer
from tests.conformance.socket_world import SocketWire
from tests.conformance.world import properties
from tests.support.processes import Processes
from tests.support.scram_client import ScramClient
from tests.support.shows import shows

pytestmark = pytest.mark.e2e
METHOD = "SCRAM-SHA-256"
NAME = "PROVER"
PASSWORD = "pencil"
CONTINUE = 0x18
AGAIN = 0x19


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("proofs")
    (folder / "vehicles.scram").write_text(
        f"{write_line(NAME, make_verifier(PASSWORD))}\n{write_line('OTHER', make_verifier('other'))}\n"
    )
    users = f"{{anonymous: false, users: [{{user: {NAME}, password: {PASSWORD}}}, {{user: OTHER, password: other}}]}}"
    with Processes(folder, ["edge"], identity="{from: username, scram: vehicles.scram}", users=users) as running:
        yield running


@pytest.fixture(params=["core", "door"])
def port(request: pytest.FixtureRequest, mesh: Processes) -> int:
    return mesh.backends if request.param == "core" else mesh.vehicles


def proof(data: bytes, reason: int = CONTINUE, method: str = METHOD) -> Auth:
    return Auth(reason, properties(auth_method=method, auth_data=data))


def begin(
    port: int, client: ScramClient, name: str | None = None, data: bytes | None = None, **further: object
) -> Peer:
    """Send CONNECT with the client's first SCRAM message."""
    peer = Peer(SocketWire(port), 5, "prover")
    first = client.first() if data is None else data
    asked = properties(auth_method=METHOD, auth_data=first, session_expiry=60, **further)
    peer.send(Connect(5, "prover", True, 60, name, None, None, asked))
    return peer


def challenge(peer: Peer) -> bytes:
    """The server's first SCRAM message."""
    auth = peer.expect(Auth)
    assert auth.reason == CONTINUE
    asked = auth.properties
    assert asked is not None
    assert asked.auth_method == METHOD
    assert asked.auth_data is not None
    return asked.auth_data


def prove(port: int, name: str | None = None) -> Peer:
    """A client that has completed the authentication."""
    client = ScramClient(NAME, PASSWORD)
    peer = begin(port, client, name)
    peer.send(proof(client.final(challenge(peer))))
    connack = peer.expect(Connack)
    assert connack.reason == 0
    check_final(client, connack.properties)
    return peer


def check_final(client: ScramClient, final: Properties | None) -> None:
    assert final is not None
    assert final.auth_method == METHOD
    assert final.auth_data is not None
    client.check(final.auth_data)


@shows(v5="4.12.0-2 4.12.0-3 4.12.0-5 3.15.2-1")
@pytest.mark.parametrize("name", [None, NAME])
def test_client_with_the_right_password_is_accepted(port: int, name: str | None) -> None:
    peer = prove(port, name)
    topic = f"vehicles/{NAME}/x"
    peer.subscribe(topic)
    peer.publish(topic, b"mine")
    assert peer.message().payload == b"mine"
    peer.leave()


@shows(v5="4.12.0-4")
def test_client_with_a_wrong_password_is_refused(port: int) -> None:
    client = ScramClient(NAME, "wrong")
    peer = begin(port, client)
    peer.send(proof(client.final(challenge(peer))))
    assert peer.expect(Connack).reason == 0x87
    assert peer.expect_close() == []


@shows(v5="3.1.2-24")
def test_client_with_too_small_packet_size_is_refused(port: int) -> None:
    peer = begin(port, ScramClient(NAME, PASSWORD), maximum_packet_size=50)
    assert peer.expect(Connack).reason == 0x95
    assert peer.expect_close() == []


def test_door_refuses_a_user_name_other_than_the_proven_one(mesh: Processes) -> None:
    client = ScramClient(NAME, PASSWORD)
    peer = begin(mesh.vehicles, client, "OTHER")
    peer.send(proof(client.final(challenge(peer))))
    assert peer.expect(Connack).reason == 0x87


def test_vehicle_without_a_proof_is_refused(mesh: Processes) -> None:
    peer = Peer(SocketWire(mesh.vehicles), 5, "prover")
    assert_refused(peer, Connect(5, "prover", True, 60, NAME, PASSWORD.encode()), 0x8C)
    peer = Peer(SocketWire(mesh.vehicles), 4, "prover")
    assert_refused(peer, Connect(4, "prover", True, 60, NAME, PASSWORD.encode()), 5)


def assert_refused(peer: Peer, connect: Connect, reason: int) -> None:
    assert peer.connect(connect).reason == reason
    assert peer.expect_close() == []


def test_backend_may_use_a_password_instead_of_a_proof(mesh: Processes) -> None:
    peer = Peer(SocketWire(mesh.backends), 5, "prover")
    assert peer.connect(Connect(5, "prover", True, 60, NAME, PASSWORD.encode())).reason == 0
    peer.leave()


@shows(v5="4.12.0-1")
def test_unknown_method_is_refused(port: int) -> None:
    peer = Peer(SocketWire(port), 5, "prover")
    asked = properties(auth_method="GS2-KRB5", auth_data=b"x")
    assert_refused(peer, Connect(5, "prover", True, 60, None, None, None, asked), 0x8C)


@shows(v5="3.1.2-30")
@pytest.mark.parametrize("packet", [Publish("a", b"x"), Ping(12), Subscribe(1, [Subscription("a")])])
def test_packet_other_than_auth_before_connack_is_refused(port: int, packet: Publish | Ping | Subscribe) -> None:
    peer = begin(port, ScramClient(NAME, PASSWORD))
    challenge(peer)
    peer.send(packet)
    assert peer.expect(Connack).reason == 0x82
    assert peer.expect_close() == []


def test_client_may_disconnect_during_the_exchange(port: int) -> None:
    peer = begin(port, ScramClient(NAME, PASSWORD))
    challenge(peer)
    peer.send(Disconnect())
    assert peer.expect_close() == []


@shows(v5="4.12.0-5")
@pytest.mark.parametrize("auth", [proof(b"x", CONTINUE, "SCRAM-SHA-1"), proof(b"x", AGAIN), Auth(CONTINUE)])
def test_wrong_auth_before_connack_ends_the_exchange(port: int, auth: Auth) -> None:
    peer = begin(port, ScramClient(NAME, PASSWORD))
    challenge(peer)
    peer.send(auth)
    assert peer.expect(Connack).reason == 0x82
    assert peer.expect_close() == []


def test_auth_in_one_piece_with_connect_is_answered(port: int) -> None:
    """CONNECT and AUTH arrive in one piece."""
    client = ScramClient(NAME, PASSWORD)
    peer = Peer(SocketWire(port), 5, "prover")
    asked = properties(auth_method=METHOD, auth_data=client.first())
    peer.send(Connect(5, "prover", True, 60, None, None, None, asked), proof(b"too early"))
    challenge(peer)
    assert peer.expect(Connack).reason == 0x87


@shows(v5="4.12.1-1")
def test_reauthentication_does_not_stop_messages(port: int) -> None:
    peer = prove(port)
    topic = f"vehicles/{NAME}/y"
    peer.subscribe(topic)
    for _ in range(2):
        client = ScramClient(NAME, PASSWORD)
        peer.send(proof(client.first(), AGAIN))
        answer = challenge(peer)
        peer.publish(topic, b"meanwhile")
        assert peer.message().payload == b"meanwhile"
        peer.send(proof(client.final(answer)))
        done = peer.expect(Auth)
        assert done.reason == 0
        check_final(client, done.properties)
    peer.leave()


@shows(v5="4.12.1-2")
@pytest.mark.parametrize(("name", "password"), [(NAME, "wrong"), ("OTHER", "other")])
def test_failed_reauthentication_ends_connection(port: int, name: str, password: str) -> None:
    peer = prove(port)
    client = ScramClient(name, password)
    peer.send(proof(client.first(), AGAIN))
    peer.send(proof(client.final(challenge(peer))))
    peer.expect_end(0x87)


@shows(v5="3.15.1-1")
def test_auth_with_flags_is_malformed(port: int) -> None:
    peer = prove(port)
    peer.send(b"\xf1\x02\x19\x00")
    peer.expect_end(0x81)


@shows(v5="3.15.2-2 3.15.2-3")
def test_auth_of_the_server_has_no_optional_properties(port: int) -> None:
    """The server puts neither reason strings nor user properties into an AUTH."""
    peer = prove(port)
    client = ScramClient(NAME, PASSWORD)
    peer.send(proof(client.first(), AGAIN))
    asked = peer.expect(Auth).properties
    assert asked is not None
    assert (asked.reason_string, asked.user) == (None, [])


@shows(v5="4.12.1-1")
@pytest.mark.parametrize("auth", [proof(b"x", AGAIN, "SCRAM-SHA-1"), proof(b"x", CONTINUE), Auth(AGAIN)])
def test_wrong_auth_after_connack_ends_connection(port: int, auth: Auth) -> None:
    peer = prove(port)
    peer.send(auth)
    peer.expect_end(0x82)


@shows(v5="4.12.0-6 4.12.0-7")
def test_auth_without_a_method_ends_connection(mesh: Processes) -> None:
    peer = Peer(SocketWire(mesh.backends), 5, "prover")
    connack = peer.connect(Connect(5, "prover", True, 60, NAME, PASSWORD.encode()))
    assert connack.properties is not None
    assert connack.properties.auth_method is None
    peer.send(proof(b"x", AGAIN))
    peer.expect_end(0x82)
