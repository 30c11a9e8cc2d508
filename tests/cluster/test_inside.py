"""A whole real mesh with the certificates of ``mesh certs internal``: its console and metrics want a certificate."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from mesh.cluster.lifecycle import down
from mesh.topology.load import load
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.ray

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"
INSIDE = """
internal: {tls: {ca: inside/ca.pem, cert: "inside/internal/{node}.pem", key: "inside/internal/{node}.key"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    vehicles, backends, console = free_ports(3)
    text = LOCAL.read_text().replace("1883", str(vehicles)).replace("1884", str(backends))
    text = text.replace("../.mesh/local", "data").replace("telemetry:\n", 'telemetry:\n  prometheus: "127.0.0.1:0"\n')
    path = tmp_path / "local.yaml"
    path.write_text(f"{text}console: 127.0.0.1:{console}\n")
    yield path
    down(tmp_path / "data")


def mesh(folder: Path, *words: str) -> str:
    command = [sys.executable, "-P", "-m", "mesh.cli.main", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fetch(url: str, context: ssl.SSLContext) -> str:
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        return str(answer.read().decode())


def test_console_and_metrics_want_a_certificate(file: Path) -> None:
    folder = file.parent
    mesh(folder, "certs", "init", "inside")
    mesh(folder, "certs", "internal", str(file), "--folder", "inside")
    file.write_text(file.read_text() + INSIDE)
    mesh(folder, "check", str(file))
    mesh(folder, "up", str(file), "--detach")
    console = f"https://{load(file).console}"
    assert console in mesh(folder, "status", "--topology", str(file))
    stranger = ssl.create_default_context(cafile=folder / "inside" / "ca.pem")
    operator = ssl.create_default_context(cafile=folder / "inside" / "ca.pem")
    own = folder / "inside" / "internal" / "operator"
    operator.load_cert_chain(own.with_suffix(".pem"), own.with_suffix(".key"))
    for url in (f"{console}/api/status", f"{console}/metrics"):
        with pytest.raises((URLError, ConnectionError, ssl.SSLError)):
            fetch(url, stranger)
    wait_until(lambda: "edge-1" in fetch(f"{console}/api/status", operator), "the console has the status", seconds=30.0)

    def targets() -> dict[str, str]:
        found = json.loads(fetch(f"{console}/api/targets", operator))
        assert {one["labels"]["__scheme__"] for one in found} == {"https"}
        return {one["labels"]["node"]: one["targets"][0] for one in found}

    wait_until(lambda: {"edge-1", "core", "door"} <= set(targets()), "all nodes have metrics", seconds=30.0)
    for name in ("edge-1", "core", "door"):
        assert f'node="{name}"' in fetch(f"https://{targets()[name]}/metrics", operator)
        with pytest.raises((URLError, ConnectionError, ssl.SSLError)):
            fetch(f"https://{targets()[name]}/metrics", stranger)
