"""The properties of CONNACK for a 5.0 client (MQTT 5.0 section 3.2.2.3)."""

from __future__ import annotations

from mesh.broker.principal import TIER, Principal
from mesh.broker.session import Connection, Session
from mesh.broker.settings import Settings
from mesh.wire.packets import MQTT5, Connect
from mesh.wire.properties import Properties
from mesh.wire.topics import name_error


def greeting_of(connection: Connection, connect: Connect, session: Session, settings: Settings) -> Properties | None:
    """The properties of CONNACK; ``None`` for an older client."""
    if connect.protocol != MQTT5:
        return None
    answer = Properties()
    answer.receive_maximum = settings.receive_maximum
    answer.maximum_packet_size = settings.tier_packet if session.kind == TIER else settings.max_packet
    answer.topic_alias_maximum = settings.topic_aliases
    if connection.assigned:  # [MQTT-3.1.3-6]
        answer.assigned_client_id = connect.client_id
    if connection.keep_alive != connect.keep_alive:
        answer.server_keep_alive = connection.keep_alive
    asked = connect.properties or Properties()
    if session.expiry != (asked.session_expiry or 0):
        answer.session_expiry = session.expiry
    if asked.request_response_info == 1:  # [MQTT-3.1.2-28]
        answer.response_info = _response_topic(connection.principal, connect.client_id)
    if asked.auth_method is not None:  # the exchange has succeeded; return its method and last data [MQTT-4.12.0-5]
        answer.auth_method = asked.auth_method
        answer.auth_data = asked.auth_data
    return answer


def _response_topic(principal: Principal, client_id: str) -> str | None:
    """A topic for responses to this client alone; ``None`` if its client id cannot be part of a topic."""
    topic = f"{principal.permissions.prefix}response/{client_id}"
    return topic if not name_error(topic) and principal.permissions.may_publish(topic) else None
