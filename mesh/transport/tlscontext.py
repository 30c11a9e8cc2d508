"""The TLS contexts of a listener, made from its files.

It knows OpenSSL's settings, and which certificate a client gets: never connections or when files change. What always
holds:

* contexts are made whole or not at all: each key fits its certificate, and each chain is in order;
* no renegotiation, no compression, no version below 1.2, no cipher without encryption or authentication;
* all certificates of a listener ask clients for the same; a client chooses one by the server's name that it sends, and
  OpenSSL chooses between RSA and ECDSA for the same names.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.transport.certificates import (
    Unusable,
    end_of,
    read_authorities,
    read_chain,
    read_key,
    read_lists,
    server_names,
)
from mesh.transport.listen import NONE, REQUIRED, KeyPair, TlsFiles
from mesh.transport.trust import Trust

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2: forward secrecy and authenticated encryption only
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_STRONG: Final = 112  # bits
_CONNECTION: Final = 0.0002  # seconds of processor time that a connection takes beside OpenSSL's part
_TRIES: Final = 3  # handshakes that are measured; the fastest counts


@final
@dataclass(frozen=True, slots=True)
class Dated:
    """A file with the end of its certificate's validity, in seconds since 1970."""

    file: Path
    not_after: float


@final
class Contexts:
    """``first`` is the context of a new connection; it changes to another one of ``every`` by the server's name.
    ``dated``: the files of its certificates; ``cost``: seconds of processor time of one full handshake with
    the dearest of its keys, which a client may ask for."""

    def __init__(
        self, first: ssl.SSLContext, every: frozenset[ssl.SSLContext], trust: Trust, dated: tuple[Dated, ...],
        cost: float,
    ) -> None:  # fmt: skip
        self.first = first
        self.every = every
        self.trust = trust
        self.dated = dated
        self.cost = cost

    def revised(self, trust: Trust) -> Contexts:
        """The same with other lists of revoked certificates: sessions may still be resumed."""
        return Contexts(self.first, self.every, trust, self.dated, self.cost)


def load(files: TlsFiles, protocol: str, valid: bool = True) -> Contexts:
    """Read all files; ``protocol`` is the ALPN name; ``valid`` as in ``read_chain``. Takes milliseconds.

    Raises ``Unusable``; ``NotPrivate``, ``OSError``.
    """
    groups: dict[tuple[str, ...], ssl.SSLContext] = {}
    kinds: dict[tuple[tuple[str, ...], str], Path] = {}
    names: dict[str, ssl.SSLContext] = {}
    keys: dict[tuple[str, int], KeyPair] = {}
    dated: list[Dated] = []
    authorities = [] if files.ca is None or files.client == NONE else read_authorities(files.ca)
    for pair in files.pairs:
        chain = read_chain(pair.cert, valid)
        read_key(pair.key, chain)
        own = server_names(chain[0])
        other = kinds.setdefault((own, _kind(chain[0])), pair.cert)
        if other != pair.cert:
            raise Unusable(f"{pair.cert} has the names and the kind of key of {other}; remove one of them")
        context = groups.get(own)
        if context is None:
            context = groups[own] = _context(files, protocol, authorities)
        _use(context, pair)
        keys.setdefault((_kind(chain[0]), _size(chain[0])), pair)
        for name in own:
            names.setdefault(name, context)
        dated.append(Dated(pair.cert, end_of(chain[0])))
    dated += [Dated(files.ca, min(end_of(one) for one in authorities))] if authorities and files.ca else []
    first = groups[next(iter(groups))]
    if len(groups) > 1:
        first.sni_callback = _Chooser(names, first).choose
    cost = max(_cost(files, protocol, pair) for pair in keys.values())
    return Contexts(first, frozenset(groups.values()), _trust(files, authorities), tuple(dated), cost)


def load_trust(files: TlsFiles) -> Trust:
    """Only the lists of revoked certificates, and the authorities. Raises as ``load``."""
    return _trust(files, [] if files.ca is None or files.client == NONE else read_authorities(files.ca))


def check_ciphers(text: str) -> None:
    """Raises ``ValueError`` if OpenSSL cannot use this list, or if it has a weak cipher."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.set_ciphers(text)
    except ssl.SSLError:
        raise ValueError(
            f"{text!r} is no list of ciphers of {ssl.OPENSSL_VERSION}; write one such as {CIPHERS}"
        ) from None
    for cipher in context.get_ciphers():
        if cipher["strength_bits"] < _STRONG or cipher.get("auth") == "auth-null":
            raise ValueError(f"the cipher {cipher['name']} protects nothing; remove it, or write {CIPHERS}")


def _trust(files: TlsFiles, authorities: list[x509.Certificate]) -> Trust:
    lists = None if files.crl is None or files.client == NONE else read_lists(files.crl)
    try:
        return Trust(authorities, lists)
    except ValueError as error:
        raise Unusable(f"{files.crl}: {error}") from None


def _context(files: TlsFiles, protocol: str, authorities: list[x509.Certificate]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[files.min]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(files.ciphers or CIPHERS)
    context.set_alpn_protocols([protocol])
    if files.client != NONE:
        context.verify_mode = ssl.CERT_REQUIRED if files.client == REQUIRED else ssl.CERT_OPTIONAL
        for one in authorities:
            context.load_verify_locations(cadata=one.public_bytes(Encoding.DER))
    context.num_tickets = 1 if files.resumption else 0
    if not files.resumption:
        context.options |= ssl.OP_NO_TICKET
    return context


def _use(context: ssl.SSLContext, pair: KeyPair) -> None:
    try:
        context.load_cert_chain(pair.cert, pair.key, password="")  # else OpenSSL asks for one
    except ssl.SSLError as error:
        raise Unusable(f"{pair.cert}: OpenSSL does not use it: {error.reason or error}") from None


def _kind(certificate: x509.Certificate) -> str:
    return type(certificate.public_key()).__name__


def _size(certificate: x509.Certificate) -> int:
    """Bits of the key; 0 where the kind of key has one size only."""
    size: int = getattr(certificate.public_key(), "key_size", 0)
    return size


@final
class _Chooser:
    """Chooses a certificate by the server's name that a client sends."""

    def __init__(self, names: dict[str, ssl.SSLContext], first: ssl.SSLContext) -> None:
        self._names = names
        self._first = first

    def choose(self, session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name:
            asked = name.lower().rstrip(".")
            found = self._names.get(asked) or self._names.get("*." + asked.partition(".")[2])
            if found is not None and found is not self._first:
                session.context = found


def _cost(files: TlsFiles, protocol: str, pair: KeyPair) -> float:
    """What the server's part of a full handshake with one key costs; OpenSSL's is measured in memory. The client is one
    without a certificate, so the handshake may fail at its end."""
    context = _context(files, protocol, [])
    _use(context, pair)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return _CONNECTION + min(_handshake(context, client) for _ in range(_TRIES))


def _handshake(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> float:
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(downward, upward)
    server = server_context.wrap_bio(upward, downward, server_side=True)
    spent = 0.0
    for _ in range(3):
        _step(client)
        began = time.thread_time()
        _step(server)
        spent += time.thread_time() - began
    return spent


def _step(side: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLError):  # it waits for the other side, or has failed
        side.do_handshake()
