"""Clients of other projects prove their identity by a token, or by a password that another server knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiohttp import web

from tests.stock.makers import Dialect, Makers
from tests.stock.mosquitto import Mosquitto
from tests.stock.peer import V5, Refused
from tests.stock.way import CORE, DOOR, Way, way_in
from tests.support.loop import LoopThread
from tests.support.processes import Processes
from tests.support.tokens import AUDIENCE, ISSUER, claims, key_set, public, token
from tests.support.waiting import wait_until
from tests.support.webserver import WebServer

pytestmark = pytest.mark.e2e

NOT_AUTHORIZED = 0x87
RIGHT = "the right one"


async def _decide(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    word = {RIGHT: "allow", "none": "next"}.get(asked.get("password", "none"), "deny")
    return web.json_response({"result": word})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, loop: LoopThread) -> Iterator[Processes]:
    """A mesh whose door and core ask for a token, or else another server."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys.json"
    keys.write_bytes(key_set(public("ES256", "e"), public("RS256", "r")))
    server = WebServer(_decide, folder)
    loop.run(server.start())
    providers = (
        f"[{{name: tokens, jwt: {{keys: {keys}, issuer: {ISSUER!r}, audience: {AUDIENCE}, leeway: 0s, "
        f"algorithms: [ES256, RS256]}}}}, {{name: ours, http: {{url: {server.url!r}, ca: {server.ca}}}}}]"
    )
    identity = f'{{from: username, pattern: "[A-Za-z0-9_-]{{1,64}}", providers: {providers}}}'
    with Processes(folder, ["edge-1"], identity=identity, users=f"{{providers: {providers}}}") as running:
        yield running
    loop.run(server.stop())


@pytest.fixture(params=[CORE, DOOR])
def entry(request: pytest.FixtureRequest, guarded: Processes, numbers: Iterator[int]) -> Way:
    found = way_in(request.param, guarded.vehicles, guarded.backends, next(numbers))
    return replace(found, user=found.user or "app")


def _token(way: Way, algorithm: str = "ES256", number: int = 0, **more: object) -> str:
    id = {"ES256": "e", "RS256": "r"}[algorithm]
    return token(claims(str(way.user), **more), algorithm, id, number).decode()


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_a_token_in_the_password_admits(makers: Makers, entry: Way, dialect: Dialect, algorithm: str) -> None:
    peer = makers.join(dialect, entry, password=_token(entry, algorithm))
    peer.subscribe(entry.topic("talk"))
    peer.publish(entry.topic("talk"), b"hello")
    assert peer.expect(1)[0].payload == b"hello"


def test_a_wrong_token_and_a_wrong_password_are_refused(makers: Makers, entry: Way, dialect: Dialect) -> None:
    told_in_5 = dialect[1] == V5 or dialect[0] == "paho"  # paho translates return codes
    for password in (_token(entry, number=1), _token(entry, exp=int(time.time()) - 1), "wrong", None):
        with pytest.raises(Refused) as refusal:
            makers.join(dialect, entry, password=password)
        assert refusal.value.code == (NOT_AUTHORIZED if told_in_5 else 5)


def test_a_password_that_another_server_knows_admits(makers: Makers, entry: Way, dialect: Dialect) -> None:
    peer = makers.join(dialect, entry, password=RIGHT)
    peer.subscribe(entry.topic("talk"))
    peer.publish(entry.topic("talk"), b"hello")
    assert peer.expect(1)[0].payload == b"hello"


def test_a_client_is_closed_when_its_token_ends(makers: Makers, entry: Way, modern: Dialect) -> None:
    peer = makers.join(modern, entry, password=_token(entry, exp=time.time() + 2))
    wait_until(lambda: peer.record.closes, "the end of the connection")


def test_the_programs_of_mosquitto(mosquitto: Mosquitto, entry: Way, version: str) -> None:
    receiver = mosquitto.sub(entry, version, "-t", entry.topic("talk"), "-P", _token(entry))
    mosquitto.sent(entry, version, "-t", entry.topic("talk"), "-m", "one", "-q", "1", "-P", _token(entry, "RS256"))
    mosquitto.sent(entry, version, "-t", entry.topic("talk"), "-m", "two", "-q", "1", "-P", RIGHT)
    assert [got.payload for got in receiver.expect(2)] == [b"one", b"two"]
    refused = mosquitto.pub(entry, version, "-t", entry.topic("talk"), "-m", "x", "-P", _token(entry, number=1))
    assert refused.returncode != 0
    assert "not authori" in refused.stderr.lower()
