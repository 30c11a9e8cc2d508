"""The users of the topology, and back ends without a password."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer
from mesh.policy import users as module
from mesh.policy.anonymous import ANONYMOUS, AnyUser
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain
from mesh.policy.providers import Provider, Verdict
from mesh.policy.secrettext import SecretText, SecretUnusable
from mesh.policy.users import LONGEST, USERS, Users, bind_user
from mesh.topology.topology import BackendRule
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.support.loop import run
from tests.support.scram_client import ScramClient
from tests.support.waiting import until


def made(before: Users | None = None, **passwords: str) -> Users:
    return Users({name: SecretText(text=word) for name, word in passwords.items()}, Attempts(20), bytes.hex, before)


def ready(**passwords: str) -> Users:
    users = made(**passwords)
    run(users.start())
    return users


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
        Chain((ready(fleet="right"),)).decide(Connect(username=username, password=password), Peer("10.0.0.9", 5))
    assert refused.value.reason == 0x86
    assert "right" not in str(refused.value)


def test_back_end_with_its_password_is_admitted() -> None:
    assert claim_of(Chain((ready(fleet="right"),)), "fleet", b"right") == ("fleet", USERS)


def test_a_name_with_a_password_needs_it_although_others_need_none() -> None:
    users = ready(fleet="right")
    chain = Chain((users, AnyUser()))
    with pytest.raises(Refused):
        chain.decide(Connect(username="fleet"), NOWHERE)
    assert claim_of(chain, "fleet", b"right") == ("fleet", USERS)
    assert claim_of(chain, "other") == ("other", ANONYMOUS)
    assert claim_of(chain, None) == (ANONYMOUS, ANONYMOUS)


def test_claims_end_with_the_user_and_begin_to_need_a_password_with_it() -> None:
    users = ready(fleet="changed")
    chain = Chain((users, AnyUser()))
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
    assert ready(app="right").in_force() == {"users": {"app": sha256(b"right").hexdigest()}}


def test_a_password_whose_file_changes_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "app.secret"

    def write(password: str, mode: int = 0o600) -> None:
        draft = tmp_path / "draft"
        draft.touch(mode)
        draft.write_text(password)
        draft.chmod(mode)
        draft.rename(file)

    async def main() -> None:
        write("first")
        users = Users({"app": SecretText(file=file)}, Attempts(1000), bytes.hex)
        await users.start()
        chain = Chain((users,))

        def admits(password: bytes) -> bool:
            try:
                return claim_of(chain, "app", password) == ("app", USERS)
            except Refused:
                return False

        assert admits(b"first")
        write("second")
        await until(lambda: admits(b"second"), "the new password")
        assert not admits(b"first")
        proof, client = users.begin(NOWHERE), ScramClient("app", "second")
        proof.step(client.final(proof.step(client.first())[0]))
        assert proof.claim is not None
        write("third", 0o644)
        await until(lambda: bool(users.fault()), "the fault")
        assert str(file) in users.fault()
        assert "third" not in users.fault()
        assert admits(b"second")
        write("fourth")
        await until(lambda: admits(b"fourth"), "the password after the fault")
        assert users.fault() == ""
        await users.stop()

    run(main())


def test_users_do_not_start_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(SecretUnusable, match=r"backends\.users\.app\.password"):
        run(Users({"app": SecretText(file=tmp_path / "absent")}, Attempts(20), bytes.hex).start())


# The names of back ends


class Named(Provider):
    """Admits every client with one name."""

    def __init__(self, identity: str) -> None:
        super().__init__("other")
        self._identity = identity

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        return Claim(self._identity, self.name)


@pytest.mark.parametrize("name", ["ann", "svc:ann@example.com", "a/b", "Ünal Ö.", "x" * LONGEST])
def test_a_provider_may_give_a_back_end_any_printable_name(name: str) -> None:
    assert claim_of(Chain((Named(name),), bind_user), None) == (name, "other")


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "\x1b[2J", "x" * (LONGEST + 1)])
def test_a_name_that_is_no_text_of_a_line_is_refused(name: str) -> None:
    """JSON has surrogates, which no text of MQTT has: such a name could be neither stored nor logged."""
    with pytest.raises(Refused) as refused:
        Chain((Named(name),), bind_user).decide(Connect(), NOWHERE)
    assert refused.value.reason == 0x87


def test_a_core_binds_the_names_of_its_back_ends() -> None:
    rule = BackendRule(anonymous=True)
    assert rule.order(Attempts(20), bytes.hex).bind is bind_user
    assert claim_of(Chain((AnyUser(),), bind_user), "a\x01b") == ("a\x01b", ANONYMOUS)
