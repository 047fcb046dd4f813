"""The counts of all workers, gathered in their supervisor for the worker that is scraped.

Owns the known counts, and the time for which the supervisor waits for a slow worker. `totals.py` owns their form.

A worker that is late, or whose process has ended, contributes the last counts that it sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.server.limits import LIMITS


class Gathered(NamedTuple):
    """The answer to a worker's request for the counts of all workers.

    Attributes:
        asker: The worker's process.
        name: The worker's own number for its request.
        counts: The known counts.
    """

    asker: int
    name: int
    counts: list[Any]


class _Question:
    """A request whose answer waits for workers."""

    def __init__(self, asker: int, name: int, number: int, waiting: Iterable[int]) -> None:
        self.asker = asker
        self.name = name
        self.number = number
        self.waiting = set(waiting)  # processes whose counts are missing
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
        """Starts to gather counts for a worker.

        Args:
            asker: The worker's process.
            name: The worker's number for its request.
            workers: The processes whose counts are requested.

        Returns:
            The number that these processes send with their counts.
        """
        self._asked += 1
        self._questions.append(_Question(asker, name, self._asked, workers))
        return self._asked

    def note(self, worker: int, number: int, counts: Any) -> None:
        """Notes the counts that a worker has sent.

        Args:
            worker: The worker's process.
            number: The number that `ask` returned.
            counts: The counts.
        """
        self._known[worker] = counts
        for each in self._questions:
            if each.number == number:
                each.waiting.discard(worker)

    def keep(self, worker: int) -> None:
        """Adds the counts of a worker that has ended to the sum of all ended workers.

        Args:
            worker: The worker's process. The system may reuse its number from now on.
        """
        self._questions = [each for each in self._questions if each.asker != worker]
        for each in self._questions:
            each.waiting.discard(worker)
        counts = self._known.pop(worker, None)
        if counts is not None:
            self._ended = self._add([counts] if self._ended is None else [self._ended, counts])

    def answers(self, now: float) -> Iterator[Gathered]:
        """Yields the answers that are complete, or have waited for `limits.counts_wait`.

        Args:
            now: Monotonic seconds.
        """
        for each in [each for each in self._questions if not each.waiting or now >= each.until]:
            self._questions.remove(each)
            known = [self._own(), self._ended, *self._known.values()]
            yield Gathered(each.asker, each.name, [counts for counts in known if counts is not None])

    @property
    def due(self) -> list[float]:
        """The times at which requests are answered at the latest, in monotonic seconds."""
        return [each.until for each in self._questions]
