"""A breath lets the loop go on, in a thread that works beside it."""

from __future__ import annotations

import threading
import time

import pytest

from gai_fast.runtime import breathing
from gai_fast.runtime.breathing import begin_work, breathe, end_work
from tests.limits import LIMITS


@pytest.fixture
def breaths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that have breathed."""
    found: list[int] = []
    monkeypatch.setattr(breathing, "sleep", lambda _: found.append(threading.get_ident()))
    return found


def test_a_thread_that_does_not_work_beside_a_loop_goes_on(breaths: list[int]) -> None:
    breathe()
    working, go = threading.Event(), threading.Event()

    def work() -> None:
        begin_work()
        working.set()
        go.wait()
        time.sleep(LIMITS.breath)
        breathe()
        end_work()
        breathe()

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()
    breathe()
    go.set()
    thread.join()
    assert breaths == [thread.ident]


def test_a_thread_breathes_after_a_while_and_not_at_each_call(breaths: list[int]) -> None:
    begin_work()
    time.sleep(LIMITS.breath)
    began = time.perf_counter()
    for _ in range(1000):
        breathe()
    most = 1 + (time.perf_counter() - began) / LIMITS.breath
    end_work()
    assert 1 <= len(breaths) <= most
