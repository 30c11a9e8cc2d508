"""Reason codes, their names and their return codes for older clients."""

from __future__ import annotations

import pytest

from mesh.wire import reasons


def test_every_code_has_a_unique_name() -> None:
    codes = {
        value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int) and value >= 0x10
    }
    assert codes <= set(reasons.NAMES)
    assert len(set(reasons.NAMES.values())) == len(reasons.NAMES) == 43


@pytest.mark.parametrize(
    "table",
    [
        reasons.CONNACK_REASONS,
        reasons.PUBLISHED_REASONS,
        reasons.RELEASED_REASONS,
        reasons.SUBACK_REASONS,
        reasons.UNSUBACK_REASONS,
        reasons.CLIENT_DISCONNECT_REASONS,
        reasons.SERVER_DISCONNECT_REASONS,
        reasons.CLIENT_AUTH_REASONS,
        reasons.SERVER_AUTH_REASONS,
    ],
)
def test_tables_have_only_known_codes(table: frozenset[int]) -> None:
    assert table <= set(reasons.NAMES)


def test_name_of_known_and_unknown_codes() -> None:
    assert reasons.name_of(reasons.NOT_AUTHORIZED) == "not authorized"
    assert reasons.name_of(0x7F) == "reason 0x7F"


@pytest.mark.parametrize(
    ("reason", "code"), [(0, 0), (0x84, 1), (0x85, 2), (0x88, 3), (0x89, 3), (0x9F, 3), (0x86, 4), (0x87, 5), (0x8A, 5)]
)
def test_return_code_for_older_clients(reason: int, code: int) -> None:
    assert reasons.return_code(reason) == code


def test_every_error_in_connack_has_a_return_code() -> None:
    assert all(1 <= reasons.return_code(code) <= 5 for code in reasons.CONNACK_REASONS if code)


def test_protocol_error_has_reason_and_message() -> None:
    error = reasons.ProtocolError(reasons.MALFORMED_PACKET, "the topic is missing")
    assert (error.reason, str(error)) == (0x81, "the topic is missing")


def test_codes_from_0x80_are_errors() -> None:
    failures = {code for code in reasons.NAMES if reasons.is_error(code)}
    assert min(failures) == reasons.UNSPECIFIED_ERROR
    assert set(reasons.NAMES) - failures == {0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x19}
