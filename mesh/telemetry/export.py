"""The thread that takes ended spans out of the loop's way and exports them.

It knows a bounded queue, an exporter and what became of each span; never what a span is about. What always holds:
``recorded == exported + dropped + queued``; putting a span never waits; an endpoint that is away costs spans, a line
in the log when it goes and one when it is back, and nothing else.

The SDK's batch processor is not used because it drops without a count that can be shown, and because it wants spans
that are finished objects: those cost the loop ten times as much (47 against 4.8 µs, measured side by side).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Event, Thread, get_ident
from time import monotonic
from typing import Final, final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mesh.telemetry.spans import LiveSpan

log = logging.getLogger("mesh.telemetry")

# 8,192 spans are about 6 MB: what a node may spend on traces that it cannot send.
QUEUE: Final = 8192
# Encoding a span takes 30 to 140 µs in which no other thread runs Python: 32 of them keep the loop waiting for less
# than the interpreter's own turn of 5 ms. The request is some 11 KB.
BATCH: Final = 32
# A trace should be on the page by the time that someone has switched to its window.
DELAY: Final = 1.0

_CANCEL_SECONDS: Final = 0.5  # for a cancelled request to return; the thread is a daemon if it does not
_EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"


@final
class ExportThread:
    """Owns one daemon thread from ``start`` to ``close``.

    ``recorded`` is written by the putting thread only, ``exported`` and what was dropped late by the export thread
    only: so none of them needs a lock, and all may be read from anywhere.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        readable: Callable[[LiveSpan], ReadableSpan],
        endpoint: str,
        queue: int = QUEUE,
        batch: int = BATCH,
        delay: float = DELAY,
    ) -> None:
        self._exporter = exporter
        self._readable = readable
        self._endpoint = endpoint
        self._limit = queue
        self._batch = batch
        self._delay = delay
        self._queue: deque[LiveSpan] = deque()
        self._wake = Event()
        self._settled = Condition()
        self._stopping = False
        self._reachable = True
        self._last_word = _LastWord()
        self._thread = Thread(target=self._run, name="mesh-traces", daemon=True)
        self.recorded = 0
        self.exported = 0
        self._dropped_full = 0
        self._dropped_late = 0

    @property
    def dropped(self) -> int:
        """Spans lost: the queue was full, or the endpoint did not take them."""
        return self._dropped_full + self._dropped_late

    @property
    def queued(self) -> int:
        """Spans that wait, or are on their way."""
        return self.recorded - self.exported - self.dropped

    @property
    def reachable(self) -> bool:
        """Whether the endpoint took the last batch (True before the first)."""
        return self._reachable

    def start(self) -> None:
        """Start the thread; to be called once."""
        logging.getLogger(_EXPORTER_LOGGER).addFilter(self._last_word)
        self._thread.start()

    def put(self, span: LiveSpan) -> None:
        """Take an ended span. Called by the loop's thread only; when the queue is full the span is dropped and
        counted.
        """
        self.recorded += 1
        waiting = len(self._queue)
        if waiting >= self._limit or self._stopping:
            self._dropped_full += 1
            return
        self._queue.append(span)
        if waiting + 1 == self._batch:  # later ones need not wake a thread that is awake
            self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait (this blocks: not on the loop) until every span put so far is exported or dropped; False if time ran
        out.
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
        """Export what is left within ``seconds``, drop the rest, end the thread. Blocks: not on the loop. Safe to
        call twice.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)
        self._exporter.shutdown()  # ends a waiting retry and the request under way
        self._thread.join(_CANCEL_SECONDS)
        logging.getLogger(_EXPORTER_LOGGER).removeFilter(self._last_word)
        if not self._thread.is_alive():
            self._dropped_full += len(self._queue)
            self._queue.clear()

    def _run(self) -> None:
        self._last_word.thread = get_ident()
        while True:
            if not self._stopping and len(self._queue) < self._batch:
                self._wake.wait(self._delay)
                self._wake.clear()
            while self._queue:
                self._export_batch()
                if self._stopping and not self._reachable:
                    return  # what the endpoint did not take now it will not take within the deadline either
            if self._stopping:
                return

    def _export_batch(self) -> None:
        count = min(self._batch, len(self._queue))
        batch = [self._queue.popleft() for _ in range(count)]
        trouble = self._send(batch)
        if trouble:
            self._dropped_late += count
        else:
            self.exported += count
        with self._settled:
            self._settled.notify_all()
        self._report(trouble)

    def _send(self, batch: list[LiveSpan]) -> str:
        """Export a batch; what went wrong, empty if nothing did."""
        self._last_word.text = ""
        try:
            result = self._exporter.export([self._readable(span) for span in batch])
        except Exception as error:  # noqa: BLE001 - an exporter or a template that fails may not end the thread
            return f"{type(error).__name__}: {error}"
        if result is SpanExportResult.SUCCESS:
            return ""
        return self._last_word.text or "the exporter gave no reason"

    def _report(self, trouble: str) -> None:
        """One line per change of state: an endpoint that is away for a day is two lines."""
        if trouble and self._reachable and not self._stopping:
            log.warning(
                "traces cannot be sent to %s and are dropped until it answers; messages are not affected: %s",
                self._endpoint,
                trouble,
            )
        elif not trouble and not self._reachable:
            log.warning("traces are sent to %s again; %d spans were dropped so far", self._endpoint, self.dropped)
        self._reachable = not trouble


class _LastWord(logging.Filter):
    """Keeps what the SDK's exporter says on our thread, instead of letting it say so at every retry."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = 0
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self.thread:
            return True
        self.text = record.getMessage()
        return False
