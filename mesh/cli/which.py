"""Finds the mesh for a command: the one of ``--topology FILE``, or the only one that runs on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from mesh.cli.failed import Failed
from mesh.cluster.run import Run, load_run, running
from mesh.topology.load import load
from mesh.topology.mistakes import TopologyErrors

NOT_RUNNING: Final = 3


class Unclear(Failed):
    """No mesh matches, or more than one; one sentence."""

    code = NOT_RUNNING


def option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology", metavar="FILE", help="the mesh's topology file; not needed if only one mesh runs on this machine"
    )


def which(file: str | None) -> Run:
    """The running mesh. Raises ``Unclear``."""
    if file is not None:
        try:
            topology = load(file)
        except TopologyErrors as errors:
            raise Unclear(str(errors)) from errors
        return in_folder(topology.data, topology.mesh)
    found = running()
    if not found:
        raise Unclear("no mesh runs on this machine; 'mesh up FILE' starts one")
    if len(found) > 1:
        names = "\n".join(f"  {run.mesh}: --topology {run.topology}" for run in found)
        raise Unclear(f"{len(found)} meshes run on this machine; choose one:\n{names}")
    return found[0]


def in_folder(data: Path, mesh: str) -> Run:
    try:
        run = load_run(data)
    except (OSError, ValueError) as error:
        raise Unclear(str(error)) from error
    if run is None or not run.is_alive():
        raise Unclear(f"mesh {mesh!r} does not run (data folder {data})")
    return run
