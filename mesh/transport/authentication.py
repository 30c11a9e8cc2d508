"""Enhanced authentication (MQTT 5.0 section 4.12): the AUTH packets of one connection, whatever the method is.

It knows AUTH packets, and asks a method what to answer: never passwords, nor how an identity becomes a principal. What
always holds: every packet names the method of the CONNECT [MQTT-4.12.0-5]; who proves itself again proves the same
identity; an exchange that fails ends the connection.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.transport.refusal import Refused
from mesh.wire.packets import Auth, Connect
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    CONTINUE_AUTHENTICATION,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    RE_AUTHENTICATE,
    SUCCESS,
)

_STEPS: Final = 8  # no method needs more packets of a client


@mypyc_attr(allow_interpreted_subclasses=True)
class Proof:
    """One exchange of a method. ``identity`` is set once ``step`` has said that it is proven."""

    identity = ""

    def step(self, data: bytes) -> tuple[bytes, bool]:
        """The answer to the client's data, and whether its identity is proven with that. Raises ``Refused``."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Methods:
    """The methods that a listener offers. This one offers none."""

    required = False  # whether a CONNECT without a method is refused

    def begin(self, method: str) -> Proof | None:
        """A new exchange of a method; ``None`` if there is no such method."""
        return None


@final
class Authentication:
    """One connection's. ``identity`` is who it has proved to be; empty until then."""

    __slots__ = ("_methods", "_proof", "_steps", "identity", "method")

    def __init__(self, methods: Methods, method: str) -> None:
        self.method = method
        self.identity = ""
        self._methods = methods
        self._steps = 0
        self._proof: Proof | None = self._begin()

    def connect(self, packet: Connect) -> Auth | None:
        """CONNECT came: the AUTH to answer, or ``None`` when ``identity`` is proven; what the method then has to say
        stands in the packet's own properties, for the CONNACK. Raises ``Refused``."""
        properties = packet.properties
        assert properties is not None
        return self._advance(properties.auth_data or b"", properties)

    def proceed(self, auth: Auth, packet: Connect) -> Auth | None:
        """AUTH came before CONNACK; as ``connect``."""
        self._check(auth, CONTINUE_AUTHENTICATION)
        assert packet.properties is not None
        return self._advance(_data(auth), packet.properties)

    def again(self, auth: Auth) -> Auth:
        """AUTH came on an open connection: the answer. Raises ``Refused``, and then the connection must be closed."""
        if self._proof is None:
            self._check(auth, RE_AUTHENTICATE)
            self._proof = self._begin()
        else:
            self._check(auth, CONTINUE_AUTHENTICATION)
        properties = Properties()
        answer = self._advance(_data(auth), properties)
        if answer is None:
            properties.auth_method = self.method
            answer = Auth(SUCCESS, properties)
        return answer

    def _begin(self) -> Proof:
        proof = self._methods.begin(self.method)
        if proof is None:
            raise Refused(BAD_AUTHENTICATION_METHOD, f"there is no authentication method {self.method!r} here")
        self._steps = 0
        return proof

    def _check(self, auth: Auth, reason: int) -> None:
        named = None if auth.properties is None else auth.properties.auth_method
        if named != self.method:
            raise Refused(PROTOCOL_ERROR, "an AUTH names another method than the CONNECT")  # [MQTT-4.12.0-5]
        if auth.reason != reason:
            raise Refused(PROTOCOL_ERROR, f"an AUTH with reason 0x{auth.reason:02X} may not come here")

    def _advance(self, data: bytes, final: Properties) -> Auth | None:
        """One step of the exchange; at its end ``final`` gets what the method says last."""
        proof = self._proof
        assert proof is not None
        self._steps += 1
        if self._steps > _STEPS:
            raise Refused(PROTOCOL_ERROR, "the authentication does not come to an end")
        answer, proven = proof.step(data)
        if not proven:
            properties = Properties()
            properties.auth_method = self.method
            properties.auth_data = answer
            return Auth(CONTINUE_AUTHENTICATION, properties)
        if self.identity and self.identity != proof.identity:
            raise Refused(NOT_AUTHORIZED, f"{self.identity} cannot become {proof.identity} by proving it")
        self.identity = proof.identity
        self._proof = None
        final.auth_data = answer or None
        return None


def method_of(connect: Connect) -> str | None:
    """The authentication method that a CONNECT asks for."""
    return None if connect.properties is None else connect.properties.auth_method


def _data(auth: Auth) -> bytes:
    return b"" if auth.properties is None else auth.properties.auth_data or b""
