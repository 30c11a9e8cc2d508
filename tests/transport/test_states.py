"""The table of a connection's states: every transition in it succeeds, and every other one raises."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import mesh.transport
from mesh.transport.states import (
    ACCEPT,
    ASK,
    BEGIN,
    CLOSE,
    CLOSED,
    CONNECTING,
    EVENTS,
    HAND_OVER,
    IDENTIFY,
    IDENTIFYING,
    NEW,
    OPEN,
    PROVING,
    REJECTED,
    STATES,
    TRANSITIONS,
    WAITING,
    IllegalTransition,
    State,
)

WAYS = {  # the events that lead to each state
    NEW: [],
    CONNECTING: [BEGIN],
    PROVING: [BEGIN, ASK],
    IDENTIFYING: [BEGIN, IDENTIFY],
    WAITING: [BEGIN, IDENTIFY, HAND_OVER],
    OPEN: [BEGIN, IDENTIFY, HAND_OVER, ACCEPT],
    REJECTED: [CLOSE],
    CLOSED: [BEGIN, IDENTIFY, HAND_OVER, ACCEPT, CLOSE],
}
PAIRS = [(state, event) for state in range(len(STATES)) for event in range(len(EVENTS))]


def at(state: int) -> State:
    reached = State()
    for event in WAYS[state]:
        reached.move(event)
    assert reached.state == state
    return reached


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair in TRANSITIONS])
def test_every_transition_of_the_table_is_made(pair: tuple[int, int]) -> None:
    state = at(pair[0])
    state.move(pair[1])
    assert state.state == TRANSITIONS[pair]


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_every_other_transition_raises_and_changes_nothing(pair: tuple[int, int]) -> None:
    state = at(pair[0])
    with pytest.raises(IllegalTransition, match=f"{STATES[pair[0]]} cannot {EVENTS[pair[1]]}"):
        state.move(pair[1])
    assert state.state == pair[0]


def test_table_names_known_events_and_every_state_is_reachable() -> None:
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(range(len(STATES)))
    assert {event for _, event in TRANSITIONS} == set(range(len(EVENTS)))


@pytest.mark.parametrize("state", range(len(STATES)))
def test_the_last_state_tells_whether_the_client_was_let_in(state: int) -> None:
    assert at(state).ended() == (state in (REJECTED, CLOSED))
    assert at(state).was_open() == (state in (OPEN, CLOSED))


def assignments(source: str) -> list[str]:
    """The functions of ``source`` that assign an attribute ``_state`` or ``state`` to anything."""
    found = []
    for outer in ast.walk(ast.parse(source)):
        if not isinstance(outer, ast.ClassDef):
            continue
        for function in outer.body:
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                parts = [part for target in targets if target is not None for part in ast.walk(target)]
                if any(isinstance(part, ast.Attribute) and part.attr in ("_state", "state") for part in parts):
                    found.append(f"{outer.name}.{getattr(function, 'name', '')}")
    return found


def test_one_function_assigns_the_state() -> None:
    """A link has its own ``state``, which is not the state of a connection."""
    with pytest.raises(AttributeError):
        State().state = OPEN  # type: ignore[misc]
    folder = Path(inspect.getfile(mesh.transport)).parent.parent
    found = [
        (path.name, name)
        for room in ("transport", "frontdoor")
        for path in sorted((folder / room).glob("*.py"))
        for name in assignments(path.read_text())
        if not name.startswith("EdgeLink.")
    ]
    assert found == [("states.py", "State.__init__"), ("states.py", "State.move")]


def test_the_search_for_assignments_finds_them() -> None:
    source = """
class A:
    def plain(self): self._state = 1
    def typed(self): self._state: int = 1
    def added(self): self.life._state += 1
    def pair(self): before, self.life.state = self.life.state, 1
    def read(self): return self._state
"""
    assert assignments(source) == ["A.plain", "A.typed", "A.added", "A.pair"]


def test_the_architecture_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    shown = {
        (STATES.index(state), EVENTS.index(event)): STATES.index(after)
        for state, ways in re.findall(r"^\| ([A-Z]+) \| [^|]+ \|([^|]*)\|$", page, re.MULTILINE)
        for event, after in re.findall(r"([A-Z_]+) → ([A-Z]+)", ways)
    }
    assert shown == TRANSITIONS
