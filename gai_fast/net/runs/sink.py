"""What a run adds to the events of its stream, before they are encoded, and what it learns from them.

1. The first `start` is the stream's, and `step.start` follows it; each later one becomes `step.start`, which names
   provider and model if they are others. A `stream.reset` becomes `step.reset`: the steps before stay valid.
2. Each event of a step has its number, but for the deltas: most of them are copied past this sink.
3. Calls of the gateway's tools have `executed_by`. A call has the provider's id if that is new in the run, else one of
   ours, from its start on.
4. Only the first turn reports changes to its request: later requests have the client's members of the first, and
   messages that the client did not write.
5. A guard without a verdict is reported once, whatever it has looked at.
6. A call is complete once another one begins, if its arguments are an object and the calls before it were complete: the
   chat dialect says so at the end of the turn alone. It is announced then, and not again.
7. The content of a turn is kept for the next request: as it comes from the provider, before processors change it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from gai_fast.core.collector import Collector
from gai_fast.core.sinks import DeltaSink
from gai_fast.kernels import Part, Piece, compact_json
from gai_fast.model.events import DELTAS, Event, JSONText
from gai_fast.net.attempts.spec import Output
from gai_fast.processors import Chain
from gai_fast.providers.answers.events import json_input

_OF_STREAMS: Final = frozenset({"start", "finish", "error", "done", "stream.reset", "stream.gap"})
_OF_RUNS: Final = frozenset({"tool.result", "tool.progress", "step.end", "approval.required", "approval.decided"})
"""Types of events that no provider sends."""
_CHANGED: Final = "request_changed"
_NONE: Final[frozenset[str]] = frozenset()
"""What most runs have: an empty set of their own takes 216 bytes."""
_UNJUDGED: Final = "guard_failed"


class TurnListener(Protocol):
    """The run, as its sink sees it."""

    def call_came(self, call_id: str, name: str, arguments: Any) -> str:
        """Called with each complete call. Returns its id in the run."""

    def turn_reset(self) -> None:
        """Called when the turn is void, and asked again."""

    def steps_so_far(self) -> list[dict[str, Any]]:
        """Returns `steps` of a `finish`."""


class TurnContent:
    """The content of the turn that streams: rule 7."""

    def __init__(self) -> None:
        self._collector = Collector(plain=False)
        self._is_new = True  # nothing was noted

    def note(self, event: Event) -> None:
        """Adds an event of the provider's.

        Raises:
            Error: The turn is too large.
        """
        if event["type"] not in _OF_RUNS:
            self._is_new = False
            self._collector.event(event)

    def take(self) -> list[dict[str, Any]]:
        """Returns the parts of the turn, and begins the next."""
        parts = self._collector.parts()
        self._collector = Collector(plain=False)
        self._is_new = True
        return parts

    def drop(self) -> None:
        """Drops what came since the last turn was taken."""
        if not self._is_new:
            self._collector = Collector(plain=False)
            self._is_new = True


class OpenCalls:
    """The calls of the turn that streams, until they are complete: rule 6."""

    def __init__(self) -> None:
        self._call_id = self._name = ""  # of the newest call, until it is complete
        self._pieces: list[str] = []
        self._early: frozenset[str] = _NONE  # most turns have none
        self._is_in_order = True

    def add(self, event: Event, arguments: str) -> None:
        """Adds a piece of arguments."""
        if event["call_id"] == self._call_id:
            self._pieces.append(arguments)

    def begin(self, event: Event) -> Event | None:
        """Begins a call. Returns the `tool.call` of the one before, if that is complete."""
        before = self._completed() if self._call_id else None
        self._call_id, self._name, self._pieces = event["call_id"], event["tool_call"].get("name", ""), []
        return before

    def end(self, event: Event) -> bool:
        """Ends a call. Returns whether it was announced before."""
        if event["call_id"] == self._call_id:
            self._call_id = ""
        return event["call_id"] in self._early

    def _completed(self) -> Event | None:
        compact = compact_json("".join(self._pieces))
        if self._is_in_order and compact is not None and compact.startswith("{"):
            with suppress(ValueError):  # too deep
                given = {"name": self._name, "input": json_input(compact)}
                self._early |= {self._call_id}
                return {"type": "tool.call", "call_id": self._call_id, "tool_call": given}
        self._is_in_order = False
        return None


class RunSink:
    """A sink of a stream that is a run; it has all that the encoder of the stream has for the relay.

    Args:
        output: The stream's encoder.
        deltas: The encoder, if it accepts encoded deltas.
        listener: The run.
        servers: The servers of the tools that the run offers, by the names that the model sees; empty for the
            gateway's own.
        client_tools: The names of the client's tools.
        content: Keeps the content of turns. None if a processor does.
        chain: The stream's processors, which number events.
    """

    def __init__(
        self,
        output: Output,
        deltas: DeltaSink | None,
        listener: TurnListener,
        servers: Mapping[str, str],
        client_tools: Collection[str],
        content: TurnContent | None,
        chain: Chain | None,
    ) -> None:
        self.inner = output
        self.step = 1
        self.providers: dict[int, tuple[str, str]] = {}
        """Provider and model of each step."""
        self.steps: list[dict[str, Any]] | None = None
        """Those of the `finish`. None before it."""
        self.has_blocks = deltas is not None and deltas.has_blocks
        self.collects_text = content is not None or (deltas is not None and deltas.collects_text)
        self._deltas = deltas
        self._listener = listener
        self._servers = servers
        self._client_tools = client_tools
        self._content = content
        self._chain = chain
        self._has_start = False
        self._named_at_start = "", ""  # provider and model of the stream's `start`
        self._ids: frozenset[str] = _NONE  # of the turns before, and of those that are void
        self._own_ids: dict[str, str] = {}  # by the provider's id, of the turn
        self._new_ids: list[str] = []  # of the turn
        self._unjudged: frozenset[str] = _NONE  # guards that are reported
        self._open = OpenCalls()

    def event(self, event: Event) -> None:
        """Works as `EventSink.event`."""
        if self._content is not None:
            self._content.note(event)
        kind = event["type"]
        if kind in DELTAS:
            if kind == "tool.call.delta":
                self._open.add(event, event["arguments"])
            self.inner.event(self._named(event) if self._own_ids else event)
        elif kind == "start":
            self._start(event)
        elif kind == "stream.reset":
            self._forget_turn()
            reset: Event = {"type": "step.reset", "step": self.step, "reason": event["reason"]}
            self.inner.event(reset)
            self._listener.turn_reset()
        elif kind == "finish":
            self.steps = self._listener.steps_so_far()
            self.inner.event({**event, "steps": self.steps})
        elif kind in _OF_STREAMS:
            self.inner.event(event)
        elif self._is_left_out(event):
            if self._chain is not None:
                self._chain.leave_out(event)
        elif kind == "tool.call.start":
            before = self._open.begin(event)
            if before is not None:
                self._call("tool.call", {**before, "step": self.step})
                if self._chain is not None:
                    self._chain.count_one()
            self._call(kind, {**event, "step": self.step})
        elif kind == "tool.call":
            if not self._open.end(event):
                self._call(kind, {**event, "step": self.step})
            elif self._chain is not None:
                self._chain.leave_out(event)
        else:
            stepped: Event = {**event, "step": event.get("step", self.step)}
            self.inner.event(self._named(stepped) if self._own_ids and kind == "reasoning.signature" else stepped)

    def _is_left_out(self, event: Event) -> bool:
        """Returns whether a client does not get an event: rules 4 and 5."""
        reason = event.get("reason")
        if reason == _UNJUDGED and event["type"] == "warning":
            guard = event.get("guard", "")
            is_known = guard in self._unjudged
            self._unjudged |= {guard}
            return is_known
        return self.step > 1 and reason == _CHANGED

    def begin_step(self, step: int) -> None:
        """Begins another turn."""
        self.step = step
        self._forget_turn()

    def go_on(
        self, step: int, providers: Mapping[int, tuple[str, str]], call_ids: Iterable[str], *, has_start: bool
    ) -> None:
        """Goes on behind the events of another worker.

        Args:
            step: The last step.
            providers: As `providers`.
            call_ids: The ids of all calls of the run.
            has_start: Whether the stream has its `start`.
        """
        self.step, self._has_start = step, has_start
        self.providers.update(providers)
        self._ids = self._ids.union(call_ids)

    def leave(self, listener: TurnListener) -> None:
        """Replaces the listener: `listener` gets everything that follows."""
        self._listener = listener

    def _forget_turn(self) -> None:
        """Forgets the calls of a turn that has ended, or is void; their ids stay taken."""
        if self._new_ids:
            self._ids = self._ids.union(self._new_ids)
        self._own_ids, self._new_ids = {}, []
        self._open = OpenCalls()

    def _start(self, event: Event) -> None:
        self.providers[self.step] = event.get("provider", ""), event.get("model", "")
        if not self._has_start:
            self._has_start = True
            self._named_at_start = self.providers[self.step]
            self.inner.event(event)
            if self._chain is not None:
                self._chain.count_one()
        begun: Event = {"type": "step.start", "step": self.step}
        named = self.providers[self.step]
        if named != self._named_at_start:
            begun["provider"], begun["model"] = named
        self.inner.event(begun)

    def _call(self, kind: str, event: Event) -> None:
        name = event["tool_call"].get("name", "")
        if kind == "tool.call.start" or not (event["call_id"] in self._own_ids or event["call_id"] in self._new_ids):
            self._name(event["call_id"])
        event = self._named(event)
        if kind == "tool.call":
            given = event["tool_call"].get("input")
            arguments = given.value if isinstance(given, JSONText) else given
            event["call_id"] = self._listener.call_came(event["call_id"], name, arguments)
        if name not in self._client_tools:  # also where nobody offered it: its result is the gateway's
            event["executed_by"] = "gateway"
            server = self._servers.get(name)
            if server:
                event["server"] = server
        self.inner.event(event)

    def _name(self, call_id: str) -> None:
        """Notes a call's id; rule 3."""
        if call_id in self._ids:
            own = f"call_{self.step}_{len(self._new_ids)}"
            while own in self._ids:
                own += "_"
            self._own_ids[call_id] = own
        self._new_ids.append(self._own_ids.get(call_id, call_id))

    def _named(self, event: Event) -> Event:
        """Returns an event of a call with the call's id in the run."""
        own = self._own_ids.get(event.get("call_id", ""))
        return event if own is None else {**event, "call_id": own}

    # -- encoded deltas (`DeltaSink`) --

    @property
    def seq(self) -> int:
        """Works as `DeltaSink.seq`."""
        return cast("DeltaSink", self.inner).seq

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Works as `DeltaSink.delta_parts`."""
        return None if self._deltas is None else self._deltas.delta_parts(self._named(event), key)

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Works as `DeltaSink.append_frames`."""
        if self._deltas is not None:
            self._deltas.append_frames(frames, count, characters)

    def copied(self, event: Event, text: str) -> None:
        """Works as `DeltaSink.copied`."""
        kind, deltas = event["type"], self._deltas
        if kind == "tool.call.delta":
            self._open.add(event, text)
        if self._content is not None:
            noted: Any = {**event, DELTAS[kind]: text}
            self._content.note(noted)
        if deltas is not None and (deltas.collects_text or (deltas.has_blocks and kind == "tool.call.delta")):
            deltas.copied(self._named(event), text)

    # -- the encoder (`Output`) --

    def heartbeat(self) -> None:
        """Works as `Output.heartbeat`."""
        self.inner.heartbeat()

    def take_pieces(self) -> Sequence[Piece]:
        """Works as `Output.take_pieces`."""
        return self.inner.take_pieces()
