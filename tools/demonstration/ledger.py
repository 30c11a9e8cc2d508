"""The ledger: the messages that were sent, that arrived and that are missing.

It knows numbers of messages per vehicle; it must never know sockets. What always holds: a message counts as missing
until it has arrived; if it arrives again, only the count of repeats changes; any thread may call every method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final


@final
class Account:
    """The messages of one vehicle. Its commands have increasing numbers."""

    __slots__ = ("delivered", "disordered", "dropped", "heard", "last", "newest", "repeats", "reported", "sent")

    def __init__(self) -> None:
        self.sent: set[int] = set()
        self.delivered: set[int] = set()
        self.reported: set[int] = set()
        self.heard: set[int] = set()
        self.newest = 0
        self.disordered = 0
        self.repeats = 0
        self.dropped = 0
        self.last = ""

    @property
    def waiting(self) -> int:
        """Commands on their way to the vehicle."""
        return len(self.sent - self.delivered)


@final
@dataclass(frozen=True, slots=True)
class Totals:
    """The whole fleet. ``missing`` are commands and reports that have not arrived (yet)."""

    sent: int
    delivered: int
    reported: int
    heard: int
    repeats: int
    refused: int
    disordered: int
    dropped: int

    @property
    def missing(self) -> int:
        return self.sent - self.delivered + self.reported - self.heard

    @property
    def flawless(self) -> bool:
        """Whether everything arrived, in order, and no connection was dropped."""
        return self.sent > 0 and not (self.missing or self.refused or self.disordered or self.dropped)


@final
class Ledger:
    """The accounts of a fleet."""

    def __init__(self, vehicles: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._accounts = {vehicle: Account() for vehicle in vehicles}
        self._refused: dict[str, int] = {}

    def sent(self, vehicle: str, number: int) -> None:
        """A command was handed to the back end's client."""
        with self._lock:
            self._accounts[vehicle].sent.add(number)

    def refused(self, why: str) -> None:
        """The core refused a command."""
        with self._lock:
            self._refused[why] = self._refused.get(why, 0) + 1

    def delivered(self, vehicle: str, number: int, text: str) -> bool:
        """A command reached its vehicle; ``False`` if it had arrived before."""
        with self._lock:
            account = self._accounts[vehicle]
            if number in account.delivered:
                account.repeats += 1
                return False
            account.delivered.add(number)
            account.disordered += number < account.newest
            account.newest = max(account.newest, number)
            account.last = text
            return True

    def reported(self, vehicle: str, number: int) -> None:
        """The vehicle answered a command."""
        with self._lock:
            self._accounts[vehicle].reported.add(number)

    def heard(self, vehicle: str, number: int) -> None:
        """The back end got a vehicle's answer."""
        with self._lock:
            account = self._accounts[vehicle]
            account.repeats += number in account.heard
            account.heard.add(number)

    def dropped(self, vehicle: str) -> None:
        """A vehicle lost its connection, which it had not closed."""
        with self._lock:
            self._accounts[vehicle].dropped += 1

    def account(self, vehicle: str) -> Account:
        """One vehicle's account as it is now: a copy."""
        with self._lock:
            now, copy = self._accounts[vehicle], Account()
            for name in Account.__slots__:
                value = getattr(now, name)
                setattr(copy, name, set(value) if isinstance(value, set) else value)
            return copy

    def refusals(self) -> dict[str, int]:
        """The reasons why the core refused commands, with counts."""
        with self._lock:
            return dict(self._refused)

    def totals(self) -> Totals:
        with self._lock:
            accounts = self._accounts.values()
            return Totals(
                sent=sum(len(account.sent) for account in accounts),
                delivered=sum(len(account.delivered & account.sent) for account in accounts),
                reported=sum(len(account.reported) for account in accounts),
                heard=sum(len(account.heard & account.reported) for account in accounts),
                repeats=sum(account.repeats for account in accounts),
                refused=sum(self._refused.values()),
                disordered=sum(account.disordered for account in accounts),
                dropped=sum(account.dropped for account in accounts),
            )
