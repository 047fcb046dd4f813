"""The format `simple`: only the visible text, for a page with ten lines of JavaScript.

In SSE `[DONE]` means that the answer is complete, so it never follows an error. The whole answer is one
`{"content": "…"}` with all the text.

| event | frame |
|---|---|
| `text.delta` `refusal.delta` | `{"content": "…"}` |
| `error` | `{"error": "…"}` |
| `done` | `[DONE]` after a `finish`; nothing after an `error`, nor in NDJSON |
| `start` `finish` `usage` `step.start` `step.end` `safety` `warning` | none |
| `reasoning.delta` `reasoning.signature` `citations` `image` `audio.delta` `json.snapshot` | none |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` `provider.block` | none |
| `tool.progress` `approval.required` `approval.decided` | none |
| `step.reset` | none: a step with content is never asked again |
| `stream.reset` | none: an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |
"""

from __future__ import annotations

from typing import ClassVar

from gai_fast.core.result import Result
from gai_fast.formats._base import DataEncoder, Encoder, Format, Framing, StreamContext, StreamEncoder, WholeEncoder
from gai_fast.kernels import escape
from gai_fast.model.events import Event

_TEXT = ("text.delta", "refusal.delta")


class _Simple(DataEncoder):
    __slots__ = ()

    def _encode(self, event: Event) -> None:
        kind = event["type"]
        if kind in _TEXT:
            if not event.get("choice"):
                self._frame(b'{"content":%b}' % escape(event["text"]))
        elif kind == "error":
            self._frame(b'{"error":%b}' % escape(event["error"]["message"]))
        elif kind == "done" and event["finished"] and self._sse:
            self._frame(b"[DONE]")


class _Whole(WholeEncoder):
    def _answer(self, result: Result) -> bytes:
        return b'{"content":%b}' % escape(result.text + result.refusal)


class SimpleFormat(Format):
    """Plain text in the smallest frames."""

    name: ClassVar[str] = "simple"

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of `{"content": "…"}` frames."""
        return _Simple(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `{"content": "…"}`."""
        return _Whole(context)


FORMAT = SimpleFormat()
