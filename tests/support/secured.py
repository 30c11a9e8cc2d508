"""Listeners with TLS of a door and a core in a mesh of real nodes: their files, and clients that use them."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.topology.topology import ListenerSpec, TlsSpec, Topology
from mesh.topology.units import Address
from mesh.wire.packets import MQTT5, PINGREQ, Connect, Ping
from tests.support.bare import Bare
from tests.support.certificates import Authority, Issued, put
from tests.support.nodes import Change, Nodes
from tests.support.ports import free_ports


class Secured:
    """Files, and the topology's keys that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.spec = TlsSpec(**self.pair("server"))
        self.ca = put(folder / "ca.pem", self.authority.pem())
        self.crl = put(folder / "crl.pem", self.authority.revoke())
        self.door, self.core = free_ports(2)

    def pair(self, name: str, **more: Any) -> dict[str, Any]:
        cert, key = self.authority.issue(name, dns=["localhost"], server=True, **more).write(self.folder, name)
        return {"cert": cert, "key": key}

    def listens(self, **changes: Any) -> Change:
        """TLS listeners beside the others, with these keys changed."""
        spec = replace(self.spec, **changes)

        def change(topology: Topology) -> Topology:
            door, core = topology.front_doors[0], topology.cores[0]
            return replace(
                topology,
                front_doors=(replace(door, listen=(door.listen[0], self._listener(self.door, spec))),),
                cores=(replace(core, listen=(core.listen[0], self._listener(self.core, spec))),),
            )

        return change

    def _listener(self, port: int, spec: TlsSpec) -> ListenerSpec:
        return ListenerSpec(kind="mqtts", address=Address("127.0.0.1", port), tls=spec)

    def context(self, issued: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem().decode())
        context.check_hostname = False
        if issued is not None:
            context.load_cert_chain(*issued.write(self.folder, "client"))
        return context

    async def client(
        self, mesh: Nodes, port: int, name: str, context: ssl.SSLContext, protocol: int = MQTT5, **fields: Any
    ) -> Bare:
        client = Bare(protocol)
        client.tls = context
        mesh.clients.append(client)
        return await client.hello(port, name, **fields)

    async def accepts(self, context: ssl.SSLContext, port: int = 0) -> str:
        """The version of TLS and the common name of the server; empty if it refuses the client."""
        client = Bare(MQTT5)
        client.tls = context
        try:
            await client.connect(port or self.door)
        except (ssl.SSLError, ConnectionError):
            return ""
        session = client.session()
        client.send(Connect(MQTT5, "V9", username="V9"))
        await client.until(lambda: client.packets or client.closed.is_set(), "an answer or the end")
        accepted = bool(client.packets)
        await client.close()
        if not accepted:
            return ""
        name = dict(part[0] for part in (session.getpeercert() or {}).get("subject", ()))  # type: ignore[misc]
        return f"{session.version()} {name.get('commonName', '')}"


async def alive(*clients: Bare) -> None:
    for client in clients:
        before = len([packet for packet in client.packets if isinstance(packet, Ping)])
        client.send(Ping(PINGREQ))
        await client.wait_all(Ping, before + 1)
