"""Tokens: what a valid one says, and each way in which one is not valid."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Mapping
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.policy.keyset import ALGORITHMS, KeySet, UnknownKey, read_keys
from mesh.policy.token import MAX_TOKEN, Said, Token, TokenError, TokenRule, is_token
from tests.support.tokens import AUDIENCE, ISSUER, claims, key, key_set, public, raw_token, token

RULE = TokenRule((ISSUER,), (AUDIENCE,), ("ES256", "RS256"), roles="roles")
KEYS = read_keys(key_set(public("ES256", "e"), public("RS256", "r")), RULE.algorithms)


def said(data: bytes, rule: TokenRule = RULE, keys: KeySet = KEYS, now: float = 0.0) -> Said:
    found = Token(data, rule)
    return found.says(keys.find(found.algorithm, found.key), now or time.time())


def refused(data: bytes, why: str, rule: TokenRule = RULE, keys: KeySet = KEYS, now: float = 0.0) -> None:
    with pytest.raises(ValueError, match=why):
        said(data, rule, keys, now)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_valid_token_of_each_algorithm_names_the_vehicle(algorithm: str) -> None:
    rule = TokenRule((ISSUER,), (AUDIENCE,), (algorithm,))
    keys = read_keys(key_set(public(algorithm, "k")), (algorithm,))
    content = claims("V7", jti="42")
    found = said(token(content, algorithm, "k"), rule, keys)
    assert (found.vehicle, found.roles, found.id) == ("V7", (), "42")
    assert found.expires == content["exp"] + rule.leeway  # type: ignore[operator]


@pytest.mark.parametrize(
    ("roles", "found"),
    [(["a", "b", "a"], ("a", "b")), ("read write", ("read", "write")), (["Fleet admin"], ("Fleet admin",)), ([], ())],
)
def test_roles_are_a_list_or_a_text(roles: object, found: tuple[str, ...]) -> None:
    assert said(token(claims(roles=roles), id="e")).roles == found


@pytest.mark.parametrize("roles", [7, {"a": 1}, [7], [""], ["a\nb"], ["x" * 200], [f"r{n}" for n in range(65)]])
def test_roles_of_another_form_refuse_the_token(roles: object) -> None:
    refused(token(claims(roles=roles), id="e"), "role")


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("vin", {"vin": "V9"}),
        ("car.vin", {"car": {"vin": "V9"}}),
        ("https://fleet.example/vin", {"https://fleet.example/vin": "V9"}),
    ],
)
def test_the_vehicle_is_in_the_claim_that_the_rule_names(path: str, more: Mapping[str, object]) -> None:
    rule = TokenRule((ISSUER,), (AUDIENCE,), ("ES256",), vehicle=path)
    assert said(token(claims(**more), id="e"), rule).vehicle == "V9"
    refused(token(claims(), id="e"), "names the vehicle", rule)


@pytest.mark.parametrize("vehicle", [None, "", 7, ["V1"]])
def test_a_token_without_a_vehicle_is_refused(vehicle: object) -> None:
    refused(
        token({**claims(), "sub": vehicle} if vehicle is not None else claims(sub=None), id="e"), "names the vehicle"
    )


# Attacks on the algorithm


def test_a_public_key_is_not_taken_for_a_secret() -> None:
    """CVE-2015-9235: the token says HS256, and is signed with the text of the public RSA key."""
    private = key("RS256")
    assert isinstance(private, rsa.RSAPrivateKey)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), key_set(public("RS256", "r"))):
        head = _part({"alg": "HS256", "kid": "r"}) + b"." + _part(claims())
        forged = head + b"." + base64.urlsafe_b64encode(hmac.digest(secret, head, sha256)).rstrip(b"=")
        refused(forged, "algorithm 'HS256'; allowed: ES256, RS256")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 7, ["ES256"], "es256", "RS384"])
def test_an_algorithm_that_is_not_allowed_is_refused(name: object) -> None:
    body = _part({"alg": name, "kid": "e"}) + b"." + _part(claims()) + b"."
    refused(body, "has the algorithm")
    refused(body + b"AAAA", "has the algorithm")


def test_a_token_without_an_algorithm_is_refused() -> None:
    refused(_part({"kid": "e"}) + b"." + _part(claims()) + b".", "algorithm None")


def test_a_key_of_another_type_is_not_used() -> None:
    refused(token(claims(), "ES256", "r"), "'r' does not fit ES256")


def test_an_empty_signature_is_wrong() -> None:
    whole = token(claims(), id="e")
    refused(whole[: whole.rindex(b".") + 1], "signature")


def test_a_signature_of_another_key_or_for_other_claims_is_wrong() -> None:
    refused(token(claims(), "ES256", "e", 1), "signature")
    good, other = token(claims("V1"), id="e").split(b"."), token(claims("V2"), id="e").split(b".")
    refused(b".".join((good[0], other[1], good[2])), "signature")


def test_a_zero_signature_is_wrong() -> None:
    """CVE-2022-21449: r and s of zero."""
    head = token(claims(), id="e").rpartition(b".")[0]
    refused(head + b"." + base64.urlsafe_b64encode(bytes(64)).rstrip(b"="), "signature")


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c", "jwk", "x5t"])
def test_headers_that_bring_a_key_are_ignored(name: str) -> None:
    brought: dict[str, object] = {
        "jku": "https://attacker.example/keys", "x5u": "https://attacker.example/cert", "x5c": ["AAAA"],
        "jwk": public("ES256", "own", 1), "x5t": "AAAA",
    }  # fmt: skip
    refused(token(claims(), "ES256", "e", 1, **{name: brought[name]}), "signature")
    with pytest.raises(UnknownKey):
        said(token(claims(), "ES256", "own", 1, **{name: brought[name]}))
    assert said(token(claims(), "ES256", "e", **{name: brought[name]})).vehicle == "V1"


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "exp"])
def test_a_token_that_needs_extensions_is_refused(crit: object) -> None:
    header = json.dumps({"alg": "ES256", "kid": "e", "crit": crit}).encode()
    refused(raw_token(header, json.dumps(claims()).encode()), "needs extensions")


# Attacks on the text


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b'{"alg":"ES256","kid":"e","alg":"ES256"}', b"{}"),
        (b'{"alg":"ES256","kid":"e"}', b'{"sub":"V1","sub":"V2","iss":"' + ISSUER.encode() + b'","exp":99999999999}'),
        (b'{"alg":"ES256","kid":"e"}', b'{"exp":NaN}'),
        (b'{"alg":"ES256","kid":"e"}', b'{"exp":Infinity}'),
        (b'{"alg":"ES256","kid":"e"}', b"[]"),
        (b'{"alg":"ES256","kid":"e"}', b'"V1"'),
        (b'{"alg":"ES256","kid":"e"}', b"\xff"),
        (b'{"alg":"ES256","kid":"e"}', b"[" * 9000),
        (b'{"alg":"ES256","kid":7}', b"{}"),
        (b'{"alg":"ES256"', b"{}"),
    ],
)
def test_a_token_that_could_be_read_in_two_ways_is_refused(header: bytes, body: bytes) -> None:
    refused(raw_token(header, body), "twice|not valid JSON|not a JSON|nested|no text")


def test_a_token_is_refused_for_its_size_before_it_is_read() -> None:
    large = token(claims(more="x" * MAX_TOKEN), id="e")
    refused(large, f"the limit is {MAX_TOKEN}")
    refused(b"eyJ" + b"A" * 60_000 + b".AA.AA", "the limit is")
    assert said(token(claims(more="x" * 8000), id="e")).vehicle == "V1"


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"eyJhbGciOiJub25lIn0.e30.", True),
        (b"eyJh..", True),
        (b"secret", False),
        (b"a.b.c", False),
        (b"eyJh.e30", False),
        (b"eyJh.e30.a.b.c", False),
        (b"eyJh.e3 0.a", False),
        (b"eyJh.e30.a\n", False),
        (b"", False),
    ],
)
def test_a_password_is_told_from_a_token(data: bytes, form: bool) -> None:
    assert is_token(data) is form


def test_there_is_one_text_for_one_token() -> None:
    whole = token(claims(), id="e")
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(whole[-1:])
    other = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1 : (last ^ 1) + 1]
    refused(whole[:-1] + other, "base64url")
    refused(whole + b"=", "three parts")


# The claims


@pytest.mark.parametrize("issuer", [None, "https://other.example", ISSUER + "/", [ISSUER], 7])
def test_a_token_of_another_issuer_is_refused(issuer: object) -> None:
    data = (
        token({**claims(iss=None), **({} if issuer is None else {"iss": issuer})}, id="e")
        if not isinstance(issuer, list | int)
        else raw_token(b'{"alg":"ES256","kid":"e"}', json.dumps({**claims(), "iss": issuer}).encode())
    )
    assert not Token(data, RULE).is_of_issuer
    refused(data, "of the issuer")


@pytest.mark.parametrize("audience", [None, "other", ["other", 7], [], {"mesh": 1}, "mesh2"])
def test_a_token_for_another_audience_is_refused(audience: object) -> None:
    body = {**claims(aud=None), **({} if audience is None else {"aud": audience})}
    refused(raw_token(b'{"alg":"ES256","kid":"e"}', json.dumps(body).encode()), "the token is for")


def test_one_of_several_audiences_is_enough() -> None:
    assert said(token(claims(aud=["other", AUDIENCE]), id="e")).vehicle == "V1"
    anyone = TokenRule((ISSUER,), (), ("ES256",))
    assert said(token(claims(aud=None), id="e"), anyone).vehicle == "V1"


@pytest.mark.parametrize(
    ("more", "now", "why"),
    [
        ({"exp": 1000}, 1000.0, "ended"),
        ({"exp": 1000}, 999.9, ""),
        ({"exp": 1000.5}, 1000.2, ""),
        ({"exp": 1000, "nbf": 600}, 599.0, "begins in 1 s .nbf"),
        ({"exp": 1000, "nbf": 600}, 600.0, ""),
        ({"exp": 1000, "iat": 600}, 599.0, "begins in 1 s .iat"),
        ({"exp": None}, 1000.0, "has no end"),
        ({"exp": "1000"}, 900.0, "no number"),
        ({"exp": True}, 0.5, "no number"),
        ({"exp": 10**400}, 900.0, "out of range"),
        ({"exp": 1000, "nbf": "now"}, 900.0, "no number"),
        ({"exp": -1}, 900.0, "ended"),
    ],
)
def test_a_token_is_valid_between_its_times_only(more: dict[str, object], now: float, why: str) -> None:
    rule = TokenRule((ISSUER,), (AUDIENCE,), ("ES256",), leeway=0.0)
    body = {name: value for name, value in {**claims(), "iat": 0, **more}.items() if value is not None}
    data = raw_token(b'{"alg":"ES256","kid":"e"}', json.dumps(body).encode())
    if why:
        refused(data, why, rule, now=now)
    else:
        assert said(data, rule, now=now).vehicle == "V1"


def test_clocks_may_differ_by_the_leeway() -> None:
    rule = TokenRule((ISSUER,), (AUDIENCE,), ("ES256",), leeway=30.0)
    data = raw_token(
        b'{"alg":"ES256","kid":"e"}', json.dumps({**claims(), "nbf": 500, "iat": 500, "exp": 1000}).encode()
    )
    assert said(data, rule, now=470.0).expires == 1030.0
    assert said(data, rule, now=1029.0).vehicle == "V1"
    refused(data, "begins", rule, now=469.0)
    refused(data, "ended", rule, now=1030.0)


@pytest.mark.parametrize(
    ("issuers", "algorithms", "leeway", "why"),
    [
        ((), ("ES256",), 30.0, "issuer"),
        ((ISSUER,), (), 30.0, "algorithm"),
        ((ISSUER,), ("none",), 30.0, "not known"),
        ((ISSUER,), ("RS256", "HS256"), 30.0, "together"),
        ((ISSUER,), ("ES256",), 301.0, "leeway"),
        ((ISSUER,), ("ES256",), -1.0, "leeway"),
    ],
)
def test_a_rule_that_is_not_safe_is_refused(
    issuers: tuple[str, ...], algorithms: tuple[str, ...], leeway: float, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        TokenRule(issuers, (), algorithms, leeway)


def test_an_error_of_a_token_is_one_of_its_own() -> None:
    with pytest.raises(TokenError):
        Token(b"no token", RULE)


def _part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
