"""Brokers whose long work is counted: calls of the journal in each turn, and lines of the tree of topics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from mesh.broker.settings import Settings
from mesh.wire import tree
from tests.fakes.store import CountingStore
from tests.support.bench import Bench

LEVELS = 125
COUNT = 20_000


def bench(**options: Any) -> Bench:
    settings = Settings()
    settings.system_interval = 0.0
    for name, value in options.items():
        setattr(settings, name, value)
    return Bench(settings, CountingStore())


def turns(mesh: Bench, most: int = 10_000) -> list[int]:
    """Run turns until no work is left; the calls of the journal in each."""
    store = mesh.store
    assert isinstance(store, CountingStore)
    found = [store.calls]
    store.calls = 0
    while mesh.broker.end_turn():
        found.append(store.calls)
        store.calls = 0
        assert len(found) < most
    found.append(store.calls)
    store.calls = 0
    mesh.turn()
    store.calls = 0
    return found


def lines(call: Callable[[], object]) -> int:
    """How many lines of the tree of topics ``call`` executes."""
    count = 0

    def local(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, event: str, _: object) -> object:
        return local if frame.f_code.co_filename == tree.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
