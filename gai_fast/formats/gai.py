"""`gai.events.v1` itself: events as they are.

Owns the keep-alives of this format and the shape of its whole answer. The bytes of events are the kernels' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, cast

from gai_fast._impl import NDJSONEncoder, Part, SSEEncoder, encode_json
from gai_fast.events import Event
from gai_fast.formats._base import (
    SEQ_MARK,
    TEXT_MARK,
    TS_MARK,
    Encoder,
    Format,
    Framing,
    StreamContext,
    StreamEncoder,
    WholeEncoder,
    split_at_marks,
)
from gai_fast.result import Result

PROBE_CAPACITY: Final = 512
"""Bytes: a probe writes one delta."""


class _Learnable:
    """What both framings tell of how they write deltas."""

    __slots__ = ()

    probe: Callable[[], SSEEncoder | NDJSONEncoder]
    """Makes an encoder like this one whose clock shows a mark."""

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """How a delta like this one is written: found by writing one with marks for its text and its numbers."""
        probe = self.probe()
        probe.event({"type": "start"})  # the first event carries the envelope, deltas do not
        probe.take()
        probe.event({**event, "seq": SEQ_MARK, key: TEXT_MARK})
        return split_at_marks(probe.take())


class _SSE(_Learnable, SSEEncoder):
    __slots__ = ("probe",)

    def heartbeat(self) -> None:
        self.comment("ping")


class _FirstRetry(_SSE):
    """Says `retry:` inside the first frame."""

    __slots__ = ("first_retry",)

    first_retry: int | None

    def event(self, event: dict[str, Any], retry: int | None = None) -> None:
        super().event(event, self.first_retry if retry is None else retry)
        self.first_retry = None


class _NDJSON(_Learnable, NDJSONEncoder):
    __slots__ = ("probe",)

    def heartbeat(self) -> None:
        self.comment("")


class _Whole(WholeEncoder):
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
        return encode_json(answer)


class GaiFormat(Format):
    """The native format; its requests are native ones, which `gai_fast.request` reads."""

    name: ClassVar[str] = "gai"

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """An encoder; SSE is compact and NDJSON full unless the context says otherwise."""
        envelope = context.envelope or ("compact" if framing == "sse" else "full")
        ids = context.stream_id if context.ids and framing == "sse" else None
        told = (envelope, ids, context.request_id, context.trace_id)
        kind = _NDJSON if framing == "ndjson" else _FirstRetry if ids else _SSE
        encoder = kind(*told, context.clock, timestamps=context.timestamps)
        plain = NDJSONEncoder if framing == "ndjson" else SSEEncoder
        encoder.probe = lambda: plain(*told, lambda: TS_MARK, PROBE_CAPACITY, timestamps=context.timestamps)
        if isinstance(encoder, _FirstRetry):
            encoder.first_retry = context.retry_ms
        # The kernels take any dict; to mypy an `Event` is a `Mapping` but never a `dict`.
        return cast(StreamEncoder, encoder)

    def whole(self, context: StreamContext) -> Encoder:
        """The answer of CONTRACT §4: every key, `null` or `[]` where empty."""
        return _Whole(context)


FORMAT = GaiFormat()
