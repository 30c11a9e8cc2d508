"""The values of a topology as people read them, in the units of the file."""

from __future__ import annotations

from typing import Final

from mesh.topology.keys import Form
from mesh.topology.topology import NEVER

NONE: Final = "none"

_BYTES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SECONDS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))


def shown(value: object, form: Form) -> str:
    """``value`` as the file writes it; ``none`` for what the file leaves out. A secret must not come here."""
    for known, word in form.words:
        if value == known:
            return word
    if value is None or value in ("", (), {}):
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number(value, form)
    if isinstance(value, tuple):
        return f"[{', '.join(str(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {shown(item, form)}' for name, item in value.items())}}}"
    return str(value)


def _number(value: float, form: Form) -> str:
    if form.unit == "time":
        return "never" if value == NEVER else _whole(value, _SECONDS, "s")
    return _whole(value, _BYTES, "B") if form.unit == "size" else f"{value:.15g}"


def _whole(value: float, units: tuple[tuple[int, str], ...], least: str) -> str:
    """``value`` in the largest unit of which it is a multiple."""
    for unit, name in units:
        if value and value % unit == 0:
            return f"{value // unit:.0f}{name}"
    return f"{value:.15g}{least}"
