"""The provider of tokens: keys in files and behind URLs, their rotation, and clients with tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.policy import jwks
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain
from mesh.policy.jwks import KeyFile, KeySource, KeyUrl
from mesh.policy.jwt import FORGED, METHOD, Tokens
from mesh.policy.keyset import MAX_BYTES, read_keys
from mesh.policy.token import MAX_TOKEN, TokenRule
from mesh.transport.authentication import Later
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED, NOT_AUTHORIZED, SERVER_BUSY
from tests.support.loop import run
from tests.support.tokens import AUDIENCE, ISSUER, SECRET, claims, key_set, public, token
from tests.support.waiting import until
from tests.support.webserver import WebServer, never

RULE = TokenRule((ISSUER,), (AUDIENCE,), ("ES256",), roles="roles")


class Given(KeySource):
    """Keys that a test sets."""

    def __init__(self, *keys: dict[str, object]) -> None:
        super().__init__()
        self.give(*keys)

    def give(self, *keys: dict[str, object]) -> None:
        self.take(read_keys(key_set(*keys), RULE.algorithms))


async def decided(tokens: Tokens, password: bytes | None) -> Claim | None:
    verdict = tokens.decide(Connect(password=password), NOWHERE)
    return verdict if verdict is None or isinstance(verdict, Claim) else await verdict


async def allowed(tokens: Tokens, password: bytes) -> Claim:
    claim = await decided(tokens, password)
    assert claim is not None
    return claim


async def refused(tokens: Tokens, password: bytes) -> int:
    with pytest.raises(Refused) as caught:
        await decided(tokens, password)
    return caught.value.reason


class Now:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


# The verdict


def test_a_client_that_goes_on_with_forged_tokens_is_refused_before_they_are_checked() -> None:
    """A signature takes the loop longer than most that a client can ask for before it is known."""
    clock = Now()
    attempts = Attempts(8, clock)
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")), attempts=attempts)
    right, forged = token(claims("V1"), id="k"), token(claims("V1"), number=1, id="k")
    here, there = Peer("192.0.2.1", 1), Peer("198.51.100.1", 1)

    def code(data: bytes, peer: Peer) -> int:
        try:
            return 0 if isinstance(tokens.decide(Connect(password=data), peer), Claim) else -1
        except Refused as refused:
            return refused.reason

    assert code(right, there) == 0
    assert [code(forged, here) for _ in range(5)] == [0x87, 0x87, 0x9F, 0x9F, 0x9F]
    assert code(token(claims("V1", jti="2"), id="k"), here) == 0x9F
    assert code(token(claims("V1", jti="3"), id="k"), there) == 0, "others are not slowed"
    assert code(token(claims("V2"), id="k"), here) == 0
    proof = tokens.begin(here)
    with pytest.raises(Refused) as caught:
        proof.step(forged)
    assert caught.value.reason == 0x9F
    expired = [code(token(claims("V3", exp=int(time.time()) - 100 - number), id="k"), here) for number in range(9)]
    assert expired == [0x87] * 9, "an issuer made them"
    clock.now += 60
    assert code(token(claims("V1", jti="4"), id="k"), here) == 0


def test_some_forged_tokens_are_told_what_they_are() -> None:
    """A client with a broken clock or key, and a test, is not taken for an attacker at once."""
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")))
    for _ in range(FORGED // 4):
        with pytest.raises(Refused) as caught:
            tokens.decide(Connect(password=token(claims(), number=1, id="k")), NOWHERE)
        assert caught.value.reason == NOT_AUTHORIZED
    with pytest.raises(Refused) as caught:
        tokens.decide(Connect(password=token(claims(), number=1, id="k")), NOWHERE)
    assert caught.value.reason == CONNECTION_RATE_EXCEEDED


def test_a_token_in_the_password_is_a_claim_that_ends_with_the_token() -> None:
    content = claims("V1", roles=["fleet"], jti="7")
    found = Tokens("tokens", RULE, Given(public("ES256", "k"))).decide(
        Connect(password=token(content, id="k")), NOWHERE
    )
    assert isinstance(found, Claim)
    assert (found.name, found.provider, found.roles) == ("V1", "tokens", ("fleet",))
    assert found.expires == content["exp"] + RULE.leeway  # type: ignore[operator]
    assert found.proof.endswith(" 7")


def test_a_password_that_is_no_token_is_for_the_next_provider() -> None:
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")))
    for password in (None, b"", b"secret", b"a.b.c", b"x" * 60_000):
        assert tokens.decide(Connect(password=password), NOWHERE) is None


def test_a_token_of_another_issuer_is_for_the_next_provider() -> None:
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")))
    assert tokens.decide(Connect(password=token(claims(iss="https://other.example"), id="k")), NOWHERE) is None


def test_providers_of_issuers_with_other_algorithms_are_asked_in_turn() -> None:
    """A secret and public keys are not allowed in one provider, so a fleet with both has two."""
    secret = TokenRule(("https://other.example",), (AUDIENCE,), ("HS256",))
    given = KeySource()
    given.take(read_keys(key_set(public("HS256", "s")), secret.algorithms))
    providers = (Tokens("public", RULE, Given(public("ES256", "k"))), Tokens("secret", secret, given))
    other = claims(iss="https://other.example")
    for chain in (Chain(providers), Chain(providers[::-1])):
        ways = ((claims(), "ES256", "k", "public"), (other, "HS256", "s", "secret"))
        for said, algorithm, key, provider in ways:
            found = chain.decide(Connect(password=token(said, algorithm, key)), NOWHERE)
            assert isinstance(found, Claim)
            assert found.provider == provider
        for said, algorithm, key in ((other, "ES256", "k"), (claims(), "HS256", "s")):
            with pytest.raises(Refused):
                chain.decide(Connect(password=token(said, algorithm, key)), NOWHERE)


@pytest.mark.parametrize(
    "password",
    [
        token(claims(), number=1, id="k"),
        token(claims(exp=int(time.time()) - 100), id="k"),
        token(claims(aud="other"), id="k"),
        b"eyJhbGciOiJub25lIn0.e30.",
        token(claims(more="x" * MAX_TOKEN), id="k"),
    ],
)
def test_a_token_that_is_not_valid_is_denied(password: bytes) -> None:
    with pytest.raises(Refused) as caught:
        Tokens("tokens", RULE, Given(public("ES256", "k"))).decide(Connect(password=password), NOWHERE)
    assert caught.value.reason == NOT_AUTHORIZED


def test_the_same_token_is_checked_once_and_not_after_its_end() -> None:
    clock = Now()
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")), clock)
    data = token(claims(), id="k")
    first = tokens.decide(Connect(password=data), NOWHERE)
    assert tokens.decide(Connect(password=data), NOWHERE) is first
    assert tokens.decisions.cached == 1
    clock.now += 600 + RULE.leeway
    with pytest.raises(Refused, match="ended"):
        tokens.decide(Connect(password=data), NOWHERE)


def test_a_claim_holds_as_long_as_the_key_that_signed_its_token() -> None:
    keys = Given(public("ES256", "old"))
    tokens = Tokens("tokens", RULE, keys)
    told: list[int] = []
    tokens.changed = lambda: told.append(1)
    data = token(claims(), id="old")
    claim = tokens.claim_of(data, "", True)
    keys.give(public("ES256", "old"), public("ES256", "new", 1))
    assert tokens.holds(claim)
    assert tokens.claim_of(data, "", True).name == "V1"
    keys.give(public("ES256", "old", 2), public("ES256", "new", 1))  # another key with the same identifier
    assert not tokens.holds(claim)
    with pytest.raises(Refused):
        tokens.claim_of(data, "", True)
    assert tokens.claim_of(token(claims(), id="new", number=1), "", True).name == "V1"
    assert len(told) == 2
    keys.give(public("ES256", "new", 1), public("ES256", "old", 2))  # nothing new
    assert len(told) == 2


def test_a_provider_begins_with_the_keys_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return answers(public("ES256", "a"))

    async def main() -> None:
        async with WebServer(handle, tmp_path) as server:
            first = Tokens("tokens", RULE, KeyUrl(server.url, RULE.algorithms, server.ca))
            await first.start()
            claim = await allowed(first, token(claims(), id="a"))
            await server.stop()
            rule = TokenRule((ISSUER,), (), RULE.algorithms)
            second = Tokens("tokens", rule, KeyUrl(server.url, RULE.algorithms, server.ca)).replace(first)
            other = Tokens("tokens", rule, KeyUrl(server.url + "/other", RULE.algorithms, server.ca)).replace(first)
            for one in (second, other):
                await one.start()
            assert second.holds(claim)
            assert (await allowed(second, token(claims(aud=None), id="a"))).name == "V1"
            assert other.holds(claim)  # it does not know better
            assert await refused(other, token(claims(), id="a")) == SERVER_BUSY
            for one in (first, second, other):
                await one.stop()

    run(main())


def test_an_exchange_of_the_method_is_one_token() -> None:
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")))
    assert tokens.method == METHOD
    proof = tokens.begin(NOWHERE)
    assert proof.step(token(claims("V2"), id="k")) == (b"", True)
    assert proof.claim is not None
    assert proof.claim.name == "V2"
    later = tokens.begin(NOWHERE)
    assert later.step(b"") == (b"", False)  # the client waits for a question before it sends its token
    with pytest.raises(Refused):
        later.step(b"")
    for data in (token(claims(aud="other"), id="k"), token(claims(iss="other"), id="k"), b"secret", b"x" * 60_000):
        with pytest.raises(Refused) as caught:
            tokens.begin(NOWHERE).step(data)
        assert caught.value.reason == NOT_AUTHORIZED


def test_tokens_of_its_issuer_are_recognized() -> None:
    tokens = Tokens("tokens", RULE, Given(public("ES256", "k")))
    assert tokens.recognizes(token(claims("V2"), id="another key"))
    for data in (token(claims(iss="other"), id="k"), b"secret", b"", b"x" * 60_000):
        assert not tokens.recognizes(data)


def test_what_is_in_force_names_keys_by_their_thumbprint() -> None:
    keys = Given(public("ES256", "k"))
    shown = Tokens("tokens", RULE, keys).in_force()
    assert shown["keys"] == sorted(keys.present.thumbprints)
    assert json.dumps(shown)


# Files


def test_a_file_that_changes_is_in_force_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    async def main() -> None:
        path.write_bytes(key_set(public("ES256", "a")))
        tokens = Tokens("tokens", RULE, keys := KeyFile(path, RULE.algorithms))
        await tokens.start()
        try:
            assert (await allowed(tokens, token(claims(), id="a"))).name == "V1"
            path.write_bytes(b"{")
            await until(lambda: keys.fault != "")
            assert str(path) in keys.fault
            assert (await allowed(tokens, token(claims(), id="a"))).name == "V1"
            path.write_bytes(key_set(public("ES256", "b", 1)))
            await until(lambda: keys.fault == "" and len(keys.present.thumbprints) == 1)
            assert await refused(tokens, token(claims(), id="a")) == NOT_AUTHORIZED
            assert (await allowed(tokens, token(claims(), id="b", number=1))).name == "V1"
        finally:
            await tokens.stop()

    run(main())


@pytest.mark.parametrize("content", [b"{", b'{"keys":[]}', b" " * (MAX_BYTES + 1)])
def test_a_file_without_keys_ends_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)

    async def main() -> None:
        with pytest.raises(ValueError, match=str(path)):
            await KeyFile(path, RULE.algorithms).start()

    run(main())


def test_a_file_with_a_secret_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.write_bytes(key_set(public("HS256")))
    path.chmod(0o644)

    async def main() -> None:
        with pytest.raises(PermissionError):
            await KeyFile(path, ["HS256"]).start()
        path.chmod(0o600)
        rule = TokenRule((ISSUER,), (AUDIENCE,), ("HS256",))
        tokens = Tokens("tokens", rule, KeyFile(path, ["HS256"]))
        await tokens.start()
        assert (await allowed(tokens, token(claims(), "HS256"))).name == "V1"
        assert SECRET.decode() not in json.dumps(tokens.in_force())
        await tokens.stop()

    run(main())


# URLs


def answers(*keys: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=key_set(*keys), content_type="application/jwk-set+json", status=status)


class Issuer:
    """The keys that a server has at present, and the provider that gets them from there."""

    def __init__(self, server: WebServer, published: list[dict[str, object]], source: KeyUrl) -> None:
        self.server = server
        self.published = published
        self.source = source
        self.tokens = Tokens("tokens", RULE, source)


@asynccontextmanager
async def issuing(folder: Path, interval: float, refresh: float = 300.0, retry: float = 5.0) -> AsyncIterator[Issuer]:
    """A server with the key ``a``, and a started provider."""
    published = [public("ES256", "a")]

    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)  # many clients wait for one answer
        return answers(*published)

    async with WebServer(handle, folder) as server:
        source = KeyUrl(server.url, RULE.algorithms, server.ca, refresh=refresh, retry=retry, interval=interval)
        issuer = Issuer(server, published, source)
        await issuer.tokens.start()
        try:
            yield issuer
        finally:
            await issuer.tokens.stop()


def test_keys_come_from_a_url_and_an_unknown_one_is_looked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with issuing(tmp_path, interval=0.0) as issuer:
            tokens, server = issuer.tokens, issuer.server
            old = await allowed(tokens, token(claims("V1"), id="a"))
            assert (old.name, server.asked) == ("V1", 1)
            issuer.published.insert(0, public("ES256", "b", 1))
            found = await asyncio.gather(
                *(allowed(tokens, token(claims(f"V{n}"), id="b", number=1)) for n in range(50))
            )
            assert [claim.name for claim in found] == [f"V{n}" for n in range(50)]
            assert server.asked == 2
            assert tokens.holds(old)
            assert issuer.source.fault == ""

    run(main())


def test_a_flood_of_unknown_keys_asks_the_url_once_in_an_interval(tmp_path: Path) -> None:
    async def main() -> None:
        async with issuing(tmp_path, interval=60.0) as issuer:
            tokens, keys = issuer.tokens, issuer.source
            keys._asked -= 60.0  # as if an interval had passed since the fetch of the start
            for _ in range(3):
                reasons = await asyncio.gather(
                    *(refused(tokens, token(claims(), id=f"unknown {n}")) for n in range(200))
                )
                assert set(reasons) == {NOT_AUTHORIZED}
                assert tokens.decide(Connect(password=token(claims(), id="a")), NOWHERE) is not None
            assert keys.fetches == issuer.server.asked == 2

    run(main())


def test_an_exchange_with_an_unknown_key_waits_for_a_newer_set(tmp_path: Path) -> None:
    async def main() -> None:
        async with issuing(tmp_path, interval=0.0) as issuer:
            issuer.published.append(public("ES256", "b", 1))
            data = token(claims(), id="b", number=1)
            proof, other = issuer.tokens.begin(NOWHERE), issuer.tokens.begin(NOWHERE)
            with pytest.raises(Later) as caught:
                proof.step(data)
            await caught.value.ready
            assert len(issuer.source.present) == 2
            assert proof.step(data) == (b"", True)
            unknown = token(claims(), id="c", number=2)
            with pytest.raises(Later) as caught:
                other.step(unknown)
            await caught.value.ready
            with pytest.raises(Refused) as refusal:
                other.step(unknown)
            assert refusal.value.reason == NOT_AUTHORIZED

    run(main())


def test_the_last_good_set_stays_while_the_url_does_not_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with issuing(tmp_path, refresh=0.05, retry=0.05, interval=0.0) as issuer:
            tokens, source = issuer.tokens, issuer.source
            await issuer.server.stop()
            await until(lambda: source.fault != "")
            assert (await allowed(tokens, token(claims(), id="a"))).name == "V1"
            assert await refused(tokens, token(claims(), id="b", number=1)) == NOT_AUTHORIZED
            issuer.published[:] = [public("ES256", "b", 1)]
            await issuer.server.start()
            await until(lambda: source.fault == "")
            assert (await allowed(tokens, token(claims(), id="b", number=1))).name == "V1"
            assert await refused(tokens, token(claims(), id="a")) == NOT_AUTHORIZED

    run(main())


def test_a_start_without_the_server_uses_the_set_that_was_kept(tmp_path: Path) -> None:
    kept = tmp_path / "keys-tokens.json"

    async def handle(request: web.Request) -> web.StreamResponse:
        return answers(public("ES256", "a"))

    async def started(url: str, authority: Path | None, algorithms: tuple[str, ...] = RULE.algorithms) -> Tokens:
        tokens = Tokens("tokens", RULE, KeyUrl(url, algorithms, authority))
        tokens.folder = tmp_path
        await tokens.start()
        await tokens.stop()
        return tokens

    async def main() -> None:
        async with WebServer(handle, tmp_path) as server:
            claim = await allowed(await started(server.url, server.ca), token(claims(), id="a"))
            assert kept.stat().st_mode & 0o777 == 0o600
            await server.stop()
            again = await started(server.url, server.ca)
            assert "could not be asked" in again.fault()
            assert again.holds(claim)
            assert (await allowed(again, token(claims(), id="a"))).name == "V1"
            # Not those of another source, nor those that are too old or no set.
            for other in (
                await started(server.url + "/other", server.ca),
                await started(server.url, server.ca, ("ES256", "RS256")),
            ):
                assert await refused(other, token(claims(), id="a")) == SERVER_BUSY
            whole = json.loads(kept.read_text())
            for wrong in ({**whole, "fetched": whole["fetched"] - 90_000}, {**whole, "keys": "{}"}, [], {}):
                kept.write_text(json.dumps(wrong))
                assert await refused(await started(server.url, server.ca), token(claims(), id="a")) == SERVER_BUSY

    run(main())


def test_a_start_does_not_wait_for_a_slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FIRST", 0.05)

    async def main() -> None:
        answer = asyncio.Event()

        async def handle(request: web.Request) -> web.StreamResponse:
            await answer.wait()
            return answers(public("ES256", "a"))

        async with WebServer(handle, tmp_path) as server:
            tokens = Tokens("tokens", RULE, source := KeyUrl(server.url, RULE.algorithms, server.ca))
            await tokens.start()
            try:
                assert not source.present
                waiting = asyncio.create_task(allowed(tokens, token(claims(), id="a")))
                await asyncio.sleep(0)
                answer.set()
                assert (await waiting).name == "V1"
                assert server.asked == 1
            finally:
                await tokens.stop()

    run(main())


async def _redirects(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/other")


async def _fails(request: web.Request) -> web.StreamResponse:
    return answers(public("ES256", "a"), status=500)


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b" " * 65_536)
    return response


async def _empty(request: web.Request) -> web.StreamResponse:
    return answers()


async def _packed(request: web.Request) -> web.StreamResponse:
    response = answers(public("ES256", "a"))
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _text(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (_redirects, "status 302"),
        (_fails, "status 500"),
        (_huge, f"more than {MAX_BYTES} bytes"),
        (_empty, "no key for ES256"),
        (_packed, "compressed"),
        (_text, "not valid JSON"),
        (never, "did not answer within 0.2 s"),
    ],
)
def test_an_answer_without_keys_is_an_error_and_tokens_are_told_to_wait(
    tmp_path: Path, handler: object, why: str
) -> None:
    async def main() -> None:
        async with WebServer(handler, tmp_path) as server:  # type: ignore[arg-type]
            seconds = 0.2 if handler is never else 30.0
            source = KeyUrl(server.url, RULE.algorithms, server.ca, retry=60.0, interval=60.0, timeout=seconds)
            tokens = Tokens("tokens", RULE, source)
            await tokens.start()
            try:
                await until(lambda: why in source.fault)
                assert await refused(tokens, token(claims(), id="a")) == SERVER_BUSY
                assert server.asked == 1
            finally:
                await tokens.stop()

    run(main())


def test_a_server_with_the_wrong_certificate_is_not_believed(tmp_path: Path) -> None:
    async def main() -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return answers(public("ES256", "a"))

        async with WebServer(handle, tmp_path, ("other.example",)) as server:
            for authority in (server.ca, None):
                source = KeyUrl(server.url, RULE.algorithms, authority)
                await source.start()
                await source.stop()
                assert "certificate" in source.fault.lower()
                assert not source.present

    run(main())


@pytest.mark.parametrize(
    "url",
    ["http://auth.example.com/keys", "file:///etc/passwd", "https://", "keys.json", "https://u:p@auth.example.com", ""],
)
def test_a_url_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|https://"):
        KeyUrl(url, RULE.algorithms)


def test_a_secret_is_not_fetched() -> None:
    with pytest.raises(ValueError, match="private file"):
        KeyUrl("https://auth.example.com/keys", ["HS256"])


def test_a_file_of_authorities_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"missing\.pem"):
            await KeyUrl("https://127.0.0.1:1", RULE.algorithms, tmp_path / "missing.pem").start()
        wrong = tmp_path / "wrong.pem"
        wrong.write_text("no certificate")
        with pytest.raises(ValueError, match=r"wrong\.pem"):
            await KeyUrl("https://127.0.0.1:1", RULE.algorithms, wrong).start()

    run(main())
