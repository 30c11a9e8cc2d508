"""Permissions that another server gives one client: a role that is written out."""

from __future__ import annotations

import pytest

from mesh.broker.grant import Grant
from mesh.broker.principal import BACKEND, VEHICLE, Permissions
from mesh.broker.written import is_written, read, write
from mesh.policy.access import Grants
from mesh.policy.rights import LONGEST, MOST, role_of
from mesh.policy.rolenames import roles_of
from mesh.policy.template import Template
from mesh.wire.reasons import NOT_AUTHORIZED, UNSPECIFIED_ERROR


def permissions(said: dict[str, object], *names: str, own: Grant | None = None, client_id: str = "c") -> Permissions:
    roles = {"a": Grant(("a",), ())}
    grants = Grants(Template("vehicles/{vehicle}/#"), own or Grant((), ()), Grant(("#",), ("#",)), roles)
    return grants.of((VEHICLE, "V1", client_id), (*names, role_of(said)))


def test_a_client_may_also_do_what_is_written_out() -> None:
    said = {"publish": ["logs/{vehicle}/#"], "subscribe": ["in/{client_id}"], "qos": 1, "will": False}
    found = permissions(said, "a")
    for topic in ("logs/V1/x", "a", "vehicles/V1/x"):
        assert found.may_publish(topic, 1)
    assert not found.may_publish("logs/V2/x")
    assert not found.may_publish("logs/V1/x", 2)
    assert not found.may_publish("logs/V1/x", 0, will=True)
    assert found.may_publish("a", 2, will=True)
    assert [found.most_qos(filter) for filter in ("in/c", "in/d", "vehicles/V1/#")] == [1, -1, 2]
    assert found.roles[0] == "a"


def test_what_is_written_out_may_refuse_what_others_allow() -> None:
    found = permissions({"refuse": ["vehicles/V1/keys/#"]})
    assert not found.may_publish("vehicles/V1/keys/1")
    assert found.may_publish("vehicles/V1/other")
    assert found.withheld() == ("vehicles/V1/keys/#",)
    back_end = Grants(Template("v/{vehicle}/#"), Grant((), ()), Grant(("#",), ("#",))).of(
        (BACKEND, "ann", ""), (role_of({"refuse": ["secret/#"]}),)
    )
    assert back_end.may_publish("open")
    assert not back_end.may_publish("secret/x")


@pytest.mark.parametrize("client_id", ["#", "+", "a/b"])
def test_a_value_never_widens_what_is_written_out(client_id: str) -> None:
    found = permissions({"publish": ["in/{client_id}/x"]}, client_id=client_id)
    assert not found.may_publish("in/other/x")
    assert not found.may_publish(f"in/{client_id}/x")


def test_it_is_no_name_of_a_role() -> None:
    own = Grant(("roles/{role}",), (), ("shut/{role}",))
    found = permissions({"publish": ["x"]}, "a", own=own)
    assert found.may_publish("roles/a")
    assert not found.may_publish("roles/x")
    assert found.withheld() == ("shut/a",)
    assert not found._table.unknown(found.roles)


def test_a_text_that_cannot_be_read_gives_nothing() -> None:
    for text in ("{", "{}", '{"publish":7}', "[]"):
        grant = read(text, UNSPECIFIED_ERROR)
        assert (grant.publish, grant.subscribe, grant.reason) == ((), (), UNSPECIFIED_ERROR)
    grant = Grant(("a",), ("b",), ("c",), qos=0, retain=False, will=False)
    assert is_written(write(grant))
    assert write(read(write(grant), NOT_AUTHORIZED)) == write(grant)


def test_no_name_of_a_role_begins_like_it() -> None:
    with pytest.raises(ValueError, match="does not begin with a brace"):
        roles_of([role_of({"publish": ["#"]})])


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({"pubish": []}, "'pubish'; known are publish"),
        ({"publish": "a/#"}, "publish of the permissions is not a list"),
        ({"publish": [7]}, "not a list of filters"),
        ({"publish": ["a/#/b"]}, "'a/#/b'"),
        ({"publish": [""]}, "''"),
        ({"subscribe": ["$share/g/a"]}, "without \\$share"),
        ({"subscribe": ["x{vehicle}"]}, "whole levels"),
        ({"subscribe": ["{role}/x"]}, "permissions have none"),
        ({"subscribe": [f"a/{number}" for number in range(MOST + 1)]}, f"more than {MOST} filters"),
        ({"subscribe": ["a" * LONGEST]}, f"the limit is {LONGEST}"),
        ({"qos": 3}, "not 0, 1 or 2"),
        ({"qos": True}, "not 0, 1 or 2"),
        ({"retain": 0}, "neither true nor false"),
        ({"will": "no"}, "neither true nor false"),
    ],
)
def test_permissions_that_are_not_understood_are_refused(said: object, word: str) -> None:
    """What is passed over could be what takes something away."""
    with pytest.raises(ValueError, match=word):
        role_of(said)
