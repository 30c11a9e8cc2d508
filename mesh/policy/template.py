"""The topic template of the vehicles: maps a topic to its vehicle.

It knows one literal prefix. It must never know the map. What always holds: a vehicle is exactly one whole level of the
topic, found without a regular expression; ``low_cardinality`` never returns a vehicle or more than one level after it,
so its result may name spans and metrics.
"""

from __future__ import annotations

from typing import Final, final

PLACE: Final = "{vehicle}"


class TemplateError(ValueError):
    """An invalid template; the message says what is wrong and what would be right."""


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
                f"the template {text!r} must not begin with $, which is reserved for the server [MQTT-4.7.2-1]; {right}"
            )
        self.text = text
        self.prefix = "/".join(literal) + "/"
        self._start = len(self.prefix)

    def vehicle_of(self, topic: str) -> str | None:
        """The vehicle that a topic name belongs to, or ``None`` for topics of the whole fleet.

        ``vehicles/V1`` belongs to V1 too, as ``vehicles/V1/#`` matches it (MQTT 5.0 section 4.7.1.2).
        """
        if not topic.startswith(self.prefix):
            return None
        end = topic.find("/", self._start)
        return (topic[self._start :] if end < 0 else topic[self._start : end]) or None

    def subtree(self, vehicle: str) -> str:
        """The literal prefix of all topics below a vehicle, with the last slash: ``vehicles/V1/``."""
        return f"{self.prefix}{vehicle}/"

    def fill(self, text: str, vehicle: str) -> str:
        """A text of the topology, such as a filter of the inbox, with ``vehicle`` in place of ``{vehicle}``."""
        return text.replace(PLACE, vehicle)

    def low_cardinality(self, topic: str) -> str:
        """The topic with ``{vehicle}`` in place of the vehicle, and at most one level after it.

        ``vehicles/V1/cmd`` becomes ``vehicles/{vehicle}/cmd``, and so does ``vehicles/V1/cmd/lights/on``. A topic of no
        vehicle is cut to two levels.
        """
        vehicle = self.vehicle_of(topic)
        if vehicle is None:
            return _cut(topic, 2)
        rest = topic[self._start + len(vehicle) + 1 :]
        return f"{self.prefix}{PLACE}/{_cut(rest, 1)}" if rest else f"{self.prefix}{PLACE}"

    def __reduce__(self) -> tuple[type[Template], tuple[str]]:
        """Templates are pickled for other processes, and a compiled class cannot be pickled by its slots."""
        return Template, (self.text,)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _cut(topic: str, levels: int) -> str:
    """The first ``levels`` levels of ``topic``."""
    at = -1
    for _ in range(levels):
        at = topic.find("/", at + 1)
        if at < 0:
            return topic
    return topic[:at]
