"""All attacks by name, in the order of the table in docs/security.md."""

from __future__ import annotations

from typing import Final

from tests.attacks.attack import Attack
from tests.attacks.connect_flood import ConnectFlood
from tests.attacks.deep_topics import DeepTopics
from tests.attacks.deep_wildcards import DeepWildcards
from tests.attacks.forbidden_publish import ForbiddenPublish
from tests.attacks.full_vehicle import FullVehicle
from tests.attacks.large_filters import LargeFilters
from tests.attacks.large_topics import LargeTopics
from tests.attacks.many_sessions import ManySessions
from tests.attacks.refused_connects import RefusedConnects
from tests.attacks.retained_flood import RetainedFlood
from tests.attacks.silent_provider import SilentProvider
from tests.attacks.slow_byte import SlowByte
from tests.attacks.slow_connects import SlowConnects
from tests.attacks.stolen_client_id import StolenClientId
from tests.attacks.trickled_packets import TrickledPackets
from tests.attacks.unfinished_packets import UnfinishedPackets
from tests.attacks.unfinished_qos_2 import UnfinishedQos2
from tests.attacks.unknown_clients import UnknownClients
from tests.attacks.user_properties import UserProperties
from tests.attacks.wildcard_names import WildcardNames
from tests.attacks.withheld_pubacks import WithheldPubacks
from tests.attacks.wrong_acknowledgements import WrongAcknowledgements
from tests.attacks.wrong_packets import WrongPackets

_KINDS: Final[tuple[type[Attack], ...]] = (
    DeepWildcards, FullVehicle, WithheldPubacks, ForbiddenPublish, WrongAcknowledgements, UnfinishedQos2,
    TrickledPackets, SlowByte, SlowConnects, UnfinishedPackets, ConnectFlood, UnknownClients, SilentProvider,
    RefusedConnects, WrongPackets, ManySessions, LargeFilters, LargeTopics, RetainedFlood, DeepTopics, UserProperties,
    StolenClientId, WildcardNames,
)  # fmt: skip
ATTACKS: Final = {kind.__module__.rpartition(".")[2]: kind for kind in _KINDS}
