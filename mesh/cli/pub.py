"""``mesh pub``: sends messages into a running mesh and shows the answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from mesh.cli.client import ANSWER_SECONDS, ClientRefused, CommandClient, said, target
from mesh.cli.client import options as connection
from mesh.cli.which import option, reached_mesh
from mesh.telemetry.spans import new_trace
from mesh.topology.topology import Topology
from mesh.wire.reasons import (
    IMPLEMENTATION_SPECIFIC_ERROR,
    NO_MATCHING_SUBSCRIBERS,
    PACKET_IDENTIFIER_NOT_FOUND,
    SUCCESS,
    is_error,
)
from mesh.wire.tracecontext import PARENT

NOBODY: Final = 4

EXAMPLES: Final = """\
examples:
  mesh pub vehicles/CAR-7/cmd/lights on            a back end's command, to the core
  mesh pub vehicles/CAR-7/report '{"speed": 42}' --vehicle CAR-7
                                                   a report of vehicle CAR-7, to a front door
  mesh pub vehicles/CAR-7/cmd/n 'number {n}' --count 100
                                                   100 messages; {n} becomes 1, 2, 3, ...
  mesh pub vehicles/CAR-7/update < update.bin      the message from standard input
  mesh pub vehicles/CAR-7/cmd/lights on --trace    starts a trace and prints its id
  mesh pub vehicles/CAR-7/cmd/lights on --json     {"accepted": 1, "nobody": 0, "refused": 0, ...}

With QoS 1 "accepted" means that the message is on disk. A disconnected vehicle gets it when it connects.
With QoS 0 there is no answer, and with QoS 2 only refusals are shown.

exit codes: 0 accepted, 1 refused or unanswered, 2 wrong command line, 3 no such mesh runs,
            4 no client receives it (reason code 0x10, "nobody" in JSON)
"""

# Messages in flight: enough to keep the mesh busy. No more are in memory, even with a large --count.
WINDOW: Final = 1000


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="the topic, such as vehicles/CAR-7/cmd/lights")
    parser.add_argument("message", metavar="MESSAGE", nargs="?", help="the message as text (default: standard input)")
    connection(parser)
    parser.add_argument("--retain", action="store_true", help="store it as the topic's retained message")
    parser.add_argument("--count", type=_count, metavar="N", help="send N messages")
    parser.add_argument("--trace", action="store_true", help="start a trace with each message")
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("the count must be at least 1")
    return number


def run(arguments: argparse.Namespace) -> int:
    try:
        topology = reached_mesh(arguments.topology).topology
        where = target(topology, arguments.vehicle, arguments.user, arguments.at, "pub")
        traces: list[str] = []
        with CommandClient(where, backlog=1) as client:
            answers = _send(client, arguments, traces)
    except (ClientRefused, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    _print_json(arguments, answers, traces) if arguments.json else _print_answers(arguments, answers, traces, topology)
    return _exit_code(answers)


def _payloads(arguments: argparse.Namespace) -> Iterator[bytes]:
    """The messages to send."""
    if arguments.message is None:
        if sys.stdin.isatty():
            print("reading the message from the terminal; Ctrl-D ends it", file=sys.stderr)
        data = sys.stdin.buffer.read()
        for _ in range(arguments.count or 1):
            yield data
    elif arguments.count is None:
        yield arguments.message.encode()
    else:
        for number in range(1, arguments.count + 1):
            yield arguments.message.replace("{n}", str(number)).encode()


def _send(client: CommandClient, arguments: argparse.Namespace, traces: list[str]) -> Counter[int]:
    """Send all; returns the count of each reason code. Appends the ids of the traces to ``traces``."""
    answers: Counter[int] = Counter()
    waiting: deque[int] = deque()

    def collect(until: int) -> None:
        while len(waiting) > until:
            answers[client.answer(waiting.popleft(), ANSWER_SECONDS)] += 1

    for payload in _payloads(arguments):
        user: list[tuple[str, str]] = []
        if arguments.trace:
            trace = new_trace()
            traces.append(trace.trace_id)
            user.append((PARENT, trace.traceparent()))
        waiting.append(client.publish(arguments.topic, payload, arguments.qos, arguments.retain, user))
        collect(WINDOW)
    collect(0)
    return answers


def _exit_code(answers: Counter[int]) -> int:
    if any(is_error(code) for code in answers):
        return 1
    return NOBODY if any(code == NO_MATCHING_SUBSCRIBERS for code in answers) else 0


def _print_answers(arguments: argparse.Namespace, answers: Counter[int], traces: list[str], topology: Topology) -> None:
    several = sum(answers.values()) > 1
    for code, number in answers.items():
        count = f"{number} " if several else ""
        if code == SUCCESS:
            print(f"{count}{'sent' if arguments.qos == 0 else 'accepted'}: {arguments.topic}, QoS {arguments.qos}")
            continue
        word = "refused" if is_error(code) else "not received by any client"
        print(f"{count}{word}: {arguments.topic}, {said(code)}", file=sys.stderr)
        hint = _hint(code, arguments, topology)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    for trace in traces:
        print(f"trace {trace}")


def _hint(code: int, arguments: argparse.Namespace, topology: Topology) -> str:
    """Advice about an answer; empty if the answer needs none."""
    vehicle = topology.vehicle_template().vehicle_of(arguments.topic)
    if code == NO_MATCHING_SUBSCRIBERS:
        if arguments.vehicle is not None:
            return f"no back end subscribes to it; to receive it: mesh sub {arguments.topic}"
        if vehicle is None:
            return f"it is no topic of a vehicle ({topology.template}), and no client subscribes to it"
        inbox = ", ".join(topology.inbox.subscribe) if topology.inbox is not None else "nothing"
        return f"vehicle {vehicle} does not subscribe to this topic, and no inbox keeps it (they keep {inbox})"
    if code == IMPLEMENTATION_SPECIFIC_ERROR and vehicle is not None:
        return f"the edge of {vehicle} cannot be determined now: 'mesh status' says whether etcd answers"
    if code == PACKET_IDENTIFIER_NOT_FOUND and arguments.qos == 2:
        return "QoS 2 does not show the reason; use -q 1 to see it"
    if arguments.vehicle is not None and vehicle != arguments.vehicle:
        return f"a vehicle may publish below {topology.template.replace('{vehicle}', arguments.vehicle)} only"
    return ""


def _print_json(arguments: argparse.Namespace, answers: Counter[int], traces: list[str]) -> None:
    refused = sum(number for code, number in answers.items() if is_error(code))
    nobody = sum(number for code, number in answers.items() if code == NO_MATCHING_SUBSCRIBERS)
    report = {
        "topic": arguments.topic,
        "qos": arguments.qos,
        "accepted": sum(answers.values()) - refused - nobody,
        "nobody": nobody,
        "refused": refused,
        "reasons": {f"0x{code:02x}": number for code, number in answers.items()},
        "traces": traces,
    }
    print(json.dumps(report))
