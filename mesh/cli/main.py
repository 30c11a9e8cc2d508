"""The entry of the ``mesh`` command.

Knows the names of the commands and nothing of what they do. Each command is a module that is imported only to run that
command, so that ``mesh --help`` is fast. What always holds: a command returns its exit code; 2 is for a wrong command
line; errors go to stderr.

A command module has::

    EXAMPLES = "..."                                        # shown below its help
    def options(parser: argparse.ArgumentParser) -> None    # adds its arguments
    def run(arguments: argparse.Namespace) -> int           # runs it; may raise Failed
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from mesh.cli.failed import Failed
from mesh.version import describe


class CommandEntry(NamedTuple):
    """A command's module, and its purpose in one line."""

    module: str
    summary: str


class Command(Protocol):
    """A command's module."""

    EXAMPLES: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS: Final[dict[str, CommandEntry]] = {
    "init": CommandEntry("mesh.cli.init", "write a topology file to start from"),
    "check": CommandEntry("mesh.cli.check", "check a topology file and show every error"),
    "plan": CommandEntry("mesh.cli.plan", "show what a changed topology file would do to the mesh"),
    "up": CommandEntry("mesh.cli.up", "start a mesh from its topology file, or change a running one"),
    "down": CommandEntry("mesh.cli.down", "stop a mesh and end all its processes"),
    "status": CommandEntry("mesh.cli.status", "show the state of every node"),
    "settings": CommandEntry("mesh.cli.settings", "show what is in force in each node"),
    "log-level": CommandEntry("mesh.cli.loglevel", "show or change the levels of the logs of a running mesh"),
    "history": CommandEntry("mesh.cli.history", "show the revisions of the settings"),
    "journal": CommandEntry("mesh.cli.journal", "check, show or salvage the journal of a node"),
    "where": CommandEntry("mesh.cli.where", "show the edge of a vehicle"),
    "pub": CommandEntry("mesh.cli.pub", "send a message as a back end or as a vehicle"),
    "sub": CommandEntry("mesh.cli.sub", "show the messages for a back end or a vehicle"),
    "dead-letters": CommandEntry("mesh.cli.deadletters", "list, show, replay or purge the dead letters of the cores"),
    "ban": CommandEntry("mesh.cli.ban", "ban vehicles, client ids, addresses, certificates or users, and list bans"),
    "kick": CommandEntry("mesh.cli.kick", "end the connections of a vehicle, client id or user once"),
    "audit": CommandEntry("mesh.cli.audit", "show what operators have changed: who, when, and with which command"),
    "passwd": CommandEntry("mesh.cli.passwd", "add, change, remove, list and verify the users of a password file"),
    "scram": CommandEntry("mesh.cli.scram", "make the SCRAM credential line of a vehicle's password"),
    "secret": CommandEntry("mesh.cli.secret", "exchange the secret with which the nodes prove to each other"),
    "certs": CommandEntry("mesh.cli.certs", "make, renew and revoke certificates, and show what expires"),
    "bench": CommandEntry("mesh.cli.bench", "put a load on a running mesh and measure it"),
}


def load(entry: CommandEntry) -> Command:
    return cast(Command, importlib.import_module(entry.module))


def overview() -> argparse.ArgumentParser:
    """The parser of ``mesh`` itself, with one line for each command."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {entry.summary}" for name, entry in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="mesh",
        usage="mesh [--version] [--help] COMMAND ...",
        description="A distributed MQTT routing mesh for vehicles.",
        epilog="commands:\n" + "\n".join(lines) + "\n\n'mesh COMMAND --help' explains a command and shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=describe())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        overview().print_help()
        return 2
    if words[0].startswith("-"):
        parser = overview()
        parser.parse_args(words)  # exits after --help, --version and for an unknown option
        parser.error("a command is missing")
    entry = COMMANDS.get(words[0])
    if entry is None:
        overview().error(f"there is no command {words[0]!r}{suggestion(words[0])}")
    # What the parts of the mesh log is for their log files: a command says itself what its user has to know.
    logging.getLogger("mesh").addHandler(logging.NullHandler())
    command = load(entry)
    parser = argparse.ArgumentParser(
        prog=f"mesh {words[0]}",
        description=f"{entry.summary[0].upper()}{entry.summary[1:]}.",
        epilog=command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.options(parser)
    arguments = parser.parse_args(words[1:])
    try:
        code = command.run(arguments)
        sys.stdout.flush()
        return code
    except Failed as failed:
        print(failed, file=sys.stderr)
        return failed.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has ended (`mesh ... | head`). Python flushes stdout once more at exit, so stdout
        # must be writable.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def suggestion(word: str) -> str:
    """`` (did you mean ...)`` or nothing."""
    import difflib  # needed only after an error

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


if __name__ == "__main__":
    sys.exit(main())
