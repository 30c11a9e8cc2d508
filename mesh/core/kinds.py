"""The kinds of the core's journal items. Those below 16 belong to the broker (``broker/persistence.py``)."""

from __future__ import annotations

from typing import Final

SPOOLED: Final = 16  # a message for an edge
SPOOL_RELEASED: Final = 17  # the same after PUBREC
TIER_INCOMING: Final = 18  # a QoS 2 identifier of an edge
TIER_FILTER: Final = 19  # a filter that an edge has, or may have, for this core
IDENTIFIER: Final = 20  # the subscription identifier of a filter
FLEET_GIVEN: Final = 21  # an edge has the retained messages of fleet-wide topics
WITHDRAWN: Final = 22  # a retained message that edges are to delete
