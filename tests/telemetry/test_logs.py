"""The log of a node."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.telemetry import logs
from mesh.telemetry.logs import Limited, Logs, one_line

log = logging.getLogger("mesh.test")


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    assert root.handlers == handlers
    root.setLevel(level)


def test_one_event_is_one_line_in_utc_with_its_node(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "edge-1.log"
    node = Logs("edge-1", path)
    log.info("vehicle %s said %s", "V1", "hello\n2026-01-01T00:00:00.000Z edge-1 ERROR forged\x1b[2J")
    try:
        raise OSError("disk full")
    except OSError:
        log.exception("the journal stopped")
    log.debug("not shown")
    node.close()
    node.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{stamp} edge-1 INFO mesh\.test: vehicle V1 said hello\\n2026-.*forged\\x1b\[2J", lines[0])
    failure = r"the journal stopped\\nTraceback.*OSError: disk full"
    assert re.fullmatch(rf"{stamp} edge-1 ERROR mesh\.test: {failure}", lines[1])


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    path = tmp_path / "edge-1.log"
    node = Logs("edge-1", path)
    for number in range(200):
        log.info("line %d", number)
    node.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == logs.FILES
    assert all(file.stat().st_size <= 2000 for file in files)
    assert "line 199" in path.read_text(encoding="utf-8")


def test_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    node = Logs("edge-1")
    log.warning("careful")
    node.close()
    assert capsys.readouterr().err.endswith("edge-1 WARNING mesh.test: careful\n")


def test_a_disk_that_hangs_costs_lines_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE", 3)
    entered, go = threading.Event(), threading.Event()
    formatted = logs.LineFormatter.format

    def slow(self: logs.LineFormatter, record: logging.LogRecord) -> str:
        entered.set()
        assert go.wait(20.0)
        return formatted(self, record)

    monkeypatch.setattr(logs.LineFormatter, "format", slow)
    path = tmp_path / "edge-1.log"
    node = Logs("edge-1", path)
    log.info("first")
    assert entered.wait(10.0)
    for number in range(10):
        log.info("line %d", number)
    assert node.dropped == 7
    go.set()
    deadline = threading.Event()
    for _ in range(1000):
        if path.read_text(encoding="utf-8").count("\n") == 4:
            break
        deadline.wait(0.01)
    log.info("last")
    node.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.partition("mesh.test: ")[2] for line in lines[:5]] == ["first", "line 0", "line 1", "line 2", "last"]
    assert lines[5].endswith("7 lines were lost here: the log could not be written fast enough")


@pytest.mark.parametrize(("text", "line"), [("plain – text", "plain – text"), ("a\r\nb\tc", "a\\r\\nb\\tc"), ("", "")])
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_what_clients_can_provoke_is_bounded_per_second(caplog: pytest.LogCaptureFixture) -> None:
    now = [50.0]
    limited = Limited(log, 2, lambda: now[0])
    with caplog.at_level(logging.INFO):
        for number in range(5):
            limited.info("refused %d", number)
        now[0] += 1.0
        limited.warning("refused %d", 5)
        limited.flush()
    assert [record.getMessage() for record in caplog.records] == [
        "refused 0", "refused 1", "… 3 more suppressed", "refused 5"
    ]  # fmt: skip
    assert caplog.records[-1].levelno == logging.WARNING
