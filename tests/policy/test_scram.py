"""SCRAM-SHA-256: the example of RFC 7677, wrong passwords, and files of verifiers."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain
from mesh.policy.scram import (
    SCRAM_SHA_256,
    ScramFile,
    ScramProof,
    VerifierError,
    Verifiers,
    make_verifier,
    name_in,
    read_verifiers,
    write_line,
)
from mesh.policy.watched import PERIOD
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.support.loop import run
from tests.support.scram_client import ScramClient
from tests.support.waiting import until

PENCIL = make_verifier("pencil", 4096, base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
KNOWN = Verifiers({"user": PENCIL, "a,b=c": make_verifier("pencil")})


def begin(nonce: str = "") -> ScramProof:
    return ScramProof(KNOWN, "provers", Attempts(1000), nonce=nonce)


def test_exchange_matches_the_example_of_the_rfc() -> None:
    """RFC 7677 section 3."""
    proof = begin("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    first, proven = proof.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert not proven
    final, proven = proof.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert proven
    assert claimed(proof) == "user"


def claimed(proof: ScramProof) -> str:
    assert proof.claim is not None
    return proof.claim.name


def exchange(name: str, password: str) -> ScramProof:
    proof = begin()
    client = ScramClient(name, password)
    challenge, _ = proof.step(client.first())
    final, proven = proof.step(client.final(challenge))
    assert proven
    client.check(final)
    return proof


@pytest.mark.parametrize("name", ["user", "a,b=c"])
def test_right_password_proves_the_identity(name: str) -> None:
    assert claimed(exchange(name, "pencil")) == name


@pytest.mark.parametrize(("name", "password"), [("user", "pencils"), ("user", ""), ("nobody", "pencil")])
def test_wrong_name_or_password_is_refused(name: str, password: str) -> None:
    with pytest.raises(Refused) as refused:
        exchange(name, password)
    assert refused.value.reason == 0x87


def test_unknown_name_gets_a_constant_challenge() -> None:
    challenges = set()
    for _ in range(2):
        proof = begin()
        challenge, proven = proof.step(b"n,,n=nobody,r=abc")
        assert not proven
        challenges.add(challenge.split(b",", 1)[1])
    assert len(challenges) == 1
    assert challenges.pop().endswith(b",i=4096")


@pytest.mark.parametrize(
    "first",
    [b"", b"n,,n=user", b"n,,r=abc,n=user", b"n,a=other,n=user,r=abc", b"p=tls-unique,,n=user,r=abc", b"n,,n=user,r=",
     b"n,,m=x,n=user,r=abc", b"n,,n=us=er,r=abc", b"\xff,,n=user,r=abc", b"n,,n=user,r=abc,n=other", b"x" * 2000],
)  # fmt: skip
def test_invalid_first_message_is_refused(first: bytes) -> None:
    proof = begin()
    with pytest.raises(Refused):
        proof.step(first)


@pytest.mark.parametrize("change", [("c=biws", "c=eSws"), ("r=", "r=x"), (",p=", ",p=AAAA"), (",p=", ",q=")])
def test_changed_final_message_is_refused(change: tuple[str, str]) -> None:
    proof = begin()
    client = ScramClient("user", "pencil")
    final = client.final(proof.step(client.first())[0])
    with pytest.raises(Refused):
        proof.step(final.decode().replace(*change, 1).encode())


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"n,,n=user,r=abc", "user"), (b"y,,n=a=2Cb=3Dc,r=abc", "a,b=c"), (b"n,,r=abc", ""), (b"", ""), (b"n,,", ""),
        (b"n,,n=us=er,r=abc", ""), (b"\xff,,n=user,r=abc", ""), (b"n,,n=user,r=" + b"x" * 2000, ""),
    ],
)  # fmt: skip
def test_the_name_in_a_first_message_tells_whose_exchange_it_is(first: bytes, name: str) -> None:
    assert name_in(first) == name


def write(file: Path, **passwords: str) -> None:
    """Another file takes the place of the one that was there, as careful programs do."""
    fresh = file.with_suffix(".new")
    fresh.write_text("".join(f"{write_line(name, make_verifier(word))}\n" for name, word in passwords.items()))
    fresh.replace(file)


def test_a_changed_file_is_in_force_and_tells_which_claims_still_hold(tmp_path: Path) -> None:
    file = tmp_path / "vehicles.scram"

    async def main() -> None:
        provider, told = ScramFile("provers", file, Attempts(1000)), 0
        chain = Chain((provider,))

        def changed() -> None:
            nonlocal told
            told += 1

        def prove(name: str, password: str) -> Claim:
            proof = chain.begin(SCRAM_SHA_256, NOWHERE)
            assert proof is not None
            client = ScramClient(name, password)
            proof.step(client.final(proof.step(client.first())[0]))
            assert proof.claim is not None
            return chain.proven(Connect(), proof.claim)

        with pytest.raises(FileNotFoundError):
            await provider.start()
        write(file, V1="one", V2="two", V3="three")
        await provider.start()
        provider.changed = changed
        claims = [prove("V1", "one"), prove("V2", "two"), prove("V3", "three")]
        assert chain.begin("SCRAM-SHA-1", NOWHERE) is None
        with pytest.raises(Refused) as refused:
            chain.decide(Connect(username="V1", password=b"one"), NOWHERE)
        assert refused.value.reason == 0x8C
        lines = file.read_text().splitlines()
        file.write_text(f"{lines[0]}\n{write_line('V2', make_verifier('changed'))}\n")
        await until(lambda: told == 1, "the change")
        assert [chain.holds(claim) for claim in claims] == [True, False, False]
        file.write_text("V1:password\n")
        await asyncio.sleep(3 * PERIOD)
        assert (told, prove("V2", "changed").name) == (1, "V2")
        file.unlink()
        write(file, V3="three")
        await until(lambda: told == 2, "the file after a wrong one and none")
        assert not chain.holds(claims[0])
        await provider.stop()

    run(main())


def test_verifiers_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vehicles.scram"
    file.write_text(f"# comment\n\n{write_line('V1', PENCIL)}\n{write_line('a:b', PENCIL)}\n")
    assert read_verifiers(file) == {"V1": PENCIL, "a:b": PENCIL}
    file.write_text(f"{write_line('V1', PENCIL)}\nV2:password\n")
    with pytest.raises(VerifierError, match=":2: this is not a verifier"):
        read_verifiers(file)
