"""The dead letters: acknowledged messages that could not be kept where they belong.

It knows letters, their shares (a vehicle's or a back end's) and their bounds; it must never know why a queue was full,
or which clients read letters. What always holds:

* a letter is in the journal before its publisher is answered: its item is part of the receipt's position;
* the letters of the node, and those of one share, are within their bytes; with ``hold`` they exceed them at most by
  ``hold_bytes`` (see ``may_exceed``), and by what edges refuse that was on its way to them;
* a letter ends in one of three ways: a reader has acknowledged it, it is too old, or (with ``drop_oldest``) it made
  room for a newer one. The last two are counted by cause and logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.counters import BrokerCounters
from mesh.broker.letter import EXPIRED, NAMES, Letter, size_of
from mesh.broker.letterqueue import LetterQueue
from mesh.broker.notices import Notices, shortened
from mesh.broker.persistence import Persistence
from mesh.broker.principal import TIER
from mesh.broker.session import Connection, Session
from mesh.broker.settings import HOLD, Settings
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import Delivery, Depth
from mesh.wire.reasons import SUCCESS

RELEASED: Final = 1024  # publishers that one turn looks at
_SWEPT: Final = 1000  # letters whose age one tick checks

# Why a letter was dropped.
OF_SHARE: Final = 0
OF_NODE: Final = 1
TOO_OLD: Final = 2
CAUSES: Final = ("its share is full", "the dead letters of the node are full", "it is too old")


@final
class DeadLetters:
    """``answered`` is called with a receipt that need not wait any longer; ``added`` with each new letter and its
    message."""

    __slots__ = (
        "_clock", "_counters", "_notices", "_persistence", "_settings", "_shares", "_swept", "_waiting", "added",
        "answered", "depth", "queue",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        persistence: Persistence,
        counters: BrokerCounters,
        clock: Callable[[], float],
        answered: Callable[[Receipt], None],
        notices: Notices,
    ) -> None:
        self._settings = settings
        self._persistence = persistence
        self._counters = counters
        self._clock = clock
        self._notices = notices
        self._shares: dict[str, LetterQueue] = {}
        self._swept = 0  # letters up to this item were checked for their age in this round
        self._waiting: Fifo[tuple[Letter, Receipt]] = Fifo()  # letters above the bounds, whose publishers wait
        self.answered = answered
        self.added: Callable[[Letter, Message], None] = _ignore
        self.queue = LetterQueue()
        self.depth = Depth()  # the letters, for the node's memory budget

    def __len__(self) -> int:
        return len(self.queue)

    def restore(self, letters: list[Letter]) -> None:
        """Restore the letters from the journal, in the order of their items."""
        for letter in letters:
            self._add(letter)

    # Keeping

    def take(self, message: Message, reason: int, share: str, receipt: Receipt | None) -> bool:
        """Keep a message. It is durable with the receipt's position; above the bounds, with ``hold``, the receipt waits
        besides. Returns whether it is kept: a letter without a receipt is not, if there is no room.

        Call it before the publisher is answered, and before the message is dropped elsewhere."""
        letter = Letter(reason, self._clock(), share, message.topic, size_of(message, share))
        return self.keep(letter, message, receipt)

    def keep(self, letter: Letter, message: Message, receipt: Receipt | None) -> bool:
        """As ``take``, for a letter that another node made."""
        fits = self._make_room(letter.share, letter.size)
        holds = self._settings.dead_letter_when_full == HOLD
        if not fits and not (holds and receipt is not None):
            if not holds:
                self._counters.letters_dropped_share += 1
                self._notices.warn("size", "a dead letter of %s on %s does not fit the limits and is dropped",
                                   shortened(letter.share), shortened(letter.topic))  # fmt: skip
            return False
        self._persistence.keep_letter(letter, message)
        self._add(letter)
        self._count(letter)
        if receipt is not None:
            if receipt.position < letter.item:
                receipt.position = letter.item
            if not fits:
                receipt.pending += 1
                self._waiting.append((letter, receipt))
                self._notices.warn("hold", "the dead letters are full: the publishers of messages for %s wait",
                                   shortened(letter.share))  # fmt: skip
        self.added(letter, message)
        return True

    def expired(self, session: Session, delivery: Delivery) -> None:
        """A message is not sent to ``session``, because it has expired [MQTT-3.3.2-5]. It is kept if it may be."""
        self._counters.dropped_expired += 1
        if self._settings.dead_letter_expired and delivery.qos:
            self.take(self._persistence.load(delivery), EXPIRED, session.letter_share(), None)

    def _count(self, letter: Letter) -> None:
        counters = self._counters
        counters.letters[letter.reason] += 1
        self._notices.warn("taken", "a message on %s is in the dead letters of %s: %s", shortened(letter.topic),
                           shortened(letter.share), NAMES[letter.reason])  # fmt: skip

    def _add(self, letter: Letter) -> None:
        self.queue.append(letter)
        self.depth.messages += 1
        share = self._shares.get(letter.share)
        if share is None:
            share = self._shares[letter.share] = LetterQueue()
        share.append(letter)

    def _make_room(self, name: str, size: int) -> bool:
        """Whether a letter fits, after dropping what may be dropped."""
        settings, share = self._settings, self._shares.get(name)
        if size > settings.dead_letter_share or size > settings.dead_letter_bytes:
            return False
        if settings.dead_letter_when_full == HOLD:
            return self._within(0 if share is None else share.bytes, size)
        if share is not None:
            self._drop_until(share, settings.dead_letter_share - size, OF_SHARE)
        self._drop_until(self.queue, settings.dead_letter_bytes - size, OF_NODE)
        return True

    def _within(self, of_share: int, size: int) -> bool:
        settings = self._settings
        return of_share + size <= settings.dead_letter_share and self.queue.bytes + size <= settings.dead_letter_bytes

    def may_exceed(self, message: Message, shares: list[str]) -> bool:
        """With ``hold``: whether letters of a message may be above the bounds, one for each entry of ``shares``.
        Publishers that lose their connections while they wait leave such letters behind."""
        above = self._settings.hold_bytes
        added: dict[str, int] = {}
        for name in shares:
            added[name] = added.get(name, 0) + size_of(message, name)
        for name, size in added.items():
            share = self._shares.get(name)
            if size + (0 if share is None else share.bytes) > self._settings.dead_letter_share + above:
                return False
        return self.queue.bytes + sum(added.values()) <= self._settings.dead_letter_bytes + above

    def _drop_until(self, queue: LetterQueue, most: int, cause: int) -> None:
        while queue.bytes > most:
            oldest = queue.first()
            if oldest is None:
                return
            self._drop(oldest, cause)

    def _drop(self, letter: Letter, cause: int) -> None:
        counters = self._counters
        if cause == OF_SHARE:
            counters.letters_dropped_share += 1
        elif cause == OF_NODE:
            counters.letters_dropped_node += 1
        else:
            counters.letters_dropped_age += 1
        self._notices.warn("dropped", "a dead letter of %s on %s is dropped: %s", shortened(letter.share),
                           shortened(letter.topic), CAUSES[cause])  # fmt: skip
        self._forget(letter)

    def _forget(self, letter: Letter) -> None:
        self.queue.remove(letter)
        self.depth.messages -= 1
        share = self._shares[letter.share]
        share.remove(letter)
        if not len(share):
            del self._shares[letter.share]
        self._persistence.forget_letter(letter)

    # Reading

    def load(self, letter: Letter) -> Message:
        """The message of a letter."""
        return self._persistence.load_letter(letter)

    def read(self, item: int) -> None:
        """A reader has acknowledged the letter of this item."""
        letter = self.queue.get(item)
        if letter is not None:
            self._counters.letters_read += 1
            self._forget(letter)

    # Bounds

    @property
    def waiting(self) -> int:
        """How many publishers' answers wait for room."""
        return len(self._waiting)

    def release(self) -> bool:
        """Answer the publishers whose letters are within the bounds now, a bounded number of them. Called at the end of
        every turn. Returns whether the next turn has more to do.

        A publisher that has lost its connection sends a message of QoS 1 again, so its letter is dropped here. The
        letter of a message of QoS 2 stays: its identifier is open, so its repeat is no new message. So does that of a
        core's message: the ledger recognises its repeat as a message that was taken."""
        waiting = self._waiting
        before = len(waiting)
        count = min(before, RELEASED)
        for _ in range(count):
            letter, receipt = waiting.popleft()
            if receipt.closed:
                if receipt.qos == 1 and not _of_core(receipt) and self.queue.get(letter.item) is letter:
                    self._forget(letter)
                continue
            share = self._shares.get(letter.share)
            holds = self._settings.dead_letter_when_full == HOLD
            if holds and not self._within(0 if share is None else share.bytes, 0):
                waiting.append((letter, receipt))
                continue
            receipt.pending -= 1
            receipt.note(SUCCESS)
            self.answered(receipt)
        return len(waiting) < before and before > count

    def tick(self) -> None:
        """Called once a second: drop the letters that are too old, in portions."""
        before = self._clock() - self._settings.dead_letter_age
        for _ in range(_SWEPT):
            oldest = self.queue.first()
            if oldest is None or oldest.time > before:
                break
            self._drop(oldest, TOO_OLD)
        # A letter from another node may be older than those before it.
        found = self.queue.after(self._swept, _SWEPT)
        self._swept = found[-1].item if len(found) == _SWEPT else 0
        for letter in found:
            if letter.time <= before:
                self._drop(letter, TOO_OLD)


def _of_core(receipt: Receipt) -> bool:
    holder = receipt.holder
    return isinstance(holder, Connection) and holder.principal.kind == TIER


def _ignore(_letter: Letter, _message: Message) -> None:
    """There are no readers."""
