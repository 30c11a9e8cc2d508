"""Readers of the scalars of a topology: durations, sizes, numbers, names, addresses, URLs.

Each reader takes the text from the file. It raises ``ValueError``, whose text says what would be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from math import isfinite
from typing import Final, final
from urllib.parse import urlsplit

# Names become folders, labels and parts of etcd keys.
MAX_NAME: Final = 63
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LOCALHOST: Final = ("127.0.0.1", "::1")  # a listener on localhost has both
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a port; port 0: the system chooses one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether the address is reachable from this machine only."""
        return is_loopback(self.host)

    def clashes(self, other: Address) -> bool:
        """Whether only one of the two addresses can be listened on at a time."""
        if self.port != other.port or self.port == 0:
            return False
        hosts = {self.host, other.host}
        if "localhost" in hosts and not hosts.isdisjoint(_LOCALHOST):
            return True
        return len(hosts) == 1 or any(is_wildcard(host) for host in hosts)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_loopback(header: str) -> bool:
    """Whether a Host header of HTTP names this machine by a loopback address or as ``localhost``.

    A foreign web page could resolve its own name to a loopback address and read a server there through the browser of a
    user of this machine (DNS rebinding). Such a request has the foreign name in its Host header.
    """
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def duration(text: str) -> float:
    """Seconds, from ``30d``, ``15s`` or ``500ms``."""
    number, unit = _split(text)
    if unit not in _SECONDS or number is None:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m, h or d, such as 15s or 30d")
    return number * _SECONDS[unit]


def size(text: str) -> int:
    """Bytes, from ``64MiB``, ``1MB`` or a plain number of bytes."""
    number, unit = _split(text)
    if number is None or (unit and unit not in _BYTES):
        raise ValueError(f"{text!r} is not a size; write a number with KiB, MiB or GiB, such as 64MiB")
    return int(number * _BYTES.get(unit, 1))


def _split(text: str) -> tuple[float | None, str]:
    """The decimal number of a text and the unit after it."""
    end = len(text)
    while end and not ("0" <= text[end - 1] <= "9"):
        end -= 1
    number, unit = text[:end], text[end:].strip()
    if (
        not number
        or len(number) > 18
        or any(character not in "0123456789." for character in number)
        or number.count(".") > 1
    ):
        return None, unit
    return float(number), unit


def integer(least: int, most: int) -> Callable[[str], int]:
    """A reader of integers from ``least`` to ``most``; underscores may group the digits."""

    def read(text: str) -> int:
        digits = text.replace("_", "")
        readable = digits.isascii() and digits.isdecimal() and len(digits) <= 18
        if not readable or not least <= int(digits) <= most:
            raise ValueError(f"{text!r} is not an integer from {least} to {most}")
        return int(digits)

    return read


def decimal(least: float, most: float) -> Callable[[str], float]:
    """A reader of decimal numbers from ``least`` to ``most``."""

    def read(text: str) -> float:
        wrong = f"{text!r} is not a number from {least:.15g} to {most:.15g}"
        try:
            number = float(text)
        except ValueError:
            raise ValueError(wrong) from None
        if not isfinite(number) or not least <= number <= most:
            raise ValueError(wrong)
        return number

    return read


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not a boolean; write true or false")
    return text == "true"


def choice(*words: str) -> Callable[[str], str]:
    """A reader of one of ``words``."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not a known value; write {' or '.join(words)}{near(text, words)}")
        return text

    return read


def near(text: str, words: tuple[str, ...]) -> str:
    """``; did you mean ...?`` if one of ``words`` is close to ``text``."""
    import difflib  # only needed once something is wrong

    found = difflib.get_close_matches(text, words, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def name(text: str) -> str:
    """The name of a mesh, a pool or a node."""
    if (
        not text
        or len(text) > MAX_NAME
        or not set(text) <= _NAME_CHARACTERS
        or not text[0].isalpha()
        or text[-1] == "-"
    ):
        raise ValueError(
            f"{text!r} is not a valid name; write at most {MAX_NAME} lower-case letters, digits and hyphens, "
            "with a letter first and no hyphen last"
        )
    return text


def plain(text: str) -> str:
    """Any text that is not empty and has no control characters."""
    if not text or not text.isprintable():
        raise ValueError("the value is empty or has control characters; write printable text")
    return text


def host(text: str) -> str:
    """A host name or an IP address (IPv6 without brackets)."""
    try:
        return str(ip_address(text))
    except ValueError:
        labels = text.split(".")
        right = len(text) <= 253 and all(
            label and label.isascii() and label.replace("-", "a").isalnum() and label[0] != "-" for label in labels
        )
        if not right or labels[-1].isdecimal():
            raise ValueError(f"{text!r} is not a host; write a host name or an IP address such as 127.0.0.1") from None
        return text


def address(text: str) -> Address:
    """``127.0.0.1:1883``, ``[::1]:1883`` or ``name:1883``."""
    where, colon, port = text.rpartition(":")
    right = "write host:port such as 127.0.0.1:1883 (0.0.0.0:1883 for all interfaces)"
    if not colon or not where:
        raise ValueError(f"{text!r} is not an address; {right}")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port from 0 to 65535; {right}")
    if where.startswith("[") and where.endswith("]"):
        where = where[1:-1]
    elif ":" in where:
        raise ValueError(f"an IPv6 address needs brackets; write [{where}]:{port}")
    return Address(host(where), int(port))


def url(*schemes: str) -> Callable[[str], str]:
    """A reader of ``scheme://host:port``."""

    def read(text: str) -> str:
        right = f"write {' or '.join(f'{scheme}://host:port' for scheme in schemes)}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(f"{text!r} is not a URL; {right}") from None
        if (
            parts.scheme not in schemes
            or not parts.hostname
            or port is None
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError(f"{text!r} is not valid here; {right}")
        host(parts.hostname)
        return text.rstrip("/")

    return read
