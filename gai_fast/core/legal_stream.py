"""The events of one stream as its client gets them: in legal order, through processors, to the sinks of the attempt.

Owns the states of a stream and the events that each state allows (docs/events.md, "Ends"). `core/relay.py` decides
which events come, and how a stream ends.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from gai_fast.core.answer import Progress, UpstreamAnswer
from gai_fast.core.body import BodyKind
from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Stop
from gai_fast.core.requests.reading import characters_of_media
from gai_fast.core.sinks import DeltaSink, EventSink, FrameSink
from gai_fast.core.transcript import Repetition, Transcript
from gai_fast.kernels import DeltaCopier, Frame
from gai_fast.model.errors import Error, GaiFastError
from gai_fast.model.events import DELTAS, LIFECYCLE, MEDIA, NO_CONTENT, NO_EVENT, TYPES, Event, done
from gai_fast.model.halves import rest, separated
from gai_fast.model.money import Charge


class State(enum.Enum):
    """The states of a stream."""

    IDLE = "idle"
    STREAMING = "streaming"
    RESET = "reset"
    TURNED = "turned"  # a turn of a run has ended: calls are made, or the next turn is asked
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"
    TAIL = "tail"  # closed; the sink gets the bytes that follow, until `receive_eof`
    CUT = "cut"  # closed; the sink could not write the end

    __hash__ = object.__hash__  # looked up once per event; `Enum.__hash__` is a Python call


_OF_RUNS: Final = ("tool.result", "tool.progress", "step.end", "approval.required", "approval.decided", "warning")
_BETWEEN: Final = TYPES - {"start", "finish", "error", "done", "stream.reset", "stream.gap"}

TRANSITIONS: Final[dict[State, dict[str, State]]] = {
    State.IDLE: {"start": State.STREAMING, "error": State.FAILED},
    State.STREAMING: {
        **dict.fromkeys(_BETWEEN, State.STREAMING),
        "stream.reset": State.RESET,
        "finish": State.FINISHED,
        "error": State.FAILED,
    },
    State.RESET: {"start": State.STREAMING, "error": State.FAILED},
    State.TURNED: {
        **dict.fromkeys(_OF_RUNS, State.TURNED),
        "safety": State.TURNED,  # a guard's, of a result
        "start": State.STREAMING,
        "finish": State.FINISHED,
        "error": State.FAILED,
    },
    State.FINISHED: {"done": State.CLOSED},
    State.FAILED: {"done": State.CLOSED},
    State.CLOSED: {},
    State.TAIL: {},
    State.CUT: {},
}
"""`TRANSITIONS[state][event type]` is the next state. An event that is missing here is illegal."""


class _Step:
    """The handling of one type of event in one state: `TRANSITIONS` joined with the tables of `events`.

    One look-up returns all of it.
    """

    def __init__(self, kind: str, state: State) -> None:
        self.state = state
        self.key = DELTAS.get(kind)
        """The key of a delta's text. `None` if the event is not a delta."""
        self.is_around = kind in LIFECYCLE
        self.is_content = kind not in NO_CONTENT
        self.is_media = kind in MEDIA
        self.is_end = kind in ("finish", "error")


_STEPS: Final[dict[State, dict[str, _Step]]] = {
    state: {kind: _Step(kind, following) for kind, following in steps.items()} for state, steps in TRANSITIONS.items()
}
_STEPS_BETWEEN: Final[dict[str, _Step]] = _STEPS[State.STREAMING]
"""The steps of nearly all events. A look-up by the state costs 140 instructions."""


class IllegalTransition(GaiFastError):
    """The state of the stream does not allow an event: a bug of ours."""

    def __init__(self, state: State, kind: str) -> None:
        super().__init__(f"stream: {kind!r} is not allowed in state {state.value!r}")


class Unwritable(Exception):
    """The sink cannot write an event: a number is too large for a float, or JSON is nested too deep."""


# Copied: `done` is interpreted, 800 instructions more.
_FINISHED: Final[Event] = done(True)
_FAILED: Final[Event] = done(False)
# Constants: an enum attribute costs 75 ns on 3.11.
_IDLE: Final[State] = State.IDLE
_STREAMING: Final[State] = State.STREAMING
_RESET: Final[State] = State.RESET
_TURNED: Final[State] = State.TURNED
_AWAITED: Final[Progress] = Progress.AWAITED
_BEGUN: Final[Progress] = Progress.BEGUN
_CONTENT: Final[Progress] = Progress.CONTENT
_STREAM: Final[BodyKind] = BodyKind.STREAM
_IGNORED: Final[BodyKind] = BodyKind.IGNORED
_NO_EVENT: Final[Event] = NO_EVENT


class WatchedSink:
    """A sink and a watcher. The watcher gets each event that the sink has written."""

    def __init__(self, sink: EventSink, watcher: EventSink) -> None:
        self._sink = sink
        self._watcher = watcher

    def event(self, event: Event) -> None:
        """Works as `EventSink.event`."""
        self._sink.event(event)
        self._watcher.event(event)


class LegalStream:
    """The client's side of a relay: state, sinks, processors and counts. Base class of `Relay`.

    Args:
        stream_id: As for `Relay`.
        chain: As for `Relay`.
    """

    def __init__(self, stream_id: str | None, chain: Chain | None) -> None:
        self._stream_id = stream_id
        self._chain = chain
        self._continued: Literal["verified", "prefill"] | None = None
        # The complete calls and the usage of a failed attempt, for the end of the stream. None once the next attempt
        # has new content.
        self._failed_rest: tuple[list[Event], dict[str, Any]] | None = None
        self._has_sent_delta = False
        self._held_finish: Event | None = None  # the end of the answer, which waits for the processors
        self._now_ms: Any = 0  # an `int`; typed so, compiled code would make an object of it for each call
        self._repetition: Repetition | None = None  # what the processors must repeat
        self._unwatched: tuple[EventSink, DeltaSink | None] | None = None
        self._watcher: EventSink | None = None
        self._turn_charges = 0  # charges of the stream before the turn
        self.ended: Callable[[Event], object] | None = None
        """Called with the `finish` of each turn, if the stream is a run: `begin_turn` or `finish_run` follows. `None`
        if it is none."""
        self.state = State.IDLE
        self.delivered = False
        """Whether valid content has been passed on. If so, a new attempt must continue it or announce a reset."""
        self.deltas = 0
        """The number of deltas so far."""
        self.end: Event = _NO_EVENT
        """The `finish` or `error`; empty before it."""
        self.others = 0
        """The number of other events so far."""

    # -- state --

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended."""
        state = self.state
        return state is not _STREAMING and state is not _IDLE and state is not _RESET and state is not _TURNED

    @property
    def is_between_turns(self) -> bool:
        """Whether a turn of a run has ended, and the next has had no event."""
        return self.state is _TURNED

    @property
    def holds(self) -> bool:
        """Whether processors hold events of the stream, which come before all that follows."""
        return self._chain is not None and self._chain.holds

    @property
    def awaits_tail(self) -> bool:
        """Whether the stream has ended, but the sink still gets the bytes that follow until `receive_eof`."""
        return self.state is State.TAIL

    @property
    def is_cut(self) -> bool:
        """Whether the stream has ended, but the sink could not write the end."""
        return self.state is State.CUT

    @property
    def has_sent_delta(self) -> bool:
        """Whether the sink has received a delta. Processors may hold deltas back or drop them."""
        if self._chain is None or self._chain.touches == "events":
            return self.deltas > 0
        return self._has_sent_delta

    @property
    def due_ms(self) -> int | None:
        """The time to call `tick` if nothing comes before, on the clock of `receive_data`. `None` if there is none."""
        if self._chain is None or (self.state is not _STREAMING and self.state is not _TURNED):
            return None
        return self._chain.due_ms

    @property
    def copier(self) -> DeltaCopier | None:
        """The stream's copier. `None` if the copied bytes cannot be sent unchanged now."""
        answer = self._answer
        is_open = answer.body.kind is _STREAM and self.state is _STREAMING and self._deltas is not None
        return answer.copier if is_open and not answer.halves and answer.copier.copies else None

    # -- the attempt's answer --

    @property
    def dialect(self) -> str:
        """The dialect of the attempt's upstream."""
        return self._answer.adapter.api.dialect

    @property
    def response_id(self) -> str:
        """The provider's id of the attempt's answer; empty if it has none."""
        return self._answer.adapter.identifier

    def take_stored_ids(self) -> list[str]:
        """Returns the new ids that later requests can use to name things that the upstream stores."""
        adapter = self._answer.adapter
        taken = adapter.stored_ids
        if taken:
            adapter.stored_ids = []
        return taken

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the attempt's response, lower-case names; empty before they have come."""
        return self._answer.body.headers

    @property
    def awaits_first_event(self) -> bool:
        """Whether the attempt has had no event yet."""
        return self._answer.progress is _AWAITED

    @property
    def has_content(self) -> bool:
        """Whether the attempt has had content, including repeated content."""
        return self._answer.progress is _CONTENT

    @property
    def characters(self) -> int:
        """The number of characters of the answer that the client has got, from this attempt and those it continues."""
        return self._answer.characters

    @property
    def _is_done_with(self) -> bool:
        """Whether the rest of the attempt is ignored."""
        return self._answer.body.kind is _IGNORED

    # -- cost --

    def usage_so_far(self) -> dict[str, Any] | None:
        """Returns the usage of a stream that ends without an event; as `UpstreamAnswer.usage_so_far`."""
        return self._answer.usage_so_far()

    def charges_so_far(self) -> tuple[Charge, ...]:
        """Returns the charges of the stream so far; as `UpstreamAnswer.charges_so_far`."""
        return self._answer.charges_so_far()

    def close_account(self, *, is_abandoned: bool) -> None:
        """Closes the account of an attempt that has ended without an event; as `UpstreamAnswer.close_account`."""
        self._answer.close_account(is_abandoned=is_abandoned)

    # -- the sinks --

    def _copied_sink(self, deltas: DeltaSink | None, transcript: Transcript | None) -> DeltaSink | None:
        """Returns the sink of copied deltas. None if a transcript or a processor must see each delta."""
        is_seen = transcript is not None or (self._chain is not None and self._chain.touches == "deltas")
        return None if is_seen else deltas

    def _use(
        self,
        answer: UpstreamAnswer,
        sink: EventSink,
        deltas: DeltaSink | None,
        frames: FrameSink | None,
        upstream: str | None,
    ) -> None:
        """Uses an answer, and writes its events to its sinks from now on."""
        self._answer = answer
        self._sink = sink
        self._deltas = deltas
        self._frames = frames
        self._commits = frames is not None and frames.commits
        self._upstream = upstream
        self._is_void = False  # if true, the client has a start, and frames that only repeat it are dropped
        self._unwatched = None
        if self._watcher is not None:
            self._show(self._watcher)

    def _replace_watcher(self, watcher: EventSink | None) -> None:
        """Replaces the watcher. `None` if the stream is no longer watched."""
        if self._unwatched is not None:
            self._sink, self._deltas = self._unwatched
            self._unwatched = None
            self._answer.learn_for(self._deltas)
        self._watcher = watcher
        if watcher is not None:
            self._show(watcher)

    def _show(self, watcher: EventSink) -> None:
        """Adds a watcher to the attempt's sink."""
        self._unwatched = self._sink, self._deltas
        self._sink, self._deltas = WatchedSink(self._sink, watcher), None
        self._answer.learn_for(None)
        self._answer.copier.forget()

    # -- events --

    def _emit_all(self, events: list[Event]) -> None:
        for event in events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        kind = event["type"]
        answer = self._answer
        if answer.progress is _AWAITED:
            answer.progress = _BEGUN
        step = (_STEPS_BETWEEN if self.state is _STREAMING else _STEPS[self.state]).get(kind)
        if step is None:
            if kind == "start" and self._continued is not None:
                return  # the client already has the start of this answer
            raise IllegalTransition(self.state, kind)
        key, transcript = step.key, answer.transcript
        if transcript is not None:
            held = answer.released(transcript, event)
            if held:
                self._emit({"type": "text.delta", "text": held})
        if key is not None:
            text: str = event[key]  # type: ignore[literal-required]  # the key depends on the type
            if answer.halves or not text.isascii():
                event, text = answer.joined(event, key, text)
                if not text:
                    return
            answer.progress = _CONTENT
            if transcript is not None:
                new = answer.compared(transcript, event, len(text))
                if new is None:
                    return
                self._failed_rest = None
                event, text = new, new[key]  # type: ignore[literal-required]  # as above
            self.delivered = True
            self.deltas += 1
            answer.characters += len(text)
        elif kind == "start":
            event = self._completed_start(event)
        elif answer.halves:
            self._emit_all(separated(answer.halves, event))
        if key is None:
            if step.is_content:
                answer.progress = _CONTENT
            media = characters_of_media(event) if step.is_media else 0
            if transcript is not None and not step.is_around:
                new = answer.compared(transcript, event, media)
                if new is None:
                    return
                self._failed_rest = None
                event = new
            answer.characters += media
            self.delivered = self.delivered or step.is_content
            self.others += 1
            if step.is_end:
                self.end = event = answer.settled(event) if self._chain is None else answer.priced(event)
                if kind == "finish" and self._continued is not None:
                    event["continued"] = self._continued
        if self._chain is None:
            self._write(event)
        else:
            try:
                for processed in self._chain.process(event, self._now_ms):
                    if processed["type"] in ("finish", "error"):  # a processor may have counted the tokens
                        processed = answer.settled(processed)
                        if self.end and "usage" in processed:  # `NO_EVENT` is every stream's
                            self.end["usage"] = processed["usage"]
                    self._send_processed(processed)
            except Stop:
                if step.state is _STREAMING or step.state is _RESET:  # the client has it: rule 3 of `processor.py`
                    self.state = step.state
                raise
            if step.is_end:
                answer.settled(event)  # charges an end that a processor has dropped
        self.state = step.state
        if kind == "start" and answer.early_warnings:
            early, answer.early_warnings = answer.early_warnings, []
            self._emit_all(early)

    def _recall(self, event: Event) -> None:
        """Notes an event that its sink has: another worker has written it.

        Raises:
            IllegalTransition: The event may not follow those before it.
        """
        kind = event["type"]
        step = _STEPS[self.state].get(kind)
        if step is None:
            raise IllegalTransition(self.state, kind)
        answer, key = self._answer, step.key
        if key is not None:
            text: str = event[key]  # type: ignore[literal-required]  # the key depends on the type
            answer.characters += len(text)
        elif step.is_media:
            answer.characters += characters_of_media(event)
        if kind == "stream.reset":
            answer.characters, self.delivered = 0, False
            if answer.transcript is not None:
                answer.transcript.forget()
        elif answer.transcript is not None and not step.is_around:
            answer.transcript.take(event)
        self.delivered = self.delivered or key is not None or step.is_content
        self.state = step.state

    def _send_processed(self, processed: Event) -> None:
        """Writes an event from the processors to the sink, unless its client has it."""
        if self._repetition is not None:
            new = self._repetition.take(processed)
            if new is None:
                if self._chain is not None:
                    self._chain.leave_out(processed)
                return
            processed = new
        self._has_sent_delta = self._has_sent_delta or processed["type"] in DELTAS
        self._write(processed)

    def _finish_processed(self, chain: Chain, events: list[Event]) -> None:
        """Emits the last events of an answer. Its `finish` waits while processors hold text.

        Args:
            chain: The processors.
            events: The events, `finish` last.
        """
        answer, finish = self._answer, events.pop()
        self._emit_all(events)
        if answer.transcript is not None:
            held = answer.released(answer.transcript, finish)
            if held:
                self._emit({"type": "text.delta", "text": held})
        if answer.halves:
            self._emit_all(rest(answer.halves))
        self._held_finish = finish
        if "provider_metadata" in finish:
            self._release(chain)  # text stands before what is said beside the end, for judges too
            chain.announce(finish, self._now_ms)
        self._emit_held_finish(chain)

    def _emit_held_finish(self, chain: Chain) -> None:
        """Emits the end of the answer, unless the processors still hold text."""
        finish = self._held_finish
        if finish is None:
            return
        self._release(chain)
        if not chain.holds:
            self._held_finish = None
            if self.ended is None:
                self._emit(finish)
                self._emit_done(is_finished=True)
            elif self.state is _TURNED:
                self._write_finish(finish)
            else:
                self._end_turn(finish, self.ended)

    # -- a run --

    def _finish_turn(self, events: list[Event], ended: Callable[[Event], object]) -> None:
        """Emits the last events of a turn, but for its `finish`.

        Args:
            events: The events, `finish` last.
            ended: As `Relay.ended`.
        """
        answer, finish = self._answer, events.pop()
        self._emit_all(events)
        if answer.transcript is not None:
            held = answer.released(answer.transcript, finish)
            if held:
                self._emit({"type": "text.delta", "text": held})
            answer.compared(answer.transcript, finish, 0)
        if answer.halves:
            self._emit_all(rest(answer.halves))
        self._end_turn(finish, ended)

    def _end_turn(self, finish: Event, ended: Callable[[Event], object]) -> None:
        finish = self._answer.settled_turn(finish, self._turn_charges)
        self._failed_rest = self._continued = None
        self.state = _TURNED
        ended(finish)

    def _add(self, event: Event) -> None:
        """Sends an event of a run, which is no upstream's."""
        kind = event["type"]
        step = _STEPS[self.state].get(kind)
        if step is None:
            raise IllegalTransition(self.state, kind)
        self.others += 1
        self._send(event)
        self.state = step.state

    def _write_finish(self, finish: Event) -> None:
        """Sends the end of a run, whose accounts are closed."""
        self.end = finish
        self._add(finish)
        self._emit_done(is_finished=True)

    def _send(self, event: Event) -> None:
        if self._chain is None:
            self._write(event)
            return
        for processed in self._chain.process(event, self._now_ms):
            self._send_processed(processed)

    def _release(self, chain: Chain) -> None:
        """Emits the text that processors hold until more comes: none does."""
        if chain.holds:
            for processed in chain.release(self._now_ms):
                self._send_processed(processed)

    def _write(self, event: Event) -> None:
        try:
            self._sink.event(event)
        except ValueError as problem:
            raise Unwritable(str(problem)) from None

    def _emit_end(self, event: Event, usage: dict[str, Any]) -> None:
        """Emits a `finish` or `error` with its usage, if there is any, and `done`."""
        if usage:
            event["usage"] = usage
        self._emit(event)
        self._emit_done(is_finished=event["type"] == "finish")

    def _emit_done(self, *, is_finished: bool) -> None:
        self._emit((_FINISHED if is_finished else _FAILED).copy())

    def _end_bare(self, error: Error) -> None:
        """Writes the missing events of an end directly to the sink, past all other parts.

        Args:
            error: The error, if the stream has no end yet.
        """
        if not self.is_over:
            self.end = {"type": "error", "error": error.payload()}
            self._sink.event(self.end)
            self.others += 1
            self.state = State.FAILED
        self._sink.event(done(self.state is State.FINISHED))
        self.others += 1
        self.state = State.CLOSED

    def _completed_start(self, event: Event) -> Event:
        if self._stream_id:
            event["stream_id"] = self._stream_id
        if self._upstream:
            metadata: dict[str, Any] | None = event.get("provider_metadata")
            metadata = {} if metadata is None else metadata.copy()  # `{**metadata}` costs 350 instructions more
            metadata["upstream"] = self._upstream
            event["provider_metadata"] = metadata
        return event

    def _relate(self, continued: Literal["verified", "prefill"] | None) -> None:
        """Sets the relation of a further attempt to the delivered content; as for `Relay.begin`."""
        self._continued = continued
        # Nothing has been sent of a complete JSON answer.
        keeps_start = self._frames is not None and not self._frames.whole
        self._is_void = keeps_start and continued is None and self.state is not State.IDLE

    def _go_on_from(self, failure: Error, continued: Literal["verified", "prefill"] | None) -> None:
        """Relates the attempt to the content delivered by the attempt before.

        Args:
            failure: The failure of the attempt before.
            continued: As for `Relay.begin`.
        """
        answer = self._answer
        transcript = answer.transcript
        if continued is None:
            self._failed_rest = None
            self._emit({"type": "stream.reset", "reason": failure.reason or failure.code})
            answer.progress, self.delivered = _AWAITED, False  # `stream.reset` does not belong to the answer
            if transcript is not None:
                transcript.forget()
        elif transcript is not None and continued == "verified":
            transcript.repeat(failure)
        elif transcript is not None:
            transcript.go_on()

    def _emit_complete_calls(self) -> dict[str, Any]:
        """Emits the complete calls of an incomplete answer. Returns its usage."""
        answer = self._answer
        transcript, answer.transcript = answer.transcript, None
        if self._repetition is not None:
            self._repetition.give_up()
        if self._held_finish is not None:  # the answer is complete, and so are its calls
            self._held_finish = None
            return self._partial_usage()
        if self._failed_rest is not None:  # the attempt had no new content: uses the rest of the attempt before
            answer.halves = {}
            calls, usage = self._failed_rest
            self._emit_all(calls)
            return usage
        self._emit_all(rest(answer.halves))
        if self.state is _STREAMING:
            self._emit_all(self._complete_calls(transcript))
        return self._partial_usage()

    def _complete_calls(self, transcript: Transcript | None) -> list[Event]:
        """Returns the complete calls of an incomplete answer, with the ids that the client has of them."""
        calls = self._answer.adapter.abort()
        return calls if transcript is None else [transcript.named(event) for event in calls]

    def _keep_rest(self) -> None:
        """Keeps the complete calls and the usage of a failed attempt, if another attempt may go on from it."""
        answer = self._answer
        if answer.transcript is not None and self._failed_rest is None and self.state is _STREAMING:
            self._failed_rest = self._complete_calls(answer.transcript), answer.partial_usage(has_started=True)

    def _partial_usage(self) -> dict[str, Any]:
        """Returns the usage up to an end that the provider did not send."""
        if self.state is _TURNED:
            return {}  # that of the turns before is added
        return self._answer.partial_usage(has_started=self.state is not State.IDLE)

    def _name_phase(self, error: Error) -> None:
        """Sets the phase of an error. Keeps `connect`, which only a connection can know."""
        if error.phase != "connect":
            error.phase = "mid_stream" if self.delivered else "first_event"

    def _kept(self, error: Error) -> Error:
        """Returns the error as clients may see it, without its traceback.

        The frames of a traceback refer to the stream: the stream would only be freed by the garbage collector.
        """
        return self._answer.client_error(error).with_traceback(None)

    # -- copied deltas and frames --

    def _take_copied(self, deltas: DeltaSink) -> None:
        """Passes on and counts the deltas copied since the last call, as if each had come as an event."""
        data, count, kinds = self._answer.copier.take_copied()
        deltas.append_frames(data, count, self._note_copied(deltas, count, kinds))

    def _settle_copied(self) -> None:
        """Counts the deltas of the fast path."""
        count, kinds = self._answer.copier.settle()
        if count and self._deltas is not None:
            self._deltas.append_frames(b"", count, self._note_copied(self._deltas, count, kinds))

    def _note_copied(self, deltas: DeltaSink, count: int, kinds: list[tuple[Event, int, str]]) -> int:
        """Accounts for copied deltas. Returns the code points of their visible text."""
        self.deltas += count
        self.delivered = True
        self._is_void = False
        return self._answer.note_copied(deltas, kinds)

    def _only_repeats_start(self, events: list[Event]) -> bool:
        """Returns whether a frame only repeats the start of the attempt before.

        SDKs would append its role to the first one.
        """
        if self._is_void and self._frames is not None:
            adapter = self._answer.adapter
            # Before `start`, a frame cannot open a part.
            opens = not events and self._frames.opens_parts and adapter.started
            if opens or adapter.ended or any(event["type"] != "start" for event in events):
                self._is_void = False
        return self._is_void

    def _pass_on(self, raw: bytes, *, last: bool = False) -> None:
        if self._frames is not None:
            self._frames.frame(raw, last)

    def _begin_tail(self, sink: FrameSink, frames: Sequence[Frame]) -> None:
        """Continues after the upstream's own end, if the sink copies the body.

        Args:
            sink: The sink.
            frames: The frames after the end that came with the last read.
        """
        if sink.copies_body and self.state is State.CLOSED:
            self.state = State.TAIL
            self._answer.oversized = ""
            self._answer.copier.forget()
            self._pass_tail_on(frames)
            self._receive_tail()

    def _receive_tail(self) -> None:
        """Passes on the frames received after the end."""
        answer = self._answer
        frames: list[Frame] | None = []
        while frames is not None and self.state is State.TAIL:
            frames = answer.next_frames(0, self._now_ms)
            if answer.oversized:  # no frame follows an oversized frame
                self.state = State.CLOSED
            self._pass_tail_on(frames or ())

    def _end_tail(self) -> None:
        self.state = State.CLOSED
        self._pass_tail_on(self._answer.copier.close())

    def _pass_tail_on(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if not self._answer.is_hidden(frame):
                self._pass_on(frame.raw, last=True)
