"""``scripts/demo``: runs the demonstration, and stops everything that it started."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from contextlib import ExitStack
from types import FrameType
from typing import IO, TYPE_CHECKING, Final

from tools import ROOT

if TYPE_CHECKING:
    from rich.console import Console

    from tools.demonstration.ledger import Ledger
    from tools.demonstration.running import RunningMesh
    from tools.demonstration.screen import Screen
    from tools.demonstration.setting import Setting
    from tools.demonstration.story import Story
    from tools.tracing.spanvalue import SpanValue

ABOUT: Final = """\
Shows a running mesh, in about a minute. It installs what it needs, and leaves no process behind.

  1. the mesh of topology/local.yaml starts: a front door, two edges, a core, etcd; each is a process that Ray restarts
  2. ten vehicles connect, half with MQTT 3.1.1, half with MQTT 5; a back end sends them commands, they answer
  3. one vehicle falls asleep; then its edge is killed with kill -9 while commands go on
  4. the edge restarts, the vehicle wakes, and all messages arrive
  5. one more command is followed through the mesh by its trace

The vehicles and the back end are ordinary clients made with paho-mqtt.
"""

EXAMPLES: Final = """\
examples:
  ./scripts/demo            a live picture on the terminal
  ./scripts/demo --keep     leaves the mesh running afterwards, for your own clients
  ./scripts/demo | cat      plain lines

exit codes: 0 no message was lost and no connection dropped, 1 a loss or a drop, or the mesh did not start,
            130 interrupted (Ctrl-C stops everything that was started)

It keeps its data in .mesh/demo, and uses other ports if 1883 or 1884 are in use.
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the mesh running, and print its addresses")
    return parser.parse_args()


def interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def deaf() -> None:
    """Ignore further signals: a second Ctrl-C must not interrupt the stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return tell(options.keep)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has ended (`demo | head`). Python flushes stdout once more at exit, so stdout must be
        # writable.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def tell(keep: bool) -> int:
    """Run the whole demonstration; returns its exit code."""
    from rich.console import Console  # imported here, because --help must work before anything is installed

    from tools.demonstration.running import Failed, RunningMesh, folder
    from tools.demonstration.screen import screen
    from tools.demonstration.setting import write
    from tools.demonstration.story import Story
    from tools.tracing.collector import Collector

    console = Console(highlight=False)
    home = folder(ROOT)
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:
        if not alone(ending.enter_context((home / "lock").open("w"))):
            print("another demo runs in this checkout; wait until it has ended", file=sys.stderr)
            return 1
        collector = Collector()
        ending.callback(collector.close)
        mesh = RunningMesh(home)
        kept = ending.enter_context(ExitStack())
        kept.callback(mesh.stop)
        try:
            mesh.clear()  # before the ports are chosen, because an earlier demo may still use them
            setting = write(ROOT / "topology" / "local.yaml", home, collector.endpoint)
            story = Story(setting, mesh, collector)
            ending.callback(story.close)
            with screen(console, story.look) as shown:
                vehicle, spans = play(story, shown)
        except KeyboardInterrupt:
            print("stopping everything that was started", file=sys.stderr)
            raise
        except (Failed, OSError) as error:
            print(f"{error}\nthe logs are in {home / 'data' / 'logs'}", file=sys.stderr)
            return 1
        finally:
            deaf()
        totals = story.ledger.totals()
        conclude(console, story.ledger, vehicle, spans)
        if keep:
            tell_addresses(console, setting)
        elif not end(console, story, mesh):
            return 1
        kept.pop_all()  # the mesh is stopped already, or goes on running
        return 0 if totals.flawless else 1


def alone(lock: IO[str]) -> bool:
    """Whether no other demo runs. Closing the file releases the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def play(story: Story, shown: Screen) -> tuple[str, list[SpanValue]]:
    """Run all acts; returns the vehicle and the spans of the traced command."""
    story.rise(shown)
    story.gather(shown)
    story.drive(shown)
    sleeper, edge = story.sleep(shown)
    story.crash(shown, edge)
    story.wake(shown, sleeper)
    story.settle(shown)
    return story.trace(shown)


def end(console: Console, story: Story, mesh: RunningMesh) -> bool:
    """Stop everything; ``False`` if that failed."""
    with console.status("the mesh is being stopped"):
        story.close()
        stopped = mesh.stop()
    if stopped:
        console.print("The mesh is stopped; no process is left.")
    else:
        print("the mesh could not be stopped; './scripts/mesh down' shows why", file=sys.stderr)
    return stopped


def conclude(console: Console, ledger: Ledger, vehicle: str, spans: list[SpanValue]) -> None:
    """Print the trace and the sums."""
    from tools.demonstration.screen import summary
    from tools.tracing.waterfall import waterfall

    console.print(f"\n[bold]the trace of one command to {vehicle}[/bold]\n")
    console.print(waterfall(spans, max(10, min(40, console.width - 62))))
    totals = ledger.totals()
    console.print()
    console.print(summary(totals))
    for why, number in ledger.refusals().items():
        console.print(f"[red]{number} commands were not accepted: {why}[/red]")
    good = "[bold green]Nothing was lost, and no vehicle's connection was dropped.[/bold green]"
    bad = "[bold red]The demonstration failed: see above.[/bold red]"
    console.print(f"\n{good if totals.flawless else bad}")


def tell_addresses(console: Console, setting: Setting) -> None:
    from tools.demonstration.setting import HOST

    file = os.path.relpath(setting.file)
    text = f"""
The mesh goes on running.
  vehicles    mqtt://{HOST}:{setting.door}   (the user name is the vehicle)
  back ends   mqtt://{HOST}:{setting.core}
  watch       ./scripts/mesh sub 'vehicles/+/report'
  say         ./scripts/mesh pub vehicles/CAR-01/report hello --vehicle CAR-01
  end it      ./scripts/mesh down --topology {file}"""
    console.print(text, soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
