"""A log in the form that one follower sends: the log's own frames, or the same events in another form.

Owns the forms in which a log can be sent, and the events that a follower sends although they are not in the log: a gap,
and the end of a stream whose writer is gone. Sans-IO: it turns pieces of a log into bytes for one client.

1. The log's own form is sent unchanged: followers share the bytes.
2. For another form the follower has its own encoder. The encoder reads the log from the beginning, because its state
   depends on all events; bytes of events that the client has are dropped.
   A client of Responses that names the number of a frame gets those behind it.
3. For missing events, `stream.gap` is written if the form is `gai`. In any other form the follower must end with an
   error.
4. A client that is late gets fewer events: adjacent deltas of the text are joined (`from_seq` … `seq`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

import msgspec
from mypy_extensions import mypyc_attr

from gai_fast.formats import Format, Framing, KeptAnswer, StreamContext, StreamEncoder
from gai_fast.formats.responses.log import frames_after, last_number
from gai_fast.kernels import Piece, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.events import ENVELOPE_KEYS, NO_CONTENT, Event, JSONText
from gai_fast.net.attempts.spec import Output
from gai_fast.runtime.breathing import breathe
from gai_fast.stores import LogHeader
from gai_fast.stores._base import damaged, data_lines

Clock = Callable[[], int]
NATIVE: Final = "gai"


class Representation:
    """The representation of a stream (RFC 9110, 3.2) that a client gets.

    Args:
        format: The wire format.
        framing: `sse` or `ndjson`.
        envelope: `compact` or `full`. None for the framing's default.
        retry_ms: Milliseconds until the client reconnects, for the first frame. A log's own frames have them already.
        timestamps: Whether every event of the compact envelope has `ts`.
    """

    def __init__(
        self,
        format: Format,
        framing: Framing,
        envelope: Literal["compact", "full"] | None = None,
        retry_ms: int | None = None,
        timestamps: bool = False,
    ) -> None:
        self.format = format
        self.framing = framing
        self.envelope = envelope
        self.retry_ms = retry_ms
        self.timestamps = timestamps

    @property
    def is_compact(self) -> bool:
        """Whether only the first event has an envelope."""
        return _is_compact(self.framing, self.envelope)

    def is_of(self, header: LogHeader) -> bool:
        """Returns whether a log is in this form."""
        if self.format.name != header.format or self.framing != header.framing:
            return False
        return header.format != NATIVE or self.is_compact == _is_compact(self.framing, header.envelope)


def _is_compact(framing: Framing, envelope: Literal["compact", "full"] | None) -> bool:
    return (envelope or ("compact" if framing == "sse" else "full")) == "compact"


class View(Output, Protocol):
    """The output of one follower."""

    start: int
    """The number of the event after which the log is read."""
    number: int
    """The number of the last event that the client has: set before `heartbeat`."""

    def feed(self, piece: bytes) -> None:
        """Writes the next piece of the log: whole frames.

        Raises:
            Error: An event cannot be sent in this form. The events before it were written.
        """

    def feed_joined(self, pieces: Sequence[bytes]) -> None:
        """Writes the next pieces, for a client that is late: rule 4. Raises as `feed`."""

    def go_on_after(self, position: int, lost: int, text: str | None) -> bool:
        """Continues after events that the log no longer has.

        Args:
            position: The number of the last event before the lost ones.
            lost: The number of the last lost event.
            text: The stream's text up to `lost`. None if the log does not have it.

        Returns:
            Whether the form can report the loss. If not, nothing was written.
        """

    def event(self, event: Event) -> None:
        """Writes an event that is not in the log, without an `id:` line."""


def view_of(header: LogHeader, form: Representation, after: int, clock: Clock) -> View:
    """Returns the view of a log for one follower.

    Args:
        header: The header of the log.
        form: The form that the client requests.
        after: The number of the last event that the client has.
        clock: Milliseconds since the epoch.

    Raises:
        InvalidRequest: The log cannot be sent in this form (406).
    """
    if form.is_of(header):
        if after and not header.is_numbered:
            text = f"frames of format {header.format!r} in {header.framing} have no ids: ask for all of them"
            raise Error("invalid_request", text, reason="not_acceptable", status=406)
        return LogFrames(header, form, after, clock)
    if header.format != NATIVE or header.framing == "json" or form.format.copies_upstream:
        text = f"this stream is kept in format {header.format!r} as {header.framing}, and in no other form"
        raise Error("invalid_request", text, reason="not_acceptable", status=406)
    if form.format.rests:
        from gai_fast.net.logs.resting import RestingView  # it is a view of this module's

        return RestingView(header, form, after, clock)
    return Reencoded(header, form, after, clock)


@mypyc_attr(allow_interpreted_subclasses=True)
class LogFrames:
    """The view in the log's own form: frames are sent unchanged."""

    def __init__(self, header: LogHeader, form: Representation, after: int, clock: Clock) -> None:
        self.start = self.number = after
        self._header = header
        self._form = form
        self._clock = clock
        self._out: list[Piece] = []

    def feed(self, piece: bytes) -> None:
        """Writes the next piece of the log."""
        self._out.append(piece)

    def feed_joined(self, pieces: Sequence[bytes]) -> None:
        """Writes the next pieces, for a client that is late."""
        if self._header.format != NATIVE:
            self._out += pieces
            return
        end = b"\n\n" if self._form.framing == "sse" else b"\n"
        run: list[Event] = []
        last = b""
        for frame in b"".join(pieces).split(end)[:-1]:
            event = _joinable(frame)
            if event is None or not run:
                self._end_run(run, last)
                run = [] if event is None else [event]
                last = frame + end
                if event is None:
                    self._out.append(last)
            else:
                run.append(event)
        self._end_run(run, last)

    def _end_run(self, run: Sequence[Event], alone: bytes) -> None:
        """Writes adjacent deltas as one, or a lone delta as the log's own frame."""
        if len(run) == 1:
            self._out.append(alone)
        elif run:
            self._out.append(written(self._header, self._form, self._clock, joined(run), ids=True))

    def go_on_after(self, position: int, lost: int, text: str | None) -> bool:
        """Continues after events that the log no longer has."""
        if self._header.format != NATIVE:
            return False
        self._out.append(written(self._header, self._form, self._clock, gap_event(position, lost, text), ids=True))
        return True

    def event(self, event: Event) -> None:
        """Writes an event that is not in the log."""
        self._out.append(written(self._header, self._form, self._clock, event))

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        form = self._form
        self._out.append(keep_alive(form.format, form.framing, self.number if form.format.keepalives else 0))

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes since the last call."""
        taken, self._out = self._out, []
        return taken


class FramesAfter:
    """The frames that a client of Responses lacks. The client names the number of its last frame.

    Args:
        number: The `sequence_number`. -1 for all frames.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._last = -1

    def of_event(self, pieces: Sequence[Piece], event: Event) -> Sequence[Piece]:
        """Returns the frames of an event that the client lacks.

        Args:
            pieces: All frames of the event.
            event: The event.

        Raises:
            Error: The log ends before the frame that the client has.
        """
        kind = event["type"]
        data = b"".join(pieces)
        if kind != "done":
            self._last = last_number(data, self._last)
        if kind in _ENDS and self._last < self._number:
            text = "the log has not reached the event that this client has seen"
            raise Error("network", text, reason="log_behind")
        if kind == "done":
            return pieces
        if self._last <= self._number and kind != "error":  # a response that ends properly is never empty of its error
            return ()
        rest = frames_after(data, self._number)
        return (rest or data,)

    def numbered(self, event: Event) -> Event:
        """Returns an event that is not in the log with a number above that which the client has."""
        return {**event, "seq": max(event["seq"], self._number + 1)} if "seq" in event else event

    def skip(self, count: int) -> None:
        """Skips numbers that only a lost worker may have used.

        Args:
            count: How many.

        Raises:
            Error: The client has such a number.
        """
        if self._last < self._number <= self._last + count:
            raise lost_events()
        self._last += count


def lost_events() -> Error:
    """Returns the error for a client with events of a worker that is gone, which its form cannot void."""
    text = "this client has seen events that the log has lost: ask for all of it"
    return Error("network", text, reason="log_behind")


@mypyc_attr(allow_interpreted_subclasses=True)
class Reencoded:
    """The view of a log of format `gai` in another form.

    Every follower of a dialect gets equal bytes, whenever it follows: the time in them is from the log's first event.
    """

    def __init__(self, header: LogHeader, form: Representation, after: int, clock: Clock) -> None:
        self.start = 0
        self.behind: FramesAfter | None = None
        """Chooses the frames for a client that has named the last one that it has."""
        self.kept: KeptAnswer | None = None
        """Keeps the written answer; as `StreamContext.kept`."""
        self.is_unread = False
        """Whether no client gets the frames, only the last object: what is void leaves nothing in it."""
        self._echoed: Mapping[str, Any] | None = None
        self.number = self._after = after
        self._is_compact = form.is_compact
        self._header = header
        self._form = form
        self._clock = clock
        self._out: list[Piece] = []
        self._seq = 0
        self._has_content = False
        self._step_at = 0  # the number of the last `step.start`
        self._began: int | None = None  # milliseconds since the epoch
        self._started: StreamEncoder | None = None

    @property
    def _encoder(self) -> StreamEncoder:
        """The encoder. Its constructor reads the time, so it is made once the log's first event has set the time."""
        if self._started is None:
            clock = self._clock if self._form.format.name == NATIVE else self._time
            context = _context(self._header, self._form, clock, ids=True)
            context.retry_ms = None if self._after else self._form.retry_ms
            context.kept = self.kept
            if self._echoed is not None:
                context.repeat(self._echoed)
            self._started = self._form.format.encoder(self._form.framing, context)
        return self._started

    def _time(self) -> int:
        return self._clock() if self._began is None else self._began

    def feed(self, piece: bytes) -> None:
        """Writes the next piece of the log."""
        for data in data_lines(piece):
            self._encode(read_event(data))

    def feed_joined(self, pieces: Sequence[bytes]) -> None:
        """Writes the next pieces, for a client that is late."""
        if self.behind is not None:  # its first missing frame may be within a run of deltas
            for piece in pieces:
                self.feed(piece)
            return
        run: list[Event] = []
        for piece in pieces:
            for data in data_lines(piece):
                event = _joinable(data)
                if event is not None and event["seq"] > self._after:
                    run.append(event)
                    continue
                self._end_run(run)
                run = []
                self._encode(read_event(data))
        self._end_run(run)

    def _end_run(self, run: Sequence[Event]) -> None:
        """Writes adjacent deltas as one."""
        if run:
            self._encoder.append_frames(b"", len(run) - 1)  # an encoder may count events instead of reading `seq`
            self._encode(joined(run))

    def _encode(self, event: Event) -> None:
        """Writes an event, unless the client has it.

        Raises:
            Error: The form cannot express the event, or the client has events that are not in the log.
        """
        former = self._seq
        self._seq = seq = event.get("seq", former)
        if self._began is None:
            self._began = event.get("ts")
        if not former and self._form.format.name == self._header.dialect:
            self._echoed = _echo_in(event)
        if event["type"] in _OF_STREAM:
            if event["type"] == "stream.gap":
                self._go_on_at(event, former)
            elif event["type"] in _OF_STEP:
                self._note_step(event, seq)
            elif self._has_content and self._is_news(seq) and not self._form.format.can_reset:
                text = "the answer began again, which this format cannot express"
                raise Error("provider_unavailable", text, reason="reset")
            self._has_content = event["type"] != "stream.reset" and self._has_content
        elif not self._has_content:
            self._has_content = event["type"] not in NO_CONTENT
        if seq > 1 and self._is_compact:
            for key in ENVELOPE_KEYS:  # the log may have the full envelope
                if key != "ts" or not self._form.timestamps:
                    event.pop(key, None)  # type: ignore[misc]  # a key of an event
        self._encoder.event(event)
        pieces = self._encoder.take_pieces()
        if seq > self._after:
            self._out += pieces if self.behind is None else self.behind.of_event(pieces, event)

    def _is_news(self, seq: int) -> bool:
        """Returns whether a client gets an event with what it has of those before."""
        return seq > self._after and not self.is_unread

    def _note_step(self, event: Event, seq: int) -> None:
        """Notes where a step begins, or that it is void.

        Args:
            event: Its `step.start` or `step.reset`.
            seq: The event's number.

        Raises:
            Error: It is void, the client has some of it, and its form cannot say so.
        """
        if event["type"] == "step.start":
            self._step_at = seq
        elif self._is_news(seq) and seq > self._step_at + 1 and not self._form.format.can_reset_step:
            text = "a turn of the run began again, which this format cannot express"
            raise Error("network", text, reason="step_void")

    def _go_on_at(self, event: Event, former: int) -> None:
        """Prepares the gap with which a new owner of the stream goes on. Other forms than `gai` write nothing for it.

        Args:
            event: The gap.
            former: The number of the event before it.

        Raises:
            Error: The client has an event that is void, and its form cannot say so.
        """
        if self._form.format.name == NATIVE:
            event["text"] = _kept(event["text"]) if "text" in event else ""
        elif former >= event["from"] or event["from"] <= self._after < event["seq"]:
            raise lost_events()
        else:
            unused = event["seq"] - event["from"]
            if self.behind is not None:
                self.behind.skip(unused)
            self._encoder.append_frames(b"", unused)  # no client has seen these numbers

    def go_on_after(self, position: int, lost: int, text: str | None) -> bool:
        """Continues after events that the log no longer has."""
        is_gap = lost > self._after  # otherwise the client has the lost events, but the encoder may need them
        if self._form.format.repeats_answer or (is_gap and self._form.format.name != NATIVE):
            return False
        self._has_content = True
        if not self._seq:  # the encoder needs a `start`, which the log has lost
            self._encoder.event({"type": "start", "seq": lost, "model": self._header.model})
            self._encoder.take_pieces()
        if is_gap:
            self._encoder.event(gap_event(max(self._after, position), lost, text))
            self._out += self._encoder.take_pieces()
        self._seq = lost
        return True

    def event(self, event: Event) -> None:
        """Writes an event that is not in the log."""
        if self.behind is not None:
            event = self.behind.numbered(event)
        self._out.append(written(self._header, self._form, self._clock, event))

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        if self._started is None or not self._form.format.keepalives:
            self._out.append(keep_alive(self._form.format, self._form.framing))
            return
        self._started.heartbeat()
        self._out += self._started.take_pieces()

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes since the last call."""
        taken, self._out = self._out, []
        return taken


def _echo_in(event: Event) -> Mapping[str, Any] | None:
    """Returns what the first event of a log has for encoders of its dialect."""
    given: Any = event  # compiled, a member of an `Event` raises if its type is another one
    echo = given.get("echo")
    return echo if isinstance(echo, dict) else None


_ENDS: Final = frozenset({"error", "done"})
_OF_STEP: Final = frozenset({"step.start", "step.reset"})
_OF_STREAM: Final = _OF_STEP | {"stream.reset", "stream.gap"}
_JOINABLE: Final = frozenset({"type", "seq", "text", *ENVELOPE_KEYS})


def _joinable(frame: bytes) -> Event | None:
    """Returns the event in a frame, if it is a plain delta of the text. None if it is not."""
    if b'"type":"text.delta"' not in frame:
        return None
    event = read_event(frame[frame.index(b"{") :])
    return event if event["type"] == "text.delta" and event.keys() <= _JOINABLE else None


def pieces_in(header: LogHeader, form: Representation, clock: Clock, pieces: Sequence[bytes]) -> list[bytes]:
    """Returns the frames of a log of format `gai` in another form, for their last object; may work beside the loop.

    Args:
        header: The header of the log.
        form: The form.
        clock: As for `view_of`.
        pieces: The log's own, from its beginning.

    Raises:
        Error: `internal`, reason `log_damaged`: an event is none.
    """
    view = Reencoded(header, form, 0, clock)
    view.is_unread = True
    found: list[bytes] = []
    for piece in pieces:
        breathe()
        try:
            view.feed_joined([piece])
        except (ValueError, TypeError, KeyError):
            raise damaged() from None
        found.append(b"".join(view.take_pieces()))
    return found


def joined(run: Sequence[Event]) -> Event:
    """Returns one event for adjacent deltas of the text.

    Args:
        run: The deltas, at least one.
    """
    if len(run) == 1:
        return run[0]
    text = "".join(event.get("text", "") for event in run)
    return {"type": "text.delta", "seq": run[-1]["seq"], "text": text, "from_seq": run[0]["seq"]}


def gap_event(after: int, lost: int, text: str | None) -> Event:
    """Returns the event for a range of lost events.

    Args:
        after: The number of the last event that the client has.
        lost: The number of the last lost event.
        text: The stream's text up to `lost`. None if it is lost too.
    """
    event: Event = {"type": "stream.gap", "seq": lost, "from": after + 1, "to": lost}
    if text:
        event["text"] = text
    return event


def takeover_gap(number: int, after: int, text: str | None) -> Event:
    """Returns the event with which a new owner of a stream goes on.

    Args:
        number: Its number.
        after: The number of the last event that is stored.
        text: The stream's text up to there. None if it is lost.
    """
    event: Event = {"type": "stream.gap", "seq": number, "reason": "taken_over", "from": after + 1, "to": number}
    if text is not None:
        event["text"] = _kept(text)
    return event


def _kept(text: str) -> Any:
    """Returns a text that an encoder writes even if it is empty: it differs from a text that is lost."""
    return text or JSONText('""', "")


def written(header: LogHeader, form: Representation, clock: Clock, *events: Event, ids: bool = False) -> bytes:
    """Returns the bytes of successive events of a stream that has begun.

    Args:
        header: The header of the log.
        form: The client's form.
        clock: Milliseconds since the epoch.
        events: The events, each with its number unless it is `done`.
        ids: Whether the events get an `id:` line, if the form has them.
    """
    encoder = form.format.encoder(form.framing, _context(header, form, clock, ids=ids))
    if form.format.name == NATIVE and events[0].get("seq") != 1:  # the envelope is on a stream's first event only
        encoder.event({"type": "start", "seq": 1})
        encoder.take()
    for event in events:
        encoder.event(event)
    return encoder.take()


def with_retry(data: bytes, retry_ms: int) -> bytes:
    """Returns frames of SSE with a `retry:` line in the last one. Other bytes are returned unchanged.

    Some SDKs take a separate `retry:` line as an event, so the line is within the frame, after its `id:`.

    Args:
        data: Whole frames.
        retry_ms: Milliseconds.
    """
    at = data.rfind(b"\ndata: ") + 1  # a line end within a text is escaped
    return b"%bretry: %d\n%b" % (data[:at], retry_ms, data[at:]) if at else data


@lru_cache
def keep_alive(form: Format, framing: Framing, number: int = 0) -> bytes:
    """Returns a format's keep-alive between two frames.

    Args:
        form: The format.
        framing: The framing.
        number: The number of the last event, for keep-alives that have it.
    """
    encoder = form.encoder(framing, StreamContext("", "", None, "", lambda: 0))
    if number:
        encoder.append_frames(b"", number + 1)  # the first event is number 0
    encoder.heartbeat()
    return encoder.take()


def _context(header: LogHeader, form: Representation, clock: Clock, *, ids: bool) -> StreamContext:
    return StreamContext(
        header.stream_id,
        header.request_id,
        header.trace_id,
        header.model,
        clock,
        "compact" if form.is_compact else "full",
        timestamps=form.timestamps,
        ids=ids,
        usage=header.usage or form.format.name != header.dialect,
        follows=True,
    )


class _ToolCall(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    tool_call: _ToolCall


def read_event(data: bytes) -> Event:
    """Decodes an event of format `gai`, as the relay passes it to an encoder.

    Args:
        data: Its JSON.
    """
    event: Any = parse_exact(data.decode())
    if event["type"] == "tool.call":
        call = event["tool_call"]
        if not isinstance(call.get("input", ""), str):  # verbatim: `1.10` must not become `1.1`
            raw = bytes(msgspec.json.decode(data, type=_Call).tool_call.input)
            call["input"] = JSONText(raw.decode(), call["input"])
    return event  # type: ignore[no-any-return]  # an event by its home
