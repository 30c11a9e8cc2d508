"""``mesh sub``: subscribes and shows the messages that arrive."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

from mesh.cli.client import ANSWER_SECONDS, ClientRefused, CommandClient, Deadline, ReceivedMessage, said, target
from mesh.cli.client import options as connection
from mesh.cli.which import option, reached_mesh
from mesh.wire.reasons import is_error

EXAMPLES: Final = """\
examples:
  mesh sub 'vehicles/+/report'                     the reports of all vehicles, as a back end
  mesh sub 'vehicles/CAR-7/#' 'fleet/news'         several filters
  mesh sub 'vehicles/CAR-7/cmd/#' --vehicle CAR-7  as vehicle CAR-7; takes the messages from its inbox
  mesh sub 'vehicles/+/report' --count 1 --timeout 10
                                                   the next message, if it arrives within 10 s
  mesh sub 'vehicles/+/report' --json | jq .payload

Prints one line for each message: the topic, a space, the message. With --json it prints one object for each message:
topic, payload (text; bytes that are not text are in payload_hex instead), qos, retain, dup, time (seconds since
1970), properties (the user properties, as a list of pairs).

The session lasts as long as the command. Quote the filters: # begins a comment in the shell.

exit codes: 0 Ctrl-C was pressed, --count messages arrived, or the --timeout passed without a --count,
            1 refused, the connection was lost, or fewer than --count arrived in time, 3 no such mesh runs
"""

# Messages that wait for a slow terminal. With more, the connection is not read, and the mesh keeps the others.
BACKLOG: Final = 10_000


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filters", metavar="FILTER", nargs="+", help="topic filters, such as 'vehicles/+/report'")
    connection(parser)
    parser.add_argument("--count", type=int, metavar="N", help="end after N messages")
    parser.add_argument("--timeout", type=float, metavar="S", help="end after S seconds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        topology = reached_mesh(arguments.topology).topology
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        where = target(topology, arguments.vehicle, arguments.user, arguments.at, "sub")
        with CommandClient(where, BACKLOG) as client:
            if not _subscribe(client, arguments.filters, arguments.qos):
                return 1
            return _follow(client, arguments)
    except ClientRefused as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _subscribe(client: CommandClient, filters: Sequence[str], qos: int) -> bool:
    """Whether at least one filter was granted. Prints those that were refused."""
    codes = client.subscribe(filters, qos, ANSWER_SECONDS)
    for filter, code in zip(filters, codes, strict=True):
        if is_error(code):
            print(f"{filter} was refused: {said(code)}", file=sys.stderr)
    granted = [filter for filter, code in zip(filters, codes, strict=True) if not is_error(code)]
    if granted and sys.stderr.isatty():
        print(f"waiting for {', '.join(granted)}; Ctrl-C ends", file=sys.stderr)
    return bool(granted)


def _follow(client: CommandClient, arguments: argparse.Namespace) -> int:
    deadline = Deadline(arguments.timeout)
    came = 0
    while arguments.count is None or came < arguments.count:
        message = client.receive(deadline.left())
        if message is None:
            return 0 if arguments.count is None else 1
        came += 1
        print(as_json(message, time.time()) if arguments.json else as_line(message), flush=True)
    return 0


def as_line(message: ReceivedMessage) -> str:
    """A message as a line for the terminal. Control characters are escaped, because a vehicle may send any bytes."""
    text = message.payload.decode(errors="backslashreplace")
    shown = [letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text]
    return f"{message.topic} {''.join(shown)}"


def as_json(message: ReceivedMessage, now: float) -> str:
    """A message as one line of JSON."""
    try:
        payload = {"payload": message.payload.decode()}
    except UnicodeDecodeError:
        payload = {"payload_hex": message.payload.hex()}
    report = {
        "topic": message.topic,
        **payload,
        "qos": message.qos,
        "retain": message.retain,
        "dup": message.dup,
        "time": round(now, 6),
        "properties": [list(pair) for pair in message.properties],
    }
    return json.dumps(report)
