"""The provider for client certificates: a name in the certificate, which TLS has verified, is the identity. Of one that
a load balancer has verified the common name is known only.

It knows the facts of a certificate: never keys, chains or revocation, which are the listener's business. What always
holds: a certificate without a name that fits the template decides nothing, so it is as good as none; a name with a
wildcard stands for no single client, and fits none; a certificate with two names that fit is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer, TlsFacts
from mesh.policy.providers import NEXT, Provider, Verdict
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED

_NAMES: Final[Mapping[str, Callable[[TlsFacts], tuple[str, ...]]]] = {
    "common_name": lambda facts: (facts.common_name,),
    "dns": lambda facts: facts.dns,
    "uri": lambda facts: facts.uri,
    "email": lambda facts: facts.email,
    "serial": lambda facts: (facts.serial,),
    "fingerprint": lambda facts: (facts.fingerprint,),
}
FIELDS: Final = tuple(_NAMES)
"""The parts of a certificate that can name a client."""

_WILDCARD: Final = "*"


@final
class NameTemplate:
    """The form of names, such as ``VIN-{vehicle}``: text with ``place`` in it once. Raises ``ValueError`` if not."""

    __slots__ = ("_after", "_before", "text")

    def __init__(self, text: str, place: str) -> None:
        if text.count(place) != 1:
            raise ValueError(f'{text!r} must have {place} once; write it like "{place}" or "VIN-{place}"')
        self.text = text
        self._before, self._after = text.split(place)

    def identity(self, name: str) -> str:
        """The identity in a name; empty if the name does not have the form."""
        before, after = self._before, self._after
        if len(name) <= len(before) + len(after) or not name.startswith(before) or not name.endswith(after):
            return ""
        return name[len(before) : len(name) - len(after)]


@final
class Certificate(Provider):
    """``field``: one of ``FIELDS``."""

    def __init__(self, name: str, field: str, template: NameTemplate) -> None:
        super().__init__(name)
        self._field = field
        self._names = _NAMES[field]
        self._template = template

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        """Raises ``Refused`` with 0x87 (5 before MQTT 5.0) for a certificate that names several clients."""
        facts = peer.tls
        if facts is None:
            return NEXT
        found = {self._template.identity(name): name for name in self._names(facts) if _WILDCARD not in name}
        found.pop("", None)
        if len(found) > 1:
            raise Refused(NOT_AUTHORIZED, f"its certificate names several clients: {', '.join(sorted(found)):.200}")
        for identity, name in found.items():
            return Claim(identity, self.name, expires=facts.not_after, proof=f"{self._field}={name}")
        return NEXT

    def holds(self, claim: Claim) -> bool:
        """The listener ends connections whose certificate is revoked or has expired. This asks for the rule only."""
        field, _, name = claim.proof.partition("=")
        return field == self._field and self._template.identity(name) == claim.name

    def in_force(self) -> dict[str, object]:
        return {"certificate": self._field, "template": self._template.text}
