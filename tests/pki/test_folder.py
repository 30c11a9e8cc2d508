"""Certificates of a folder verify with OpenSSL; keys are never written over; what expires is renewed."""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mesh.pki.folder import CA, CRL, INTERNAL, SERVER, VEHICLE, Folder, PkiError
from mesh.pki.names import common, names_text, server_name
from mesh.pki.signing import ECDSA, RSA, read_key
from mesh.private import NotPrivate

DAY = timedelta(days=1)


def openssl(*words: str | Path) -> tuple[int, str]:
    """The exit code of the openssl program, and what it says."""
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def verify(folder: Folder, file: Path, *words: str, at: datetime | None = None) -> str:
    """What ``openssl verify`` says of a certificate; empty if it is valid and not revoked."""
    when = ["-attime", str(int((at or folder.now).timestamp()))]
    code, said = openssl(
        "verify", "-x509_strict", "-crl_check", "-CAfile", folder.path / "ca.pem", "-CRLfile", folder.path / "crl.pem",
        *when, *words, file,
    )  # fmt: skip
    return "" if code == 0 else said


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "certs")
    made.create("test authority", ECDSA)
    return made


@pytest.mark.parametrize("kind", [ECDSA, RSA])
def test_certificates_verify_with_openssl(tmp_path: Path, kind: str) -> None:
    folder = Folder(tmp_path / "certs")
    folder.create("test authority", kind)
    names = ["door.example.com", "*.fleet.example.com", "192.0.2.7", "2001:db8::7"]
    server = folder.issue(SERVER, names[0], names)
    vehicle = folder.issue(VEHICLE, "VIN-1HGBH41")
    assert verify(folder, server.file, "-purpose", "sslserver") == ""
    assert verify(folder, server.file, "-verify_hostname", "eu.fleet.example.com") == ""
    assert "mismatch" in verify(folder, server.file, "-verify_hostname", "other.example.com")
    assert verify(folder, server.file, "-verify_ip", "2001:db8::7") == ""
    assert "unsuitable certificate purpose" in verify(folder, server.file, "-purpose", "sslclient")
    assert verify(folder, vehicle.file, "-purpose", "sslclient") == ""
    assert "unsuitable certificate purpose" in verify(folder, vehicle.file, "-purpose", "sslserver")
    code, said = openssl("x509", "-in", vehicle.file, "-noout", "-subject", "-nameopt", "RFC2253")
    assert (code, said.strip()) == (0, "subject=CN=VIN-1HGBH41")
    code, said = openssl("crl", "-in", folder.path / "crl.pem", "-noout", "-CAfile", folder.path / "ca.pem")
    assert (code, "verify OK" in said) == (0, True)
    code, said = openssl("pkey", "-in", folder.file(VEHICLE, "VIN-1HGBH41", "key"), "-check", "-noout", "-text")
    assert "Key is valid" in said
    assert ("P-256" if kind == ECDSA else "3072 bit") in said


def test_nodes_have_certificates_for_both_ends_and_an_authority_of_their_own(folder: Folder, tmp_path: Path) -> None:
    inside = folder.issue(INTERNAL, "edge-1", ["edge-1", "127.0.0.1"])
    assert verify(folder, inside.file, "-purpose", "sslserver") == ""
    assert verify(folder, inside.file, "-purpose", "sslclient") == ""
    with pytest.raises(PkiError, match="signs for nodes, so none for vehicles; make another one"):
        folder.issue(VEHICLE, "VIN1")
    other = Folder(tmp_path / "other")
    other.create("other authority", ECDSA)
    other.issue(VEHICLE, "VIN1")
    with pytest.raises(PkiError, match="signs for vehicles, so none for nodes"):
        other.issue(INTERNAL, "edge-1", ["edge-1"])
    assert not other.file(INTERNAL, "edge-1", "key").exists()


def test_the_kind_of_a_key_can_differ_from_the_authority_s(folder: Folder) -> None:
    made = folder.issue(SERVER, "door.example.com", ["door.example.com"], RSA)
    assert verify(folder, made.file) == ""
    assert "rsaEncryption" in openssl("x509", "-in", made.file, "-noout", "-text")[1]


def test_no_other_user_can_reach_the_files(folder: Folder) -> None:
    folder.issue(VEHICLE, "VIN1")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.iterdir()] if path.is_dir()} == {
        0o700
    }


def test_a_key_that_others_can_read_signs_nothing(folder: Folder) -> None:
    (folder.path / "ca.key").chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        folder.issue(VEHICLE, "VIN1")


def test_no_key_is_written_over(folder: Folder) -> None:
    folder.issue(VEHICLE, "VIN1")
    before = {path: path.read_bytes() for path in folder.path.rglob("*.key")}
    with pytest.raises(PkiError, match=r"VIN1\.pem exists; renew it"):
        folder.issue(VEHICLE, "VIN1")
    with pytest.raises(PkiError, match=r"ca\.pem exists; choose another folder"):
        folder.create("another authority", ECDSA)
    folder.renew(timedelta(0), ["ca", "vehicle/VIN1"])
    assert {path: path.read_bytes() for path in folder.path.rglob("*.key")} == before


def test_a_key_without_a_certificate_is_used(folder: Folder) -> None:
    """As after a crash between the two files."""
    made = folder.issue(VEHICLE, "VIN1")
    key = folder.file(VEHICLE, "VIN1", "key")
    before = key.read_bytes()
    made.file.unlink()
    again = folder.issue(VEHICLE, "VIN1")
    assert key.read_bytes() == before
    assert again.certificate is not None
    assert again.certificate.public_key() == read_key(before).public_key()


def test_an_authority_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").touch()
    before = tmp_path.stat().st_mode
    with pytest.raises(PkiError, match="is not empty; choose a new folder"):
        Folder(tmp_path).create("test authority", ECDSA)
    assert tmp_path.stat().st_mode == before
    with pytest.raises(PkiError, match="mesh certs init"):
        Folder(tmp_path / "absent").issue(VEHICLE, "VIN1")


def test_what_expires_is_renewed_with_its_names_key_and_length(folder: Folder) -> None:
    names = ["door.example.com", "192.0.2.7"]
    short = folder.issue(SERVER, names[0], names, days=20)
    folder.issue(SERVER, "long.example.com", ["long.example.com"], days=300)
    assert folder.renew(19 * DAY) == []
    later = Folder(folder.path, folder.now + 15 * DAY)
    assert [one.label for one in later.renew(19 * DAY)] == ["server/door.example.com"]
    old = short.certificate
    new = x509.load_pem_x509_certificate(short.file.read_bytes())
    assert old is not None
    assert names_text(new) == tuple(names)
    assert (new.subject, new.public_key()) == (old.subject, old.public_key())
    assert new.not_valid_after_utc == later.now + 20 * DAY
    assert new.serial_number != old.serial_number
    assert verify(folder, short.file, at=later.now) == ""


def test_an_expired_certificate_is_renewed_without_its_key(folder: Folder) -> None:
    """The key may be on the vehicle only."""
    made = folder.issue(VEHICLE, "VIN1", days=2)
    folder.file(VEHICLE, "VIN1", "key").unlink()
    later = Folder(folder.path, folder.now + 3 * DAY)
    assert "certificate has expired" in verify(folder, made.file, at=later.now)
    assert [one.label for one in later.renew(DAY)] == ["vehicle/VIN1"]
    assert verify(folder, made.file, at=later.now) == ""


def test_a_renewed_authority_verifies_what_it_signed_before(folder: Folder) -> None:
    made = folder.issue(VEHICLE, "VIN1", days=3650)
    later = Folder(folder.path, folder.now + 3640 * DAY)
    assert {one.label for one in later.renew(30 * DAY)} == {CA, CRL, "vehicle/VIN1"}
    assert later.authority().certificate.not_valid_after_utc == later.now + 3650 * DAY
    assert verify(folder, folder.path / "issued" / f"{_serial(made.certificate)}.pem", at=later.now) == ""
    assert verify(folder, made.file, at=later.now + 30 * DAY) == ""


def _serial(certificate: x509.Certificate | None) -> str:
    assert certificate is not None
    return f"{certificate.serial_number:x}"


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "certs")
    folder.create("test authority", ECDSA, days=100)
    assert folder.issue(VEHICLE, "VIN1").end == folder.authority().certificate.not_valid_after_utc
    with pytest.raises(PkiError, match="has expired; renew it"):
        Folder(folder.path, folder.now + 101 * DAY).issue(VEHICLE, "VIN2")


def test_revoke_covers_every_certificate_of_a_name(folder: Folder) -> None:
    first = folder.issue(VEHICLE, "VIN1")
    other = folder.issue(VEHICLE, "VIN2")
    (second,) = folder.renew(timedelta(0), ["vehicle/VIN1"])
    serials = {_serial(first.certificate), _serial(second.certificate)}
    assert {f"{one:x}" for one in folder.revoke("vehicle/VIN1", "key-compromise")} == serials
    for serial in serials:
        assert "certificate revoked" in verify(folder, folder.path / "issued" / f"{serial}.pem")
    assert verify(folder, other.file) == ""
    code, said = openssl("crl", "-in", folder.path / "crl.pem", "-noout", "-text")
    assert (code, said.count("Key Compromise")) == (0, 2)
    assert folder.revoke("vehicle/VIN1", "key-compromise") == []


def test_after_revoke_the_name_gets_a_new_key(folder: Folder) -> None:
    first = folder.issue(VEHICLE, "VIN1")
    key = folder.file(VEHICLE, "VIN1", "key").read_bytes()
    folder.revoke("vehicle/VIN1", "unspecified")
    assert (folder.path / "revoked" / f"{_serial(first.certificate)}.key").read_bytes() == key
    again = folder.issue(VEHICLE, "VIN1")
    assert folder.file(VEHICLE, "VIN1", "key").read_bytes() != key
    assert verify(folder, again.file) == ""


def test_one_serial_number_can_be_revoked(folder: Folder) -> None:
    first = folder.issue(VEHICLE, "VIN1")
    (second,) = folder.renew(timedelta(0), ["vehicle/VIN1"])
    folder.revoke(f"serial/{_serial(first.certificate)}", "superseded")
    assert verify(folder, second.file) == ""
    assert second.file.exists()
    assert "revoked" in verify(folder, folder.path / "issued" / f"{_serial(first.certificate)}.pem")
    with pytest.raises(PkiError, match="no serial number"):
        folder.revoke("serial/VIN1", "superseded")
    with pytest.raises(PkiError, match="no certificate of vehicle/VIN9"):
        folder.revoke("vehicle/VIN9", "superseded")


def test_the_list_grows_in_number_and_drops_what_has_expired(folder: Folder) -> None:
    folder.issue(VEHICLE, "VIN1", days=5)
    folder.issue(VEHICLE, "VIN2", days=50)
    folder.revoke("vehicle/VIN1", "unspecified")
    (serial,) = folder.revoke("vehicle/VIN2", "unspecified")
    before = _number(folder)
    later = Folder(folder.path, folder.now + 6 * DAY)
    later.renew(timedelta(0), [CRL])
    assert [one.serial_number for one in later.revocations()] == [serial]
    assert _number(later) == before + 1


def _number(folder: Folder) -> int:
    return folder.revocations().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_missing_list_is_not_made_anew(folder: Folder) -> None:
    """It is the only record of what is revoked."""
    folder.issue(VEHICLE, "VIN1")
    (folder.path / "crl.pem").unlink()
    with pytest.raises(PkiError, match="restore it"):
        folder.revoke("vehicle/VIN1", "unspecified")
    assert not (folder.path / "crl.pem").exists()


def test_a_damaged_file_is_named(folder: Folder) -> None:
    folder.issue(VEHICLE, "VIN1").file.write_text("no certificate")
    with pytest.raises(PkiError, match=r"VIN1\.pem is no certificate"):
        folder.in_use()
    os.replace(folder.file(VEHICLE, "VIN1", "key"), folder.path / "ca.key")
    with pytest.raises(PkiError, match="is not the key of"):
        folder.issue(VEHICLE, "VIN2")


@pytest.mark.parametrize("name", ["", "../etc", ".hidden", "a/b", "a\0b", "a b", "-x", "ä", "x" * 65])
def test_a_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        common(name)


@pytest.mark.parametrize("name", ["", "a b", "-a.example", "a..b", "x.*.example", "/etc", "300.1.1.1", "a_b", "x" * 64])
def test_what_is_no_server_s_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a server"):
        server_name(name)


def test_a_new_folder_is_dated_today(tmp_path: Path) -> None:
    assert abs(Folder(tmp_path).now - datetime.now(UTC)) < timedelta(minutes=5)
