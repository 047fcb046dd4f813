"""One stream, sans-IO: an upstream's response in, legal `gai.events.v1` events out.

Owns the attempts of a stream, its one end, and the only place where an exception becomes an event. `core/answer.py`
reads one attempt's response, `legal_stream.py` has the order of events. Never awaits, opens nothing and reads no clock.
Must not know providers or client formats: it drives the parts that it gets.

Rules (docs/events.md, "Ends"):

1. `start` comes first, or an `error` without one.
2. Exactly one of `finish` and `error`, then `done`, then nothing. `done.finished` is true if `finish` was sent.
3. `finish` is held until the provider's end mark or the end of its body. `completed` is called for the chunks from the
   finish reason on: the caller may then limit the wait, and call `receive_eof`.
4. An end mark after nothing is `error {provider_unavailable, empty_answer}`. A body that ends without a finish reason
   is `error {network, truncated}`. A body that breaks after the finish reason is a `finish`.
5. An unreadable chunk that may have held text of the answer is a failure of the attempt. A chunk that surely held none
   is left out and becomes a `warning`, or is a failure too: `on_malformed` decides. The third in a row always fails.
   Data that only keeps the connection open is left out as a comment.
6. Before the relay passes on a failure of the upstream, it calls `failed`. If `failed` returns true, `begin` follows
   with another attempt. The content delivered so far is either void, which `stream.reset` announces, or the new attempt
   repeats it, which the transcript verifies. The client sees one stream.
7. Any exception of a part, in any call, ends the stream: an `Error` unchanged, any other as one `error {internal}`,
   then `done`. `failed` is not called, because the upstream has not failed. `fault` keeps the exception for the caller
   to log. If the sink cannot write that end either, `is_cut` is true, and the caller must not end the response
   properly. `is_cut` is also true, without a fault, if the sink's format cannot express an end (`Inexpressible`).
   A processor's `Stop` ends the stream as `stop` does; the upstream's error, if the processor raises at it, is void.
8. A sink that copies the body also gets the bytes after the upstream's own end, unread except for errors that
   `redact` hides. While `awaits_tail` is true, `receive_data` and `receive_eof` continue.
9. A `finish` waits for the processors that hold text. All that comes before it has gone through them, and `tick` emits
   it. Nothing more is read for the stream.
10. The stream of a worker that is gone goes on from what its log has (`resume`). Without processors that read deltas it
   goes on as after a failed attempt. With them a whole new answer runs through new processors, and the relay leaves out
   what the client has.
11. In a run (`ended`) the provider's end of a turn is no end of the stream. It is settled, and `ended` is called with
   it. Then `add` sends the run's own events, and `begin_turn` or `finish_run` follows. The turn's attempts relate to
   its own content alone; a stream that ends otherwise has the usage of all its turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, cast

from gai_fast.core.account import Account
from gai_fast.core.adapter import Adapter
from gai_fast.core.answer import Progress, UpstreamAnswer, is_partly_read, partly_read
from gai_fast.core.body import BodyKind
from gai_fast.core.json.chunks import WRONG_SHAPE, completed_frames, is_comment, mended
from gai_fast.core.legal_stream import LegalStream, State, Unwritable
from gai_fast.core.limits import LIMITS
from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Stop
from gai_fast.core.sinks import DeltaSink, EventSink, FrameSink, Inexpressible
from gai_fast.core.transcript import Repetition, Transcript
from gai_fast.kernels import Frame
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event, FinishReason

_CLOSED: Final = frozenset((State.CLOSED, State.TAIL, State.CUT))

# Constants: an enum attribute costs 75 ns on 3.11.
_STREAMING: Final[State] = State.STREAMING
_TURNED: Final[State] = State.TURNED
_AWAITED: Final[Progress] = Progress.AWAITED
_STREAM: Final[BodyKind] = BodyKind.STREAM
_IGNORED: Final[BodyKind] = BodyKind.IGNORED


class Relay(LegalStream):
    """One answer, relayed from its upstreams to one sink.

    Call `receive_head`, `receive_data` and `receive_eof` in this order; `stop` and `fail` at any moment. After the
    end every further call is ignored (but see rule 8). No call raises.

    Args:
        adapter: Reads the provider's chunks.
        sink: Receives the events.
        deltas: The sink, if it accepts already written deltas.
        frames: The sink, if it accepts the upstream's bytes unchanged.
        stream_id: For `start`, if the stream has an id.
        upstream: The configured name of the upstream, for `start`.
        on_malformed: `skip` leaves out unreadable chunks, `error` ends the stream.
        redact: Applied to an upstream's error and the bytes that report it, before either is passed on. Hides
            refusals of our own credentials.
        prompt_characters: Length of the request's text, for an estimate if the provider counts nothing. None for no
            estimate.
        chain: The stream's processors. `frames` is given only if the chain need not see those.
        failed: Asked about each failure of the upstream; `True`: `begin` will follow.
        transcript: Keeps the delivered content, for an attempt that goes on from it. It needs all events: no delta is
            copied, and there are no `frames`.
        account: What the attempt costs; the usage of the end then has the stream's `cost`. None if nothing is charged,
            or no attempt is under way.
    """

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
        redact: Callable[[Error, bytes], Error] | None = None,
        prompt_characters: int | None = None,
        chain: Chain | None = None,
        failed: Callable[[Error], bool] | None = None,
        transcript: Transcript | None = None,
        account: Account | None = None,
    ) -> None:
        super().__init__(stream_id, chain)
        self.failed = failed
        """Called with each failure of the upstream. Set to `None` at the end, to break a reference cycle."""
        self.completed: Callable[[], None] | None = None
        """Called for each chunk that comes when all choices have a finish reason: rule 3. As `failed`."""
        self._failure: Error | None = None
        self._announced: Event | None = None  # written behind the next `start`
        self.error: Error | None = None
        """The error that ended the stream, if there is one."""
        self.fault: Exception | None = None
        """The exception of a part, other than an `Error`, that ended the stream: a bug, to be logged."""
        deltas = self._copied_sink(deltas, transcript)
        answer = UpstreamAnswer(
            adapter,
            deltas=deltas,
            passes=frames is not None,
            on_malformed=on_malformed,
            redact=redact,
            prompt_characters=prompt_characters,
            transcript=transcript,
            account=account,
        )
        self._use(answer, sink, deltas, frames, upstream)

    def resume(self, said: Sequence[Event], failure: Error, announced: Event, *, may_prefill: bool) -> None:
        """Goes on with the stream of a worker that is gone; `begin` must follow. Nothing was received before.

        With processors the upstream's own text is not known. A whole answer runs through them, and what they send is
        compared: rule 10.

        Args:
            said: The events that its log has, in order. No end is among them.
            failure: The failure of the attempt that is gone.
            announced: Written behind the next `start`, if there is one.
            may_prefill: Whether the next attempt begins after the delivered text, if that is long enough.

        Raises:
            IllegalTransition: The events are none of a stream.
        """
        transcript = self._answer.transcript
        repetition = None if self._chain is None or transcript is None else Repetition(failure)
        for event in said:
            self._recall(event)
            if repetition is not None:
                repetition.recall(event)
        self._failure = failure
        self._announced = announced
        if repetition is None or transcript is None or transcript.is_lost or not self.delivered:
            return
        is_known = self._chain is not None and self._chain.touches == "events"
        if not (is_known and may_prefill and len(transcript.text or "") >= LIMITS.repeated_text):
            repetition.begin()
            self._repetition = repetition
            self.state = State.IDLE
            self._answer.characters = 0
            transcript.forget()

    def begin(
        self,
        adapter: Adapter,
        sink: EventSink,
        *,
        deltas: DeltaSink | None = None,
        frames: FrameSink | None = None,
        upstream: str | None = None,
        redact: Callable[[Error, bytes], Error] | None = None,
        account: Account | None = None,
        continued: Literal["verified", "prefill"] | None = None,
    ) -> None:
        """Begins another attempt after `failed` has returned true.

        Args:
            adapter: As for the class.
            sink: As for the class; it must continue the output of the previous sink.
            deltas: As for the class.
            frames: As for the class.
            upstream: As for the class.
            redact: As for the class.
            account: As for the class.
            continued: The relation to the delivered content. `verified`: the attempt repeats it first; `prefill`: the
                attempt begins after it. `None` if the delivered content is void.
        """
        if self.is_over:
            return
        deltas = self._copied_sink(deltas, self._answer.transcript)
        if self.has_content:
            self._announced = None
        answer = self._answer.next_attempt(
            adapter,
            deltas=deltas,
            passes=frames is not None,
            redact=redact,
            account=account,
            goes_on=continued is not None,
        )
        if continued is None and self._announced is not None:
            answer.early_warnings.append({**self._announced})
        self._use(answer, sink, deltas, frames, upstream)
        self._relate(continued)
        failure = self._failure
        if self.state is _STREAMING and failure is not None:
            try:
                self._go_on_from(failure, continued)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    # -- a run: rule 11 --

    def resume_run(self, said: Sequence[Event]) -> None:
        """Goes on with the run of a worker that is gone: its run adds events, and begins a turn. Arguments and
        exceptions as for `resume`.
        """
        for event in said:
            self._recall(event)
        if said:
            self.state = _TURNED
        self.delivered = False
        answer = self._answer
        answer.characters = 0
        if answer.transcript is not None:
            answer.transcript.forget()

    def open_run(self, events: Sequence[Event]) -> None:
        """Begins a run with the calls of an earlier one: no attempt has answered.

        Args:
            events: The `start`, and the calls.
        """
        if self.is_over:
            return
        try:
            for event in events:
                self._add(self._completed_start(event) if event["type"] == "start" else event)
            self.state = _TURNED
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def recall_turns(self, usages: Sequence[dict[str, Any]]) -> None:
        """Notes the usage of turns that were charged before; as `UpstreamAnswer.recall_turns`."""
        self._answer.recall_turns(usages)

    def add(self, event: Event) -> None:
        """Sends an event of the run, between turns or within one.

        Args:
            event: The event.
        """
        if not self.is_over:
            try:
                self._add(event)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def begin_turn(self, prompt_characters: int | None, failure: Error | None = None) -> None:
        """Begins another turn; `begin` must follow.

        Args:
            prompt_characters: As for the class.
            failure: Why a turn of which clients have events is void. None if they have none.
        """
        if self.is_over:
            return
        self._failure, self._announced = failure, None
        if failure is not None:
            self.state = _STREAMING
        self._is_void = self.delivered = False
        answer = self._answer
        answer.expect_turn(prompt_characters)
        self._turn_charges = 0 if answer.account is None else len(answer.account.bill.charges)

    def finish_run(self, finish: Event) -> None:
        """Ends the run well, behind a turn; with processors, as soon as they hold nothing more.

        Args:
            finish: The `finish`, whose usage is complete.
        """
        if self.is_over:
            return
        try:
            if self._chain is None:
                self._write_finish(finish)
            else:
                self._held_finish = finish
                self._emit_held_finish(self._chain)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def usage_here(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Returns the usage of a run without that of the turns of `recall_turns`, which was counted before."""
        return self._answer.usage_here(usage)

    def usage_of_turns(self) -> dict[str, Any]:
        """Returns the usage of all turns that have ended; as `UpstreamAnswer.usage_of_turns`."""
        return self._answer.usage_of_turns()

    # -- the upstream's response --

    def receive_head(self, status: int, headers: dict[str, str]) -> None:
        """Receives the status and the headers of the upstream's response.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
        """
        if self.is_over:
            return
        try:
            self._answer.body.receive_head(status, headers)
        except Error as error:
            self.fail_attempt(error)

    def receive_data(self, data: bytes, now_ms: int | None = None) -> None:
        """Receives bytes of the body, split anywhere.

        Args:
            data: The bytes.
            now_ms: Milliseconds since the epoch.
        """
        self._now_ms = cast(Any, now_ms) or 0
        try:
            self._receive_data(data)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def receive_chunk(self, data: str) -> None:
        """Receives one chunk of a streamed answer whose chunks come without framing, in place of `receive_data`.

        Args:
            data: The chunk's JSON.
        """
        body = self._answer.body
        if body.kind is BodyKind.UNKNOWN:
            body.kind = _STREAM
        if body.kind is _STREAM:
            try:
                # `Frame(…)` is interpreted: 300 ns more.
                self._receive_frame(tuple.__new__(Frame, (b"", "", data, None)))
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def receive_text(self, index: int | None, text: str) -> bool:
        """Receives a chunk that is one text and nothing else, in place of `receive_chunk`: without its JSON.

        Args:
            index: As `Adapter.receive_text`.
            text: As `Adapter.receive_text`.

        Returns:
            Whether it was received. If not, the chunk itself is needed.
        """
        answer = self._answer
        if answer.body.kind is not _STREAM:
            return False
        try:
            event = answer.receive_text(index, text)
            if event is None:
                return False
            self._emit(event)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)
        return True

    def _receive_data(self, data: bytes) -> None:
        answer = self._answer
        body = answer.body
        if body.kind is _STREAM:  # the usual case
            self._receive_frames(data)
            return
        if self.state is State.TAIL:
            answer.copier.feed(data)
            self._receive_tail()
            return
        try:
            frames = answer.receive(data)
        except Error as error:
            self._fail_attempt(error)
            return
        if body.kind is _STREAM:
            self._receive_frames(frames)
        elif body.is_full:
            self._receive_eof(None, self._now_ms or None)

    def receive_eof(self, error: Error | None = None, now_ms: int | None = None) -> None:
        """Receives the end of the body.

        Args:
            error: The reason for an early end. `None` if the body is complete.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        try:
            if not self._is_done_with and not self.is_over:
                self._receive_eof(error, now_ms)
            elif self.state is State.TAIL:
                self._end_tail()
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _receive_eof(self, error: Error | None, now_ms: int | None) -> None:
        kind = self._answer.body.kind
        if kind is BodyKind.ERROR:
            self._fail_attempt(self._answer.body.error(now_ms))
            return
        if kind is BodyKind.WHOLE:
            self._receive_whole(error)
        elif kind is _STREAM:
            self._receive_rest()
        if not self._is_done_with:
            self._finish(error)

    # -- the watcher --

    def watch(self, watcher: EventSink | None) -> None:
        """Passes every event that the sink gets to a watcher. While there is a watcher, no delta is copied.

        Args:
            watcher: The watcher; it must not raise. `None` if the stream is no longer watched.
        """
        self.settle()
        self._replace_watcher(watcher)

    # -- the fast path --

    def settle(self) -> None:
        """Counts the deltas of the fast path. Called before any other call for the stream."""
        try:
            self._settle_copied()
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    # -- decisions of the gateway --

    def fail_attempt(self, error: Error) -> None:
        """Ends the attempt. Ends the stream too, unless `failed` returns true."""
        try:
            self._fail_attempt(error)
        except Exception as problem:  # noqa: BLE001  # rule 7
            self.break_off(problem)

    def _fail_attempt(self, error: Error) -> None:
        if not self._is_done_with and not self._is_tried_again(error):
            self._fail(self._blamed(error))

    def give_up(self, error: Error) -> None:
        """Ends the stream with the failure of the attempt before, because there is no further attempt.

        Args:
            error: The failure if there was no attempt.
        """
        self.fail(self._failure or error)

    def _is_tried_again(self, error: Error) -> bool:
        self._name_phase(error)
        if self.failed is None or self.is_over or not self.failed(error):
            return False
        answer = self._answer
        answer.body.kind = _IGNORED
        self._failure = self._kept(self._blamed(error))
        self._keep_rest()
        answer.close_account(is_abandoned=False)
        return True

    def _blamed(self, error: Error) -> Error:
        """Returns the failure to pass on: if a later attempt failed too, the first failure."""
        return error if self._continued is None or self._failure is None else self._failure

    def fail(self, error: Error) -> None:
        """Ends the stream with `error`, after emitting the complete calls."""
        if not self.is_over:
            try:
                self._fail(error)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def _fail(self, error: Error) -> None:
        self._answer.body.kind = _IGNORED
        if self.fault is None:
            try:
                usage = self._emit_complete_calls()
            except Error:  # the sink may be full and have raised this already: the stream ends with its first error
                usage = self._partial_usage()
            self._name_phase(error)
        else:  # the client may lack the start of a call; an internal error has no phase
            usage = self._partial_usage()
        error = self._kept(error)
        if self._chain is not None:
            error = self._chain.told(error)
        self.error = error
        self._emit_end({"type": "error", "error": error.payload()}, usage)

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream properly before its upstream does: `finish` with the usage so far.

        Args:
            finish_reason: `cancelled` on request, `length` if a limit is used up.
            reason: The limit's name. `None` if the finish reason is sufficient.
        """
        if not self.is_over:
            try:
                self._stop(finish_reason, reason)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    def _stop(self, finish_reason: FinishReason, reason: str | None) -> None:
        self._answer.body.kind = _IGNORED
        self.error = None
        if self.state is not _TURNED:  # a run has had its start, and begins no step that it does not make
            self._emit_all(self._answer.adapter.start(None, None))
        if self._failed_rest is not None:
            self._continued = None
        usage = self._emit_complete_calls()
        # With the provider's own word, if it has come: the client has read it in a frame that was passed on.
        finish = self._answer.adapter.end(finish_reason, self._answer.adapter.word())
        if self.state is _TURNED:  # the provider's words are the end of a turn
            finish = {"type": "finish", "finish_reason": finish_reason}
        if reason is not None:
            finish["reason"] = reason
        self._emit_end(finish, usage)

    def break_off(self, problem: Exception) -> None:
        """Ends the stream after an exception: rule 7.

        Args:
            problem: The exception; an `Error` is passed on unchanged, a `Stop` is obeyed.
        """
        if self.state in _CLOSED:
            self.fault = self.fault or problem
            if self.state is State.TAIL:
                self.state = State.CLOSED
            return
        if isinstance(problem, Inexpressible):
            self.state = State.CUT
            return
        try:
            for _ in range(1 if self._chain is None else 1 + self._chain.size):
                if self.is_over:
                    break
                try:
                    if isinstance(problem, Stop):
                        self._stop(problem.finish_reason, problem.reason)
                        return
                    if isinstance(problem, Error):
                        self._fail(problem)
                        return
                except (Stop, Error) as other:  # what a processor held is decided at the end, and ends the stream too
                    problem = other
        except Inexpressible:
            self.state = State.CUT
            return
        except Exception as worse:  # noqa: BLE001  # the regular way to end has failed too
            problem = worse
        self.fault = problem
        try:
            if not self.is_over:
                self._fail(_fault_error())
                return
        except Exception:  # noqa: BLE001  # as above: the end is written past the part that failed
            pass
        error = _fault_error()
        if not self.is_over:
            self.error = error
        try:
            self._end_bare(error)
        except Exception:  # noqa: BLE001  # the client cannot be informed
            self.error = self.error or error
            self.state = State.CUT

    def tick(self, now_ms: int) -> None:
        """Emits the events that processors have held back until now."""
        if self._chain is not None and (self.state is _STREAMING or self.state is _TURNED):
            try:
                for processed in self._chain.flush(now_ms):
                    self._send_processed(processed)
                if self._held_finish is not None:
                    self._now_ms = cast(Any, now_ms)
                    self._emit_held_finish(self._chain)
            except Exception as problem:  # noqa: BLE001  # rule 7
                self.break_off(problem)

    # -- the body --

    def _receive_frames(self, data: bytes) -> None:
        answer, deltas = self._answer, self._deltas
        copier, body = answer.copier, answer.body
        copier.feed(data)
        frames: list[Frame] | None = []
        while frames is not None:
            frames = answer.next_frames(0 if deltas is None else deltas.seq, self._now_ms)
            if deltas is not None and copier.copied:
                self._take_copied(deltas)
            if frames is not None:
                batch: list[Frame] = frames  # compiled code iterates over a plain list without an iterator
                for at, frame in enumerate(batch):
                    self._receive_frame(frame)
                    if body.kind is _IGNORED:
                        if self._frames is not None:
                            self._begin_tail(self._frames, batch[at + 1 :])
                        return
            if answer.oversized:
                what = f"sent an event that is too large: {answer.oversized}"
                self._fail_attempt(answer.unavailable("event_too_large", what))
                return

    def _receive_frame(self, frame: Frame, *, cut_off: bool = False) -> None:
        """Handles one frame. If the frame is cut off, an unreadable chunk is ignored."""
        raw, name, data, stray = frame
        answer, adapter = self._answer, self._answer.adapter
        try:
            if data is not None:
                events = adapter.receive(name, data)
            elif stray is not None:
                events = answer.read_stray(stray)
            else:
                self._pass_on(raw)
                return
        except Error as error:
            if self._is_tried_again(error):
                return
            # The upstream's bytes must not reveal an error that the client must not see.
            if answer.client_error(error, raw) is error:
                self._pass_on(raw, last=True)
            self._fail(self._blamed(error))
            return
        except WRONG_SHAPE as problem:
            text = data if data is not None else stray or ""
            if frames := mended(frame):
                for each in frames:
                    if not self._is_done_with:
                        self._receive_frame(each, cut_off=cut_off)
            elif is_comment(text):
                if self._frames is not None and self._frames.copies_body:
                    self._pass_on(raw)
            elif not cut_off:
                self._malformed(problem, may_have_lost_text=answer.may_have_lost_text(text))
            return
        if answer.is_strict and is_partly_read(events):
            self._malformed(partly_read(), may_have_lost_text=False)
            return
        if self._frames is not None and not self._only_repeats_start(events):
            self._frames.frame(raw, adapter.ended)
            if self._commits:
                self.delivered = True
        try:
            for event in events:
                self._emit(event)
        except Unwritable as problem:
            self._malformed(problem, may_have_lost_text=any(event["type"] in DELTAS for event in events))
            return
        if data is not None:
            answer.note_read(frame, events)
        if adapter.ended:
            self._finish()
        elif adapter.is_complete and self.completed is not None:
            self.completed()

    def _receive_rest(self) -> None:
        """Handles the bytes after the last blank line."""
        frames = self._answer.copier.close()
        if self._frames is None or not self._frames.copies_body:
            frames = completed_frames(frames)
        for frame in frames:
            self._receive_frame(frame, cut_off=True)

    def _receive_whole(self, broke: Error | None) -> None:
        """Handles a complete JSON answer to a streamed request: the answer, or an error."""
        answer = self._answer
        try:
            events = answer.read_whole()
        except Error as error:
            self._fail_attempt(error)
            return
        except WRONG_SHAPE as problem:
            self._fail_attempt(broke or answer.error_of_whole(problem))
            return
        if self._frames is not None and self._frames.whole:
            self._frames.frame(answer.body.collected, True)
        try:
            self._emit_all(events)
        except Unwritable as problem:
            self._fail_attempt(answer.no_answer(problem))

    def _malformed(self, problem: Exception, *, may_have_lost_text: bool) -> None:
        answer = self._answer
        error = answer.refuse_malformed(problem, may_have_lost_text=may_have_lost_text)
        if error is not None:
            self._fail_attempt(error)
            return
        warning: Event = {"type": "warning", "reason": "malformed_chunk"}
        if not answer.holds_back(warning):
            self._emit(warning)

    def _finish(self, broke: Error | None = None) -> None:
        """Emits the last events after the end mark or the end of the body, or an error if they are missing."""
        answer = self._answer
        try:
            events = answer.finish()
        except Error as problem:
            self._fail_attempt(broke if broke is not None and problem.reason == "truncated" else problem)
            return
        answer.body.kind = _IGNORED
        if self._chain is not None:
            self._finish_processed(self._chain, events)
            return
        if self.ended is not None:
            self._finish_turn(events, self.ended)
            return
        self._emit_all(events)
        self._emit_done(is_finished=True)


def _fault_error() -> Error:
    return Error("internal", "the gateway failed while it handled this answer")
