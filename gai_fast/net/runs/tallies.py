"""What is seen of runs from outside: figures, spans and lines of their calls.

Owns the labels of a call's figures and what a span and a line have of it. It must not know who exposes or writes them.

1. A call is counted once: at its result, or when it is ended before it has one (`unknown`).
2. Names of tools that nobody offered are the model's words: they are counted and logged as `unknown`.
3. Arguments, results and error texts are in no figure, span and line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from gai_fast.core.run import RunCall
from gai_fast.model.limits import OTHER
from gai_fast.model.tool_rules import server_and_name
from gai_fast.net.limits import LIMITS
from gai_fast.otel.otlp import Value
from gai_fast.otel.trace import Trace, TracedCall

CallOutcome = Literal["ok", "error", "timeout", "denied", "unknown"]
OWN: Final = "gateway"
"""The server label of the gateway's own tools: no server may have that name."""
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class SeenCall:
    """A call that has ended.

    Attributes:
        server: The label of its server, or `OWN`; empty if nobody offered the tool.
        tool: The name of the tool there, or `UNKNOWN`.
        outcome: How it has ended.
        seconds: How long it took; 0 if it was not made.
        step: Its turn, from 1.
        attempt: How often it was begun.
        call_id: Its id.
        stream_id: The id of its stream.
        request_id: The id of its request.
        caller: The name of its caller.
        trace_id: The id of its trace. None if there is none.
    """

    server: str
    tool: str
    outcome: CallOutcome
    seconds: float
    step: int
    attempt: int
    call_id: str
    stream_id: str
    request_id: str
    caller: str
    trace_id: str | None


class RunTallies:
    """Counts what the runs of one process do.

    Attributes:
        calls: Calls that have ended, by server, outcome and tool.
        waiting: Runs that wait for approvals alone.
        note_seconds: Measures how long a call took, in seconds, by server. None if nothing does.
        note_steps: Measures the turns of a run that has ended. None if nothing does.
        log: Writes the line of a call. None if nothing does.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.waiting = 0
        self.note_seconds: Callable[[str, float], None] | None = None
        self.note_steps: Callable[[int], None] | None = None
        self.log: Callable[[SeenCall], None] | None = None
        self._tools: set[tuple[str, str]] = set()

    def expect(self, tool: str) -> None:
        """Starts the counts of a tool of the gateway's own at 0: rates miss the first increase of a new count."""
        for outcome in ("ok", "error", "timeout", "denied", "unknown"):
            self.calls[OWN, outcome, self._label(OWN, tool)] += 0

    def ended(self, call: SeenCall) -> None:
        """Counts a call and logs it."""
        self.calls[call.server, call.outcome, self._label(call.server, call.tool)] += 1
        if call.attempt and self.note_seconds is not None:
            self.note_seconds(call.server, call.seconds)
        if self.log is not None:
            self.log(call)

    def run_ended(self, steps: int) -> None:
        """Counts a run that has ended.

        Args:
            steps: Its turns.
        """
        if self.note_steps is not None:
            self.note_steps(steps)

    def _label(self, server: str, tool: str) -> str:
        """Returns the label of a tool: `OTHER` beyond `limits.tool_series`."""
        if (server, tool) not in self._tools:
            if len(self._tools) >= LIMITS.tool_series:
                return OTHER
            self._tools.add((server, tool))
        return tool


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call that runs."""

    began: float
    span: TracedCall | None


class RunSight:
    """What is seen of one run.

    Args:
        tallies: The counts of the process.
        trace: The trace of its stream. None if nothing is exported.
        clock: Returns seconds.
        stream_id: The id of its stream.
        request_id: The id of its request.
        caller: The name of its caller.
        trace_id: The id of its trace. None if there is none.
    """

    def __init__(
        self,
        tallies: RunTallies,
        trace: Trace | None,
        clock: Callable[[], float],
        stream_id: str,
        request_id: str,
        caller: str,
        trace_id: str | None,
    ) -> None:
        self._tallies = tallies
        self._trace = trace
        self._clock = clock
        self._of_run = (stream_id, request_id, caller, trace_id)
        self._begun: dict[str, _Begun] = {}  # by id of the call
        self._is_waiting = False

    def begin(self, call: RunCall) -> str:
        """Notes that a call is made. Returns the `traceparent` for its tool; empty if nothing is traced."""
        trace, span = self._trace, None
        if trace is not None:
            server, tool = _names(call)
            about: dict[str, Value] = {
                "gen_ai.tool.call.id": call.call_id,
                "gai.tool.server": server,
                "gai.step": call.step,
                "gai.tool.attempt": call.attempt,
            }
            span = trace.call_began(tool, about)
        self._begun[call.call_id] = _Begun(self._clock(), span)
        return "" if span is None else span.traceparent

    def ended(self, call: RunCall) -> None:
        """Notes that a call has its result."""
        result = call.result
        assert result is not None
        self._end(call, result.fault or ("error" if result.is_error else "ok"))

    def cut(self, call: RunCall) -> None:
        """Notes that a call that runs was ended. If it has a result nevertheless, `ended` counts it."""
        if call.result is None:
            self._end(call, UNKNOWN)

    def waits(self, is_waiting: bool) -> None:
        """Notes whether the run waits for approvals alone."""
        if is_waiting is not self._is_waiting:
            self._is_waiting = is_waiting
            self._tallies.waiting += 1 if is_waiting else -1

    def close(self, steps: int | None) -> None:
        """Notes the end of the run here.

        Args:
            steps: Its turns. None if it goes on later, or elsewhere.
        """
        self.waits(False)
        if steps is not None:
            self._tallies.run_ended(steps)

    def _end(self, call: RunCall, outcome: CallOutcome) -> None:
        begun = self._begun.pop(call.call_id, None)
        seconds = 0.0 if begun is None else self._clock() - begun.began
        if begun is not None and begun.span is not None and self._trace is not None:
            self._trace.call_ended(begun.span, None if outcome == "ok" else outcome)
        attempt = 0 if begun is None else call.attempt
        server, tool = _names(call)
        stream_id, request_id, caller, trace_id = self._of_run
        self._tallies.ended(
            SeenCall(
                server,
                tool,
                outcome,
                seconds,
                call.step,
                attempt,
                call.call_id,
                stream_id,
                request_id,
                caller,
                trace_id,
            )
        )


def _names(call: RunCall) -> tuple[str, str]:
    """Returns the labels of a call's server and tool: rule 2."""
    if call.tool is None:
        return "", UNKNOWN
    server, name = server_and_name(call.tool.address)
    return server or OWN, name
