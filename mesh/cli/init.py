"""``mesh init``: writes a topology file to start from."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Final

from mesh.topology.load import load

EXAMPLES: Final = """\
examples:
  mesh init                    writes mesh.yaml: a whole mesh on this machine, with a comment on each key
  mesh init fleet.yaml         writes that file
  mesh init --force            overwrites mesh.yaml if it exists
  mesh init --json             {"file": "/home/me/mesh.yaml", "mesh": "local"}

'mesh up FILE' then starts the mesh that the file describes.

exit codes: 0 the file was written, 1 it exists or cannot be written
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default="mesh.yaml", help="default mesh.yaml")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    file = Path(arguments.file)
    name = shlex.quote(arguments.file)
    try:
        with file.open("w" if arguments.force else "x", encoding="utf-8") as output:
            output.write(starter())
    except FileExistsError:
        right = f"name another file, or overwrite this one with: mesh init {name} --force"
        print(f"{arguments.file} exists and was not changed; {right}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{arguments.file} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    mesh = load(file).mesh
    if arguments.json:
        print(json.dumps({"file": str(file.resolve()), "mesh": mesh}))
    else:
        print(f"{arguments.file} describes mesh {mesh!r}; next: mesh up {name}")
    return 0


def starter() -> str:
    """The text to write: that of ``topology/local.yaml``, with the data folder beside the file."""
    return resources.files("mesh.topology").joinpath("starter.yaml").read_text(encoding="utf-8")
