"""Reads the section ``identity``, and lists of providers of identities. A mistake is noted, and a value is returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mesh.policy.anonymous import ANONYMOUS
from mesh.policy.certificate import FIELDS, NameTemplate
from mesh.policy.identity import SOURCES, USERNAME, ClientIds
from mesh.policy.passwordfile import read_passwords
from mesh.policy.pattern import Pattern
from mesh.policy.scram import read_verifiers
from mesh.policy.template import PLACE
from mesh.policy.users import USERS
from mesh.topology import units
from mesh.topology.access import role
from mesh.topology.fields import Table, table
from mesh.topology.provider import IdentityRule, ProviderSpec
from mesh.topology.topology import FrontDoorSpec
from mesh.topology.tree import Scalar

_TLS_COMMON_NAME: Final = "tls_common_name"
_KINDS: Final = ("certificate", "password", "scram", "jwt", "http")
_KEYS: Final = ("name", *_KINDS, "template", "roles")
_EXAMPLE: Final = "providers: [{name: cert, certificate: common_name}]"

Paths = Callable[[str], Path]
"""Reads a path of the file."""


def read_identity(top: Table, path: Paths, doors: tuple[FrontDoorSpec, ...]) -> IdentityRule:
    """Without providers: if the front doors listen on loopback only they take every client's word, else the file must
    say so."""
    usual = IdentityRule(source=USERNAME, pattern="[A-Za-z0-9_-]{1,64}")
    section = top.table("identity", ("from", "pattern", "default", "client_ids", "set_username", "providers", "scram"))
    if section is None:
        _check_open(top, usual, doors)
        return usual
    source = section.value("from", units.choice(*SOURCES, _TLS_COMMON_NAME), usual.source)
    pattern = section.value("pattern", lambda text: Pattern(text).text, usual.pattern)

    def fitting(text: str) -> str:
        if not Pattern(pattern).matches(text):
            raise ValueError(f"{text!r} does not match the pattern {pattern}; write an identity that does")
        return text

    rule = IdentityRule(
        source=USERNAME if source == _TLS_COMMON_NAME else source,
        pattern=pattern,
        default=section.value("default", fitting, ""),
        client_ids=section.values("client_ids", lambda text: ClientIds((text,)).forms[0]),
        set_username=section.value("set_username", units.boolean, False),
        providers=_of_section(section, path, source) or usual.providers,
    )
    if rule.default and not any(spec.anonymous for spec in rule.providers):
        what = "every vehicle proves its identity, so there is no default; remove one, or add anonymous to providers"
        section.wrong("default", what)
    if not any(section.has(key) for key in ("providers", "scram")) and source != _TLS_COMMON_NAME:
        _check_open(top, rule, doors)
    return rule


def _of_section(section: Table, path: Paths, source: str) -> tuple[ProviderSpec, ...]:
    """The providers, in the full form or in one of the short forms; none if the section names none."""
    given = [key for key in ("providers", "scram") if section.has(key)]
    if source == _TLS_COMMON_NAME:
        given.append("from")
    if len(given) > 1:
        section.wrong(given[1], f"{given[0]} says already who is admitted; write all of it in providers")
    if section.has("providers"):
        return read_providers(section, path, PLACE)
    if section.has("scram"):
        file = section.value("scram", _usable(path, read_verifiers), None)
        return () if file is None else (ProviderSpec(name="scram", scram=file),)
    if source == _TLS_COMMON_NAME:
        return (ProviderSpec(name="certificate", certificate="common_name"),)
    return ()


def _check_open(top: Table, rule: IdentityRule, doors: tuple[FrontDoorSpec, ...]) -> None:
    beyond = [str(one.address) for door in doors for one in door.listen if not one.local]
    if beyond:
        top.wrong(
            "identity",
            f"a front door listens beyond this machine ({', '.join(beyond)}), and every client that reaches it could "
            f"name any vehicle; write how vehicles prove who they are, such as identity: {{from: {rule.source}, "
            f"{_EXAMPLE}}}, or identity: {{from: {rule.source}, providers: [{ANONYMOUS}]}} to take every client's word",
        )


def read_providers(section: Table, path: Paths, place: str) -> tuple[ProviderSpec, ...]:
    """The providers of a section. ``place`` stands for the identity in templates."""
    found: list[ProviderSpec] = []
    for node, at in section.items("providers", f"write at least one, such as {_EXAMPLE}"):
        if isinstance(node, Scalar) and node.text == ANONYMOUS:
            spec: ProviderSpec | None = ProviderSpec(name=ANONYMOUS)
        else:
            fields = table(section.notes, node, at, _KEYS)
            spec = None if fields is None else _provider(fields, path, place)
        if spec is None:
            continue
        if spec.name in [other.name for other in found]:
            section.notes.add(node, at, f"the name {spec.name!r} is taken by another provider; choose another")
        if found and found[-1].anonymous:
            what = f"no client gets here: {ANONYMOUS} takes every client's word; write {ANONYMOUS} at the end"
            section.notes.add(node, at, what)
        found.append(spec)
    return tuple(found)


def _provider(fields: Table, path: Paths, place: str) -> ProviderSpec | None:
    name = fields.value("name", units.name, "", "every provider needs a name, which its claims and listeners refer to")
    if name in (ANONYMOUS, USERS):
        fields.wrong("name", f"the name {name!r} is taken; choose another")
    kinds = [kind for kind in _KINDS if fields.has(kind)]
    if len(kinds) != 1:
        fields.wrong(kinds[1] if kinds else "name", f"a provider has one of the keys {', '.join(_KINDS)}")
        return None
    if fields.has("template") and kinds[0] != "certificate":
        fields.wrong("template", "only a provider of certificates has a template; remove it")
    remote: dict[str, Any] = {}
    if kinds[0] in ("jwt", "http"):
        # Here, not above: its libraries take half a second, and most topologies name no such provider.
        from mesh.topology.remotekeys import read_http, read_jwt

        remote = {"jwt": read_jwt(fields, path), "http": read_http(fields, path)}
    return ProviderSpec(
        name=name,
        certificate=fields.value("certificate", units.choice(*FIELDS), ""),
        template=fields.value("template", lambda text: NameTemplate(text, place).text, place),
        passwords=fields.value("password", _usable(path, read_passwords), None),
        scram=fields.value("scram", _usable(path, read_verifiers), None),
        roles=fields.values("roles", role),
        **remote,
    )


def _usable(path: Paths, check: Callable[[Path], object]) -> Callable[[str], Path]:
    """A reader of the name of a file that ``check`` can read."""

    def read(text: str) -> Path:
        file = path(text)
        try:
            check(file)
        except OSError as error:
            raise ValueError(f"the file {file} cannot be read: {error.strerror}") from None
        return file

    return read
