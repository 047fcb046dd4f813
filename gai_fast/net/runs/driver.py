"""One run at run time: executes what `core/run.py` decides, on its stream's session.

Owns the connection of the three: the state table, the running calls (`toolbox/run_calls.py`) and the session. It must
not know how a model is asked, how a tool is called, or what decides.

1. What happens within a call of the relay is executed afterwards, in the loop's next turn, but for the end of a turn:
   its actions add events, and the next turn is asked afterwards.
2. A turn is asked once the ledger has reserved its prompt and its tokens. If it has not, the stream ends behind the
   step, as at every end of a limit.
3. The time of a run stands still while it waits for approvals alone.
4. The end of the stream, whoever ends it, ends the running calls at once.
5. What another worker needs to go on is kept at each end of a turn and before each next one
   (`runs/records/kept_calls.py`).
6. The run of a worker that is gone goes on from what was kept. Its log may have more: what it has is not sent again,
   and a turn that it has begun is void.
7. A run that another one has left calls to (`runs/approvals/deferred.py`) begins with these, as the calls of a first
   turn whose model nobody has asked.
8. If approvals alone are left, the run leaves its session as soon as all is kept, and goes on from that as by rule 6
   (`runs/waiting.py`). What is too large, or cannot be recorded, waits in its session.
9. The log of a whole answer has nothing before the end. The events of such a run are kept with its states, and stand in
   the place of those of the log (`runs/records/whole_answers.py`).
10. Earlier thoughts that the model has refused are left out of its later turns too; those of its own since are not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, Never, Protocol

from msgspec import structs

from gai_fast.core.requests.reading import characters, characters_of_messages
from gai_fast.core.run import (
    Action,
    AskApproval,
    BeginCall,
    BeginTurn,
    CallEnded,
    CallResult,
    CheckCall,
    Decided,
    EndCall,
    EndStep,
    Finish,
    RunCall,
    RunLimits,
    RunState,
    RunTool,
    ToolRun,
    Warn,
)
from gai_fast.kernels import encode_json
from gai_fast.ledger import REFUSED
from gai_fast.model.errors import Error
from gai_fast.model.events import NO_EVENT, Event
from gai_fast.model.money import Amount, tokens_of
from gai_fast.model.request import Message, Request
from gai_fast.model.tool_rules import server_and_name
from gai_fast.net.attempts.records import encode
from gai_fast.net.attempts.spec import StreamRun, StreamSpec
from gai_fast.net.limits import LIMITS as RECORDS
from gai_fast.net.runs.approvals.deferred import AnsweredCall, LeftCalls, with_results
from gai_fast.net.runs.approvals.desk import ApprovalDesk, RunApprovals
from gai_fast.net.runs.approvals.waits import KeptTurns, RecalledRun, kept_turns, known, park
from gai_fast.net.runs.clock import RunClock
from gai_fast.net.runs.content_stage import ContentStage
from gai_fast.net.runs.ending import told_of
from gai_fast.net.runs.guards import RunGuards, Tell
from gai_fast.net.runs.messages import message_of_turn, next_request, results_of
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.net.runs.records.records import ApprovalDecision, AskedApproval, KeptRun, LostRun
from gai_fast.net.runs.records.state import (
    Mark,
    RunMemory,
    decode_parts,
    decode_state,
    encode_parts,
    encode_state,
    is_beyond,
    mark_of,
    marks_of,
    turn_to_ask,
)
from gai_fast.net.runs.records.whole_answers import ToldEvents, decode_told, encode_told
from gai_fast.net.runs.sink import RunSink, TurnContent
from gai_fast.net.runs.tallies import RunSight, RunTallies
from gai_fast.net.stream.guarding import StreamGuards
from gai_fast.net.stream.session import Session, lost_worker
from gai_fast.net.toolbox.run_calls import RunCalls, RunIdentity
from gai_fast.net.toolbox.tool_source import GatewayTool
from gai_fast.net.toolbox.toolbox import HeldToolbox
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.wire import ToolProgress
from gai_fast.providers import get_provider
from gai_fast.providers.requests.thoughts import without_thoughts
from gai_fast.runtime.pace import Pace
from gai_fast.runtime.timers import Timers
from gai_fast.stores.backend import StoreError

_log: Final = logging.getLogger("gai_fast.tools")
_NONE: Final[frozenset[Any]] = frozenset()
"""What most runs have: an empty set of their own takes 216 bytes."""


class RunStreams(Protocol):
    """The part of the engine that runs use.

    Attributes:
        guarding: The guards of new streams.
        others_go_on: Whether other workers may go on with its streams.
    """

    @property
    def guarding(self) -> StreamGuards: ...

    @property
    def others_go_on(self) -> bool: ...

    def is_stored(self, stream_id: str) -> Awaitable[bool]:
        """Returns whether the store has all that the log of a stream has by now."""

    def beside(self, caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        """Does work of a caller beside the loop; as `Beside.do`."""

    def leave_to_other(self, stream_id: str) -> None:
        """Stops a stream that another worker has."""

    def park(self, stream_id: str, desk: ApprovalDesk, approvals: dict[str, int], told: dict[str, Any]) -> None:
        """Ends the session of a run that waits for approvals alone, and keeps the rest; as `WaitingRuns.add`."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run needs beside its stream.

    Attributes:
        request: The request of its first turn, with the tools.
        characters: The length of its text.
        offered: The tools that it offers, by the names that the model sees.
        client_tools: The names of the client's tools.
        limits: Its bounds.
        seconds: Its time.
        identity: What its calls have in common.
        held: Its tools, until they are given back.
        desk: Where approvals are asked for, and what is kept of runs.
        tallies: The counts of the process.
        streams: The streams of the process.
        pace: The places of runs in turns of the loop.
        guards: Makes the guards of its calls.
        answered: The calls that it begins with: rule 7.
    """

    request: Request
    characters: int
    offered: Mapping[str, GatewayTool]
    client_tools: frozenset[str]
    limits: RunLimits
    seconds: float
    identity: RunIdentity
    held: HeldToolbox
    desk: ApprovalDesk
    tallies: RunTallies
    streams: RunStreams
    pace: Pace
    guards: Callable[[Tell], RunGuards | None]
    answered: Sequence[AnsweredCall] = ()


@dataclass(frozen=True, slots=True)
class FormerOwner:
    """The events of a run that this worker continues for a lost one.

    Attributes:
        said: The events of its log.
        epoch: The epoch of this worker.
        is_own: Whether that owner was this worker: the run has waited.
        told: What the run's end says if it comes before its record is read; as `runs.ending.told_of`.
    """

    said: Sequence[Event]
    epoch: int
    is_own: bool
    told: Mapping[str, Any]


class RunDriver(StreamRun):
    """One run. Belongs to one loop.

    Args:
        plan: The run.
        session: The session of its stream, which is about to begin.
        spec: Its first turn. The run takes the place of its output.
        timers: The loop's timers.
        loop: The loop.
        former: What it goes on from. None for a new run.
    """

    __deletable__: ClassVar = ["_session", "_calls", "_approvals", "_left_calls", "_kept", "_guards"]

    def __init__(
        self,
        plan: RunPlan,
        session: Session,
        spec: StreamSpec,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        former: FormerOwner | None = None,
    ) -> None:
        self._plan = plan
        self._session = session
        self._loop = loop
        self._guards = plan.guards(self._tell_of_call)
        self._checks: frozenset[asyncio.Task[Any]] = _NONE
        self._run = ToolRun(
            {name: RunTool(each.address, each.approve, each.idempotent) for name, each in plan.offered.items()},
            plan.client_tools,
            plan.limits,
            session.stream_id,
            {name: each.offered.schema for name, each in plan.offered.items()},
            checks=self._guards is not None and self._guards.sees_input,
        )
        waits = plan.limits.asks and any(tool.approve for tool in plan.offered.values())
        is_begun = spec.begun is not None and (waits or plan.streams.others_go_on)  # the store has its request
        is_kept = former is not None or is_begun
        self._former = former
        self._has: AbstractSet[Mark] = _NONE  # what the log has of a run that goes on: rule 6
        self._kept = KeptCalls(
            plan.desk.records,
            plan.identity,
            self._is_stored if is_kept else None,
            self._lose,
            is_shared=plan.streams.others_go_on,
        )
        self._calls = RunCalls(
            plan.held.toolbox,
            {each.address: each for each in plan.offered.values()},
            plan.identity,
            self._kept,
            self._call_ended,
            self._progressed,
            None if self._guards is None else self._guards.result,
            plan.pace,
        )
        self._approvals = RunApprovals(
            plan.desk,
            session.stream_id,
            plan.identity.caller,
            self._may_wait,
            self._asked,
            self._decided,
            None if self._guards is None else self._guards.reason,
        )
        self._left_calls: LeftCalls | None = None  # made at the first one
        self._sight = RunSight(
            plan.tallies,
            spec.trace,
            timers.clock,
            session.stream_id,
            plan.identity.request_id,
            plan.identity.caller,
            spec.trace_id,
        )
        self._content = TurnContent()
        self._told = ToldEvents(spec.output) if spec.hold and self._kept.is_kept else None  # rule 9
        self._sink = self._use_output(spec)
        self._spec = spec if spec.request is plan.request else replace(spec, request=plan.request)
        self._ignored = spec.ignored  # a model that refuses earlier thoughts makes a turn's longer
        self._said: list[Message] = []  # what the run has added to its conversation
        self._characters = plan.characters  # of the conversation
        self._parts: Sequence[Mapping[str, Any]] = ()  # of the last turn
        self._finish: Event = NO_EVENT  # of the last turn
        self._usages: list[dict[str, Any]] = []  # of the turns that have ended
        self._recalled_turns = 0  # how many of these another session has had
        self._progress: dict[str, int] = {}  # notices of each call
        self._later: list[Action] = []  # rule 1
        self._clock = RunClock(timers, plan.seconds, self._time_over)
        self._is_over = True
        self._goes_on: asyncio.Task[KeptTurns] | None = None
        self._parks: asyncio.Task[None] | None = None
        self._executed = 0  # how often actions were executed

    def _use_output(self, spec: StreamSpec) -> RunSink:
        """Takes the place of a spec's output."""
        chain, content = spec.chain, self._content
        if chain is not None and chain.touches == "deltas":
            spec.chain = chain = chain.behind(ContentStage(content))
        servers = {name: each.server for name, each in self._plan.offered.items()}
        is_noted = chain is not None and chain.touches == "deltas"
        output = spec.output if self._told is None else self._told
        sink = RunSink(
            output, spec.deltas, self, servers, self._plan.client_tools, None if is_noted else content, chain
        )
        spec.output = sink
        spec.deltas = None if spec.deltas is None else sink
        return sink

    # -- the stream (`StreamRun`) --

    @property
    def begins_with_calls(self) -> bool:
        """Works as `StreamRun.begins_with_calls`: rule 7."""
        return bool(self._plan.answered)

    @property
    def is_calling(self) -> bool:
        """Works as `StreamRun.is_calling`."""
        return self._run.state in (RunState.CALLING, RunState.WAITING)

    def begin(self) -> None:
        """Works as `StreamRun.begin`."""
        self._is_over = False
        self._plan.held.take()
        if self._former is None and self._plan.answered:
            self._loop.call_soon(self._begin_with_calls, ())
        elif self._former is None:
            self._keep_time()
        else:
            self._session.relay.recall_turns([each["usage"] for each in self.steps_so_far() if "usage" in each])
            recalled, former = partial(self._recalled, self._former.said), self._former
            stream_id = self._plan.identity.stream_id
            kept = kept_turns(self._kept, former.epoch, recalled, stream_id, is_own=former.is_own)
            self._goes_on = self._loop.create_task(kept)
            self._goes_on.add_done_callback(self._gone_on)

    def turn_ended(self, finish: Event) -> None:
        """Works as `StreamRun.turn_ended`."""
        self._finish = finish
        self._usages.append(finish.get("usage", {}))
        trace = self._session.spec.trace
        if trace is not None:
            trace.turn_ended(finish)
        self._leave_thoughts_out()
        self._parts = self._content.take()
        later, self._later = self._later, []
        actions = [*later, *self._run.end_turn(finish["finish_reason"])]
        if self._run.state is not RunState.ENDED:
            self._keep(self._parts)
        self._ask_soon(self._execute(actions))
        self._keep_time()

    def stop(self) -> None:
        """Works as `StreamRun.stop`: rule 4."""
        if self._is_over:
            return
        self._is_over = True
        self._later.clear()
        self._clock.close()
        has_ended = self._session.relay.is_over or not self._kept.is_kept
        if has_ended:
            self._approvals.close()
            self._plan.desk.start(self._kept.end())  # the store is closed after this
            self._plan.held.toolbox.run_ended(self._plan.identity.caller, self._plan.identity.stream_id)
            if self._former is not None and self._goes_on is not None and not self._usages:  # it is not read yet
                identity = self._plan.identity
                self._plan.desk.withdraw(identity.stream_id, identity.caller, self._former.epoch, is_own=True)
        else:  # another worker may continue the run
            self._approvals.leave()
            self._kept.leave()
        for task in (self._goes_on, self._parks, *self._checks):
            if task is not None:
                task.cancel()
        for action in self._run.stop():
            if isinstance(action, EndCall):
                self._end_call(action.call)
        steps = self._sink.steps or self.steps_so_far()
        self._sight.close(len(steps) if has_ended else None)
        self._plan.held.give_back()
        self._sink.leave(_LastSteps(steps))
        # Cycles: the thousand runs of a crowd were otherwise one collection of garbage, of 150 ms.
        del self._session, self._calls, self._approvals, self._left_calls, self._kept, self._guards

    # -- the events (`TurnListener`) --

    def call_came(self, call_id: str, name: str, arguments: Any) -> str:
        """Works as `TurnListener.call_came`."""
        if self._run.step.number == 1 and self._plan.answered:
            return call_id
        actions = self._run.note_call(call_id, name, arguments if _is_json(arguments) else _NOT_JSON)
        self._execute_later(actions)
        return self._run.step.calls[-1].call_id

    def turn_reset(self) -> None:
        """Works as `TurnListener.turn_reset`."""
        self._later.clear()
        self._execute_later(self._run.reset_turn())

    def steps_so_far(self) -> list[dict[str, Any]]:
        """Works as `TurnListener.steps_so_far`."""
        steps: list[dict[str, Any]] = self._at_end()["steps"]
        return steps

    def _at_end(self) -> Mapping[str, Any]:
        former = self._former
        if former is not None and former.told.get("steps") and not self._usages:  # its record is not read yet
            return former.told
        return told_of(self._run.steps, self._usages, self._sink.providers, self._plan.client_tools)

    # -- what happens --

    def _call_ended(self, call: RunCall, result: CallResult) -> None:
        if not _is_json(result.value):
            result = CallResult(f"its result has {_NOT_JSON}", is_error=True, duration_ms=result.duration_ms)
        if not self._is_over:
            self._session.guarded(partial(self._happened, partial(self._run.end_call, call, result)))

    def _progressed(self, call: RunCall, progress: ToolProgress) -> None:
        noted = self._progress.get(call.call_id, 0)
        if self._is_over or call.phase != "running" or noted >= LIMITS.tool_progress:
            return
        self._progress[call.call_id] = noted + 1
        event: Event = {"type": "tool.progress", "step": call.step, "call_id": call.call_id}
        event["progress"] = progress.progress
        if progress.total is not None:
            event["total"] = progress.total
        text = progress.text if self._guards is None else self._guards.progress(progress.text)
        if text:
            event["text"] = text
        self._session.add([event])

    def hear(self, approval_id: str) -> None:
        """Works as `Run.hear`."""
        if not self._is_over:
            self._approvals.hear(approval_id)

    def seconds_since_wait(self) -> float:
        """Works as `Run.seconds_since_wait`."""
        return 0.0 if self._run.state is RunState.WAITING else self._clock.since_wait()

    def _asked(self, call: RunCall, asked: AskedApproval) -> None:
        if not self._is_over and ("approval.required", call.call_id) not in self._has:
            self._session.add([_required(call, asked)])
            self._executed += 1

    def _decided(self, call: RunCall, asked: AskedApproval, made: ApprovalDecision) -> None:
        if not self._is_over and call.phase == "asking":
            decide = partial(self._run.decide, asked.id, made.decision, asked.digest, made.by, made.reason)
            self._session.guarded(partial(self._happened, decide))

    def _left(self, call: RunCall, asked: AskedApproval) -> None:
        self._asked(call, asked)
        if not self._is_over:
            self._session.guarded(partial(self._happened, partial(self._run.leave, call)))

    def _not_left(self, call: RunCall, reason: str) -> None:
        if not self._is_over and call.phase == "asking":
            self._session.guarded(partial(self._happened, partial(self._run.deny, call, reason)))

    def _keep_time(self) -> None:
        """Lets the time of the run go on, or stand still: rule 3."""
        is_waiting = self._run.state is RunState.WAITING
        self._sight.waits(is_waiting)
        if is_waiting:
            self._clock.wait()
            may_park = self._kept.is_kept and not self._plan.limits.leaves
            if may_park and (self._parks is None or self._parks.done()):
                parks = park(self._kept, self._approvals, self._waits, self._holds, self._to_keep, self._park)
                self._parks = self._loop.create_task(parks)
                self._parks.add_done_callback(self._parked)
        elif self._run.state is not RunState.ENDED:
            self._clock.go_on()

    def _time_over(self) -> None:
        if self._run.state in (RunState.TURN, RunState.CALLING):
            self._session.guarded(partial(self._happened, self._run.end_time))

    def _happened(self, what: Any) -> None:
        """Executes the actions that follow from an event outside the relay."""
        self._execute_now(what())

    def _execute_later(self, actions: Sequence[Action]) -> None:
        """Executes actions in the loop's next turn: rule 1."""
        if actions:
            self._later += actions
            self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        later, self._later = self._later, []
        if later and not self._is_over:
            self._session.guarded(partial(self._execute_now, later))

    def _execute_now(self, actions: Sequence[Action]) -> None:
        self._session.intake.settle()
        turn = self._execute(actions)
        self._keep_time()
        self._session.advance()
        if turn is not None and not self._is_over:
            self._reserve(turn)

    def _execute(self, actions: Sequence[Action]) -> BeginTurn | None:
        """Executes actions. Returns the turn that is to be asked now, if there is one."""
        relay, turn = self._session.relay, None
        self._executed += 1
        for action in actions:
            if relay.is_over:
                return None
            if isinstance(action, BeginCall):
                self._session.has_called = True
                self._calls.begin(action.call, self._sight.begin(action.call))
            elif isinstance(action, EndCall):
                self._end_call(action.call)
            elif isinstance(action, BeginTurn):
                self._end_turn()
                turn = action
            elif isinstance(action, AskApproval):
                self._ask_approval(action)
            elif isinstance(action, CheckCall):
                self._check(action.call)
            else:
                self._tell(action)
        return turn

    def _ask_approval(self, asked: AskApproval) -> None:
        call = asked.call
        if not self._plan.limits.leaves:
            ask = self._approvals.ask_on if self._has else self._approvals.ask  # the lost worker may have asked
            ask(call, asked.digest)
            return
        made = [part for part in self._parts if part["type"] == "tool_call"]
        signature = made[call.ordinal].get("signature", "") if call.ordinal < len(made) else ""
        if self._left_calls is None:
            plan = self._plan
            stream_id, caller = plan.identity.stream_id, plan.identity.caller
            self._left_calls = LeftCalls(plan.desk, stream_id, caller, self._left, self._not_left)
        self._left_calls.ask(call, asked.digest, self._kept.key_of(call), signature)

    def _tell_of_call(self, events: Sequence[Event]) -> None:
        """Sends what guards say of a call."""
        if not self._is_over:
            self._session.add([*events])

    def _check(self, call: RunCall) -> None:
        """Has guards look at the arguments of a call."""
        assert self._guards is not None
        check = self._loop.create_task(self._guards.arguments(call))
        self._checks |= {check}
        check.add_done_callback(partial(self._checked, call))

    def _checked(self, call: RunCall, check: asyncio.Task[tuple[Any, CallResult | None]]) -> None:
        self._checks -= {check}
        if self._has_succeeded(check):
            self._session.guarded(partial(self._happened, partial(self._note_checked, call, *check.result())))

    def _note_checked(self, call: RunCall, arguments: Any, problem: CallResult | None) -> Sequence[Action]:
        """Notes what guards let through of a call. What was kept of it before is not what is made."""
        is_changed = arguments is not call.arguments
        actions = self._run.call_checked(call, arguments, problem)
        if is_changed and self._run.state in (RunState.CALLING, RunState.WAITING):
            self._keep()
        return actions

    def _end_call(self, call: RunCall) -> None:
        self._calls.end(call)
        self._sight.cut(call)

    def _tell(self, action: CallEnded | Decided | EndStep | Warn | Finish) -> None:
        """Sends the event of an action, unless the log has it."""
        relay = self._session.relay
        if self._has and mark_of(action) in self._has:
            return
        if isinstance(action, CallEnded):
            self._sight.ended(action.call)
            relay.add(_result(action.call))
        elif isinstance(action, Decided):
            relay.add(_decided(action))
        elif isinstance(action, EndStep):
            relay.add(self._step_end(action.step))
        elif isinstance(action, Warn):
            relay.add({"type": "warning", "reason": "step_limit"})
        else:
            finish: Event = {**self._finish, "finish_reason": action.finish_reason}
            finish.pop("usage", None)
            usage = relay.usage_of_turns()
            if usage:
                finish["usage"] = usage
            relay.finish_run(finish)

    def _step_end(self, step: int) -> Event:
        end: Event = {"type": "step.end", "step": step, "finish_reason": self._finish["finish_reason"]}
        if "usage" in self._finish:
            end["usage"] = self._finish["usage"]
        return end

    # -- the next turn --

    def _end_turn(self) -> None:
        """Adds the last turn to the conversation: another one follows."""
        self._say(self._parts, self._run.steps[-2].calls)
        self._content.drop()  # it came after the turn's end
        self._keep()

    def _leave_thoughts_out(self) -> None:
        """Leaves out the thoughts that the turn's model has refused: rule 10."""
        asked = self._session.spec
        if len(asked.ignored) > len(self._ignored) and asked.model.name == self._spec.model.name:
            said = structs.replace(self._plan.request, messages=[*self._plan.request.messages, *self._said])
            request, _ = without_thoughts(said)
            assert isinstance(request, Request)
            self._begin_again(request, [])

    def _ask_soon(self, turn: BeginTurn | None) -> None:
        """Asks for a turn, if there is one, in the loop's next turn."""
        if turn is not None:
            self._loop.call_soon(self._session.guarded, partial(self._reserve, turn))

    def _say(self, parts: Sequence[Mapping[str, Any]], calls: Sequence[RunCall]) -> None:
        """Adds a turn and its results to the conversation, which has the calls of rule 7."""
        if any(call.key for call in calls):
            self._begin_again(with_results(self._plan.request, calls, self._plan.answered), self._said)
        else:
            added: list[Message] = [message_of_turn(parts, calls), *results_of(calls)]
            self._said += added
            self._characters += characters_of_messages(added)

    def _begin_again(self, request: Request, said: list[Message]) -> None:
        """Has another request in the place of the first, and what the run has added to it."""
        self._plan, self._said = replace(self._plan, request=request), said
        self._characters = characters(request) + characters_of_messages(said)

    def _begin_with_calls(self, said: Sequence[Event]) -> None:
        """Begins with the calls that an earlier run has left: rule 7.

        Args:
            said: What the log has of them.
        """
        if self._is_over:
            return
        answered, spec = self._plan.answered, self._spec
        known = {event.get("call_id") for event in said if event["type"] == "tool.call"}
        provider = get_provider(spec.model.upstream.provider).provider
        start: Event = {"type": "start", "provider": provider, "model": spec.model.name}
        calls: list[Event] = [
            {
                "type": "tool.call",
                "call_id": each.approval_id,
                "tool_call": {"name": each.name, "input": each.call.input},
            }
            for each in answered
            if each.approval_id not in known
        ]
        self._session.open_run([*(() if said else (start,)), *calls])
        if not self._is_over:
            self._session.guarded(partial(self._make_left_calls, answered))

    def _make_left_calls(self, answered: Sequence[AnsweredCall]) -> None:
        actions: list[Action] = []
        for each in answered:
            call, noted = each.call, self._run.note_decided
            actions += noted(each.approval_id, each.name, call.input, call.key, each.decision, each.by, each.reason)
        self._finish = {"type": "finish", "finish_reason": "tool_calls"}
        self._usages.append({})
        self._content.take()
        actions += self._run.end_turn("tool_calls")
        if self._run.state is not RunState.ENDED:
            self._keep(())
        self._execute_now(actions)

    def _reserve(self, turn: BeginTurn) -> None:
        """Asks for a turn, once it may be paid: rule 2."""
        self._sink.begin_step(turn.step)
        request = next_request(self._plan.request, self._said, without_tools=turn.without_tools)
        spec = self._spec  # that of the turn before, which has ended: a copy costs as much as the rest of a turn
        spec.request, spec.prompt_characters, spec.ignored = request, self._characters, self._ignored
        wanted = self._session.lacks(spec, self._used)
        if wanted is None:
            self._ask(turn, spec)
        else:
            self._session.reserve_turn(wanted, partial(self._reserved, turn, spec))

    def _used(self) -> int:
        return sum(map(_tokens, self._usages[self._recalled_turns :]))

    def _reserved(self, turn: BeginTurn, spec: StreamSpec, more: Amount) -> None:
        if self._is_over:
            return
        if more == REFUSED:
            self._session.stop("length", "spend")
            return
        self._session.take_spend(more)
        self._ask(turn, spec)

    def _ask(self, turn: BeginTurn, spec: StreamSpec) -> None:
        is_cut = ("step.start", turn.step) in self._has
        self._has = _NONE  # later events are not in the log
        self._session.begin_turn(spec, lost_worker() if is_cut else None)

    # -- what is kept, and a run that another worker has begun: rule 6 --

    def _keep(self, parts: Sequence[Mapping[str, Any]] | None = None) -> None:
        if self._told is not None:
            self._kept.keep(self._state(), encode_told(self._told.take(), parts), self._run.step.calls)
        elif self._kept.is_kept:
            self._kept.keep(self._state(), b"" if parts is None else encode_parts(parts), self._run.step.calls)

    def _state(self) -> bytes:
        memory = RunMemory({}, self._finish, self._usages, self._sink.providers, self._clock.left())
        return encode_state(self._run, memory)

    def _is_stored(self) -> Awaitable[bool]:
        if not self._is_over:
            self._session.flush()
        return self._plan.streams.is_stored(self._plan.identity.stream_id)

    def _lose(self) -> None:
        """Ends the run here: another worker has it."""
        if not self._is_over:
            self._plan.streams.leave_to_other(self._plan.identity.stream_id)

    def _may_wait(self) -> Awaitable[bool]:
        """Returns whether the run is small enough to be recorded, also if it is not."""
        if self._is_over:  # it has ended before its approval was kept
            return known(False)
        if self._kept.is_kept:
            return self._kept.is_small()
        return known(len(encode(self._plan.request)) <= RECORDS.run)

    def _waits(self) -> int | None:
        """Returns how often actions were executed, if the run waits for approvals. None if it does not."""
        return None if self._is_over or self._run.state is not RunState.WAITING else self._executed

    def _holds(self) -> bool:
        return self._session.relay.holds

    def _to_keep(self) -> tuple[bytes, bytes, Sequence[RunCall]]:
        """Returns what is kept before the run leaves its session, as for `KeptCalls.keep_now`."""
        told = [] if self._told is None else self._told.take()
        return self._state(), encode_told(told, None) if told else b"", self._run.step.calls

    def _park(self, approvals: dict[str, int]) -> None:
        """Leaves the session: rule 8."""
        self._parks = None
        self._plan.streams.park(self._plan.identity.stream_id, self._plan.desk, approvals, {**self._at_end()})

    def _parked(self, task: asyncio.Task[None]) -> None:
        if self._parks is task:
            self._parks = None
        self._has_succeeded(task)

    def _gone_on(self, task: asyncio.Task[KeptTurns]) -> None:
        if not self._is_over and not task.cancelled():
            self._session.guarded(partial(self._go_on, task))
        self._goes_on = None  # not before: `stop` asks whether the record is read

    def _go_on(self, task: asyncio.Task[KeptTurns]) -> None:
        """Goes on with the run of a worker that is gone, or with one that has waited."""
        try:
            kept = task.result()
            actions = None if kept is None else self._recall(*kept)
        except LostRun:
            self._lose()
            return
        except (StoreError, Error, ValueError) as problem:
            _log.warning("stream %s: its run does not go on: %s", self._plan.identity.stream_id, problem)
            actions = None
        if actions is None:
            self._session.has_called = True
            self._session.fail(lost_worker())
        else:
            self._load(actions)

    def _has_succeeded(self, task: asyncio.Task[Any]) -> bool:
        """Ends the stream if a task has failed. Returns whether the run goes on with its outcome."""
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not self._is_over:
            self._session.guarded(partial(_raise, problem))
        return problem is None and not self._is_over and not task.cancelled()

    def _recalled(self, said: Sequence[Event], kept: KeptRun) -> RecalledRun:
        if self._told is None:
            return RecalledRun(kept.state, [decode_parts(each) for each in kept.added], said, kept.begun)
        told, turns = decode_told(kept.added)
        return RecalledRun(kept.state, turns, told, kept.begun)

    def _recall(self, kept: RecalledRun, results: Mapping[str, CallResult | None]) -> list[Action]:
        """Reads a state, and returns what follows from it.

        Raises:
            ValueError: What is kept is damaged.
        """
        said, turns = kept.said, kept.turns
        self._has = marks_of(said)
        if is_beyond(said, turn_to_ask(kept.state)):
            raise ValueError("the state of the later turns is gone")
        if not kept.state:  # the first turn was cut
            self._sink.go_on(1, {}, (), has_start=bool(said))
            return []
        memory = decode_state(kept.state)
        if not turns or not memory.usages:
            raise ValueError("no turn is kept")
        self._clock.set_left(memory.seconds)
        actions = self._run.load(memory.run, results)
        self._session.has_called = True
        steps = self._run.steps
        if self._told is not None:
            self._told.recall(said)
            self._session.relay.resume_run(said)
        try:
            self._session.relay.recall_turns(memory.usages)
            for step, parts in zip(steps, turns[:-1], strict=False):
                self._say(parts, step.calls)
        except (KeyError, TypeError):
            raise ValueError("not the parts of a turn") from None
        self._finish, self._usages, self._parts = memory.finish, memory.usages, turns[-1]
        self._recalled_turns = len(self._usages)
        ids = [call.call_id for step in steps for call in step.calls]
        self._sink.go_on(len(turns), memory.providers, ids, has_start=bool(said))
        return actions

    def _load(self, actions: Sequence[Action]) -> None:
        """Goes on from a state: the turn that it has begun is asked again, and calls go on."""
        if not self._usages and self._plan.answered:  # their state was not kept: none of them was made
            self._begin_with_calls(self._former.said if self._former is not None else ())
            return
        if not self._usages:  # of the first turn, which was cut
            self._ask_soon(BeginTurn(1, without_tools=False))
            self._keep_time()
            return
        self._ask_soon(self._execute(actions))
        for asked in self._run.asked():
            if self._plan.limits.leaves:
                self._ask_approval(asked)
            else:
                self._approvals.ask_on(asked.call, asked.digest)
        self._keep_time()
        self._session.advance()


class _LastSteps:
    """The listener of a stream that is over. Keeps the steps for the stream's figures."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self._steps = steps

    def call_came(self, call_id: str, name: str, arguments: Any) -> str:
        """Works as `TurnListener.call_came`."""
        return call_id

    def turn_reset(self) -> None:
        """Does nothing."""

    def steps_so_far(self) -> list[dict[str, Any]]:
        """Works as `TurnListener.steps_so_far`."""
        return self._steps


def _raise(problem: BaseException) -> Never:
    raise problem


def _tokens(usage: Mapping[str, Any]) -> int:
    return tokens_of(usage, "input_tokens") + tokens_of(usage, "output_tokens")


_NOT_JSON: Final = "a number that JSON has no form for"


def _is_json(value: object) -> bool:
    """Returns whether a value can be written: a model or a tool may send `1e999`, which is read as infinite."""
    try:
        encode_json(value)
    except ValueError:
        return False
    return True


def _result(call: RunCall) -> Event:
    """Returns the event of a call that has ended."""
    result = call.result
    assert result is not None
    event: Event = {"type": "tool.result", "step": call.step, "call_id": call.call_id, "tool_result": result.value}
    if result.parts:
        event["parts"] = [dict(part) for part in result.parts]
    if result.is_error:
        event["is_error"] = True
    event["attempt"] = call.attempt
    event["duration_ms"] = result.duration_ms
    if result.is_truncated:
        event["truncated"] = True
    return event


def _required(call: RunCall, asked: AskedApproval) -> Event:
    assert call.tool is not None
    server, name = server_and_name(call.tool.address)
    approval = {"id": asked.id, "tool": name, "server": server, "input": call.arguments}
    told = {name: value for name, value in approval.items() if name == "input" or value}
    told |= {"digest": asked.digest, "expires": asked.expires}
    return {"type": "approval.required", "step": call.step, "call_id": call.call_id, "approval": told}


def _decided(action: Decided) -> Event:
    approval = {"id": action.call.approval_id, "decision": action.decision, "by": action.by, "reason": action.reason}
    told = {name: value for name, value in approval.items() if value}
    return {"type": "approval.decided", "step": action.call.step, "call_id": action.call.call_id, "approval": told}
