"""The programs ``mosquitto_pub``, ``mosquitto_sub`` and ``mosquitto_rr``, and their output.

It knows their arguments and output. It must never know what a test expects of them.
"""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass

from tests.stock.way import Way
from tests.support.waiting import PATIENCE, wait_until

VERSIONS = ("mqttv31", "mqttv311", "mqttv5")
V5 = VERSIONS[2]
MARK = ">>"
FORMAT = MARK + "|".join(("%t", "%q", "%r", "%x", "%C", "%D", "%R", "%P", "%S", "%E", "%A"))


@dataclass(frozen=True, slots=True)
class Got:
    """A message as ``mosquitto_sub`` printed it."""

    topic: str
    qos: int
    retain: bool
    payload: bytes
    content_type: str = ""
    correlation: str = ""
    response_topic: str = ""
    user: str = ""
    identifiers: str = ""
    expiry: str = ""
    alias: str = ""


def _got(line: str) -> Got:
    topic, qos, retain, payload, *rest = line.removeprefix(MARK).split("|")
    return Got(topic, int(qos), retain == "1", bytes.fromhex(payload), *rest)


def arguments(program: str, way: Way, version: str, *more: str) -> list[str]:
    """The command line of one of the programs."""
    user = [] if way.user is None else ["-u", way.user]
    return [program, "-h", "127.0.0.1", "-p", str(way.port), "-V", version, *user, *more]


class Run:
    """One program in the background. ``said`` holds its output lines, with its log (-d)."""

    def __init__(self, program: str, way: Way, version: str, *more: str) -> None:
        command = ["stdbuf", "-oL", *arguments(program, way, version, "-d", *more)]
        self.said: list[str] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def count(self, text: str) -> int:
        """The number of output lines that contain this text."""
        return sum(text in line for line in list(self.said))

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the output contains this text."""
        wait_until(lambda: self.count(text) >= times, f"{text!r} in the output, which ends with {self.said[-5:]}")

    @property
    def got(self) -> list[Got]:
        return [_got(line) for line in list(self.said) if line.startswith(MARK)]

    def expect(self, count: int) -> list[Got]:
        """Wait until this many messages have come; return all that have come."""
        wait_until(lambda: len(self.got) >= count, f"{count} messages in the output, which ends with {self.said[-5:]}")
        return self.got

    def expect_last(self, payload: bytes) -> list[Got]:
        """Wait for a message with this payload; return all that have come."""
        wait_until(
            lambda: any(got.payload == payload for got in self.got),
            f"{payload!r} in the output, which ends with {self.said[-5:]}",
        )
        return self.got

    def ended(self) -> int:
        """Wait until the program ends by itself; return its exit code."""
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return self._process.returncode

    def kill(self) -> None:
        """SIGKILL: the program ends without DISCONNECT."""
        self._process.kill()
        self.ended()

    def close(self) -> None:
        """SIGTERM: the program sends DISCONNECT and ends."""
        if self._process.poll() is None:
            self._process.terminate()
        self.ended()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.rstrip("\n"))


class Mosquitto:
    """Starts the programs, and ends those that still run at the end of a test."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def run(self, program: str, way: Way, version: str, *more: str) -> Run:
        """Start one of the programs."""
        run = Run(program, way, version, *more)
        self._runs.append(run)
        return run

    def sub(self, way: Way, version: str, *more: str) -> Run:
        """Start ``mosquitto_sub``; return when it is subscribed."""
        run = self.run("mosquitto_sub", way, version, "-F", FORMAT, *more)
        run.says("Subscribed (mid")
        return run

    def pub(self, way: Way, version: str, *more: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``mosquitto_pub`` to its end; ``given`` is its standard input."""
        done = subprocess.run(
            arguments("mosquitto_pub", way, version, *more), input=given, capture_output=True, timeout=PATIENCE
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def sent(self, way: Way, version: str, *more: str, given: bytes | None = None) -> None:
        """Run ``mosquitto_pub``, which must succeed without a message on stderr."""
        done = self.pub(way, version, *more, given=given)
        assert (done.returncode, done.stderr) == (0, "")

    def close(self) -> None:
        for run in self._runs:
            run.close()
