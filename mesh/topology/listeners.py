"""Reads ``listen`` of a front door or core: the listeners, the files of their certificates, and what they ask of a
WebSocket's request and of load balancers.

It knows keys and files. A mistake is noted, and a value is returned. What always holds: the files of a listener whose
reading noted no mistake can be used as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Final, TypeVar

from mesh.topology import units
from mesh.topology.fields import Table, scalar, table
from mesh.topology.topology import ListenerSpec, TlsSpec
from mesh.topology.tree import Mapping
from mesh.transport.listen import ANY_ORIGIN, NONE, OPTIONAL, REQUIRED, HeaderRule, KeyPair, header_pattern

KINDS: Final = ("mqtt", "mqtts", "ws", "wss")
PATH: Final = "/mqtt"
_SECURE: Final = ("mqtts", "wss")
_WEB: Final = ("ws", "wss")
_OF_WEB: Final = ("path", "origins", "headers")
_KEYS: Final = (*KINDS, "tls", "proxy", *_OF_WEB, "identify")
_TLS: Final = ("cert", "key", "more", "client", "ca", "crl", "min", "ciphers", "resumption")
_RIGHT: Final = 'write at least one listener: listen: [{mqtt: "127.0.0.1:1883"}]'
_NETWORKS: Final = "write the networks of the load balancers, such as proxy: [10.0.0.0/8]"
_ORIGINS: Final = 'write at least one, such as origins: ["https://fleet.example.com"], or remove the key'
_HEADER: Final = 'write the value, or a pattern for the whole of it: {pattern: "prod-[a-z]{1,20}"}'
_PATH: Final = re.compile(r"/[!\"$->@-~]*")  # without ? and #
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOWHERE: Final = Path()

T = TypeVar("T")


def read_listeners(section: Table, path: Callable[[str], Path]) -> tuple[ListenerSpec, ...]:
    """``path`` reads the path of a file."""
    found: list[ListenerSpec] = []
    for listener in section.tables("listen", _KEYS, _RIGHT):
        kind = _kind(listener)
        if not kind:
            continue
        address = listener.value(kind, units.address, None, _RIGHT)
        tls = None
        if kind in _SECURE:
            tls = _tls(listener, path, kind)
        elif listener.has("tls"):
            listener.wrong("tls", f"{_a(kind)} listener has no tls; remove it, or write {kind}s")
        if kind not in _WEB:
            for key in _OF_WEB:
                if listener.has(key):
                    listener.wrong(key, f"{_a(kind)} listener has no {key}; remove it, or write ws or wss")
        web = kind in _WEB
        proxy = listener.values("proxy", _network, _NETWORKS if listener.has("proxy") else "")
        origins = listener.values("origins", _origin, _ORIGINS if listener.has("origins") else "")
        if address is not None:
            found.append(
                ListenerSpec(
                    kind=kind,
                    address=address,
                    path=listener.value("path", _path, PATH) if web else "",
                    tls=tls,
                    proxy=proxy,
                    origins=origins,
                    headers=_headers(listener) if web else (),
                    identify=listener.values("identify", units.plain),
                )
            )
    return tuple(found)


def _a(kind: str) -> str:
    return f"an {kind}" if kind.startswith("m") else f"a {kind}"


def _kind(listener: Table) -> str:
    """The key that is the listener's kind; empty if it has none, or several, which is noted."""
    kinds = [kind for kind in KINDS if listener.has(kind)]
    if len(kinds) > 1:
        listener.wrong(kinds[1], f"the listener has two kinds, {kinds[0]} and {kinds[1]}; write two listeners")
        return ""
    if not kinds:
        listener.wrong("mqtt", f"missing key; {_RIGHT}")
    return kinds[0] if kinds else ""


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text!r} is no path of a URL; begin it with /, and leave out ? and #, such as {PATH}")
    return text


def _origin(text: str) -> str:
    if ANY_ORIGIN in text and text != ANY_ORIGIN:
        raise ValueError(f'{text!r} is no origin: "{ANY_ORIGIN}" stands for all origins, not for a part of one')
    if text == ANY_ORIGIN or text.lower() == "null" or _ORIGIN.fullmatch(text):
        return text.lower()
    raise ValueError(
        f"{text!r} is no origin; write it as browsers send it, scheme and host without a path, such as "
        f'"https://fleet.example.com", or "{ANY_ORIGIN}" for all'
    )


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; {_NETWORKS}") from None


def _headers(listener: Table) -> tuple[HeaderRule, ...]:
    """Each header has an exact value, or a mapping with a pattern."""
    found: dict[str, HeaderRule] = {}
    for key, node, at in listener.entries("headers"):
        name = key.lower()
        if not _TOKEN.fullmatch(key):
            listener.notes.add(node, at, f"{key!r} is no name of an HTTP header; write letters, digits and hyphens")
        elif name in found:
            listener.notes.add(node, at, f"the header {name} stands there twice; names are the same in any case")
        elif isinstance(node, Mapping):
            inner = table(listener.notes, node, at, ("pattern",))
            pattern = None if inner is None else inner.value("pattern", _pattern, "", _HEADER)
            if pattern:
                found[name] = HeaderRule(name, pattern, pattern=True)
        else:
            value = scalar(listener.notes, node, at, _header_value, "")
            if value:
                found[name] = HeaderRule(name, value)
    return tuple(found.values())


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("the value of a header has printable ASCII characters only, and no blanks around it")
    return text


def _pattern(text: str) -> str:
    header_pattern(text)
    return text


def _tls(listener: Table, path: Callable[[str], Path], kind: str) -> TlsSpec | None:
    if not listener.has("tls"):
        listener.wrong("tls", f"missing key; {_a(kind)} listener needs tls: {{cert: server.pem, key: server.key}}")
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
            load(spec.files(), "http/1.1" if kind in _WEB else "mqtt")
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
