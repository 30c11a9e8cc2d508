"""The systems that are compared: starts each one on given processors, and gives its addresses.

It knows programs and their settings; it must never know a load. What always holds: a system has new processes and an
empty folder each time, listens on loopback only, and has ended after ``stop``; the peers have settings as favourable as
ours (Nagle off, queues unlimited, one thread on one processor).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, final

import psutil

from mesh.registry.embedded import free_ports
from tools.benchmark.secured import MUTUAL, PLAIN, WEBSOCKET, Certificates

READY = 90.0  # seconds until a system listens: ours starts Ray on one processor
STOP = 60.0

Address = tuple[str, int]


class System(Protocol):
    """``watched``: the processes that carry the load, by name; ``vehicles`` and ``backends``: the two addresses.
    ``certificates``: those of the vehicles' listener; ``None``: it is plain TCP."""

    vehicles: Address
    backends: Address
    watched: dict[str, int]
    certificates: Certificates | None

    def start(self, cpus: set[int]) -> None:
        """Start the system on these processors; returns when it is ready."""

    def stop(self) -> None:
        """End all processes."""


@contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Processes that start within this context run on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def program(name: str) -> str:
    """The path of a program. Raises ``LookupError`` if it is not on the PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        raise LookupError(f"{name} is not on the PATH")
    return found


def wait_for(address: Address, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens at this address."""
    deadline = time.monotonic() + READY
    while True:
        try:
            socket.create_connection(address, 1.0).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on {address[0]}:{address[1]}: {process.args!r}") from None
            time.sleep(0.05)


class Programs:
    """Base of the systems that consist of ordinary programs."""

    def __init__(self) -> None:
        self.vehicles: Address = ("127.0.0.1", 0)
        self.backends: Address = ("127.0.0.1", 0)
        self.watched: dict[str, int] = {}
        self.certificates: Certificates | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self._folder.name)

    def run(self, name: str, address: Address, *command: str) -> None:
        """Start a program and wait until it listens."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        self.watched[name] = process.pid
        wait_for(address, process)

    def stop(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait(STOP)
        self._processes.clear()
        self._folder.cleanup()


def mosquitto_settings(folder: Path, name: str, port: int, more: str = "") -> str:
    """A settings file of Mosquitto: queues unlimited, Nagle off, nothing on disk."""
    file = folder / f"{name}.conf"
    file.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
        f"max_queued_messages 0\nlog_type error\npersistence false\nuser root\n{more}"
    )
    return str(file)


@final
class Mosquitto(Programs):
    """One Mosquitto alone."""

    def start(self, cpus: set[int]) -> None:
        (port,) = free_ports(1)
        self.vehicles = self.backends = ("127.0.0.1", port)
        with pinned(cpus):
            settings = mosquitto_settings(self.folder, "mosquitto", port)
            self.run("mosquitto", self.vehicles, program("mosquitto"), "-c", settings)


@final
class Amqtt(Programs):
    """One amqtt alone: a broker in Python, like ours."""

    def start(self, cpus: set[int]) -> None:
        (port,) = free_ports(1)
        self.vehicles = self.backends = ("127.0.0.1", port)
        settings = self.folder / "amqtt.yaml"
        settings.write_text(
            f"listeners: {{default: {{type: tcp, bind: '127.0.0.1:{port}', max_connections: 10000}}}}\n"
            "plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}\n"
        )
        with pinned(cpus):
            self.run("amqtt", self.vehicles, program("amqtt"), "-c", str(settings))


@final
class CMesh(Programs):
    """HAProxy, sticky by client id, before a Mosquitto as edge, with a bridge from a Mosquitto as core."""

    def __init__(self, fronts: int = 1, tls: str = PLAIN) -> None:
        """``fronts``: the number of HAProxys that share the port. One takes 9,900 connections if a process may have
        20,000 descriptors. ``tls``: see ``secured``."""
        super().__init__()
        self._fronts = fronts
        self._tls = tls
        if tls:
            self.certificates = Certificates(self.folder)

    def start(self, cpus: set[int]) -> None:
        front, core, edge = free_ports(3)
        self.vehicles, self.backends = ("127.0.0.1", front), ("127.0.0.1", core)
        with pinned(cpus):
            settings = mosquitto_settings(self.folder, "edge-1", edge)
            self.run("edge-1", ("127.0.0.1", edge), program("mosquitto"), "-c", settings)
            settings = mosquitto_settings(self.folder, "core", core, self._bridge(edge))
            self.run("core", self.backends, program("mosquitto"), "-c", settings)
            settings = self._haproxy(front, edge, len(cpus))
            for number in range(1, self._fronts + 1):
                name = "haproxy" if self._fronts == 1 else f"haproxy-{number}"
                self.run(name, self.vehicles, program("haproxy"), "-f", settings)
        time.sleep(1.0)  # the bridge connects

    def _bridge(self, port: int) -> str:
        return (
            f"connection edge-1\naddress 127.0.0.1:{port}\nbridge_protocol_version mqttv311\n"
            "cleansession false\ntry_private true\nnotifications false\n"
            "topic vehicles/+/cmd/# out 1\ntopic fleet/# out 1\ntopic vehicles/+/status in 1\n"
        )

    def _haproxy(self, front: int, edge: int, threads: int) -> str:
        tls = ""
        if self.certificates is not None:
            tls = f" ssl crt {self.certificates.both} ssl-min-ver TLSv1.2 alpn mqtt"
            if self._tls == MUTUAL:
                tls += f" verify required ca-file {self.certificates.authority}"
        file = self.folder / "haproxy.cfg"
        file.write_text(
            f"global\n  nbthread {threads}\n  maxconn 9900\n"
            "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
            f"frontend vehicles\n  bind 127.0.0.1:{front}{tls}\n  maxconn 9900\n  default_backend edges\n"
            "backend edges\n  stick-table type string len 64 size 200k\n"
            "  stick on req.payload(0,0),mqtt_field_value(connect,client_identifier)\n"
            "  tcp-request inspect-delay 10s\n"
            "  tcp-request content reject unless { req.payload(0,0),mqtt_is_valid }\n"
            f"  server edge-1 127.0.0.1:{edge}\n"
        )
        return str(file)


@final
class Ours:
    """The mesh as ``mesh up`` starts it, with its journals and its own Ray."""

    def __init__(
        self, doors: int = 1, edges: int = 1, telemetry: str = "", package: Path | None = None, tls: str = PLAIN
    ) -> None:
        """``telemetry``: the value of this key of the topology; ``package``: the folder of the ``mesh`` package to run
        (default: the installed one); ``tls``: see ``secured``."""
        self._tls = tls
        self.vehicles: Address = ("127.0.0.1", 0)
        self.backends: Address = ("127.0.0.1", 0)
        self.watched: dict[str, int] = {}
        self._doors = doors
        self._edges = edges
        self._telemetry = telemetry
        self._package = package
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.file = Path(self._folder.name) / "mesh.yaml"
        self.certificates = Certificates(Path(self._folder.name)) if tls else None

    def start(self, cpus: set[int]) -> None:
        front, core = free_ports(2)
        self.vehicles, self.backends = ("127.0.0.1", front), ("127.0.0.1", core)
        self.file.write_text(self._topology(front, core))
        with pinned(cpus):
            self._mesh("up", str(self.file), "--detach")
        self.watched = {node["name"]: node["pid"] for node in self.nodes() if node["role"] != "etcd"}
        if self._package is not None:
            self._see_that_it_runs(self._package)

    def _see_that_it_runs(self, package: Path) -> None:
        """Raise ``RuntimeError`` if a node has not loaded compiled code from this folder."""
        for name, pid in self.watched.items():
            if not any(Path(mapped.path).is_relative_to(package) for mapped in psutil.Process(pid).memory_maps()):
                raise RuntimeError(f"{name} does not run the compiled code of {package}")

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of ``mesh status``."""
        nodes: list[dict[str, Any]] = json.loads(self._mesh("status", "--topology", str(self.file), "--json"))["nodes"]
        return nodes

    def _topology(self, front: int, core: int) -> str:
        edges = ", ".join(f"{{name: edge-{number}}}" for number in range(1, self._edges + 1))
        return (
            'mesh: bench\netcd: embedded\ntopics: {vehicle: "vehicles/{vehicle}/#", fleet: ["fleet/#"]}\n'
            f"front_doors: [{{name: door, replicas: {self._doors}, listen: [{self._listener(front)}]}}]\n"
            f'cores: [{{name: core, listen: [{{mqtt: "127.0.0.1:{core}"}}]}}]\n'
            f"backends: {{anonymous: true}}\npools: [{{name: standard, edges: [{edges}]}}]\n"
            # The peers' queues have no limits.
            "limits: {queue_messages: 1000000, queue_bytes: 8GiB, in_flight: 1000, receive_maximum: 1000}\n"
            f"data: data\n{self._telemetry}"
        )

    def _listener(self, port: int) -> str:
        files = self.certificates
        if files is None:
            return f'{{mqtt: "127.0.0.1:{port}"}}'
        asked = f", client: required, ca: {files.authority}" if self._tls == MUTUAL else ""
        kind = "wss" if self._tls == WEBSOCKET else "mqtts"
        return f'{{{kind}: "127.0.0.1:{port}", tls: {{cert: {files.cert}, key: {files.key}{asked}}}}}'

    def _mesh(self, *words: str) -> str:
        command = [sys.executable, "-P", "-m", "mesh.cli.main", *words]
        environment = {**os.environ, **({} if self._package is None else {"PYTHONPATH": str(self._package)})}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=READY, env=environment
        )
        if done.returncode:
            raise RuntimeError(f"mesh {words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        self._mesh("down", "--topology", str(self.file))
        self._folder.cleanup()
