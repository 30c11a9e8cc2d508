"""The provider that asks another server: its question, the answers, and servers that do not answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer, TlsFacts
from mesh.policy.breaker import CLOSED, FAILURES, OPEN
from mesh.policy.http import MAX_ANSWER, QUEUE, Http, HttpRule
from mesh.policy.rights import role_of
from mesh.policy.secrettext import SecretText
from mesh.policy.web import NoAnswer, Web
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED, SERVER_BUSY, SERVER_UNAVAILABLE
from tests.support.loop import run
from tests.support.waiting import PATIENCE, until
from tests.support.webserver import Handler, WebServer, never

CONNECT = Connect(client_id="c1", username="V1", password=b"secret")


def named(connect: Connect) -> str:
    return connect.username or ""


def says(**answer: object) -> Handler:
    """A server that always answers so."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer)

    return handle


async def decided(provider: Http, connect: Connect = CONNECT, peer: Peer = NOWHERE) -> Claim | None:
    verdict = provider.decide(connect, peer)
    return verdict if verdict is None or isinstance(verdict, Claim) else await verdict


async def refused(provider: Http, connect: Connect = CONNECT) -> int:
    with pytest.raises(Refused) as caught:
        await decided(provider, connect)
    return caught.value.reason


class Asking:
    """``async with``: a server, and a provider that asks it."""

    def __init__(self, handler: Handler, folder: Path | None = None, **rule: object) -> None:
        self.server = WebServer(handler, folder)
        self._rule = rule
        self.now = time.monotonic()

    async def __aenter__(self) -> Asking:
        await self.server.start()
        rule = HttpRule(**{"url": self.server.url, "ca": self.server.ca, "cache": 0.0, **self._rule})  # type: ignore[arg-type]
        self.provider = Http("ours", rule, named, ticks=lambda: self.now)
        await self.provider.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.stop()
        await self.server.stop()


def test_the_question_has_what_is_known_of_the_client(tmp_path: Path) -> None:
    asked: list[dict[str, object]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.method == "POST"
        assert request.headers["X-Token"] == "of the door"
        assert request.content_type == "application/json"
        asked.append(json.loads(await request.read()))
        return web.json_response({"result": "next"})

    facts = TlsFacts(
        "TLSv1.3", "x", common_name="V1", dns=("v1.example",), serial="0a", fingerprint="ff", issuer="CN=CA"
    )

    async def main() -> None:
        async with Asking(handle, tmp_path, headers={"X-Token": SecretText(text="of the door")}) as asking:
            peer = Peer("192.0.2.7", 5000, "mqtts://[::]:8883", facts)
            assert await decided(asking.provider, CONNECT, peer) is None
            assert await decided(asking.provider, Connect(client_id="c2", password=b"\xff\x00"), NOWHERE) is None

    run(main())
    assert asked == [
        {
            "client_id": "c1", "protocol": "5.0" if CONNECT.protocol == 5 else "3.1.1", "address": "192.0.2.7",
            "listener": "mqtts://[::]:8883", "username": "V1", "password": "secret",
            "certificate": {
                "common_name": "V1", "dns": ["v1.example"], "email": [], "uri": [], "serial": "0a",
                "fingerprint": "ff", "issuer": "CN=CA", "not_after": 0.0,
            },
        },
        {
            "client_id": "c2", "protocol": "5.0" if CONNECT.protocol == 5 else "3.1.1", "address": "", "listener": "",
            "password_base64": "/wA=",
        },
    ]  # fmt: skip


def test_a_header_comes_from_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    file = tmp_path / "token"
    monkeypatch.setenv("OURS_TENANT", "fleet")

    def write(value: str) -> None:
        draft = tmp_path / "draft"
        draft.touch(0o600)
        draft.write_text(value)
        draft.rename(file)

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers["Authorization"], request.headers["X-Tenant"]))
        return web.json_response({"result": "next"})

    async def main() -> None:
        headers = {"Authorization": SecretText(file=file), "X-Tenant": SecretText(env="OURS_TENANT")}
        async with Asking(handle, headers=headers) as asking:
            await decided(asking.provider)
            assert seen == [("Bearer one", "fleet")]
            write("Bearer two\n")
            async with asyncio.timeout(PATIENCE):
                while seen[-1] != ("Bearer two", "fleet"):
                    await decided(asking.provider)
            write("Bearer\x01three")
            async with asyncio.timeout(PATIENCE):
                while not asking.provider.fault():
                    await asyncio.sleep(0.02)
            assert "ours.http.headers.Authorization" in asking.provider.fault()
            assert "three" not in asking.provider.fault()

    write("Bearer one")
    run(main())


def test_the_question_has_the_name_that_a_load_balancer_has_verified() -> None:
    asked: list[dict[str, object]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(json.loads(await request.read()))
        return web.json_response({"result": "next"})

    async def main() -> None:
        async with Asking(handle) as asking:
            for facts in (TlsFacts("TLSv1.3", "x", common_name="V1"), TlsFacts("TLSv1.3", "x")):
                await decided(asking.provider, CONNECT, Peer("192.0.2.7", 5000, "mqtt://[::]:1883", facts))

    run(main())
    balanced, plain = asked
    certificate = balanced["certificate"]
    assert isinstance(certificate, dict)
    assert (certificate["common_name"], certificate["fingerprint"]) == ("V1", "")
    assert "certificate" not in plain


def test_an_answer_that_allows_is_a_claim() -> None:
    later = time.time() + 60

    async def main() -> None:
        async with Asking(says(result="allow", identity="V7", roles=["fleet"], expires=later, more=1)) as asking:
            claim = await decided(asking.provider)
            assert claim is not None
            assert (claim.name, claim.provider, claim.roles, claim.expires) == ("V7", "ours", ("fleet",), later)
        async with Asking(says(result="allow")) as asking:
            claim = await decided(asking.provider)
            assert claim is not None
            assert (claim.name, claim.roles, claim.expires) == ("V1", (), 0.0)
        given: dict[str, object] = {"publish": ["a/#"], "qos": 1}
        async with Asking(says(result="allow", roles=["fleet"], permissions=given)) as asking:
            claim = await decided(asking.provider)
            assert claim is not None
            assert claim.roles == ("fleet", role_of(given))

    run(main())


def test_an_answer_may_deny_or_pass_the_client_on() -> None:
    async def main() -> None:
        async with Asking(says(result="deny")) as asking:
            assert await refused(asking.provider) == NOT_AUTHORIZED
        async with Asking(says(result="next")) as asking:
            assert await decided(asking.provider) is None

    run(main())


async def _redirects(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/other")


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b" " * 65_536)
    return response


async def _trickles(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def _packed(request: web.Request) -> web.StreamResponse:
    response = web.json_response({"result": "allow"})
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _leaves(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    assert transport is not None
    transport.abort()
    return web.Response()


def _text(text: str, type: str = "application/json", status: int = 200) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=type, status=status)

    return handle


@pytest.mark.parametrize(
    "handler",
    [
        never,
        _redirects,
        _huge,
        _trickles,
        _packed,
        _leaves,
        _text('{"result":"allow"}', "text/html"),
        _text('{"result":"allow"}', status=201),
        _text('{"result":"allow"}', status=403),
        _text('{"result":"allow"}', status=500),
        _text('{"result":"allow"}', status=503),
        _text('{"result":"deny","result":"allow"}'),
        _text('{"result":"allow"'),
        _text('"allow"'),
        _text("[" * 60_000),
        says(result="ALLOW"),
        says(allow=True),
        says(result=True),
        says(result=["allow"]),
        says(result="allow", identity=""),
        says(result="allow", identity=None),
        says(result="allow", identity=["V1"]),
        says(result="allow", identity="x" * 1025),
        says(result="allow", roles=7),
        says(result="allow", roles=["a\nb"]),
        says(result="allow", roles=['{"publish":["#"]}']),
        says(result="allow", permissions=None),
        says(result="allow", permissions={"deny": ["#"]}),
        says(result="allow", permissions={"publish": ["a/#/b"]}),
        says(result="allow", expires="never"),
        says(result="allow", expires=-1),
        says(result="allow", expires=1),
        says(result="allow", expires=True),
        _text('{"result":"allow","expires":1e999}'),
        _text('{"result":"allow","expires":1' + "0" * 400 + "}"),
    ],
)
def test_every_other_answer_is_a_failure_that_denies_unless_chosen_otherwise(handler: Handler) -> None:
    async def main() -> None:
        async with Asking(handler, timeout=0.3) as asking:
            assert await refused(asking.provider) == SERVER_UNAVAILABLE
            assert asking.server.asked == (2 if handler is _leaves else 1)
        async with Asking(handler, timeout=0.3, on_failure="next") as asking:
            assert await decided(asking.provider) is None
            assert asking.provider.decisions.failed == 1

    run(main())


def test_a_connection_that_ends_when_it_is_used_again_is_no_failure() -> None:
    last: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if last and request.transport is last[0].transport:
            last.clear()
            return await _leaves(request)
        last[:] = [request]
        return web.json_response({"result": "allow"})

    async def main() -> None:
        async with Asking(handle) as asking:
            for _ in range(5):
                assert await decided(asking.provider) is not None
            assert asking.server.asked > 5
            assert asking.provider.decisions.failed == 0

    run(main())


def test_the_file_of_authorities_is_watched(tmp_path: Path) -> None:
    async def main() -> None:
        async with Asking(says(result="allow"), tmp_path) as asking:
            provider, first = asking.provider, asking.server
            assert await decided(provider) is not None
            await first.stop()
            assert first.ca is not None
            first.ca.write_text("no certificate")
            await until(lambda: "authority.pem" in provider.fault())
            asking.server = WebServer(says(result="allow"), tmp_path)  # of another authority, in the same file
            asking.server.port = first.port
            await asking.server.start()
            await until(lambda: provider.fault() == "")
            assert await decided(provider) is not None

    run(main())


def test_a_server_that_is_not_there_is_left_alone_for_a_while() -> None:
    async def main() -> None:
        async with Asking(says(result="allow")) as asking:
            provider = asking.provider
            await asking.server.stop()
            for _ in range(FAILURES):
                assert await refused(provider) == SERVER_UNAVAILABLE
            assert provider.breaker.state == OPEN
            assert "could not be asked" in provider.fault()
            await asking.server.start()
            assert await refused(provider) == SERVER_UNAVAILABLE
            assert asking.server.asked == 0
            asking.now += 1.0
            assert await decided(provider) is not None
            assert provider.breaker.state == CLOSED
            assert provider.fault() == ""

    run(main())


def test_answers_that_one_client_can_cause_do_not_shut_out_the_others() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        if asked["client_id"] == "bad":
            return web.json_response({"result": "allow", "identity": "x" * 2000})
        if asked["client_id"] == "worse":
            return web.Response(status=500)
        return web.json_response({"result": "allow"})

    async def main() -> None:
        async with Asking(handle) as asking:
            for id in ("bad", "worse"):
                for _ in range(2 * FAILURES):
                    assert await refused(asking.provider, Connect(client_id=id)) == SERVER_UNAVAILABLE
            assert await decided(asking.provider) is not None

    run(main())


def test_questions_and_those_who_wait_are_bounded() -> None:
    here = most = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0.02)
        here -= 1
        return web.json_response({"result": "allow"})

    async def main() -> None:
        async with Asking(handle, parallel=2) as asking:
            found = await asyncio.gather(
                *(decided(asking.provider, Connect(client_id=f"c{n}", username=f"V{n}")) for n in range(40)),
                return_exceptions=True,
            )
            claims = [one for one in found if isinstance(one, Claim)]
            reasons = [one.reason for one in found if isinstance(one, Refused)]
            assert (len(claims), most) == (2 + 2 * QUEUE, 2)
            assert reasons == [SERVER_BUSY] * (40 - len(claims))

    run(main())


def test_those_who_wait_do_not_ask_a_server_that_is_not_there() -> None:
    async def main() -> None:
        async with Asking(never, parallel=FAILURES, timeout=2.0) as asking:
            connects = [Connect(client_id=f"c{n}") for n in range(5 * FAILURES)]
            assert set(await asyncio.gather(*(refused(asking.provider, one) for one in connects))) == {
                SERVER_UNAVAILABLE
            }
            assert FAILURES <= asking.server.asked < 2 * FAILURES

    run(main())


def test_a_client_that_goes_takes_its_question_with_it() -> None:
    async def main() -> None:
        async with Asking(never, parallel=1, timeout=30.0) as asking:
            task = asyncio.create_task(decided(asking.provider))
            await until(lambda: asking.server.asked == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            asking.server.handler = says(result="allow")
            assert await decided(asking.provider) is not None
            assert asking.provider.breaker.state == CLOSED

    run(main())


@pytest.mark.parametrize("answer", [{"result": "allow"}, {"result": "deny"}, {"result": "next"}])
def test_an_answer_is_kept_for_its_time(answer: dict[str, object]) -> None:
    async def once(provider: Http, connect: Connect, peer: Peer) -> str:
        try:
            return str(await decided(provider, connect, peer))
        except Refused as error:
            return str(error)

    async def main() -> None:
        async with Asking(says(**answer), cache=60.0) as asking:
            provider = asking.provider
            first = await once(provider, CONNECT, Peer("192.0.2.7", 5000))
            assert await once(provider, CONNECT, Peer("192.0.2.7", 5001)) == first
            assert (asking.server.asked, provider.decisions.cached) == (1, 1)
            await once(provider, Connect(client_id="c1", username="V1", password=b"other"), Peer("192.0.2.7", 5000))
            await once(provider, CONNECT, Peer("192.0.2.8", 5000))
            assert asking.server.asked == 3
            asking.now += 60.0
            await once(provider, CONNECT, Peer("192.0.2.7", 5000))
            assert asking.server.asked == 4

    run(main())


def test_failures_and_ended_claims_are_not_kept() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response({"result": "allow", "expires": time.time() + 0.2})

    async def main() -> None:
        async with Asking(handle, cache=60.0) as asking:
            claim = await decided(asking.provider)
            assert claim is not None
            await until(lambda: time.time() > claim.expires)
            assert await decided(asking.provider) is not None
            assert asking.server.asked == 2
            asking.server.handler = _text("{}")
            other = Connect(client_id="other")
            assert await refused(asking.provider, other) == await refused(asking.provider, other)
            assert asking.server.asked == 4

    run(main())


def test_what_is_in_force_has_no_secrets() -> None:
    rule = HttpRule("https://auth.example.com", headers={"Authorization": SecretText(text="Bearer of the door")})
    shown = Http("ours", rule, named).in_force()
    assert shown["headers"] == ["Authorization"]
    assert "Bearer" not in json.dumps(shown) + repr(rule)


@pytest.mark.parametrize("ask", [Web.get, lambda web: Web.post(web, b"{}", {})])
def test_a_server_is_asked_no_longer_after_the_stop(ask: Callable[[Web], object]) -> None:
    async def main() -> None:
        asking = Web("https://auth.example.com", None, 1.0, MAX_ANSWER)
        await asking.start()
        await asking.stop()
        with pytest.raises(NoAnswer, match="no longer"):
            await ask(asking)  # type: ignore[misc]

    run(main())
