"""A warning that each worker has, or that each reload finds again, is a line once."""

from __future__ import annotations

import logging
import math
import os

from gai_fast.server.observe.said_once import SaidOnce


def record(text: str, **more: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, **more})


def test_a_text_is_said_once_within_its_time() -> None:
    now = [100.0]
    said = SaidOnce(lambda: now[0])
    assert said.filter(record("a", once=60.0))
    assert not said.filter(record("a", once=60.0))
    assert said.filter(record("b", once=60.0))
    now[0] += 60.0
    assert said.filter(record("a", once=60.0))
    assert said.filter(record("c", once=math.inf))
    now[0] += 1e9
    assert not said.filter(record("c", once=math.inf))


def test_what_has_no_mark_is_always_said() -> None:
    said = SaidOnce()
    assert all(said.filter(record("a")) for _ in range(3))


def test_workers_that_are_forked_share_what_was_said() -> None:
    said = SaidOnce()
    child = os.fork()
    if not child:
        os._exit(0 if said.filter(record("a", once=math.inf)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not said.filter(record("a", once=math.inf))
