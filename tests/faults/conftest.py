"""Shared by the tests of faults."""

from __future__ import annotations

import dataclasses

import pytest

from gai_fast.model.limits import LIMITS


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr("gai_fast.net.attempts.retry.LIMITS", dataclasses.replace(LIMITS, retry_first=0.01))
