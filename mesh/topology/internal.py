"""Reads the section ``internal``: the certificates with which the nodes of a mesh meet each other.

It knows keys and files. A mistake is noted, and a value is returned. What always holds: the files of all nodes that are
on this machine can be used as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.topology.fields import Table
from mesh.topology.nodes import CONSOLE, nodes
from mesh.topology.topology import LOCAL, NODE, InternalTlsSpec, Topology

_NOWHERE: Final = Path()


def read_internal(top: Table, path: Callable[[str], Path]) -> InternalTlsSpec | None:
    section = top.table("internal", ("tls",))
    inner = None if section is None else section.table("tls", ("ca", "cert", "key"))
    if inner is None:
        return None
    return InternalTlsSpec(
        ca=inner.value("ca", path, _NOWHERE, "write the file of the authority: ca: certs/ca.pem"),
        cert=inner.value("cert", path, _NOWHERE, "write the file, such as cert: certs/internal/{node}.pem"),
        key=inner.value("key", path, _NOWHERE, "write the file, such as key: certs/internal/{node}.key"),
    )


def check_internal(top: Table, topology: Topology) -> None:
    """Note what is wrong with the files, as far as they are on this machine: those of other machines' nodes are not."""
    internal = topology.internal
    if internal is None or _NOWHERE in (internal.ca, internal.cert, internal.key):
        return
    # Here, not above: it takes 10 MB, and most topologies have no TLS.
    from mesh.transport.tlsdialling import dialling_context

    names = [spec.name for spec in nodes(topology)] + ([] if topology.console is None else [CONSOLE])
    if topology.ray != LOCAL:
        names = names[:1] if NODE not in f"{internal.ca}{internal.cert}{internal.key}" else []
    for files in dict.fromkeys(internal.files(name) for name in names):
        try:
            dialling_context(files)
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            top.wrong("internal", f"tls: {where}{error.strerror or error}")
            return
