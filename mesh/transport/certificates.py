"""Certificates in files and in handshakes: how they are read, and their facts.

It knows X.509 and PEM: never contexts or connections. What always holds:

* a name that another program could read differently (one with a control character such as NUL, a common name beside
  another one) is left out; an identity must not rest on it;
* a file is used only if no other user can have changed it, a key only if none can have read it, and it is bounded.
"""

from __future__ import annotations

import _ssl
import hashlib
import re
import ssl
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.broker.peer import TlsFacts
from mesh.private import read_given

MOST: Final = 1 << 20  # bytes of a file of certificates; the authorities of a whole browser have a fifth of that
MOST_REVOKED: Final = 64 << 20  # bytes of a file of lists; a revoked certificate takes about 40
CHAIN: Final = 10  # certificates of a chain
DAY: Final = 86_400.0
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")

# What the library raises for certificates that it does not understand.
UNREADABLE: Final = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip

_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@final
class Unusable(OSError):
    """A file of a listener with TLS cannot be used; the message says which, why, and what would be right."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.strerror = sentence


# Facts of a handshake


def facts_of(session: ssl.SSLObject) -> TlsFacts:
    """The facts of a handshake that has succeeded. Raises one of ``UNREADABLE`` if the client's certificate cannot be
    read."""
    used = session.cipher()
    version, cipher = session.version() or "", "" if used is None else used[0]
    resumed = bool(session.session_reused)
    encoded = session.getpeercert(True)
    if not encoded or session.context.verify_mode == ssl.CERT_NONE:
        return TlsFacts(version, cipher, resumed)
    certificate = x509.load_der_x509_certificate(encoded)
    dns, email, uri = _alternative(certificate)
    return TlsFacts(
        version,
        cipher,
        resumed,
        common_name=_common_name(certificate),
        dns=dns,
        email=email,
        uri=uri,
        serial=f"{certificate.serial_number:x}",
        fingerprint=hashlib.sha256(encoded).hexdigest(),
        issuer=name_text(certificate.issuer),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def sent_chain(session: ssl.SSLObject) -> list[x509.Certificate]:
    """The client's certificate and those that it sent with it; only its own after a handshake that resumed a session,
    none if it has none. Raises one of ``UNREADABLE``."""
    # The public method of this name came with Python 3.13, and calls this one.
    sent = session._sslobj.get_unverified_chain() or ()  # type: ignore[attr-defined]
    encoded = [one.public_bytes(_ssl.ENCODING_DER) for one in sent] or [session.getpeercert(True)]
    return [x509.load_der_x509_certificate(one) for one in encoded if one]


def name_text(name: x509.Name) -> str:
    """A name in the form of RFC 4514."""
    return name.rfc4514_string()


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = found[0].value if len(found) == 1 else ""
    return value if isinstance(value, str) and value.isprintable() else ""


def _alternative(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The DNS names, e-mail addresses and URIs."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), ()
    return (
        _printable(names.get_values_for_type(x509.DNSName)),
        _printable(names.get_values_for_type(x509.RFC822Name)),
        _printable(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _printable(names: list[str]) -> tuple[str, ...]:
    return tuple([name for name in names if name.isprintable()])


# Files


def read_chain(file: Path, valid: bool = True) -> list[x509.Certificate]:
    """A server's certificate and those that sign it. ``valid``: one that is not valid today cannot be used. Raises
    ``Unusable``; ``NotPrivate``."""
    chain = _certificates(file)
    first, now = chain[0], time.time()
    start = first.not_valid_before_utc.timestamp()
    if valid and end_of(first) <= now:
        raise Unusable(f"{file}: the certificate expired on {day_of(end_of(first))}; write one that is valid")
    if valid and start > now:
        raise Unusable(f"{file}: the certificate is valid from {day_of(start)} on; write one that is valid today")
    if len(chain) > CHAIN:
        raise Unusable(f"{file}: {len(chain)} certificates; a chain may have {CHAIN}")
    for number, (signed, signer) in enumerate(pairwise(chain), 2):
        if not signs(signer, signed):
            raise Unusable(
                f"{file}: certificate {number} did not sign certificate {number - 1}; write the server's certificate "
                "first, and each signer behind what it signed"
            )
    if not _is_usual(first):
        raise Unusable(
            f"{file}: clients of TLS do not use its kind of key; make an RSA key, or one for ECDSA with P-256, "
            "P-384 or P-521"
        )
    if not _for_servers(file, first):
        raise Unusable(f"{file}: the certificate is not for servers: its extended key usage has no serverAuth")
    return chain


def read_key(file: Path, chain: list[x509.Certificate]) -> None:
    """Check that the key in ``file`` is that of the first certificate. Raises ``Unusable``; ``NotPrivate``."""
    data = _read(file, MOST, secret=True)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        right = f"openssl pkey -in {file} -out {file}.plain"
        raise Unusable(f"{file}: the key is encrypted; write it without a pass phrase: {right}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable(f"{file}: not a private key in PEM format") from None
    if _public(key.public_key()) != _public(chain[0].public_key()):
        raise Unusable(f"{file}: the key does not fit the certificate of {name_text(chain[0].subject)}")


def read_authorities(file: Path) -> list[x509.Certificate]:
    """The certificates that sign those of clients. Raises ``Unusable``; ``NotPrivate``."""
    found = _certificates(file)
    for one in found:
        try:
            is_authority = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, *UNREADABLE):
            is_authority = False
        if not is_authority:
            raise Unusable(f"{file}: the certificate of {name_text(one.subject)} may not sign others; remove it")
    return found


def read_lists(file: Path) -> list[x509.CertificateRevocationList]:
    """The lists of revoked certificates. Raises ``Unusable``; ``NotPrivate``."""
    data = _read(file, MOST_REVOKED)
    try:
        found = [x509.load_pem_x509_crl(part) for part in _LIST.findall(data)]
        for one in found:
            if any(isinstance(extension.value, x509.DeltaCRLIndicator) for extension in one.extensions):
                raise Unusable(f"{file}: a delta list cannot be used; write the full one of {name_text(one.issuer)}")
    except UNREADABLE as error:
        raise Unusable(f"{file}: not a list of revoked certificates in PEM format: {error}") from None
    if not found:
        raise Unusable(f"{file}: no list of revoked certificates in PEM format (-----BEGIN X509 CRL-----)")
    return found


def signs(signer: x509.Certificate, signed: x509.Certificate) -> bool:
    """Whether one certificate signed the other."""
    try:
        signed.verify_directly_issued_by(signer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def key_of(certificate: x509.Certificate) -> str:
    """The SHA-256 of the public key, in hexadecimal digits."""
    return hashlib.sha256(_public(certificate.public_key())).hexdigest()


def end_of(certificate: x509.Certificate) -> float:
    """The end of its validity, in seconds since 1970."""
    return certificate.not_valid_after_utc.timestamp()


def day_of(seconds: float) -> str:
    """A time for people."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def server_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of a server, in small letters, of a certificate of ``read_chain``."""
    return tuple([name.lower() for name in _alternative(certificate)[0]])


def _certificates(file: Path) -> list[x509.Certificate]:
    data = _read(file, MOST)
    try:
        return x509.load_pem_x509_certificates(data)
    except UNREADABLE:
        raise Unusable(f"{file}: no certificate in PEM format (-----BEGIN CERTIFICATE-----)") from None


def _read(file: Path, most: int, secret: bool = False) -> bytes:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise Unusable(f"{file}: there is no such file") from None
    if not file.is_file():
        raise Unusable(f"{file}: not a file; write the path of a PEM file")
    if size > most:
        raise Unusable(f"{file}: {size} bytes; the file may have {most}")
    return read_given(file, secret)


def _is_usual(certificate: x509.Certificate) -> bool:
    """Whether clients use such a key. With another one, such as DSA, OpenSSL makes a context that refuses them all."""
    try:
        key = certificate.public_key()
    except UNREADABLE:
        return False
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in _CURVES
    return isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _for_servers(file: Path, certificate: x509.Certificate) -> bool:
    """Raises ``Unusable`` if an extension cannot be read."""
    try:
        _alternative(certificate)
        uses = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return True
    except UNREADABLE as error:
        raise Unusable(f"{file}: the certificate cannot be read: {error}; have it made anew") from None
    return bool(uses & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def each_revoked(one: x509.CertificateRevocationList) -> Iterator[int]:
    """The serial numbers of a list."""
    for revoked in one:
        yield revoked.serial_number
