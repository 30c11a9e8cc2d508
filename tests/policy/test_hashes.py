"""Hashes of passwords: our own, and those that other programs made; and files of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.hashes import CHOSEN, MADE, Cost, HashError, check_hash, from_emqx, make_hash, make_password, verify
from mesh.policy.passwordfile import PasswordFileError, name_error, read_passwords, write_passwords
from mesh.private import NotPrivate

QUICK = Cost(1, 8)
# Made by mosquitto_passwd 2.0 and bcrypt 5.0, for the password "pass word".
MOSQUITTO_2 = (
    "$7$101$gx28zuFIzdewiRyC$qCRWaNaOyEjd+2NBbj4nSI1rcfyuWw9wURI5gXn+Qy9D9sVOBjJqiSadm8XmTPKisDaiTy6LVcqG5Dthw2QhGg=="
)
MOSQUITTO_1 = (
    "$6$GiunbCJlT8nSz5MX$ojoPgauFqBluL/Pox0OSpdwFw68ID2E19w2EbBaPqTaYdBepQN27e1SIH8NrKtpGpYbevJbE3jXhJ4Ukr/PUIg=="
)
BCRYPT = "$2b$04$m9FOcppzxeduuWxQqQ3kpuigKmJ0jLVs5PSoss1M/sGoXS9kdR.H2"
OTHERS = (MOSQUITTO_2, MOSQUITTO_1, BCRYPT, BCRYPT.replace("$2b$", "$2y$"), BCRYPT.replace("$2b$", "$2a$"))


@pytest.mark.parametrize("text", OTHERS)
def test_hashes_of_other_brokers_are_verified(text: str) -> None:
    check_hash(text)
    assert verify(text, b"pass word")
    for wrong in (b"pass worD", b"", b"pass word ", b"pass\0word", b"x" * 4096):
        assert not verify(text, wrong)


def test_a_row_of_emqx_is_verified() -> None:
    """The hash is the second example of RFC 3962, appendix B, whose salt is text as EMQX's are."""
    text = from_emqx("01DBEE7F4A9E243E988B62C73CDA935D", "ATHENA.MIT.EDUraeburn", "sha1", 2)
    assert verify(text, b"password")
    assert not verify(text, b"Password")
    assert from_emqx(BCRYPT, "unused", "sha256", 4096) == BCRYPT
    for row in (("xyz", "s", "sha256", 1), ("ab" * 32, "s", "md5", 1), ("ab" * 32, "s", "sha256", 0)):
        with pytest.raises(HashError):
            from_emqx(*row)


@pytest.mark.parametrize("cost", [QUICK, MADE, CHOSEN])
def test_a_hash_is_of_its_password_only_and_each_has_a_salt(cost: Cost) -> None:
    hash = make_hash(b"right", cost)
    check_hash(hash)
    assert verify(hash, b"right")
    assert not verify(hash, b"wrong")
    assert make_hash(b"right", QUICK) != make_hash(b"right", QUICK)


def test_a_password_that_is_made_cannot_be_guessed() -> None:
    found = {make_password() for _ in range(100)}
    assert len(found) == 100
    assert all(len(password) == 24 for password in found)


@pytest.mark.parametrize(
    "text",
    [
        "", "plain", "$", "$1$salt$hash", "$argon2i$v=19$m=65536,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$m=99999999,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", "$argon2id$v=19$m=8,t=0,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$m=8,t=9999,p=1$c2FsdHNhbHQ$aGFzaA", "$argon2id$v=19$m=8,t=1,p=2$c2FsdHNhbHQ$aGFzaA",
        MOSQUITTO_2.replace("$101$", "$0$"), MOSQUITTO_2.replace("$101$", "$99999999999999999999$"),
        MOSQUITTO_2.replace("$101$", "$-1$"), MOSQUITTO_2[:-10], MOSQUITTO_2 + "$",
        MOSQUITTO_1[:-6], MOSQUITTO_1 + "$x", BCRYPT[:-1], BCRYPT.replace("$04$", "$31$"),
        BCRYPT.replace("$04$", "$03$"), "$pbkdf2-md5$i=1$c2FsdA==$aGFzaA==",
    ],
)  # fmt: skip
def test_a_text_that_is_no_hash_or_would_take_too_long_is_refused(text: str) -> None:
    with pytest.raises(HashError):
        check_hash(text)


@given(st.sampled_from((*OTHERS, make_hash(b"x", QUICK))), st.integers(0, 60), st.text(max_size=6), st.integers(0, 9))
def test_no_text_makes_the_check_fail_in_another_way(text: str, at: int, new: str, gone: int) -> None:
    changed = text[:at] + new + text[at + gone :]
    try:
        check_hash(changed)
    except HashError:
        return
    assert changed.startswith("$")


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "passwords.txt"
    hashes = {"V1": MOSQUITTO_2, "urn:car:7": BCRYPT, "Zoë": make_hash(b"x", QUICK)}
    write_passwords(file, hashes)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_passwords(file) == hashes
    write_passwords(file, {})
    assert read_passwords(file) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["passwords.txt"]
    file.write_text(f"# of Mosquitto\n\nV1:{MOSQUITTO_1}\n")
    assert read_passwords(file) == {"V1": MOSQUITTO_1}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("V1:secret\n", r":1: write name:hash"),
        (f"V1:{BCRYPT}\n{BCRYPT}\n", r":2: write name:hash"),
        (f"V1:{BCRYPT}\nV1:{BCRYPT}\n", r":2: 'V1' is there twice"),
        ("V1:$9$x$y$z\n", r":1: it is no hash of argon2id"),
        (b"V1:\xff\n", "is not UTF-8 text"),
    ],
)
def test_a_wrong_line_is_named_and_what_it_holds_is_not_shown(tmp_path: Path, text: str | bytes, what: str) -> None:
    file = tmp_path / "passwords.txt"
    file.touch(0o600)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PasswordFileError, match=what) as caught:
        read_passwords(file)
    assert "secret" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passwords.txt"
    write_passwords(file, {"V1": BCRYPT})
    file.chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        read_passwords(file)


@pytest.mark.parametrize("name", ["", " V1", "V1 ", "#V1", "a:$b", "a\nb", "a\0b"])
def test_names_that_a_file_cannot_hold(name: str) -> None:
    assert name_error(name)
