"""JSON from other parties, read strictly (RFC 8259).

It knows the notation only. What always holds: a text that two programs could read differently is refused: one with a
member twice, with NaN or Infinity, or in another encoding than UTF-8; the caller has bounded its size.
"""

from __future__ import annotations

import json


def read_object(text: bytes, what: str) -> dict[str, object]:
    """The JSON object in ``text``; ``what`` names the text in errors. Raises ``ValueError``."""
    try:
        found: object = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are such
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member of an object is there twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")
