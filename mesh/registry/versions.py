"""Versions of etcd, and the known fault of some of them.

It knows numbers only, and asks no etcd.
"""

from __future__ import annotations

from typing import Final

FAULTY: Final = ((3, 5, 0), (3, 5, 2))
"""First and last version with the data-inconsistency fault that etcd announced in April 2022."""


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version such as ``3.5.1`` or ``3.6.0-rc.1``, without what follows a hyphen. Raises
    ``ValueError``."""
    return tuple(int(part) for part in text.strip().partition("-")[0].split("."))


def fault(version: tuple[int, ...]) -> str:
    """The known fault of a version, as the first part of a sentence; empty if it has none."""
    if not FAULTY[0] <= version <= FAULTY[1]:
        return ""
    return f"etcd {'.'.join(map(str, version))} can become inconsistent in a crash under load"
