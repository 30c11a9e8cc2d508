"""Hypothesis strategies for all values that ``wire`` reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from hypothesis import strategies as st

from mesh.wire.packets import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    CLIENT_AUTH_REASONS,
    CLIENT_DISCONNECT_REASONS,
    CONNACK_REASONS,
    PUBLISHED_REASONS,
    RELEASED_REASONS,
    SERVER_DISCONNECT_REASONS,
    SUBACK_REASONS,
    UNSUBACK_REASONS,
)

Draw = Callable[[st.SearchStrategy[Any]], Any]

SURROGATES: Final[tuple[Literal["Cs"]]] = ("Cs",)

texts = st.text(st.characters(exclude_categories=SURROGATES, exclude_characters="\0"), max_size=30)
levels = st.text(st.characters(exclude_categories=SURROGATES, exclude_characters="\0+#/"), max_size=5)
topics = st.lists(levels, min_size=1, max_size=6).map("/".join).filter(bool)
binaries = st.binary(max_size=40)
packet_ids = st.integers(1, 0xFFFF)
flags = st.integers(0, 1)
twos = st.integers(0, 0xFFFF)
fours = st.integers(0, 0xFFFFFFFF)
users = st.lists(st.tuples(texts, texts), max_size=4)


@st.composite
def filters(draw: st.DrawFn, shared: bool = True) -> str:
    """Valid filters, some with a share group."""
    parts = draw(st.lists(st.one_of(levels, st.just("+")), min_size=1, max_size=6))
    if draw(st.booleans()):
        parts.append("#")
    filter = "/".join(parts)
    if not filter or filter.startswith("$share"):
        filter = "x" + filter if not filter.startswith("+") else filter
    if shared and draw(st.integers(0, 9)) == 0:
        return f"$share/{draw(levels.filter(bool))}/{filter}"
    return filter


def some(draw: Draw, fields: dict[str, st.SearchStrategy[object]]) -> Properties | None:
    """Properties with some of the fields; ``None`` if there are none."""
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), unique=True))
    made = Properties()
    empty = True
    for name in chosen:
        value = draw(fields[name])
        setattr(made, name, value)
        empty = empty and value == []
    if made.auth_data is not None and made.auth_method is None:
        made.auth_method = "m"
    return None if empty else made


MESSAGE: dict[str, st.SearchStrategy[object]] = {
    "payload_format": flags,
    "message_expiry": fours,
    "content_type": texts,
    "response_topic": topics,
    "correlation_data": binaries,
    "user": users,
}
ANSWER: dict[str, st.SearchStrategy[object]] = {"reason_string": texts, "user": users}
AUTHENTICATION: dict[str, st.SearchStrategy[object]] = {"auth_method": texts, "auth_data": binaries, "user": users}
CONNECTION: dict[str, st.SearchStrategy[object]] = {
    **AUTHENTICATION,
    "session_expiry": fours,
    "receive_maximum": st.integers(1, 0xFFFF),
    "topic_alias_maximum": twos,
    "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
}
CAPABILITIES: dict[str, st.SearchStrategy[object]] = {
    **CONNECTION,
    **ANSWER,
    "assigned_client_id": texts,
    "server_keep_alive": twos,
    "response_info": texts,
    "server_reference": texts,
    "maximum_qos": flags,
    "retain_available": flags,
    "wildcard_available": flags,
    "subscription_id_available": flags,
    "shared_available": flags,
}


@st.composite
def wills(draw: st.DrawFn, protocol: int) -> Will:
    properties = some(draw, {**MESSAGE, "will_delay": fours}) if protocol == 5 else None
    return Will(draw(topics), draw(binaries), draw(st.integers(0, 2)), draw(st.booleans()), properties)


@st.composite
def connects(draw: st.DrawFn, protocol: int) -> Connect:
    clean = draw(st.booleans())
    client_id = draw(texts)
    if not client_id and (protocol == 3 or (protocol == 4 and not clean)):
        client_id = "c"
    username = draw(st.none() | texts)
    password = draw(st.none() | binaries) if protocol == 5 or username is not None else None
    properties = None
    if protocol == 5:
        properties = some(draw, {**CONNECTION, "request_problem_info": flags, "request_response_info": flags})
    will = draw(st.none() | wills(protocol))
    return Connect(protocol, client_id, clean, draw(twos), username, password, will, properties)


@st.composite
def publishes(draw: st.DrawFn, protocol: int, from_client: bool) -> Publish:
    qos = draw(st.integers(0, 2))
    properties = None
    topic = draw(topics)
    if protocol == 5:
        fields: dict[str, st.SearchStrategy[object]] = {**MESSAGE, "topic_alias": st.integers(1, 0xFFFF)}
        if not from_client:
            fields["subscription_ids"] = st.lists(st.integers(1, 268_435_455), max_size=3)
        properties = some(draw, fields)
        if properties is not None and properties.topic_alias is not None and draw(st.booleans()):
            topic = ""
    dup = draw(st.booleans()) if qos else False
    packet_id = draw(packet_ids) if qos else 0
    payload = draw(st.one_of(binaries, st.binary(min_size=100, max_size=300)))
    return Publish(topic, payload, qos, draw(st.booleans()), dup, packet_id, properties)


@st.composite
def acks(draw: st.DrawFn, protocol: int) -> Ack:
    kind = draw(st.sampled_from((PUBACK, PUBREC, PUBREL, PUBCOMP)))
    if protocol != 5:
        return Ack(kind, draw(packet_ids))
    reasons = PUBLISHED_REASONS if kind in (PUBACK, PUBREC) else RELEASED_REASONS
    return Ack(kind, draw(packet_ids), draw(st.sampled_from(sorted(reasons))), some(draw, ANSWER))


@st.composite
def subscribes(draw: st.DrawFn, protocol: int) -> Subscribe:
    subscriptions: list[Subscription] = []
    for filter in draw(st.lists(filters(), min_size=1, max_size=4)):
        qos = draw(st.integers(0, 2))
        if protocol != 5:
            subscriptions.append(Subscription(filter, qos))
            continue
        no_local = draw(st.booleans()) and not filter.startswith("$share/")
        subscriptions.append(Subscription(filter, qos, no_local, draw(st.booleans()), draw(st.integers(0, 2))))
    properties = None
    if protocol == 5:
        ids = st.integers(1, 268_435_455).map(lambda value: [value])
        properties = some(draw, {"user": users, "subscription_ids": ids})
    return Subscribe(draw(packet_ids), subscriptions, properties)


@st.composite
def unsubscribes(draw: st.DrawFn, protocol: int) -> Unsubscribe:
    properties = some(draw, {"user": users}) if protocol == 5 else None
    return Unsubscribe(draw(packet_ids), draw(st.lists(filters(), min_size=1, max_size=4)), properties)


@st.composite
def subacks(draw: st.DrawFn, protocol: int) -> SubAck:
    kind = draw(st.sampled_from((SUBACK, UNSUBACK)))
    if protocol == 5:
        codes = sorted(SUBACK_REASONS if kind == SUBACK else UNSUBACK_REASONS)
    else:
        codes = [0, 1, 2, 0x80]
    reasons = draw(st.lists(st.sampled_from(codes), min_size=1, max_size=5)) if protocol == 5 or kind == SUBACK else []
    return SubAck(kind, draw(packet_ids), reasons, some(draw, ANSWER) if protocol == 5 else None)


@st.composite
def connacks(draw: st.DrawFn, protocol: int) -> Connack:
    reason = draw(st.sampled_from(sorted(CONNACK_REASONS)) if protocol == 5 else st.integers(0, 5))
    present = protocol != 3 and reason == 0 and draw(st.booleans())
    return Connack(present, reason, some(draw, CAPABILITIES) if protocol == 5 else None)


@st.composite
def disconnects(draw: st.DrawFn, protocol: int, from_client: bool) -> Disconnect:
    if protocol != 5:
        return Disconnect()
    reasons = CLIENT_DISCONNECT_REASONS if from_client else SERVER_DISCONNECT_REASONS
    fields = {**ANSWER, "session_expiry": fours} if from_client else {**ANSWER, "server_reference": texts}
    return Disconnect(draw(st.sampled_from(sorted(reasons))), some(draw, fields))


@st.composite
def auths(draw: st.DrawFn, from_client: bool) -> Auth:
    properties = some(draw, AUTHENTICATION) or Properties()
    if properties.auth_method is None:
        properties.auth_method = "m"
    return Auth(draw(st.sampled_from(sorted(CLIENT_AUTH_REASONS))) if from_client else 0x18, properties)


def from_client(protocol: int) -> st.SearchStrategy[Packet]:
    """Any packet that a client sends after CONNECT."""
    return st.one_of(
        publishes(protocol, True), acks(protocol), subscribes(protocol), unsubscribes(protocol), st.just(Ping(PINGREQ)),
        disconnects(protocol, True), auths(True) if protocol == 5 else acks(protocol),
    )  # fmt: skip


def from_server(protocol: int) -> st.SearchStrategy[Packet]:
    """Any packet that a server sends."""
    return st.one_of(
        publishes(protocol, False), acks(protocol), subacks(protocol), connacks(protocol), st.just(Ping(PINGRESP)),
        disconnects(protocol, False) if protocol == 5 else acks(protocol),
        auths(False) if protocol == 5 else acks(protocol),
    )  # fmt: skip
