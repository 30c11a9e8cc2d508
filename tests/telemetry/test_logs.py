"""The log of a process."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.telemetry import logs
from mesh.telemetry.logs import Logs, lines_lost, log_levels, one_line, set_levels
from tests.support.waiting import wait_until

log = logging.getLogger("mesh.test")

DEADLINE = 20.0
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
LOST = "lines were lost here: the log could not be written, or not fast enough"


@pytest.fixture(autouse=True)
def _process_state_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    assert root.handlers == handlers
    assert root.level == level
    assert sys.__stderr__ is not None
    faulthandler.enable(sys.__stderr__)


class Pipe:
    """A log file that is a pipe without a reader until ``drain``: once it is full, writing to it blocks."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "edge-1.log"
        os.mkfifo(self.path)
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._end, True)
        self._read = b""

    def fill(self) -> None:
        """Fill the pipe."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        for size in (1 << 16, 1):
            try:
                while True:
                    os.write(descriptor, b"." * size)
            except BlockingIOError:
                pass
        os.close(descriptor)

    def drain(self) -> Callable[[], list[str]]:
        """Read everything from now on; return a function that waits for the writers to close and returns the lines."""
        thread = threading.Thread(target=self._drain)
        thread.start()

        def lines() -> list[str]:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "the log was not closed"
            return self._read.decode().lstrip(".").splitlines()

        return lines

    def _drain(self) -> None:
        while data := os.read(self._end, 1 << 16):
            self._read += data
        os.close(self._end)


def texts(lines: list[str]) -> list[str]:
    return [re.sub(rf"^{STAMP} [A-Z]+ +[a-z.]+: ", "", line) for line in lines]


def test_one_event_is_one_line_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "edge-1.log"
    node = Logs(path)
    log.info("vehicle %s said %s", "V1", "hello\n2026-01-01T00:00:00.000Z ERROR   forged\x1b[2J")
    log.debug("not shown")
    # Not with a logger: the test runner cannot store such a text.
    node.handle(logging.LogRecord("mesh.test", logging.INFO, "", 0, "a lone surrogate: \udc80", None, None))
    node.close()
    node.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"{STAMP} INFO    mesh\.test: vehicle V1 said hello\\n2026-.*forged\\x1b\[2J", lines[0])
    assert lines[1].endswith(r"a lone surrogate: \udc80")


def test_exception_is_logged_in_one_line_with_source_and_cause(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    node = Logs(path)
    try:
        try:
            raise OSError("disk full")
        except OSError as error:
            raise RuntimeError("stopped") from error
    except RuntimeError:
        log.exception("the journal stopped")
    node.close()
    (line,) = path.read_text(encoding="utf-8").splitlines()
    found = re.fullmatch(rf"{STAMP} ERROR   mesh\.test: the journal stopped\\n(Traceback .*)", line)
    assert found
    assert 'raise OSError("disk full")' in found[1]
    assert "OSError: disk full" in found[1]
    assert found[1].endswith("RuntimeError: stopped")


def test_log_keeps_no_reference_to_frames(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path)
    node = Logs(pipe.path)
    pipe.fill()

    class Large:
        pass

    def fails() -> None:
        held = Large()
        raise OSError(f"disk full {held is None}")

    for _ in range(3):
        try:
            fails()
        except OSError:  # not with a logger: the test runner keeps its records
            node.handle(logging.LogRecord("mesh.test", logging.ERROR, "", 0, "stopped", None, sys.exc_info()))
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Large]
    lines = pipe.drain()
    node.close()
    assert len(lines()) == 3


def test_files_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    path = tmp_path / "edge-1.log"
    path.write_text("of the run before\n")
    node = Logs(path)
    for number in range(200):
        log.info("line %d", number)
    node.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["edge-1.log", "edge-1.log.1", "edge-1.log.2", "edge-1.log.3"]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    shown = texts("".join(file.read_text() for file in reversed(files)).splitlines())
    assert shown == [f"line {number}" for number in range(200 - len(shown), 200)]


def test_log_appends_to_the_file_of_the_previous_run(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    for number in range(2):
        node = Logs(path)
        log.info("run %d", number)
        node.close()
    assert texts(path.read_text().splitlines()) == ["run 0", "run 1"]


def test_drain_waits_for_the_queued_lines(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    node = Logs(path)
    for number in range(100):
        log.info("line %d", number)
    node.drain(DEADLINE)
    assert len(path.read_text().splitlines()) == 100
    node.close()


def test_blocked_log_never_waits_and_reports_the_lost_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LINES", 3)
    pipe = Pipe(tmp_path)
    node = Logs(pipe.path)
    pipe.fill()
    log.info("first")
    wait_until(lambda: not node._queue)  # the thread has it, and blocks
    for number in range(10):
        log.info("line %d", number)
    assert (node.dropped, lines_lost()) == (7, 7)
    node.drain(0.01)  # times out
    lines = pipe.drain()
    node.drain(DEADLINE)
    log.info("last")
    node.close()
    assert texts(lines()) == ["first", "line 0", "line 1", "line 2", f"7 {LOST}", "last"]
    assert (node.dropped, node.failed) == (7, 0)


def test_lost_lines_are_reported_before_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LINES", 2)
    pipe = Pipe(tmp_path)
    node = Logs(pipe.path)
    pipe.fill()
    log.info("first")
    wait_until(lambda: not node._queue)
    for number in range(3):
        log.info("line %d", number)
    with node._changed:  # as if the thread had taken a line while more arrive
        taken = node._queue.popleft()
        log.info("follows")
        node._queue.appendleft(taken)
    lines = pipe.drain()
    node.close()
    assert texts(lines()) == ["first", "line 0", "line 1", f"1 {LOST}", "follows"]


def test_queue_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BYTES", 100_000)
    pipe = Pipe(tmp_path)
    node = Logs(pipe.path)
    pipe.fill()
    for _ in range(100):
        log.info("x" * 10_000)
    assert 90 <= node.dropped <= 92
    log.info("short")  # has room
    lines = pipe.drain()
    node.close()
    shown = texts(lines())
    assert shown[-1] == "short"
    assert shown[-2] == f"{node.dropped} {LOST}"
    assert len(shown) == 100 - node.dropped + 2


def test_close_returns_although_the_log_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CLOSE_SECONDS", 0.05)
    pipe = Pipe(tmp_path)
    node = Logs(pipe.path)
    pipe.fill()
    log.info("first")
    node.close()  # returns
    assert node._writer.is_alive()
    lines = pipe.drain()
    node._writer.join(DEADLINE)
    node._file.close()
    assert texts(lines()) == ["first"]


def test_full_disk_loses_lines_and_reports_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edge-1.log"
    node = Logs(path)
    log.info("first")
    node.drain(DEADLINE)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if data.endswith(b"line 1\n") and len(data) > 20:
            return write(descriptor, data[:-10])  # a part still fits
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for number in range(5):
        log.info("line %d", number)
    node.drain(DEADLINE)
    assert (node.failed, node.dropped, lines_lost()) == (5, 0, 5)
    monkeypatch.setattr(os, "write", write)
    log.info("last")
    node.close()
    first, part, lost, last = path.read_text().splitlines()
    assert texts([first, lost, last]) == ["first", f"5 {LOST}", "last"]
    assert re.fullmatch(rf"{STAMP} INFO    mesh\.tes", part)


def test_finaliser_may_log_while_a_line_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    node = Logs(path)
    with node._changed:  # as within ``emit``, where Python may collect garbage
        log.info("from the finaliser")
    node.close()
    assert texts(path.read_text().splitlines()) == ["from the finaliser"]


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    begin = (
        "import logging, sys\nfrom pathlib import Path\nfrom mesh.telemetry.logs import Logs\n"
        "logs = Logs(Path(sys.argv[1]))\nlog = logging.getLogger('mesh.test')\n"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", begin + code, path],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )


def test_wrong_format_is_logged_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    ended = run("log.info('%d sessions', 'many')", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert "mesh.test: %d sessions ('many',) (%d format" in line


def test_queued_lines_are_written_when_python_ends(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    ended = run("for number in range(1000): log.info('line %d', number)\nraise SystemExit(3)", path)
    assert ended.returncode == 3
    assert texts(path.read_text().splitlines()) == [f"line {number}" for number in range(1000)]


def test_process_ends_although_its_log_blocks(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path)
    ended = run("import os\nfor number in range(1000): log.info('x' * 1000)\nraise SystemExit(3)", pipe.path)
    assert (ended.returncode, ended.stderr) == (3, "")


def test_fatal_signal_writes_its_stacks_to_the_newest_file(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    code = (
        "from mesh.telemetry import logs as module\nmodule.FILE_BYTES = 2000\nlogs._file._full = 2000\n"
        "for number in range(100): log.info('line %d', number)\nlogs.drain(20.0)\n"
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    )
    ended = run(code, path)
    assert ended.returncode == -signal.SIGSEGV
    assert path.with_name("edge-1.log.1").exists()
    newest = path.read_text()
    assert "line 99" in newest
    assert "Fatal Python error: Segmentation fault" in newest


@pytest.mark.parametrize(("text", "line"), [("plain – text", "plain – text"), ("a\r\nb\tc", "a\\r\\nb\\tc"), ("", "")])
def test_one_line_escapes_control_characters(text: str, line: str) -> None:
    assert one_line(text) == line


def test_the_levels_of_the_mesh_and_of_its_modules_change(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    one = Logs(path)

    def said(*levels: str) -> list[str]:
        """What each logger has written of a line of each level."""
        for name in ("mesh.broker.x", "mesh.edge", "library"):
            for level in levels:
                getattr(logging.getLogger(name), level)("%s %s", name, level)
        one.drain(DEADLINE)
        lines = [line.partition(": ")[2] for line in path.read_text().splitlines()]
        path.write_text("")
        return lines

    try:
        set_levels("debug", {})
        assert said("debug") == ["mesh.broker.x debug", "mesh.edge debug"]
        set_levels("error", {"mesh.broker": "debug"})
        assert said("debug", "warning", "error") == [
            "mesh.broker.x debug", "mesh.broker.x warning", "mesh.broker.x error", "mesh.edge error", "library error",
        ]  # fmt: skip
        set_levels("info", {})
        assert said("debug", "info") == ["mesh.broker.x info", "mesh.edge info", "library info"]
        assert log_levels() == {"root": "INFO", "mesh": "INFO"}
        set_levels("debug", {"mesh.edge": "debug"})
    finally:
        one.close()
    assert log_levels().keys() == {"root"}


def test_a_process_without_a_log_has_no_levels() -> None:
    before = log_levels()
    set_levels("debug", {"mesh.broker": "debug"})
    assert log_levels() == before
