"""Identities, admission and permissions."""

from __future__ import annotations

import pytest

from mesh.broker.claim import Claim
from mesh.broker.grant import ALL_FILTERS, ALL_TOPICS, Grant
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal
from mesh.policy.access import Grants, tier_principal
from mesh.policy.identity import CLIENT_ID, USERNAME, ClientIds, Identity
from mesh.policy.pattern import Pattern
from mesh.policy.template import Template
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import return_code

PATTERN = Pattern("[A-Z0-9]{3,32}")
TEMPLATE = Template("vehicles/{vehicle}/#")
NOTHING = Grant((), (), (), 0x87)
ALL = Grant(ALL_TOPICS, ALL_FILTERS, (), 0x87)


def vehicle(name: str, grant: Grant) -> Principal:
    return Grants(TEMPLATE, grant, NOTHING).vehicle(name)


def may_subscribe(permissions: Permissions, filter: str) -> bool:
    return permissions.most_qos(filter) >= 0


def test_user_name_identifies_the_vehicle() -> None:
    identity = Identity(USERNAME, PATTERN)
    assert identity.vehicle_of_connect(Connect(client_id="app-7", username="VIN1")) == "VIN1"


@pytest.mark.parametrize("username", [None, "", "vin1", "V#1", "+++", "VIN1/x", "V" * 33])
def test_invalid_user_name_is_not_authorized(username: str | None) -> None:
    with pytest.raises(Refused) as refused:
        Identity(USERNAME, PATTERN).vehicle_of_connect(Connect(username=username))
    assert refused.value.reason == 0x87


def test_client_id_identifies_the_vehicle() -> None:
    identity = Identity(CLIENT_ID, PATTERN)
    assert identity.vehicle_of_connect(Connect(client_id="VIN1", username="other")) == "VIN1"
    with pytest.raises(Refused) as refused:
        identity.vehicle_of_connect(Connect(client_id=""))
    assert refused.value.reason == 0x85


def test_unknown_source_of_the_identity_is_refused() -> None:
    with pytest.raises(ValueError, match="username or client_id"):
        Identity("password", PATTERN)


def test_vehicle_is_limited_to_its_subtree() -> None:
    principal = vehicle("VIN1", NOTHING)
    permissions = principal.permissions
    assert (principal.kind, principal.name, principal.vehicle) == (VEHICLE, "VIN1", "VIN1")
    assert permissions.may_publish("vehicles/VIN1/status")
    assert may_subscribe(permissions, "vehicles/VIN1/#")
    assert may_subscribe(permissions, "vehicles/VIN1/+/x")
    for topic in ("vehicles/VIN2/status", "vehicles/VIN11/status", "vehicles/VIN1", "fleet/news", "$SYS/x", ""):
        assert not permissions.may_publish(topic)
    for filter in (
        "#",
        "+/#",
        "vehicles/#",
        "vehicles/+/cmd",
        "vehicles/VIN11/#",
        "$share/g/vehicles/+/cmd",
        "$share/g/#",
    ):
        assert not may_subscribe(permissions, filter)


def test_vehicle_subscribes_to_fleet_topics_but_never_publishes() -> None:
    grant = Grant((), (), fleet=("fleet/#", "weather/+/now"))
    permissions = vehicle("VIN1", grant).permissions
    for filter in ("fleet/#", "fleet/+/x", "fleet/news", "fleet", "weather/+/now", "weather/north/now"):
        assert may_subscribe(permissions, filter)
    for filter in ("#", "+/#", "weather/#", "weather/+/+", "weather/+", "fleets/news", "vehicles/VIN2/#"):
        assert not may_subscribe(permissions, filter)
        assert not may_subscribe(permissions, f"$share/g/{filter}")
    for filter in ("$share/g/fleet/#", "$share/g/fleet/news"):  # one vehicle would take the messages of others
        assert not may_subscribe(permissions, filter)
    assert not permissions.may_publish("fleet/news")


def test_grant_and_refusal_apply_to_all_vehicles() -> None:
    grant = Grant(("common/#",), ("common/#", "news/+"), ("common/secret/#", "vehicles/VIN1/private"), 0x80)
    permissions = vehicle("VIN1", grant).permissions
    assert permissions.reason == 0x80
    assert permissions.may_publish("common/x")
    assert permissions.may_publish("vehicles/VIN1/x")
    for filter in ("common/#", "$share/g/common/#", "news/today", "vehicles/VIN1/#"):
        assert may_subscribe(permissions, filter)
    for topic in ("common/secret/a", "vehicles/VIN1/private", "news/today", "other"):
        assert not permissions.may_publish(topic)
    for filter in ("common/secret/+", "$share/g/common/secret/#", "vehicles/VIN1/private", "#"):
        assert not may_subscribe(permissions, filter)


def test_client_without_identity_is_the_default_vehicle() -> None:
    identity = Identity(USERNAME, PATTERN, "GUEST")
    assert identity.vehicle_of_connect(Connect()) == "GUEST"
    assert identity.vehicle_of_connect(Connect(username="VIN1")) == "VIN1"
    with pytest.raises(Refused):
        identity.vehicle_of_connect(Connect(username="V#1"))


def test_name_with_wildcards_does_not_widen_permissions() -> None:
    """CVE-2017-7650: the name of a vehicle is never a filter."""
    for name in ("#", "+"):
        permissions = vehicle(name, NOTHING).permissions
        assert not permissions.may_publish("vehicles/VIN2/status")
        assert not may_subscribe(permissions, "vehicles/VIN2/#")
        assert not may_subscribe(permissions, "#")


def test_core_may_do_all_except_publish_to_server_topics() -> None:
    principal = tier_principal("core-1")
    assert (principal.kind, principal.name, principal.vehicle) == (TIER, "core-1", "")
    assert principal.permissions.may_publish("vehicles/VIN1/cmd")
    assert may_subscribe(principal.permissions, "#")
    assert not principal.permissions.may_publish("$SYS/x")


def test_back_end_may_do_what_its_grant_allows() -> None:
    claim = Claim("dashboard", "users")
    principal = Grants(TEMPLATE, NOTHING, ALL).backend(claim)
    assert (principal.name, principal.kind, principal.vehicle, principal.claim) == ("dashboard", BACKEND, "", claim)
    permissions = principal.permissions
    assert permissions.may_publish("anything/at/all")
    assert not permissions.may_publish("$x/y")
    assert Permissions("", Grant(("#", "$x/#", "$SYS/#"), ())).may_publish("$x/y")
    assert not Permissions("", Grant(("$SYS/#",), ())).may_publish("$SYS/y")
    assert may_subscribe(permissions, "#")
    assert may_subscribe(permissions, "$share/g/$SYS/#")
    assert not may_subscribe(permissions, "$other/#")


@pytest.mark.parametrize(
    ("client_id", "allowed"),
    [("VIN1", True), ("VIN1-", True), ("VIN1-hu", True), ("", False), ("VIN2", False), ("VIN10", False),
     ("xVIN1", False), ("VIN1/hu", False), ("VIN1-*", True), ("*", False), ("{vehicle}", False)],
)  # fmt: skip
def test_client_ids_are_bound_to_the_vehicle(client_id: str, allowed: bool) -> None:
    identity = Identity(USERNAME, PATTERN, client_ids=("{vehicle}", "{vehicle}-*"))
    connect = Connect(client_id=client_id, username="VIN1")
    if allowed:
        identity.bind(connect, Claim("VIN1", "p"), False)
    else:
        with pytest.raises(Refused) as refused:
            identity.bind(connect, Claim("VIN1", "p"), False)
        assert refused.value.reason == 0x85
        assert return_code(refused.value.reason) == 2
    Identity(USERNAME, PATTERN).bind(connect, Claim("VIN1", "p"), False)


@pytest.mark.parametrize("form", ["", "any", "*", "{vehicle}*x", "*{vehicle}", "{vehicle}{vehicle}", "{vehicle}**"])
def test_a_form_of_client_ids_names_the_vehicle_once(form: str) -> None:
    with pytest.raises(ValueError, match=r'write it like "\{vehicle\}" or'):
        ClientIds((form,))


@pytest.mark.parametrize("name", ["", "vin1", "V#1", "VIN1/x", "V" * 33, "VIN1\0"])
def test_a_claim_of_any_provider_matches_the_pattern(name: str) -> None:
    with pytest.raises(Refused) as refused:
        Identity(USERNAME, PATTERN).bind(Connect(), Claim(name, "cert"), False)
    assert refused.value.reason == 0x87


def test_a_client_that_proved_its_identity_by_a_method_does_not_contradict_it() -> None:
    identity = Identity(USERNAME, PATTERN)
    for username in (None, "", "VIN1"):
        identity.bind(Connect(username=username), Claim("VIN1", "scram"), True)
    with pytest.raises(Refused) as refused:
        identity.bind(Connect(username="VIN2"), Claim("VIN1", "scram"), True)
    assert refused.value.reason == 0x87
    identity.bind(Connect(username="fleet"), Claim("VIN1", "cert"), False)  # its certificate says who it is
