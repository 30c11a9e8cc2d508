"""Check with an independent receiver that traces are complete: the Aspire dashboard, which has a page and an API.

    scripts/check_traces           commands and reports of a vehicle with MQTT 3.1.1 and one with 5.0 on a real mesh
    scripts/check_traces --keep    leaves the dashboard running until Ctrl-C

The exit code is 0 if every span of every message arrived, each as the child of the span before. Needs npm. Installs the
dashboard below build/, and writes nothing outside of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import tools.checkout  # noqa: F401
from mesh.wire.packets import MQTT5, MQTT311
from tools import ROOT

# isort: split
from tests.e2e.ways import DOWNSTREAM, UPSTREAM, context, parent_of
from tests.support.client import Client
from tests.support.cluster import Cluster

PACKAGE = "@microsoft/aspire-cli-linux-x64@13.5"
HOME = ROOT / "build" / "aspire"
BINARY = HOME / "node_modules" / "@microsoft" / "aspire-cli-linux-x64" / "bin" / "aspire"
START_SECONDS = 60.0  # the first start unpacks the dashboard
ARRIVE_SECONDS = 15.0

Span = dict[str, Any]


def install() -> None:
    """Install the dashboard below build/, if it is missing."""
    if BINARY.exists():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    print(f"installing {PACKAGE} below {HOME.relative_to(ROOT)}")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(HOME), PACKAGE]
    subprocess.run(command, check=True, timeout=600, cwd=HOME)


def start(page: str, otlp: str, otlp_http: str) -> subprocess.Popen[bytes]:
    """Start the dashboard on loopback, in its own process group."""
    command = [str(BINARY), "dashboard", "run", "--nologo", "--non-interactive", "--allow-anonymous"]
    command += ["--frontend-url", page, "--otlp-grpc-url", otlp, "--otlp-http-url", otlp_http]
    environment = {**os.environ, "HOME": str(HOME), "ASPIRE_CLI_TELEMETRY_OPTOUT": "true"}
    with (HOME / "dashboard.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=HOME, start_new_session=True)


def received(page: str) -> list[Span]:
    """All spans in the dashboard, each with ``service``: the kind of node that made it."""
    with urllib.request.urlopen(f"{page}/api/telemetry/traces?limit=1000", timeout=5) as answer:
        groups = json.load(answer)["data"]["resourceSpans"]
    spans: list[Span] = []
    for group in groups:
        about = {pair["key"]: pair["value"].get("stringValue") for pair in group["resource"]["attributes"]}
        for scoped in group["scopeSpans"]:
            spans += [{**span, "service": about.get("service.name")} for span in scoped["spans"]]
    return spans


def wait_until_up(page: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            received(page)
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"the dashboard did not start ({error}); see {HOME / 'dashboard.log'}") from error
            time.sleep(0.3)


def wait_for(page: str, trace_id: str, count: int) -> list[Span]:
    end = time.monotonic() + ARRIVE_SECONDS
    while True:
        spans = [span for span in received(page) if span["traceId"] == trace_id]
        if len(spans) >= count or time.monotonic() > end:
            return spans
        time.sleep(0.2)


def step(span: Span) -> tuple[str, str]:
    """Role and operation, such as ``("edge", "wait")``."""
    return span["service"].removeprefix("mesh-"), span["name"].split(" ")[0]


def check_way(spans: list[Span], way: list[tuple[str, str]], root: str) -> list[str]:
    """The faults in one message's spans, which should be those of ``way``, each the child of the span before."""
    found = {step(span): span for span in spans}
    if len(spans) != len(way) or set(found) != set(way):
        return [f"the spans are {sorted(found)} instead of {sorted(way)}"]
    parents = [root, *(found[place]["spanId"] for place in way[:-1])]
    return [
        f"{place} has the parent {found[place].get('parentSpanId')} instead of {parent}"
        for place, parent in zip(way, parents, strict=True)
        if (found[place].get("parentSpanId") or "") != parent
    ]


async def send_messages(mesh: Cluster) -> dict[str, tuple[list[tuple[str, str]], str]]:
    """Send a command and a report for a vehicle of each version; returns their traces, ways and publishers' spans."""
    sent = {}
    backend = await Client("checker", MQTT5).connect(mesh.backends)
    await backend.subscribe("vehicles/+/status")
    for protocol in (MQTT311, MQTT5):
        car = await Client(f"car-{protocol}", protocol).connect(mesh.vehicles)
        await car.subscribe(f"vehicles/{car.name}/cmd/#")
        trace, span, traceparent = context()
        backend.publish(f"vehicles/{car.name}/cmd/horn", "twice", 1, [("traceparent", traceparent)])
        sent[trace] = (DOWNSTREAM, span)
        await car.until(lambda car=car: car.received, "the command")
        trace, span, traceparent = context()
        user = [("traceparent", traceparent)] if protocol == MQTT5 else []
        backend.received.clear()
        car.publish(f"vehicles/{car.name}/status", "parked", 1, user)
        await backend.until(lambda: backend.received, "the report")
        # MQTT 3.1.1 cannot carry a trace context, so the trace begins at the edge.
        sent[parent_of(backend.received[0])[0]] = (UPSTREAM, span if user else "")
        await car.settled()
        car.leave()
    await backend.settled()
    backend.leave()
    return sent


def through_a_mesh(page: str, otlp: str) -> list[str]:
    """The faults in the traces of a real mesh."""
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        mesh = Cluster(Path(folder), ["edge-1", "edge-2"], otlp)
        mesh.start()
        try:
            sent = asyncio.run(send_messages(mesh))
            faults = []
            for trace, (way, root) in sent.items():
                spans = wait_for(page, trace, len(way))
                faults += [f"trace {trace}: {fault}" for fault in check_way(spans, way, root)]
            return faults
        finally:
            mesh.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/check_traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--otlp", default="http://127.0.0.1:24317", help="the port for OTLP/gRPC")
    parser.add_argument("--otlp-http", default="http://127.0.0.1:24318", help="the port for OTLP/HTTP")
    parser.add_argument("--page", default="http://127.0.0.1:24888", help="the port of the page")
    parser.add_argument("--keep", action="store_true", help="leave the dashboard running until Ctrl-C")
    options = parser.parse_args()
    install()
    process = start(options.page, options.otlp, options.otlp_http)
    try:
        wait_until_up(options.page, process)
        faults = through_a_mesh(options.page, options.otlp)
        spans = received(options.page)
        print(*faults, sep="\n", end="\n" if faults else "")
        traces = {span["traceId"] for span in spans}
        print(f"{len(spans)} spans of {len(traces)} traces: {'FAILED' if faults else 'complete'}")
        if options.keep:
            print(f"the page is at {options.page}; Ctrl-C stops it")
            process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # its own group: the command line tool and the dashboard below it
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
