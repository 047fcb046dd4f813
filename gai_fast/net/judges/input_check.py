"""Has the texts of a request judged, before its upstream is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from gai_fast.guards.verdicts import Failed, Question, Verdict
from gai_fast.net.judges.judge import Ask, Judge
from gai_fast.net.limits import LIMITS

EndsAt = Literal["flag", "failure"]


async def judge_input(
    judge: Judge, question: Question, pieces: Sequence[tuple[int, str]], ends_at: frozenset[EndsAt] = frozenset()
) -> list[tuple[int, Verdict | Failed]]:
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
        self, judge: Judge, question: Question, pieces: Sequence[tuple[int, str]], ends_at: frozenset[EndsAt]
    ) -> None:
        self.done: asyncio.Future[list[tuple[int, Verdict | Failed]]] = asyncio.get_running_loop().create_future()
        self._judge = judge
        self._question = question
        self._pieces = pieces
        self._ends_at = ends_at
        self._ready = judge.now()
        self._next = 0
        self._asks: dict[int, Ask] = {}
        self._answers: dict[int, Verdict | Failed] = {}
        self._go_on()

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

    def _answered(self, number: int, answer: Verdict | Failed) -> None:
        del self._asks[number]
        self._answers[number] = answer
        is_failure = isinstance(answer, Failed)
        is_flag = isinstance(answer, Verdict) and answer.flagged
        if (is_failure and "failure" in self._ends_at) or (is_flag and "flag" in self._ends_at):
            self._end()
        else:
            self._go_on()

    def _end(self) -> None:
        if not self.done.done():
            self.cancel()
            self.done.set_result([(self._pieces[number][0], each) for number, each in sorted(self._answers.items())])
