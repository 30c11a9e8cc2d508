"""What a change of each key of the topology does to a running mesh: the declarations, and how they are read.

Every field of the topology's dataclasses is ``Annotated`` with one of the marks below. It knows marks and dataclasses;
it must never know a topology, a node or a file. What always holds: ``declared`` raises ``TypeError`` for a field
without a mark, so that none is left out; marks are values, so that ``mesh plan`` and docs/operate.md cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Final, Literal, final, get_args, get_origin, get_type_hints

Role = Literal["door", "edge", "core"]


@final
@dataclass(frozen=True, slots=True)
class Live:
    """Every node takes the new value while it serves. ``note``: what it means for that which exists already."""

    note: str = ""


@final
@dataclass(frozen=True, slots=True)
class Rolling:
    """The nodes with these roles are restarted one after another; ``why`` they cannot take it while they serve."""

    roles: tuple[Role, ...]
    why: str


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """``why`` no running mesh takes it, and what to do ``instead``. ``down``: a mesh that is down takes it."""

    why: str
    instead: str
    down: bool = False


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """A section whose keys have their own marks. ``whole``: what it means to add or to remove an optional section."""

    whole: Effect | None = None


@final
@dataclass(frozen=True, slots=True)
class Members:
    """A list of things that are compared by the field ``key``, or a number of replicas (``key`` empty). ``owns``: what
    such a thing owns and would lose; it can be removed only if it owns none. ``instead`` is for one that owns some."""

    added: Live
    removed: Live
    key: str = "name"
    owns: str = ""
    instead: str = ""


@final
@dataclass(frozen=True, slots=True)
class Key:
    """The name of a thing. A thing with another name is another thing: one is removed, one is added."""


Effect = Live | Rolling | Refused
Mark = Live | Rolling | Refused | Parts | Members | Key
Unit = Literal["plain", "size", "time", "secret"]

LIVE: Final = Live()
PARTS: Final = Parts()
KEY: Final = Key()


@final
@dataclass(frozen=True, slots=True)
class Form:
    """How the file writes a field. ``name``: its key there, with dots for sections; empty: the field's name. ``words``:
    the file's words for some values. A value with the unit ``secret`` is never shown."""

    name: str = ""
    unit: Unit = "plain"
    words: tuple[tuple[object, str], ...] = ()


SIZE: Final = Form(unit="size")
TIME: Final = Form(unit="time")
SECRET: Final = Form(unit="secret")

# The units of a limit (see ``limit`` in ``topology``) as forms; 0 is a word for the first three.
_FORMS: Final[Mapping[str, Form]] = {
    "count": Form(),
    "files": Form(words=((0, "auto"),)),
    "auto": Form(unit="size", words=((0, "auto"),)),
    "none": Form(unit="size", words=((0, "none"),)),
    "size": SIZE,
    "time": TIME,
}


@final
@dataclass(frozen=True, slots=True)
class Declared:
    """A field with its mark. ``path``: its key in the file, below the section; ``kind``: its type."""

    name: str
    path: str
    mark: Mark
    form: Form
    kind: Any


def declared(section: type) -> tuple[Declared, ...]:
    """The fields of a dataclass of the topology, in their order. Raises ``TypeError`` for a field without a mark, or
    with two."""
    return _declared(section)


@cache
def _declared(section: type) -> tuple[Declared, ...]:
    hints = get_type_hints(section, include_extras=True)
    found = []
    for item in fields(section):
        hint = hints[item.name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        marks = [note for note in notes if isinstance(note, Mark)]
        if len(marks) != 1:
            raise TypeError(
                f"{section.__name__}.{item.name} has {len(marks)} marks of mesh.topology.keys; "
                f"write one, such as Annotated[{getattr(kind, '__name__', kind)}, LIVE]"
            )
        forms = [note for note in notes if isinstance(note, Form)]
        form = forms[0] if forms else _FORMS.get(item.metadata.get("unit", ""), Form())
        found.append(Declared(item.name, form.name or item.name, marks[0], form, kind))
    return tuple(found)
