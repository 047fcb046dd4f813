"""Records whether the store outside this process works, by the outcome of its calls.

Owns when the operator is warned, and keeps requests from waiting for a store that has just failed. A bug of the gateway
on the way to the store counts as a failure of the store, so that it is visible and the gateway goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.stores.backend import StoreError

_UNREADABLE: Final = ("unreachable", "refused", "busy")

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
        self._slow_at = -math.inf
        self._silent_until = clock()

    def failed(self, problem: StoreError) -> None:
        """Records that a call failed. Warns the operator at most once in `limits.warning_interval`.

        A store that is too slow for a request still stores streams, so it is not degraded. `check` refuses further
        requests for `limits.store_retry`.
        """
        if problem.fault == "slow":
            self._slow_at = self._clock()
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

    def check(self) -> None:
        """Refuses a request that needs the store, if the store has just failed.

        Raises:
            Overloaded: The store could not be read, or did not answer in time, less than `limits.store_retry` ago.
        """
        since = self._clock() - SHARED.store_retry
        is_unreadable = self.problem is not None and self.problem.fault in _UNREADABLE and self._failed_at > since
        if is_unreadable or self._slow_at > since:
            raise out_of_reach()


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
