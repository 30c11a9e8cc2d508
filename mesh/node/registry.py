"""The etcd client that a topology describes.

It knows which parts of the topology configure a client: never what the client requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mesh.registry.client import EtcdClient, EtcdTls
from mesh.registry.embedded import client_tls
from mesh.topology.topology import Topology

_PASSWORD: Final = "etcd.auth.password"


def etcd_folder(data: Path) -> Path:
    """The folder of the embedded etcd."""
    return data / "etcd"


def client_of(topology: Topology, endpoints: tuple[str, ...]) -> EtcdClient:
    """A client for ``endpoints`` (URLs) with the topology's TLS and user, or the certificate of the embedded etcd.
    Closed by the caller.

    The user's password is read at each login, so that the file that has it may change. Raises ``NotPrivate`` if other
    users of the host could have changed a certificate or read a key; ``SecretUnusable``, ``OSError``, ``ValueError``.
    """
    auth, tls = topology.etcd.auth, topology.etcd.tls
    if topology.etcd.embedded:
        return EtcdClient(endpoints, tls=client_tls(etcd_folder(topology.data)))
    own = None if tls is None else EtcdTls(tls.ca, tls.cert, tls.key)
    if auth is None:
        return EtcdClient(endpoints, tls=own)
    secret = auth.password
    secret.read(_PASSWORD)  # a mistake is named now, and not at the first call
    return EtcdClient(endpoints, tls=own, user=auth.user, password=lambda: secret.read(_PASSWORD))
