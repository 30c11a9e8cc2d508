"""The parts of the demonstration that need no mesh: its ledger, its topology, its picture."""

from __future__ import annotations

import socket
from io import StringIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mesh.topology.load import load, loads
from tools.demonstration.fleet import ASLEEP, DRIVING
from tools.demonstration.ledger import Ledger
from tools.demonstration.running import NodeState
from tools.demonstration.screen import LiveScreen, PlainScreen, Row, View, screen, summary
from tools.demonstration.setting import HOST, choose, derive, is_free, write

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"
OTLP = "http://127.0.0.1:4999"


def test_the_ledger_counts_messages_that_have_not_arrived() -> None:
    ledger = Ledger(["A", "B"])
    ledger.sent("A", 1)
    ledger.sent("B", 2)
    assert ledger.totals().missing == 2
    assert ledger.delivered("A", 1, "lights on")
    ledger.reported("A", 1)
    assert ledger.totals().missing == 2  # a command, and an answer
    ledger.heard("A", 1)
    assert (ledger.totals().missing, ledger.account("B").waiting, ledger.account("A").last) == (1, 1, "lights on")
    assert not ledger.totals().flawless
    ledger.delivered("B", 2, "locate")
    assert ledger.totals().flawless


def test_a_repeat_changes_only_the_count_of_repeats() -> None:
    ledger = Ledger(["A"])
    for number in (1, 2):
        ledger.sent("A", number)
        ledger.delivered("A", number, "")
    assert not ledger.delivered("A", 1, "")
    totals = ledger.totals()
    assert (totals.repeats, totals.delivered, totals.disordered) == (1, 2, 0)
    assert totals.flawless


def test_disorder_refusal_and_a_dropped_connection_are_flaws() -> None:
    ledger = Ledger(["A"])
    for number in (1, 2):
        ledger.sent("A", number)
    ledger.delivered("A", 2, "")
    ledger.delivered("A", 1, "")
    assert (ledger.totals().missing, ledger.totals().disordered, ledger.totals().flawless) == (0, 1, False)
    dropped, refused = Ledger(["A"]), Ledger(["A"])
    for fine in (dropped, refused):
        fine.sent("A", 1)
        fine.delivered("A", 1, "")
        assert fine.totals().flawless
    dropped.dropped("A")
    refused.refused("Quota exceeded")
    assert not dropped.totals().flawless
    assert not refused.totals().flawless
    assert refused.refusals() == {"Quota exceeded": 1}


def test_a_ledger_without_messages_is_not_flawless() -> None:
    assert not Ledger(["A"]).totals().flawless


@given(st.lists(st.integers(1, 30), max_size=60), st.sets(st.integers(1, 30)))
def test_missing_is_the_number_sent_and_not_arrived(arrived: list[int], sent: set[int]) -> None:
    ledger = Ledger(["A"])
    for number in sent:
        ledger.sent("A", number)
    for number in arrived:
        ledger.delivered("A", number, "")
    assert ledger.totals().missing == len(sent - set(arrived))
    assert ledger.totals().repeats == len(arrived) - len(set(arrived))


def test_the_demo_topology_is_the_local_one_with_its_own_place(tmp_path: Path) -> None:
    text = derive(LOCAL.read_text(), OTLP, 2001, 2002)
    made, local = loads(text.encode(), "demo", tmp_path), load(LOCAL)
    assert (made.mesh, made.data, made.telemetry.otlp) == ("demo", tmp_path / "data", OTLP)
    assert [str(group[0].listen[0].address) for group in (made.front_doors, made.cores)] == [
        f"{HOST}:2001",
        f"{HOST}:2002",
    ]
    assert (made.pools, made.inbox, made.identity, made.template) == (
        local.pools,
        local.inbox,
        local.identity,
        local.template,
    )


def test_a_port_that_is_taken_is_not_used(tmp_path: Path) -> None:
    assert choose(1883, lambda port: True) == 1883
    assert choose(1883, lambda port: False) != 1883
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        assert not is_free(taken)
        source = tmp_path / "local.yaml"
        source.write_text(LOCAL.read_text().replace(":1883", f":{taken}"))
        setting = write(source, tmp_path / "demo", OTLP)
    assert setting.door not in (taken, setting.core)
    assert str(load(setting.file).front_doors[0].listen[0].address) == f"{HOST}:{setting.door}"


NODES = [NodeState("etcd", "etcd", "ready", 1), NodeState("edge-1", "edge", "starting", 0)]


def view() -> View:
    ledger = Ledger(["CAR-01"])
    ledger.sent("CAR-01", 1)
    rows = [
        Row("CAR-01", "5", "edge-1", False, DRIVING, 1, 0, 0, 1, "lights on"),
        Row("CAR-02", "3.1.1", "edge-1", False, ASLEEP, 0, 0, 0, 0, ""),
    ]
    return View(rows, NODES, ledger.totals())


def test_the_live_picture_fits_80_columns_and_24_lines() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=80, height=24)
    shown = screen(console, view)
    assert isinstance(shown, LiveScreen)
    with shown:
        shown.begin("the edge is dead")
        shown.note("1 command waits")
        shown.done("the edge is back")
    said = out.getvalue()
    for word in ("CAR-01", "● holds on", "○ asleep", "0 of 1", "◌ edge-1", "1 under way", "✓ the edge is back"):
        assert word in said
    assert "…" not in said


def test_output_without_a_terminal_is_plain_lines() -> None:
    out = StringIO()
    console = Console(file=out, width=80)
    shown = screen(console, view)
    assert isinstance(shown, PlainScreen)
    with shown:
        shown.begin("the edge is dead")
        shown.note("1 command waits")
        shown.done("the edge is back " + "and " * 30)
    assert out.getvalue().splitlines() == ["- the edge is dead", "  the edge is back " + "and " * 30]


def test_the_summary_has_the_figures() -> None:
    out = StringIO()
    Console(file=out, width=80).print(summary(view().totals))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["commands", "to", "vehicles", "1", "0", "1"] in lines
    assert ["connections", "dropped", "0"] in lines
