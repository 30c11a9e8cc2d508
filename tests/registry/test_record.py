"""Keys and values in etcd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.registry import etcd_pb2 as pb
from mesh.registry.errors import BadRecord
from mesh.registry.keys import MAX_NAME, Keys, after
from mesh.registry.record import Record, decode

PREFIX = len(Keys("m").vehicles)
names = st.text(min_size=1, max_size=40).filter(lambda name: "/" not in name and "\0" not in name)


@given(names, names, names, st.integers(min_value=1, max_value=2**62))
def test_record_is_decoded_from_its_value(vehicle: str, edge: str, pool: str, epoch: int) -> None:
    record = Record(vehicle, edge, pool, epoch)
    entry = pb.KeyValue(key=Keys("m").vehicle(vehicle), value=record.value(), mod_revision=7)
    found = decode(PREFIX, entry)
    assert found == record
    assert found.revision == 7


def test_unknown_fields_of_a_record_are_ignored() -> None:
    entry = pb.KeyValue(key=b"/mesh/m/vehicles/V", value=b'{"edge":"e","epoch":2,"pool":"p","since":1}')
    assert decode(PREFIX, entry) == Record("V", "e", "p", 2)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'"e"',
        b'{"edge":"","epoch":1,"pool":"p"}',
        b'{"edge":"e","epoch":0,"pool":"p"}',
        b'{"edge":"e","epoch":true,"pool":"p"}',
        b'{"edge":1,"epoch":1,"pool":"p"}',
    ],
)
def test_bad_record_error_names_the_key(value: bytes) -> None:
    with pytest.raises(BadRecord, match="/mesh/m/vehicles/V"):
        decode(PREFIX, pb.KeyValue(key=b"/mesh/m/vehicles/V", value=value))


@pytest.mark.parametrize("name", ["", "a/b", "a\0", "x" * (MAX_NAME + 1), "ü" * MAX_NAME])
def test_keys_refuse_invalid_names(name: str) -> None:
    for make in (Keys("m").vehicle, Keys("m").member, Keys):
        with pytest.raises(ValueError, match="name of a"):
            make(name)


@given(st.binary(min_size=1).filter(lambda prefix: prefix[-1] != 255), st.binary())
def test_range_of_a_prefix_contains_its_keys(prefix: bytes, rest: bytes) -> None:
    assert prefix <= prefix + rest < after(prefix)
