"""The thread that exports ended spans, so that the loop does not.

It knows a bounded queue, an exporter and the count of exported and dropped spans. It must never know the content of a
span. What always holds: ``recorded == exported + dropped + queued``; putting a span never waits; an unavailable
endpoint costs spans, one log line when it fails and one when it recovers, and nothing else; a change of the endpoint
costs no span.

The SDK's batch processor is not used because it drops spans without a readable count, and because it needs spans that
are complete objects: those cost the loop ten times as much (47 against 4.8 µs, measured side by side).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Event, Thread, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final, final

from mesh.telemetry.spans import LiveSpan

if TYPE_CHECKING:  # the SDK takes 15 MB and a fifth of a second, and only a node that exports spans needs it
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("mesh.telemetry")

# 8,192 spans are about 6 MB: the memory that a node may use for traces that it cannot send.
QUEUE: Final = 8192
# Encoding a span takes 30 to 140 µs in which no other thread runs Python: 32 of them block the loop for less than the
# interpreter's switch interval of 5 ms. The request is some 11 KB.
BATCH: Final = 32
# A trace should be visible soon after the message.
DELAY: Final = 1.0

_CANCEL_SECONDS: Final = 0.5  # for a cancelled request to return; the thread is a daemon if it does not
_EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Receiver:
    """Where spans are sent. ``endpoint`` is its name in log lines."""

    exporter: SpanExporter
    endpoint: str


@final
class ExportThread:
    """Owns one daemon thread from ``start`` to ``close``.

    Only the loop's thread writes ``recorded``; only the export thread writes ``exported`` and the count of spans
    dropped late. So no counter needs a lock, and any thread may read them.
    """

    def __init__(
        self,
        receiver: Receiver,
        readable: Callable[[LiveSpan], ReadableSpan],
        queue: int = QUEUE,
        batch: int = BATCH,
        delay: float = DELAY,
    ) -> None:
        self._receiver = receiver
        self._busy: Receiver | None = None  # what a batch is being sent to
        self._readable = readable
        self._limit = queue
        self._batch = batch
        self._delay = delay
        self._queue: deque[LiveSpan] = deque()
        self._wake = Event()
        self._settled = Condition()
        self._stopping = False
        self._reachable = True
        self._last_message = _LastMessage()
        self._thread = Thread(target=self._run, name="mesh-traces", daemon=True)
        self.recorded = 0
        self.exported = 0
        self._dropped_full = 0
        self._dropped_late = 0

    @property
    def dropped(self) -> int:
        """Spans lost: the queue was full, or the endpoint did not accept them."""
        return self._dropped_full + self._dropped_late

    @property
    def queued(self) -> int:
        """Spans in the queue or being exported."""
        return self.recorded - self.exported - self.dropped

    @property
    def endpoint(self) -> str:
        """Where spans are sent at present."""
        return self._receiver.endpoint

    @property
    def reachable(self) -> bool:
        """Whether the endpoint accepted the last batch (True before the first)."""
        return self._reachable

    def start(self) -> None:
        """Start the thread. Call it once."""
        logging.getLogger(_EXPORTER_LOGGER).addFilter(self._last_message)
        self._thread.start()

    def put(self, span: LiveSpan) -> None:
        """Queue an ended span; drop and count it if the queue is full. Only the loop's thread may call this."""
        self.recorded += 1
        waiting = len(self._queue)
        if waiting >= self._limit or self._stopping:
            self._dropped_full += 1
            return
        self._queue.append(span)
        if waiting + 1 == self._batch:  # further spans need not wake it again
            self._wake.set()

    def move(self, receiver: Receiver) -> Receiver:
        """Send to another receiver from now on, also what is queued. Returns the one before, for ``retire``."""
        before, self._receiver = self._receiver, receiver
        self._reachable = True
        self._wake.set()
        return before

    def retire(self, receiver: Receiver, seconds: float) -> None:
        """Shut down a receiver that is not used any longer. A request that takes more than ``seconds`` is ended, and
        its spans go to the present receiver. Blocks: do not call it on the loop.
        """
        with self._settled:
            self._settled.wait_for(lambda: self._busy is not receiver, seconds)
        receiver.exporter.shutdown()

    def flush(self, seconds: float) -> bool:
        """Wait until every span put so far is exported or dropped; return False at the timeout. Blocks: do not call it
        on the loop.
        """
        target = self.recorded
        end = monotonic() + seconds
        with self._settled:
            while self.exported + self.dropped < target:
                left = end - monotonic()
                if left <= 0.0 or not self._thread.is_alive():
                    return False
                self._wake.set()
                self._settled.wait(left)
        return True

    def close(self, seconds: float) -> None:
        """Export the queue within ``seconds``, drop the rest, end the thread. Blocks: do not call it on the loop. A
        second call is harmless.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)
        self._receiver.exporter.shutdown()  # ends a waiting retry and the running request
        self._thread.join(_CANCEL_SECONDS)
        logging.getLogger(_EXPORTER_LOGGER).removeFilter(self._last_message)
        if not self._thread.is_alive():
            self._dropped_full += len(self._queue)
            self._queue.clear()

    def _run(self) -> None:
        self._last_message.thread = get_ident()
        while True:
            if not self._stopping and len(self._queue) < self._batch:
                self._wake.wait(self._delay)
                self._wake.clear()
            while self._queue:
                self._export_batch()
                if self._stopping and not self._reachable:
                    return  # the endpoint will not accept more within the deadline either
            if self._stopping:
                return

    def _export_batch(self) -> None:
        count = min(self._batch, len(self._queue))
        batch = [self._queue.popleft() for _ in range(count)]
        receiver = self._busy = self._receiver
        failure = self._send(receiver.exporter, batch)
        moved = receiver is not self._receiver
        if failure and moved:
            self._queue.extendleft(reversed(batch))
        elif failure:
            self._dropped_late += count
        else:
            self.exported += count
        with self._settled:
            self._busy = None
            self._settled.notify_all()
        if not moved:
            self._report(receiver.endpoint, failure)

    def _send(self, exporter: SpanExporter, batch: list[LiveSpan]) -> str:
        """Export a batch; return the error, empty if there is none."""
        self._last_message.text = ""
        try:
            result = exporter.export([self._readable(span) for span in batch])
        except Exception as error:  # noqa: BLE001 - a failing exporter or template must not end the thread
            return f"{type(error).__name__}: {error}"
        if result.name == "SUCCESS":
            return ""
        return self._last_message.text or "the exporter gave no reason"

    def _report(self, endpoint: str, failure: str) -> None:
        """Log one line per change of state: an endpoint that is unavailable for a day costs two lines."""
        if failure and self._reachable and not self._stopping:
            log.warning(
                "traces cannot be sent to %s and are dropped until it answers; messages are not affected: %s",
                endpoint,
                failure,
            )
        elif not failure and not self._reachable:
            log.warning("traces are sent to %s again; %d spans were dropped so far", endpoint, self.dropped)
        self._reachable = not failure


class _LastMessage(logging.Filter):
    """Keeps the last message that the SDK's exporter logs on the export thread, and suppresses it: it repeats at every
    retry."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = 0
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self.thread:
            return True
        self.text = record.getMessage()
        return False
