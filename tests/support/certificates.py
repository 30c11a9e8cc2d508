"""Certificates for tests: authorities, odd ones included, and lists of revoked ones."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def make_key(kind: str = "ecdsa") -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(65_537, 2048)
    if kind == "P-192":  # which no client of TLS uses
        return ec.generate_private_key(ec.SECP192R1())
    return ec.generate_private_key(ec.SECP256R1())


def subject(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


@final
@dataclass(frozen=True)
class Issued:
    """A certificate with its chain and key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: Key

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write the files of certificate and key; returns their paths. Files that exist are replaced."""
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in (self.certificate, *self.chain))
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return put(folder / f"{name}.pem", pem), put(folder / f"{name}.key", key)


@final
class Authority:
    """An authority, signed by itself or by ``parent``. ``key``: that of an authority whose certificate this renews."""

    def __init__(
        self, name: str = "authority", parent: Authority | None = None, kind: str = "ecdsa", key: Key | None = None
    ) -> None:
        self.key = key or make_key(kind)
        self.parent = parent
        signer = self if parent is None else parent
        self.name = subject(name)
        builder = _builder(self.name, self.name if parent is None else parent.name, self.key, now() + 3650 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def chain(self) -> tuple[x509.Certificate, ...]:
        """This authority and those above it, without the root."""
        return () if self.parent is None else (self.certificate, *self.parent.chain())

    def issue(
        self,
        *common_names: str,
        dns: Sequence[str] = (),
        names: Sequence[x509.GeneralName] = (),
        kind: str = "ecdsa",
        end: datetime.datetime | None = None,
        server: bool = False,
        extra: int = 0,
        more: Sequence[x509.ExtensionType] = (),
    ) -> Issued:
        """A certificate for these names. ``names``: further alternative names; ``extra``: bytes of an extension that
        no one knows; ``more``: further extensions."""
        key = make_key(kind)
        builder = _builder(subject(*common_names), self.name, key, end or now() + 90 * DAY)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(signer, critical=False)
        alternative = [*[x509.DNSName(name) for name in dns], *names]
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if extra:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x04\x00" * (extra // 2)), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return Issued(builder.sign(self.key, hashes.SHA256()), self.chain(), key)

    def revoke(self, *certificates: x509.Certificate, due: datetime.datetime | None = None) -> bytes:
        """The list that revokes these certificates, in PEM format. ``due``: its next update."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(now() - 10 * DAY)
        builder = builder.next_update(due or now() + 30 * DAY)
        for one in certificates:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now() - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def _builder(name: x509.Name, issuer: x509.Name, key: Key, end: datetime.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now(), end) - 20 * DAY)
        .not_valid_after(end)
    )


def put(path: Path, data: bytes) -> Path:
    """Write a private file, or replace it in one step, as tools for certificates do."""
    draft = path.with_name(f".{path.name}")
    with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    draft.rename(path)
    return path
