"""Libraries that only some settings need: which processes load them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mesh.cli.main import COMMANDS
from mesh.topology.load import loads
from mesh.topology.topology import as_dict
from tests.support.configs import TOPOLOGY
from tools import ROOT

LIBRARIES = ("aiohttp", "argon2", "bcrypt", "cryptography", "jwt", "opentelemetry", "prometheus_client", "yarl")

ROLES = ("cluster.host", "edge.node", "core.node", "frontdoor.node")

REMOTE = """
identity:
  providers:
    - {name: tokens, jwt: {keys: "http://127.0.0.1:1/keys", issuer: here, algorithms: [ES256]}}
    - {name: ours, http: {url: "http://127.0.0.1:1/ask"}}
"""

BEGIN = f"""
import mesh  # the one under test, before the checkout is in the path
import json, sys
sys.path.insert(0, {str(ROOT)!r})
def loaded():
    print(*sorted(set({LIBRARIES!r}) & set(sys.modules)))
"""

# The settings, as a node gets them.
TAKEN = """
from mesh.topology.topology import from_dict
topology = from_dict(json.load(sys.stdin))
loaded()
"""

GUARDED = """
import asyncio
from mesh.node.guard import Guard
from mesh.policy.attempts import Attempts
from mesh.policy.bans import Bans
async def main():
    guard = Guard(lambda: None, Bans(), "vehicle")
    await guard.start(topology.identity.order(Attempts(1)))
    loaded()
    await guard.stop()
asyncio.run(main())
"""

TRACED = """
from mesh.telemetry.tracing import open_tracer, receiver_at
otlp = topology.telemetry.otlp
receiver = None if otlp is None else receiver_at(otlp)
tracer = open_tracer(receiver, "mesh-edge", "edge-1", "demo", 1.0, topology.vehicle_template())
loaded()
tracer.close()
"""


def outcome(code: str, more: str = "") -> list[str]:
    """The libraries that a process has loaded, at each call of ``loaded``."""
    settings = as_dict(loads((TOPOLOGY + more).encode(), "mesh.yaml", Path(".")))
    run = subprocess.run(
        [sys.executable, "-c", BEGIN + code], input=json.dumps(settings), stdout=subprocess.PIPE, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return run.stdout.splitlines()


def test_a_node_loads_no_library_before_it_makes_what_needs_it() -> None:
    roles = "".join(f"import mesh.{module}\nloaded()\n" for module in ROLES)
    assert outcome(roles + TAKEN, REMOTE) == [""] * (len(ROLES) + 1)


def test_a_front_door_loads_the_libraries_of_the_providers_that_the_settings_name() -> None:
    assert outcome(TAKEN + GUARDED) == ["", ""]
    before, after = outcome(TAKEN + GUARDED, REMOTE)
    assert before == ""
    assert {"aiohttp", "jwt"} <= set(after.split())


def test_a_node_loads_the_libraries_of_traces_if_it_exports_them() -> None:
    export = "telemetry: {otlp: \"http://127.0.0.1:1\"}\n"
    assert outcome(TAKEN + TRACED) == ["", ""]
    assert outcome(TAKEN + TRACED, export) == ["", "opentelemetry"]


def test_a_command_loads_none() -> None:
    names = sorted(COMMANDS.keys() - {"certs"})  # which makes certificates
    steps = [*names, "a topology"]
    commands = "".join(f"import {COMMANDS[name].module}\nloaded()\n" for name in names)
    commands += f"from mesh.topology.load import load\nload({str(ROOT / 'topology' / 'local.yaml')!r})\nloaded()\n"
    assert dict(zip(steps, outcome(commands), strict=True)) == dict.fromkeys(steps, "")
