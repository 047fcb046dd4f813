"""The pauses that servers of tools ask for: after 429 or 503 with `Retry-After` nothing is sent until then,
unless the call of another caller succeeds (`toolbox/tool_source.py`)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.runtime.timers import Timers

_MS: Final = 1e-3
PAUSES: Final = frozenset({429, 503})
"""The statuses that may ask for a pause."""


class Pause:
    """The pause of one server.

    Args:
        timers: The loop's timers.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._until = 0.0  # by the timers' clock

    def note(self, status: int, headers: Mapping[str, str]) -> None:
        """Notes a refusal. Only 429 and 503 concern others than its call."""
        if status not in PAUSES:
            return
        asked = {name: value for name, value in headers.items() if name.startswith("retry-after")}
        wait = retry_after_ms(asked, "", int(time.time() / _MS))
        if wait:
            self._until = max(self._until, self._timers.clock() + min(wait, SHARED.retry_after_ms) * _MS)

    def end(self) -> None:
        """Ends it."""
        self._until = 0.0

    def check(self, *, may_have_run: bool = False) -> None:
        """Checks that the server can be asked.

        Args:
            may_have_run: As for `ToolServerError`.

        Raises:
            ToolServerError: `wait`: its pause has not ended.
        """
        left = self._until - self._timers.clock()
        if left > 0:
            text = f"it has asked for a pause, which ends in {math.ceil(left)} s"
            raise ToolServerError(text, "wait", may_have_run=may_have_run)
