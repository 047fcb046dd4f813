"""Fixtures of several integration tests."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

from gai_fast.cli.mock import Mock
from gai_fast.limits import LIMITS
from tests.integration.certificates import Authority
from tests.waiting import SECONDS


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    """A running mock whose answers have eight deltas."""
    async with Mock(deltas=8) as mock:
        yield mock


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, except where a test is about their time."""
    monkeypatch.setattr("gai_fast.net.retry.LIMITS", dataclasses.replace(LIMITS, retry_first=0.01))


@pytest.fixture
def patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes gives its clients all the time that they need for their last bytes."""
    monkeypatch.setattr(
        "gai_fast.server.serving.LIMITS", dataclasses.replace(LIMITS, closing=SECONDS, parting_frame=SECONDS)
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))
