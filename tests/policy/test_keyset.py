"""Sets of keys: which keys are used, for which algorithms, and which sets are refused."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from mesh.policy.keyset import (
    ALGORITHMS,
    MAX_BYTES,
    MAX_KEYS,
    Key,
    UnknownKey,
    check_algorithms,
    from_base64,
    read_keys,
    to_base64,
)
from tests.support.tokens import key_set, public


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_key_fits_the_algorithms_of_its_type_curve_and_length_only(algorithm: str) -> None:
    fitting = {name for name in ALGORITHMS if Key(public(algorithm)).fits(name)}
    of_type = {"RS": "RP", "PS": "RP", "HS": "H"}.get(algorithm[:2])
    if of_type is None:
        assert fitting == {algorithm}
    else:
        assert fitting == {name for name in ALGORITHMS if name[0] in of_type}


def test_a_secret_fits_only_digests_that_are_not_longer() -> None:
    short = {"kty": "oct", "k": to_base64(bytes(40))}
    assert [name for name in ALGORITHMS if Key(short).fits(name)] == ["HS256"]
    with pytest.raises(ValueError, match="fits no algorithm"):
        Key({"kty": "oct", "k": to_base64(bytes(31))})


def test_a_key_that_names_an_algorithm_is_for_this_one_only() -> None:
    found = Key(public("RS256", alg="PS256"))
    assert [name for name in ALGORITHMS if found.fits(name)] == ["PS256"]


def test_the_thumbprint_is_that_of_the_standard() -> None:
    example = {  # RFC 7638 section 3.1
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
    }  # fmt: skip
    assert Key(example).thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("names", [["RS256", "HS256"], ["ES256", "EdDSA", "HS512"]])
def test_secrets_and_public_keys_are_not_allowed_together(names: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be allowed together"):
        check_algorithms(names)


@pytest.mark.parametrize("names", [[], ["none"], ["None"], ["rs256"], ["RS256", "nOnE"], ["ES256K"]])
def test_only_known_algorithms_may_be_named(names: list[str]) -> None:
    with pytest.raises(ValueError, match="known are RS256"):
        check_algorithms(names)


def test_keys_of_other_uses_and_unknown_types_are_left_out() -> None:
    found = read_keys(
        key_set(
            public("ES256", "one"),
            public("ES256", "two", 1, use="enc"),
            public("ES256", "three", 2, key_ops=["sign"]),
            public("RS256", "four"),
            {"kty": "PQ", "kid": "five"},
        ),
        ["ES256"],
    )
    assert len(found) == 1
    assert found.find("ES256", "one").id == "one"
    with pytest.raises(UnknownKey):
        found.find("ES256", "two")


def test_a_token_without_an_identifier_of_a_key_gets_the_only_key_that_fits() -> None:
    keys = read_keys(key_set(public("ES256", "a"), public("RS256", "b"), public("RS256", "c", 1)), ["ES256", "RS256"])
    assert keys.find("ES256", "").id == "a"
    with pytest.raises(ValueError, match="names no key, and 2 keys fit RS256"):
        keys.find("RS256", "")
    with pytest.raises(ValueError, match="'a' does not fit RS256"):
        keys.find("RS256", "a")


def _short_rsa() -> dict[str, object]:
    private = rsa.generate_private_key(65537, 1024)
    return dict(RSAAlgorithm.to_jwk(private.public_key(), as_dict=True))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": [], "keys": []}', "twice"),
        (b'{"keys": [NaN]}', "NaN"),
        (b"\xff{}", "not valid JSON"),
        (b'{"keys": [1]}', "not a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"keys": []}' + b" " * MAX_BYTES, "bytes"),
        (json.dumps({"keys": [{"kty": "EC"}] * (MAX_KEYS + 1)}).encode(), "65 keys, and the limit is 64"),
        (key_set(), "no key for ES256, RS256"),
        (key_set(_short_rsa()), "1024 bits"),
        (key_set(public("ES256", x="AAAA")), "no valid EC key"),
        (key_set(public("ES256", crv="P-384")), "fits no algorithm|no valid"),
        (key_set(public("ES256", "x" * 300)), "300 characters"),
        (key_set(public("RS256", e=to_base64(b"\x01" * 32))), "public exponent"),
        (key_set(public("ES256", "a"), public("ES256", "a", 1)), "two EC keys have the identifier 'a'"),
    ],
)
def test_sets_that_cannot_be_used_are_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_keys(text, ["ES256", "RS256"])


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_set_with_a_private_key_is_refused(algorithm: str) -> None:
    with pytest.raises(ValueError, match="is a private key"):
        read_keys(key_set(public(algorithm, d="AAAA")), [algorithm])


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_secret_is_never_the_key_of_a_public_algorithm(algorithm: str) -> None:
    keys = key_set(public("HS256"))
    if algorithm.startswith("HS"):
        assert read_keys(keys, [algorithm])
    else:
        with pytest.raises(ValueError, match=f"no key for {algorithm}"):
            read_keys(keys, [algorithm])


@pytest.mark.parametrize("text", ["A", "AB=", "AB==", "A B", "AR", "A+", "é"])
def test_there_is_one_form_of_base64_for_the_same_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        from_base64(text)
