"""Records whether the store outside this process works, by the outcome of its calls.

Owns when the operator is warned, and keeps requests from waiting for a store that has just failed. A bug of the gateway
on the way to the store counts as a failure of the store, so that it is visible and the gateway goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import CREDENTIAL_NAME, figure_label
from gai_fast.stores.backend import StoreError
from gai_fast.stores.limits import LIMITS

ASKS: Final = ContextVar("ASKS", default="")
"""The caller whose request the running task serves. Empty if it serves the gateway itself."""

_UNREADABLE: Final = ("unreachable", "refused", "busy")
_TWO: Final = 2
"""Callers for whom a store is slow that is slow for all."""

logger = logging.getLogger("gai_fast.store")


class Health:
    """The state of one store.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.problem: StoreError | None = None
        """The failure since which no call has succeeded. None if the store works."""
        self._clock = clock
        self._is_logged = False  # whether that problem has been logged
        self._failed_at = 0.0
        self._slow: dict[str, float] = {}  # when it was last too slow for each caller, the longest ago first
        self._slow_logged_at = -math.inf
        self._silent_until = clock()

    def failed(self, problem: StoreError) -> None:
        """Records that a call failed. Warns the operator at most once in `limits.warning_interval`.

        A store that is too slow for a request still stores streams, so it is not degraded. `check` refuses further
        requests of its caller for `limits.store_retry`: it may be slow with one large record alone. Those of all are
        refused if it is too slow for two callers in that time.
        """
        if problem.fault == "slow":
            self._note_slow(problem)
            return
        if not self._is_logged and self._may_warn():
            self._is_logged = True
            logger.warning("the store is degraded: %s", problem)
        self._note(problem)

    def broke(self, task: str, bug: Exception) -> None:
        """Records a bug of the gateway. Logs it with its traceback, at most once in `limits.warning_interval`.

        Args:
            task: The failed task, as a sentence for the log.
            bug: The exception.
        """
        if self._may_warn():
            self._is_logged = True
            logger.error("%s: a bug", task, exc_info=bug)
        self._note(StoreError("unsuitable", f"{task}: a bug of the gateway: see its log"))

    def _note_slow(self, problem: StoreError) -> None:
        now, caller = self._clock(), ASKS.get()
        self._slow.pop(caller, None)
        self._slow[caller] = now
        while next(iter(self._slow.values())) <= now - SHARED.warning_interval:
            del self._slow[next(iter(self._slow))]
        if len(self._slow) > LIMITS.slow_callers:
            del self._slow[next(iter(self._slow))]
        if caller and now >= self._slow_logged_at + SHARED.warning_interval:
            self._slow_logged_at = now
            text = "the store is slow for caller %s: requests that need it are refused for a while: %s"
            logger.warning(text, caller, problem)

    @property
    def is_slow(self) -> bool:
        """Whether the store was too slow for a request in the last `limits.warning_interval`."""
        return bool(self._slow) and next(reversed(self._slow.values())) > self._clock() - SHARED.warning_interval

    def _slow_since(self, since: float) -> int:
        """Returns for how many callers the store was too slow since a time. The gateway itself counts for none:
        what it reads is of many callers. All credentials of callers without a key count for one: they may be made up.
        """
        callers: set[str] = set()
        for caller, at in reversed(self._slow.items()):
            if at <= since:
                break
            callers.add(CREDENTIAL_NAME if figure_label(caller) == CREDENTIAL_NAME else caller)
        return len(callers - {""})

    def refusal(self, problem: StoreError, content: str = "the streams") -> Error:
        """Records a failed call that a request needs; returns the request's error.

        A missing key says nothing about the store, so it is logged, and other requests are not refused.

        Args:
            problem: The failure.
            content: As for `out_of_reach`.
        """
        if problem.fault == "sealed":
            self.lost(str(problem))
            return store_sealed()
        self.failed(problem)
        return out_of_reach(content)

    def _may_warn(self) -> bool:
        now = self._clock()
        if now < self._silent_until:
            return False
        self._silent_until = now + SHARED.warning_interval
        return True

    def _note(self, problem: StoreError) -> None:
        self.problem = problem
        self._failed_at = self._clock()

    def lost(self, what: str) -> None:
        """Warns the operator of a loss, at most once in `limits.warning_interval`. The store works.

        Args:
            what: The loss and its consequence, for the log.
        """
        if self._may_warn():
            logger.warning("%s", what)

    def worked(self) -> None:
        """Records that a call succeeded."""
        if self.problem is not None:
            self.problem = None
            if self._is_logged:
                self._is_logged = False
                logger.info("the store works again")

    def check(self, caller: str | None = None) -> None:
        """Refuses a request that needs the store, if the store has just failed. The running task asks it from then on
        for the caller (`ASKS`).

        Args:
            caller: The name of the caller. None for the one for whom the task has asked before.

        Raises:
            Overloaded: The store could not be read less than `limits.store_retry` ago, or did not answer in time: this
                caller, or two others.
        """
        if caller is not None:
            ASKS.set(caller)
        since = self._clock() - SHARED.store_retry
        is_unreadable = self.problem is not None and self.problem.fault in _UNREADABLE and self._failed_at > since
        if is_unreadable or (self._slow and self._is_slow_for(ASKS.get(), since)):
            raise out_of_reach()

    def _is_slow_for(self, caller: str, since: float) -> bool:
        return self._slow.get(caller, since) > since or self._slow_since(since) >= _TWO


def store_sealed() -> Error:
    """Returns the error for a request that needs a part of the store whose key this gateway lacks."""
    text = "the store is sealed with a key that this gateway does not have"
    return Error("overloaded", text, reason="store_sealed", temporary=False)


def out_of_reach(content: str = "the streams", effect: str = "") -> Error:
    """Returns the error for a request that needs the store. Details are in the operator's log only.

    Args:
        content: The needed content of the store, for the text.
        effect: A change that the store may have made nevertheless, and the remedy.
    """
    text = f"the store of {content} is out of reach"
    if effect:
        text += f"; {effect}"
    return Error("overloaded", text, reason="store", retry_after_ms=SHARED.overloaded_ms)
