"""Fixtures of several integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gai_fast.cli.mock.command import Mock
from tests.conftest import ChangeLimits
from tests.integration.gateway import Net
from tests.waiting import SECONDS


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    """Starts gateways and upstreams on the test's own loop; scenarios (`on_both_loops` and its like) get their own."""
    async with AsyncExitStack() as stack:
        yield Net(stack)


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    """Yields a running mock whose answers have eight deltas."""
    async with Mock(deltas=8) as mock:
        yield mock


@pytest.fixture
def quick_retries(change_limits: ChangeLimits) -> None:
    """Retries come at once, except if a test is about their time."""
    change_limits(retry_first=0.01)


@pytest.fixture
def patient_end(change_limits: ChangeLimits) -> None:
    """A server that closes gives its clients all the time that they need for their last bytes."""
    change_limits(closing=SECONDS, final_frame=SECONDS)
