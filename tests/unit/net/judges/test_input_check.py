"""`gai_fast/net/judges/input_check.py`: so many pieces at a time, within one timeout."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gai_fast.guards.verdicts import Failed, Question, Verdict
from gai_fast.net.judges.input_check import judge_input
from gai_fast.net.judges.judge import Answered

FINE = Verdict(False)
BAD = Verdict(True)
LATE = Failed("late", "")
ASKED = Question("policy", "input", "input", "", "m", "anna", "s1")


class FakeAsk:
    def __init__(self, judge: FakeJudge, question: Question, answered: Answered, ready: float) -> None:
        self.judge, self.question, self.answered, self.ready = judge, question, answered, ready

    def cancel(self) -> None:
        self.judge.asks.remove(self)
        self.judge.cancelled.append(self.question.text)


class FakeJudge:
    """Keeps its questions until the test answers them."""

    def __init__(self) -> None:
        self.asks: list[FakeAsk] = []
        self.cancelled: list[str] = []
        self.most = 0
        self.seen: list[tuple[Question, float]] = []

    def now(self) -> float:
        return 7.0 + len(self.seen)

    def ask(self, question: Question, answered: Answered, ready: float) -> FakeAsk:
        self.asks.append(FakeAsk(self, question, answered, ready))
        self.seen.append((question, ready))
        self.most = max(self.most, len(self.asks))
        return self.asks[-1]

    def answer(self, answer: Verdict | Failed = FINE, at: int = 0) -> None:
        self.asks.pop(at).answered(answer)

    async def begin(self, count: int, *ends_at: Any) -> asyncio.Task[Any]:
        pieces = [(at * 10, f"piece {at}") for at in range(count)]
        task = asyncio.create_task(judge_input(cast(Any, self), ASKED, pieces, frozenset(ends_at)))
        await asyncio.sleep(0)
        return task


async def test_without_text_nothing_is_asked() -> None:
    assert await (await FakeJudge().begin(0)) == []


async def test_each_piece_gets_an_answer_eight_at_a_time_from_one_moment() -> None:
    judge = FakeJudge()
    task = await judge.begin(20)
    for number in range(20):
        judge.answer(BAD if number == 3 else LATE if number == 4 else FINE, at=-1)
    answers = await task
    assert [at for at, _ in answers] == list(range(0, 200, 10))
    assert [answer for _, answer in answers].count(FINE) == 18
    assert judge.most == 8
    assert {ready for _, ready in judge.seen} == {7.0}
    assert judge.seen[0][0] == Question("policy", "input", "input", "piece 0", "m", "anna", "s1")


@pytest.mark.parametrize(("answer", "end"), [(BAD, "flag"), (LATE, "failure")])
async def test_an_answer_that_decides_ends_it(answer: Verdict | Failed, end: str) -> None:
    judge = FakeJudge()
    task = await judge.begin(10, end)
    judge.answer(at=1)
    judge.answer(answer, at=2)
    assert await task == [(10, FINE), (30, answer)]
    assert (judge.asks, len(judge.cancelled)) == ([], 7)


@pytest.mark.parametrize(("answer", "end"), [(LATE, "flag"), (BAD, "failure")])
async def test_another_answer_does_not(answer: Verdict | Failed, end: str) -> None:
    judge = FakeJudge()
    task = await judge.begin(2, end)
    judge.answer(answer)
    judge.answer()
    assert await task == [(0, answer), (10, FINE)]


async def test_a_request_that_is_cancelled_asks_nothing_any_more() -> None:
    judge = FakeJudge()
    task = await judge.begin(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (judge.asks, len(judge.cancelled)) == ([], 8)
