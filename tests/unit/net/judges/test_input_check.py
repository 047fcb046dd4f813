"""`gai_fast/net/judges/input_check.py`: so many pieces at a time, within one timeout."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.guards.input import InputCheck
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.errors import Error
from gai_fast.model.settings import GuardSettings, JudgeSettings
from gai_fast.net.judges.input_check import InputChecks, judge_input
from gai_fast.net.judges.judge import Answered
from tests.guard_counts import Counted
from tests.limits import LIMITS
from tests.waiting import until

FINE = JudgeVerdict(False)
BAD = JudgeVerdict(True)
LATE = Failed("late", "")
ASKED = Question("policy", "input", "input", "", "m", "anna", "s1")


class FakeAsk:
    def __init__(self, judge: FakeJudge, question: Question, answered: Answered, ready: float | None) -> None:
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
        self.seen: list[tuple[Question, float | None]] = []

    def now(self) -> float:
        return 7.0 + len(self.seen)

    def ask(self, question: Question, answered: Answered, ready: float | None = None) -> FakeAsk:
        self.asks.append(FakeAsk(self, question, answered, ready))
        self.seen.append((question, ready))
        self.most = max(self.most, len(self.asks))
        return self.asks[-1]

    def answer(self, answer: JudgeVerdict | Failed = FINE, at: int = 0) -> None:
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
    assert [ready for _, ready in judge.seen] == [None] * 8 + [7.0] * 12  # those that are asked at once, and the others
    assert judge.seen[0][0] == Question("policy", "input", "input", "piece 0", "m", "anna", "s1")


@pytest.mark.parametrize(("answer", "end"), [(BAD, "flag"), (LATE, "failure")])
async def test_an_answer_that_decides_ends_it(answer: JudgeVerdict | Failed, end: str) -> None:
    judge = FakeJudge()
    task = await judge.begin(10, end)
    judge.answer(at=1)
    judge.answer(answer, at=2)
    assert await task == [(10, FINE), (30, answer)]
    assert (judge.asks, len(judge.cancelled)) == ([], 7)


@pytest.mark.parametrize(("answer", "end"), [(LATE, "flag"), (BAD, "failure")])
async def test_another_answer_does_not(answer: JudgeVerdict | Failed, end: str) -> None:
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


class TestChecks:
    """`InputChecks`: searches take turns, judges are asked at once."""

    def check(self, *guards: ActiveGuard, text: str = "a kestrel") -> InputCheck:
        return InputCheck(guards, [text], StreamInfo("s1", model="m", caller="anna"), Counted())

    def judged(self, judge: FakeJudge, action: Any = "stop", *, fails_open: bool = False) -> ActiveGuard:
        settings = GuardSettings("policy", "http", action=action, judge=JudgeSettings(url="u", fails_open=fails_open))
        return ActiveGuard(settings, judge=cast(Any, judge))

    async def test_searches_take_turns(self) -> None:
        settings = GuardSettings("names", "words", words=("kestrel",))
        guard = ActiveGuard(settings, build(settings))
        long, short = self.check(guard, text="x " * 3 * LIMITS.slice), self.check(guard)
        checks, ended = InputChecks(Counted()), []

        async def run(check: InputCheck, name: str) -> None:
            await checks.run(check)
            ended.append(name)

        await asyncio.gather(run(long, "long"), run(short, "short"))
        assert ended == ["short", "long"]
        assert short.texts == ["a [words]"]

    async def test_all_judges_are_asked_at_once_and_the_first_stop_ends_the_others(self) -> None:
        slow, quick, counts = FakeJudge(), FakeJudge(), Counted()
        run = asyncio.create_task(InputChecks(counts).run(self.check(self.judged(slow), self.judged(quick))))
        await until(lambda: bool(quick.asks))
        assert [question.text for question, _ in slow.seen + quick.seen] == ["a kestrel"] * 2
        quick.answer(BAD)
        with pytest.raises(Error, match="does not let this request through"):
            await run
        assert slow.cancelled == ["a kestrel"]
        assert counts.delays == [("policy", 1.0)]

    async def test_a_failure_of_a_closed_guard_refuses_and_of_an_open_one_does_not(self) -> None:
        for fails_open in (False, True):
            judge = FakeJudge()
            check = self.check(self.judged(judge, fails_open=fails_open))
            run = asyncio.create_task(InputChecks(Counted()).run(check))
            await until(lambda judge=judge: bool(judge.asks))  # type: ignore[misc]  # bound in the loop
            judge.answer(LATE)
            if fails_open:
                await run
                assert check.let_through() is not None
            else:
                with pytest.raises(Error, match="cannot judge"):
                    await run

    async def test_a_request_that_is_given_up_asks_nothing_any_more(self) -> None:
        judge = FakeJudge()
        run = asyncio.create_task(InputChecks(Counted()).run(self.check(self.judged(judge))))
        await until(lambda: bool(judge.asks))
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await asyncio.sleep(0)
        assert (judge.asks, judge.cancelled) == ([], ["a kestrel"])
