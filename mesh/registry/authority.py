"""Makes an authority, and the certificates of one server and its clients.

It knows keys and certificates. It must never know files. What always holds: the authority's key is forgotten at once,
so that there are never more certificates than these two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

# The certificates end with their folder, not at a date. A clock that is wrong, as in a machine that has just started,
# must not keep etcd from starting. The end is the one that means no end (RFC 5280 section 4.1.2.5).
_BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

_AUTHORITY: Final = "mesh etcd authority"


class Pair(NamedTuple):
    """A certificate and its key, in PEM format."""

    certificate: bytes
    key: bytes


class Issued(NamedTuple):
    """The authority's certificate in PEM format, and the pairs that it signed."""

    authority: bytes
    server: Pair
    client: Pair


def issue(host: str) -> Issued:
    """New certificates. ``host`` is the IP address of the server."""
    signer = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder(_AUTHORITY, signer.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .sign(signer, SHA256())
    )
    # etcd's server is a client of itself, too.
    server = _pair(signer, "server", host, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    client = _pair(signer, "client", host, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Issued(authority.public_bytes(Encoding.PEM), server, client)


def _pair(signer: ec.EllipticCurvePrivateKey, name: str, host: str, *uses: ObjectIdentifier) -> Pair:
    own = ec.generate_private_key(ec.SECP256R1())
    signed = (
        _builder(f"mesh etcd {name}", own.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .sign(signer, SHA256())
    )
    return Pair(
        signed.public_bytes(Encoding.PEM), own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def _builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(_AUTHORITY))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _name(text: str) -> x509.Name:
    """A name without a common name: etcd takes a client's common name as the name of a user."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


def _key_usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
