"""Identities from client certificates. What a listener reads from real ones is in tests/transport."""

from __future__ import annotations

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import NOWHERE, Peer, TlsFacts
from mesh.policy.certificate import Certificate, NameTemplate
from mesh.policy.template import PLACE
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect


def provider(field: str = "common_name", template: str = PLACE) -> Certificate:
    return Certificate("cert", field, NameTemplate(template, PLACE))


def peer(common_name: str = "", **names: tuple[str, ...]) -> Peer:
    facts = TlsFacts(
        "TLSv1.3", "TLS_AES_256_GCM_SHA384", common_name=common_name, serial="0a1b", fingerprint="f" * 64,
        not_after=2e9, **names,  # type: ignore[arg-type]
    )  # fmt: skip
    return Peer("192.0.2.7", 50_000, "mqtts://[::]:8883", facts)


@pytest.mark.parametrize(
    ("field", "template", "client", "vehicle"),
    [
        ("common_name", "{vehicle}", peer("VIN1"), "VIN1"),
        ("common_name", "VIN-{vehicle}", peer("VIN-7"), "7"),
        ("common_name", "{vehicle}.cars.example", peer("V7.cars.example"), "V7"),
        ("dns", "{vehicle}.cars.example", peer("x", dns=("other.example", "V7.cars.example")), "V7"),
        ("uri", "urn:vehicle:{vehicle}", peer(uri=("urn:vehicle:V7",)), "V7"),
        ("email", "{vehicle}@cars.example", peer(email=("V7@cars.example",)), "V7"),
        ("serial", "{vehicle}", peer("x"), "0a1b"),
        ("fingerprint", "{vehicle}", peer("x"), "f" * 64),
    ],
)
def test_a_name_in_the_certificate_is_the_vehicle(field: str, template: str, client: Peer, vehicle: str) -> None:
    asked = provider(field, template)
    claim = asked.decide(Connect(username="OTHER", client_id="x"), client)
    assert claim is not None
    assert (claim.name, claim.provider, claim.expires) == (vehicle, "cert", 2e9)
    assert asked.holds(claim)


@pytest.mark.parametrize(
    ("field", "template", "client"),
    [
        ("common_name", "{vehicle}", NOWHERE),  # a plain connection
        ("common_name", "{vehicle}", Peer(tls=TlsFacts("TLSv1.3", "x"))),  # no client certificate
        ("common_name", "{vehicle}", peer("")),  # none, or several common names, or a control character
        ("common_name", "VIN-{vehicle}", peer("VIN-")),
        ("common_name", "VIN-{vehicle}", peer("VIM-7")),
        ("common_name", "VIN-{vehicle}", peer("xVIN-7")),
        ("common_name", "{vehicle}", peer("*")),
        ("dns", "{vehicle}.cars.example", peer(dns=("*.cars.example",))),
        ("dns", "{vehicle}.cars.example", peer("V7.cars.example", uri=("V7.cars.example",))),
        ("common_name", "a{vehicle}a", peer("a")),
    ],
)
def test_without_a_name_that_fits_the_next_provider_is_asked(field: str, template: str, client: Peer) -> None:
    assert provider(field, template).decide(Connect(username="V7"), client) is None


def test_a_load_balancer_tells_the_common_name_of_a_certificate_that_it_has_verified() -> None:
    told = Peer("192.0.2.7", 50_000, "mqtt://[::]:1883", TlsFacts("TLSv1.3", "", common_name="VIN-7"))
    claim = provider("common_name", "VIN-{vehicle}").decide(Connect(), told)
    assert claim is not None
    assert (claim.name, claim.expires) == ("7", 0)
    assert provider("fingerprint").decide(Connect(), told) is None


def test_a_certificate_that_names_several_vehicles_is_refused() -> None:
    several = peer(dns=("V7.cars.example", "V8.cars.example", "x.example"))
    with pytest.raises(Refused) as refused:
        provider("dns", "{vehicle}.cars.example").decide(Connect(), several)
    assert refused.value.reason == 0x87
    twice = peer(dns=("V7.cars.example", "V7.cars.example"))
    assert provider("dns", "{vehicle}.cars.example").decide(Connect(), twice) is not None


def test_a_claim_ends_with_the_rule_that_gave_it() -> None:
    claim = provider("common_name", "VIN-{vehicle}").decide(Connect(), peer("VIN-7"))
    assert claim is not None
    assert provider("common_name", "{vehicle}").holds(Claim("VIN-7", "cert", proof=claim.proof))
    assert not provider("common_name", "{vehicle}").holds(claim)
    assert not provider("dns", "VIN-{vehicle}").holds(claim)


@pytest.mark.parametrize("text", ["", "VIN", "{vehicle}{vehicle}", "{user}"])
def test_a_template_has_the_identity_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"must have \{vehicle\} once; write it like"):
        NameTemplate(text, PLACE)
