"""Finds the mesh for a command: the one of a topology file, or the only one that runs on this machine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from typing import Final, final

from mesh.cli.failed import Failed
from mesh.cluster.find import Found, find
from mesh.cluster.present import in_force, of_folder
from mesh.cluster.run import Run, moved, running, started_from, topology_of
from mesh.topology.load import load
from mesh.topology.mistakes import TopologyErrors
from mesh.topology.topology import Topology

NOT_RUNNING: Final = 3
WRONG_LINE: Final = 2


class Unclear(Failed):
    """No mesh matches, or more than one; one sentence."""

    code = NOT_RUNNING


class Several(Unclear):
    """More than one mesh runs; one sentence."""


class WrongLine(Failed):
    """The command line is wrong; one sentence."""

    code = WRONG_LINE


@final
@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A mesh that runs, and the topology that it follows. ``notes``: what could not be reached or read, one sentence
    each; ``silent``: whether etcd did not answer a moment ago: it is not asked again, as each attempt takes some
    seconds."""

    run: Run
    topology: Topology
    notes: tuple[str, ...] = ()
    silent: bool = False


def option(parser: argparse.ArgumentParser, place: bool = False) -> None:
    """``--topology``. ``place``: the command has no other positional argument, so that FILE stands for it."""
    says = "the mesh's topology file; not needed if only one mesh runs on this machine"
    if place:
        parser.add_argument("file", metavar="FILE", nargs="?", help=says)
    parser.add_argument("--topology", metavar="FILE", help="the same" if place else says)


def file_of(arguments: argparse.Namespace) -> str | None:
    """The topology file of a command with ``option(place=True)``. Raises ``WrongLine`` if two are given."""
    if arguments.file is not None and arguments.topology is not None:
        raise WrongLine(f"give one topology file, not {arguments.file} and --topology {arguments.topology}")
    file: str | None = arguments.topology if arguments.file is None else arguments.file
    return file


def which(file: str | None) -> Run:
    """The running mesh. Raises ``Unclear``."""
    return running_mesh(file).run


def reached_mesh(file: str | None) -> RunningMesh:
    """The running mesh and its topology; what could not be reached is shown. Raises ``Unclear``."""
    found = running_mesh(file)
    say(found.notes)
    return found


def running_mesh(file: str | None) -> RunningMesh:
    """The running mesh and its topology. Raises ``Unclear``."""
    try:
        if file is None:
            run = only()
            topology = topology_of(run)
            if run.local:
                return RunningMesh(run, topology)
            found = find(topology)
        else:
            found, topology = sought(file)
        if found.run is None or not found.alive:
            text = f"mesh {topology.mesh!r} does not run (data folder {topology.data})"
            raise Unclear("\n".join([text, *found.notes]))
        if found.silent:
            return RunningMesh(found.run, of_folder(topology) or topology, found.notes, True)
        followed, note = in_force(topology, found.run)
        return RunningMesh(found.run, followed, (*found.notes, note) if note else found.notes, bool(note))
    except (OSError, ValueError) as error:
        raise Unclear(str(error)) from error


def sought(file: str) -> tuple[Found, Topology]:
    """What is found of the mesh of a file, and its topology. A mesh that was started from the file is also found if the
    file names another data folder by now, or has mistakes: a certificate or a password file that cannot be used is one,
    and who looks at such a mesh, or bans a client, must not have to repair it first. Raises ``Unclear``, ``OSError``,
    ``ValueError``."""
    try:
        topology = load(file)
    except TopologyErrors as errors:
        run = next(started_from(file), None)
        if run is None:
            raise Unclear(str(errors)) from errors
        topology = topology_of(run)
        found = find(topology)
        return replace(found, notes=(_passed_over(file, errors), *found.notes)), topology
    found = find(topology)
    run = None if found.alive else moved(file, topology)
    return (found, topology) if run is None else (Found(run, True), topology_of(run))


def _passed_over(file: str, errors: TopologyErrors) -> str:
    count = len(errors.mistakes)
    what = "a mistake" if count == 1 else f"{count} mistakes"
    return (
        f"{file} has {what}, so this is about the mesh that was started from it: {errors.mistakes[0]}"
    )


def topology_in(file: str) -> Topology:
    """The topology in a file. Raises ``Unclear``."""
    try:
        return load(file)
    except TopologyErrors as errors:
        raise Unclear(str(errors)) from errors


def only() -> Run:
    """The only mesh that runs on this machine. Raises ``Unclear``."""
    found = running()
    if not found:
        raise Unclear("no mesh runs on this machine; 'mesh up FILE' starts one")
    if len(found) > 1:
        names = "\n".join(f"  {run.mesh}: --topology {run.topology}" for run in found)
        raise Several(f"{len(found)} meshes run on this machine; choose one:\n{names}")
    return found[0]


def say(notes: tuple[str, ...]) -> None:
    """Show what could not be reached."""
    for note in notes:
        print(note, file=sys.stderr)
