"""Reads a secret text: the text itself, ``{file: PATH}`` or ``{env: NAME}``. A mistake is noted, without the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.policy.secrettext import SecretText
from mesh.topology import units
from mesh.topology.fields import Table
from mesh.topology.tree import Mapping, Scalar

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_secret(section: Table, key: str, path: Callable[[str], Path], needed: str) -> SecretText:
    """The secret under a key. A file must be there, and no other user may read it; a variable is looked up where it is
    used. A non-empty ``needed`` makes the key mandatory; it says what would be right."""
    node = section.node_of(key)
    if not section.has(key) or isinstance(node, Scalar):
        return SecretText(text=section.value(key, units.plain, "", needed))
    if not isinstance(node, Mapping):
        section.wrong(key, "expected a text, {file: PATH} or {env: NAME}, found a list")
        return SecretText()
    inner = section.table(key, ("file", "env"))
    if inner is None or inner.has("file") == inner.has("env"):
        section.wrong(key, "write either {file: PATH} or {env: NAME}")
        return SecretText()

    def file(text: str) -> Path:
        found = path(text)
        try:
            SecretText(file=found).read("")
        except OSError as error:
            raise ValueError(error.strerror) from None
        return found

    return SecretText(file=inner.value("file", file, None), env=inner.value("env", _variable, ""))


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of an environment variable; write one such as MESH_ETCD_PASSWORD")
    return text
