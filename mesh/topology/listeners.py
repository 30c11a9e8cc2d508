"""Reads ``listen`` of a front door or core: the listeners, and the files of their certificates.

It knows keys and files. A mistake is noted, and a value is returned. What always holds: the files of a listener whose
reading noted no mistake can be used as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from mesh.topology import units
from mesh.topology.fields import Table
from mesh.topology.mistakes import LATER
from mesh.topology.topology import ListenerSpec, TlsSpec
from mesh.transport.listen import NONE, OPTIONAL, REQUIRED, KeyPair

KINDS: Final = ("mqtt", "mqtts")
_LATER: Final = ("ws", "wss")
_TLS: Final = ("cert", "key", "more", "client", "ca", "crl", "min", "ciphers", "resumption")
_RIGHT: Final = 'write at least one listener: listen: [{mqtt: "127.0.0.1:1883"}]'
_NOWHERE: Final = Path()

T = TypeVar("T")


def read_listeners(section: Table, path: Callable[[str], Path]) -> tuple[ListenerSpec, ...]:
    """``path`` reads the path of a file."""
    found: list[ListenerSpec] = []
    for listener in section.tables("listen", (*KINDS, *_LATER, "tls", "path", "identify"), _RIGHT):
        kind = _kind(listener)
        if not kind:
            continue
        address = listener.value(kind, units.address, None, _RIGHT)
        if listener.has("path"):
            listener.wrong("path", f"an {kind} listener has no path; remove it")
        tls = None
        if kind == "mqtts":
            tls = _tls(listener, path)
        elif listener.has("tls"):
            listener.wrong("tls", f"an {kind} listener has no tls; remove it, or write mqtts")
        if address is not None:
            asked = listener.values("identify", units.plain)
            found.append(ListenerSpec(kind=kind, address=address, tls=tls, identify=asked))
    return tuple(found)


def _kind(listener: Table) -> str:
    """The key that is the listener's kind; empty if it has none, or several, which is noted."""
    kinds = [kind for kind in (*KINDS, *_LATER) if listener.has(kind)]
    for kind in kinds:
        if kind in _LATER:
            listener.wrong(kind, f"the listener kind {kind} {LATER}; use mqtts")
            return ""
    if len(kinds) > 1:
        listener.wrong(kinds[1], f"the listener has two kinds, {kinds[0]} and {kinds[1]}; write two listeners")
        return ""
    if not kinds:
        listener.wrong("mqtt", f"missing key; {_RIGHT}")
    return kinds[0] if kinds else ""


def _tls(listener: Table, path: Callable[[str], Path]) -> TlsSpec | None:
    if not listener.has("tls"):
        listener.wrong("tls", "missing key; an mqtts listener needs tls: {cert: server.pem, key: server.key}")
        return None
    inner = listener.table("tls", _TLS)
    if inner is None:
        return None
    # Here, not above: it takes 10 MB, and most topologies have no TLS.
    from mesh.transport.tlscontext import check_ciphers, load

    before = len(listener.notes.mistakes)
    pair = _pair(inner, path)
    more = tuple(_pair(one, path) for one in inner.tables("more", ("cert", "key")))
    client = inner.value("client", units.choice(NONE, OPTIONAL, REQUIRED), NONE)
    ca, crl = _authorities(inner, path, client)

    def ciphers(text: str) -> str:
        check_ciphers(text)
        return text

    spec = TlsSpec(
        cert=pair.cert,
        key=pair.key,
        more=more,
        client=client,
        ca=ca,
        crl=crl,
        min=inner.value("min", units.choice("1.2", "1.3"), "1.2"),
        ciphers=inner.value("ciphers", ciphers, ""),
        resumption=inner.value("resumption", units.boolean, True),
    )
    if not spec.resumption and spec.min == "1.2":
        inner.wrong("resumption", 'OpenSSL resumes sessions of TLS 1.2 in any case; write min: "1.3", too, or true')
    if len(listener.notes.mistakes) == before:
        try:
            load(spec.files(), "mqtt")
        except OSError as error:
            listener.wrong("tls", error.strerror or str(error))
    return spec


def _pair(section: Table, path: Callable[[str], Path]) -> KeyPair:
    from mesh.transport.certificates import read_chain, read_key

    cert = section.value("cert", path, _NOWHERE, "write the file of the server's certificate: cert: server.pem")
    key = section.value("key", path, _NOWHERE, "write the file of its key: key: server.key")
    chain = None if cert == _NOWHERE else _usable(section, "cert", lambda: read_chain(cert))
    if chain is not None and key != _NOWHERE:
        _usable(section, "key", lambda: read_key(key, chain))
    return KeyPair(cert, key)


def _authorities(section: Table, path: Callable[[str], Path], client: str) -> tuple[Path | None, Path | None]:
    from mesh.transport.certificates import read_authorities, read_lists
    from mesh.transport.trust import Trust

    ca, crl = section.value("ca", path, None), section.value("crl", path, None)
    if client == NONE:
        for key in ("ca", "crl"):
            if section.has(key):
                section.wrong(key, f"{key} needs clients' certificates; write client: required, or remove {key}")
        return ca, crl
    if not section.has("ca"):
        section.wrong("ca", "missing key; write the file of the certificates that sign those of clients: ca: ca.pem")
    known = None if ca is None else _usable(section, "ca", lambda: read_authorities(ca))
    lists = None if crl is None else _usable(section, "crl", lambda: read_lists(crl))
    if known is not None and lists is not None:
        try:
            Trust(known, lists)
        except ValueError as error:
            section.wrong("crl", f"{crl}: {error}")
    return ca, crl


def _usable(section: Table, key: str, read: Callable[[], T]) -> T | None:
    """What ``read`` returns; ``None`` if it raises, which is noted at ``key``."""
    try:
        return read()
    except OSError as error:
        section.wrong(key, error.strerror or str(error))
    return None
