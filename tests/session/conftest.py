"""For all tests of the client's side of a session."""

from __future__ import annotations

import pytest

from tests.session.client_program import Program


@pytest.fixture
def program() -> Program:
    return Program()
