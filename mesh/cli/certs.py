"""``mesh certs``: makes certificates for a mesh, renews and revokes them, and shows what expires.

It knows the words of the command and which names a mesh's nodes have. What always holds: no key is ever shown; each
change is noted in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from mesh.cli.audit import lines
from mesh.cli.failed import Failed
from mesh.cli.guarded import note_files
from mesh.cli.which import topology_in
from mesh.pki import acts
from mesh.pki.folder import (
    CA,
    CA_DAYS,
    CERTIFICATE_DAYS,
    INTERNAL,
    KINDS,
    REASONS,
    SERVER,
    VEHICLE,
    Entry,
    Folder,
    PkiError,
)
from mesh.pki.names import names_text
from mesh.pki.signing import ECDSA, RSA
from mesh.registry.audit import KEPT, Act, act, from_plain
from mesh.topology.nodes import CONSOLE, nodes
from mesh.topology.topology import Topology
from mesh.topology.units import is_wildcard

EXAMPLES: Final = """\
examples:
  mesh certs init certs                              make an authority in the new folder certs
  mesh certs server door.example.com 192.0.2.7       a certificate of a listener, for all these names
  mesh certs vehicle VIN1 VIN2                       one for each of these vehicles or back ends
  mesh certs list                                    what is in use, and when it expires
  mesh certs renew --within 30                       sign again what expires within 30 days
  mesh certs revoke vehicle/VIN1 --reason key-compromise
  mesh certs audit                                   who made, renewed and revoked what, and when
  mesh certs init inside                             another authority, for the nodes of a mesh alone
  mesh certs internal mesh.yaml --folder inside      one for each node of the topology that has none

All but init use the folder certs, or --folder FOLDER. ca.pem and crl.pem there are for the keys ca and crl of a
listener. ca.key signs: keep the folder on a machine of its own, and copy what each machine needs. This is for trying
out and for small fleets; with a PKI of your own, name its files in the topology instead (docs/certificates.md).
Every change adds a line to audit.jsonl in the folder. If a mesh that runs on this machine uses the list, or a file that
was renewed, 'mesh audit' shows the change, too.

exit codes: 0 done, 1 not done, 2 the command line is wrong, 4 list --within: something expires within that time
"""

EXPIRES: Final = 4
OPERATOR: Final = "operator"  # whose certificate commands and scrapers use

_DAY: Final = timedelta(days=1)


class CertsFailed(Failed):
    """The command was not done; one sentence."""


def options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="make an authority in a new folder")
    init.add_argument("folder", metavar="FOLDER", type=Path)
    init.add_argument("--name", default="vehicle mesh CA", help="the name of the authority; default: %(default)s")
    _key(init)
    _days(init, CA_DAYS)
    server = _action(actions.add_parser("server", help="make a certificate of a listener"))
    server.add_argument("names", metavar="NAME", nargs="+", help="DNS names and IP addresses; files have the first")
    internal = _action(actions.add_parser("internal", help="make the certificates of a topology's nodes"))
    internal.add_argument("file", metavar="FILE", help="the topology file (YAML)")
    internal.add_argument("--also", metavar="NAME", action="append", default=[], help="a further name in all of them")
    vehicle = _action(actions.add_parser("vehicle", help="make certificates of vehicles or back ends"))
    vehicle.add_argument("names", metavar="NAME", nargs="+", help="the common name of each")
    for made in (server, internal, vehicle):
        _key(made)
        _days(made, CERTIFICATE_DAYS)
    renew = _action(actions.add_parser("renew", help="sign again what expires soon, for the same names and keys"))
    renew.add_argument("labels", metavar="KIND/NAME", nargs="*", help="only these, whenever they expire; ca, crl")
    renew.add_argument("--within", metavar="DAYS", type=_count, default=30, help="default: %(default)s")
    _days(renew, 0)
    revoke = _action(actions.add_parser("revoke", help="revoke certificates, and write the list of revoked ones"))
    revoke.add_argument("labels", metavar="KIND/NAME", nargs="+", help="such as vehicle/VIN1 or serial/4f2a")
    revoke.add_argument("--reason", choices=tuple(REASONS), default="unspecified")
    shown = _action(actions.add_parser("list", help="show what is in use, and when it expires"))
    shown.add_argument("--all", action="store_true", help="also what is valid and revoked or replaced")
    shown.add_argument("--within", metavar="DAYS", type=_count, help="exit with 4 if something expires within DAYS")
    audit = _action(actions.add_parser("audit", help="show what was done with this authority: who, when, and what"))
    for parser in (shown, audit):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _action(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--folder", metavar="FOLDER", type=Path, default=Path("certs"), help="default: %(default)s")
    return parser


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", choices=(ECDSA, RSA), default="", help="ECDSA with P-256, or RSA with 3,072 bits; default: as the "
        "authority, which is ECDSA by default",
    )  # fmt: skip


def _days(parser: argparse.ArgumentParser, days: int) -> None:
    says = f"default: {days}" if days else "default: as before"
    parser.add_argument("--days", type=_count, default=days, help=f"days of validity; {says}")


def _count(text: str) -> int:
    number = int(text)
    if not 0 < number <= 36_500:
        raise argparse.ArgumentTypeError("write a number of days from 1 to 36500")
    return number


def run(arguments: argparse.Namespace) -> int:
    action: Callable[[Folder, argparse.Namespace], int] = _ACTIONS[arguments.action]
    try:
        return action(Folder(arguments.folder), arguments)
    except (PkiError, ValueError) as error:
        raise CertsFailed(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CertsFailed(f"{where}{error.strerror or error}") from None


def _init(folder: Folder, arguments: argparse.Namespace) -> int:
    folder.create(arguments.name, arguments.key or ECDSA, arguments.days)
    _note(folder, "init", f"the authority {arguments.name!r}")
    print(f"{folder.path}: the authority {arguments.name!r}; keep {folder.path}/ca.key from others")
    return 0


def _server(folder: Folder, arguments: argparse.Namespace) -> int:
    names: list[str] = arguments.names
    _made("server", folder, folder.issue(SERVER, names[0], names, arguments.key, arguments.days))
    return 0


def _internal(folder: Folder, arguments: argparse.Namespace) -> int:
    topology = topology_in(arguments.file)
    for name in [spec.name for spec in nodes(topology)] + [CONSOLE, OPERATOR]:
        if folder.file(INTERNAL, name).exists():
            print(f"kept {INTERNAL}/{name}: {folder.file(INTERNAL, name)}")
            continue
        names = [name, *_hosts(topology), *arguments.also]
        _made("internal", folder, folder.issue(INTERNAL, name, names, arguments.key, arguments.days))
    return 0


def _hosts(topology: Topology) -> list[str]:
    """The hosts at which the topology's nodes are reached: a client that compares names finds its own."""
    hosts = ["localhost", "127.0.0.1", topology.bind]
    hosts += [one.host for one in (topology.console, topology.telemetry.prometheus) if one is not None]
    return [host for host in dict.fromkeys(hosts) if not is_wildcard(host)]


def _vehicle(folder: Folder, arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        _made("vehicle", folder, folder.issue(VEHICLE, name, (), arguments.key, arguments.days))
    return 0


def _renew(folder: Folder, arguments: argparse.Namespace) -> int:
    renewed = folder.renew(arguments.within * _DAY, arguments.labels, arguments.days)
    for entry in renewed:
        _note(folder, "renew", _told(entry))
        _say("renewed", entry)
    note_files([entry.file for entry in renewed], "mesh certs renew", ", ".join(entry.label for entry in renewed))
    if any(entry.kind == CA for entry in renewed):
        print(f"copy {folder.path}/ca.pem to wherever it is used; what it signed before stays valid")
    if not renewed:
        print(f"nothing in {folder.path} expires within {arguments.within} days")
    return 0


def _revoke(folder: Folder, arguments: argparse.Namespace) -> int:
    revoked: list[str] = []
    try:
        for label in arguments.labels:
            said = ", ".join(f"{one:x}" for one in folder.revoke(label, arguments.reason))
            if said:
                revoked.append(f"{label} ({arguments.reason}): {said}")
                _note(folder, "revoke", revoked[-1])
            print(f"revoked {label}: {said or 'it was already revoked, or has expired'}")
    finally:
        if revoked:
            note_files([folder.crl], "mesh certs revoke", "; ".join(revoked))
    print(f"copy {folder.path}/crl.pem to wherever it is used")
    return 0


def _made(action: str, folder: Folder, entry: Entry) -> None:
    _note(folder, action, _told(entry))
    _say("made", entry)


def _note(folder: Folder, action: str, what: str) -> None:
    """Note what was done in the folder. Raises ``OSError``."""
    acts.note(folder.path, asdict(act(f"mesh certs {action}", what)))


def _told(entry: Entry) -> str:
    made = entry.certificate
    serial = "" if made is None else f", serial {made.serial_number:x}"
    return f"{entry.label}{serial}, until {entry.end:%Y-%m-%d}"


def _say(done: str, entry: Entry) -> None:
    print(f"{done} {entry.label}: {entry.file}, until {entry.end:%Y-%m-%d}")


def _audit(folder: Folder, arguments: argparse.Namespace) -> int:
    folder.authority()  # else the folder is wrong, and not empty
    found = list(_acts(acts.newest(folder.path, KEPT)))
    print(json.dumps([asdict(one) for one in found], indent=2) if arguments.json else lines(found))
    return 0


def _acts(values: Sequence[dict[str, Any]]) -> Iterator[Act]:
    """The acts in these values; what is none is left out."""
    for value in values:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            yield from_plain(value)


# What expires


def _list(folder: Folder, arguments: argparse.Namespace) -> int:
    used = folder.in_use()
    rows = [_row(folder, entry, "in use") for entry in used]
    if arguments.all:
        rows += [_row(folder, entry, "revoked" if revoked else "replaced") for entry, revoked in folder.retired()]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        _show(rows)
    within = arguments.within
    soon = [entry.label for entry in used if within is not None and entry.end <= folder.now + within * _DAY]
    if soon:
        labels = ", ".join(soon)
        print(f"within {within} days: {labels}; run mesh certs renew --within {within}", file=sys.stderr)
    return EXPIRES if soon else 0


def _row(folder: Folder, entry: Entry, state: str) -> dict[str, str | int | list[str]]:
    made = entry.certificate
    return {
        "label": entry.label,
        "kind": entry.kind,
        "name": entry.name,
        "file": str(entry.file),
        "state": state,
        "expired": entry.end <= folder.now,
        "expires": entry.end.isoformat(),
        "days": round((entry.end - folder.now) / _DAY),
        "serial": "" if made is None else f"{made.serial_number:x}",
        "names": [] if made is None else list(names_text(made)),
    }


def _show(rows: list[dict[str, str | int | list[str]]]) -> None:
    width = max(len(str(row["label"])) for row in rows)
    for row in rows:
        days = row["days"]
        assert isinstance(days, int)
        when = f"expired {-days} days ago" if row["expired"] else f"{days} days"
        names = f"  {', '.join(map(str, row['names']))}" if isinstance(row["names"], list) and row["names"] else ""
        serial = f"  {row['serial']}" if row["serial"] and row["kind"] in KINDS else ""
        day = str(row["expires"])[:10]
        print(f"{row['label']:<{width}}  {day}  {when:<22}  {row['state']:<8}{serial}{names}".rstrip())


_ACTIONS: Final[dict[str, Callable[[Folder, argparse.Namespace], int]]] = {
    "init": _init,
    "server": _server,
    "internal": _internal,
    "vehicle": _vehicle,
    "renew": _renew,
    "revoke": _revoke,
    "list": _list,
    "audit": _audit,
}
