"""The topologies that are shipped, ready to be started: with the certificates and passwords that their comments
say how to make."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mesh.cli.main import main

EXAMPLES = sorted((Path(__file__).parents[2] / "topology").glob("*.yaml"))

_COMMAND = "#   ./scripts/mesh "
_SECRET = "#   (umask 077; "
_MAKING = (("certs", "init"), ("certs", "server"), ("certs", "vehicle"), ("certs", "internal"), ("passwd", "add"))


def example(name: str) -> Path:
    return next(path for path in EXAMPLES if path.name == name)


def prepared(path: Path, home: Path, ports: Mapping[int, int] | None = None) -> Path:
    """A copy of an example in ``home/topology``, after the commands of its comments that make certificates and
    passwords were run in ``home``. ``ports``: other ports, on this machine only, by those of the example."""
    text = path.read_text()
    for old, new in (ports or {}).items():
        text = re.sub(rf'"[^"]*:{old}"', f'"127.0.0.1:{new}"', text)
    file = home / "topology" / path.name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    before = Path.cwd()
    os.chdir(home)
    try:
        for line in text.splitlines():
            words = shlex.split(line.removeprefix(_COMMAND)) if line.startswith(_COMMAND) else []
            if tuple(words[:2]) in _MAKING:
                assert main(words) == 0, line
            elif line.startswith(_SECRET):
                subprocess.run(["sh", "-c", line.removeprefix("#")], check=True)
    finally:
        os.chdir(before)
    return file
