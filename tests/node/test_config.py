"""What a node derives from its configuration: its broker's limits and its proofs towards other nodes."""

from __future__ import annotations

import pytest

from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.settings import DEAD_LETTER, DROP_OLDEST, HOLD, REJECT
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from tests.support.configs import config


def connect(core: str, password: bytes) -> Connect:
    return Connect(5, core, False, 60, core, password)


def test_edge_accepts_the_core_with_its_password() -> None:
    password = config("core").tier_password("edge-1")
    principal = config("edge-1").admit_core(connect("core", password), Peer("192.0.2.1", 7), None)
    assert (principal.name, principal.kind) == ("core", TIER)


@pytest.mark.parametrize(
    ("edge", "core", "password"),
    [
        ("edge-2", "core", config("core").tier_password("edge-1")),
        ("edge-1", "core-2", config("core").tier_password("edge-1")),
        ("edge-1", "core", config("core", secret=b"t" * 32).tier_password("edge-1")),
        ("edge-1", "core", b"\xff no proof"),
        ("edge-1", "core", b""),
    ],
    ids=["another edge", "another core", "another mesh", "no proof", "nothing"],
)
def test_tier_password_is_invalid_for_another_edge_or_core(edge: str, core: str, password: bytes) -> None:
    with pytest.raises(Refused, match="did not prove"):
        config(edge).admit_core(connect(core, password), Peer("192.0.2.1", 7), None)


def test_inbox_limits_differ_from_session_limits() -> None:
    more = (
        'inbox: {subscribe: ["vehicles/{vehicle}/#"], max_messages: 7, max_bytes: 2KiB, when_full: drop_oldest}\n'
        "limits: {queue_messages: 9, queue_bytes: 3KiB}\n"
    )
    settings = config("edge-1", more).broker_settings()
    assert (settings.inbox_messages, settings.inbox_bytes, settings.inbox_when_full) == (7, 2048, DROP_OLDEST)
    assert (settings.max_queue_messages, settings.max_queue_bytes) == (9, 3072)
    assert config("edge-1").broker_settings().inbox_when_full == REJECT


def test_dead_letters_and_queues_of_back_ends_have_their_limits() -> None:
    more = (
        'inbox: {subscribe: ["vehicles/{vehicle}/#"], when_full: dead_letter}\n'
        "dead_letters: {bytes: 8MiB, share: 4MiB, age: 1d, when_full: hold}\n"
        "limits: {backend_queue_messages: 5, backend_queue_bytes: 2KiB}\n"
    )
    settings = config("edge-1", more).broker_settings()
    assert (settings.inbox_when_full, settings.dead_letter_when_full) == (DEAD_LETTER, HOLD)
    assert (settings.dead_letter_bytes, settings.dead_letter_share, settings.dead_letter_age) == (
        8 << 20, 4 << 20, 86_400.0
    )  # fmt: skip
    assert (settings.backend_queue_messages, settings.backend_queue_bytes) == (5, 2048)
    assert settings.node == "edge-1"


def test_a_letter_fits_the_tier_link_that_its_message_came_by() -> None:
    """A client's message may have as many levels and user properties as are allowed; a letter has more."""
    clients, members = config("edge-1").client_limits(), config("edge-1").member_limits()
    assert members.max_topic_levels > clients.max_topic_levels
    assert members.max_user_properties >= clients.max_user_properties + 4 + 2


def test_what_access_allows_is_known_for_the_clients_of_the_journal() -> None:
    grants = config("edge-1").grants()

    def may(key: tuple[int, str, str], topic: str) -> bool:
        return grants.of(key, ()).may_publish(topic)

    assert may((VEHICLE, "V1", "c"), "vehicles/V1/status")
    assert not may((VEHICLE, "V1", "c"), "vehicles/V2/status")
    assert may((BACKEND, "app", "c"), "vehicles/V2/cmd")
    assert not may((BACKEND, "app", "c"), "$SYS/forged")
