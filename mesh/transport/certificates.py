"""Facts of certificates.

It knows X.509: never files, contexts or connections. What always holds: a name that another program could read
differently (one with a control character such as NUL, a common name beside another one) is left out; an identity must
not rest on it.
"""

from __future__ import annotations

import hashlib
import ssl

from cryptography import x509
from cryptography.x509.oid import NameOID

from mesh.broker.peer import TlsFacts


def facts_of(session: ssl.SSLObject) -> TlsFacts:
    """The facts of a handshake that has succeeded. Raises ``ValueError`` if the client's certificate cannot be read."""
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
        issuer=certificate.issuer.rfc4514_string(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = found[0].value if len(found) == 1 else ""
    return value if isinstance(value, str) and _plain(value) else ""


def _alternative(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The DNS names, e-mail addresses and URIs."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), ()
    return (
        tuple([name for name in names.get_values_for_type(x509.DNSName) if _plain(name)]),
        tuple([name for name in names.get_values_for_type(x509.RFC822Name) if _plain(name)]),
        tuple([name for name in names.get_values_for_type(x509.UniformResourceIdentifier) if _plain(name)]),
    )


def _plain(name: str) -> bool:
    return name.isprintable()
