"""One stream, sans-IO: an upstream's answer in, legal `gai.events.v1` events out.

Owns the legal order of a stream, its one end, and the only place where an exception becomes an event. Never awaits,
opens nothing, reads no clock; knows no provider and no wire format of a client: it drives the parts it is given.

Rules (CONTRACT §5 "Ends"):

1. `start` comes first, or an `error` without one.
2. Exactly one of `finish` and `error`, then `done`, then nothing. `done.finished` is true where `finish` was sent.
3. `finish` is held until the provider's end mark or the end of its body.
4. A body that ends before the provider said why is `error {network, truncated}`; one that breaks after is a `finish`.
5. A chunk that cannot be read is left out and told by a `warning`, or ends the stream, as `on_malformed` says; the
   third in a row always ends it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol

from gai_fast._impl import DeltaCopier, Frame, LineFramer, Part, SSEFramer
from gai_fast.errors import Error, GaiFastError, Malformed
from gai_fast.events import TYPES, Event, done, join_surrogates
from gai_fast.limits import LIMITS
from gai_fast.providers._base import Adapter, parse_chunk


class EventSink(Protocol):
    """Takes the events of a stream in order: a format's encoder, or a collector."""

    def event(self, event: Event) -> None:
        """Takes one event; the dict is the sink's to keep, not to change."""


class DeltaSink(EventSink, Protocol):
    """A sink that also takes deltas which are written already: most of a stream, without an event for each."""

    @property
    def seq(self) -> int:
        """The number of the last event; 0 where the sink numbers nothing."""

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """How a delta like this one is written, whatever its text; `None`: it must be handed over as an event.

        Args:
            event: A delta that was just taken.
            key: Which of its keys holds the text.
        """

    def append_frames(self, frames: bytes, count: int) -> None:
        """Takes deltas that are written already, as `delta_parts` said."""


class FrameSink(EventSink, Protocol):
    """A sink of the upstream's own dialect: it takes the upstream's bytes, and of the events what they leave out."""

    whole: bool
    """Whether the client asked for one JSON object, so that a whole answer is passed on as it is."""

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes one frame as it came.

        Args:
            raw: The bytes from the end of the frame before to the end of this one.
            last: This frame is the upstream's end mark, or tells its failure.
        """


# ---- the stream that the client sees ---------------------------------------------------------------------------------


class State(enum.Enum):
    """How far a stream is."""

    IDLE = "idle"
    STREAMING = "streaming"
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"


_CONTENT: Final = TYPES - {"start", "finish", "error", "done", "stream.reset", "stream.gap"}

TRANSITIONS: Final[Mapping[State, Mapping[str, State]]] = {
    State.IDLE: {"start": State.STREAMING, "error": State.FAILED},
    State.STREAMING: {
        **dict.fromkeys(_CONTENT, State.STREAMING),
        "finish": State.FINISHED,
        "error": State.FAILED,
    },
    State.FINISHED: {"done": State.CLOSED},
    State.FAILED: {"done": State.CLOSED},
    State.CLOSED: {},
}
"""`TRANSITIONS[state][event type]` is the next state; what is not here is illegal."""


class IllegalTransition(GaiFastError):
    """Our bug: an event that the state of its stream does not allow."""

    def __init__(self, state: State, kind: str) -> None:
        super().__init__(f"stream: {kind!r} is not allowed in state {state.value!r}")


# ---- the upstream's response -----------------------------------------------------------------------------------------


class _Body(enum.Enum):
    """What the body of the response is."""

    UNKNOWN = "unknown"  # no byte yet that tells
    STREAM = "stream"
    WHOLE = "whole"  # one JSON document
    ERROR = "error"  # of a status ≥ 400
    IGNORED = "ignored"  # nothing that follows counts


_STREAM_TYPES: Final = frozenset(
    {"", "text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"}
)
_DELTAS: Final = {
    "text.delta": "text",
    "reasoning.delta": "text",
    "refusal.delta": "text",
    "tool.call.delta": "arguments",
}
# What may stand between two deltas without parting them.
_ASIDES: Final = frozenset({"usage", "warning"})
_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"

# What an adapter's code meets in a chunk whose members have other types than the API promises.
_WRONG_SHAPE: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)


class Relay:
    """One answer of one upstream, relayed to one sink.

    Feed it `receive_head`, `receive_data` and `receive_eof` in this order; `cancel` and `fail` may come at any moment.
    After the first end every further call is ignored.

    Args:
        adapter: Reads the provider's chunks.
        sink: Takes the events.
        deltas: The same sink, where it takes deltas that are written already.
        frames: The same sink, where it takes the upstream's bytes as they are.
        stream_id: Told in `start`, where the stream has one.
        upstream: The configured name of the upstream, told in `start`.
        on_malformed: `skip` leaves out what cannot be read, `error` ends the stream.
        translate: Applied to an upstream's error before it is told (CONTRACT §6 on our own credentials).
        prompt_characters: Length of the request's text, for an estimate where nobody counted; `None`: no estimate.
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
        translate: Callable[[Error], Error] | None = None,
        prompt_characters: int | None = None,
    ) -> None:
        self._adapter = adapter
        self._sink = sink
        self._deltas = deltas
        self._frames = frames
        self._stream_id = stream_id
        self._upstream = upstream
        self._on_malformed = on_malformed
        self._translate = translate
        self._prompt_characters = prompt_characters

        self.state = State.IDLE
        self.error: Error | None = None
        """What the stream failed with, once it has."""
        self.delivered = False
        """Whether a delta has been passed on: from here on nothing is retried."""

        self._body = _Body.UNKNOWN
        self._status = 200
        self._headers: Mapping[str, str] = {}
        self._buffer = bytearray()
        self._copier = DeltaCopier(SSEFramer() if adapter.api.framing == "sse" else LineFramer(), frames is not None)
        self._malformed_run = 0
        self._early_warnings: list[Event] = []
        self._halves: dict[tuple[object, ...], Event] = {}
        self._characters = 0

    # -- what the upstream sends --

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The status and the headers of the upstream's response.

        Args:
            status: The HTTP status.
            headers: Lower-case names.
        """
        self._status, self._headers = status, headers
        if self.is_over:
            return
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if status >= 400:
            self._body = _Body.ERROR
        elif status >= 300:
            self.fail(self._unavailable("redirect", f"answered with a redirect ({status}), which is not followed"))
        elif content_type not in _STREAM_TYPES and not content_type.endswith("+json"):
            self.fail(
                self._unavailable("content_type", "answered with a content type that is neither a stream nor JSON")
            )

    def receive_data(self, data: bytes, now_ms: int | None = None) -> None:
        """Bytes of the body, cut anywhere.

        Args:
            data: The bytes.
            now_ms: Milliseconds since the epoch.
        """
        if self._body is _Body.UNKNOWN:
            data = self._recognise(data)
        if self._body is _Body.STREAM:
            self._receive_frames(data, now_ms or 0)
        elif self._body is _Body.ERROR:
            self._buffer += data[: LIMITS.error_body - len(self._buffer)]
            if len(self._buffer) == LIMITS.error_body:
                self.receive_eof(None, now_ms)
        elif self._body is _Body.WHOLE:
            self._buffer += data
            if len(self._buffer) > LIMITS.whole_answer:
                self.fail(self._unavailable("answer_too_large", f"sent more than {LIMITS.whole_answer} bytes of JSON"))

    def receive_eof(self, error: Error | None = None, now_ms: int | None = None) -> None:
        """The end of the body.

        Args:
            error: Why it ended early; `None`: it is complete.
            now_ms: Milliseconds since the epoch, for a `Retry-After` date.
        """
        if self.is_over:
            return
        if self._body is _Body.ERROR:
            api = self._adapter.api
            self.fail(api.decode_error(self._status, self._headers, bytes(self._buffer), now_ms))
            return
        if self._body is _Body.WHOLE:
            self._receive_whole(error)
        elif self._body is _Body.STREAM:
            self._receive_rest()
        if not self.is_over:
            self._finish(error)

    # -- what the gateway decides --

    def fail(self, error: Error) -> None:
        """Ends the stream with `error`; calls that are complete are told before."""
        if self.is_over:
            return
        self._body = _Body.IGNORED
        self._flush_halves()
        if error.phase is None or (error.phase == "first_event" and self.delivered):
            error.phase = "mid_stream" if self.delivered else "first_event"
        error = error if self._translate is None else self._translate(error)
        if self.state is State.STREAMING:
            self._emit_all(self._adapter.abort())
        self.error = error
        event: Event = {"type": "error", "error": error.payload()}
        usage = self._partial_usage()
        if usage:
            event["usage"] = usage
        self._emit(event)
        self._emit(done(False))

    def cancel(self) -> None:
        """Ends the stream because its caller asked for that: `finish {cancelled}` with what was used so far."""
        if self.is_over:
            return
        self._body = _Body.IGNORED
        self._emit_all(self._adapter.start(None, None))
        self._emit_all(self._adapter.abort())
        finish = self._adapter.end("cancelled", None)
        usage = self._partial_usage()
        if usage:
            finish["usage"] = usage
        self._emit(finish)
        self._emit(done(True))

    @property
    def is_over(self) -> bool:
        return self.state in (State.FINISHED, State.FAILED, State.CLOSED)

    # -- the body --

    def _recognise(self, data: bytes) -> bytes:
        """Decides from the first byte that is no blank what the body is; returns the bytes to read."""
        self._buffer += data
        # Beyond a byte order mark, which may be cut, all that came before was blank.
        head = bytes(self._buffer).removeprefix(_BOM) if len(self._buffer) <= len(data) + len(_BOM) else data
        seen = head.lstrip(_BLANK)
        if not seen or _BOM.startswith(seen):
            if len(self._buffer) > LIMITS.event:
                self.fail(self._unavailable("event_too_large", f"sent more than {LIMITS.event} bytes without an event"))
            return b""
        first, everything = seen[:1], bytes(self._buffer)
        self._buffer.clear()
        if first == b"<":
            self.fail(self._unavailable("content_type", "answered with HTML or XML instead of a stream"))
        elif first in b"{[" and self._adapter.api.framing == "sse":
            self._body = _Body.WHOLE
        else:
            self._body = _Body.STREAM
        return everything

    def _receive_frames(self, data: bytes, now_ms: int) -> None:
        self._copier.feed(data)
        frames: list[Frame] | None = []
        oversized: ValueError | None = None
        while frames is not None:
            try:
                frames = self._copier.next(0 if self._deltas is None else self._deltas.seq, now_ms)
            except ValueError as problem:
                # What came before in the same read counts, so that the cuts of the body change nothing.
                frames, oversized = getattr(problem, "before", []), problem
            self._take_copied()
            for frame in frames or ():
                self._receive_frame(frame)
                if self.is_over:
                    return
            if oversized is not None:
                self.fail(self._unavailable("event_too_large", f"sent an event that is too large: {oversized}"))
                return

    def _take_copied(self) -> None:
        """Accounts for the deltas that were copied since the last look, as if each had come as an event."""
        data, count, kinds = self._copier.take_copied()
        if not count or self._deltas is None:
            return
        self._deltas.append_frames(data, count)
        self._malformed_run = 0
        for event, characters, text in kinds:
            self._characters += characters
            self._adapter.copied(event, characters, text)
        if self._adapter.kept_members:
            for name, text in self._copier.take_kept().items():
                self._adapter.kept(name, text)

    def _learn(self, frame: Frame, events: list[Event]) -> None:
        """Shows the copier a frame that became one delta; anything else may have changed what such frames become."""
        adapter = self._adapter
        if self._deltas is None or not adapter.text_members:
            return
        key = _DELTAS.get(events[0]["type"]) if len(events) == 1 else None
        if not adapter.copyable or (events and key is None):
            self._copier.forget()
        elif key is not None and not self._halves and self._copier.learns:
            parts = self._deltas.delta_parts(events[0], key)
            if parts is not None:
                self._copier.learn(
                    frame, events[0], key, adapter.text_members, adapter.ignored_members, parts, adapter.kept_members
                )

    def _receive_frame(self, frame: Frame, *, cut_off: bool = False) -> None:
        """One frame; of one that is cut off only a chunk that is whole counts."""
        if frame.data is None and frame.stray is None:
            self._pass_on(frame.raw)
            return
        try:
            events = self._read(frame)
        except Error as error:
            # The upstream's own bytes must not say what the translation keeps from the client.
            if self._translate is None or self._translate(error) is error:
                self._pass_on(frame.raw, last=True)
            self.fail(error)
            return
        except _WRONG_SHAPE as problem:
            if not cut_off:
                self._malformed(problem)
            return
        self._pass_on(frame.raw, last=self._adapter.ended)
        try:
            self._emit_all(events)
        except ValueError as problem:  # no sink can write it: a number beyond all floats, JSON nested too deep
            self._malformed(problem)
            return
        if frame.data is not None:
            self._malformed_run = 0
            self._learn(frame, events)
        if self._adapter.ended:
            self._finish()

    def _read(self, frame: Frame) -> list[Event]:
        if frame.data is not None:
            return self._adapter.receive(frame.name, frame.data)
        # Lines that are no SSE: some servers send their error so, with or without `error:` before it.
        text = (frame.stray or "").removeprefix("error:").strip()
        said = self._adapter.api.said(parse_chunk(text)) if text.startswith(("{", "[")) else None
        if said is not None:
            raise self._adapter.error(said)
        return []

    def _pass_on(self, raw: bytes, *, last: bool = False) -> None:
        if self._frames is not None:
            self._frames.frame(raw, last=last)

    def _receive_rest(self) -> None:
        """What came after the last blank line."""
        for frame in self._copier.close():
            whole = frame.raw if frame.data is None else frame.raw.rstrip(b"\r\n") + b"\n\n"
            self._receive_frame(frame._replace(raw=whole), cut_off=True)

    def _receive_whole(self, broke: Error | None) -> None:
        """A whole JSON answer to a streamed request: that answer, or the error it tells."""
        text = bytes(self._buffer).decode("utf-8", "replace").removeprefix("\ufeff").strip()
        try:
            answer = parse_chunk(text)
            said = self._adapter.api.said(answer)
            if said is not None:
                self.fail(self._adapter.error(said))
                return
            events = self._adapter.receive_whole(answer, text)
            if self._frames is not None and self._frames.whole:
                self._frames.frame(bytes(self._buffer), last=True)
            self._emit_all(events)
        except Error as error:
            self.fail(error)
        except _WRONG_SHAPE as problem:
            if broke is None and _is_unfinished(text):
                broke = self._adapter.truncated()
            what = f"answered with JSON that is not an answer: {_worded(problem)}"
            self.fail(broke or self._unavailable("malformed_chunk", what))

    def _malformed(self, problem: Exception) -> None:
        self._malformed_run += 1
        if self._on_malformed == "error" or self._malformed_run >= LIMITS.malformed_chunks:
            self.fail(self._unavailable("malformed_chunk", f"sent what cannot be read: {_worded(problem)}"))
            return
        # A `start` that the adapter made for this chunk was lost with it.
        self._adapter.started = self.state is not State.IDLE
        warning: Event = {"type": "warning", "reason": "malformed_chunk"}
        if self.state is State.IDLE:
            self._early_warnings.append(warning)
        else:
            self._emit(warning)

    def _finish(self, broke: Error | None = None) -> None:
        """The provider has said all, or its body has ended: its last events, or the error that they are missing."""
        try:
            events = self._adapter.finish()
        except Error as problem:
            self.fail(broke if broke is not None and problem.reason == "truncated" else problem)
            return
        self._body = _Body.IGNORED
        if "usage" not in events[-1] and self._prompt_characters is not None:
            events[-1]["usage"] = self._estimated_usage("estimated")
        self._emit_all(events)
        self._emit(done(True))

    # -- out --

    def _emit_all(self, events: list[Event]) -> None:
        for event in events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        kind = event["type"]
        state = TRANSITIONS[self.state].get(kind)
        if state is None:
            raise IllegalTransition(self.state, kind)
        key = _DELTAS.get(kind)
        if key is not None:
            text: str = event[key]  # type: ignore[literal-required]  # the key depends on the type
            if self._halves or not text.isascii():
                event, text = self._joined(event, key, text)
                if not text:
                    return
            self.delivered = True
            self._characters += len(text)
        elif kind == "start":
            event = self._completed_start(event)
        elif kind not in _ASIDES:
            self.delivered = self.delivered or kind == "audio.delta"
            self._flush_halves()
        self._sink.event(event)
        self.state = state
        if kind == "start" and self._early_warnings:
            early, self._early_warnings = self._early_warnings, []
            self._emit_all(early)

    def _completed_start(self, event: Event) -> Event:
        if self._stream_id:
            event["stream_id"] = self._stream_id
        if self._upstream:
            event["provider_metadata"] = {**event.get("provider_metadata", {}), "upstream": self._upstream}
        return event

    # Halves of a surrogate pair in two neighbouring deltas are one character (CONTRACT §5 "Bytes"); neighbours are of
    # one kind, choice and call, whatever else stands between them.

    def _joined(self, event: Event, key: str, text: str) -> tuple[Event, str]:
        """The delta and its text without halves; a high half at its end waits for the next one."""
        place = event["type"], event.get("choice"), event.get("index")
        half = self._halves.pop(place, None)
        if half is not None:
            text = half[key] + text  # type: ignore[literal-required]  # the key depends on the type
        elif not _SURROGATE.search(text):
            return event, text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[place] = {**event, key: text[-1]}  # type: ignore[misc]  # as above
            text = text[:-1]
            # What follows must meet the half, so it must not be copied.
            self._copier.forget()
        text = join_surrogates(text)
        return {**event, key: text}, text  # type: ignore[misc]  # as above

    def _flush_halves(self) -> None:
        halves, self._halves = self._halves, {}
        for half in halves.values():
            self._emit({**half, _DELTAS[half["type"]]: "\ufffd"})  # type: ignore[misc]  # as above

    def _partial_usage(self) -> dict[str, object]:
        """What was used up to an end that was not the provider's: its own last word, or an estimate."""
        if self._adapter.usage:
            return {**self._adapter.usage, "source": "partial"}
        if self._prompt_characters is None or self.state is State.IDLE:
            return {}
        return self._estimated_usage("partial")

    def _estimated_usage(self, source: Literal["estimated", "partial"]) -> dict[str, object]:
        """By length: about four characters are a token, the rule of thumb of OpenAI's own documentation."""
        into, out = -(-(self._prompt_characters or 0) // 4), -(-self._characters // 4)
        return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, "source": source}

    def _unavailable(self, reason: str, what: str) -> Error:
        provider = self._adapter.api.provider
        return Error("provider_unavailable", f"{provider} {what}", reason=reason, provider=provider)


def _worded(problem: Exception) -> str:
    """What is wrong with a chunk, without quoting it."""
    return str(problem) if isinstance(problem, Malformed) else f"it has another shape ({type(problem).__name__})"


def _is_unfinished(text: str) -> bool:
    """Whether a JSON text ends before its brackets are closed."""
    bare = _STRING.sub("", text)
    return bare.count("{") + bare.count("[") > bare.count("}") + bare.count("]")


_STRING: Final = re.compile(r'"(?:[^"\\]+|\\.?)*+(?:"|\Z)', re.S)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
