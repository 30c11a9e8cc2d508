"""The users of the topology, and back ends without a password."""

from __future__ import annotations

from hashlib import sha256

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.policy import users as module
from mesh.policy.anonymous import ANONYMOUS, AnyUser
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain
from mesh.policy.users import USERS, Users
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.support.loop import run
from tests.support.scram_client import ScramClient


def made(before: Users | None = None, **passwords: str) -> Users:
    return Users(passwords, Attempts(20), bytes.hex, before)


def claim_of(chain: Chain, username: str | None, password: bytes | None = None) -> tuple[str, str]:
    claim = chain.decide(Connect(username=username, password=password), NOWHERE)
    assert isinstance(claim, Claim), "no provider here waits"
    return claim.name, claim.provider


@pytest.mark.parametrize(
    ("username", "password"),
    [
        (None, None),
        ("fleet", None),
        ("fleet", b""),
        ("fleet", b"wrong"),
        ("nobody", b"right"),
        ("nobody", None),
        ("", b"right"),
    ],
)
def test_back_end_without_its_password_is_refused(username: str | None, password: bytes | None) -> None:
    with pytest.raises(Refused) as refused:
        Chain((made(fleet="right"),)).decide(Connect(username=username, password=password), Peer("10.0.0.9", 5))
    assert refused.value.reason == 0x86
    assert "right" not in str(refused.value)


def test_back_end_with_its_password_is_admitted() -> None:
    assert claim_of(Chain((made(fleet="right"),)), "fleet", b"right") == ("fleet", USERS)


def test_a_name_with_a_password_needs_it_although_others_need_none() -> None:
    users = made(fleet="right")
    chain = Chain((users, AnyUser(users.has)))
    with pytest.raises(Refused):
        chain.decide(Connect(username="fleet"), NOWHERE)
    assert claim_of(chain, "fleet", b"right") == ("fleet", USERS)
    assert claim_of(chain, "other") == ("other", ANONYMOUS)
    assert claim_of(chain, None) == (ANONYMOUS, ANONYMOUS)


def test_claims_end_with_the_user_and_begin_to_need_a_password_with_it() -> None:
    users = made(fleet="changed")
    chain = Chain((users, AnyUser(users.has)))
    assert chain.holds(Claim("fleet", USERS))  # a changed password concerns new connections only
    assert not chain.holds(Claim("gone", USERS))
    assert chain.holds(Claim("other", ANONYMOUS))
    assert not chain.holds(Claim("fleet", ANONYMOUS))


def test_users_prove_their_passwords_and_a_verifier_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made_for: list[str] = []
    make = module.make_verifier

    def counted(password: str) -> module.Verifier:
        made_for.append(password)
        return make(password, 1)

    monkeypatch.setattr(module, "make_verifier", counted)

    async def main() -> None:
        first = made(app="one", old="two")
        await first.start()
        second = made(first, app="one", old="new", more="three")
        await second.start()
        assert sorted(made_for) == ["new", "one", "three", "two"]
        for name, password in (("app", "one"), ("old", "new"), ("more", "three")):
            proof, client = second.begin(NOWHERE), ScramClient(name, password)
            proof.step(client.final(proof.step(client.first())[0]))
            assert proof.claim is not None
            assert (proof.claim.name, proof.claim.provider) == (name, USERS)

    run(main())


def test_no_password_is_in_what_is_in_force() -> None:
    assert made(app="right").in_force() == {"users": {"app": sha256(b"right").hexdigest()}}
