"""``mesh scram``: makes a vehicle's SCRAM credential line (see ``identity.scram`` of the topology)."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Final

from mesh.policy.scram import make_verifier, write_line

EXAMPLES: Final = """\
examples:
  mesh scram VIN1 >> vehicles.scram           asks for the password
  pwgen 24 1 | mesh scram VIN1 >> vehicles.scram

The line has no password and is no use for a log-in. Name the file in the topology: identity: {scram: vehicles.scram}
exit codes: 0 the line was written, 1 there is no password
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="VEHICLE", help="the identity of the vehicle")


def run(arguments: argparse.Namespace) -> int:
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not password:
        print("mesh scram: the password is empty; type one, or pipe it in", file=sys.stderr)
        return 1
    print(write_line(arguments.name, make_verifier(password)))
    return 0
