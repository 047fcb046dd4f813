"""The journal of the tool server, as the judge reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.soak.kill_runs.plans import Place, place_of


@dataclass
class Execution:
    """One execution of a call. Times are monotonic seconds.

    Attributes:
        tool: The tool.
        key: The `Idempotency-Key` that it came with.
        attempt: The `X-Gai-Attempt` that it came with.
        ticket: What its result has, and no other's.
        began: When the tool server had it.
        answered: When the tool server sent its answer, whether anybody read it or not. None if it never did.
    """

    tool: str
    key: str
    attempt: int
    ticket: str
    began: float
    answered: float | None = None


class Journal:
    """What the tool server has written down.

    Args:
        path: Its file.

    Attributes:
        calls: The executions of each call, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: dict[Place, list[Execution]] = {}
        self._by_ticket: dict[str, Execution] = {}
        self._read = 0

    def read(self) -> None:
        """Reads what is new."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, line: dict[str, object]) -> None:
        ticket, time = str(line["ticket"]), float(str(line["time"]))
        if "key" not in line:
            self._by_ticket[ticket].answered = time
            return
        call = Execution(str(line["tool"]), str(line["key"]), int(str(line["attempt"])), ticket, time)
        self._by_ticket[ticket] = call
        self.calls.setdefault(place_of(line["arguments"]), []).append(call)
