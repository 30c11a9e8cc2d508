"""The form of the broker's journal items: their kinds, and the layout of each kind's ``meta``.

Only ``Persistence``, which writes the items, and ``ItemReader``, which reads them after a restart, use the layouts; it
must never know when an item is written or dropped. What always holds: a layout never changes except at its end, so that
journals of earlier versions can be read.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import Final

from mesh.broker.peer import Peer, TlsFacts
from mesh.broker.sender import Sender
from mesh.broker.session import Session
from mesh.session.outbound import Delivery
from mesh.session.record import SHARED

# Kinds of items. Those from 16 on belong to the core.
SESSION: Final = 1
INTEREST: Final = 2
DELIVERY: Final = 3
BODY: Final = 4
RELEASE: Final = 5
INCOMING: Final = 6
LEDGER: Final = 8
RETAINED: Final = 9
DEAD_LETTER: Final = 10
TOMBSTONE: Final = 11  # of a fleet-wide topic whose retained message was deleted
FAN_OUT: Final = 12  # of a message for many receivers, some of which may not have it

# Layouts. That of a session is JSON, see ``Persistence.keep_session``.
# options, subscription identifier; then the retained backlog, if there is any; then the filter
INTEREST_META: Final = struct.Struct("!BI")
DUE_META: Final = struct.Struct("!QQ")  # the backlog: after which item, up to which item
HAS_DUE: Final = 0x40  # in the options
INCOMING_META: Final = struct.Struct("!H")
LEDGER_META: Final = struct.Struct("!HH")  # first and last identifier; then the instance
RETAINED_META: Final = struct.Struct("!d")  # when it expires; then the topic, and with NUL between JSON of its sender
TOMBSTONE_META: Final = struct.Struct("!d")  # when the message was deleted; then the topic
FAN_OUT_META: Final = struct.Struct("!QQQ")  # body, session of the publisher, last session; then JSON of the rest
LETTER_META: Final = struct.Struct("!dBQIH")  # time, reason, body, size, length of the share; then the share, the topic


def delivery_meta(delivery: Delivery) -> bytes:
    """The delivery's record, with the number of subscription identifiers; then these, then the shared group."""
    identifiers = delivery.subscription_ids
    meta = SHARED.pack(delivery, len(identifiers))
    if identifiers:
        meta += struct.pack(f"!{len(identifiers)}I", *identifiers)
    return meta + delivery.group.encode() if delivery.group else meta


def session_key(meta: bytes) -> tuple[str, str]:
    """The name (of a vehicle, or of a back end's user) and the client id in the record of a session."""
    state = json.loads(meta)
    return str(state[1]), str(state[2])


def origin_state(session: Session) -> list[str]:
    """Where the client of a session with a will was last connected from, as far as bans go by it: its address and, if
    it had a certificate, that one's serial number and fingerprint."""
    if session.will is None or not session.origin.address:
        return []
    address, tls = session.origin.address, session.origin.tls
    return [address] if tls is None or not tls.fingerprint else [address, tls.serial, tls.fingerprint]


def origin_of(state: list[str]) -> Peer:
    """The inverse of ``origin_state``."""
    tls = TlsFacts("", "", serial=state[1], fingerprint=state[2]) if len(state) > 1 else None
    return Peer(state[0], 0, "", tls)


def retained_meta(expires: float, topic: bytes, sender: Sender | None) -> bytes:
    """The record of a retained message. ``sender``: the client that published it, if one did."""
    meta = RETAINED_META.pack(expires) + topic
    if sender is None:
        return meta
    state: list[object] = [*sender.key, *sender.roles]
    if sender.provider:
        state.append([sender.provider])
    return b"\0".join((meta, json.dumps(state).encode()))


def retained_topic(meta: bytes) -> str:
    """The topic in the record of a retained message."""
    return meta[RETAINED_META.size :].partition(b"\0")[0].decode()  # no topic has a NUL [MQTT-4.7.3-2]


def retained_sender(meta: bytes) -> Sender | None:
    """The sender in the record of a retained message, without its topics."""
    text = meta[RETAINED_META.size :].partition(b"\0")[2]
    if not text:
        return None
    kind, name, client_id, *roles = json.loads(text)
    provider = roles.pop()[0] if roles and isinstance(roles[-1], list) else ""
    return Sender((kind, name, client_id), tuple([sys.intern(role) for role in roles]), sys.intern(provider))


def letter_texts(meta: bytes) -> tuple[str, str]:
    """The share and the topic in the record of a dead letter."""
    end = LETTER_META.size + int(LETTER_META.unpack_from(meta)[4])
    return meta[LETTER_META.size : end].decode(), meta[end:].decode()
