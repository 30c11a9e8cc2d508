"""The two ways into the mesh: the core's port for back ends and the front door's port for vehicles."""

from __future__ import annotations

from dataclasses import dataclass

from tests.stock.peer import Files

CORE = "core"
DOOR = "door"


@dataclass(frozen=True, slots=True)
class Way:
    """One way in for one test. No other test uses its vehicle (at the door) or the topics below ``prefix``."""

    name: str
    port: int
    user: str | None
    prefix: str
    web: bool = False
    tls: Files | None = None
    origin: str = ""

    def topic(self, *levels: str) -> str:
        """A topic or filter that this way permits and no other test uses."""
        return "/".join((self.prefix, *levels))


def way_in(name: str, vehicles: int, backends: int, number: int) -> Way:
    """The way ``name`` for the test with this number."""
    if name == CORE:
        return Way(CORE, backends, None, f"stock/{number}")
    vehicle = f"V{number}"
    return Way(DOOR, vehicles, vehicle, f"vehicles/{vehicle}")
