"""Clients against the broker, step by step, beside the model."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

from tests.fuzz.machine import Machine

Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestClientsAgainstTheBroker: Any = Machine.TestCase
