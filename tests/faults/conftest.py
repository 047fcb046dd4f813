"""Shared by the tests of faults."""

from __future__ import annotations

import pytest

from tests.conftest import ChangeLimits


@pytest.fixture(autouse=True)
def quick_retries(change_limits: ChangeLimits) -> None:
    """Retries come at once."""
    change_limits(retry_first=0.01)
