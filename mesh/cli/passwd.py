"""``mesh passwd``: the users in a file of hashes of passwords (see ``identity.providers`` of the topology).

It knows the words of the command. What always holds: no password is taken from the command line, where other users of
the machine could see it; none is shown, except one that was made here, once.
"""

from __future__ import annotations

import argparse
import csv
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.cli.failed import Failed
from mesh.cli.guarded import note_files
from mesh.policy.hashes import CHOSEN, MADE, HashError, from_emqx, make_hash, make_password, verify
from mesh.policy.passwordfile import PasswordFileError, name_error, read_passwords, write_passwords

EXAMPLES: Final = """\
examples:
  mesh passwd add passwords.txt VIN1                 asks for the password; makes the file if there is none
  mesh passwd add passwords.txt VIN1 VIN2 --generate make a password for each, and print it
  pwgen 24 1 | mesh passwd change passwords.txt VIN1 takes it from standard input
  mesh passwd remove passwords.txt VIN1
  mesh passwd list passwords.txt                     names, and the forms of their hashes; --json
  mesh passwd verify passwords.txt VIN1              asks for the password and says whether it is right
  mesh passwd import passwords.txt users.csv --mac sha256 --iterations 4096
                                                     adds the users of a CSV file of EMQX: user_id,password_hash,salt

The file has hashes only: argon2id, and those of other brokers, as they are. A running mesh whose topology names it
(identity: {providers: [{name: file, password: passwords.txt}]}) takes a change within a second; connections of users
that were removed or have another password are closed. 'mesh audit' shows the change if that mesh runs here. Passwords
that are made here (--generate) are random and have a hash that is quick to verify, so that a fleet comes back quickly;
those that people choose have a slow one.

exit codes: 0 done, or the password is right; 1 not done, or it is wrong; 2 the command line is wrong
"""

_CHANGES: Final = ("add", "change", "remove", "import")
_TRIES: Final = 2  # a password is typed twice


class PasswdFailed(Failed):
    """The command was not done; one sentence."""


def options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = _action(actions, "add", "add users that the file does not have", "*")
    change = _action(actions, "change", "give users another password", "*")
    for made in (add, change):
        made.add_argument("--generate", action="store_true", help="make a random password for each, and print it")
    _action(actions, "remove", "remove users", "*")
    _action(actions, "verify", "say whether a password is right", "1")
    listed = _action(actions, "list", "list the users", "")
    listed.add_argument("--json", action="store_true", help="print JSON")
    imported = _action(actions, "import", "add the users of a CSV file of EMQX", "")
    imported.add_argument("csv", metavar="CSV", type=Path, help="with the columns user_id, password_hash and salt")
    imported.add_argument("--mac", default="sha256", help="the hash function of PBKDF2; default: %(default)s")
    imported.add_argument("--iterations", type=int, default=4096, help="those of PBKDF2; default: %(default)s")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], word: str, does: str, names: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(word, help=does)
    parser.add_argument("file", metavar="FILE", type=Path)
    if names:
        parser.add_argument("names", metavar="NAME", nargs="+" if names == "*" else 1)
    return parser


def run(arguments: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "add": _add, "change": _change, "remove": _remove, "verify": _verify, "list": _list, "import": _import,
    }  # fmt: skip
    try:
        code = actions[arguments.action](arguments)
        if arguments.action in _CHANGES:
            names = ", ".join(getattr(arguments, "names", ())) or f"users of {arguments.csv}"
            note_files([arguments.file], f"mesh passwd {arguments.action}", f"{names} in {arguments.file}")
        return code
    except PasswordFileError as error:
        raise PasswdFailed(str(error)) from None
    except OSError as error:
        raise PasswdFailed(f"{error.filename or arguments.file}: {error.strerror}") from None


def _add(arguments: argparse.Namespace) -> int:
    file: Path = arguments.file
    hashes = read_passwords(file) if file.exists() else {}
    for name in arguments.names:
        if error := name_error(name):
            raise PasswdFailed(error)
        if name in hashes:
            raise PasswdFailed(f"{file} has {name} already; to give it another password: mesh passwd change")
    return _set(arguments, hashes)


def _change(arguments: argparse.Namespace) -> int:
    hashes = read_passwords(arguments.file)
    _present(arguments, hashes)
    return _set(arguments, hashes)


def _set(arguments: argparse.Namespace, hashes: dict[str, str]) -> int:
    """New passwords for the names."""
    shown: list[str] = []
    for name in arguments.names:
        if arguments.generate:
            password = make_password()
            shown.append(f"{name}\t{password}")
            hashes[name] = make_hash(password.encode(), MADE)
        else:
            hashes[name] = make_hash(_asked(f"password of {name}: ", _TRIES).encode(), CHOSEN)
    write_passwords(arguments.file, hashes)
    for line in shown:
        print(line)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    hashes = read_passwords(arguments.file)
    _present(arguments, hashes)
    for name in arguments.names:
        hashes.pop(name, None)
    write_passwords(arguments.file, hashes)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    hashes = read_passwords(arguments.file)
    _present(arguments, hashes)
    (name,) = arguments.names
    right = verify(hashes[name], _asked(f"password of {name}: ", 1).encode())
    print(f"the password of {name} is {'right' if right else 'wrong'}")
    return 0 if right else 1


def _list(arguments: argparse.Namespace) -> int:
    forms = {name: hash.split("$")[1] for name, hash in read_passwords(arguments.file).items()}
    if arguments.json:
        print(json.dumps([{"name": name, "form": form} for name, form in forms.items()]))
    else:
        width = max(map(len, forms), default=0)
        for name, form in forms.items():
            print(f"{name:{width}}  {form}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    file: Path = arguments.file
    hashes = read_passwords(file) if file.exists() else {}
    count = len(hashes)
    with arguments.csv.open(newline="", encoding="utf-8") as source:
        for number, row in enumerate(csv.DictReader(source), 2):
            name = (row.get("user_id") or "").strip()
            error = name_error(name) or (f"{file} has {name} already" if name in hashes else "")
            try:
                if error:
                    raise HashError(error)
                hashes[name] = from_emqx(
                    row.get("password_hash") or "", row.get("salt") or "", arguments.mac, arguments.iterations
                )
            except HashError as wrong:
                raise PasswdFailed(f"{arguments.csv}:{number}: {wrong}; nothing was added") from None
    write_passwords(file, hashes)
    print(f"{len(hashes) - count} users were added to {file}")
    return 0


def _present(arguments: argparse.Namespace, hashes: dict[str, str]) -> None:
    for name in arguments.names:
        if name not in hashes:
            raise PasswdFailed(f"{arguments.file} has no {name}; mesh passwd list {arguments.file} shows the names")


def _asked(prompt: str, times: int) -> str:
    """A password, typed or from standard input."""
    if sys.stdin.isatty():
        typed = {getpass.getpass(prompt if number == 0 else f"again, the {prompt}") for number in range(times)}
        if len(typed) > 1:
            raise PasswdFailed("the two passwords differ; nothing was changed")
        password = typed.pop()
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise PasswdFailed("the password is empty; type one, pipe it in, or let the command make one: --generate")
    return password
