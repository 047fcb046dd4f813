"""`Home`: the state of all keys in the memory of one process, and the form in which workers report to it.

Owns which keys are in memory. A server with one worker has its home in the process of that worker, one with several in
the supervisor. Stores outside the server keep the same states, and answer the same reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gai_fast.ledger._base import Caps, Demand, LimitUsage, SpendEntry, Verdict
from gai_fast.ledger.book import SpendBook
from gai_fast.ledger.limits import LIMITS
from gai_fast.ledger.state import KeyState

OF_KEYS: Final = "keys"
OF_SERVER: Final = "server"
"""The states that the workers of a server share in memory: those of keys, and those of `[limits]`."""
_NEW: Final = 16
"""Idle states are looked for again once the number of states has grown by 1 / `_NEW`."""


class Report(NamedTuple):
    """A worker's use of one key, and the requests of that key that wait for a verdict.

    Attributes:
        key: The key's name.
        caps: Its limits.
        requests: Requests that do not count yet; below zero: they are given back.
        tokens: Tokens that do not count yet; perhaps below zero.
        age: Seconds since the last of these requests.
        live: The worker's streams.
        reserved: The spend that is reserved for them.
        demands: The demands that wait.
    """

    key: str
    caps: Caps
    requests: int
    tokens: int
    age: float
    live: int
    reserved: int
    demands: Sequence[Demand]


class ReportAnswer(NamedTuple):
    """The answer to a report.

    A store answers None if what it had of the key was damaged: it is counted from zero again, and the requests are not
    decided on.

    Attributes:
        verdicts: The verdicts on the requests, in order.
        used: The current counts.
    """

    verdicts: Sequence[Verdict]
    used: LimitUsage


class Home:
    """The states of all keys.

    Args:
        clock: Monotonic seconds.

    Attributes:
        book: The spend.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.book = SpendBook()
        self._clock = clock
        self._states: dict[str, KeyState] = {}
        self._drop_at = 0  # the number of states at which idle ones are looked for
        self._numbers: dict[str, int] = {}  # the number of the last exchange, by worker

    def state(self, key: str) -> KeyState:
        """Returns the state of a key."""
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= max(LIMITS.ledger_keys, self._drop_at):
                self._drop_idle()
            state = self._states[key] = KeyState()
        return state

    def charge(self, entry: SpendEntry) -> None:
        """Adds an entry of spend."""
        self.book.add(entry)
        self.state(entry.key).charge(entry.day, entry.currency, entry.amount)

    def exchange(
        self, worker: str, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> list[ReportAnswer] | None:
        """Adds a worker's report, and returns the answer.

        Args:
            worker: Its name.
            number: The number of the exchange, one more than the one before.
            entries: New spend.
            reports: One report for each key.

        Returns:
            An answer to each report. None if this exchange was taken before, and its answer was lost.
        """
        if self._numbers.get(worker, 0) >= number:
            return None
        self._numbers[worker] = number
        for entry in entries:
            self.charge(entry)
        now = self._clock()
        return [answer(self.state(report.key), worker, report, now) for report in reports]

    def forget(self, worker: str) -> None:
        """Gives back all that a worker has: it is gone."""
        self._numbers.pop(worker, None)
        for state in self._states.values():
            state.forget(worker)

    def _drop_idle(self) -> None:
        now = self._clock()
        for key in [key for key, state in self._states.items() if state.is_idle(now)]:
            del self._states[key]
        # If most are in use, a search takes 20 ms and finds little, so it waits until many states are new.
        self._drop_at = len(self._states) + len(self._states) // _NEW


def answer(state: KeyState, worker: str, report: Report, now: float) -> ReportAnswer:
    """Adds a report, and returns the answer.

    Args:
        state: The state of the key.
        worker: The worker that reports.
        report: Its report.
        now: Seconds of the state's clock.
    """
    caps = report.caps
    state.use(caps, now)
    state.report(worker, report.requests, report.tokens, now - report.age, report.live, report.reserved, now)
    verdicts = [state.decide(worker, caps, demand, now) for demand in report.demands]
    return ReportAnswer(verdicts, state.used(caps, now))
