"""Runs the suites of eclipse/paho.mqtt.testing, from a copy that you have fetched, against a running mesh.

    ./scripts/mesh up topology/conformance.yaml --detach
    ./scripts/suites FOLDER/interoperability

Runs both suites (MQTT 3.1.1 and 5.0) completely, against the front door and the core. Exit code 1 if a test failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

WAYS = {"door": 11883, "core": 11884}
SUITES = ("client_test", "client_test5")


def cases(suite: ModuleType, only: list[str]) -> Iterator[unittest.TestCase]:
    """The tests of a suite."""
    for name in unittest.defaultTestLoader.getTestCaseNames(suite.Test):
        if not only or name in only:
            yield suite.Test(name)


def prepare(name: str, port: int) -> ModuleType:
    """The module of a suite, with the variables that its main function would set."""
    suite = importlib.import_module(name)
    topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
    filters = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
    settings = {
        "host": "127.0.0.1", "port": port, "topics": topics, "wildtopics": filters,
        "nosubscribe_topics": ("test/nosubscribe",), "topic_prefix": f"{name}/",
    }  # fmt: skip
    for key, value in settings.items():
        setattr(suite, key, value)
    return suite


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/suites", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder with client_test.py and client_test5.py")
    parser.add_argument("--way", choices=sorted(WAYS), help="only this entry: the front door or the core")
    parser.add_argument("--door", type=int, default=WAYS["door"], help="the front door's port")
    parser.add_argument("--core", type=int, default=WAYS["core"], help="the core's port")
    parser.add_argument("--only", nargs="*", default=[], help="only the tests with these names")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.folder.resolve()))
    failed = False
    for way in [arguments.way] if arguments.way else sorted(WAYS):
        for name in SUITES:
            print(f"--- {name} at the {way}", flush=True)
            suite = unittest.TestSuite(cases(prepare(name, getattr(arguments, way)), arguments.only))
            failed |= not unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite).wasSuccessful()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
