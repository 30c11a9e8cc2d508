"""A secret text of the topology: the text itself, or the file or environment variable that has it.

It knows where a secret is. It must never know what it is for. What always holds: the value is in no representation of
this object, and in no error; only a file that no other user can read is used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from mesh.private import read_given

MOST: Final = 65_535  # bytes; the longest password of MQTT


@final
class SecretUnusable(OSError):
    """A secret cannot be read; the message has its key and where it should be."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.strerror = sentence


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SecretText:
    """``text``, or the absolute path of a ``file``, or the name of an environment variable ``env``."""

    text: str = field(default="", repr=False)
    file: Path | None = None
    env: str = ""

    @property
    def written(self) -> bool:
        """Whether the topology has the value itself."""
        return self.file is None and not self.env

    def read(self, key: str) -> str:
        """The value at present. ``key`` is its place in the topology, for errors; empty: they are shown beside it. A
        line break at the end is no part of it. Raises ``SecretUnusable``."""
        if self.written:
            return self.text
        try:
            return _text(self._data())
        except ValueError as error:
            place = f"the environment variable {self.env}" if self.file is None else str(self.file)
            raise SecretUnusable(f"{key}: {place} {error}" if key else f"{place} {error}") from None

    def _data(self) -> bytes:
        """Raises ``ValueError`` with the rest of a sentence."""
        if self.file is None:
            data = os.environb.get(self.env.encode())
            if data is None:
                raise ValueError(
                    "is not set in this process; set it before mesh up (on a cluster of yours before ray start), or "
                    "name a file"
                )
            return data
        try:
            return read_given(self.file, secret=True)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror or error}") from None


def _text(data: bytes) -> str:
    """Raises ``ValueError`` with the rest of a sentence, without the value."""
    value = data.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise ValueError("is empty; write the secret on one line")
    if len(value) > MOST:
        raise ValueError(f"has more than {MOST} bytes")
    if b"\n" in value or b"\0" in value:
        raise ValueError("has more than one line, or the character NUL; write the secret on one line")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
