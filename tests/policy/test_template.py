"""The topic template: the vehicle of a topic, and its name in traces."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.template import Template, TemplateError

TEMPLATE = Template("vehicles/{vehicle}/#")


@pytest.mark.parametrize(
    ("topic", "vehicle"),
    [
        ("vehicles/V1/cmd", "V1"),
        ("vehicles/V1/cmd/door/2", "V1"),
        ("vehicles/V1/", "V1"),
        ("vehicles/V1", "V1"),
        ("vehicles//cmd", None),
        ("vehicles/", None),
        ("vehicles", None),
        ("fleet/news", None),
        ("Vehicles/V1/cmd", None),
        ("x/vehicles/V1/cmd", None),
        ("", None),
    ],
)
def test_vehicle_of_a_topic(topic: str, vehicle: str | None) -> None:
    assert TEMPLATE.vehicle_of(topic) == vehicle


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("vehicles/V1/cmd", "vehicles/{vehicle}/cmd"),
        ("vehicles/V1/trip/17/end", "vehicles/{vehicle}/trip"),
        ("vehicles/V1", "vehicles/{vehicle}"),
        ("vehicles/V1/", "vehicles/{vehicle}"),
        ("fleet/news", "fleet/news"),
        ("fleet/news/2031/05", "fleet/news"),
        ("/leading/slash", "/leading"),
        ("fleet", "fleet"),
    ],
)
def test_low_cardinality_hides_the_vehicle(topic: str, name: str) -> None:
    assert TEMPLATE.low_cardinality(topic) == name


def test_prefix_may_have_several_levels() -> None:
    template = Template("fleet/eu/vehicles/{vehicle}/#")
    assert template.vehicle_of("fleet/eu/vehicles/V1/cmd") == "V1"
    assert template.vehicle_of("fleet/us/vehicles/V1/cmd") is None
    assert template.subtree("V1") == "fleet/eu/vehicles/V1/"
    assert template.fill("fleet/eu/vehicles/{vehicle}/cmd/#", "V1") == "fleet/eu/vehicles/V1/cmd/#"
    assert template.low_cardinality("fleet/eu/vehicles/V1/cmd") == "fleet/eu/vehicles/{vehicle}/cmd"


@given(st.text(st.characters(exclude_characters="/"), min_size=1), st.text())
def test_any_topic_of_a_subtree_belongs_to_the_vehicle(vehicle: str, rest: str) -> None:
    assert TEMPLATE.subtree(vehicle) == f"vehicles/{vehicle}/"
    assert TEMPLATE.vehicle_of(f"vehicles/{vehicle}/{rest}") == vehicle


@pytest.mark.parametrize(
    "text",
    [
        "", "#", "vehicles/#", "{vehicle}/#", "/{vehicle}/#", "vehicles/{vehicle}", "vehicles/{vehicle}/cmd",
        "vehicles/+/#", "a/+/{vehicle}/#", "a/#/{vehicle}/#", "{vehicle}/{vehicle}/#", "vehicles/x{vehicle}/#",
        "a//{vehicle}/#", "$SYS/{vehicle}/#", "vehicles/{car}/#",
    ],
)  # fmt: skip
def test_other_forms_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(TemplateError, match=r"vehicles/\{vehicle\}/#|begin with \$"):
        Template(text)


def test_template_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(TEMPLATE)).vehicle_of("vehicles/V1/cmd") == "V1"
