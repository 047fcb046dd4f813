"""A timer wheel whose time passes only when a test says so."""

from __future__ import annotations

from typing import cast

import pytest

from gai_fast.runtime.timers import TimerWheel
from tests.unit.net.fakes import FakeTime


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def timers(time: FakeTime) -> TimerWheel:
    return cast("TimerWheel", time)  # only what a store uses is there
