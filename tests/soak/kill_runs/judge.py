"""Judges a run by what outsiders have seen: the tool server's journal, the model's requests, the client, the log.

A fault is known by its kind and its times. What it excuses, and nothing else:

1. `worker` and `server` (SIGKILL), over a file or Redis. A call that is not idempotent may be `unknown` if the kill
   fell between its record, which is written once the turn has ended and the person has approved, and the record of its
   result, which is written within `NEAR` of the tool server's answer and before the model or a client has it; and only
   if the run was taken over. An idempotent call may be made again under the same condition, or if its turn was cut.
   What a killed worker has sent to the tool server may come within `NEAR`. A stream that its client has heard of less
   than `NEAR` before the kill may be unknown, unless its model had been asked (with `batched`: longer than `NEAR` ago);
   its client asks again, with another key if it is told to. Or the client hears `worker_lost`, and nothing is stored.
2. The same, over `memory://`: the run may end with `worker_lost`, or be unknown, also behind its end. No call is made
   again.
3. `store` (Redis killed and started again, or stopped; the file locked): a call that is not idempotent may not have
   been made, and a person may not have been asked; it says so, if it was ready before the store was back (plus
   `AGAIN`).
4. `tools` (SIGKILL, started again): a call may have failed if it was out between the kill and the start, or while the
   breaker was open (`BREAKER`). It may have been executed at most once, and has a result if it was answered before.
5. `none`: nothing is excused. Each call has exactly one execution.

A result that the model or the client was told never changes, whatever happens. A call of a turn that was void begins
anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from tests.soak.kill_runs.clients import Told
from tests.soak.kill_runs.journal import Execution
from tests.soak.kill_runs.kept import Events, texts_of
from tests.soak.kill_runs.peers import Asked, text_of_step
from tests.soak.kill_runs.plans import STEPS, TOOLS, Place, RunPlan, place_of

FaultKind = Literal["none", "worker", "server", "store", "tools"]
NEAR: Final = 0.3
"""Seconds in which what was sent may not have been stored yet, or what a killed worker has sent may not have come."""
AGAIN: Final = 6.0
"""Seconds in which a store that is back may not have been found: its connections are made again."""
BREAKER: Final = 10.5
"""Seconds for which the breaker of a tool stays open: `model.settings.BreakerSettings.open`."""
UNKNOWN: Final = "the outcome of this call is unknown"
_NOT_MADE: Final = "the call was not made: "
_NOT_ASKED: Final = "the call was denied: the approval could not be kept"
_DENIED: Final = "the call was denied: no"


class Fault(NamedTuple):
    """What happened to the runs. Times are monotonic seconds.

    Attributes:
        kind: What it was.
        began: When.
        ended: When what had gone was back; of a kill, when the last signal had been sent.
        store: `memory`, `sqlite` or `redis`.
        sync: `[store] sync`.
        near: Seconds within which what follows at once has followed: `NEAR`, and more on a busy machine.
    """

    kind: FaultKind
    began: float
    ended: float
    store: str
    sync: str
    near: float = NEAR


@dataclass
class Story:
    """All that outsiders know of a run.

    Attributes:
        plan: What it should do.
        fault: What happened meanwhile.
        told: What its client was told.
        asked: The requests for its turns, in order.
        calls: The executions of its calls.
        events: What is kept of it at the end. Empty if nothing is.
        is_same: Whether it is the same when it is asked for again.
        where: Where it differs, in words.
    """

    plan: RunPlan
    fault: Fault
    told: Told
    asked: list[Asked]
    calls: dict[Place, list[Execution]]
    events: Events = field(default_factory=list)
    is_same: bool = True
    where: str = ""
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def is_kept(self) -> bool:
        """Whether the store outlives the fault."""
        return self.fault.store != "memory"

    @property
    def is_killed(self) -> bool:
        """Whether a worker was killed."""
        return self.fault.kind in ("worker", "server")


def judge(story: Story) -> list[str]:
    """Returns what is wrong with a run, a line each."""
    return [f"{each} ({story.plan.form}, {_words_of(story.fault)})" for each in _Judge(story).problems()]


def _words_of(fault: Fault) -> str:
    return f"{fault.store}, {fault.sync}, {fault.kind} {fault.began:.3f} to {fault.ended:.3f}"


class _Judge:
    def __init__(self, story: Story) -> None:
        self._story = story
        self._plan, self._fault, self._told = story.plan, story.fault, story.told
        self._places: dict[str, Place] = {}  # of the calls that are not void, by id
        self._results: dict[Place, Mapping[str, Any]] = {}
        self._reset: set[int] = set()  # steps that were void
        self._problems: list[str] = []

    def problems(self) -> list[str]:
        """Judges all of it."""
        self._problems += [f"{self._plan.tag}: {each}" for each in self._told.faults]
        for place, calls in self._story.calls.items():
            self._judge_executions(place, calls)
        self._judge_told()
        if self._has_ended():
            self._read_events()
            for place, tool in self._plan.calls.items():
                self._judge_call(place, tool)
            self._judge_seen()
        return self._problems

    def _add(self, place: Place, text: str) -> None:
        calls = self._story.calls.get(place, ())
        times = [(round(each.began, 3), each.answered and round(each.answered, 3), each.attempt) for each in calls]
        turns = [(each.step, round(each.came, 3), each.ended and round(each.ended, 3)) for each in self._story.asked]
        near = [each for each in turns if each[0] in (place.step, place.step + 1)]
        key = next((each.key[:12] for each in calls), "none")
        tool = self._plan.calls.get(place, "?")
        self._problems.append(
            f"{place.tag} ({self._told.stream_id}) {tool} {place.step}.{place.at}, key {key}: {text};"
            f" executed {times}, turns {near}, decided {self._told.decided.get(place)}"
        )

    # -- the journal alone --

    def _judge_executions(self, place: Place, calls: Sequence[Execution]) -> None:
        tool = self._plan.calls.get(place)
        if tool is None or any(each.tool != tool for each in calls):
            self._add(place, "the model has not called it")
            return
        if len({each.key for each in calls}) != 1:
            self._add(place, f"it has keys {[each.key for each in calls]}")
        if len(calls) == 1:
            return
        if not TOOLS[tool]:
            self._add(place, f"it was executed {len(calls)} times")
            return
        self._story.tally["made again"] += 1
        if not (self._story.is_killed and self._story.is_kept):
            self._add(place, f"it was executed {len(calls)} times, and no worker was killed")
        elif any(each.began > self._fault.ended + self._fault.near for each in calls[:-1]):
            self._add(place, f"it was executed {len(calls)} times, more than once behind the kill")
        elif not self._was_out(place, calls[0]):
            self._add(place, f"it was executed {len(calls)} times, and had its result before the kill")

    def _was_out(self, place: Place, call: Execution) -> bool:
        """Returns whether an idempotent call was out at the kill, or its turn was not at its end."""
        kill = self._fault.began
        if call.answered is None or call.answered + self._fault.near >= kill:
            return True
        ends = [each.ended for each in self._story.asked if each.step == place.step and each.came <= kill]
        return any(end is None or end + self._fault.near >= kill for end in ends[-1:])

    # -- the end --

    def _judge_told(self) -> None:
        told = self._told
        is_one = told.lost[1:] == [0.0] and told.lost[0] > 0.0  # its key was still taken: 404, then 409
        lost = told.lost[:1] if is_one else told.lost
        for known in lost:
            self._story.tally["never stored"] += 1
            if not self._may_be_lost(known) or len(lost) > 1:
                asked = [(each.step, round(each.came, 3)) for each in self._asked[:2]]
                self._problems.append(
                    f"{self._plan.tag}: the stream that was known at {known:.3f} is lost, asked {asked}"
                )
        if len(told.ends) > 1:
            self._problems.append(f"{self._plan.tag} ({told.stream_id}): its client has the ends {told.ends}")

    def _may_be_lost(self, known: float) -> bool:
        """Returns whether a stream was killed so early that the store may not have had it."""
        fault = self._fault
        if not self._story.is_killed or (known and not known - fault.near < fault.began < known + fault.near):
            return False
        began = min((each.came for each in self._asked), default=fault.ended)
        return fault.began < began + (fault.near if fault.sync == "batched" else 0.0)

    def _has_ended(self) -> bool:
        """Judges the end. Returns whether it is the one of the plan."""
        events, told = self._story.events, self._told
        if self._story.is_killed and not self._story.is_kept and not self._story.is_same:
            events = []  # one of its workers had a copy
        kinds = Counter(event["type"] for event in events)
        if told.ends[:1] == ["finish"] and kinds["finish"] == 1 and not kinds["error"]:
            reason = next(event.get("finish_reason") for event in events if event["type"] == "finish")
            if reason != "stop":
                self._problems.append(f"{self._plan.tag} ({told.stream_id}): it has finished with {reason}")
            if not self._story.is_same:
                text = f"it differs when it is asked for again: {self._story.where}"
                self._problems.append(f"{self._plan.tag} ({told.stream_id}): {text}")
            return True
        gone = (*_LOST_ENDS, "finish") if not events else _LOST_ENDS
        may_be_gone = not self._story.is_kept or (not events and self._may_be_lost(told.known))
        if self._story.is_killed and may_be_gone and told.ends and told.ends[0] in gone:
            self._story.tally["lost with its worker" if not self._story.is_kept else "never stored"] += 1
            return False
        ends = [dict(event) for event in events if event["type"] in ("finish", "error", "done")]
        self._problems.append(f"{self._plan.tag} ({told.stream_id}): client's ends {told.ends}, the log's {ends}")
        return False

    def _read_events(self) -> None:
        for event in self._story.events:
            kind = event["type"]
            if kind == "step.reset":
                self._reset.add(event["step"])
                void = [name for name, place in self._places.items() if place.step == event["step"]]
                for name in void:
                    self._results.pop(self._places.pop(name), None)
            elif kind == "tool.call":
                self._places[event["call_id"]] = place_of(event["tool_call"]["input"])
            elif kind == "tool.result":
                place = self._places.get(event["call_id"])
                if place is None:
                    self._problems.append(f"{self._plan.tag}: a result of no call: {event}")
                elif place in self._results:
                    self._add(place, "it has two results")
                else:
                    self._results[place] = event
        steps = [event["step"] for event in self._story.events if event["type"] == "step.end"]
        if steps != [*range(1, STEPS + 1)]:
            self._problems.append(f"{self._plan.tag} ({self._told.stream_id}): its steps end as {steps}")
        texts = texts_of(self._story.events)
        if texts != {step: text_of_step(step) for step in range(1, STEPS + 1)}:
            self._problems.append(f"{self._plan.tag} ({self._told.stream_id}): its texts are {texts}")
        takeovers = sum(event["type"] == "stream.gap" for event in self._story.events)
        self._story.tally["taken over"] += bool(takeovers)
        self._story.tally["void turns"] += len(self._reset)

    # -- one call --

    def _judge_call(self, place: Place, tool: str) -> None:
        calls = self._story.calls.get(place, ())
        result = self._results.get(place)
        if result is None:
            self._add(place, "it has no result")
            return
        self._judge_use(place, result)
        value = result["tool_result"]
        if result.get("is_error"):
            self._judge_error(place, tool, str(value), calls)
            return
        self._story.tally["results"] += 1
        if place in self._plan.denied:
            self._add(place, "it was denied, and has a result")
        ticket = value["ticket"] if isinstance(value, dict) else value
        found = next((each for each in calls if each.ticket == ticket), None)
        if found is None or found.answered is None:
            self._add(place, f"its result is of no execution: {value}")

    def _judge_use(self, place: Place, result: Mapping[str, Any]) -> None:
        """Judges what the model was told of a call: once in a request, and the same in all."""
        value = result["tool_result"]
        wanted = value if isinstance(value, str) else json.dumps(value)
        for asked in self._story.asked:
            if asked.step <= place.step:
                continue
            told = asked.results.get(place, [])
            if len(told) != 1:
                self._add(place, f"turn {asked.step} has its result {len(told)} times")
            elif _json(told[0]) != _json(wanted):
                self._add(place, f"turn {asked.step} has another result, {told[0]}, than the run: {wanted}")

    def _judge_error(self, place: Place, tool: str, text: str, calls: Sequence[Execution]) -> None:
        if place in self._plan.denied and text.startswith(_DENIED):
            if calls:
                self._add(place, "it was denied, and executed")
            self._story.tally["denied"] += 1
        elif text == UNKNOWN:
            self._story.tally["unknown"] += 1
            if not self._may_be_unknown(place, tool, calls):
                self._add(place, "it is unknown, and no kill excuses that")
        elif text.startswith((_NOT_MADE, _NOT_ASKED)) and self._fault.kind == "store":
            self._story.tally["not made"] += 1
            if calls or TOOLS[tool] or not self._was_ready_within(place, self._fault.ended + AGAIN):
                self._add(place, f"its record was refused: {text}")
        elif self._fault.kind == "tools":
            self._story.tally["failed with the tool server"] += 1
            is_answered = any(
                each.answered is not None and each.answered + self._fault.near < self._fault.began for each in calls
            )
            if is_answered or not self._was_ready_within(place, self._fault.ended + BREAKER):
                self._add(place, f"it has failed: {text}")
        else:
            self._add(place, f"it has failed: {text}")

    def _may_be_unknown(self, place: Place, tool: str, calls: Sequence[Execution]) -> bool:
        kill = self._fault.began
        if TOOLS[tool] or not self._story.is_killed or not self._story.is_kept:
            return False
        is_stream = self._plan.form != "whole"
        if is_stream and not any(event["type"] == "stream.gap" for event in self._story.events):
            return False  # nobody has taken it over
        if any(each.answered is not None and each.answered + self._fault.near < kill for each in calls):
            return False
        return self._ready(place) <= self._fault.ended and not any(
            place.step < each.step and each.came < kill for each in self._asked
        )

    @property
    def _asked(self) -> Sequence[Asked]:
        return self._story.asked

    def _ready(self, place: Place) -> float:
        """Returns when a call could be made at the earliest: the end of its turn, and of its approval."""
        ends = [each.ended for each in self._asked if each.step == place.step and each.ended is not None]
        return max(min(ends, default=0.0), self._told.decided.get(place, 0.0))

    def _was_ready_within(self, place: Place, until: float) -> bool:
        """Returns whether a call was out at some time between the beginning of the fault and this one."""
        began = min((each.came for each in self._asked if each.step == place.step), default=0.0)
        over = min((each.came for each in self._asked if each.step == place.step + 1), default=float("inf"))
        return began <= until and over >= self._fault.began

    # -- what the client saw --

    def _judge_seen(self) -> None:
        if self._plan.form != "whole" and not self._is_behind():
            mine, kept = (_essence(each) for each in ([*self._told.events.values()], self._story.events))
            if mine != kept:
                self._problems.append(f"{self._plan.tag} ({self._told.stream_id}): {_difference(mine, kept)}")
        for call_id, event in self._told.seen:
            place = self._places.get(call_id)
            if place is None or place.step in self._reset:
                continue
            result = self._results.get(place)
            if result is not None and event["tool_result"] != result["tool_result"]:
                self._add(place, f"its client was told {event['tool_result']}, and then something else")

    def _is_behind(self) -> bool:
        """Returns whether the client had its end just before the kill, so that the store may have had none."""
        ended = self._told.ended
        return (
            self._fault.sync == "batched"
            and self._story.is_killed
            and ended <= self._fault.began < ended + self._fault.near
        )


def _essence(events: Sequence[Mapping[str, Any]]) -> list[object]:
    """Returns what two readers of a log must have alike: its texts by step, and all of its other numbered events."""
    others = [(event["seq"], event["type"]) for event in events if "seq" in event and event["type"] not in _NOT_ALIKE]
    return [texts_of(events), *others]


def _difference(mine: Sequence[object], kept: Sequence[object]) -> str:
    at = next((at for at, pair in enumerate(zip(mine, kept, strict=False)) if pair[0] != pair[1]), -1)
    return f"its client has {mine[at : at + 3]}, the log has {kept[at : at + 3]}"


_NOT_ALIKE: Final = ("text.delta", "tool.call.delta", "stream.gap")
"""Deltas are joined, and a gap is for who was there."""
_LOST_ENDS: Final = ("worker_lost", "status 404", "status 502")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
