"""Every key of the topology says what a change of it does."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, is_dataclass
from typing import Annotated

import pytest

from mesh.topology import provider
from mesh.topology import topology as module
from mesh.topology.keys import KEY, LIVE, Declared, Live, Members, Parts, Refused, Rolling, declared

SECTIONS = [
    kind
    for home in (module, provider)
    for kind in vars(home).values()
    if inspect.isclass(kind) and is_dataclass(kind) and kind.__module__ == home.__name__
]
DECLARED = [pytest.param(item, id=f"{kind.__name__}.{item.name}") for kind in SECTIONS for item in declared(kind)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_has_one_declaration(section: type) -> None:
    assert declared(section)


@pytest.mark.parametrize("item", DECLARED)
def test_every_declaration_says_why_and_what_instead(item: Declared) -> None:
    mark = item.mark.whole if isinstance(item.mark, Parts) else item.mark
    if isinstance(mark, Rolling):
        assert mark.why
        assert mark.roles
    if isinstance(mark, Refused):
        assert mark.why
        assert mark.instead
    if isinstance(mark, Members):
        assert bool(mark.owns) == bool(mark.instead)


@pytest.mark.parametrize("item", DECLARED)
def test_a_secret_has_no_repr_and_is_declared_as_one(item: Declared) -> None:
    assert (item.name in ("password", "headers")) == (item.form.unit == "secret")


@dataclass
class Forgotten:
    key: Annotated[str, KEY]
    new: int


@dataclass
class Twice:
    key: Annotated[int, LIVE, Live("later")]


@pytest.mark.parametrize(("section", "field"), [(Forgotten, "Forgotten.new has 0"), (Twice, "Twice.key has 2")])
def test_a_field_without_one_declaration_is_an_error(section: type, field: str) -> None:
    with pytest.raises(TypeError, match=rf"{field} marks.*write one, such as Annotated\[int, LIVE\]"):
        declared(section)
