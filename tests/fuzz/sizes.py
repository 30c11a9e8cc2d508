"""Checks the state of a broker against its limits, and its journal against its state."""

from __future__ import annotations

from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.principal import VEHICLE
from mesh.broker.quotas import MESSAGE, Share, filter_weight
from mesh.broker.session import Session
from mesh.broker.settings import HOLD
from mesh.wire.topics import is_shared
from tests.fuzz.store import CrashStore
from tests.fuzz.watch import insist
from tests.support.items import owned_items

_SLACK: Final = 64  # packets of one read that may exceed a limit
_HELD: Final = 4096  # answers that wait for the journal, which is never far behind in these tests
_CORES: Final = 24  # that may be connected at a time: all clients


def check(broker: Broker, store: CrashStore) -> None:
    """Check everything. Raises ``Breach``, which says what is wrong."""
    alive = broker.sessions.all()
    sessions = [*alive, *broker.sessions.ending]
    depth = sum(len(session.outbound) for session in sessions)
    said = broker.persistence.depth.messages
    insist(said == depth, f"depth says {said}, there are {depth}")
    connected = sum(session.connection is not None for session in sessions)
    counted = broker.closing.connections
    insist(counted == connected, f"{counted} connections are counted, there are {connected}")
    interests = sum(len(session.interests) for session in sessions)
    insist(len(broker.subscriptions) == interests, f"{len(broker.subscriptions)} subscriptions counted, {interests}")
    for session in alive:
        _check_session(broker, session)
    _check_letters(broker)
    insist(len(broker.retained) <= broker.settings.max_retained, "more retained messages than allowed")
    insist(len(alive) <= broker.settings.max_sessions, "more sessions than allowed")
    _check_quotas(broker)
    owned = owned_items(broker)
    insist(owned == set(store.items), _difference(owned, store))


def _check_quotas(broker: Broker) -> None:
    """Count again what the shares of all identities count."""
    quotas, held = broker.quotas, broker.retained._held
    counted = {(share.kind, share.name): _parts(share) for share in quotas.shares()}
    there: dict[tuple[int, str], list[int]] = {}
    memory = loaded = 0
    for session in [*broker.sessions.all(), *broker.sessions.ending]:
        parts = there.setdefault((session.kind, session.key[1]), [0, 0, 0, 0, 0])
        weight = 0 if session.ended else session.weight
        parts[0] += not session.ended and not session.inbox
        parts[1] += weight
        filters = sum(filter_weight(filter) for filter in session.interests)
        parts[2] += filters
        parts[4] += session.outbound.bytes
        memory += weight + filters
        loaded += sum(one.loaded for one in (*session.outbound.waiting, *session.outbound.in_flight.values()))
    for one in held.values():
        there.setdefault((one.share.kind, one.share.name), [0, 0, 0, 0, 0])[3] += one.size
        memory += one.memory
    insist(counted == there, f"the shares count {counted}, there are {there}")
    insist(len(held) == len(broker.retained), f"{len(held)} retained messages are counted")
    depth = broker.persistence.depth
    insist(depth.loaded == loaded, f"{depth.loaded} bytes in memory are counted, there are {loaded}")
    memory += loaded + MESSAGE * (depth.messages + len(broker.letters))
    insist(quotas.memory() == memory, f"{quotas.memory()} bytes of memory are counted, there are {memory}")


def _parts(share: Share) -> list[int]:
    return [share.sessions, share.session_bytes, share.subscriptions, share.retained, share.bytes]


def _check_letters(broker: Broker) -> None:
    settings, letters = broker.settings, broker.letters
    found = letters.queue.after(0, len(letters))
    size = sum(letter.size for letter in found)
    insist((len(found), size) == (len(letters), letters.queue.bytes), f"{len(letters)} letters are counted")
    shares: dict[str, int] = {}
    for letter in found:
        shares[letter.share] = shares.get(letter.share, 0) + letter.size
    counted = {name: share.bytes for name, share in letters._shares.items()}
    insist(counted == shares, f"{counted} are counted, there are {shares}")
    lent = {item for given in broker.readers._lent.values() for item in given}
    insist({letter.item for letter in found if letter.lent} <= lent, "a letter is lent to no reader")
    above = settings.hold_bytes if settings.dead_letter_when_full == HOLD else 0
    insist(size <= settings.dead_letter_bytes + above, f"{size} bytes of dead letters")
    most = settings.dead_letter_share + above
    insist(max(shares.values(), default=0) <= most, f"a share is too large: {shares}")
    insist(not (letters.waiting and above == 0), "a publisher waits, and the oldest letter could be dropped")


def _check_session(broker: Broker, session: Session) -> None:
    settings, outbound = broker.settings, session.outbound
    deliveries = [*outbound.waiting, *outbound.in_flight.values()]
    size = sum(delivery.size for delivery in deliveries)
    insist(outbound.bytes == size, f"{session.key}: {outbound.bytes} bytes are counted, there are {size}")
    queues = (settings.backend_queue_messages, settings.max_queue_messages, settings.tier_queue_messages)
    most = max(*queues, settings.inbox_messages)
    if settings.backend_when_full == HOLD:
        most += settings.hold_messages
    if session.kind == VEHICLE and not session.inbox:
        most += settings.in_flight + _CORES * settings.receive_maximum  # see ``Pressure``
    insist(len(deliveries) <= most + 2 * settings.in_flight, f"{session.key}: {len(deliveries)} deliveries")
    insist(len(session.interests) <= settings.max_subscriptions, f"{session.key}: too many subscriptions")
    insist(len(session.incoming) <= 0xFFFF, f"{session.key}: too many open identifiers")
    for part in (session.retained_backlog or {}).values():
        due = len(part.topics) - part.at
        insist(due <= settings.max_retained, f"{session.key}: {due} retained messages are due")
    shared = sum(is_shared(filter) for filter in session.interests)
    insist(session.shared == shared, f"{session.key}: {session.shared} shared are counted, there are {shared}")
    connection = session.connection
    if connection is None:
        return
    insist(not connection.closing, f"{session.key} has a connection that is closed")
    receipts = len(connection.inbound.receipts)
    insist(receipts <= settings.receive_maximum + _SLACK, f"{session.key}: {receipts} publishes unanswered")
    insist(len(connection.held) <= _HELD, f"{session.key}: {len(connection.held)} answers wait")
    aliases = connection.inbound.aliases or {}
    insist(len(aliases) <= settings.topic_aliases, f"{session.key}: {len(aliases)} aliases")


def _difference(owned: set[int], store: CrashStore) -> str:
    there = set(store.items)
    lost = [store.items[id] for id in sorted(there - owned)[:5]]
    unowned = [f"item {item.id} of kind {item.kind} of session {item.owner}" for item in lost]
    return f"in the journal without an owner: {unowned}; in memory only: {sorted(owned - there)[:5]}"


def check_empty(broker: Broker, store: CrashStore) -> None:
    """Check that no state is left after all sessions have ended and no message is retained."""
    insist(len(broker.sessions) == 0, f"{len(broker.sessions)} sessions are left")
    insist(not broker.work and not broker.sessions.ending, "work of sessions that have ended is left")
    insist(broker.closing.connections == 0, f"{broker.closing.connections} connections are left")
    insist(broker.persistence.depth.messages == 0, f"{broker.persistence.depth.messages} messages are left")
    insist(len(broker.subscriptions) == 0, f"{len(broker.subscriptions)} subscriptions are left")
    insist(not broker.subscriptions.groups(), "shared groups are left")
    insist(len(broker.retained) == 0, f"{len(broker.retained)} retained messages are left")
    insist(not len(broker.letters), f"{len(broker.letters)} dead letters are left")
    insist(not broker.letters.waiting, "publishers wait for room in the dead letters")
    insist(not broker.refusals.held, "publishers wait for queues of back ends")
    insist(not broker.readers._lent, "dead letters are lent to sessions that have ended")
    insist(not broker.room.filling, "queues of sessions that have ended count as filling")
    insist(not store.items, _difference(set(), store))
    insist(not broker.persistence.bodies, "bodies without a delivery are counted")
    broker.sharing.check(0.0)
    insist(not broker.sharing._seen, "members that left their groups are remembered")
    insist(not broker.courier._spans, "spans are left")
    insist(not broker.quotas.identities(), f"shares are left: {broker.quotas.identities()}")
    insist(not broker.outbox.waiting, "closed connections wait for the journal")
    insist(not broker.dirty, "closed connections are dirty")


def check_timers(broker: Broker) -> None:
    """Check that no timer is left of a session that has ended, or of a message that was replaced."""
    timers, sessions = len(broker.sessions._timers), len(broker.sessions)
    insist(timers <= sessions, f"{timers} timers for {sessions} sessions")
    kept, expiring = len(broker.retained._timers), len(broker.retained._expiring)
    insist(kept == expiring, f"{kept} timers for {expiring} retained messages that expire")
