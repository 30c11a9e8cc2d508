"""The figures of a broker: its status, made from its parts on request.

It knows what the parts count: never how they work. What always holds: to read the figures changes nothing, and no part
does more work because they are read.
"""

from __future__ import annotations

from typing import final

from mesh.broker.closing import Closing
from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.deadletters import DeadLetters
from mesh.broker.letter import EXPIRED, NO_OWNER, OTHER, POISON, QUEUE_FULL, REFUSED, TOO_LARGE
from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas
from mesh.broker.refusals import Refusals
from mesh.broker.retained import Retained
from mesh.broker.room import Room
from mesh.broker.sessions import Sessions
from mesh.broker.settings import Settings
from mesh.broker.status import BrokerStatus, QuotaStatus
from mesh.broker.subscriptions import Subscriptions


@final
class Figures:
    """``status`` gives them."""

    __slots__ = (
        "_closing", "_counters", "_courier", "_letters", "_persistence", "_quotas", "_refusals", "_retained",
        "_room", "_sessions", "_settings", "_subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        counters: BrokerCounters,
        persistence: Persistence,
        quotas: Quotas,
        letters: DeadLetters,
        courier: Courier,
        room: Room,
        subscriptions: Subscriptions,
        refusals: Refusals,
        sessions: Sessions,
        retained: Retained,
        closing: Closing,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._persistence = persistence
        self._quotas = quotas
        self._letters = letters
        self._courier = courier
        self._room = room
        self._subscriptions = subscriptions
        self._refusals = refusals
        self._sessions = sessions
        self._retained = retained
        self._closing = closing

    def status(self) -> BrokerStatus:
        """Figures for ``mesh status``, metrics and ``$SYS``."""
        counters = self._counters
        return BrokerStatus(
            connected=self._closing.connections,
            sessions=len(self._sessions),
            queued=self._persistence.depth.messages,
            retained=len(self._retained),
            subscriptions=len(self._subscriptions),
            quotas=self._quota_status(),
            pressed=len(self._courier.pressure),
            delayed=len(self._courier.slowdown),
            connects=counters.connects,
            refused=counters.refused,
            takeovers=counters.takeovers,
            expired=counters.expired,
            received=counters.received,
            answered=counters.answered,
            published=counters.published,
            delivered=counters.delivered,
            rejected=counters.rejected,
            presses=self._courier.pressure.presses,
            forbidden=counters.forbidden,
            forbidden_wills=counters.forbidden_wills,
            revoked_subscriptions=counters.revoked_subscriptions,
            revoked_retained=counters.revoked_retained,
            misfits=counters.misfits,
            dropped_expired=counters.dropped_expired,
            dropped_full=counters.dropped_full,
            dropped_large=counters.dropped_large,
            dropped_offline=counters.dropped_offline,
            dropped_poison=counters.dropped_poison,
            letters=len(self._letters),
            letters_bytes=self._letters.queue.bytes,
            letters_waiting=self._letters.waiting + self._refusals.held,
            letters_full=counters.letters[QUEUE_FULL],
            letters_refused=counters.letters[REFUSED],
            letters_large=counters.letters[TOO_LARGE],
            letters_expired=counters.letters[EXPIRED],
            letters_no_owner=counters.letters[NO_OWNER],
            letters_poison=counters.letters[POISON],
            letters_other=counters.letters[OTHER],
            letters_read=counters.letters_read,
            letters_not_taken=counters.letters_not_taken,
            letters_dropped_share=counters.letters_dropped_share,
            letters_dropped_node=counters.letters_dropped_node,
            letters_dropped_age=counters.letters_dropped_age,
            filling=len(self._room.filling),
            acknowledge=counters.acknowledge.value(),
            deliver=counters.deliver.value(),
        )

    def _quota_status(self) -> QuotaStatus:
        quotas, settings = self._quotas, self._settings
        return QuotaStatus(
            memory=quotas.memory(),
            memory_limit=settings.memory,
            disk_limit=settings.disk,
            strained=quotas.strained,
            refused_sessions=quotas.refused_sessions,
            refused_subscriptions=quotas.refused_subscriptions,
            refused_retained=quotas.refused_retained,
            refused_queued=quotas.refused_queued,
            strain=quotas.strain(),
        )
