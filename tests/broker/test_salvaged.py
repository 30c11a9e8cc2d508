"""A broker recovers from any part of its journal that a salvage has left."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import final

import pytest

from mesh.broker.ledger import Ledger
from mesh.broker.persistence import Persistence
from mesh.broker.records import SESSION
from mesh.broker.session import Interest, Session
from mesh.journal import Journal, JournalLimits
from mesh.journal.salvage import salvage
from mesh.session.message import Message
from mesh.session.outbound import Delivery
from mesh.wire.packets import Subscription
from tests.fakes.disk import Disk
from tests.support.items import recovered

LIMITS = JournalLimits(segment=512, step=64)
WINDOW = 16


@final
class Opened:
    """A journal, and the calls that its commit thread asks for."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.journal = Journal.open(folder, limits=LIMITS, notify=self._calls.put, files=disk)

    def settle(self) -> None:
        self.journal.commit()
        while self.journal.backlog_bytes:
            self._calls.get(timeout=30)()


def message(number: int) -> Message:
    return Message("vehicles/CAR-7/cmd", b"payload %d" % number, 1, False, b"", 0.0)


def fill(opened: Opened, chance: random.Random) -> None:
    """Sessions with all kinds of items, each in a frame of its own."""
    persistence = Persistence(opened.journal)
    sessions = []
    for number in range(4):
        id = persistence.new_id()
        session = Session(id, (1, f"CAR-{number}", "c"), f"CAR-{number}", WINDOW, persistence.depth)
        session.durable = True
        persistence.keep_session(session)
        interest = Interest(session, Subscription(f"vehicles/CAR-{number}/#", 1, False, False, 0), 0)
        persistence.keep_interest(interest)
        session.incoming[7] = persistence.keep_incoming(session, 7)
        session.ledger = Ledger("core", 1, 5)
        persistence.keep_ledger(session, session.ledger)
        sessions.append(session)
        opened.settle()
    for number in range(30):
        made = message(number)
        receivers = chance.sample(sessions, chance.randrange(1, 4))
        if len(receivers) > 1:
            persistence.share(made)
        opened.settle()
        for session in receivers:
            delivery = Delivery(made, 1, False, (), 0.0, size=made.size())
            session.outbound.push(delivery)
            persistence.keep(session, delivery, made)
            opened.settle()
        if len(receivers) > 1:
            persistence.unshare(made)
        persistence.keep_retained(made)
        if chance.random() < 0.3:
            persistence.keep_session(chance.choice(sessions))
        opened.settle()


def forget(persistence: Persistence, session: Session) -> None:
    """End a session, as the broker does."""
    while (delivery := session.outbound.drop_any()) is not None:
        persistence.forget(delivery)
    for interest in session.interests.values():
        persistence.forget_interest(interest)
    for item in session.incoming.values():
        persistence.drop(item)
    persistence.forget_state(session)


@pytest.mark.parametrize("seed", range(30))
def test_a_broker_recovers_from_what_is_left(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    disk = Disk()
    before = Opened(tmp_path, disk)
    fill(before, chance)
    before.journal.close()
    segments = [path for path in disk.paths() if path.suffix == ".log"]
    for path in chance.sample(segments, chance.randrange(1, 4)):
        if chance.random() < 0.5:
            disk.unlink(path)
        else:
            for _ in range(3):
                disk.damage(path, chance.randrange(min(300, len(disk.content(path)))))
    salvage(disk, tmp_path, None, lambda kind: kind == SESSION)
    again = Opened(tmp_path, disk)
    persistence = Persistence(again.journal)
    found = recovered(persistence, again.journal.live(), WINDOW)
    for session in found.sessions.values():
        for delivery in list(session.outbound.waiting) + list(session.outbound.in_flight.values()):
            assert persistence.load(delivery).topic_bytes == b"vehicles/CAR-7/cmd"
    for item, *_ in found.retained:
        assert persistence.read(item).topic_bytes == b"vehicles/CAR-7/cmd"
    for session in list(found.sessions.values()):
        forget(persistence, session)
    again.settle()
    again.journal.close()
