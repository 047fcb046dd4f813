"""One stream, sans-IO: an upstream's answer in, legal `gai.events.v1` events out.

Owns the legal order of a stream, its one end, and the only place where an exception becomes an event. It never awaits,
opens nothing and reads no clock. It knows no provider and no client format: it drives the parts that it is given.

Rules (docs/events.md, "Ends"):

1. `start` comes first, or an `error` without one.
2. Exactly one of `finish` and `error`, then `done`, then nothing. `done.finished` is true where `finish` was sent.
3. `finish` is held until the provider's end mark or the end of its body.
4. A body that ends without a finish reason is `error {network, truncated}`; one that breaks after it is a `finish`.
5. An unreadable chunk is left out and becomes a `warning`, or it ends the stream, as `on_malformed` says. The third in
   a row always ends it.
6. The relay asks `failed` about a failure of the upstream before it passes it on. Where `failed` promises another
   attempt, `begin` follows instead. The content delivered by then is either void, which `stream.reset` announces, or
   the new attempt repeats it, which the transcript verifies; the client sees one stream.
7. Any exception of a part, in any call, ends the stream: an `Error` as itself, any other as one `error {internal}`,
   then `done`. This is not the upstream's failure, so `failed` is not asked. `fault` keeps the exception for the caller
   to log. Where the sink cannot take that end either, `is_cut` is true, and the caller must not end the response
   properly. So it is, without a fault, where the sink's format has no word for an end (`Untellable`).
8. A sink that copies the body also gets what follows the upstream's own end, unread but for errors that `translate`
   hides: while `awaits_tail`, `receive_data` and `receive_eof` go on.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from gai_fast.core.adapter import Adapter
from gai_fast.core.body import Body, BodyKind, unavailable
from gai_fast.core.chain import Chain
from gai_fast.core.chunks import WRONG_SHAPE, parse_chunk
from gai_fast.core.learning import Learning
from gai_fast.core.reading import characters_of_media, estimated_tokens
from gai_fast.core.sinks import DeltaSink, EventSink, FrameSink, Untellable
from gai_fast.core.transcript import Transcript
from gai_fast.kernels import ArrayFramer, DeltaCopier, Frame, LineFramer, SSEFramer
from gai_fast.model.errors import Error, GaiFastError, Malformed
from gai_fast.model.events import AROUND, ASIDES, DELTAS, MEDIA, NO_CONTENT, TYPES, Event, done, join_surrogates
from gai_fast.model.limits import LIMITS
from gai_fast.model.money import Bill, cost_member

# ---- the stream that the client sees ---------------------------------------------------------------------------------


class State(enum.Enum):
    """The states of a stream."""

    IDLE = "idle"
    STREAMING = "streaming"
    RESET = "reset"
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"

    __hash__ = object.__hash__  # the members are looked up once per event, and `Enum.__hash__` is a call of Python code


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
    State.FINISHED: {"done": State.CLOSED},
    State.FAILED: {"done": State.CLOSED},
    State.CLOSED: {},
}
"""`TRANSITIONS[state][event type]` is the next state; an event that is not here is illegal."""


class _Step:
    """The treatment of an event of one type in one state: `TRANSITIONS` and the tables of `events`, together.

    One look-up finds all of it.
    """

    __slots__ = ("is_around", "is_aside", "is_content", "is_end", "is_media", "key", "state")

    def __init__(self, kind: str, state: State) -> None:
        self.state = state
        self.key = DELTAS.get(kind)
        """Of a delta, the key that holds its text."""
        self.is_aside = kind in ASIDES
        self.is_around = kind in AROUND
        self.is_content = kind not in NO_CONTENT
        self.is_media = kind in MEDIA
        self.is_end = kind in ("finish", "error")


_STEPS: Final[dict[State, dict[str, _Step]]] = {
    state: {kind: _Step(kind, following) for kind, following in steps.items()} for state, steps in TRANSITIONS.items()
}


class IllegalTransition(GaiFastError):
    """A bug of ours: an event that the state of its stream does not allow."""

    def __init__(self, state: State, kind: str) -> None:
        super().__init__(f"stream: {kind!r} is not allowed in state {state.value!r}")


class _Unwritable(Exception):
    """The sink cannot write an event: a number beyond all floats, JSON nested too deep."""


# ---- the upstream's response -----------------------------------------------------------------------------------------


_UNKNOWN: Final[BodyKind] = BodyKind.UNKNOWN
_STREAM: Final[BodyKind] = BodyKind.STREAM
_IGNORED: Final[BodyKind] = BodyKind.IGNORED


class _Watched:
    """A sink and a watcher; the watcher gets each event that the sink has taken."""

    __slots__ = ("_sink", "_watcher")

    def __init__(self, sink: EventSink, watcher: EventSink) -> None:
        self._sink = sink
        self._watcher = watcher

    def event(self, event: Event) -> None:
        """As `EventSink.event`."""
        self._sink.event(event)
        self._watcher.event(event)


class Relay:
    """One answer of one upstream, relayed to one sink.

    Call `receive_head`, `receive_data` and `receive_eof` in this order; `cancel` and `fail` at any moment. After the
    end every further call is ignored (but see rule 8). No call raises.

    Args:
        adapter: Reads the provider's chunks.
        sink: Receives the events.
        deltas: The same sink, where it receives deltas that are written already.
        frames: The same sink, where it receives the upstream's bytes as they are.
        stream_id: For `start`, where the stream has one.
        upstream: The configured name of the upstream, for `start`.
        on_malformed: `skip` leaves out unreadable chunks, `error` ends the stream.
        translate: Applied to an upstream's error, with the bytes that tell it, before either is passed on; hides
            refusals of our own credentials.
        prompt_characters: Length of the request's text, for an estimate where the provider counts nothing; `None`: no
            estimate.
        chain: The stream's processors; `deltas` and `frames` are given only where the chain need not see those.
        failed: Asked about each failure of the upstream; `True`: `begin` will follow.
        transcript: Keeps the delivered content, for an attempt that goes on from it; it needs all events, so there are
            no `deltas` or `frames`.
        bill: Gets the charges of the stream's attempts, whose owner begins each of them there; the usage of the end
            then has the `cost`.
    """

    __slots__ = (
        "_adapter",
        "_bill",
        "_body",
        "_chain",
        "_characters",
        "_commits",
        "_continued",
        "_copier",
        "_deltas",
        "_early_warnings",
        "_failed_rest",
        "_failure",
        "_frames",
        "_generated",
        "_goes_on",
        "_halves",
        "_has_told",
        "_is_void",
        "_learning",
        "_malformed_run",
        "_now_ms",
        "_on_malformed",
        "_prompt_characters",
        "_sink",
        "_stream_id",
        "_transcript",
        "_translate",
        "_unwatched",
        "_upstream",
        "_watcher",
        "awaits_first_event",
        "awaits_tail",
        "delivered",
        "deltas",
        "end",
        "error",
        "failed",
        "fault",
        "has_content",
        "is_cut",
        "others",
        "owes",
        "state",
    )

    def __init__(
        self,
        adapter: Adapter,
        sink: EventSink,
        *,
        deltas: DeltaSink | None = None,
        frames: FrameSink | None = None,
        stream_id: str | None = None,
        upstream: str | None = None,
        on_malformed: Literal["skip", "error"] = "skip",
        translate: Callable[[Error, bytes], Error] | None = None,
        prompt_characters: int | None = None,
        chain: Chain | None = None,
        failed: Callable[[Error], bool] | None = None,
        transcript: Transcript | None = None,
        bill: Bill | None = None,
    ) -> None:
        self._bill = bill
        self._goes_on = False  # the attempt goes on from the content of another one
        self._stream_id = stream_id
        self._on_malformed = on_malformed
        self._prompt_characters = prompt_characters
        self.failed = failed
        """Asked about each failure of the upstream; set to `None` at the end, to break a reference cycle."""
        self._failure: Error | None = None
        self._transcript = transcript
        self._continued: Literal["verified", "prefill"] | None = None
        # Complete calls and usage of a failed attempt, for the end, until the next attempt brings new content.
        self._failed_rest: tuple[list[Event], dict[str, Any]] | None = None
        self._chain = chain
        self._has_told = False
        self._now_ms = 0

        self.state = State.IDLE
        self.error: Error | None = None
        """The error that ended the stream, if one did."""
        self.fault: Exception | None = None
        """The exception of a part, other than an `Error`, that ended the stream: a bug, to be logged."""
        self.is_cut = False
        """Whether the stream is over though the sink could not take its end."""
        self.delivered = False
        """Whether content has been passed on and is not void: from then on no attempt begins anew in silence."""
        self.deltas = 0
        """The number of deltas so far."""
        self.end: Event = {}
        """The `finish` or `error`, once there is one."""
        self.others = 0
        """The number of other events so far."""
        self.awaits_tail = False
        """Whether the stream is over, and the sink takes the bytes that follow until `receive_eof`."""

        self._characters = 0
        self._watcher: EventSink | None = None
        self._attempt(adapter, sink, deltas, frames, upstream, translate)

    def _attempt(
        self,
        adapter: Adapter,
        sink: EventSink,
        deltas: DeltaSink | None,
        frames: FrameSink | None,
        upstream: str | None,
        translate: Callable[[Error, bytes], Error] | None,
    ) -> None:
        """Sets up everything that belongs to one response of an upstream."""
        self._adapter = adapter
        self._sink = sink
        self._deltas = deltas
        self._frames = frames
        self._commits = frames is not None and frames.commits
        self._upstream = upstream
        self._translate = translate
        self.awaits_first_event = True
        """Whether the attempt has brought no event yet."""
        self.has_content = False
        """Whether the attempt has brought content, repeated content included."""
        self.owes = True
        """Whether the attempt is under way at its upstream, so that it is charged where it ends now."""
        self._generated = 0  # characters of the attempt, repeated ones included; counted where there is a transcript
        self._is_void = False  # the client has a start: frames that only repeat it are not passed on
        self._body = Body(adapter.api)
        self._copier = DeltaCopier(
            SSEFramer() if adapter.api.framing == "sse" else LineFramer(),
            frames is not None,
            adapter.text_members,
            adapter.ignored_members,
            adapter.kept_members,
            adapter.label_members,
        )
        self._learning = self._new_learning()
        self._malformed_run = 0
        self._early_warnings: list[Event] = []
        self._halves: dict[tuple[object, ...], Event] = {}
        self._unwatched: tuple[EventSink, DeltaSink | None] | None = None
        if self._watcher is not None:
            self._show(self._watcher)

    def _new_learning(self) -> Learning | None:
        """Returns what learns the frames of the attempt; `None` where none of them may be copied."""
        deltas = self._deltas
        if deltas is None or self._body.is_array or not self._adapter.text_members:
            return None
        return Learning(self._adapter, deltas, self._copier)

    def begin(
        self,
        adapter: Adapter,
        sink: EventSink,
        *,
        deltas: DeltaSink | None = None,
        frames: FrameSink | None = None,
        upstream: str | None = None,
        translate: Callable[[Error, bytes], Error] | None = None,
        continued: Literal["verified", "prefill"] | None = None,
    ) -> None:
        """Begins another attempt, which `failed` has promised.

        Args:
            adapter: As for the class.
            sink: As for the class; it must go on where the former one stopped.
            deltas: As for the class.
            frames: As for the class.
            upstream: As for the class.
            translate: As for the class.
            continued: The relation to the delivered content. `verified`: the attempt repeats it first; `prefill`: the
                attempt begins behind it; `None`: the delivered content is void.
        """
        if self.is_over:
            return
        self._attempt(adapter, sink, deltas, frames, upstream, translate)
        self._continued = continued
        self._goes_on = continued is not None
        keeps_start = frames is not None and not frames.whole  # nothing of a whole answer has been sent
        self._is_void = keeps_start and continued is None and self.state is not State.IDLE
        failure = self._failure
        if self.state is State.STREAMING and failure is not None:
            try:
                self._go_on_from(failure, continued)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def _go_on_from(self, failure: Error, continued: Literal["verified", "prefill"] | None) -> None:
        if continued is None:
            self._failed_rest = None
            self._emit({"type": "stream.reset", "reason": failure.reason or failure.code})
            self.awaits_first_event, self.delivered = True, False
            self._characters = 0
            if self._transcript is not None:
                self._transcript.forget()
        elif self._transcript is not None and continued == "verified":
            self._transcript.repeat(failure)
        elif self._transcript is not None:
            self._transcript.go_on()

    # -- the upstream's response --

    @property
    def dialect(self) -> str:
        """The dialect of the attempt's upstream."""
        return self._adapter.api.dialect

    @property
    def response_id(self) -> str:
        """The provider's own id of the attempt's answer; empty: it has none."""
        return self._adapter.identifier

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the attempt's response, lower-case names; none before they have come."""
        return self._body.headers

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Receives the status and the headers of the upstream's response.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
        """
        if self.is_over:
            return
        try:
            self._body.receive_head(status, headers)
        except Error as error:
            self.fail_attempt(error)

    def receive_data(self, data: bytes, now_ms: int | None = None) -> None:
        """Receives bytes of the body, cut anywhere.

        Args:
            data: The bytes.
            now_ms: Milliseconds since the epoch.
        """
        self._now_ms = now_ms or 0
        try:
            self._receive_data(data)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _receive_data(self, data: bytes) -> None:
        body = self._body
        if body.kind is _STREAM:  # most reads
            self._receive_frames(data)
            return
        if self.awaits_tail:
            self._copier.feed(data)
            self._receive_tail()
            return
        is_new = body.kind is _UNKNOWN
        try:
            frames = body.feed(data)
        except Error as error:
            self._fail_attempt(error)
            return
        if is_new and body.is_array:
            self._copier = DeltaCopier(ArrayFramer(), self._frames is not None)
            self._learning = None  # its frames are never copied
        if body.kind is _STREAM:
            self._receive_frames(frames)
        elif body.is_full:
            self._receive_eof(None, self._now_ms or None)

    def receive_eof(self, error: Error | None = None, now_ms: int | None = None) -> None:
        """Receives the end of the body.

        Args:
            error: The reason why it ended early; `None`: it is complete.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        if self._is_done_with or self.is_over:
            if self.awaits_tail:
                self._end_tail()
            return
        try:
            self._receive_eof(error, now_ms)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _receive_eof(self, error: Error | None, now_ms: int | None) -> None:
        body = self._body
        if body.kind is BodyKind.ERROR:
            self._fail_attempt(self._adapter.api.decode_error(body.status, body.headers, body.collected, now_ms))
            return
        if body.kind is BodyKind.WHOLE:
            self._receive_whole(error)
        elif body.kind is _STREAM:
            self._receive_rest()
        if not self._is_done_with:
            self._finish(error)

    # -- somebody who watches --

    def watch(self, watcher: EventSink | None) -> None:
        """Shows a watcher every event that the sink takes from now on. Meanwhile no delta is copied.

        Args:
            watcher: Must not raise; `None`: nobody watches any more.
        """
        self.settle()
        if self._unwatched is not None:
            self._sink, self._deltas = self._unwatched
            self._unwatched = None
            self._learning = self._new_learning()
        self._watcher = watcher
        if watcher is not None:
            self._show(watcher)

    def _show(self, watcher: EventSink) -> None:
        """Puts a watcher beside the sink of the attempt."""
        self._unwatched = self._sink, self._deltas
        self._sink, self._deltas, self._learning = _Watched(self._sink, watcher), None, None
        self._copier.forget()

    # -- the fast path --

    @property
    def copier(self) -> DeltaCopier | None:
        """The stream's copier, where the bytes that it copies may be sent as they are; `None`: not now."""
        is_open = self._body.kind is _STREAM and self.state is State.STREAMING and self._deltas is not None
        return self._copier if is_open and not self._halves and self._copier.copies else None

    def settle(self) -> None:
        """Counts the deltas that took the fast path; called before anything else happens to the stream."""
        try:
            count, kinds = self._copier.settle()
            if count and self._deltas is not None:
                self._deltas.append_frames(b"", count, self._note_copied(self._deltas, count, kinds))
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    # -- decisions of the gateway --

    def fail_attempt(self, error: Error) -> None:
        """Ends the attempt, and the stream with it unless `failed` promises another one."""
        try:
            self._fail_attempt(error)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _fail_attempt(self, error: Error) -> None:
        if not self._is_done_with and not self._is_tried_again(error):
            self._fail(self._blamed(error))

    def abandon(self) -> None:
        """Charges the attempt, which is given up while it is under way: the answer comes from another one."""
        if self.owes and self._bill is not None and self._prompt_characters is not None:
            self._bill.charge_failed(self._own_usage("partial"), self._adapter.own_cost)
        self.owes = False

    def give_up(self) -> None:
        """Ends the stream with the failure of the attempt before: no further attempt can be made."""
        if self._failure is not None:
            self.fail(self._failure)

    def _is_tried_again(self, error: Error) -> bool:
        self._name_phase(error)
        if self.failed is None or self.is_over or not self.failed(error):
            return False
        self._body.kind = BodyKind.IGNORED
        self._failure = self._kept(self._blamed(error))
        if self._transcript is not None and self._failed_rest is None and self.state is State.STREAMING:
            calls = [self._transcript.named(event) for event in self._adapter.abort()]
            self._failed_rest = calls, self._partial_usage()
        if self._bill is not None and self.has_content:
            self._bill.charge_failed(self._own_usage("partial"), self._adapter.own_cost)
        self.owes = False
        return True

    def _blamed(self, error: Error) -> Error:
        """Returns the failure to pass on: the first one, where a later attempt failed too."""
        return error if self._continued is None or self._failure is None else self._failure

    def _kept(self, error: Error) -> Error:
        """Returns the error as clients may see it, without its traceback: the frames there refer to the stream, which
        would not be freed before the garbage collector runs."""
        return (error if self._translate is None else self._translate(error, b"")).with_traceback(None)

    def _name_phase(self, error: Error) -> None:
        """Sets the phase of an error; `connect`, which only a connection can know, stays."""
        if error.phase != "connect":
            error.phase = "mid_stream" if self.delivered else "first_event"

    def fail(self, error: Error) -> None:
        """Ends the stream with `error`, after the calls that are complete."""
        if not self.is_over:
            try:
                self._fail(error)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def _fail(self, error: Error) -> None:
        self._body.kind = BodyKind.IGNORED
        if self.fault is None:
            try:
                usage = self._emit_complete_calls()
            except Error:  # the sink is full, and may have said so already: the stream ends with its first error
                usage = self._partial_usage()
            self._name_phase(error)
        else:  # the client may lack the start of a call; and an error of ours has no phase of an upstream's answer
            usage = self._partial_usage()
        self.error = error = self._kept(error)
        event: Event = {"type": "error", "error": error.payload()}
        if usage:
            event["usage"] = usage
        self._emit(event)
        self._emit(done(False))

    def cancel(self) -> None:
        """Ends the stream on request: `finish {cancelled}` with the usage so far."""
        if not self.is_over:
            try:
                self._cancel()
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def _cancel(self) -> None:
        self._body.kind = BodyKind.IGNORED
        self._emit_all(self._adapter.start(None, None))
        if self._failed_rest is not None:
            self._continued = None
        usage = self._emit_complete_calls()
        # With the provider's own word, if it has come: frames that were passed on have told clients of this end.
        finish = self._adapter.end("cancelled", self._adapter.word())
        if usage:
            finish["usage"] = usage
        self._emit(finish)
        self._emit(done(True))

    def break_off(self, problem: Exception) -> None:
        """Ends the stream after an exception: rule 7.

        Args:
            problem: The exception; an `Error` is passed on as it is.
        """
        if self.state is State.CLOSED:
            self.fault = self.fault or problem
            self.awaits_tail = False
            return
        if isinstance(problem, Untellable):
            self._cut_off()
            return
        try:
            if isinstance(problem, Error) and not self.is_over:
                self._fail(problem)
                return
        except Untellable:
            self._cut_off()
            return
        except Exception as worse:  # noqa: BLE001  # what tells an end properly is broken itself
            problem = worse
        self.fault = problem
        try:
            if not self.is_over:
                self._fail(_fault_error())
                return
        except Exception:  # noqa: BLE001  # as above: `_end_bare` does without it
            pass
        self._end_bare()

    def _cut_off(self) -> None:
        """Ends a stream whose end the sink has no word for."""
        self.state, self.is_cut = State.CLOSED, True

    def _end_bare(self) -> None:
        """Gives the sink the missing events of an end, past all other parts."""
        if not self.is_over:
            self.error = _fault_error()
            self.end = {"type": "error", "error": self.error.payload()}
        try:
            if not self.is_over:
                self._sink.event(self.end)
                self.others += 1
                self.state = State.FAILED
            self._sink.event(done(self.state is State.FINISHED))
            self.others += 1
        except Exception as worse:  # noqa: BLE001  # nobody is left who could tell the client
            self.fault = self.fault or worse
            self.error = self.error or _fault_error()
            self.is_cut = True
        self.state = State.CLOSED

    def _emit_complete_calls(self) -> dict[str, Any]:
        """Emits the complete calls of an incomplete answer; returns its usage."""
        transcript, self._transcript = self._transcript, None
        if self._failed_rest is not None:  # the attempt has brought nothing new: all is as the one before left it
            self._halves = {}
            calls, usage = self._failed_rest
            self._emit_all(calls)
            return usage
        self._flush_halves()
        if self.state is State.STREAMING:
            calls = self._adapter.abort()
            self._emit_all(calls if transcript is None else [transcript.named(event) for event in calls])
        return self._partial_usage()

    @property
    def due_ms(self) -> int | None:
        """The time at which `tick` must be called if nothing comes before, on the clock of `receive_data`."""
        return None if self._chain is None or self.state is not State.STREAMING else self._chain.due_ms

    def tick(self, now_ms: int) -> None:
        """Emits the events that processors held back until now."""
        if self._chain is not None and self.state is State.STREAMING:
            try:
                for made in self._chain.flush(now_ms):
                    self._tell(made)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    @property
    def has_told(self) -> bool:
        """Whether the sink has received a delta: processors hold some back, and leave some out."""
        if self._chain is None or self._chain.touches == "events":
            return self.deltas > 0
        return self._has_told

    @property
    def _is_done_with(self) -> bool:
        """Whether the rest of the attempt is ignored."""
        return self._body.kind is _IGNORED

    @property
    def is_over(self) -> bool:
        return self.state in (State.FINISHED, State.FAILED, State.CLOSED)

    # -- the body --

    def _receive_frames(self, data: bytes) -> None:
        copier, deltas = self._copier, self._deltas
        copier.feed(data)
        frames: list[Frame] | None = []
        oversized: str | None = None
        while frames is not None:
            try:
                frames = copier.next(0 if deltas is None else deltas.seq, self._now_ms)
            except ValueError as problem:
                # What came before in the same read counts, so that the cuts of the body change nothing.
                frames, oversized = getattr(problem, "before", []), str(problem)
            if deltas is not None and copier.copied:
                self._take_copied(deltas)
            if frames is not None:
                batch: list[Frame] = frames  # compiled code looks over a plain list without an iterator
                for at, frame in enumerate(batch):
                    self._receive_frame(frame)
                    if self._is_done_with:
                        if self._frames is not None:
                            self._begin_tail(self._frames, batch[at + 1 :])
                        return
            if oversized is not None:
                what = f"sent an event that is too large: {oversized}"
                self._fail_attempt(unavailable(self._adapter.api, "event_too_large", what))
                return

    def _take_copied(self, deltas: DeltaSink) -> None:
        """Passes on and counts the deltas that were copied since the last call, as if each had come as an event."""
        data, count, kinds = self._copier.take_copied()
        deltas.append_frames(data, count, self._note_copied(deltas, count, kinds))

    def _note_copied(self, deltas: DeltaSink, count: int, kinds: list[tuple[Event, int, str]]) -> int:
        """Accounts for copied deltas; returns the code points of their visible text."""
        visible = 0
        self.deltas += count
        self.has_content = self.delivered = True
        self._is_void = False
        self._malformed_run = 0
        for event, characters, text in kinds:
            self._characters += characters
            self._adapter.copied(event, characters, text)
            if deltas.collects_text:
                deltas.copied(event, text)
            if event["type"] == "text.delta" and "choice" not in event:
                visible += characters
        if self._adapter.kept_members:
            for name, text in self._copier.take_kept().items():
                self._adapter.kept(name, text)
        return visible

    def _receive_frame(self, frame: Frame, *, cut_off: bool = False) -> None:
        """Handles one frame; of one that is cut off only a whole chunk counts."""
        raw, name, data, stray = frame
        adapter = self._adapter
        try:
            if data is not None:
                events = adapter.receive(name, data)
            elif stray is not None:
                events = self._read_stray(stray)
            else:
                self._pass_on(raw)
                return
        except Error as error:
            if self._is_tried_again(error):
                return
            # The upstream's own bytes must not reveal what the translation hides from the client.
            if self._translate is None or self._translate(error, raw) is error:
                self._pass_on(raw, last=True)
            self._fail(self._blamed(error))
            return
        except WRONG_SHAPE as problem:
            if not cut_off:
                self._malformed(problem)
            return
        if self._on_malformed == "error" and _is_partly_read(events):
            self._malformed(Malformed(_PARTLY_READ))
            return
        if self._frames is not None and not self._only_repeats_start(events):
            self._frames.frame(raw, last=adapter.ended)
            if self._commits:
                self.delivered = True
        try:
            for event in events:
                self._emit(event)
        except _Unwritable as problem:
            self._malformed(problem)
            return
        if data is not None:
            self._malformed_run = 0
            if self._learning is not None:
                self._learning.receive(frame, events, joins=bool(self._halves), has_content=self.has_content)
        if adapter.ended:
            self._finish()

    def _only_repeats_start(self, events: list[Event]) -> bool:
        """Whether a frame only repeats the start of the attempt before: SDKs would join a second role to the first."""
        if self._is_void and self._frames is not None:
            # Before the start there is nothing that a part could be opened in.
            opens = not events and self._frames.opens_parts and self._adapter.started
            if opens or self._adapter.ended or any(event["type"] != "start" for event in events):
                self._is_void = False
        return self._is_void

    def _read_stray(self, stray: str) -> list[Event]:
        """Reads lines that are not SSE: some servers send their error so, with or without `error:` before it."""
        text = stray.removeprefix("error:").strip()
        failure = self._adapter.api.read_failure(parse_chunk(text)) if text.startswith(("{", "[")) else None
        if failure is not None:
            raise self._adapter.error(failure)
        return []

    def _pass_on(self, raw: bytes, *, last: bool = False) -> None:
        if self._frames is not None:
            self._frames.frame(raw, last=last)

    def _receive_rest(self) -> None:
        """Handles the bytes after the last blank line, completed: another attempt's frames may follow them."""
        copies_body = self._frames is not None and self._frames.copies_body
        for frame in self._copier.close():
            raw = frame.raw
            line = raw.rstrip(b"\r\n")
            if line and not copies_body:
                raw = b"" if _is_cut_off(line, frame.data) else line + b"\n\n"
            self._receive_frame(frame._replace(raw=raw), cut_off=True)

    def _begin_tail(self, sink: FrameSink, frames: Sequence[Frame]) -> None:
        """Goes on after the upstream's own end, where the sink takes the whole body.

        Args:
            sink: The sink.
            frames: The frames that the end's read brought after it, as far as they have been cut.
        """
        if sink.copies_body and self.state is State.CLOSED and not self.is_cut:
            self.awaits_tail = True
            self._copier.forget()
            self._pass_tail_on(frames)
            self._receive_tail()

    def _receive_tail(self) -> None:
        """Passes on the frames that were fed after the end."""
        frames: list[Frame] | None = []
        while frames is not None and self.awaits_tail:
            try:
                frames = self._copier.next(0, self._now_ms)
            except ValueError as problem:  # one that is too large, after which no other is cut
                frames, self.awaits_tail = getattr(problem, "before", []), False
            self._pass_tail_on(frames or ())

    def _end_tail(self) -> None:
        self.awaits_tail = False
        try:
            self._pass_tail_on(self._copier.close())
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _pass_tail_on(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if not self._is_hidden(frame):
                self._pass_on(frame.raw, last=True)

    def _is_hidden(self, frame: Frame) -> bool:
        """Whether a frame after the end holds an error that the translation hides from clients."""
        if self._translate is None or frame.data is None:
            return False
        try:
            failure = self._adapter.failure(parse_chunk(frame.data), frame.name)
        except WRONG_SHAPE:
            return False
        error = None if failure is None else self._adapter.error(failure)
        return error is not None and self._translate(error, frame.raw) is not error

    def _receive_whole(self, broke: Error | None) -> None:
        """Handles a whole JSON answer to a streamed request: the answer, or the error in it."""
        text = self._body.collected.decode("utf-8", "replace").removeprefix("\ufeff").strip()
        try:
            answer = parse_chunk(text)
            failure = self._adapter.api.read_failure(answer)
            if failure is not None:
                raise self._adapter.error(failure)
            events = self._adapter.receive_whole(answer, text)
            if self._on_malformed == "error" and _is_partly_read(events):
                raise Malformed(_PARTLY_READ)
        except Error as error:
            self._fail_attempt(error)
            return
        except WRONG_SHAPE as problem:
            if broke is None and _is_unfinished(text):
                broke = self._adapter.truncated()
            what = f"answered with JSON that is not an answer: {_worded(problem)}"
            self._fail_attempt(broke or unavailable(self._adapter.api, "malformed_chunk", what))
            return
        if self._frames is not None and self._frames.whole:
            self._frames.frame(self._body.collected, last=True)
        try:
            self._emit_all(events)
        except _Unwritable as problem:
            what = f"answered with JSON that is not an answer: {_worded(problem)}"
            self._fail_attempt(unavailable(self._adapter.api, "malformed_chunk", what))

    def _malformed(self, problem: Exception) -> None:
        self._malformed_run += 1
        if self._on_malformed == "error" or self._malformed_run >= LIMITS.malformed_chunks:
            what = f"sent what cannot be read: {_worded(problem)}"
            self._fail_attempt(unavailable(self._adapter.api, "malformed_chunk", what))
            return
        # A `start` that the adapter made for this chunk was lost with it.
        self._adapter.started = not self.awaits_first_event
        warning: Event = {"type": "warning", "reason": "malformed_chunk"}
        if self.awaits_first_event:
            if len(self._early_warnings) < LIMITS.early_warnings:
                self._early_warnings.append(warning)
        else:
            self._emit(warning)

    def _finish(self, broke: Error | None = None) -> None:
        """Emits the last events, or the error that they are missing: the end mark has come, or the body has ended."""
        try:
            events = self._adapter.finish()
        except Error as problem:
            self._fail_attempt(broke if broke is not None and problem.reason == "truncated" else problem)
            return
        self._body.kind = BodyKind.IGNORED
        if "usage" not in events[-1] and self._prompt_characters is not None:
            events[-1]["usage"] = self._estimated_usage(self._characters, "estimated")
        self._emit_all(events)
        self._emit(done(True))

    # -- out --

    def _emit_all(self, events: list[Event]) -> None:
        for event in events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        kind = event["type"]
        self.awaits_first_event = False
        step = _STEPS[self.state].get(kind)
        if step is None:
            if kind == "start" and self._continued is not None:
                return  # the client has the start of the answer that goes on
            raise IllegalTransition(self.state, kind)
        key = step.key
        if key is not None:
            text: str = event[key]  # type: ignore[literal-required]  # the key depends on the type
            if self._halves or not text.isascii():
                event, text = self._joined(event, key, text)
                if not text:
                    return
            self.has_content = True
            if self._transcript is not None:
                self._generated += len(text)
                new = self._transcript.take(event)
                if new is None:
                    return
                self._failed_rest = None
                event, text = new, new[key]  # type: ignore[literal-required]  # as above
            self.delivered = True
            self.deltas += 1
            self._characters += len(text)
        elif kind == "start":
            event = self._completed_start(event)
        elif self._halves and not step.is_aside:
            self._flush_halves()
        if key is None:
            is_content = step.is_content
            self.has_content = self.has_content or is_content
            media = characters_of_media(event) if step.is_media else 0
            if self._transcript is not None and not step.is_around:
                self._generated += media
                new = self._transcript.take(event)
                if new is None:
                    return
                self._failed_rest = None
                event = new
            self._characters += media
            self.delivered = self.delivered or is_content
            self.others += 1
            if step.is_end:
                self.end = event = self._billed(event)
                if kind == "finish" and self._continued is not None:
                    event["continued"] = self._continued
        if self._chain is None:
            self._write(event)
        else:
            for made in self._chain.process(event, self._now_ms):
                if made["type"] in ("finish", "error"):  # a processor may have counted the tokens
                    made = self._billed(made)
                    if "usage" in made:
                        self.end["usage"] = made["usage"]
                self._tell(made)
        self.state = step.state
        if kind == "start" and self._early_warnings:
            early, self._early_warnings = self._early_warnings, []
            self._emit_all(early)

    def _tell(self, made: Event) -> None:
        """Gives the sink an event that the processors made."""
        self._has_told = self._has_told or made["type"] in DELTAS
        self._write(made)

    def _write(self, event: Event) -> None:
        try:
            self._sink.event(event)
        except ValueError as problem:
            raise _Unwritable(str(problem)) from None

    def _completed_start(self, event: Event) -> Event:
        if self._stream_id:
            event["stream_id"] = self._stream_id
        if self._upstream:
            event["provider_metadata"] = {**event.get("provider_metadata", {}), "upstream": self._upstream}
        return event

    # Halves of a surrogate pair in two neighbouring deltas are one character; neighbours have the same
    # kind, choice and call, whatever else stands between them.

    def _joined(self, event: Event, key: str, text: str) -> tuple[Event, str]:
        """The delta and its text without halves; a high half at its end waits for the next one."""
        place = event["type"], event.get("choice"), event.get("index")
        half = self._halves.pop(place, None)
        if half is not None:
            text = half[key] + text  # type: ignore[literal-required]  # the key depends on the type
        elif not _SURROGATE.search(text):
            return event, text
        if _HIGH_HALF.search(text):
            self._halves[place] = {**event, key: text[-1]}  # type: ignore[misc]  # as above
            text = text[:-1]
            # The next delta must be joined to the half, so it must not be copied.
            self._copier.forget()
        text = join_surrogates(text)
        return {**event, key: text}, text  # type: ignore[misc]  # as above

    def _flush_halves(self) -> None:
        halves, self._halves = self._halves, {}
        for half in halves.values():
            self._emit({**half, DELTAS[half["type"]]: "\ufffd"})  # type: ignore[misc]  # as above

    def left(self) -> dict[str, Any] | None:
        """Returns the usage of a stream that ends without an event for that, as its client is gone; charges it.

        Without content an attempt is charged for its prompt, if it `owes`.
        """
        bill = self._bill
        usage: dict[str, Any] = {}
        if self.owes and self._prompt_characters is not None:
            usage = self._own_usage("partial")
            if bill is not None:
                bill.charge_last(usage, self._adapter.own_cost)
        return self._with_cost(usage) or None

    def _billed(self, event: Event) -> Event:
        """Charges the last attempt, and returns the end with the stream's cost in its usage.

        An upstream that fails before any content is not charged: it has sold nothing.
        """
        bill, usage = self._bill, event.get("usage")
        if bill is None or usage is None:
            return event
        if self.owes and (event["type"] == "finish" or self.has_content):
            source: str | None = usage.get("source")
            if source is not None and self._goes_on:  # an estimate counts the content of the attempt before, too
                bill.charge_last(self._own_usage(source), self._adapter.own_cost)
            else:
                bill.charge_last(usage, self._adapter.own_cost)
        event["usage"] = self._with_cost(usage)
        return event

    def _with_cost(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Returns usage with the cost of the stream so far, where that is known; never without tokens."""
        total = None if self._bill is None or not usage else self._bill.total()
        return usage if total is None else {**usage, "cost": cost_member(total[0], total[1])}

    def _own_usage(self, source: str) -> dict[str, Any]:
        """Returns the usage of the attempt alone, should it end now, for its charge."""
        characters = self._characters if self._transcript is None and not self._goes_on else self._generated
        return self._counted_or_estimated(characters, source)

    def _partial_usage(self) -> dict[str, Any]:
        """The usage up to an end that was not the provider's: its last count, or an estimate."""
        counted = self._adapter.usage
        if self._prompt_characters is None or (self.state is State.IDLE and not counted):
            return {**counted, "source": "partial"} if counted else {}
        return self._counted_or_estimated(self._characters, "partial")

    def _counted_or_estimated(self, characters: int, source: str) -> dict[str, Any]:
        counted: dict[str, Any] = dict(self._adapter.usage or {})
        # An early count is of the first tokens: Anthropic's `message_start` counts one or eight.
        usage = self._estimated_usage(characters, source)
        usage["input_tokens"] = counted.get("input_tokens", usage["input_tokens"])
        usage["output_tokens"] = max(counted.get("output_tokens", 0), usage["output_tokens"])
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
        return {**counted, **usage}

    def _estimated_usage(self, characters: int, source: str) -> dict[str, Any]:
        """Estimates by length."""
        into, out = estimated_tokens(self._prompt_characters or 0), estimated_tokens(characters)
        return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, "source": source}


def _fault_error() -> Error:
    return Error("internal", "the gateway failed while it handled this answer")


_PARTLY_READ: Final = "a part of it has another shape"


def _is_partly_read(events: list[Event]) -> bool:
    """Whether an adapter has left out a part of a chunk."""
    return any(event["type"] == "warning" for event in events)


def _worded(problem: Exception) -> str:
    """Describes the fault of a chunk, without quoting it."""
    # The exception that a chunk of another shape raises depends on the build.
    return str(problem) if isinstance(problem, Malformed) else "it has another shape"


def _is_unfinished(text: str) -> bool:
    """Whether a JSON text ends before its brackets are closed."""
    bare = _STRING.sub("", text)
    return bare.count("{") + bare.count("[") > bare.count("}") + bare.count("]")


def _is_cut_off(raw: bytes, data: str | None) -> bool:
    """Whether a body's last frame ends before it is whole; clients would fail at it.

    SDKs read the data of a frame that has any field but no data, an `event` that no `data` follows, as an empty text.
    """
    if data is None:
        return _FIELD.search(raw) is not None
    return not data.strip() or _is_unfinished(data)


_FIELD: Final = re.compile(rb"(?:^|[\r\n])[^:\r\n]")  # a line that is no comment
_STRING: Final = re.compile(r'"(?:[^"\\]+|\\.?)*+(?:"|\Z)', re.S)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_HIGH_HALF: Final = re.compile(r"[\ud800-\udbff]\Z")
