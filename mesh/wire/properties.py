"""The properties of MQTT 5.0 (section 2.2.2.2) as one value.

``None`` (or an empty list) means that the property is absent. A packet without properties has no ``Properties``.
``decode`` checks which packet may have which property.
"""

from __future__ import annotations

from typing import ClassVar, final


@final
class Properties:
    """Every property of table 2-4. Times are in seconds, sizes in bytes; user properties keep order and duplicates."""

    FIELDS: ClassVar[tuple[str, ...]] = (
        "payload_format", "message_expiry", "content_type", "response_topic", "correlation_data",
        "subscription_ids", "session_expiry", "assigned_client_id", "server_keep_alive", "auth_method", "auth_data",
        "request_problem_info", "will_delay", "request_response_info", "response_info", "server_reference",
        "reason_string", "receive_maximum", "topic_alias_maximum", "topic_alias", "maximum_qos", "retain_available",
        "user", "maximum_packet_size", "wildcard_available", "subscription_id_available", "shared_available",
    )  # fmt: skip
    __slots__ = FIELDS

    def __init__(self) -> None:
        self.payload_format: int | None = None
        self.message_expiry: int | None = None
        self.content_type: str | None = None
        self.response_topic: str | None = None
        self.correlation_data: bytes | None = None
        self.subscription_ids: list[int] = []
        self.session_expiry: int | None = None
        self.assigned_client_id: str | None = None
        self.server_keep_alive: int | None = None
        self.auth_method: str | None = None
        self.auth_data: bytes | None = None
        self.request_problem_info: int | None = None
        self.will_delay: int | None = None
        self.request_response_info: int | None = None
        self.response_info: str | None = None
        self.server_reference: str | None = None
        self.reason_string: str | None = None
        self.receive_maximum: int | None = None
        self.topic_alias_maximum: int | None = None
        self.topic_alias: int | None = None
        self.maximum_qos: int | None = None
        self.retain_available: int | None = None
        self.user: list[tuple[str, str]] = []
        self.maximum_packet_size: int | None = None
        self.wildcard_available: int | None = None
        self.subscription_id_available: int | None = None
        self.shared_available: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Properties) and all(
            getattr(self, name) == getattr(other, name) for name in Properties.FIELDS
        )

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={value!r}" for name in Properties.FIELDS if (value := getattr(self, name)) not in (None, [])
        )
        return f"Properties({fields})"
