"""OpenAI's Responses stream: writes events as the dialect's events.

A frame is `event: <type>` and `data: {"type":<type>,"sequence_number":<n>,…}`. `output.py` builds items and their
parts. Reasoning is the summary of its item, which all clients show. Choices beyond the first are left out.

| event | Responses |
|---|---|
| `start` | `response.created` and `response.in_progress` |
| `text.delta` | `response.output_text.delta` |
| `refusal.delta` | `response.refusal.delta` |
| `reasoning.delta` | `response.reasoning_summary_text.delta` |
| `reasoning.signature` | `encrypted_content` of a `reasoning` item |
| `tool.call.start` `tool.call.delta` `tool.call` | a `function_call` and its arguments; the gateway's: an `mcp_call` |
| `tool.result` | the `output` or `error` of the gateway's call; else a separate item |
| `server_tool` `image` | separate items |
| `citations` | annotations of the text |
| `audio.delta` | `response.audio.delta` |
| `provider.block` | its item if it is a `compaction`; other items are those of `server_tool` |
| `approval.required` | an `mcp_approval_request` item |
| `step.start` | the end of the open message: each turn has its own |
| `approval.decided` | none: `approval_request_id` of the `mcp_call`, if an earlier response has asked |
| `safety` `step.end` `json.snapshot` `tool.progress` | none |
| `step.reset` | the last `response` lacks the items of the turn. No client has any |
| `usage` | `usage` of the last `response`, if `finish` has no usage |
| `warning` | `x_gai.warnings` of the last `response` |
| `stream.reset` | none: the last `response` lacks all items before it. No client has any |
| `stream.gap` | none: a follower that lacks events is sent an error |
| `finish` | the ends of all open items, then `response.completed` or `response.incomplete` |
| `error` | `error`, then `response.failed`, unless what is kept of the response cannot be read |
| `done` | none: there is no `[DONE]` |

`sequence_number` counts a stream's frames from 0, without gaps. The `id:` of an event is the number of its last frame,
unless a log has numbered the events (`StreamContext.follows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from gai_fast.formats._base import Framing, KeptAnswer, StreamContext
from gai_fast.formats._openai import note_warning
from gai_fast.formats._passthrough import DialectEncoder
from gai_fast.formats.responses.output import ItemPlace, ResponsesOutput
from gai_fast.formats.responses.parts import (
    ResponseObject,
    custom_tools,
    error_members,
    failure_of,
    ids_of,
    namespaced,
    outcome_of,
)
from gai_fast.kernels import Part, Piece, encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event

NO_USAGE: Final[Mapping[str, Any]] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


class ResponseEvents(DialectEncoder):
    """Events → the dialect's frames."""

    def __init__(self, framing: Framing, context: StreamContext, *, keepalives: bool = False) -> None:
        super().__init__(framing, context)
        self.has_blocks = True
        self.collects_text = True
        self._context = context
        self._keepalives = keepalives and self._sse
        self._follows = context.follows
        self._response = ResponseObject(context)
        self._started = False
        self._error_sent = False
        self._number = -1
        self._has_audio = False
        self._usage: Mapping[str, Any] | None = None
        self._warnings: list[dict[str, Any]] = []
        self._output = self._new_output()

    def _new_output(self) -> ResponsesOutput:
        echo = self._context.echo
        return ResponsesOutput(self._context.stream_id, custom_tools(echo), self._emit, namespaced(echo))

    # -- deltas --

    def event(self, event: Event) -> None:
        """Writes the frames of one event."""
        self._frame_at = -1
        self._encode(event)
        if event["type"] != "done":
            self._seq = event.get("seq", self._number) if self._follows else self._number
            if self._ids:
                self._stamp()

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one, or None before its place is open."""
        place = None if "choice" in event or "logprobs" in event else self._output.place(event)
        if place is None or (self._ids and self._retry_ms is not None):
            return None
        head, middle, tail = self._around(place)
        if self._ids:
            return b"id: %b." % self._ids, "seq", b"\n" + head, "seq", middle + b'"', "text", b'"' + tail
        return head, "seq", middle + b'"', "text", b'"' + tail

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Appends frames of deltas that the kernel has encoded, one frame per delta."""
        self._out.append(frames)
        self._number += count
        self._seq = self._number

    def copied(self, event: Event, text: str) -> None:
        """Stores the text of deltas that the kernel has encoded."""
        place = self._output.place(event)
        if place is not None:
            self._output.add(place, text)

    def _around(self, place: ItemPlace) -> tuple[bytes, bytes, bytes]:
        """Returns the frame of a delta in three pieces: up to its number, up to its text, and the rest."""
        if place.around is not None:
            return place.around
        kind = place.delta.encode()
        lead = b"event: %b\n" % kind if self._sse else b""
        members, after = encode_json(place.members)[1:-1], encode_json(place.after)[1:-1]
        place.around = (
            b'%b%b{"type":"%b","sequence_number":' % (lead, self._lead, kind),
            b',%b,"delta":' % members,
            (b"," + after if after else b"") + b"}" + self._trail,
        )
        return place.around

    def heartbeat(self) -> None:
        """Writes a keep-alive: OpenAI's own event, which has the last event's number and takes none, or a comment."""
        if not self._keepalives:
            super().heartbeat()
            return
        number = max(self._number, 0)
        self._out.append(b'event: keepalive\ndata: {"type":"keepalive","sequence_number":%d}\n\n' % number)

    # -- frames --

    def _emit(self, kind: str, members: dict[str, Any]) -> None:
        """Writes a frame."""
        data = encode_json({"type": kind, "sequence_number": self._number + 1, **members})
        self._number += 1  # after `encode_json`, which may fail: numbers have no gaps
        name = b"event: %b\n" % kind.encode() if self._sse else b""
        self._frame_at = len(self._out)
        self._out.append(name + self._lead + data + self._trail)

    def _encode(self, event: Event) -> None:
        if event.get("choice"):
            return
        kind = event["type"]
        if kind in DELTAS:
            self._delta(event, event.get(DELTAS[kind], ""))  # type: ignore[arg-type]  # the key of a text
            return
        write = _WRITERS.get(kind)
        if write is not None:
            write(self, event)
        else:
            self._output.take(event)

    def _delta(self, event: Event, text: str) -> None:
        place = self._output.place(event) or self._output.open(event)
        self._output.add(place, text)
        if "logprobs" in event:
            given: Any = event  # compiled, a member of an `Event` raises if its type is another one
            scores = self._output.add_scores(given["logprobs"])
            if scores:
                self._emit(place.delta, {**place.members, "delta": text, "logprobs": scores})
                return
        head, middle, tail = self._around(place)
        self._number += 1
        self._frame_at = len(self._out)
        self._out.append(b"%b%d%b%b%b" % (head, self._number, middle, escape(text), tail))

    def _emit_last(self, kind: str, response: dict[str, Any]) -> None:
        """Writes the frame of the last object, and leaves the object to be kept."""
        kept = self._context.kept
        if kept is None:
            self._emit(kind, {"response": response})
        else:
            self._leave(kept, kind, response)
        self.release()

    def _leave(self, kept: KeptAnswer, kind: str, response: dict[str, Any]) -> None:
        data = encode_json(response)
        self._number += 1
        self._frame_at = len(self._out)
        name = b"event: %b\n" % kind.encode() if self._sse else b""
        lead = name + self._lead + b'{"type":"%b","sequence_number":%d,"response":' % (kind.encode(), self._number)
        trail = b"}" + self._trail
        frame = lead + data + trail
        self._out.append(frame)
        without = partial(_frame_without, lead, response, trail)
        items = ids_of(response["output"])
        kept.leave(self._response.identifier, response["status"], data, items, frame, without)

    # -- the answer --

    def _start(self, event: Event) -> None:
        self._response.model = event.get("model", self._response.model)
        self._output.provider = event.get("provider")
        self._begin()

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            response = self._response.at("in_progress")
            self._emit("response.created", {"response": response})
            self._emit("response.in_progress", {"response": response})

    def _join(self, event: Event) -> bool:
        """Numbers on from a log, if the event is an end that the log lacked; returns whether it is.

        Then the follower has the response's start.
        """
        is_end = self._follows and not self._started and event.get("seq", 1) > 1
        if is_end:
            self._number = event["seq"] - 1
        return is_end

    def prepare(self) -> None:
        """Writes a response that nothing is generated for."""
        self._started = True
        self._emit("response.created", {"response": self._response.at("in_progress")})
        self._emit_last("response.completed", self._response.at("completed", usage=NO_USAGE))

    def _reset(self, event: Event) -> None:
        self._output = self._new_output()
        self._usage = None

    def _audio(self, event: Event) -> None:
        self._has_audio = True
        self._emit("response.audio.delta", {"delta": event["audio"]["chunk"]})

    def _snapshot(self, event: Event) -> None:
        self._usage = event["usage"]

    def _warning(self, event: Event) -> None:
        note_warning(self._warnings, event)

    def _finish(self, event: Event) -> None:
        outcome = outcome_of(event)
        self._join(event)
        if self._has_audio:
            self._emit("response.audio.done", {})
        self._output.finish(is_complete=outcome.status == "completed")
        usage = event.get("usage") or self._usage
        x_gai = self._x_gai() | outcome.x_gai
        response = self._response.at(
            outcome.status, self._output.items, usage=usage, incomplete=outcome.incomplete, x_gai=x_gai
        )
        self._emit_last(outcome.event, _as_kept(event, response))

    def _error(self, event: Event) -> None:
        """Writes the failure of the response, or of reading its log."""
        if not self._join(event):
            self._begin()
        error = Error.from_payload(event["error"])
        if not self._error_sent:
            self._emit("error", error_members(error))
        if error.is_of_log:
            return  # the response itself may have completed
        self._output.break_off()
        response = self._response.at(
            "failed", self._output.items, usage=event.get("usage"), error=failure_of(error), x_gai=self._x_gai()
        )
        self._emit_last("response.failed", _as_kept(event, response))

    def leave_off(self) -> None:
        """Leaves the last object of an answer whose client has left, if the client has its id."""
        kept = self._context.kept
        if kept is not None and self._started and not kept.identifier:
            output = self._output_so_far()
            output.break_off()
            response = self._response.at("cancelled", output.items, usage=self._usage, x_gai=self._x_gai())
            kept.leave(self._response.identifier, "cancelled", encode_json(response), ids_of(output.items))
        self.release()

    def release(self) -> None:
        """Works as `DialectEncoder.release`."""
        self._output.close_events()

    def _output_so_far(self) -> ResponsesOutput:
        return self._output

    def _x_gai(self) -> dict[str, Any]:
        return {"warnings": self._warnings} if self._warnings else {}


def _as_kept(event: Event, response: dict[str, Any]) -> dict[str, Any]:
    """Returns the last object. It has `store: false` if the last event has: the answer could not be kept."""
    given: Any = event  # as in `_delta`
    return {**response, "store": False} if given.get("store") is False else response


def _frame_without(lead: bytes, response: dict[str, Any], trail: bytes, _kept: KeptAnswer) -> bytes:
    """Returns the frame of the last object of an answer that could not be kept."""
    return lead + encode_json({**response, "store": False}) + trail


_WRITERS: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": ResponseEvents._start,
    "stream.reset": ResponseEvents._reset,
    "audio.delta": ResponseEvents._audio,
    "usage": ResponseEvents._snapshot,
    "warning": ResponseEvents._warning,
    "finish": ResponseEvents._finish,
    "error": ResponseEvents._error,
}
