"""A folder with an authority, and all certificates that it has issued.

::

    FOLDER/ca.pem, ca.key            the authority
           crl.pem                   its list of revoked certificates
           server/NAME.pem, .key     in use: certificates of listeners
           internal/NODE.pem, .key   of the mesh's own nodes
           vehicle/NAME.pem, .key    of vehicles and back ends
           issued/SERIAL.pem         every certificate that was issued, for ``revoke``
           revoked/SERIAL.pem, .key  what was in use until it was revoked
           audit.jsonl               what was done, by whom (``acts``)

It knows files and what certificates are for. It must never know a topology or a listener. What always holds:

* a key is written once, with mode 0600, and never written over; a certificate is replaced in one step;
* a certificate is in ``issued`` before it is in use, so that all that are in use can be revoked;
* one authority signs for vehicles or for nodes, not for both: who trusts it for one must not admit the other;
* one process at a time changes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mesh.pki import signing
from mesh.pki.names import common, file_name, server_name
from mesh.pki.signing import Authority, Private, Public, Validity, Wanted
from mesh.private import make_private, read_own

CA: Final = "ca"
CRL: Final = "crl"
SERVER: Final = "server"
INTERNAL: Final = "internal"
VEHICLE: Final = "vehicle"
KINDS: Final = (SERVER, INTERNAL, VEHICLE)
CA_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 365
CRL_DAYS: Final = 90
REASONS: Final = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "superseded": x509.ReasonFlags.superseded,
    "cessation": x509.ReasonFlags.cessation_of_operation,
}

_ISSUED: Final = "issued"
_REVOKED: Final = "revoked"
_USES: Final = {
    SERVER: (signing.SERVER,),
    INTERNAL: (signing.SERVER, signing.CLIENT),
    VEHICLE: (signing.CLIENT,),
}
_FOR: Final = {INTERNAL: "nodes", VEHICLE: "vehicles"}
_EARLIER: Final = timedelta(hours=1)  # a certificate is valid a little earlier: clocks differ
_DAY: Final = timedelta(days=1)


class PkiError(Exception):
    """The folder cannot do what was asked; one sentence, with what would be right."""


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate or list with its file. ``kind`` is one of ``KINDS``, ``CA`` or ``CRL``; ``end``: when it expires,
    or when the next list is due."""

    kind: str
    name: str
    file: Path
    end: datetime
    certificate: x509.Certificate | None = None

    @property
    def label(self) -> str:
        return f"{self.kind}/{self.name}" if self.kind in KINDS else self.kind


@final
class Folder:
    """An authority in a folder. ``now`` is the time."""

    def __init__(self, path: Path, now: datetime | None = None) -> None:
        self.path = path
        self._now = (now or datetime.now(UTC)).replace(microsecond=0)

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def crl(self) -> Path:
        """The file of its list."""
        return self._file(CRL)

    def file(self, kind: str, name: str, suffix: str = "pem") -> Path:
        """The file of a certificate in use, or of its key."""
        return self.path / kind / f"{file_name(name)}.{suffix}"

    def create(self, name: str, kind: str, days: int = CA_DAYS) -> None:
        """Make the authority ``name`` with a key of this kind, and an empty list. Raises ``PkiError`` if there is
        one."""
        if self._file(CA).exists():
            raise PkiError(f"{self._file(CA)} exists; choose another folder for another authority")
        if self.path.exists() and not self._file(CA, "key").exists() and any(self.path.iterdir()):
            raise PkiError(f"{self.path} is not empty; choose a new folder, which only the authority uses")
        make_private(self.path)
        with self._locked():
            key = self._own_key(self._file(CA, "key"), kind)
            subject = signing.common_name(common_text(name))
            made = signing.self_signed(subject, key, self._validity(days))
            self._write_list(Authority(made, key), [], 1)
            _replace(self._file(CA), _pem(made))

    def issue(self, kind: str, name: str, names: Sequence[str] = (), key: str = "", days: int = 0) -> Entry:
        """Make a certificate and its key. ``names``: DNS names and IP addresses; ``key``: its kind, by default that of
        the authority. Raises ``PkiError`` if there is one with this name, ``ValueError`` for a wrong name."""
        cert, own = self.file(kind, name), self.file(kind, name, "key")
        subject = signing.common_name(name if kind == SERVER else common(name))
        alternative = tuple([server_name(one) for one in names])
        with self._locked():
            authority = self.authority()
            self._check_alone(kind)
            if cert.exists():
                raise PkiError(
                    f"{cert} exists; renew it (mesh certs renew {kind}/{name}), or revoke it first to have a new key"
                )
            private = self._own_key(own, key or _kind_of(authority.key))
            wanted = Wanted(subject, private.public_key(), _USES[kind], alternative)
            return self._sign(authority, kind, name, wanted, days or CERTIFICATE_DAYS)

    def renew(self, within: timedelta, labels: Sequence[str] = (), days: int = 0) -> list[Entry]:
        """Sign again what expires within that time, or the certificates with these labels: with the same names, the
        same key and the same length of validity (or ``days``). Returns what was renewed."""
        limit = self._now + within
        with self._locked():
            authority = self.authority()
            chosen = self._chosen(labels) if labels else [one for one in self.in_use() if one.end <= limit]
            done: list[Entry] = []
            if any(one.kind == CA for one in chosen):
                authority = self._renewed_authority(authority, days)
                done.append(self._authority_entry(authority))
            done += [self._renewed(authority, one, days) for one in chosen if one.kind in KINDS]
            if any(one.kind == CRL for one in chosen):
                self._write_list(authority, list(self.revocations()), self._number() + 1)
                done.append(self._list_entry())
        return done

    def revoke(self, label: str, reason: str) -> list[int]:
        """Revoke all certificates with this label, or the one with a serial number ``serial/HEX``. Returns the serial
        numbers that are new in the list. Raises ``PkiError`` if there is none."""
        with self._locked():
            authority = self.authority()
            kind, _, name = label.partition("/")
            known = [
                one
                for one in self._issued()
                if (kind == "serial" and one.serial_number == _number_of(name))
                or (kind != "serial" and (_use_of(one), _name_of(one)) == (kind, name))
            ]
            if not known:
                raise PkiError(f"no certificate of {label} was issued here; see mesh certs list --all")
            before = {one.serial_number: one for one in self.revocations()}
            fresh = [one for one in known if one.serial_number not in before and one.not_valid_after_utc > self._now]
            entries = [signing.revocation(one.serial_number, self._now, REASONS[reason]) for one in fresh]
            self._write_list(authority, [*before.values(), *entries], self._number() + 1)
            for one in known:
                self._put_away(one)
            return [one.serial_number for one in fresh]

    def authority(self) -> Authority:
        """Raises ``PkiError`` if there is none, ``OSError``, ``ValueError``."""
        try:
            certificate = _certificate(self._file(CA))
            key = signing.read_key(read_own(self._file(CA, "key"), secret=True))
        except FileNotFoundError as error:
            raise PkiError(f"{error.filename} is missing; make an authority: mesh certs init {self.path}") from None
        if certificate.public_key() != key.public_key():
            raise PkiError(f"{self._file(CA, 'key')} is not the key of {self._file(CA)}; restore both")
        return Authority(certificate, key)

    def in_use(self) -> list[Entry]:
        """The authority, its list, and all certificates in use, by kind and name."""
        found = [self._authority_entry(), self._list_entry()]
        for kind in KINDS:
            for file in sorted((self.path / kind).glob("*.pem")):
                found.append(self._entry(kind, _certificate(file), file))
        return found

    def retired(self) -> list[tuple[Entry, bool]]:
        """The certificates that were issued, are still valid and not in use; with each, whether it is revoked."""
        used = {one.certificate.serial_number for one in self.in_use() if one.certificate is not None}
        revoked = {one.serial_number for one in self.revocations()}
        found: list[tuple[Entry, bool]] = []
        for one in self._issued():
            serial = one.serial_number
            if one.not_valid_after_utc > self._now and (serial not in used or serial in revoked):
                found.append((self._entry(_use_of(one), one, self._record(serial)), serial in revoked))
        return sorted(found, key=lambda pair: (pair[0].label, pair[0].end))

    def revocations(self) -> x509.CertificateRevocationList:
        """The list of revoked certificates. Raises ``PkiError`` if it is missing: it is the only record of them."""
        try:
            return x509.load_pem_x509_crl(read_own(self._file(CRL)))
        except FileNotFoundError:
            raise PkiError(
                f"{self._file(CRL)} is missing, and only it says which certificates are revoked; restore it"
            ) from None

    def _file(self, name: str, suffix: str = "pem") -> Path:
        return self.path / f"{name}.{suffix}"

    def _record(self, serial: int) -> Path:
        return self.path / _ISSUED / f"{serial:x}.pem"

    def _validity(self, days: int, most: datetime | None = None) -> Validity:
        """From an hour ago; not longer than ``most``, the end of the authority."""
        end = self._now + timedelta(days=days)
        return Validity(self._now - _EARLIER, end if most is None else min(end, most))

    def _check_alone(self, kind: str) -> None:
        """Vehicles and nodes have different authorities: else a vehicle's certificate would open the ports of the
        nodes. Raises ``PkiError``."""
        other = {INTERNAL: VEHICLE, VEHICLE: INTERNAL}.get(kind)
        if other is not None and (self.path / other).exists():
            raise PkiError(
                f"the authority in {self.path} signs for {_FOR[other]}, so none for {_FOR[kind]}; make another one: "
                "mesh certs init OTHER, and --folder OTHER"
            )

    def _own_key(self, file: Path, kind: str) -> Private:
        """A new key in a new file; one that is there has no certificate yet, and is used."""
        make_private(file.parent)
        if file.exists():
            return signing.read_key(read_own(file, secret=True))
        key = signing.make_key(kind)
        _write(file, signing.key_pem(key))
        return key

    def _sign(self, authority: Authority, kind: str, name: str, wanted: Wanted, days: int) -> Entry:
        end = authority.certificate.not_valid_after_utc
        if end <= self._now:
            raise PkiError(f"{self._file(CA)} has expired; renew it: mesh certs renew ca")
        made = signing.sign(authority, wanted, self._validity(days, end))
        make_private(self.path / _ISSUED)
        _write(self._record(made.serial_number), _pem(made))
        file = self.file(kind, name)
        make_private(file.parent)
        _replace(file, _pem(made))
        return self._entry(kind, made, file)

    def _renewed(self, authority: Authority, entry: Entry, days: int) -> Entry:
        old = entry.certificate
        assert old is not None
        public = old.public_key()
        if not isinstance(public, Public):
            raise PkiError(f"{entry.file}: its key is neither ECDSA nor RSA")
        wanted = Wanted(old.subject, public, _USES[entry.kind], _alternative(old))
        return self._sign(authority, entry.kind, entry.name, wanted, days or _days_of(old))

    def _renewed_authority(self, authority: Authority, days: int) -> Authority:
        """With the same name and key, so that all that it has signed stays valid."""
        old = authority.certificate
        made = signing.self_signed(old.subject, authority.key, self._validity(days or _days_of(old)))
        _replace(self._file(CA), _pem(made))
        return Authority(made, authority.key)

    def _chosen(self, labels: Sequence[str]) -> list[Entry]:
        known = {one.label: one for one in self.in_use()}
        for label in labels:
            if label not in known:
                raise PkiError(f"there is no {label} in {self.path}; see mesh certs list")
        return [known[label] for label in labels]

    def _write_list(self, authority: Authority, revoked: Sequence[x509.RevokedCertificate], number: int) -> None:
        """Without what has expired: it needs no list (RFC 5280 section 3.3)."""
        over = {one.serial_number for one in self._issued() if one.not_valid_after_utc <= self._now}
        kept = [one for one in revoked if one.serial_number not in over]
        validity = Validity(self._now, self._now + timedelta(days=CRL_DAYS))
        made = signing.sign_list(authority, kept, number, validity)
        _replace(self._file(CRL), made.public_bytes(Encoding.PEM))

    def _number(self) -> int:
        return self.revocations().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def _put_away(self, certificate: x509.Certificate) -> None:
        """Move the files in use, so that a new certificate with a new key can be made."""
        kind, serial = _use_of(certificate), certificate.serial_number
        file = self.file(kind, _name_of(certificate))
        with contextlib.suppress(FileNotFoundError):
            if _certificate(file).serial_number == serial:
                make_private(self.path / _REVOKED)
                with contextlib.suppress(FileNotFoundError):  # it was handed over
                    file.with_suffix(".key").rename(self.path / _REVOKED / f"{serial:x}.key")
                file.rename(self.path / _REVOKED / f"{serial:x}.pem")

    def _issued(self) -> list[x509.Certificate]:
        return [_certificate(file) for file in (self.path / _ISSUED).glob("*.pem")]

    def _authority_entry(self, authority: Authority | None = None) -> Entry:
        if authority is None:
            authority = self.authority()
        made = authority.certificate
        return Entry(CA, _name_of(made), self._file(CA), made.not_valid_after_utc, made)

    def _list_entry(self) -> Entry:
        end = self.revocations().next_update_utc
        return Entry(CRL, "", self._file(CRL), self._now if end is None else end)

    def _entry(self, kind: str, certificate: x509.Certificate, file: Path) -> Entry:
        return Entry(kind, _name_of(certificate), file, certificate.not_valid_after_utc, certificate)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PkiError(f"{self.path} is missing; make an authority: mesh certs init {self.path}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def common_text(text: str) -> str:
    """The name of an authority, which is no name of a file. Raises ``ValueError``."""
    if not 0 < len(text) <= 64 or not text.isprintable():
        raise ValueError(f"{text!r} cannot be the name of an authority; write 1 to 64 characters")
    return text


def _kind_of(key: Private) -> str:
    return signing.RSA if isinstance(key, rsa.RSAPrivateKey) else signing.ECDSA


def _use_of(certificate: x509.Certificate) -> str:
    """Which of ``KINDS`` it is, by its extended key usages."""
    uses = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    return next(kind for kind, own in _USES.items() if set(own) == uses)


def _name_of(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _number_of(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        right = "write it as mesh certs list shows it, such as serial/4f2a"
        raise PkiError(f"{text!r} is no serial number; {right}") from None


def _alternative(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _days_of(certificate: x509.Certificate) -> int:
    """Days of its validity, without the part before it was signed."""
    return max(1, round((certificate.not_valid_after_utc - certificate.not_valid_before_utc - _EARLIER) / _DAY))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_own(file))
    except ValueError:
        raise PkiError(f"{file} is no certificate in PEM format; restore it, or remove it") from None


def _write(file: Path, data: bytes) -> None:
    """A new file; raises ``FileExistsError`` for one that is there."""
    draft = _draft(file, data)
    try:
        os.link(draft, file)  # unlike rename, link never replaces a file
    finally:
        draft.unlink()
    _sync(file.parent)


def _replace(file: Path, data: bytes) -> None:
    """A file in one step: its readers see the old one or the new one."""
    _draft(file, data).rename(file)
    _sync(file.parent)


def _draft(file: Path, data: bytes) -> Path:
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(handle)
    return draft


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
