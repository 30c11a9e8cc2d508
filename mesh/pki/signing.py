"""Keys, certificates and lists of revoked ones, made and signed in memory.

It knows X.509. It must never know files, the mesh, or what a certificate is used for. What always holds:

* an authority signs certificates and lists only, and no other authorities; what it signs is no authority;
* a certificate names the key that signed it, so that OpenSSL finds its authority among several of one name;
* keys are ECDSA with P-256, or RSA with 3,072 bits, which is as strong (NIST SP 800-57 part 1, table 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ECDSA: Final = "ecdsa"
RSA: Final = "rsa"
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH

_RSA_BITS: Final = 3072
_EXPONENT: Final = 65_537

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Public = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@final
@dataclass(frozen=True, slots=True)
class Validity:
    """The first and the last moment of a certificate, or of a list the next update; both in UTC."""

    begin: datetime
    end: datetime


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate to sign. ``uses``: extended key usages; ``names``: subject alternative names."""

    subject: x509.Name
    public: Public
    uses: tuple[ObjectIdentifier, ...]
    names: tuple[x509.GeneralName, ...]


@final
@dataclass(frozen=True, slots=True)
class Authority:
    """An authority's certificate with its key."""

    certificate: x509.Certificate
    key: Private


def make_key(kind: str = ECDSA) -> Private:
    if kind == RSA:
        return rsa.generate_private_key(_EXPONENT, _RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Private) -> bytes:
    """The key in PKCS #8, without a pass phrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(data: bytes) -> Private:
    """Raises ``ValueError`` for what is no key of the two kinds, or has a pass phrase."""
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ValueError("the key has a pass phrase") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ValueError("the key is neither ECDSA nor RSA")
    return key


def common_name(text: str) -> x509.Name:
    """A subject with this common name only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def self_signed(subject: x509.Name, key: Private, validity: Validity) -> x509.Certificate:
    """The certificate of an authority."""
    public = key.public_key()
    return (
        _builder(subject, subject, public, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True, enciphers=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, SHA256())
    )


def sign(authority: Authority, wanted: Wanted, validity: Validity) -> x509.Certificate:
    """The certificate, signed by the authority. RSA keys may also encipher, as TLS 1.2 without ECDHE needs it."""
    enciphers = isinstance(wanted.public, rsa.RSAPublicKey)
    builder = (
        _builder(wanted.subject, authority.certificate.subject, wanted.public, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False, enciphers=enciphers), critical=True)
        .add_extension(x509.ExtendedKeyUsage(wanted.uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(wanted.public), critical=False)
        .add_extension(_signer(authority), critical=False)
    )
    if wanted.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
    return builder.sign(authority.key, SHA256())


def sign_list(
    authority: Authority, revoked: Iterable[x509.RevokedCertificate], number: int, validity: Validity
) -> x509.CertificateRevocationList:
    """The list of revoked certificates. ``number`` is greater than that of the list before it."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(validity.begin)
        .next_update(validity.end)
        .add_extension(_signer(authority), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(one)
    return builder.sign(authority.key, SHA256())


def revocation(serial: int, moment: datetime, reason: x509.ReasonFlags) -> x509.RevokedCertificate:
    """An entry of a list. No reason is written for ``unspecified`` (RFC 5280 section 5.3.1)."""
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
    if reason is not x509.ReasonFlags.unspecified:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _builder(
    subject: x509.Name, issuer: x509.Name, public: Public, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
    )


def _signer(authority: Authority) -> x509.AuthorityKeyIdentifier:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(signs: bool, enciphers: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=enciphers, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
