"""The counts of all workers, gathered in their supervisor for the worker that is scraped.

Owns which counts are known, and how long the supervisor waits for those of a slow worker. `totals.py` owns their form.

A worker that is late, or whose process has ended, contributes the last counts that it sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.server.limits import LIMITS


class Gathered(NamedTuple):
    """The answer to one question.

    Attributes:
        asker: The process that asked.
        name: The asker's own number for its question.
        counts: The counts that are known.
    """

    asker: int
    name: int
    counts: list[Any]


class _Question:
    """A question whose answer waits for workers."""

    def __init__(self, asker: int, name: int, number: int, waiting: Iterable[int]) -> None:
        self.asker = asker
        self.name = name
        self.number = number
        self.waiting = set(waiting)  # processes whose counts have not arrived
        self.until = time.monotonic() + LIMITS.counts_wait


class GatheredCounts:
    """The counts of the workers, by process.

    Args:
        own: Returns the counts of the supervisor's process. None after a bug.
        add: Adds up counts.
    """

    def __init__(self, own: Callable[[], Any], add: Callable[[Sequence[Any]], Any]) -> None:
        self._own: Final = own
        self._add: Final = add
        self._known: dict[int, Any] = {}
        self._ended: Any = None  # the sum of the workers that have ended
        self._questions: list[_Question] = []
        self._asked = 0

    def ask(self, asker: int, name: int, workers: Iterable[int]) -> int:
        """Begins a question.

        Args:
            asker: The process that asks.
            name: Its number for the question.
            workers: The processes that are asked for their counts.

        Returns:
            The number with which they send them.
        """
        self._asked += 1
        self._questions.append(_Question(asker, name, self._asked, workers))
        return self._asked

    def note(self, worker: int, number: int, counts: Any) -> None:
        """Notes the counts that a worker has sent.

        Args:
            worker: Its process.
            number: From `ask`.
            counts: The counts.
        """
        self._known[worker] = counts
        for each in self._questions:
            if each.number == number:
                each.waiting.discard(worker)

    def keep(self, worker: int) -> None:
        """Adds the counts of a worker that has ended to those of the others that have.

        Args:
            worker: Its process. Its number may be another process's from now on.
        """
        self._questions = [each for each in self._questions if each.asker != worker]
        for each in self._questions:
            each.waiting.discard(worker)
        counts = self._known.pop(worker, None)
        if counts is not None:
            self._ended = self._add([counts] if self._ended is None else [self._ended, counts])

    def answers(self, now: float) -> Iterator[Gathered]:
        """Yields the answers that wait for nobody any more, or have waited for long enough.

        Args:
            now: Monotonic seconds.
        """
        for each in [each for each in self._questions if not each.waiting or now >= each.until]:
            self._questions.remove(each)
            known = [self._own(), self._ended, *self._known.values()]
            yield Gathered(each.asker, each.name, [counts for counts in known if counts is not None])

    @property
    def due(self) -> list[float]:
        """When questions are answered at the latest; monotonic seconds."""
        return [each.until for each in self._questions]
