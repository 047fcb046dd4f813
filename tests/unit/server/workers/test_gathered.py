from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from gai_fast.server.workers.gathered import Gathered, GatheredCounts
from tests.limits import LIMITS


def gathered() -> GatheredCounts:
    return GatheredCounts(lambda: 1000, sum)


def test_a_question_is_answered_once_all_workers_have_sent_their_counts() -> None:
    counts = gathered()
    number = counts.ask(1, 7, [1, 2])
    counts.note(1, number, 10)
    counts.note(2, number + 1, 19)  # to another question
    assert not list(counts.answers(time.monotonic()))
    counts.note(2, number, 20)
    assert list(counts.answers(time.monotonic())) == [Gathered(1, 7, [1000, 10, 20])]
    assert not list(counts.answers(time.monotonic()))
    assert not counts.due


def test_of_a_worker_that_is_late_the_last_known_counts_are_sent() -> None:
    counts = gathered()
    counts.note(2, counts.ask(1, 1, [2]), 20)
    assert len(list(counts.answers(time.monotonic()))) == 1
    counts.ask(1, 2, [2, 3])
    (due,) = counts.due
    assert due <= time.monotonic() + LIMITS.counts_wait
    assert list(counts.answers(due)) == [Gathered(1, 2, [1000, 20])]


def test_the_counts_of_workers_that_have_ended_go_on_counting_and_their_questions_do_not() -> None:
    counts = gathered()
    for process, count in ((1, 10), (2, 20), (3, 30)):
        counts.note(process, 0, count)
    counts.ask(1, 1, [1, 2])
    number = counts.ask(3, 2, [1, 2, 3])
    counts.keep(1)
    counts.keep(2)
    counts.keep(4)  # it has never sent any
    counts.note(3, number, 31)
    assert list(counts.answers(time.monotonic())) == [Gathered(3, 2, [1000, 30, 31])]


def test_counts_that_cannot_be_added_or_had_leave_the_others() -> None:
    def add(known: Sequence[int]) -> int:
        raise ArithmeticError

    counts = GatheredCounts(lambda: None, add)
    counts.note(1, 0, 10)
    counts.note(2, 0, 20)
    with pytest.raises(ArithmeticError):
        counts.keep(1)
    counts.ask(2, 1, [])
    assert list(counts.answers(time.monotonic())) == [Gathered(2, 1, [20])]
