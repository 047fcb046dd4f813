"""OpenAI's legacy Completions: writes events as `text_completion` chunks.

The chunks are those of OpenAI's `completion.py`: whole and streamed answers have one shape. The dialect has only text:

| event | chunk |
|---|---|
| `start` | the `model` of all chunks |
| `text.delta` `refusal.delta` | `choices[0].text` |
| `finish` | a chunk with `finish_reason`; reasons that the dialect lacks are `stop`, with `x_gai.finish_reason` |
| `usage` | if the client asked for it, a last chunk with `choices: []`; then all others have `"usage": null` |
| `warning` | `x_gai.warnings` in the last chunk |
| `error` | `{"error": {message, type, param, code}}`, and no `[DONE]` |
| `done` | `[DONE]` after a `finish` |
| `reasoning.delta` `reasoning.signature` `citations` `image` `audio.delta` | none |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` `provider.block` | none |
| `json.snapshot` `safety` `step.start` `step.end` | none |
| `tool.progress` `approval.required` `approval.decided` | none |
| `step.reset` | none: a step with content is never asked again |
| `stream.reset` | none: an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |

Choices beyond the first are left out. If the upstream speaks the dialect, its frames are passed on with all members
(`echo`, `logprobs`, several choices).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gai_fast.core.result import Result
from gai_fast.formats._base import Framing, StreamContext
from gai_fast.formats._openai import error_object, note_warning
from gai_fast.formats._passthrough import DialectEncoder, is_done_mark, is_own_end, lacks_usage
from gai_fast.formats.chat.parts import finish_reason_of, is_error_frame, usage_of
from gai_fast.formats.chat.whole import WholeObject
from gai_fast.kernels import Part, encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import Event

_TEXT: Final = ("text.delta", "refusal.delta")


class TextChunks(DialectEncoder):
    """Events → `text_completion` chunks."""

    __slots__ = ("_created", "_head", "_id", "_model", "_tail", "_text_tail", "_usage", "_usage_asked", "_warnings")

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._created = context.clock() // 1000
        self._usage_asked = context.usage
        self._tail = b',"usage":null' if context.usage else b""
        self._id = f"cmpl-{context.stream_id}"
        self._model = context.model
        self._head = b""
        """The first bytes of every chunk, or empty until the first chunk: `start` sets the names in them."""
        self._text_tail = b""
        self._usage: Mapping[str, Any] = {}
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Writes the chunks of one event."""
        if event["type"] in _TEXT and "choice" not in event:  # the hot path
            self._seq = event.get("seq", self._seq + 1)
            if self._ids:
                self._frame_at = -1
            self._frame(self._text_head() + escape(event.get("text", "")) + self._text_tail)
            if self._ids:
                self._stamp()
        else:
            super().event(event)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one, or None if it writes nothing."""
        if event["type"] not in _TEXT or "choice" in event:
            return None
        head = self._lead + self._text_head()
        return self._parts(head + b'"', b'"' + self._text_tail + self._trail)

    def _name(self, identifier: str, model: str) -> None:
        """Sets the members that all chunks share."""
        self._id, self._model, self._head = identifier, model, b""

    def _begin(self) -> bytes:
        if not self._head:
            self._head = b'{"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[' % (
                escape(self._id),
                self._created,
                escape(self._model),
            )
            self._text_tail = b',"index":0,"logprobs":null,"finish_reason":null}]' + self._tail + b"}"
        return self._head

    def _text_head(self) -> bytes:
        return self._begin() + b'{"text":'

    def _encode(self, event: Event) -> None:
        kind = event["type"]
        if kind == "start":
            self._name(self._id, event.get("model", self._model))
        elif kind == "usage":
            self._usage = event["usage"]
        elif kind == "warning":
            note_warning(self._warnings, event)
        elif kind == "finish":
            self._finish(event)
        elif kind == "error":
            self._frame(encode_json({"error": error_object(Error.from_payload(event["error"]))}))
        elif kind == "done" and event["finished"] and self._sse:
            self._frame(b"[DONE]")

    def _finish(self, event: Event) -> None:
        usage = event.get("usage", self._usage) if self._usage_asked else {}
        reason, x_gai = finish_reason_of(event, has_calls=False)
        last = {"warnings": self._warnings} if self._warnings else {}
        extra = _extra(x_gai if usage else {**x_gai, **last})
        choice = b'{"text":"","index":0,"logprobs":null,"finish_reason":%b}' % escape(reason)
        self._frame(self._begin() + choice + b"]" + self._tail + extra + b"}")
        if usage:
            self._usage_chunk(usage, last)

    def _usage_chunk(self, usage: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Writes the chunk of the usage. `more` are further members of its `x_gai`."""
        counts, beside = usage_of(usage)
        self._frame(self._begin() + b'],"usage":' + encode_json(counts) + _extra({**beside, **more}) + b"}")


def _extra(x_gai: Mapping[str, Any]) -> bytes:
    return b',"x_gai":' + encode_json(x_gai) if x_gai else b""


class OwnTextChunks(TextChunks):
    """Writes the gateway's chunks that complete the upstream's own: `_passthrough.py`."""

    __slots__ = ()

    def complete(self, event: Event) -> None:
        """Writes the chunks of an event that the upstream's frames lack."""
        kind = event["type"]
        if kind == "start":
            identifier = event.get("provider_metadata", {}).get("id")
            self._name(identifier or self._id, event.get("model", self._model))
        elif kind == "finish":
            if is_own_end(event):
                self._finish(event)
            elif self._usage_asked and lacks_usage(event):
                self._usage_chunk(event["usage"], {"warnings": self._warnings} if self._warnings else {})
            elif self._warnings:
                self._frame(self._begin() + b"]" + self._tail + _extra({"warnings": self._warnings}) + b"}")
        elif kind in ("usage", "warning", "error"):
            self._encode(event)

    def is_end(self, raw: bytes) -> bool:
        """Returns whether a frame is `[DONE]`."""
        return is_done_mark(raw)

    def is_error(self, raw: bytes) -> bool:
        """Returns whether a last frame has an error that clients read."""
        return is_error_frame(raw)

    def end_mark(self) -> bytes:
        """Returns `[DONE]`."""
        return b"data: [DONE]\n\n"


class WholeText(WholeObject):
    """Events → one `text_completion`."""

    def _answer(self, result: Result) -> bytes:
        reason, x_gai = finish_reason_of(self._finish, has_calls=False)
        choice = {"text": result.text + result.refusal, "index": 0, "logprobs": None, "finish_reason": reason}
        return self._object("text_completion", "cmpl", [choice], x_gai, result)
