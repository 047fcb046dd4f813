"""Has the texts of a request checked, before its upstream is asked: searched a turn at a time, and judged.

Searches of all requests take turns: in one iteration of the loop there is one turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from gai_fast.guards.active import ActiveGuard, AskedQuestion, Asks, GuardCounts
from gai_fast.guards.input import InputCheck
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.net.limits import LIMITS

EndsAt = Literal["flag", "failure"]


class InputChecks:
    """The checks of one loop.

    Args:
        counts: Counts what judges do.
    """

    def __init__(self, counts: GuardCounts) -> None:
        self._turns = asyncio.Lock()  # who waits for it longest is next
        self._counts = counts

    async def run(self, check: InputCheck) -> None:
        """Checks the texts of a request. If the task is cancelled, no judge is asked any more.

        Args:
            check: The check, which may have had turns.

        Raises:
            Error: A guard does not let the request through.
        """
        is_searched = False
        while not is_searched:
            async with self._turns:
                is_searched = check.turn()
                await asyncio.sleep(0)
        if check.judges and (pieces := check.pieces()):
            tasks = [asyncio.ensure_future(self._ask(check, guard, pieces)) for guard in check.judges]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            check.end()

    async def _ask(self, check: InputCheck, guard: ActiveGuard, pieces: Sequence[tuple[int, str]]) -> None:
        judge, settings = guard.judge, guard.settings.judge
        assert judge is not None
        ends_at: set[EndsAt] = {"flag"} if guard.settings.action == "stop" else set()
        if settings is None or not settings.fails_open:
            ends_at.add("failure")
        began = judge.now()
        answers = dict(await judge_input(judge, check.question(guard), pieces, frozenset(ends_at)))
        self._counts.delayed(guard.name, judge.now() - began)
        asked = [piece for piece in pieces if piece[0] in answers]
        check.judged(guard, asked, [answers[start] for start, _ in asked])


async def judge_input(
    judge: Asks, question: Question, pieces: Sequence[tuple[int, str]], ends_at: frozenset[EndsAt] = frozenset()
) -> list[tuple[int, JudgeVerdict | Failed]]:
    """Asks a judge about all pieces of a request's texts, `limits.judge_input` at a time, within one timeout.

    If the task is cancelled, nothing is asked any more.

    Args:
        judge: The judge.
        question: Whose texts they are; its own text does not count.
        pieces: The pieces, each with its begin (`JoinedTexts.pieces`).
        ends_at: The answers at which the other pieces need no verdict any more.

    Returns:
        The answers so far, in the order of the pieces, each with the begin of its piece.
    """
    check = _Check(judge, question, pieces, ends_at)
    try:
        return await check.done
    finally:
        check.cancel()


class _Check:
    """The questions of one request to one judge."""

    def __init__(
        self, judge: Asks, question: Question, pieces: Sequence[tuple[int, str]], ends_at: frozenset[EndsAt]
    ) -> None:
        self.done: asyncio.Future[list[tuple[int, JudgeVerdict | Failed]]] = asyncio.get_running_loop().create_future()
        self._judge = judge
        self._question = question
        self._pieces = pieces
        self._ends_at = ends_at
        self._ready: float | None = None  # of the first pieces, which are asked now
        self._next = 0
        self._asks: dict[int, AskedQuestion] = {}
        self._answers: dict[int, JudgeVerdict | Failed] = {}
        began = judge.now()
        self._go_on()
        self._ready = began

    def cancel(self) -> None:
        """Drops the questions that have no answer."""
        for ask in self._asks.values():
            ask.cancel()
        self._asks.clear()

    def _go_on(self) -> None:
        """Asks the next pieces, or ends."""
        while self._next < len(self._pieces) and len(self._asks) < LIMITS.judge_input:
            number = self._next
            question = replace(self._question, text=self._pieces[number][1])
            self._next += 1
            self._asks[number] = self._judge.ask(question, partial(self._answered, number), self._ready)
        if not self._asks:
            self._end()

    def _answered(self, number: int, answer: JudgeVerdict | Failed) -> None:
        del self._asks[number]
        self._answers[number] = answer
        is_failure = isinstance(answer, Failed)
        is_flag = isinstance(answer, JudgeVerdict) and answer.flagged
        if (is_failure and "failure" in self._ends_at) or (is_flag and "flag" in self._ends_at):
            self._end()
        else:
            self._go_on()

    def _end(self) -> None:
        if not self.done.done():
            self.cancel()
            self.done.set_result([(self._pieces[number][0], each) for number, each in sorted(self._answers.items())])
