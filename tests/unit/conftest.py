"""A gateway over a mock upstream, for the tests of the library's ways to ask one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.library.gateway import Gateway
from tests.unit.mocked import settings_for
from tests.waiting import SECONDS


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with asyncio.timeout(SECONDS), Mock(deltas=8) as mock:
        yield mock


@pytest.fixture
async def gateway(mock: Mock) -> AsyncIterator[Gateway]:
    async with Gateway(settings_for(mock)) as gateway:
        yield gateway
