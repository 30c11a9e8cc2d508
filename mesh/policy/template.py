"""The topic template of the vehicles: which topic belongs to which vehicle.

It knows one literal prefix. It must never know the map. What always holds: a vehicle is exactly one whole level of the
topic, found without a regular expression; ``low_cardinality`` never contains a vehicle or a level deeper than the first
behind it, so what it returns may name spans and metrics.
"""

from __future__ import annotations

from typing import Final, final

PLACE: Final = "{vehicle}"


class TemplateError(ValueError):
    """Says what is wrong with a template and what would be right."""


@final
class Template:
    """``Template("vehicles/{vehicle}/#")``. Raises ``TemplateError`` for shapes other than ``literal/{vehicle}/#``."""

    __slots__ = ("_start", "prefix", "text")

    def __init__(self, text: str) -> None:
        levels = text.split("/")
        right = "write it like vehicles/{vehicle}/#"
        if levels[-2:] != [PLACE, "#"]:
            raise TemplateError(f"the template {text!r} must end in /{{vehicle}}/#; {right}")
        literal = levels[:-2]
        if not literal or not all(literal):
            raise TemplateError(f"the template {text!r} needs a name on every level before {{vehicle}}; {right}")
        for level in literal:
            if "+" in level or "#" in level or "{" in level or "}" in level or "\0" in level:
                raise TemplateError(f"the level {level!r} of the template {text!r} must be plain text; {right}")
        if text.startswith("$"):
            raise TemplateError(
                f"the template {text!r} must not begin with $: such topics are the broker's own [MQTT-4.7.2-1]"
            )
        self.text = text
        self.prefix = "/".join(literal) + "/"
        self._start = len(self.prefix)

    def vehicle_of(self, topic: str) -> str | None:
        """The vehicle that a topic name belongs to, or ``None`` for topics of the whole fleet.

        ``vehicles/V1`` is V1's too, since ``vehicles/V1/#`` matches it (MQTT 5.0 section 4.7.1.2).
        """
        if not topic.startswith(self.prefix):
            return None
        end = topic.find("/", self._start)
        return (topic[self._start :] if end < 0 else topic[self._start : end]) or None

    def subtree(self, vehicle: str) -> str:
        """The literal prefix of all that lies below a vehicle, with its closing slash: ``vehicles/V1/``."""
        return f"{self.prefix}{vehicle}/"

    def fill(self, text: str, vehicle: str) -> str:
        """A text of the topology with the vehicle in its places, such as a filter of the inbox."""
        return text.replace(PLACE, vehicle)

    def low_cardinality(self, topic: str) -> str:
        """The topic with ``{vehicle}`` for the vehicle, and no more than one level behind it.

        ``vehicles/V1/cmd`` becomes ``vehicles/{vehicle}/cmd``, and so does ``vehicles/V1/cmd/lights/on``. Of a topic
        that is no vehicle's two levels are kept.
        """
        vehicle = self.vehicle_of(topic)
        if vehicle is None:
            return _cut(topic, 2)
        rest = topic[self._start + len(vehicle) + 1 :]
        return f"{self.prefix}{PLACE}/{_cut(rest, 1)}" if rest else f"{self.prefix}{PLACE}"

    def __reduce__(self) -> tuple[type[Template], tuple[str]]:
        """A topology is sent to other processes, and a compiled class cannot be pickled by its slots."""
        return Template, (self.text,)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _cut(topic: str, levels: int) -> str:
    """The first ``levels`` levels."""
    at = -1
    for _ in range(levels):
        at = topic.find("/", at + 1)
        if at < 0:
            return topic
    return topic[:at]
