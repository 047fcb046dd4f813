"""One guard's judge in one worker: which questions it is asked at once, for how long, and when not at all.

It must not know how a judge is asked (a `Way`), nor what follows from a verdict (`guards/`).

1. The judge has at most `Way.places` questions at a time, and half of them of one caller with a name. The others wait
   for a place; callers take turns.
2. The timeout of a question runs from when its text was ready, the wait for a place included.
3. Each question gets one answer, in a later turn of the loop: a verdict or a failure, never an exception.
4. The breaker is that of an upstream: failures count for it by the rule of `net/attempts/retry.py`. While it is open,
   no question waits for a place.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, BreakerSettings
from gai_fast.net.attempts.retry import Breaker
from gai_fast.runtime.timers import Timer, Timers

_log: Final = logging.getLogger("gai_fast.guards")

_OPEN: Final = Failed("breaker", "it has failed too often: its breaker is open", counts=False)

Answered = Callable[[JudgeVerdict | Failed], object]
"""Called once with the answer, in a later turn of the loop than the question."""


class Way(ABC):
    """The way to one judge.

    Attributes:
        places: The questions that the judge may have at a time.
    """

    places: int

    @abstractmethod
    def ask(self, question: Question, answered: Answered, freed: Callable[[], None]) -> Callable[[], None]:
        """Asks the judge.

        Args:
            question: The text.
            answered: As `Answered`.
            freed: Called once nothing of the question is left, perhaps long after it was given up.

        Returns:
            A function that gives the question up: `answered` is then not called. Idempotent.
        """

    @abstractmethod
    def retire(self) -> None:
        """Keeps nothing for future questions: no new stream uses the judge."""

    @abstractmethod
    async def close(self) -> None:
        """Gives up all questions, without an answer, and returns when nothing of them is left."""


class Judge:
    """Asks for verdicts. Belongs to one loop.

    Args:
        guard: The guard's name.
        way: How the judge is asked.
        timeout: Seconds from a question to its answer.
        timers: The loop's timers.
        loop: The running loop.

    Attributes:
        guard: The guard's name.
        failures: The failures so far.
    """

    def __init__(self, guard: str, way: Way, timeout: float, timers: Timers, loop: asyncio.AbstractEventLoop) -> None:
        self.guard = guard
        self.failures = 0
        self._way = way
        self._timeout = timeout
        self._timers = timers
        self._loop = loop
        self._breaker = Breaker(BreakerSettings())
        self._running: Counter[str] = Counter()  # by caller
        self._waiting: dict[str, dict[Ask, None]] = {}  # for a place, by caller: who is served next is the first
        self._asks: dict[Ask, None] = {}  # in their order
        self._is_closed = False
        self._next_warning = -math.inf
        self._unlogged = 0  # failures since the last warning

    def now(self) -> float:
        """Returns the time, in seconds on the clock of the timers."""
        return self._timers.clock()

    def ask(self, question: Question, answered: Answered, ready: float | None = None) -> Ask:
        """Asks for a verdict.

        Args:
            question: The text.
            answered: Called once with the verdict or the failure, in a later turn of the loop.
            ready: When the text was ready, as of `now`, if it had to wait for others of its stream or request. None
                means now.

        Returns:
            The question, which can be cancelled.
        """
        ask = Ask(self, question, answered)
        ask.has_waited = ready is not None
        self._asks[ask] = None
        ask.timer = self._timers.schedule(
            (self.now() if ready is None else ready) + self._timeout, partial(self._late, ask)
        )
        if self._is_closed:
            self._fail_soon(ask, Failed("closed", "the gateway is being closed", counts=False))
        elif ask.caller not in self._waiting and self._has_place(ask.caller):
            self._begin(ask)
        elif self._breaker.is_closed:
            ask.has_waited = True
            self._waiting.setdefault(ask.caller, {})[ask] = None
        else:
            self._fail_soon(ask, _OPEN)
        return ask

    @property
    def running(self) -> int:
        """The questions that the judge has."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """The questions that wait for a place."""
        return sum(map(len, self._waiting.values()))

    def retire(self) -> None:
        """Keeps no connection for future questions. Streams of a former configuration may still ask."""
        self._way.retire()

    async def close(self) -> None:
        """Fails all questions, and returns when nothing of them is left."""
        self._is_closed = True
        for ask in tuple(self._asks):
            self._settle(ask, Failed("closed", "the gateway is being closed", counts=False))
        await self._way.close()

    def cancel(self, ask: Ask) -> None:
        """Drops a question: it gets no answer."""
        if self._take(ask):
            self._breaker.abandoned(ask)

    def _has_place(self, caller: str) -> bool:
        """Returns whether a question of a caller may be asked now: rule 1."""
        places = self._way.places
        return self.running < places and (caller == ANONYMOUS or self._running[caller] < max(1, places // 2))

    def _begin(self, ask: Ask) -> None:
        if self._breaker.admits(self.now(), ask, ask.caller):
            self._running[ask.caller] += 1
            freed = partial(self._freed, ask.caller)
            ask.give_up = self._way.ask(ask.question, partial(self._settle, ask), freed)
        else:
            self._fail_soon(ask, _OPEN)

    def _fail_soon(self, ask: Ask, failed: Failed) -> None:
        self._loop.call_soon(partial(self._settle, ask, failed))

    def _freed(self, caller: str) -> None:
        """Gives a place that is free to a question that waits."""
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        while not self._is_closed and (served := self._next_caller()) is not None:
            asks = self._waiting.pop(served)
            ask = next(iter(asks))
            del asks[ask]
            if asks:
                self._waiting[served] = asks  # the last one now
            self._begin(ask)

    def _next_caller(self) -> str | None:
        return next((caller for caller in self._waiting if self._has_place(caller)), None)

    def _late(self, ask: Ask) -> None:
        self._settle(ask, Failed("late", f"no verdict within {self._timeout:g} s (timeout)", not ask.has_waited))

    def _take(self, ask: Ask) -> bool:
        """Ends a question. Returns whether it still waited for its answer."""
        if ask not in self._asks:
            return False
        del self._asks[ask]
        waiting = self._waiting.get(ask.caller)
        if waiting is not None and ask in waiting:
            del waiting[ask]
            if not waiting:
                del self._waiting[ask.caller]
        if ask.timer is not None:
            ask.timer.cancel()
            ask.timer = None
        if ask.give_up is not None:
            give_up, ask.give_up = ask.give_up, None
            give_up()
        return True

    def _settle(self, ask: Ask, answer: JudgeVerdict | Failed) -> None:
        if not self._take(ask):
            return
        breaker = self._breaker
        if isinstance(answer, JudgeVerdict) or (answer.fault == "status" and not answer.counts):
            breaker.succeeded()
        elif answer.counts:
            breaker.failed(self.now(), ask, ask.caller)
        else:
            breaker.abandoned(ask)
        if isinstance(answer, Failed):
            self._note(answer)
        ask.answered(answer)

    def _note(self, failed: Failed) -> None:
        """Counts a failure; logs a warning once in `limits.warning_interval`."""
        self.failures += 1
        if failed.fault == "closed":
            return
        self._unlogged += 1
        now = self._timers.clock()
        if now >= self._next_warning:
            _log.warning("guard %r: the judge has failed (%d): %s", self.guard, self._unlogged, failed.text)
            self._unlogged = 0
            self._next_warning = now + SHARED.warning_interval


class Ask:
    """A question that waits for its answer. Made by `Judge.ask`.

    Attributes:
        question: The question.
        caller: The caller's name.
        answered: Gets the answer.
        give_up: Gives it up. None if it was not asked.
        has_waited: Whether it had to wait for a place or for others of its own text: its lateness then says nothing of
            the judge.
        timer: Ends its time.
    """

    __slots__ = ("_judge", "answered", "caller", "give_up", "has_waited", "question", "timer")

    def __init__(self, judge: Judge, question: Question, answered: Answered) -> None:
        self._judge = judge
        self.question = question
        self.caller = question.caller or ANONYMOUS
        self.answered = answered
        self.give_up: Callable[[], None] | None = None
        self.has_waited = False
        self.timer: Timer | None = None

    def cancel(self) -> None:
        """Drops the question: it gets no answer; idempotent."""
        self._judge.cancel(self)
