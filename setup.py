"""Compiles the hot code with mypyc while the package is built; without a C compiler the same files are installed as
they are.

What always holds: the files are compiled all together or not at all, so that no half-compiled package is ever
installed. ``MESH_PURE=1`` builds without compiling.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOMS = ("wire", "session", "journal", "broker")  # all that they hold
UNCOMPILED = ("__init__.py", "status.py")
FILES = (  # of other rooms: what each message passes
    "bench/histogram.py",
    "bench/peers.py",
    "core/arrivals.py",
    "core/downstream.py",
    "core/following.py",
    "core/holding.py",
    "core/kinds.py",
    "core/owners.py",
    "core/router.py",
    "core/socket.py",
    "core/spans.py",
    "core/spool.py",
    "core/tier.py",
    "core/upstream.py",
    "edge/breadcrumb.py",
    "edge/device.py",
    "edge/devices.py",
    "edge/doors.py",
    "figures/timing.py",
    "frontdoor/context.py",
    "frontdoor/exchange.py",
    "frontdoor/edgepath.py",
    "frontdoor/link.py",
    "frontdoor/ownermap.py",
    "frontdoor/socket.py",
    "frontdoor/vehicle.py",
    "node/guard.py",
    "policy/anonymous.py",
    "policy/chain.py",
    "policy/identity.py",
    "policy/pattern.py",
    "policy/providers.py",
    "policy/template.py",
    "registry/cache.py",
    "telemetry/sampling.py",
    "telemetry/spans.py",
    "telemetry/tracing.py",
    "transport/accept.py",
    "transport/admission.py",
    "transport/arrivals.py",
    "transport/authentication.py",
    "transport/buckets.py",
    "transport/buffers.py",
    "transport/client.py",
    "transport/endpoint.py",
    "transport/expiry.py",
    "transport/frame.py",
    "transport/lifecycle.py",
    "transport/link.py",
    "transport/origin.py",
    "transport/pace.py",
    "transport/peers.py",
    "transport/pending.py",
    "transport/rates.py",
    "transport/refusal.py",
    "transport/rounds.py",
    "transport/secured.py",
    "transport/states.py",
    "transport/stream.py",
    "transport/trail.py",
    "transport/turn.py",
    "transport/wheel.py",
    "transport/writer.py",
)

# The project's mypy settings are for the checks of the developer, and a build must not depend on them; nor on the
# libraries that the package uses, which are installed after it is built.
OPTIONS = ("--config-file=", "--ignore-missing-imports")

# No other library replaces a function of this one. So its functions call each other directly, and can be inlined: for a
# message, a sixth less of the instructions are missing in the processor's cache.
#
# The warning of misleading indentation reads the generated C again for each line: it takes longer than all of -O3.
FLAGS = ("-fno-semantic-interposition", "-Wno-misleading-indentation")


def sources() -> list[str]:
    """The files to compile. A package's ``__init__`` stays Python, since it only holds a docstring; so does ``status``,
    because a compiled class has no ``Annotated`` fields to be read."""
    root = Path(__file__).parent / "mesh"
    files = [path for room in ROOMS for path in sorted((root / room).glob("*.py")) if path.name not in UNCOMPILED]
    files += [root / name for name in FILES]
    return [str(path.relative_to(root.parent)) for path in files]


def say(text: str) -> None:
    print(f"vehicle-mesh: {text}", file=sys.stderr, flush=True)


def extensions() -> list[Extension]:
    """The hot code as C, or an empty list where they cannot be turned into C or shall not be."""
    if os.environ.get("MESH_PURE", "") not in ("", "0"):
        say("MESH_PURE is set: installing uncompiled")
        return []
    try:
        from mypyc.build import mypycify

        found = list(mypycify([*OPTIONS, *sources()], opt_level="3", debug_level="0"))
    except (Exception, SystemExit):  # mypyc ends the process when it cannot compile a file
        traceback.print_exc()
        say("mypyc could not compile the package: installing uncompiled")
        return []
    for extension in found:
        extension.extra_compile_args += FLAGS
    return found


class BuildAllOrNothing(build_ext):
    """Builds all extension modules; if one fails, takes back those that were built.

    One of them has all the code, and each of the others makes one module of it: they are built beside it.
    """

    def run(self) -> None:
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().run()
        except Exception:  # every kind of compiler fails with errors of its own
            traceback.print_exc()
            say("the C compiler failed: installing uncompiled")
            for path in self.get_outputs():
                Path(path).unlink(missing_ok=True)
            self.extensions = []
            self.distribution.ext_modules = []


building = any(command.startswith(("bdist", "build", "install", "develop", "editable")) for command in sys.argv[1:])
setup(ext_modules=extensions() if building else [], cmdclass={"build_ext": BuildAllOrNothing})
