"""Reads the keys of providers that look at tokens, or ask another server. A mistake is noted, and a value returned."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.policy.http import DENY, ON_FAILURE, header_value
from mesh.policy.jwks import REFRESH, read_file
from mesh.policy.keyset import check_algorithms
from mesh.policy.token import MAX_LEEWAY
from mesh.policy.web import check_url, trusting
from mesh.topology import units
from mesh.topology.fields import Table
from mesh.topology.ranges import within
from mesh.topology.remote import HeaderSpec, HttpSpec, JwtSpec
from mesh.topology.secret import read_secret
from mesh.topology.tree import Mapping, Scalar

_JWT: Final = ("keys", "ca", "refresh", "issuer", "audience", "algorithms", "leeway", "identity", "roles")
_HTTP: Final = ("url", "ca", "timeout", "parallel", "cache", "on_failure", "headers")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 9110 section 5.6.2
_OWN_HEADERS: Final = frozenset(
    ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding")
)

Paths = Callable[[str], Path]
"""Reads a path of the file."""


def read_jwt(fields: Table, path: Paths) -> JwtSpec | None:
    """The key ``jwt`` of a provider."""
    section = fields.table("jwt", _JWT)
    if section is None:
        return None
    known = len(section.notes.mistakes)
    spec = JwtSpec(
        keys=section.value("keys", _keys(path), "", "write a file or a URL, such as https://issuer.example.com/keys"),
        ca=section.value("ca", _authorities(path), None),
        refresh=section.value("refresh", within(units.duration, 10.0, 86_400.0), REFRESH),
        issuer=_texts(section, "issuer", "write the issuer (iss) whose tokens are valid"),
        audience=_texts(section, "audience"),
        algorithms=_texts(
            section, "algorithms", "write the algorithms that tokens may be signed with, such as [ES256]"
        ),
        leeway=section.value("leeway", within(units.duration, 0.0, MAX_LEEWAY), 30.0),
        identity=section.value("identity", units.plain, "sub"),
        roles=section.value("roles", units.plain, ""),
    )
    if len(section.notes.mistakes) == known:
        _check_keys(section, spec)
    return spec


def _check_keys(section: Table, spec: JwtSpec) -> None:
    """The keys must fit the algorithms, as far as that can be seen here."""
    try:
        check_algorithms(spec.algorithms)
    except ValueError as error:
        section.wrong("algorithms", str(error))
        return
    if "://" in spec.keys:
        try:
            spec.source()
        except ValueError as error:
            section.wrong("keys", str(error))
        return
    for key in ("ca", "refresh"):
        if section.has(key):
            section.wrong(key, "only keys behind a URL need it; remove it")
    try:
        read_file(Path(spec.keys), spec.algorithms)
    except OSError as error:
        section.wrong("keys", f"the file {spec.keys} cannot be read: {error.strerror}")
    except ValueError as error:
        section.wrong("keys", str(error))


def read_http(fields: Table, path: Paths) -> HttpSpec | None:
    """The key ``http`` of a provider."""
    section = fields.table("http", _HTTP)
    if section is None:
        return None
    return HttpSpec(
        url=section.value("url", _url, "", "write the URL to ask, such as https://auth.example.com/mqtt"),
        ca=section.value("ca", _authorities(path), None),
        timeout=section.value("timeout", within(units.duration, 0.1, 8.0), 2.0),
        parallel=section.value("parallel", units.integer(1, 1024), 64),
        cache=section.value("cache", within(units.duration, 0.0, 3600.0), 60.0),
        on_failure=section.value("on_failure", units.choice(*ON_FAILURE), DENY),
        headers=_headers(section, path),
    )


def _headers(section: Table, path: Paths) -> tuple[HeaderSpec, ...]:
    node = section.node_of("headers")
    if not section.has("headers"):
        return ()
    if not isinstance(node, Mapping):
        section.wrong("headers", "expected a mapping; write names with values, such as {X-Token: {file: PATH}}")
        return ()
    names = [name.text or "" for name, _ in node.entries]
    for name in names:
        if _HEADER.fullmatch(name) is None or name.lower() in _OWN_HEADERS:
            section.wrong("headers", f"{name!r} is not a header that can be set here; write one such as X-Token")
    found = section.table("headers", tuple(names))
    if found is None:
        return ()
    headers = {name: read_secret(found, name, path, "") for name in names}
    for name, value in headers.items():
        try:
            header_value(value.text)
        except ValueError as error:
            found.wrong(name, str(error))
    return tuple([HeaderSpec(name, headers[name]) for name in sorted(headers)])


def _texts(section: Table, key: str, needed: str = "") -> tuple[str, ...]:
    """A list of texts, or one text."""
    if section.has(key) and isinstance(section.node_of(key), Scalar):
        found = section.value(key, units.plain, "")
        return (found,) if found else ()
    return section.values(key, units.plain, needed)


def _keys(path: Paths) -> Callable[[str], str]:
    def read(text: str) -> str:
        return _url(text) if "://" in text else str(path(text))

    return read


def _authorities(path: Paths) -> Callable[[str], Path]:
    """A reader of the name of a file of certificates, which must be in order."""

    def read(text: str) -> Path:
        file = path(text)
        try:
            trusting(file)
        except OSError as error:
            raise ValueError(f"the file {file} cannot be read: {error.strerror}") from None
        return file

    return read


def _url(text: str) -> str:
    check_url(text)
    return text
