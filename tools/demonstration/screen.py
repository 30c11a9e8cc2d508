"""The output of the demonstration: a live picture on a terminal, plain lines elsewhere.

It knows the layout, and reads the figures from a ``View``. What always holds: every past event stays above the picture
as a line; the picture fits on a terminal of 24 lines and 80 columns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tools.demonstration.fleet import ASLEEP, DRIVING
from tools.demonstration.ledger import Totals
from tools.demonstration.running import NodeState

# Pictures per second: enough to look smooth, few enough to leave the processor to the mesh.
_FRAMES_PER_SECOND: Final = 6
# Seconds between two lines of figures, when the output is not a terminal.
_PLAIN_SECONDS: Final = 3.0
# An act that takes longer than this shows its seconds.
_LONG: Final = 2.0

_EDGE_COLOURS: Final = ("cyan", "magenta", "yellow", "blue")


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One vehicle. ``edge_up`` is false while its edge is being restarted."""

    vehicle: str
    version: str
    edge: str
    edge_up: bool
    state: str
    sent: int
    delivered: int
    reports: int
    waiting: int
    last: str


@final
@dataclass(frozen=True, slots=True)
class View:
    """The figures of one moment. Without rows, the fleet has not started yet."""

    rows: Sequence[Row]
    nodes: Sequence[NodeState]
    totals: Totals


class Screen(Protocol):
    """Shows the progress of the demonstration."""

    def begin(self, text: str) -> None:
        """A step begins; it is in progress until ``done``."""

    def note(self, text: str) -> None:
        """The progress of the step, in a few words."""

    def done(self, text: str) -> None:
        """The result of the step."""

    def wait(self, seconds: float) -> None:
        """Wait, and keep the picture current."""


def screen(console: Console, look: Callable[[], View]) -> LiveScreen | PlainScreen:
    """The screen for this output: live on a terminal, else plain. Use it as a context manager."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveScreen(console, look) if live else PlainScreen(console, look)


@final
class LiveScreen:
    """Redraws the picture in place; the last picture stays on the terminal."""

    def __init__(self, console: Console, look: Callable[[], View]) -> None:
        self._console = console
        self._look = look
        self._now = ""
        self._note = ""
        self._begun = 0.0
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console, get_renderable=self._frame, refresh_per_second=_FRAMES_PER_SECOND, auto_refresh=True
        )

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._now = self._note = ""
        self._live.stop()

    def begin(self, text: str) -> None:
        self._now, self._note, self._begun = text, "", time.monotonic()

    def note(self, text: str) -> None:
        self._note = text

    def done(self, text: str) -> None:
        self._now = self._note = ""
        self._console.print(_done(text))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def _frame(self) -> RenderableType:
        view = self._look()
        parts: list[RenderableType] = []
        if view.rows:
            parts += [Text(), Padding(fleet_table(view.rows), (0, 0, 0, 2))]
        if view.nodes:
            parts += [Text(), Padding(footer(view), (0, 0, 0, 2))]
        if self._now:
            line = Text(self._now, "bold")
            passed = time.monotonic() - self._begun
            notes = [f"{passed:.0f} s"] if passed > _LONG else []
            line.append("".join(f"  {note}" for note in (*notes, self._note) if note), "not bold dim")
            self._spinner.update(text=line)
            parts += [Text(), self._spinner]
        return Group(*parts)


@final
class PlainScreen:
    """Prints one line for each event, and the figures at intervals."""

    def __init__(self, console: Console, look: Callable[[], View]) -> None:
        self._console = console
        self._look = look
        self._said = time.monotonic()

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def begin(self, text: str) -> None:
        self._print(f"- {text}")

    def note(self, text: str) -> None:
        """Not shown, because there would be too many lines."""

    def done(self, text: str) -> None:
        self._print(f"  {text}")

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() - self._said > _PLAIN_SECONDS and (view := self._look()).rows:
            self._said = time.monotonic()
            self._print(f"  {message_line(view.totals).plain}")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def _done(text: str) -> Table:
    """A line with its mark; long text is wrapped and indented."""
    line = Table.grid(padding=(0, 1))
    line.add_row(Text("✓", "green"), Text(text))
    return line


def fleet_table(rows: Sequence[Row]) -> Table:
    """The fleet, with a line for each vehicle."""
    edges = sorted({row.edge for row in rows if row.edge})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in (("vehicle", 7), ("MQTT", 5), ("edge", 6), ("state", 10)):
        table.add_column(name, no_wrap=True, min_width=width)
    for name, width in (("commands", 9), ("answers", 7), ("waiting", 7)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("last command", no_wrap=True)  # the only column that shrinks
    for row in rows:
        colour = _EDGE_COLOURS[edges.index(row.edge) % len(_EDGE_COLOURS)] if row.edge else "dim"
        table.add_row(
            row.vehicle,
            Text(row.version, "dim"),
            Text(row.edge or "-", colour if row.edge_up else "red"),
            _state(row),
            Text.assemble(str(row.delivered), (f" of {row.sent}", "dim")),
            str(row.reports),
            Text(str(row.waiting) if row.waiting else "·", "yellow" if row.waiting else "dim"),
            Text(row.last, "dim"),
        )
    return table


def _state(row: Row) -> Text:
    if row.state == DRIVING:
        return Text("● driving", "green") if row.edge_up else Text("● holds on", "yellow")
    return Text("○ asleep", "blue") if row.state == ASLEEP else Text("○ offline", "red")


def footer(view: View) -> Table:
    """One line each for the nodes, the messages and the connections."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", min_width=8)
    table.add_column(no_wrap=True)
    table.add_row("nodes", node_line(view.nodes))
    if view.rows:
        table.add_row("messages", message_line(view.totals))
        table.add_row("vehicles", vehicle_line(view.rows, view.totals))
    return table


def node_line(nodes: Sequence[NodeState]) -> Text:
    """All nodes; a node that is not ready has an empty circle."""
    line = Text()
    for node in nodes:
        line.append("● " if node.ready else "◌ ", "green" if node.ready else "yellow")
        line.append(f"{node.name}   ", "" if node.ready else "yellow")
    return line


def message_line(totals: Totals) -> Text:
    """The sums of the messages."""
    line = Text(f"{totals.sent} commands · {totals.delivered} delivered · {totals.heard} answered")
    line.append(f" · {totals.missing} under way", "yellow" if totals.missing else "dim")
    return line


def vehicle_line(rows: Sequence[Row], totals: Totals) -> Text:
    """The numbers of vehicles that are connected and asleep, and of dropped connections."""
    states = Counter(row.state for row in rows)
    line = Text(f"{states[DRIVING]} connected · {states[ASLEEP]} asleep")
    line.append(f" · {totals.dropped} connections dropped", "red" if totals.dropped else "dim")
    return line


def summary(totals: Totals) -> Table:
    """The summary: messages sent, arrived and missing."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for name in ("sent", "delivered", "lost"):
        table.add_column(name, justify="right")
    for name, sent, arrived in (
        ("commands to vehicles", totals.sent, totals.delivered),
        ("answers to the back end", totals.reported, totals.heard),
    ):
        table.add_row(name, str(sent), str(arrived), _verdict(sent - arrived))
    table.add_row("arrived again (QoS 1 allows it)", "", "", str(totals.repeats))
    table.add_row("arrived out of order", "", "", _verdict(totals.disordered))
    table.add_row("connections dropped", "", "", _verdict(totals.dropped))
    return table


def _verdict(number: int) -> Text:
    return Text(str(number), "red" if number else "green")
