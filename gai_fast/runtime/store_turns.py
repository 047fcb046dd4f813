"""The turns of requests to a store, and for which caller the running task asks it.

1. A caller has at most half of the places. Those who wait take turns, each caller's first come first. The gateway
   itself, and who asks without a key, are bound by all places alone.
2. If the store is too slow for a request, the requests of its caller that wait fail with it: each would take as long.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, get_running_loop
from collections import Counter, OrderedDict, deque
from contextvars import ContextVar
from typing import Final

from gai_fast.model.settings import ANONYMOUS

ASKS: Final = ContextVar("ASKS", default="")
"""The caller whose request the running task serves. Empty if it serves the gateway itself."""


class StoreTurns:
    """The turns of requests.

    Args:
        most: Requests at a time.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._half = most // 2
        self._running: Counter[str] = Counter()  # by caller
        self._waiting: OrderedDict[str, deque[Future[None]]] = OrderedDict()  # by caller; the next one first

    async def take(self, caller: str) -> None:
        """Returns once a request of a caller may be sent; `give_back` must follow.

        Args:
            caller: The caller, as in `ASKS`.
        """
        if self._free and self._may_run(caller):  # those who wait have half of the places
            self._begin(caller)
            return
        turn: Future[None] = get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # its turn came with the cancellation
                self.give_back(caller)
            raise

    def give_back(self, caller: str) -> None:
        """Ends a request, and lets the next one be sent."""
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        while self._free and (following := next(filter(self._may_run, self._waiting), None)) is not None:
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns
            if not turn.done():  # it may be cancelled
                self._begin(following)
                turn.set_result(None)

    def fail(self, caller: str, problem: Exception) -> None:
        """Fails the requests of a caller that wait: rule 2."""
        for turn in self._waiting.pop(caller, ()):
            if not turn.done():
                turn.set_exception(problem)

    def _may_run(self, caller: str) -> bool:
        return caller in _UNBOUND or self._running[caller] < self._half

    def _begin(self, caller: str) -> None:
        self._free -= 1
        self._running[caller] += 1


_UNBOUND: Final = ("", ANONYMOUS)
