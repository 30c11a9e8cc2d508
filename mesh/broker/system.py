"""The ``$SYS`` topics: figures of this server under the names that monitoring tools know from Mosquitto.

It knows the broker's status: never the subscribers. What always holds: these messages are in memory only; no client
can publish to them, and no wildcard at the first level matches them [MQTT-4.7.2-1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, final

from mesh.broker.status import BrokerStatus
from mesh.session.message import Message
from mesh.wire.topics import matches

PREFIX: Final = "$SYS/broker/"
_MINUTES: Final = (1, 5, 15)


@final
class SystemTopics:
    """``interval``: seconds between two updates; 0: there are no such topics."""

    __slots__ = (
        "_began", "_due", "_interval", "_last", "_loads", "_maximum", "_messages", "_refreshed", "transferred",
        "version",
    )  # fmt: skip

    def __init__(self, interval: float, now: float) -> None:
        self.version = ""
        self.transferred: Callable[[], tuple[int, int]] = _no_traffic  # bytes from and to clients; the node sets it
        self._interval = interval
        self._began = now
        self._due = now
        self._refreshed = now
        self._maximum = 0
        self._last: dict[str, int] = {}
        self._loads: dict[str, list[float]] = {}
        self._messages: dict[str, Message] = {}

    def update_every(self, interval: float, now: float) -> None:
        """Another interval from now on. What was announced is forgotten if there are no such topics now."""
        if interval == self._interval:
            return
        self._interval = interval
        self._due = self._refreshed + interval if self._messages else now
        if not interval:
            self._messages.clear()
            self._last.clear()
            self._loads.clear()

    def matching(self, filter: str) -> list[Message]:
        """The current figures that a filter matches."""
        if not filter.startswith("$"):
            return []
        return [message for topic, message in self._messages.items() if matches(filter, topic)]

    def refresh(self, now: float, status: Callable[[], BrokerStatus]) -> list[Message]:
        """Update the figures if it is time; returns those that have changed."""
        if not self._interval or now < self._due:
            return []
        seconds = now - self._refreshed if self._last else self._interval  # since the last update
        self._refreshed = now
        self._due = now + self._interval
        changed: list[Message] = []
        for name, value in self._figures(now, seconds, status()).items():
            topic = PREFIX + name
            payload = value.encode()
            old = self._messages.get(topic)
            if old is None or old.payload != payload:
                message = self._messages[topic] = Message(topic, payload, 0, True, b"", now)
                changed.append(message)
        return changed

    def _figures(self, now: float, seconds: float, status: BrokerStatus) -> dict[str, str]:
        self._maximum = max(self._maximum, status.connected)
        totals = self._totals(status)
        figures = {name: str(value) for name, value in totals.items() if not name.startswith("connections")}
        figures |= {
            "version": self.version,
            "uptime": f"{int(now - self._began)} seconds",
            "clients/connected": str(status.connected),
            "clients/disconnected": str(status.sessions - status.connected),
            "clients/total": str(status.sessions),
            "clients/maximum": str(self._maximum),
            "clients/expired": str(status.expired),
            "messages/stored": str(status.queued + status.retained),
            "store/messages/count": str(status.queued + status.retained),
            "retained messages/count": str(status.retained),
            "subscriptions/count": str(status.subscriptions),
        }
        figures |= self._load(totals, seconds)
        return figures

    def _totals(self, status: BrokerStatus) -> dict[str, int]:
        """The figures that only grow."""
        bytes_in, bytes_out = self.transferred()
        dropped = status.dropped_expired + status.dropped_full + status.dropped_large + status.dropped_offline
        dropped += status.dropped_poison
        return {
            "messages/received": status.received,
            "messages/sent": status.answered + status.delivered,
            "publish/messages/received": status.published,
            "publish/messages/sent": status.delivered,
            "publish/messages/dropped": dropped,
            "bytes/received": bytes_in,
            "bytes/sent": bytes_out,
            "connections": status.connects,
        }

    def _load(self, totals: dict[str, int], seconds: float) -> dict[str, str]:
        """Rates per minute, as exponential moving averages over 1, 5 and 15 minutes (as a system's load)."""
        found: dict[str, str] = {}
        for name, total in totals.items():
            rate = (total - self._last.get(name, total)) * 60.0 / seconds
            loads = self._loads.setdefault(name, [0.0, 0.0, 0.0])
            for index, minutes in enumerate(_MINUTES):
                share = math.exp(-seconds / (60.0 * minutes))
                loads[index] = loads[index] * share + rate * (1.0 - share)
                found[f"load/{name}/{minutes}min"] = f"{loads[index]:.2f}"
        self._last = totals
        return found


def _no_traffic() -> tuple[int, int]:
    return 0, 0
