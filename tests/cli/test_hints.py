"""What ``mesh pub`` advises after a refusal."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pytest

from mesh.cli import pub
from mesh.topology.load import load
from mesh.wire.reasons import IMPLEMENTATION_SPECIFIC_ERROR
from tests.support.topologies import topology


@pytest.mark.parametrize(("topic", "hinted"), [("vehicles/CAR-7/cmd", True), ("fleet/news", False)])
def test_a_message_whose_edge_is_not_known_points_to_etcd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], topic: str, hinted: bool
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    arguments = argparse.Namespace(topic=topic, qos=1, vehicle=None)
    answers = Counter({IMPLEMENTATION_SPECIFIC_ERROR: 1})
    pub._print_answers(arguments, answers, [], load(topology(folder, 18830, 18840, ["edge-1"])))
    said = capsys.readouterr().err
    hint = "hint: the edge of CAR-7 cannot be determined now: 'mesh status' says whether etcd answers"
    assert (hint in said) == hinted
