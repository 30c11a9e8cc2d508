"""The etcd client that a topology describes.

It knows which parts of the topology configure a client: never what the client requests.
"""

from __future__ import annotations

from mesh.registry.client import EtcdClient, EtcdTls
from mesh.topology.topology import Topology


def client_of(topology: Topology, endpoints: tuple[str, ...]) -> EtcdClient:
    """A client for ``endpoints`` (URLs) with the topology's TLS and user. Closed by the caller."""
    auth, tls = topology.etcd.auth, topology.etcd.tls
    return EtcdClient(
        endpoints,
        tls=None if tls is None else EtcdTls(tls.ca, tls.cert, tls.key),
        user=None if auth is None else auth.user,
        password=None if auth is None else auth.password,
    )
