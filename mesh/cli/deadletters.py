"""``mesh dead-letters``: shows, replays and purges the dead letters that the cores keep.

It reads them as any back end does, by ``$dead-letters/…``; a filter ``$dead-letters`` besides makes a core say its name
first, and when it has sent all. What always holds: a letter leaves the mesh only when its replay was accepted, or by
``purge``; replicas of a core share a listener, so the command connects until each of them has answered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, final

from mesh.broker.letter import PREFIX, TOPIC, letter_topic
from mesh.cli.client import (
    ClientRefused,
    CommandClient,
    Deadline,
    ReceivedMessage,
    backend_target,
    said,
)
from mesh.cli.guarded import note
from mesh.cli.sub import as_line
from mesh.cli.which import option, reached_mesh
from mesh.topology.nodes import replica_names
from mesh.topology.topology import CoreSpec, Topology
from mesh.wire.reasons import is_error, name_of

EXAMPLES: Final = """\
examples:
  mesh dead-letters list                           all letters: time, reason, share, topic, bytes
  mesh dead-letters list 'vehicles/CAR-7/#'        those of some topics
  mesh dead-letters show 'vehicles/CAR-7/#' --json with payload and properties, one JSON object for each letter
  mesh dead-letters replay 'vehicles/CAR-7/#'      publish them again; a letter ends when its message was accepted
  mesh dead-letters purge '#'                      drop all of them

FILTER is a filter of the original topics (default: #; purge needs one). The edges' letters come to the cores by
themselves. A message that has expired is not replayed. Letters that a reader has and has not acknowledged are not
replayed or purged.

exit codes: 0 done, 1 refused, or not all done in time, 3 no such mesh runs
"""

_ACTIONS: Final = ("list", "show", "replay", "purge")
_SECONDS: Final = 10.0
_WINDOW: Final = 32  # letters that are read and not acknowledged
_TRIES: Final = 16  # connections for each replica, until each has answered
_ANSWER: Final = 6.0
_EXPIRY: Final = 60  # seconds; letters are lent to sessions that outlive their connections
_OWN: Final = 4  # user properties of a letter, before those of its message


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument("filter", metavar="FILTER", nargs="?", help="a filter of the original topics")
    parser.add_argument("--user", metavar="NAME", help="the back end's user name; the topology has its password")
    parser.add_argument("--timeout", type=float, default=_SECONDS, metavar="S", help="end after S seconds (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "purge" and arguments.filter is None:
        print("name the topics to purge, such as 'vehicles/CAR-7/#', or '#' for all", file=sys.stderr)
        return 2
    try:
        mesh = reached_mesh(arguments.topology)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    done = Done(arguments.action, arguments.json)
    deadline = Deadline(arguments.timeout)
    try:
        for core in mesh.topology.cores:
            _of_core(mesh.topology, core, arguments, done, deadline)
    except ClientRefused as error:
        done.error = str(error)
    except KeyboardInterrupt:
        done.error = "interrupted"
    done.report()
    if done.letters and done.changes:
        what = f"{done.letters} letters of {arguments.filter or '#'}"
        note(mesh.topology, mesh.run, f"mesh dead-letters {arguments.action}", what)
    return 1 if done.error else 0


@final
@dataclass
class Done:
    """What the command has done so far."""

    action: str
    as_json: bool
    letters: int = 0
    expired: int = 0
    nodes: set[str] = field(default_factory=set)
    error: str = ""

    @property
    def changes(self) -> bool:
        """Whether the command takes letters from the cores."""
        return self.action in ("replay", "purge")

    def report(self) -> None:
        """Print the summary of ``replay`` and ``purge``, and what went wrong."""
        if self.changes:
            past = {"replay": "replayed", "purge": "purged"}[self.action]
            if self.as_json:
                counts: dict[str, Any] = {past: self.letters, "expired": self.expired, "error": self.error or None}
                print(json.dumps(counts))
            else:
                left = f"; {self.expired} have expired and stay" if self.expired else ""
                print(f"{self.letters} letters {past}{left}")
        if self.error:
            print(self.error, file=sys.stderr)


def _of_core(
    topology: Topology, core: CoreSpec, arguments: argparse.Namespace, done: Done, deadline: Deadline
) -> None:
    """Read the letters of every replica of a core. Raises ``ClientRefused``."""
    names = set(replica_names(core))
    for _ in range(_TRIES * len(names)):
        if names <= done.nodes:
            return
        _of_node(topology, core, arguments, done, deadline)
    missing = ", ".join(sorted(names - done.nodes))
    raise ClientRefused(f"{missing} did not answer: the replicas of a core share a listener; try again")


def _of_node(
    topology: Topology, core: CoreSpec, arguments: argparse.Namespace, done: Done, deadline: Deadline
) -> None:
    """Connect to a core, and handle its letters unless it was asked before."""
    target = backend_target(topology, core, arguments.user, "letters")
    takes = done.changes
    filter = letter_topic(arguments.filter or "#")
    with CommandClient(target, _WINDOW, _EXPIRY if takes else 0, _WINDOW) as client:
        codes = client.subscribe([filter, TOPIC], 1, _ANSWER)
        if is_error(codes[0]):
            raise ClientRefused(f"{filter} was refused: {said(codes[0])}")
        for message in _letters(client, done, deadline):
            if takes:
                _take(client, message, done)
            else:
                client.acknowledge(message)
                done.letters += 1
                print(_shown(message, arguments.action == "show", arguments.json), flush=True)


def _letters(client: CommandClient, done: Done, deadline: Deadline) -> Iterator[ReceivedMessage]:
    """The letters of one core, as many as it had at the beginning. Raises ``ClientRefused`` after the deadline."""
    left, node = 0, ""
    while True:
        message = client.receive(deadline.left())
        if message is None:
            raise ClientRefused("the time is up, and there are more letters")
        user = dict(message.properties)
        if message.topic == TOPIC and "list" in user and "node" in user:
            client.acknowledge(message)
            if user["list"] == "end" or user["node"] in done.nodes:
                break
            node, left = user["node"], int(user["letters"])
            continue
        if left <= 0:
            break
        left -= 1
        yield message
    if node:
        done.nodes.add(node)


def _take(client: CommandClient, message: ReceivedMessage, done: Done) -> None:
    """Purge or replay one letter. Raises ``ClientRefused``: the letter stays."""
    if done.action == "replay":
        expires = message.properties[3][1]
        properties = message.all
        assert properties is not None, "a letter has properties"
        if expires != "never":
            seconds = int(float(expires) - time.time())
            if seconds <= 0:
                done.expired += 1
                return
            properties.MessageExpiryInterval = seconds
        topic, user = _original(message)
        properties.UserProperty = user
        number = client.publish(topic, message.payload, message.qos, False, (), properties)
        code = client.answer(number, _ANSWER)
        if is_error(code):
            raise ClientRefused(f"the message on {topic} was refused: {name_of(code)}")
    client.acknowledge(message)
    done.letters += 1


def _original(message: ReceivedMessage) -> tuple[str, list[tuple[str, str]]]:
    """The topic and the user properties of the message before it became a letter."""
    user = list(message.properties[_OWN:])
    if message.topic == TOPIC:
        return user[0][1], user[1:]
    return message.topic.removeprefix(PREFIX), user


def _shown(message: ReceivedMessage, whole: bool, as_json: bool) -> str:
    (_, reason), (_, moment), (_, share), (_, expires) = message.properties[:_OWN]
    topic, user = _original(message)
    if as_json:
        report: dict[str, Any] = {
            "topic": topic, "reason": reason, "time": float(moment), "share": share, "bytes": len(message.payload),
            "expires": None if expires == "never" else float(expires),
        }  # fmt: skip
        if whole:
            try:
                report["payload"] = message.payload.decode()
            except UnicodeDecodeError:
                report["payload_hex"] = message.payload.hex()
            report["properties"] = [list(pair) for pair in user]
        return json.dumps(report)
    when = datetime.fromtimestamp(float(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    payload = message.payload if whole else b"%d B" % len(message.payload)
    line = ReceivedMessage(topic, payload, 0, False, False, ())
    return f"{when}  {reason:<16}  {share}  {as_line(line)}"
