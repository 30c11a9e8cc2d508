"""Guessing passwords is slow, and slows only who guesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.broker.peer import Peer
from mesh.policy import attempts as module
from mesh.policy.anonymous import AnyUser
from mesh.policy.attempts import LONGEST, SHARED, Attempts, Delays
from mesh.policy.chain import Chain
from mesh.policy.passwords import Passwords
from mesh.policy.providers import Provider
from mesh.policy.scram import ScramFile, ScramProof, Verifiers, make_verifier
from mesh.policy.secrettext import SecretText
from mesh.policy.users import Users
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD, CONNECTION_RATE_EXCEEDED, NOT_AUTHORIZED, SUCCESS, return_code
from tests.fakes.clock import FakeClock
from tests.support.loop import run
from tests.support.scram_client import ScramClient

USERS = {"app": "right", "other": "right"}
MOST = 20  # a minute
PAIR = 5  # of these, for one user from one address


class Core:
    """Log-ins at a core, with both ways to show a password."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.attempts = Attempts(MOST, self.clock)
        users = Users({name: SecretText(text=word) for name, word in USERS.items()}, self.attempts, bytes.hex)
        run(users.start())
        self._chain = Chain((users,))
        self._verifiers = Verifiers({name: make_verifier(password, 1) for name, password in USERS.items()})

    def plain(self, address: str, name: str, password: str) -> int:
        """The reason code."""
        try:
            self._chain.decide(Connect(username=name, password=password.encode()), Peer(address, 5))
        except Refused as refused:
            return refused.reason
        return SUCCESS

    def scram(self, address: str, name: str, password: str) -> int:
        proof = ScramProof(self._verifiers, "scram", self.attempts, address)
        client = ScramClient(name, password)
        try:
            challenge, _ = proof.step(client.first())
            proof.step(client.final(challenge))
        except Refused as refused:
            return refused.reason
        return SUCCESS


@pytest.mark.parametrize(("way", "wrong"), [("plain", BAD_USER_NAME_OR_PASSWORD), ("scram", NOT_AUTHORIZED)])
@pytest.mark.parametrize("name", ["app", "nobody"])
def test_further_passwords_of_a_guesser_are_not_looked_at(way: str, wrong: int, name: str) -> None:
    core = Core()
    log_in = getattr(core, way)
    assert [log_in("192.0.2.1", name, "wrong") for _ in range(PAIR)] == [wrong] * PAIR
    assert log_in("192.0.2.1", name, "wrong") == CONNECTION_RATE_EXCEEDED
    assert log_in("192.0.2.1", "app", "right") == (CONNECTION_RATE_EXCEEDED if name == "app" else SUCCESS)
    assert (core.attempts.failures, core.attempts.refusals) == (PAIR, 2 if name == "app" else 1)
    core.clock.now += 60.0 / PAIR
    assert log_in("192.0.2.1", name, "wrong") == wrong
    assert log_in("192.0.2.1", name, "wrong") == CONNECTION_RATE_EXCEEDED


def test_refusal_says_when_the_next_password_is_looked_at_and_names_no_password() -> None:
    core = Core()
    for _ in range(PAIR):
        core.plain("192.0.2.1", "app", "sesame")
    with pytest.raises(Refused, match=r"from 192\.0\.2\.1 or for 'app'; the next one is looked at in 12 s"):
        core.attempts.check("192.0.2.1", "app")
    assert return_code(CONNECTION_RATE_EXCEEDED) == 3


def test_many_names_from_one_address_are_slowed() -> None:
    core = Core()
    codes = [core.plain("192.0.2.1", f"user-{number}", "wrong") for number in range(MOST + 1)]
    assert codes == [BAD_USER_NAME_OR_PASSWORD] * MOST + [CONNECTION_RATE_EXCEEDED]
    assert core.plain("192.0.2.1", "app", "right") == CONNECTION_RATE_EXCEEDED
    assert core.plain("192.0.2.2", "app", "right") == SUCCESS


def test_many_addresses_for_one_user_are_slowed_and_its_clients_are_not() -> None:
    core = Core()
    assert core.plain("192.0.2.250", "app", "right") == SUCCESS
    codes = [core.plain(f"192.0.2.{number}", "app", "wrong") for number in range(MOST + 1)]
    assert codes == [BAD_USER_NAME_OR_PASSWORD] * MOST + [CONNECTION_RATE_EXCEEDED]
    assert core.plain("192.0.2.251", "app", "right") == CONNECTION_RATE_EXCEEDED
    assert core.plain("192.0.2.250", "app", "right") == SUCCESS
    assert core.plain("192.0.2.251", "other", "right") == SUCCESS


def test_client_with_an_old_password_does_not_slow_the_others_of_its_machine() -> None:
    core = Core()
    codes = []
    for _ in range(600):  # it tries again each second
        codes.append(core.plain("127.0.0.1", "app", "old"))
        assert core.plain("127.0.0.1", "other", "right") == SUCCESS
        core.clock.now += 1.0
    assert codes.count(BAD_USER_NAME_OR_PASSWORD) <= PAIR * 11
    assert codes.count(CONNECTION_RATE_EXCEEDED) > 500


def test_right_password_does_not_forgive_the_wrong_ones() -> None:
    """Who has one password could guess others."""
    core = Core()
    codes = []
    for number in range(MOST + 1):
        assert core.plain("192.0.2.1", "app", "right") == SUCCESS or number == MOST
        codes.append(core.plain("192.0.2.1", f"user-{number}", "wrong"))
    assert codes[-1] == CONNECTION_RATE_EXCEEDED


def test_host_cannot_choose_another_address_of_its_ipv6_network() -> None:
    core = Core()
    for number in range(PAIR):
        core.plain(f"2001:db8::{number:x}", "app", "wrong")
    assert core.plain("2001:db8::ffff:1", "app", "right") == CONNECTION_RATE_EXCEEDED
    assert core.plain("2001:db8:0:1::1", "app", "right") == SUCCESS
    for _ in range(PAIR):
        core.plain("::ffff:192.0.2.1", "other", "wrong")
    assert core.plain("192.0.2.1", "other", "right") == CONNECTION_RATE_EXCEEDED


def test_keys_are_bounded_in_bytes() -> None:
    core = Core()
    for _ in range(PAIR):
        core.plain("192.0.2.1", "n" * 60_000, "wrong")
    assert max(len(key) for key in core.attempts._pairs._taken) < 100
    assert core.plain("192.0.2.1", "n" * 60_000, "wrong") == CONNECTION_RATE_EXCEEDED


def test_a_guesser_that_goes_on_waits_longer_each_time() -> None:
    core = Core()
    waits = []
    for _ in range(40):
        before = core.clock.now
        while core.plain("192.0.2.1", "app", "wrong") == CONNECTION_RATE_EXCEEDED:
            core.clock.now += 1.0
        waits.append(core.clock.now - before)
    assert waits[:PAIR] == [0.0] * PAIR
    assert waits[-10:] == [LONGEST] * 10
    assert waits[PAIR + 2 :] == sorted(waits[PAIR + 2 :])


def test_a_right_password_ends_the_delay_of_its_client() -> None:
    core = Core()
    for _ in range(10):
        core.plain("192.0.2.1", "app", "wrong")
        core.clock.now += LONGEST
    assert core.plain("192.0.2.1", "app", "right") == SUCCESS
    assert core.plain("192.0.2.1", "app", "wrong") == BAD_USER_NAME_OR_PASSWORD
    assert core.plain("192.0.2.1", "app", "right") == SUCCESS


def test_delays_are_forgotten_and_their_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.policy.attempts.ENTRIES", 3)
    delays = Delays(0)
    for number in range(10):
        delays.failed(str(number), 0.0)
    assert len(delays) == 3
    assert delays.wait("9", 0.5) == 0.5
    delays.failed("9", 1.0)
    assert delays.wait("9", 1.0) == 2.0
    delays.failed("9", 3.0 + LONGEST)
    assert delays.wait("9", 3.0 + LONGEST) == 1.0


class Door(Core):
    """Log-ins of vehicles at a front door, many of which share an address."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = Attempts(MOST, self.clock, shared=True)
        self._verifiers = Verifiers({f"V{number}": make_verifier("right", 1) for number in range(2000)})


def test_a_vehicle_that_guesses_is_slowed_and_the_others_behind_its_address_are_not() -> None:
    door = Door()
    codes = [door.scram("192.0.2.1", "V1", "wrong") for _ in range(PAIR + 1)]
    assert codes == [NOT_AUTHORIZED] * PAIR + [CONNECTION_RATE_EXCEEDED]
    for number in range(2, 2 + 4 * MOST):  # more than a core allows for an address
        assert door.scram("192.0.2.1", f"V{number}", "wrong") == NOT_AUTHORIZED
        assert door.scram("192.0.2.1", f"V{number}", "right") == SUCCESS
    assert (door.attempts.failures, door.attempts.refusals) == (PAIR + 4 * MOST, 1)


def test_who_guesses_for_all_vehicles_is_slowed_and_those_who_were_there_before_are_not() -> None:
    door = Door()
    assert door.scram("192.0.2.1", "V1999", "right") == SUCCESS
    codes = [door.scram("192.0.2.1", f"V{number}", "wrong") for number in range(SHARED * MOST + 1)]
    assert codes == [NOT_AUTHORIZED] * SHARED * MOST + [CONNECTION_RATE_EXCEEDED]
    assert door.scram("192.0.2.1", "V1998", "right") == CONNECTION_RATE_EXCEEDED
    assert door.scram("192.0.2.1", "V1999", "right") == SUCCESS
    assert door.scram("192.0.2.2", "V1998", "right") == SUCCESS


def test_a_few_addresses_do_not_lock_a_vehicle_out_at_a_new_address() -> None:
    door = Door()
    for number in range(MOST):
        for _ in range(PAIR):
            assert door.scram(f"192.0.2.{number}", "V1", "wrong") == NOT_AUTHORIZED
    assert door.scram("198.51.100.1", "V1", "right") == SUCCESS


def test_guesses_from_many_networks_do_not_lock_a_vehicle_out_of_another_network() -> None:
    door = Door()
    guessers = SHARED * MOST // PAIR + 1
    addresses = [f"10.{number // 250}.{number % 250}.9" for number in range(guessers)]
    codes = [door.scram(address, "V1", "wrong") for address in addresses for _ in range(PAIR)]
    assert codes.count(NOT_AUTHORIZED) >= SHARED * MOST
    assert door.scram("10.0.0.8", "V1", "right") == CONNECTION_RATE_EXCEEDED
    assert door.scram("198.51.100.1", "V1", "right") == SUCCESS


def test_guesses_from_a_vehicles_own_address_leave_it_a_look_each_second() -> None:
    door = Door()
    assert door.scram("192.0.2.1", "V1", "right") == SUCCESS
    wrong = [door.scram("192.0.2.1", "V1", "wrong") for _ in range(100)]
    assert wrong.count(CONNECTION_RATE_EXCEEDED) >= 30
    door.clock.now += 1.0
    assert door.scram("192.0.2.1", "V1", "right") == SUCCESS


def test_providers_of_passwords_bar_an_address_from_which_too_many_wrong_ones_came(tmp_path: Path) -> None:
    attempts = Attempts(MOST, FakeClock())
    providers: list[Provider] = [
        Users({"app": SecretText(text="right")}, attempts, bytes.hex),
        Passwords("file", tmp_path / "passwords", lambda connect: connect.username or "", attempts),
        ScramFile("scram", tmp_path / "verifiers", attempts),
    ]
    for _ in range(MOST):
        attempts.failed("192.0.2.1", "app")
    assert [provider.bars("192.0.2.1") for provider in providers] == [True, True, True]
    assert [provider.bars("192.0.2.2") for provider in providers] == [False, False, False]
    assert not AnyUser().bars("192.0.2.1")


@pytest.mark.parametrize("shared", [False, True])
def test_an_address_is_barred_while_no_password_of_it_would_be_looked_at(shared: bool) -> None:
    clock = FakeClock()
    attempts = Attempts(MOST, clock, shared=shared)
    most = SHARED * MOST if shared else MOST
    for number in range(most):
        assert not attempts.bars("2001:db8::1")
        attempts.failed("2001:db8::1", f"V{number}")
    assert attempts.bars("2001:db8::2")  # of the same host
    assert not attempts.bars("192.0.2.1")
    with pytest.raises(Refused):
        attempts.check("2001:db8::1", "V")
    clock.now += 60.0
    assert not attempts.bars("2001:db8::1")
    attempts.check("2001:db8::1", "V")


def test_an_address_that_many_share_is_not_barred_while_one_of_its_vehicles_is_known(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", 2)
    attempts = Attempts(1, FakeClock(), shared=True)
    for name in ("V1", "V1", "V2"):
        attempts.succeeded("192.0.2.1", name)
    for number in range(SHARED):
        attempts.failed("192.0.2.1", f"X{number}")
    attempts.succeeded("192.0.2.2", "V3")  # V1 is forgotten
    assert not attempts.bars("192.0.2.1")
    attempts.check("192.0.2.1", "V2")
    attempts.succeeded("192.0.2.2", "V4")  # and V2
    assert attempts.bars("192.0.2.1")
    with pytest.raises(Refused):
        attempts.check("192.0.2.1", "V2")
