"""The format `gai.events.v1`: events as they are.

Owns the keep-alives of this format and the shape of its whole answer. The kernels write the events.

| event | frame |
|---|---|
| `start` `text.delta` `reasoning.delta` `refusal.delta` `reasoning.signature` | the event |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` | the event |
| `citations` `image` `audio.delta` `json.snapshot` `safety` `warning` `usage` `step.end` | the event |
| `stream.reset` | the event; a second `start` or an `error` follows |
| `stream.gap` | the event, written for one follower and kept in no log |
| `finish` `error` | the event |
| `done` | the event, without a number |
"""

from __future__ import annotations

from typing import Any, ClassVar

from gai_fast._impl import NDJSONEncoder, SSEEncoder, encode_json
from gai_fast.events import Event
from gai_fast.formats._base import OTHERS, Encoder, Format, Framing, StreamContext, StreamEncoder, WholeEncoder
from gai_fast.result import Result


class _SSE(SSEEncoder):
    __slots__ = ()

    has_blocks = False
    collects_text = False

    def copied(self, event: Event, text: str) -> None:
        """Is not called."""

    def heartbeat(self) -> None:
        self.comment("ping")


class _FirstRetry(_SSE):
    """Writes `retry:` in the first frame."""

    __slots__ = ("first_retry",)

    first_retry: int | None

    def event(self, event: dict[str, Any], retry: int | None = None) -> None:
        super().event(event, self.first_retry if retry is None else retry)
        self.first_retry = None


class _NDJSON(NDJSONEncoder):
    __slots__ = ()

    has_blocks = False
    collects_text = False

    def copied(self, event: Event, text: str) -> None:
        """Is not called."""

    def heartbeat(self) -> None:
        self.comment("")


class _Whole(WholeEncoder):
    others: ClassVar[tuple[str, ...]] = OTHERS

    def _answer(self, result: Result) -> bytes:
        answer = {
            "id": self._context.stream_id,
            "request_id": self._context.request_id,
            "provider": result.provider,
            "model": result.model,
            "message": result.message,
            "text": result.text or None,
            "reasoning": result.reasoning or None,
            "refusal": result.refusal or None,
            "tool_calls": [
                {"call_id": call.call_id, "name": call.name, "input": call.input, "arguments": call.arguments}
                for call in result.tool_calls
            ],
            "citations": result.citations,
            "finish_reason": result.finish_reason,
            "finish_reason_raw": result.finish_reason_raw,
            "usage": result.usage,
            "metrics": result.metrics or None,
        }
        events = self._collector.others()
        return encode_json({**answer, "events": events} if events else answer)


class GaiFormat(Format):
    """The native format; its requests are native ones, which `gai_fast.reading` reads."""

    name: ClassVar[str] = "gai"
    announces: ClassVar[bool] = True

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder; by default SSE is compact and NDJSON full."""
        envelope = context.envelope or ("compact" if framing == "sse" else "full")
        ids = context.stream_id if context.ids and framing == "sse" else None
        kind = _NDJSON if framing == "ndjson" else _FirstRetry if ids else _SSE
        # The kernels take any dict; to mypy an `Event` is a `Mapping` but never a `dict`.
        encoder: Any = kind(
            envelope, ids, context.request_id, context.trace_id, context.clock, timestamps=context.timestamps
        )
        if ids is not None and kind is _FirstRetry:
            encoder.first_retry = context.retry_ms
        return encoder  # type: ignore[no-any-return]  # as above

    def whole(self, context: StreamContext) -> Encoder:
        """The whole answer: every key, `null` or `[]` where empty."""
        return _Whole(context)


FORMAT = GaiFormat()
