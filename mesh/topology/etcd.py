"""Reads the section ``etcd``: endpoints, certificates, user and password. A mistake is noted, and a value returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mesh.private import read_given
from mesh.topology import units
from mesh.topology.fields import Table, kind
from mesh.topology.secret import read_secret
from mesh.topology.topology import EMBEDDED, EtcdAuthSpec, EtcdSpec, EtcdTlsSpec
from mesh.topology.tree import Scalar, Sequence


def read_etcd(top: Table, path: Callable[[str], Path]) -> EtcdSpec:
    right = (
        "write embedded, a list such as [https://etcd-1:2379], "
        "or {endpoints: [...], tls: {ca: ...}, auth: {user: ..., password: ...}}"
    )
    endpoint = units.url("http", "https")
    node = top.node_of("etcd")
    if not top.has("etcd"):
        return EtcdSpec()
    if isinstance(node, Scalar):
        if node.text != EMBEDDED:
            top.wrong("etcd", f"found {kind(node)}; {right}")
        return EtcdSpec()
    if isinstance(node, Sequence):
        endpoints = top.values("etcd", endpoint, right)
        _one_scheme(top, "etcd", endpoints)
        return EtcdSpec(endpoints=endpoints)
    section = top.table("etcd", ("endpoints", "tls", "auth"))
    if section is None:
        return EtcdSpec()
    endpoints = section.values("endpoints", endpoint, right)
    _one_scheme(section, "endpoints", endpoints)
    tls = _tls(section, path)
    if tls is not None and any(one.startswith("http:") for one in endpoints):
        section.wrong("tls", "tls needs https:// endpoints, and one endpoint is http://; write https:// or remove tls")
    return EtcdSpec(endpoints=endpoints, tls=tls, auth=_auth(section, path))


def _one_scheme(section: Table, key: str, endpoints: tuple[str, ...]) -> None:
    if len({endpoint.partition(":")[0] for endpoint in endpoints}) > 1:
        section.wrong(key, "the endpoints mix http:// and https://; write all http:// or all https://")


def _tls(section: Table, path: Callable[[str], Path]) -> EtcdTlsSpec | None:
    inner = section.table("tls", ("ca", "cert", "key"))
    if inner is None:
        return None

    def file(text: str, secret: bool = False) -> Path:
        found = path(text)
        if not found.is_file():
            raise ValueError(f"{found} is not a file; write the path of a PEM file")
        try:
            read_given(found, secret)
        except OSError as error:
            raise ValueError(f"the file cannot be used: {error.strerror}") from None
        return found

    tls = EtcdTlsSpec(
        ca=inner.value("ca", file, None),
        cert=inner.value("cert", file, None),
        key=inner.value("key", lambda text: file(text, secret=True), None),
    )
    if inner.has("cert") != inner.has("key"):
        section.wrong("tls", "cert and key belong together; write both or neither")
    return tls


def _auth(section: Table, path: Callable[[str], Path]) -> EtcdAuthSpec | None:
    inner = section.table("auth", ("user", "password"))
    if inner is None:
        return None
    return EtcdAuthSpec(
        user=inner.value("user", units.plain, "", "write the user's name"),
        password=read_secret(inner, "password", path, "write the user's password, {file: PATH} or {env: NAME}"),
    )
