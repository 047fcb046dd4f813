"""The ends of answers by the clock of the gateway: the lines of its access log.

A line is written once an answer has ended, so its time is late, and never early. That of a stream which goes on without
its client has the stream's id and no figures, and another one follows at the end of the stream. Times of the wall clock
become those of `time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

_ID: Final = "soak-"
_TICK: Final = 0.001
"""Seconds by which the time of a line may be early: it has whole milliseconds."""


class WallClock:
    """The wall clock against `time.monotonic()`, from the making of this on.

    A wall clock that is set meanwhile makes all its times later by as much as it was moved.
    """

    def __init__(self) -> None:
        self._ahead = _ahead()

    def ends(self, lines: Iterable[str]) -> dict[int, float]:
        """Returns the moments by which answers had ended, by the numbers of their requests.

        Args:
            lines: Of the log; those that tell of nothing else are left out.
        """
        slack = _TICK + abs(_ahead() - self._ahead)
        ends: dict[int, float] = {}
        for line in lines:
            entry = _entry(line)
            if entry is not None:
                goes_on = entry["msg"] == "request" and "stream_id" in entry
                at = datetime.fromisoformat(entry["ts"]).timestamp() - self._ahead
                ends[int(entry["request_id"].removeprefix(_ID))] = math.inf if goes_on else at + slack
        return ends


def request_id(number: int) -> str:
    """Returns the id by which a request is found in the log."""
    return f"{_ID}{number}"


def _entry(line: str) -> dict[str, Any] | None:
    """The log entry of a request of the load; None if the line is another one, or was cut as the gateway ended."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_ours = isinstance(entry, dict) and str(entry.get("request_id")).startswith(_ID)
    return entry if is_ours and entry["msg"] in ("request", "stream") else None


def _ahead() -> float:
    """Seconds by which the wall clock's numbers are ahead of the monotonic ones."""
    return time.time() - time.monotonic()
