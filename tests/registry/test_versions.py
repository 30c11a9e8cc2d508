"""Which versions of etcd have the known fault."""

from __future__ import annotations

import pytest

from mesh.registry.versions import fault, numbers


@pytest.mark.parametrize("text", ["3.5.0", "3.5.1", " 3.5.2\n", "3.5.1-rc.1"])
def test_a_version_with_the_fault_is_named(text: str) -> None:
    number = text.strip().partition("-")[0]
    assert fault(numbers(text)) == f"etcd {number} can become inconsistent in a crash under load"


@pytest.mark.parametrize("text", ["3.4.27", "3.5.3", "3.5.10", "3.6.0-rc.1"])
def test_other_versions_have_none(text: str) -> None:
    assert fault(numbers(text)) == ""


@pytest.mark.parametrize("text", ["", "new", "3.x"])
def test_other_texts_are_no_versions(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        numbers(text)
