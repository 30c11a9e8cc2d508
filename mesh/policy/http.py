"""The provider of identities that asks another server over HTTP.

It knows CONNECT, the question and the answer: never how the other server decides. What always holds:

* a client is admitted by an answer that says so in its right form, and by nothing else: every other answer, and none,
  is a failure, for which the topology says ``deny`` or ``next``;
* questions are bounded in time and in number, as are those that wait; a server that does not answer is left alone for a
  while (``breaker``);
* what is kept of answers is bounded in number and time, and has no password in it.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import digest
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.broker.claim import Claim
from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.policy.breaker import NAMES, Breaker
from mesh.policy.providers import NEXT, Named, Provider, Verdict
from mesh.policy.rights import role_of
from mesh.policy.rolenames import roles_of
from mesh.policy.secretfiles import SecretFiles
from mesh.policy.secrettext import SecretText
from mesh.policy.slots import Slots
from mesh.policy.strictjson import read_object
from mesh.policy.web import Answer, NoAnswer, Web
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED, SERVER_UNAVAILABLE

MAX_ANSWER: Final = 64 * 1024  # bytes
KNOWN: Final = 16_384  # answers that are kept; some 10 MB
QUEUE: Final = 16  # as many clients may wait for each question that is asked at the same time
MAX_IDENTITY: Final = 1024  # characters; the pattern of the topology is stricter
JSON: Final = "application/json"

ALLOW: Final = "allow"
DENY: Final = "deny"
PASS: Final = "next"
ON_FAILURE: Final = (DENY, PASS)

# A server that is not there, or has too much to do: what a proxy before it says.
_AWAY: Final = frozenset((429, 502, 503, 504))
_PROTOCOLS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class HttpRule:
    """Whom to ask, and how. ``ca``: the authorities to trust, instead of the system's. ``timeout``: seconds of one
    question; ``parallel``: questions at the same time; ``cache``: seconds that an answer is kept, 0 for not at all.
    ``on_failure``: one of ``ON_FAILURE``. ``headers``: their values, by name."""

    url: str
    ca: Path | None = None
    timeout: float = 2.0
    parallel: int = 64
    cache: float = 60.0
    on_failure: str = DENY
    headers: Mapping[str, SecretText] = field(default_factory=dict)


def header_value(text: str) -> str:
    """Raises ``ValueError`` if a header cannot have this value."""
    if not text.isascii() or not text.isprintable():
        raise ValueError("the value of a header has printable ASCII characters only")
    return text


class _Found(NamedTuple):
    """What the server said: a claim, or one of ``DENY`` and ``PASS``; until when it is kept, by the loop's clock."""

    claim: Claim | None
    word: str
    until: float


@final
class Http(Provider):
    """``named`` returns the identity that a CONNECT names. ``clock`` gives seconds since 1970, ``ticks`` seconds from
    any start."""

    def __init__(
        self,
        name: str,
        rule: HttpRule,
        named: Named,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ``ValueError`` for a URL that may not be asked."""
        super().__init__(name)
        self.names_roles = True
        self._rule = rule
        self._named = named
        self._clock = clock
        self._ticks = ticks
        self._web = Web(rule.url, rule.ca, rule.timeout, MAX_ANSWER, rule.parallel)
        self._slots = Slots(f"the answer of {name}", rule.parallel, QUEUE * rule.parallel)
        self._known: OrderedDict[bytes, _Found] = OrderedDict()  # by a digest of the question
        self._secret = secrets.token_bytes(sha256().digest_size)
        self._notices = Notices(log.warning, time.monotonic)
        self.breaker = Breaker()
        self._fault = ""
        self._headers: dict[str, str] = {}
        self._secrets = SecretFiles(rule.headers, self._header, self._headers.update)

    async def start(self) -> None:
        """Raises ``OSError`` or ``ValueError`` if a header's value cannot be read, or be sent."""
        await self._secrets.start()
        await self._web.start()

    async def stop(self) -> None:
        await self._secrets.stop()
        await self._web.stop()

    def decide(self, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        question = _question(connect, peer)
        key = digest(self._secret, question, sha256)
        found = self._recall(key)
        if found is not None:
            return self._verdict(found)
        return self._ask(question, key, self._named(connect))

    def fault(self) -> str:
        return self._fault or self._secrets.fault() or self._web.fault()

    def in_force(self) -> dict[str, object]:
        rule = self._rule
        return {
            "url": rule.url, "ca": "" if rule.ca is None else str(rule.ca), "timeout": rule.timeout,
            "parallel": rule.parallel, "cache": rule.cache, "on_failure": rule.on_failure,
            "headers": sorted(rule.headers), "breaker": NAMES[self.breaker.state],
        }  # fmt: skip

    def _header(self, name: str) -> str:
        """The value of a header, in a thread."""
        key = f"{self.name}.http.headers.{name}"
        value = self._rule.headers[name].read(key)
        try:
            return header_value(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    async def _ask(self, question: bytes, key: bytes, named: str) -> Verdict:
        try:
            found = self._read(await self._answer(question), named)
        except NoAnswer as error:
            return self._failed(str(error))
        if self._rule.cache:
            self._known[key] = found
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return self._verdict(found)

    async def _answer(self, question: bytes) -> Answer:
        """The server's answer. One that only this question can have caused is no reason to leave the server alone.
        Raises ``NoAnswer``."""
        breaker = self.breaker
        async with self._slots:
            if not breaker.passes(self._ticks()):
                raise NoAnswer(f"{self._rule.url} is left alone for a while: {self._fault}")
            try:
                answer = await self._web.post(question, self._headers)
                if answer.status in _AWAY:
                    raise NoAnswer(f"{self._rule.url} answered with status {answer.status}")
            except NoAnswer as error:
                breaker.failed(self._ticks())
                self._fault = str(error)
                raise
            except BaseException:
                breaker.gave_up()
                raise
            breaker.succeeded()
            self._fault = ""
            return answer

    def _failed(self, why: str) -> Verdict:
        self._notices.warn("failed", "the provider %r could not decide about a client: %s", self.name, why)
        if self._rule.on_failure == PASS:
            self.decisions.failed += 1
            return NEXT
        raise Refused(SERVER_UNAVAILABLE, why)

    def _recall(self, key: bytes) -> _Found | None:
        found = self._known.get(key)
        if found is None:
            return None
        ended = found.claim is not None and 0 < found.claim.expires <= self._clock()
        if ended or self._ticks() >= found.until:
            del self._known[key]
            return None
        self.decisions.cached += 1
        return found

    def _verdict(self, found: _Found) -> Verdict:
        if found.word == DENY:
            raise Refused(NOT_AUTHORIZED, f"{self._rule.url} denies it")
        return found.claim

    def _read(self, answer: Answer, named: str) -> _Found:
        """What the server said. Raises ``NoAnswer`` if it said nothing that is understood."""
        if answer.status != 200:
            raise NoAnswer(f"{self._rule.url} answered with status {answer.status}, not 200")
        if answer.type != JSON:
            raise NoAnswer(f"{self._rule.url} answered with {answer.type!r:.80}, not {JSON}")
        try:
            said = read_object(answer.body, "its answer")
            word = said.get("result")
            if word not in (ALLOW, DENY, PASS):
                raise ValueError(f"the result {word!r:.80} is none of {ALLOW}, {DENY}, {PASS}")
            claim = self._claim(said, named) if word == ALLOW else None
        except ValueError as error:
            raise NoAnswer(f"{self._rule.url}: {error}") from None
        return _Found(claim, str(word), self._ticks() + self._rule.cache)

    def _claim(self, said: Mapping[str, object], named: str) -> Claim:
        identity = said.get("identity", named)
        if not isinstance(identity, str) or not 0 < len(identity) <= MAX_IDENTITY:
            raise ValueError("it allows a client without an identity; the answer must name one")
        expires = said.get("expires", 0)
        if isinstance(expires, bool) or not isinstance(expires, int | float) or not _is_time(expires):
            raise ValueError(f"expires {expires!r:.80} is no number of seconds since 1970")
        if 0 < expires <= self._clock():
            raise ValueError(f"expires {expires!r} is past")
        roles = roles_of(said.get("roles", []))
        if "permissions" in said:
            roles = (*roles, role_of(said["permissions"]))
        return Claim(identity, self.name, roles, float(expires))


def _is_time(seconds: float) -> bool:
    try:
        return isfinite(seconds) and seconds >= 0
    except OverflowError:
        return False


def _question(connect: Connect, peer: Peer) -> bytes:
    """The body of the question, as docs/topology.md has it. Nothing in it differs when a client connects again from the
    same address."""
    found: dict[str, object] = {
        "client_id": connect.client_id,
        "protocol": _PROTOCOLS.get(connect.protocol, str(connect.protocol)),
        "address": peer.address,
        "listener": peer.listener,
    }
    if connect.username is not None:
        found["username"] = connect.username
    if connect.password is not None:
        found |= _password(connect.password)
    tls = peer.tls
    if tls is not None and (tls.fingerprint or tls.common_name):  # a load balancer tells the common name only
        found["certificate"] = {
            "common_name": tls.common_name, "dns": tls.dns, "email": tls.email, "uri": tls.uri, "serial": tls.serial,
            "fingerprint": tls.fingerprint, "issuer": tls.issuer, "not_after": tls.not_after,
        }  # fmt: skip
    return json.dumps(found, separators=(",", ":")).encode()


def _password(password: bytes) -> dict[str, object]:
    try:
        return {"password": password.decode()}
    except UnicodeDecodeError:
        return {"password_base64": b64encode(password).decode()}
