"""What clients with roles may do, and what stands in the places of filters."""

from __future__ import annotations

import pytest

from mesh.broker.claim import Claim
from mesh.broker.grant import ALL_FILTERS, ALL_TOPICS, Grant, plain
from mesh.broker.principal import BACKEND, VEHICLE, Permissions
from mesh.policy.access import Grants
from mesh.policy.given import GivenRoles
from mesh.policy.template import Template

TEMPLATE = Template("vehicles/{vehicle}/#")
NOTHING = Grant((), ())
ALL = Grant(ALL_TOPICS, ALL_FILTERS)


def permissions(
    roles: dict[str, Grant], *names: str, vehicle: str = "V1", client_id: str = "c", own: Grant = NOTHING
) -> Permissions:
    return Grants(TEMPLATE, own, NOTHING, roles).of((VEHICLE, vehicle, client_id), names)


def test_a_client_may_do_what_its_class_and_all_its_roles_may() -> None:
    roles = {"a": Grant(("a/#",), ("in/a",)), "b": Grant(("b/#",), ("in/b",))}
    found = permissions(roles, "a", "b", "unknown", own=Grant(("common",), ()))
    for topic in ("a/1", "b/1", "common", "vehicles/V1/x"):
        assert found.may_publish(topic)
    assert not found.may_publish("unknown/1")
    assert [found.most_qos(filter) for filter in ("in/a", "in/b", "in/+", "vehicles/V1/#")] == [2, 2, -1, 2]
    assert not permissions(roles, "a").may_publish("b/1")
    assert not permissions(roles).may_publish("a/1")


def test_a_refusal_of_one_role_holds_against_all_that_others_allow() -> None:
    roles = {"all": ALL, "shut": Grant((), (), ("secret/#", "vehicles/V1/keys"))}
    assert permissions(roles, "all").may_publish("secret/x")
    for names in (("all", "shut"), ("shut", "all")):
        found = permissions(roles, *names)
        assert found.may_publish("open")
        assert not found.may_publish("secret/x")
        assert not found.may_publish("vehicles/V1/keys")
        assert found.most_qos("secret/#") == -1
        assert found.most_qos("#") == 2  # what is refused is withheld
        assert found.most_qos("$share/g/#") == -1  # but not from one member of a group
        assert found.withheld() == ("secret/#", "vehicles/V1/keys")


def test_limits_are_the_widest_of_what_allows_a_topic() -> None:
    roles = {
        "low": Grant(("a/#",), ("a/#",), qos=0, retain=False, will=False),
        "mid": Grant(("a/b",), ("a/b",), qos=1),
    }
    found = permissions(roles, "low", "mid", own=Grant((), (), qos=1, will=False))
    assert found.may_publish("a/x", 0)
    assert not found.may_publish("a/x", 1)
    assert not found.may_publish("a/x", 0, True)
    assert not found.may_publish("a/x", 0, False, True)
    assert found.may_publish("a/b", 1, True, True)
    assert not found.may_publish("a/b", 2)
    assert found.may_publish("vehicles/V1/x", 1, True)
    assert not found.may_publish("vehicles/V1/x", 2)
    assert not found.may_publish("vehicles/V1/x", 0, False, True)
    assert [found.most_qos(filter) for filter in ("a/#", "a/b", "vehicles/V1/x", "b")] == [0, 1, 1, -1]


def test_places_stand_for_the_client_and_for_each_of_its_roles() -> None:
    own = Grant(("groups/{role}/{vehicle}/up",), ("clients/{client_id}",), ("groups/{role}/shut",))
    roles = {"a": Grant(("logs/{role}",), ()), "b": Grant((), ("groups/#",))}
    found = permissions(roles, "a", "b", own=own)
    for topic in ("groups/a/V1/up", "groups/b/V1/up", "logs/a"):
        assert found.may_publish(topic)
    for topic in ("groups/a/V2/up", "groups/c/V1/up", "logs/b", "groups/{role}/{vehicle}/up"):
        assert not found.may_publish(topic)
    assert found.most_qos("clients/c") == 2
    assert found.most_qos("clients/d") == -1
    assert found.withheld() == ("groups/a/shut", "groups/b/shut")
    found.name("d")
    assert found.most_qos("clients/d") == 2
    assert plain(("a/{role}", "a/{roles}", "b")) == ("a/{roles}", "b")


@pytest.mark.parametrize("value", ["#", "+", "a/b", "a/#", "", "$SYS"])
def test_a_value_that_is_no_level_does_not_widen_what_is_allowed(value: str) -> None:
    """CVE-2017-7650."""
    roles = {"r": Grant(("p/{client_id}/#",), ("s/{client_id}", "{client_id}/#"), ("x/{client_id}/y",))}
    found = permissions(roles, "r", client_id=value)
    for topic in ("p/other/x", "p/a/b/c", "p", "other/x"):
        assert not found.may_publish(topic)
    for filter in ("s/#", "s/+", "s/other", "#", "+/#", "$SYS/#", "other/#"):
        assert found.most_qos(filter) == -1
    if value != "$SYS":  # a plain level, but not the first one
        assert found.withheld() == ("x/#",)


def test_a_back_end_is_no_vehicle() -> None:
    grants = Grants(TEMPLATE, NOTHING, NOTHING, {"r": Grant(("vehicles/{vehicle}/cmd", "apps/{client_id}"), ())})
    found = grants.backend(Claim("app", "users"), ("r",)).permissions
    found.name("c")
    assert found.may_publish("apps/c")
    assert not found.may_publish("vehicles//cmd")
    assert grants.of((BACKEND, "app", "c"), ("r",)).may_publish("apps/c")


def test_only_back_ends_read_dead_letters() -> None:
    roles = {"r": Grant((), ("$dead-letters/#",))}
    assert permissions(roles, "r").most_qos("$dead-letters/#") == -1
    grants = Grants(TEMPLATE, NOTHING, NOTHING, roles)
    assert grants.of((BACKEND, "app", "c"), ("r",)).most_qos("$dead-letters/#") == 2


def test_a_change_of_the_settings_or_of_the_roles_is_in_force_at_once() -> None:
    grants = Grants(TEMPLATE, NOTHING, NOTHING, {"a": Grant(("a",), ())})
    found = grants.vehicle("V1", ("a", "b")).permissions
    assert (found.may_publish("a"), found.may_publish("b")) == (True, False)
    grants.take(Grants(TEMPLATE, Grant(("common",), ()), NOTHING, {"b": Grant(("b",), ())}))
    assert [found.may_publish(topic) for topic in ("a", "b", "common")] == [False, True, True]
    found.entitle(())
    assert [found.may_publish(topic) for topic in ("a", "b", "common")] == [False, False, True]


def test_clients_with_the_same_roles_share_a_grant() -> None:
    grants = Grants(TEMPLATE, NOTHING, NOTHING, {"a": Grant(("a",), ())})
    first, second = (grants.roles.grant(grants.vehicles, ("a",)) for _ in range(2))
    assert first is second
    assert grants.roles.grant(grants.vehicles, ("unknown",)) is grants.vehicles
    for number in range(5000):
        grants.roles.grant(grants.vehicles, ("a", f"unknown-{number}"))
    assert len(grants.roles._known[grants.vehicles][1]) <= 1024


def test_a_role_that_is_not_known_is_logged_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    grants = Grants(TEMPLATE, NOTHING, NOTHING)
    for number in range(100):
        assert not grants.vehicle(f"V{number}", ("ghost",)).permissions.may_publish("x")
    lines = [line for line in caplog.messages if "roles that access.roles does not have: 'ghost'" in line]
    assert 1 <= len(lines) <= 20


def test_the_settings_give_roles_besides_those_of_the_claim() -> None:
    given = GivenRoles({"tokens": ("all", "r")}, {("users", "app"): ("ops",)})
    assert given.of(Claim("V1", "tokens", ("r", "own"))) == ("r", "own", "all")
    assert given.of(Claim("app", "users")) == ("ops",)
    assert given.of(Claim("other", "users", ("x",))) == ("x",)
