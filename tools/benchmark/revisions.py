"""Builds the compiled package of a revision in a separate folder.

It knows git, pip and folders; it must never know what is measured. What always holds: a folder below
``build/revisions`` has a complete compiled package, or does not exist; a package is built once and then reused; it uses
the installed libraries.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import ROOT

BUILT = ROOT / "build" / "revisions"
PARTS = ("mesh", "pyproject.toml", "setup.py", "README.md", "LICENSE")  # the sources of the package
PATIENCE = 1200.0  # seconds for one build


class NotBuilt(Exception):
    """The package of this revision could not be built; one sentence."""


def git(*words: str) -> str:
    """The output of git. Raises ``NotBuilt``."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if done.returncode:
        raise NotBuilt(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_of(revision: str) -> str:
    """The commit of a revision. Raises ``NotBuilt`` if git does not know it."""
    return git("rev-parse", "--verify", f"{revision}^{{commit}}")


def package_of(commit: str) -> Path:
    """The folder of the compiled package of a commit. Builds it if it does not exist. Raises ``NotBuilt``."""
    parts = git("ls-tree", commit, "--", *PARTS)
    folder = BUILT / hashlib.sha256(f"{sys.implementation.cache_tag}\n{parts}".encode()).hexdigest()[:16]
    if not folder.exists():
        _build(commit, [line.partition("\t")[2] for line in parts.splitlines()], folder)
    return folder


def _build(commit: str, parts: list[str], folder: Path) -> None:
    print(f"building {commit[:12]} into {folder.relative_to(ROOT)}: this takes some minutes, once", file=sys.stderr)
    BUILT.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="new-", dir=BUILT) as name:
        new = Path(name)
        source, made = new / "source", new / "package"
        source.mkdir()
        git("archive", "--output", str(new / "source.tar"), commit, "--", *parts)
        shutil.unpack_archive(new / "source.tar", source, filter="data")
        command = [sys.executable, "-m", "pip", "install", "--verbose", "--no-deps", "--target", str(made), str(source)]
        environment = {name: value for name, value in os.environ.items() if name != "MESH_PURE"}
        with log.open("wb") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE,
                env={**environment, "TMPDIR": str(new), "PYTHONSAFEPATH": "1"},
            )  # fmt: skip
        if done.returncode or not any((made / "mesh" / "wire").glob("*.so")):
            raise NotBuilt(f"{commit[:12]} could not be built and compiled; see {log.relative_to(ROOT)}")
        if not folder.exists():  # another run may have built the same folder
            made.rename(folder)
