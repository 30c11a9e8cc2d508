"""``mesh secret``: exchanges the secret of a running mesh, without a break.

It knows the file of the secret and what the nodes say of theirs. What always holds: no secret is ever shown; a step
begins only when all nodes have taken the one before; a command that ends early is repeated to go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from mesh.cli.failed import Failed
from mesh.cli.guarded import note
from mesh.cli.lines import Waiting
from mesh.cli.which import RunningMesh, file_of, option, reached_mesh
from mesh.cluster.inforce import InForce, in_force
from mesh.cluster.present import asked
from mesh.policy.secrets import FILE, MeshSecret, SecretError, begun, ended, read, replace, turned
from mesh.registry.errors import RegistryError
from mesh.topology.nodes import nodes

EXAMPLES: Final = """\
examples:
  mesh secret rotate mesh.yaml      give the running mesh a new secret; no connection is closed

The nodes prove to each other with the secret of the mesh. It is exchanged in three steps: all nodes accept a new one;
all prove with it; the old one ends. The command waits for all nodes after each step. Run it where the mesh was started.
On a cluster of several machines, copy DATA/secret to the same place on the others whenever the command waits for their
nodes, as a file of mode 0600. If the command ends early, run it again: it goes on where it was.

exit codes: 0 the secret is exchanged, 1 it is not yet, 2 wrong command line, 3 no such mesh runs
"""

_ASK: Final = 2.0  # seconds for the answers of all nodes
_PAUSE: Final = 0.5  # seconds between two questions
_STEPS: Final[tuple[tuple[str, Callable[[bytes], bytes]], ...]] = (
    ("accept the new secret", begun),
    ("prove with the new secret", turned),
    ("have ended the old secret", ended),
)


class NotExchanged(Failed):
    """The exchange is not over; one sentence."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("rotate",))
    option(parser, place=True)
    parser.add_argument(
        "--wait", metavar="SECONDS", type=float, default=60.0, help="for all nodes, in each step; default: %(default)g"
    )


def run(arguments: argparse.Namespace) -> int:
    mesh = reached_mesh(file_of(arguments))
    file = mesh.topology.data / FILE
    what = "the secret of the mesh was not exchanged"
    try:
        for done, step in _STEPS:
            replace(file, step(read(file)))
            what = f"its exchange is not over: not all nodes {done}"
            _await(mesh, MeshSecret(read(file)).marks(), done, arguments.wait)
            print(f"all nodes {done}")
        what = "the secret of the mesh was exchanged"
    except FileNotFoundError:
        raise NotExchanged(f"{file} is missing; run this on the machine where the mesh was started") from None
    except SecretError as error:
        raise NotExchanged(str(error)) from None
    except OSError as error:
        raise NotExchanged(f"{file}: {error.strerror or error}") from None
    finally:
        note(mesh.topology, mesh.run, "mesh secret rotate", what)
    return 0


def _await(mesh: RunningMesh, marks: list[str], done: str, seconds: float) -> None:
    """Wait until all nodes go by these secrets. Raises ``NotExchanged``."""
    end = time.monotonic() + seconds
    waiting = Waiting()
    while True:
        behind = _behind(mesh, marks)
        if not behind:
            return
        if time.monotonic() > end:
            raise NotExchanged(
                f"these do not {done} yet: {', '.join(behind)}; if they are on other machines, copy "
                f"{mesh.topology.data / FILE} to the same place there; then run this again"
            )
        waiting(f"waits until all nodes {done}: {', '.join(behind)}")
        time.sleep(_PAUSE)


def _behind(mesh: RunningMesh, marks: list[str]) -> list[str]:
    """The nodes that do not go by these secrets, or do not answer."""
    try:
        found, _ = asked(mesh.topology, mesh.run.endpoints, lambda client: in_force(client, mesh.run.mesh, _ASK))
    except (RegistryError, OSError, ValueError) as error:
        print(f"the nodes could not be asked: {error}", file=sys.stderr)
        found = {}
    return [spec.name for spec in nodes(mesh.topology) if _marks(found, spec.name) != marks]


def _marks(found: Mapping[str, InForce], name: str) -> object:
    return found[name].settings.get("proofs") if name in found else None
