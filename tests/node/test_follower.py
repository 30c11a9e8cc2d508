"""How a node follows the settings: what it prepares, says and keeps, for each state of etcd."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.node import follower as room
from mesh.node.config import NodeConfig
from mesh.node.follower import SettingsFollower
from mesh.node.kept import NAME, keep, read_kept
from mesh.node.newest import revised
from mesh.node.prepared import Prepared
from mesh.registry.errors import Unauthorised, Unavailable
from mesh.registry.settings import Revision
from mesh.topology.topology import as_dict
from tests.support.configs import config
from tests.support.loop import run
from tests.support.waiting import until


class Etcd:
    """Store, watch and ballot of one node, in memory."""

    def __init__(self) -> None:
        self.revisions: dict[int, Revision] = {}
        self.errors: list[Exception] = []
        self.asked = 0
        self.known = False
        self.current = self.proposed = self.raised = 0
        self.on_change: Callable[[], None] = lambda: None
        self.votes: list[tuple[int, str]] = []
        self.confirmations: list[tuple[int, str]] = []

    def set(self, current: int, proposed: int = 0) -> None:
        self.known, self.current, self.proposed = True, current, proposed
        self.on_change()

    async def revision(self, number: int) -> Revision | None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop()
        return self.revisions.get(number)

    async def raise_last(self, number: int) -> None:
        self.raised = number

    async def start(self, wait: float) -> bool:
        return True

    async def stop(self) -> None:
        pass

    def vote(self, revision: int, error: str) -> None:
        self.votes.append((revision, error))

    def confirm(self, revision: int, error: str, at: float) -> None:
        self.confirmations.append((revision, error))


class Parts:
    """The parts of a node: what they were asked, and ``sessions``, a limit that they follow."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.sessions = 0
        self.error: Exception | None = None
        self.fault: Exception | None = None  # of the commit
        self.hang = False

    async def prepare(self, config: NodeConfig) -> Prepared:
        self.said.append(f"prepare {config.revision}")
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        prepared = Prepared()
        prepared.add(lambda: self._commit(config), lambda: self.said.append(f"withdraw {config.revision}"))
        return prepared

    def _commit(self, config: NodeConfig) -> None:
        self.said.append(f"commit {config.revision}")
        self.sessions = config.topology.limits.sessions
        if self.fault is not None:
            raise self.fault


class Case:
    """A follower whose node began with revision 1. Revision N allows N sessions."""

    def __init__(self, folder: Path, name: str = "edge-1") -> None:
        self.etcd, self.parts = Etcd(), Parts()
        self.config = replace(config(name), folder=folder, revision=1, since=5.0)
        self.etcd.revisions = {number: self.revision(number) for number in range(1, 9)}
        etcd: object = self.etcd
        self.follower = SettingsFollower(self.config, self.parts.prepare, etcd, etcd, etcd)  # type: ignore[arg-type]

    def revision(self, number: int) -> Revision:
        topology = self.config.topology
        changed = replace(topology, limits=replace(topology.limits, sessions=number))
        return Revision(number, as_dict(changed), 12.5, "ada", "host-1")

    async def voted(self, number: int, error: str = "") -> None:
        await until(lambda: (number, error) in self.etcd.votes, f"a vote on {number}: {error}")

    async def confirmed(self, number: int, error: str = "") -> None:
        await until(lambda: self.etcd.confirmations[-1:] == [(number, error)], f"{number} is confirmed: {error}")


@asynccontextmanager
async def following(folder: Path, name: str = "edge-1") -> AsyncIterator[Case]:
    case = Case(folder, name)
    await case.follower.start()
    try:
        yield case
    finally:
        await case.follower.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_AGAIN", 0.01)
    monkeypatch.setattr(room, "_RETRY", 0.02)


def test_nothing_is_said_before_etcd_was_asked_and_then_the_present_revision_is_confirmed(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.on_change()
            await asyncio.sleep(0)
            assert case.etcd.confirmations == []
            case.etcd.set(1)
            await case.confirmed(1)
            assert (case.parts.said, case.etcd.asked) == ([], 0)

    run(main())


def test_a_proposal_is_prepared_and_takes_effect_with_its_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.set(1, 2)
            await case.voted(2)
            assert (case.parts.said, case.parts.sessions, case.follower.revision) == (["prepare 2"], 0, 1)
            assert read_kept(tmp_path, 5.0) is None
            case.etcd.set(2)
            await case.confirmed(2)
            assert (case.parts.said, case.parts.sessions) == (["prepare 2", "commit 2"], 2)
            assert (case.follower.revision, case.follower.detail) == (2, "")
            assert case.follower.config.topology.limits.sessions == 2
            assert read_kept(tmp_path, 5.0) == case.revision(2)
            assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
            assert [entry.name for entry in tmp_path.iterdir()] == [NAME]

    run(main())


def test_a_withdrawn_proposal_is_undone_and_a_later_one_is_considered(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.set(1, 2)
            await case.voted(2)
            case.etcd.set(1)
            await until(lambda: case.parts.said == ["prepare 2", "withdraw 2"])
            case.etcd.set(1, 3)
            await case.voted(3)
            assert case.parts.said[2:] == ["prepare 3"]
        assert case.parts.said[-1] == "withdraw 3", "a node that stops undoes what is not in force"

    run(main())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("pattern has no end"), "pattern has no end"),
        (OSError(98, "port 1883 is in use"), "port 1883 is in use"),
        (ValueError(), "ValueError()"),
        (KeyError("x"), "a fault of the mesh: KeyError('x')"),
    ],
)
def test_what_cannot_be_prepared_is_refused_once_with_the_reason(
    tmp_path: Path, error: Exception, sentence: str
) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.parts.error = error
            case.etcd.set(1, 2)
            await case.voted(2, sentence)
            case.etcd.on_change()
            case.etcd.set(1)
            case.parts.error = None
            case.etcd.set(1, 3)
            await case.voted(3)
            assert case.etcd.votes == [(2, sentence), (3, "")]
            assert case.parts.said == ["prepare 2", "prepare 3"]

    run(main())


def test_a_preparation_that_hangs_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PREPARE", 0.01)

    async def main() -> None:
        async with following(tmp_path) as case:
            case.parts.hang = True
            case.etcd.set(1, 2)
            await until(lambda: case.etcd.votes)
            ((number, error),) = case.etcd.votes
            assert number == 2
            assert "not prepared within" in error

    run(main())


def test_a_node_that_was_away_during_the_vote_prepares_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.set(4)
            await case.confirmed(4)
            assert case.parts.said == ["prepare 4", "commit 4"]
            assert case.etcd.votes == []

    run(main())


def test_another_revision_than_the_prepared_one_undoes_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.set(1, 2)
            await case.voted(2)
            case.etcd.set(3)
            await case.confirmed(3)
            assert case.parts.said == ["prepare 2", "withdraw 2", "prepare 3", "commit 3"]

    run(main())


def test_a_revision_in_force_that_cannot_be_taken_is_reported_and_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.parts.error = OSError(98, "port 1883 is in use")
            case.etcd.set(2)
            await case.confirmed(2, "port 1883 is in use")
            assert case.follower.revision == 1
            wrong = "revision 2 is in force, and this node goes on with revision 1: port 1883 is in use"
            assert case.follower.detail == wrong
            await until(lambda: case.parts.said.count("prepare 2") > 1, "it is tried again")
            assert case.etcd.confirmations == [(2, "port 1883 is in use")], "it is said once"
            case.parts.error = None
            await case.confirmed(2)
            assert (case.follower.revision, case.follower.detail, case.parts.sessions) == (2, "", 2)

    run(main())


def test_a_part_that_could_not_take_a_prepared_revision_is_reported_until_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.parts.fault = OSError(98, "the address is lost")
            case.etcd.set(1, proposed=2)
            await case.voted(2)
            case.etcd.set(current=2)
            await case.confirmed(2, "the address is lost")
            assert case.follower.revision == 2
            assert "did not take revision 2: the address is lost" in case.follower.detail
            case.etcd.set(current=2, proposed=3)  # another round does not take it back
            await case.voted(3)
            await case.confirmed(2, "the address is lost")
            case.parts.fault = None
            case.etcd.set(current=3)
            await case.confirmed(3)
            assert case.follower.detail == ""

    run(main())


def test_a_proposal_is_considered_while_the_revision_in_force_cannot_be_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.parts.error = ValueError("no")
            case.etcd.set(2)
            await case.confirmed(2, "no")
            case.parts.error = None
            del case.etcd.revisions[2]
            case.etcd.set(2, 3)
            await case.voted(3)
            case.etcd.set(3)
            await case.confirmed(3)
            assert case.parts.said[-2:] == ["prepare 3", "commit 3"]
            assert "withdraw 3" not in case.parts.said
            assert case.follower.detail == ""

    run(main())


def test_an_etcd_that_was_emptied_or_set_back_changes_nothing_and_gets_the_last_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.set(5)
            await case.confirmed(5)
            case.etcd.confirmations.clear()
            case.etcd.set(0)
            await case.confirmed(5)
            assert (case.etcd.raised, case.follower.detail) == (5, "")
            case.etcd.set(3)
            await until(lambda: "set back to revision 3" in case.follower.detail)
            case.etcd.set(3, 4)
            await until(lambda: case.etcd.votes)
            ((number, error),) = case.etcd.votes
            assert (number, "follows revision 5 already" in error) == (4, True)
            assert (case.follower.revision, case.parts.sessions) == (5, 5)
            case.etcd.set(6)
            await case.confirmed(6)
            assert (case.follower.detail, case.parts.said[-1]) == ("", "commit 6")

    run(main())


@pytest.mark.parametrize("error", [Unavailable("away"), Unauthorised("wrong password"), RuntimeError("fault")])
def test_an_error_of_etcd_is_followed_by_another_attempt(tmp_path: Path, error: Exception) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.errors = [error, error]
            case.etcd.set(1, 2)
            await case.voted(2)
            case.etcd.set(2)
            await case.confirmed(2)
            assert case.parts.said == ["prepare 2", "commit 2"]

    run(main())


def test_a_proposal_that_is_gone_when_it_is_read_gets_no_vote(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            del case.etcd.revisions[2]
            case.etcd.set(1, 2)
            await until(lambda: case.etcd.asked)
            case.etcd.set(1, 3)
            await case.voted(3)
            assert case.etcd.votes == [(3, "")]

    run(main())


def test_a_node_that_is_removed_agrees_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path, "core-2") as case:
            topology = case.config.topology
            fewer = replace(topology, cores=tuple(replace(core, replicas=1) for core in topology.cores))
            case.etcd.revisions[2] = replace(case.revision(2), settings=as_dict(fewer))
            case.etcd.set(1, 2)
            await case.voted(2)
            case.etcd.set(2)
            await case.confirmed(2)
            assert case.parts.said == []
            assert case.follower.config.topology == topology
            assert read_kept(tmp_path, 5.0) is None

    run(main())


def test_a_revision_of_another_version_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with following(tmp_path) as case:
            case.etcd.revisions[2] = replace(case.revision(2), settings={"mesh": "demo"})
            case.etcd.set(1, 2)
            await until(lambda: case.etcd.votes)
            ((_, error),) = case.etcd.votes
            assert "another version of the mesh" in error

    run(main())


def test_settings_that_are_not_on_disk_are_in_force_and_reported_until_they_are(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "later"
        async with following(folder) as case:
            case.etcd.set(2)
            await case.confirmed(2)
            assert case.parts.sessions == 2
            assert "revision 2 is not on disk" in case.follower.detail
            folder.mkdir()
            await until(lambda: case.follower.detail == "")
            assert read_kept(folder, 5.0) == case.revision(2)

    run(main())


def test_the_kept_file_is_replaced_whole_and_read_only_if_it_is_private(tmp_path: Path) -> None:
    case = Case(tmp_path)
    (tmp_path / "settings.draft").write_text("of a killed process")
    keep(tmp_path, case.revision(2), 5.0)
    keep(tmp_path, case.revision(3), 5.0)
    assert read_kept(tmp_path, 5.0) == case.revision(3)
    assert read_kept(tmp_path, 6.0) is None, "another run of the mesh may give the numbers anew"
    (tmp_path / NAME).chmod(0o644)
    assert read_kept(tmp_path, 5.0) is None
    (tmp_path / NAME).chmod(0o600)
    for text in ('{"revision": 3', "[]", "{}", '{"since": 5.0}', '{"since": 5.0, "revision": 3, "settings": 1}'):
        (tmp_path / NAME).write_text(text)
        assert read_kept(tmp_path, 5.0) is None


def test_a_revision_gives_the_node_its_part(tmp_path: Path) -> None:
    case = Case(tmp_path)
    taken = revised(case.config, case.revision(7))
    assert taken is not None
    assert (taken.revision, taken.topology.limits.sessions, taken.folder) == (7, 7, tmp_path)
    assert (taken.spec, taken.secret) == (case.config.spec, case.config.secret)
