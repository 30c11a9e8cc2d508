"""Chains of providers: the order, the three answers, deadlines, and what a refusal tells."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.policy.chain import Chain, Chains
from mesh.policy.providers import NEXT, Provider, Verdict
from mesh.policy.slots import Slots
from mesh.transport.authentication import Proof
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    BAD_USER_NAME_OR_PASSWORD,
    BANNED,
    CLIENT_IDENTIFIER_NOT_VALID,
    CONNECTION_RATE_EXCEEDED,
    NOT_AUTHORIZED,
    SERVER_BUSY,
    SERVER_UNAVAILABLE,
)
from tests.support.loop import run

Answer = Callable[[], Verdict | Awaitable[Verdict]]


class Scripted(Provider):
    """Answers as the test says, and counts how often it was asked."""

    def __init__(self, name: str, answer: Answer, method: str = "", refusal: int = NOT_AUTHORIZED) -> None:
        super().__init__(name, method, refusal=refusal)
        self.answer = answer
        self.asked = 0
        self.left = 0
        self.given = True
        self.barred: tuple[str, ...] = ()

    def decide(self, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        self.asked += 1
        return self.answer()

    def unknown(self, connect: Connect, peer: Peer) -> None:
        self.left += 1

    def bars(self, address: str) -> bool:
        return address in self.barred

    def begin(self, peer: Peer) -> Proof:
        return Proof()

    def holds(self, claim: Claim) -> bool:
        return self.given


def passes(name: str, refusal: int = NOT_AUTHORIZED) -> Scripted:
    return Scripted(name, lambda: NEXT, refusal=refusal)


def allows(name: str, identity: str = "V1") -> Scripted:
    return Scripted(name, lambda: Claim(identity, name))


def denies(name: str, reason: int = BANNED) -> Scripted:
    def deny() -> Verdict:
        raise Refused(reason)

    return Scripted(name, deny)


def later(name: str, answer: Answer, seconds: float = 0.0) -> Scripted:
    async def wait() -> Verdict:
        await asyncio.sleep(seconds)
        found = answer()
        assert found is None or isinstance(found, Claim)
        return found

    return Scripted(name, wait)


def decided(chain: Chain, connect: Connect | None = None) -> Claim:
    async def main() -> Claim:
        found = chain.decide(connect or Connect(), NOWHERE)
        return found if isinstance(found, Claim) else await found

    return asyncio.run(main())


def refused(chain: Chain) -> int:
    with pytest.raises(Refused) as caught:
        decided(chain)
    return caught.value.reason


def test_an_address_is_refused_at_once_only_if_all_providers_of_its_listener_bar_it() -> None:
    first, second = passes("first"), passes("second")
    chains = Chains(Chain((first, second)), {"inside": Chain((first,)), "none": Chain(())})
    first.barred = ("192.0.2.1",)
    chains.arrive(Peer("192.0.2.1", 1))
    chains.arrive(Peer("192.0.2.2", 1, "inside"))
    chains.arrive(Peer("192.0.2.1", 1, "none"))
    for listener in ("inside", ""):
        with pytest.raises(Refused) as caught:
            chains.arrive(Peer("192.0.2.1", 1, listener))
        assert caught.value.reason == CONNECTION_RATE_EXCEEDED
        second.barred = ("192.0.2.1",)
    assert (first.decisions.denied, second.decisions.denied) == (2, 0)


def test_the_first_provider_that_allows_decides_and_no_other_is_asked() -> None:
    first, second, third = passes("first"), allows("second"), allows("third")
    claim = decided(Chain((first, second, third)))
    assert (claim.name, claim.provider) == ("V1", "second")
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)


def test_a_denial_ends_the_chain() -> None:
    third = allows("third")
    assert refused(Chain((passes("first"), denies("second"), third))) == BANNED
    assert third.asked == 0


def test_a_decision_without_waiting_providers_is_no_coroutine() -> None:
    assert isinstance(Chain((passes("first"), allows("second"))).decide(Connect(), NOWHERE), Claim)


def test_a_chain_goes_on_after_a_provider_that_waits() -> None:
    chain = Chain(
        (passes("one"), later("two", lambda: NEXT), passes("three"), later("four", lambda: Claim("V", "four")))
    )
    assert decided(chain).provider == "four"


def test_a_provider_that_waits_may_deny() -> None:
    def deny() -> Verdict:
        raise Refused(BANNED)

    assert refused(Chain((later("first", deny), allows("second")))) == BANNED


@pytest.mark.parametrize("waits", [False, True])
def test_a_client_that_no_provider_admits_is_refused_and_each_is_told(waits: bool) -> None:
    first = later("first", lambda: NEXT) if waits else passes("first")
    second = passes("second")
    assert refused(Chain((first, second))) == NOT_AUTHORIZED
    assert (first.left, second.left) == (1, 1)
    assert refused(Chain(())) == NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((NOT_AUTHORIZED, BAD_USER_NAME_OR_PASSWORD, BAD_AUTHENTICATION_METHOD), BAD_USER_NAME_OR_PASSWORD),
        ((BAD_AUTHENTICATION_METHOD,), BAD_AUTHENTICATION_METHOD),
        ((BAD_AUTHENTICATION_METHOD, NOT_AUTHORIZED), NOT_AUTHORIZED),
    ],
)
def test_the_code_for_unknown_clients_is_that_of_wrong_passwords_if_passwords_are_asked_for(
    codes: tuple[int, ...], told: int
) -> None:
    assert refused(Chain(tuple(passes(f"p{code}", code) for code in codes))) == told


def test_a_decision_has_a_deadline_for_the_whole_chain() -> None:
    slow = Chain((later("slow", lambda: NEXT, 0.03), later("never", lambda: Claim("V", "never"), 60)), deadline=0.06)
    assert refused(slow) == SERVER_UNAVAILABLE


@pytest.mark.parametrize("waits", [False, True])
def test_a_provider_with_an_error_denies(waits: bool) -> None:
    def fails() -> Verdict:
        raise RuntimeError("a fault")

    fault = later("fault", fails) if waits else Scripted("fault", fails)
    after = allows("after")
    assert refused(Chain((fault, after))) == SERVER_UNAVAILABLE
    assert after.asked == 0


@pytest.mark.parametrize("waits", [False, True])
def test_every_claim_is_bound(waits: bool) -> None:
    bound: list[tuple[str, bool]] = []

    def bind(connect: Connect, claim: Claim, proven: bool) -> None:
        bound.append((claim.name, proven))
        if connect.client_id != claim.name:
            raise Refused(CLIENT_IDENTIFIER_NOT_VALID)

    provider = later("p", lambda: Claim("V1", "p")) if waits else allows("p")
    chain = Chain((provider,), bind)
    assert decided(chain, Connect(client_id="V1")).name == "V1"
    with pytest.raises(Refused) as caught:
        decided(chain, Connect(client_id="V2"))
    assert caught.value.reason == CLIENT_IDENTIFIER_NOT_VALID
    assert chain.proven(Connect(client_id="V1"), Claim("V1", "p")).name == "V1"
    assert bound == [("V1", False), ("V1", False), ("V1", True)]


def test_a_claim_holds_while_its_provider_is_in_the_chain_and_vouches_for_it() -> None:
    provider = allows("p")
    chain = Chain((provider,))
    assert chain.holds(Claim("V1", "p"))
    assert not chain.holds(Claim("V1", "other"))
    provider.given = False
    assert not chain.holds(Claim("V1", "p"))
    with pytest.raises(Refused):
        chain.proven(Connect(), Claim("V1", "p"))


def test_each_listener_has_its_chain_and_its_methods() -> None:
    proving = Scripted("scram", lambda: NEXT, method="SCRAM")
    chains = Chains(Chain((allows("usual"),)), {"mqtts://[::]:8883": Chain((allows("cert"), proving))})
    secure, plain = Peer(listener="mqtts://[::]:8883"), Peer(listener="mqtt://127.0.0.1:1883")
    claims = [chains.of(peer).decide(Connect(), peer) for peer in (secure, plain)]
    assert [claim.provider for claim in claims if isinstance(claim, Claim)] == ["cert", "usual"]
    assert chains.begin("SCRAM", secure) is not None
    assert chains.begin("SCRAM", plain) is None
    assert chains.begin("", secure) is None
    chains.take(Chains(Chain((allows("new"),))))
    claim = chains.of(secure).decide(Connect(), secure)
    assert isinstance(claim, Claim)
    assert claim.provider == "new"


class Riddle(Proof):
    """Its second data is the identity, after a question for an empty first one."""

    def __init__(self, provider: str) -> None:
        super().__init__()
        self._provider = provider

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if not data:
            return f"{self._provider} asks".encode(), False
        self.claim = Claim(data.decode(), self._provider)
        return b"", True


class Riddler(Scripted):
    """Recognizes identities that begin with its name."""

    def begin(self, peer: Peer) -> Proof:
        return Riddle(self.name)

    def recognizes(self, data: bytes) -> bool:
        return data.startswith(self.name.encode())


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(("data", "provider"), [(b"one", "one"), (b"two", "two"), (b"three", "one")])
def test_an_exchange_is_with_the_provider_that_recognizes_it(asks: bool, data: bytes, provider: str) -> None:
    riddlers = [Riddler(name, lambda: NEXT, method="riddle") for name in ("one", "two")]
    chain = Chain((riddlers[0], passes("other"), riddlers[1]))
    proof = chain.begin("riddle", NOWHERE)
    assert proof is not None
    if asks:
        assert proof.step(b"") == (b"one asks", False)
    assert proof.step(data) == (b"", True)
    assert proof.claim is not None
    assert (proof.claim.name, proof.claim.provider) == (data.decode(), provider)


def test_slots_bound_what_runs_and_what_waits() -> None:
    async def main() -> None:
        slots, open, running, most = Slots("hashes", 2, 3), asyncio.Event(), 0, 0

        async def work() -> None:
            nonlocal running, most
            async with slots:
                running += 1
                most = max(most, running)
                await open.wait()
                running -= 1

        tasks = [asyncio.create_task(work()) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as caught:
            await work()
        assert caught.value.reason == SERVER_BUSY
        assert (running, slots.waiting, slots.refused) == (2, 3, 1)
        tasks[4].cancel()
        open.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (running, most, slots.waiting) == (0, 2, 0)
        await work()

    run(main())


def test_decisions_are_counted_by_their_outcome() -> None:
    def fails() -> Verdict:
        raise RuntimeError("a fault")

    def busy() -> Verdict:
        raise Refused(SERVER_BUSY)

    first, second = passes("first"), later("second", lambda: Claim("V1", "second"))
    no, fault, full = denies("no"), Scripted("fault", fails), Scripted("full", busy)
    decided(Chain((first, second)))
    for provider in (no, fault, full):
        refused(Chain((first, provider)))
    Chain((first,)).proven(Connect(), Claim("V1", "first"))
    chains = Chains(Chain((first, second)), {"other": Chain((no, first, fault)), "more": Chain((full,))})
    assert [(one.name, one.allowed, one.denied, one.passed, one.failed, one.fault) for one in chains.status()] == [
        ("first", 1, 0, 4, 0, ""),
        ("second", 1, 0, 0, 0, ""),
        ("no", 0, 1, 0, 0, ""),
        ("fault", 0, 0, 0, 1, ""),
        ("full", 0, 0, 0, 1, ""),
    ]
    assert chains.fault() == ""
