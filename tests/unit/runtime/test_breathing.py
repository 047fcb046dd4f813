"""A breath lets other threads go on, if there is work beside the loop."""

from __future__ import annotations

import pytest

from gai_fast.runtime import breathing
from gai_fast.runtime.breathing import begin_work, breathe, end_work


def test_without_work_a_breath_is_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    breaths: list[float] = []
    monkeypatch.setattr(breathing, "sleep", breaths.append)
    breathe()
    begin_work()
    breathe()
    begin_work()
    end_work()
    breathe()
    end_work()
    breathe()
    assert breaths == [0, 0]
