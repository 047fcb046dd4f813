"""Shared by the tests of faults."""

from __future__ import annotations

import pytest

from tests.limits import replaced


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr("gai_fast.net.attempts.retry.LIMITS", replaced(retry_first=0.01))
