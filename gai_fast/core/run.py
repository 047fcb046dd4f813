"""One run: turns of a model, and the calls of the gateway's tools between them. Sans-IO.

Owns when a call begins and ends, what becomes of its result, and whether another turn follows. It must not know how a
model is asked, how a tool is called, where records are kept, and what time it is: its actions say what is to be done.

1. A turn streams; its calls are noted as they come. Calls of idempotent tools that need no approval begin at once, all
   others after the turn's good end. At most `parallel_tools` run at a time; they begin in the calls' order.
2. After the end of a turn, and of its calls: the next turn, if the gateway's tools were called and no others; else the
   end. Calls of the client's tools are left to the client.
3. An unknown name, arguments that `tool_arguments.py` refuses, a call beyond `max_tool_calls` and a denied one have
   results that are errors. So has each call of a turn that was cut off (`length`, `content_filter`): its arguments may
   be.
4. After `max_steps` turns, a call beyond `max_tool_calls` or the end of the run's time, one last turn follows, without
   tools. Its calls are not made.
5. A turn that is asked again voids its calls: those that run are ended, and their results are dropped. Calls that had
   begun count for `max_tool_calls`.
6. With only approvals left the run waits. Each approval is decided once. A run that leaves them (`RunLimits.leaves`)
  ends instead, once each is kept: a later run begins with these calls and their decisions.
7. If guards look at arguments, a call is checked first: what they let through is what is approved, recorded and made.
8. A record, and those of its calls, are all that another worker needs to go on. There a recorded result is used. A call
   that had begun and has none is made once more if its tool is idempotent, and is an error otherwise: its outcome is
   unknown. One that is not idempotent and has no record of its own was never made, and is made now.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from heapq import heappop, heappush
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import msgspec

from gai_fast.core.call_key import approval_digest
from gai_fast.core.tool_arguments import problem_of_arguments
from gai_fast.kernels import encode_json
from gai_fast.model.errors import GaiFastError
from gai_fast.model.limits import SHARED
from gai_fast.model.request import FilePart, ImagePart, TextPart

Decision = Literal["approve", "deny"]


_NO_TEXT: Final = "(nothing)"
"""Sent in place of an empty result: some providers refuse an empty text."""
NOBODY_ASKED: Final = "the call needs an approval, and nobody can be asked"
"""The result of a call that is denied because of that."""


class RunState(enum.Enum):
    """What a run does."""

    TURN = "turn"
    """A model answers."""
    CALLING = "calling"
    """Calls are made, and perhaps approvals waited for."""
    WAITING = "waiting"
    """Approvals are waited for, and nothing else."""
    ENDED = "ended"

    __hash__ = object.__hash__  # looked up at all that happens; `Enum.__hash__` is a Python call


_TURN: Final[RunState] = RunState.TURN  # constants: an enum attribute costs 75 ns on 3.11
_CALLING: Final[RunState] = RunState.CALLING
_WAITING: Final[RunState] = RunState.WAITING
_ENDED: Final[RunState] = RunState.ENDED

TRANSITIONS: Final[Mapping[RunState, Mapping[str, frozenset[RunState]]]] = {
    _TURN: {
        "call": frozenset({_TURN}),
        "result": frozenset({_TURN}),
        "reset": frozenset({_TURN}),
        "end of turn": frozenset(RunState),
        "time": frozenset({_TURN}),
        "stop": frozenset({_ENDED}),
    },
    _CALLING: {
        "result": frozenset(RunState),
        "decision": frozenset({_CALLING, _TURN, _ENDED}),
        "left": frozenset({_CALLING, _TURN, _ENDED}),
        "time": frozenset({_TURN, _ENDED}),
        "stop": frozenset({_ENDED}),
    },
    _WAITING: {
        "result": frozenset({_WAITING}),
        "decision": frozenset(RunState),
        "stop": frozenset({_ENDED}),
    },
    _ENDED: {"result": frozenset({_ENDED}), "stop": frozenset({_ENDED})},
}
"""`TRANSITIONS[state][what happens]` has the states that may follow. What is missing here is a bug of ours; results may
be late in every state."""


class IllegalStep(GaiFastError):
    """The state of a run does not allow what happens, or what follows: a bug of ours."""


class ApprovalError(GaiFastError):
    """A decision that cannot be taken.

    Args:
        reason: `unknown`, `digest` (it is for another call) or `decided`.
    """

    def __init__(self, reason: Literal["unknown", "digest", "decided"]) -> None:
        super().__init__(f"the approval cannot be decided: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RunTool:
    """A tool that the run offers.

    Attributes:
        address: Its name in configurations: `docs.search`, or `weather` of the gateway's own.
        approve: Whether its calls wait for a person.
        idempotent: Whether it may be called again after a fault.
    """

    address: str
    approve: bool = False
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The bounds of a run.

    Attributes:
        max_steps: Turns of the model, without the last one of rule 4.
        max_tool_calls: Calls of the gateway's tools.
        parallel_tools: Calls at a time.
        asks: Whether there is somebody to approve. If not, calls that need it are denied.
        leaves: Whether calls that need it are left to a later run.
    """

    max_steps: int = SHARED.run_steps
    max_tool_calls: int = SHARED.run_tool_calls
    parallel_tools: int = SHARED.run_parallel_tools
    asks: bool = False
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call.

    Attributes:
        value: Any JSON; a text for an error.
        is_error: Whether it is an error.
        parts: As in `tool.result`, if one is no text; else none.
        is_truncated: Whether something of it was left out.
        duration_ms: Milliseconds that the call has taken.
        fault: Why it is an error, if not by the tool: out of time, denied, or its outcome is unknown. Else empty.
    """

    value: Any
    is_error: bool = False
    parts: tuple[Mapping[str, Any], ...] = ()
    is_truncated: bool = False
    duration_ms: int = 0
    fault: Literal["", "timeout", "denied", "unknown"] = ""

    def content(self) -> str | list[TextPart | ImagePart | FilePart]:
        """Returns the content of the message that tells a model of it."""
        if not self.parts:
            text = self.value if isinstance(self.value, str) else encode_json(self.value).decode()
            return text or _NO_TEXT
        content: list[TextPart | ImagePart | FilePart] = []
        for part in self.parts:
            if part["type"] == "text":
                content.append(TextPart(text=part["text"] or _NO_TEXT))
            elif part["type"] == "image":
                content.append(ImagePart(data=part["data"], media_type=part["media_type"]))
            else:
                content.append(FilePart(data=part["data"], media_type=part["media_type"]))
        return content


Phase = Literal["checking", "noted", "asking", "left", "ready", "running", "ended"]
_NO_CALLS: Final[dict[Phase, int]] = dict.fromkeys(get_args(Phase), 0)


@dataclass(slots=True)
class RunCall:
    """One call of a tool by the model.

    Attributes:
        call_id: Its id, unique in the run.
        name: The name that the model has called.
        arguments: Its arguments, any JSON; a text if they are none.
        step: Its turn, from 1.
        ordinal: Its place among the calls of the turn, from 0.
        tool: The tool. None if it is the client's or nobody's.
        phase: How far it is.
        attempt: How often it was begun.
        approval_id: The id of its approval; empty if nobody was asked.
        result: Its result. None before its end.
        key: Its idempotency key, if another run has asked for its approval. Empty for one of this run's own calls.
        is_checked: Whether its arguments are known to be usable: rule 3.
    """

    call_id: str
    name: str
    arguments: Any
    step: int
    ordinal: int
    tool: RunTool | None
    phase: Phase = "noted"
    attempt: int = 0
    approval_id: str = ""
    result: CallResult | None = None
    key: str = ""
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class BeginCall:
    """Make a call; `ToolRun.end_call` must follow, unless an `EndCall` comes first."""

    call: RunCall


@dataclass(frozen=True, slots=True)
class CheckCall:
    """Have guards look at a call's arguments; `ToolRun.call_checked` must follow."""

    call: RunCall


@dataclass(frozen=True, slots=True)
class EndCall:
    """End a call that runs. Its result is dropped."""

    call: RunCall


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask for an approval; `ToolRun.decide` must follow, or `ToolRun.deny`, or `ToolRun.leave` in a run that leaves it.

    Attributes:
        call: The call.
        digest: What a decision must name.
    """

    call: RunCall
    digest: str


@dataclass(frozen=True, slots=True)
class Decided:
    """An approval was decided.

    Attributes:
        call: The call.
        decision: The decision.
        by: Who has decided; empty for the gateway.
        reason: Why; may be empty.
    """

    call: RunCall
    decision: Decision
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call has its result."""

    call: RunCall


@dataclass(frozen=True, slots=True)
class EndStep:
    """A turn and its calls have ended."""

    step: int


@dataclass(frozen=True, slots=True)
class Warn:
    """The run is at its bounds: a last turn follows."""


@dataclass(frozen=True, slots=True)
class BeginTurn:
    """Ask the model.

    Attributes:
        step: The turn, from 1.
        without_tools: Whether it must call none.
    """

    step: int
    without_tools: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """The run has ended well.

    Attributes:
        finish_reason: As in `finish`.
    """

    finish_reason: str


Action = CheckCall | BeginCall | EndCall | AskApproval | Decided | CallEnded | EndStep | Warn | BeginTurn | Finish

_CUT: Final = frozenset({"length", "content_filter", "cancelled"})
"""Reasons for which a turn has ended before its end."""


@dataclass(slots=True)
class RunStep:
    """One turn and its calls.

    Attributes:
        number: From 1.
        finish_reason: Why the turn has ended. None while it streams.
        calls: Its calls, in the model's order.
        without_tools: As in `BeginTurn`.
    """

    number: int
    finish_reason: str | None = None
    calls: list[RunCall] = field(default_factory=list)
    without_tools: bool = False


_NO_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


class ToolRun:
    """One run. Each method is something that happens, and returns what is to be done, in order.

    Args:
        tools: The tools that the run offers, by the names that the model sees.
        client_tools: The names of the client's tools.
        limits: Its bounds.
        stream_id: The id of its stream, which ids of approvals begin with.
        schemas: The JSON Schemas of the tools' arguments, by the names that the model sees. One that is missing says
            nothing of them.
        checks: Whether guards look at arguments: rule 7.

    Attributes:
        state: What it does.
        steps: Its turns, the last one last.
    """

    def __init__(
        self,
        tools: Mapping[str, RunTool],
        client_tools: Collection[str],
        limits: RunLimits,
        stream_id: str,
        schemas: Mapping[str, Mapping[str, Any]] = _NO_SCHEMAS,
        *,
        checks: bool = False,
    ) -> None:
        self.state = _TURN
        self.steps = [RunStep(1)]
        self._tools = tools
        self._client_tools = client_tools
        self._limits = limits
        self._stream_id = stream_id
        self._schemas = schemas
        self._checks = checks
        self._ids: set[str] = set()
        self._asked = 0  # approvals
        self._counted = 0  # calls of the gateway's tools, in former turns and in voided ones
        self._phases = _NO_CALLS.copy()  # of the turn's calls of the gateway's tools
        self._own = 0  # how many these are
        self._ready: list[int] = []  # a heap of the ordinals of those that are ready
        self._is_over = False  # the time, or the number of calls

    @property
    def step(self) -> RunStep:
        """The turn that streams, or whose calls are made."""
        return self.steps[-1]

    @property
    def client_calls(self) -> list[RunCall]:
        """The calls of the last turn that are left to the client."""
        return [call for call in self.step.calls if self._is_of_client(call)]

    # ---- a turn

    def note_call(self, call_id: str, name: str, arguments: Any) -> list[Action]:
        """Notes a call whose arguments are complete, of the attempt that answers.

        Args:
            call_id: The provider's id; may be empty, or one that was there before.
            name: The name that the model has called.
            arguments: Its arguments, parsed; a text if they are no JSON.
        """
        call = self._noted(call_id, name, arguments)
        if self._is_of_client(call):
            return []
        problem = self._problem_of(call)
        if problem:
            return self._settled("call", self._end(call, _failed(problem)))
        call.is_checked = True
        return self._settled("call", self._check_first(call) if self._checks else self._admit(call))

    def note_decided(
        self, call_id: str, name: str, arguments: Any, key: str, decision: Decision, by: str = "", reason: str = ""
    ) -> list[Action]:
        """Notes a call of an earlier run, which has left its approval to this one: rule 6. No model is asked before.

        Args:
            call_id: The id of its approval.
            name: The name of a tool that the run offers.
            arguments: Its arguments.
            key: As in `RunCall`.
            decision: The decision.
            by: Who has decided.
            reason: Why; may be empty.
        """
        call = self._noted(call_id, name, arguments)
        call.key, call.approval_id = key, call_id
        return self._settled("call", self._decided(call, decision, by, reason))

    def _noted(self, call_id: str, name: str, arguments: Any) -> RunCall:
        """Adds a call to the turn."""
        self._check("call")
        step = self.step
        ordinal = len(step.calls)
        if not call_id or call_id in self._ids:
            call_id = f"call_{step.number}_{ordinal}"
        while call_id in self._ids:
            call_id += "_"
        self._ids.add(call_id)
        call = RunCall(call_id, name, arguments, step.number, ordinal, self._tools.get(name))
        step.calls.append(call)
        if not self._is_of_client(call):
            self._own += 1
            self._phases[call.phase] += 1
        return call

    def end_turn(self, finish_reason: str) -> list[Action]:
        """Notes the good end of a turn.

        Args:
            finish_reason: As in `finish`.
        """
        self._check("end of turn")
        self.step.finish_reason = finish_reason
        done: list[Action] = []
        for call in self.step.calls:
            if call.phase not in ("checking", "noted") or self._is_of_client(call):
                continue
            if finish_reason in _CUT:
                text = f"the call was not made: the turn has ended by {finish_reason}"
                done += self._end(call, CallResult(text, is_error=True))
            elif call.phase == "noted":
                done += self._admit(call)
        return self._settled("end of turn", done)

    def reset_turn(self) -> list[Action]:
        """Notes that the turn is asked again, after some of it was seen: rule 5."""
        self._check("reset")
        done = self._stopped()
        self._void()
        return self._settled("reset", done)

    # ---- calls

    def call_checked(self, call: RunCall, arguments: Any, problem: CallResult | None = None) -> list[Action]:
        """Notes what guards let through of a call: rule 7. A check that ends too late changes nothing.

        Args:
            call: The call.
            arguments: Its arguments.
            problem: The call's result, if it must not be made. None if it may be.
        """
        self._check("result")
        if call.phase != "checking":
            return []
        if problem is not None:
            return self._settled("result", self._end(call, problem))
        call.is_checked = call.is_checked and arguments is call.arguments
        call.arguments = arguments
        self._set_phase(call, "noted")
        return self._settled("result", self._admit(call))

    def end_call(self, call: RunCall, result: CallResult) -> list[Action]:
        """Notes the result of a call. One that comes too late changes nothing."""
        self._check("result")
        if call.phase != "running":
            return []
        return self._settled("result", self._end(call, result))

    def decide(self, approval_id: str, decision: Decision, digest: str, by: str = "", reason: str = "") -> list[Action]:
        """Notes a decision.

        Args:
            approval_id: The id of the approval.
            decision: The decision.
            digest: What the decision is for.
            by: Who has decided.
            reason: Why; may be empty.

        Raises:
            ApprovalError: It cannot be taken; nothing has changed.
        """
        call = self._asked_call(approval_id)
        if call is None:
            raise ApprovalError("unknown")
        if call.phase != "asking":
            raise ApprovalError("decided")
        if digest != self._digest(call):
            raise ApprovalError("digest")
        self._check("decision")
        return self._settled("decision", self._decided(call, decision, by, reason))

    def _decided(self, call: RunCall, decision: Decision, by: str, reason: str) -> list[Action]:
        done: list[Action] = [Decided(call, decision, by, reason)]
        if decision == "approve":
            self._set_phase(call, "ready")
        else:
            done += self._end(call, _failed(f"the call was denied{f': {reason}' if reason else ''}", "denied"))
        return done

    def leave(self, call: RunCall) -> list[Action]:
        """Notes that the approval of a call is kept for a later run: rule 6. Too late, it changes nothing."""
        if call.phase != "asking":
            return []
        self._check("left")
        self._set_phase(call, "left")
        return self._settled("left", [])

    def asked(self) -> list[AskApproval]:
        """Returns the approvals that are waited for, as they were asked for."""
        return [AskApproval(call, self._digest(call)) for call in self.step.calls if call.phase == "asking"]

    def deny(self, call: RunCall, reason: str) -> list[Action]:
        """Denies a call in the gateway's name: its approval has expired, or too many runs wait.

        Args:
            call: The call, which waits for an approval.
            reason: Why: `expired`, or as in `decide`.
        """
        return self.decide(call.approval_id, "deny", self._digest(call), reason=reason)

    # ---- bounds and ends

    def end_time(self) -> list[Action]:
        """Notes the end of the run's time: rule 4. Calls are ended; a turn goes on to its end."""
        self._check("time")
        self._is_over = True
        done: list[Action] = []
        for call in self.step.calls:
            if call.phase in ("ended", "left") or self._is_of_client(call):
                continue
            if call.phase == "running":
                done.append(EndCall(call))
            elif call.phase == "asking":
                done.append(Decided(call, "deny", "", "expired"))
            done += self._end(call, CallResult(_OUT_OF_TIME, is_error=True, fault="timeout"))
        return self._settled("time", done)

    def stop(self) -> list[Action]:
        """Ends the run at once: it has failed, was cancelled, or another worker goes on with it."""
        self._check("stop")
        done = self._stopped()
        self.state = _ENDED
        return done

    # ---- records

    def record(self) -> dict[str, Any]:
        """Returns all that another worker needs, as JSON."""
        return {
            "state": self.state.value,
            "asked": self._asked,
            "counted": self._counted,
            "over": self._is_over,
            "ids": sorted(self._ids),
            "steps": [_record_of(step) for step in self.steps],
        }

    def load(self, record: Mapping[str, Any], calls: Mapping[str, CallResult | None]) -> list[Action]:
        """Goes on with a run of another worker: rule 8. Its turn, if it was in one, is asked again.

        Args:
            record: The result of `record` there.
            calls: The records of its calls, by id: the result, or None if there is only one that it had begun.

        Raises:
            ValueError: It is no such record; nothing has changed.
        """
        read = _read_record(record)
        self.steps = _steps_of(read)
        self.state = RunState(read.state)
        self._asked, self._counted, self._is_over = read.asked, read.counted, read.over
        self._ids = {*read.ids}
        if self.state is _ENDED:
            return []
        if self.state is _TURN:
            self._void()
            return [BeginTurn(self.step.number, self.step.without_tools)]
        self._count()
        done: list[Action] = []
        for call in self.step.calls:
            if call.phase != "ended" and not self._is_of_client(call):
                done += self._found(call, call.call_id in calls, calls.get(call.call_id))
        return self._gone_on(done)

    def _found(self, call: RunCall, is_recorded: bool, result: CallResult | None) -> list[Action]:
        """Goes on with a call that has not ended, as far as the record of the run knows."""
        is_checking = call.phase == "checking"
        if is_checking and not is_recorded:
            return self._check_first(call) if self._checks else self._admit(call)
        is_idempotent = call.tool is not None and call.tool.idempotent
        is_approved = call.phase == "asking" or (is_checking and call.tool is not None and call.tool.approve)
        if is_recorded and is_approved:  # it was decided after the record
            done: list[Action] = [Decided(call, "approve", "", "")]
        else:
            done = []
        if result is not None:
            return [*done, *self._end(call, result)]
        if is_recorded and not is_idempotent:
            text = "the outcome of this call is unknown"
            return [*done, *self._end(call, CallResult(text, is_error=True, fault="unknown"))]
        if is_recorded or call.phase == "running":
            if not is_idempotent:
                call.attempt = 0
            if is_checking and self._checks:
                return [*done, *self._check_first(call)]
            self._set_phase(call, "ready")
        return done

    # ---- what follows

    def _check(self, happening: str) -> None:
        if happening not in TRANSITIONS[self.state]:
            raise IllegalStep(f"run: {happening!r} is not allowed in state {self.state.value!r}")

    def _settled(self, happening: str, done: list[Action]) -> list[Action]:
        """Returns the actions, and those that follow from the new situation; sets the state."""
        before = self.state
        done = self._gone_on(done)
        if self.state not in TRANSITIONS[before][happening]:
            raise IllegalStep(f"run: {self.state.value!r} does not follow {happening!r} in state {before.value!r}")
        return done

    def _gone_on(self, done: list[Action]) -> list[Action]:
        if self.state is _ENDED:
            return done
        done += self._begun()
        step = self.step
        if step.finish_reason is None:
            self.state = _TURN
            return done
        if self._phases["running"] or self._phases["ready"] or self._phases["checking"]:
            self.state = _CALLING
        elif self._phases["asking"]:
            self.state = _CALLING if self._limits.leaves else _WAITING
        else:
            done += self._ended_step(step)
        return done

    def _begun(self) -> list[Action]:
        """Begins the calls that are ready, as far as there are places for them."""
        done: list[Action] = []
        while self._ready and self._phases["running"] < self._limits.parallel_tools:
            call = self.step.calls[heappop(self._ready)]
            if call.phase == "ready":
                self._set_phase(call, "running")
                call.attempt += 1
                done.append(BeginCall(call))
        return done

    def _ended_step(self, step: RunStep) -> list[Action]:
        """Returns what follows a turn and its calls: rules 2 and 4."""
        own, self._own = self._own, 0
        self._counted += own
        done: list[Action] = [EndStep(step.number)]
        reason = step.finish_reason or "other"
        if self._phases["left"]:
            self.state = _ENDED
            return [*done, Finish("tool_calls")]
        if step.calls and reason not in _CUT:
            if own == len(step.calls) and not step.without_tools:
                return [*done, *self._next_turn(step)]
            reason = "tool_calls" if own < len(step.calls) else "length"
        self.state = _ENDED
        return [*done, Finish(reason)]

    def _next_turn(self, step: RunStep) -> list[Action]:
        is_last = self._is_over or self._counted > self._limits.max_tool_calls or step.number >= self._limits.max_steps
        self.steps.append(RunStep(step.number + 1, without_tools=is_last))
        self._count()
        self.state = _TURN
        return [*([Warn()] if is_last else []), BeginTurn(step.number + 1, is_last)]

    def _stopped(self) -> list[Action]:
        """Ends the calls that run, and forgets those that wait."""
        done: list[Action] = []
        for call in self.step.calls:
            if call.phase == "running":
                done.append(EndCall(call))
            self._set_phase(call, "ended")
        return done

    def _void(self) -> None:
        """Forgets the calls of the turn: rule 5."""
        self._counted += sum(call.attempt > 0 for call in self.step.calls)
        self.step.calls.clear()
        self._count()

    def _count(self) -> None:
        """Counts the calls of the turn again."""
        own = [call for call in self.step.calls if not self._is_of_client(call)]
        self._own = len(own)
        self._phases = _NO_CALLS.copy()
        for call in own:
            self._phases[call.phase] += 1
        self._ready = [call.ordinal for call in own if call.phase == "ready"]  # sorted: a heap

    def _set_phase(self, call: RunCall, phase: Phase) -> None:
        """Sets the phase of a call of the turn."""
        if not self._is_of_client(call):
            self._phases[call.phase] -= 1
            self._phases[phase] += 1
        call.phase = phase
        if phase == "ready":
            heappush(self._ready, call.ordinal)

    def _end(self, call: RunCall, result: CallResult) -> list[Action]:
        self._set_phase(call, "ended")
        call.result = result
        return [CallEnded(call)]

    # ---- one call

    def _is_of_client(self, call: RunCall) -> bool:
        return call.tool is None and call.name in self._client_tools

    def _problem_of(self, call: RunCall) -> str:
        """Returns why a call is not made: rules 3 and 4; empty if it may be."""
        if self.step.without_tools:
            return "no tools can be called any more"
        if call.tool is None:
            return f"there is no tool {call.name!r}"
        if self._is_over:
            return _OUT_OF_TIME
        if self._counted + self._own > self._limits.max_tool_calls:
            return f"the run has had its {self._limits.max_tool_calls} calls (max_tool_calls)"
        return problem_of_arguments(self._schemas.get(call.name, _NO_SCHEMAS), call.arguments)

    def _check_first(self, call: RunCall) -> list[Action]:
        self._set_phase(call, "checking")
        return [CheckCall(call)]

    def _admit(self, call: RunCall) -> list[Action]:
        """Lets a call be made, or be asked for, if it is time: rule 1."""
        has_ended = self.step.finish_reason is not None
        approve = call.tool is not None and call.tool.approve
        if not approve:
            is_idempotent = call.tool is not None and call.tool.idempotent
            self._set_phase(call, "ready" if has_ended or is_idempotent else "noted")
        elif has_ended and self._limits.asks:
            return [self._ask(call)]
        elif has_ended:
            text = NOBODY_ASKED
            return self._end(call, CallResult(text, is_error=True, fault="denied"))
        return []

    def _ask(self, call: RunCall) -> AskApproval:
        self._set_phase(call, "asking")
        self._asked += 1
        call.approval_id = f"{self._stream_id}-{self._asked}"
        return AskApproval(call, self._digest(call))

    def _digest(self, call: RunCall) -> str:
        assert call.tool is not None
        return approval_digest(call.approval_id, call.tool.address, call.arguments)

    def _asked_call(self, approval_id: str) -> RunCall | None:
        for step in self.steps:
            for call in step.calls:
                if approval_id and call.approval_id == approval_id:
                    return call
        return None


def _failed(text: str, fault: Literal["", "denied"] = "") -> CallResult:
    """Returns the result of a call that is not made. Cuts its text: a model or a person may have written a long one."""
    most = SHARED.tool_problem
    return CallResult(text if len(text) <= most else f"{text[: most - 1]}…", is_error=True, fault=fault)


_OUT_OF_TIME: Final = "the call was not made to its end: the run has had its time (run_timeout)"


def calls_of_record(record: Mapping[str, Any]) -> list[RunCall]:
    """Returns the calls of the gateway's tools in the last turn of a record.

    Args:
        record: The result of `ToolRun.record`.

    Raises:
        ValueError: It is none.
    """
    return [call for call in steps_of_record(record)[-1].calls if call.tool is not None]


def steps_of_record(record: Mapping[str, Any]) -> list[RunStep]:
    """Returns the turns of a record. Arguments and exceptions as for `calls_of_record`."""
    return _steps_of(_read_record(record))


def _record_of(step: RunStep) -> dict[str, Any]:
    """Returns the record of a turn. What models and tools have sent is not copied: it may be deep."""
    return {**_members(step), "calls": [_record_of_call(call) for call in step.calls]}


def _record_of_call(call: RunCall) -> dict[str, Any]:
    tool, result = call.tool, call.result
    return {
        **_members(call),
        "tool": None if tool is None else _members(tool),
        "result": None if result is None else _members(result),
    }


def _members(whole: RunStep | RunCall | RunTool | CallResult) -> dict[str, Any]:
    return {each.name: getattr(whole, each.name) for each in fields(whole)}


def _read_record(record: Mapping[str, Any]) -> Any:
    """Returns a record, read as `_Record`; raises as `calls_of_record`."""
    read = msgspec.convert(record, _Record)
    places = [(step.number, [call.ordinal for call in step.calls]) for step in read.steps]
    if not places or places != [(at, [*range(len(step.calls))]) for at, step in enumerate(read.steps, 1)]:
        raise ValueError("not the turns of a run")
    return read


def _steps_of(read: Any) -> list[RunStep]:
    return [
        RunStep(step.number, step.finish_reason, [_call_of(call) for call in step.calls], step.without_tools)
        for step in read.steps
    ]


def _call_of(read: Any) -> RunCall:
    return RunCall(
        read.call_id,
        read.name,
        read.arguments,
        read.step,
        read.ordinal,
        None if read.tool is None else RunTool(*_astuple(read.tool)),
        read.phase,
        read.attempt,
        read.approval_id,
        None if read.result is None else CallResult(*_astuple(read.result)),
        read.key,
        read.is_checked,
    )


# Of compiled classes msgspec cannot read all types: see docs/architecture/kernels.md.
_astuple: Final = msgspec.structs.astuple
_Tool: Final[Any] = msgspec.defstruct(
    "_Tool", [("address", str), ("approve", bool, False), ("idempotent", bool, False)]
)
_Result: Final[Any] = msgspec.defstruct(
    "_Result",
    [
        ("value", Any),
        ("is_error", bool, False),
        ("parts", tuple[dict[str, Any], ...], ()),
        ("is_truncated", bool, False),
        ("duration_ms", int, 0),
        ("fault", Literal["", "timeout", "denied", "unknown"], ""),
    ],
)
_Call: Final[Any] = msgspec.defstruct(
    "_Call",
    [
        ("call_id", str),
        ("name", str),
        ("arguments", Any),
        ("step", int),
        ("ordinal", int),
        ("tool", _Tool | None),
        ("phase", Phase, "noted"),
        ("attempt", int, 0),
        ("approval_id", str, ""),
        ("result", _Result | None, None),
        ("key", str, ""),
        ("is_checked", bool, False),
    ],
)
_Step: Final[Any] = msgspec.defstruct(
    "_Step",
    [
        ("number", int),
        ("finish_reason", str | None, None),
        ("calls", list[_Call], []),
        ("without_tools", bool, False),
    ],
)
_Record: Final[Any] = msgspec.defstruct(
    "_Record",
    [
        ("state", Literal["turn", "calling", "waiting", "ended"]),
        ("asked", int),
        ("counted", int),
        ("over", bool),
        ("ids", list[str]),
        ("steps", list[_Step]),
    ],
)
"""The result of `ToolRun.record`."""
