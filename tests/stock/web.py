"""The listeners for WebSocket of the mesh under test: ``ws`` for clients without an origin, ``wss`` for one origin."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from tests.stock.peer import Files
from tests.stock.way import CORE, DOOR, Way
from tests.support.certificates import Authority, Issued, put
from tests.support.ports import free_ports
from tests.support.processes import Processes

FLEET = "https://fleet.example.com"
WAYS = [(place, scheme) for place in (CORE, DOOR) for scheme in ("ws", "wss")]


@dataclass(frozen=True)
class Web:
    """``ports`` by the place and the kind of the listener; ``page`` is the port of the page whose origin is allowed,
    ``ca`` the file of the authority, ``server`` the listeners' certificate."""

    ports: dict[tuple[str, str], int]
    page: int
    ca: Path
    server: Issued

    @classmethod
    def make(cls, folder: Path) -> Web:
        """Choose the ports, and write the certificates into ``folder``."""
        authority = Authority()
        names = [x509.IPAddress(ip_address("127.0.0.1"))]
        server = authority.issue("server", dns=["localhost"], names=names, server=True)
        server.write(folder, "server")
        *ports, page = free_ports(len(WAYS) + 1)
        return cls(dict(zip(WAYS, ports, strict=True)), page, put(folder / "ca.pem", authority.pem()), server)

    def listeners(self, place: str) -> str:
        """The listeners of a place for the topology file."""
        folder = self.ca.parent
        files = f"tls: {{cert: {folder / 'server.pem'}, key: {folder / 'server.key'}}}"
        origins = f'origins: ["{FLEET}", "http://127.0.0.1:{self.page}"]'
        plain, secure = (self.ports[place, scheme] for scheme in ("ws", "wss"))
        return f', {{ws: "127.0.0.1:{plain}"}}, {{wss: "127.0.0.1:{secure}", {origins}, {files}}}'

    def way(self, place: str, scheme: str, number: int) -> Way:
        """The way in at this listener for the test with this number."""
        port = self.ports[place, scheme]
        tls, origin = (Files(self.ca), FLEET) if scheme == "wss" else (None, "")
        if place == CORE:
            return Way(CORE, port, None, f"stock/{number}", True, tls, origin)
        return Way(DOOR, port, f"V{number}", f"vehicles/V{number}", True, tls, origin)


def turned_away(mesh: Processes, name: str = DOOR) -> float:
    """How many requests this node has refused."""
    figures = mesh.figures(name).items()
    return sum(value for series, value in figures if series.startswith("mesh_listener_turned_away_total"))
