"""The format `gai.events.v1`: the gateway's events unchanged.

Owns the shape of this format's whole answer; the encoders of a stream are in the kernels and `_gai_stream.py`.

| event | frame |
|---|---|
| `start` `text.delta` `reasoning.delta` `refusal.delta` `reasoning.signature` | the event |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` | the event |
| `provider.block` | the event |
| `citations` `image` `audio.delta` `json.snapshot` `safety` `warning` `usage` | the event |
| `step.start` `step.end` `step.reset` `tool.progress` `approval.required` `approval.decided` | the event |
| `stream.reset` | the event; a second `start` or an `error` follows |
| `stream.gap` | the event: written for one follower, or by a new owner of the stream |
| `finish` `error` | the event |
| `done` | the event, without a number |
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.result import Result
from gai_fast.formats._base import OTHERS, Encoder, Format, Framing, StreamContext, StreamEncoder, WholeEncoder
from gai_fast.formats._gai_stream import FirstRetry
from gai_fast.kernels import NDJSONEncoder, SSEEncoder, encode_json

_SSEEncoder: Final = SSEEncoder  # a constant: a name look-up costs 30 ns


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
        if result.reason:
            answer["reason"] = result.reason
        if self._collector.is_run:
            answer["messages"] = result.messages
        if result.logprobs:
            answer["logprobs"] = result.logprobs
        events = self._collector.others()
        return encode_json({**answer, "events": events} if events else answer)


@mypyc_attr(allow_interpreted_subclasses=True)
class GaiFormat(Format):
    """The native format; `gai_fast.core.requests.reading` reads its requests."""

    name: ClassVar[str] = "gai"
    asks_approvals: ClassVar[bool] = True
    can_reset: ClassVar[bool] = True
    can_reset_step: ClassVar[bool] = True

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder; the default envelope is compact for SSE and full for NDJSON."""
        envelope = context.envelope or ("compact" if framing == "sse" else "full")
        ids = context.stream_id if context.ids and framing == "sse" else None
        kind = NDJSONEncoder if framing == "ndjson" else FirstRetry if ids else _SSEEncoder
        # The kernels accept any dict; for mypy an `Event` is a `Mapping` but never a `dict`.
        encoder: Any = kind(
            envelope, ids, context.request_id, context.trace_id, context.clock, timestamps=context.timestamps
        )
        if ids is not None and kind is FirstRetry:
            encoder.first_retry, encoder.first_echo = context.retry_ms, context.echoed
        return encoder  # type: ignore[no-any-return]  # an `Any` for mypy, as above

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of the whole answer, which has every key; empty values are `null` or `[]`."""
        return _Whole(context)


FORMAT = GaiFormat()
