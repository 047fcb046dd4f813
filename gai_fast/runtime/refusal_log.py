"""The log of refusals by limits: one line for each limit in a while, since clients may cause any number."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gai_fast.model.limits import SHARED


class RefusalLog:
    """Logs refusals, for each limit at most once in `limits.warning_interval`.

    Args:
        logger: Gets the lines.
        clock: Monotonic seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._silent_until: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def note(self, limit: str, message: str, caller: str = "") -> None:
        """Logs a refusal, or counts it for the next line of its limit.

        Args:
            limit: The name of the limit.
            message: The text of the error: it names the setting and its value.
            caller: The caller that was refused; empty if it is not known.
        """
        now = self._clock()
        if now < self._silent_until.get(limit, now):
            self._unlogged[limit] = self._unlogged.get(limit, 0) + 1
            return
        self._silent_until[limit] = now + SHARED.warning_interval
        others = self._unlogged.pop(limit, 0)
        whose = f" of {caller}" if caller else ""
        more = f" ({others} others before)" if others else ""
        self._logger.info("a request%s is refused: %s%s", whose, message, more)
