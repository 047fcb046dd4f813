"""The formats of a WebSocket: events with the subprotocol `gai.events.v1`, chunks of text without one.

Both are written as SSE, which the socket's streams turn into messages. A refusal is the end of a stream too, so the
body of an error is its last frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from gai_fast.formats import Format, Framing, StreamContext, StreamEncoder
from gai_fast.formats._base import DataEncoder
from gai_fast.formats.gai import GaiFormat
from gai_fast.formats.simple import SimpleFormat
from gai_fast.kernels import Part, encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, done
from gai_fast.runtime.clock import now_ms

_TEXT: Final = ("text.delta", "refusal.delta")


class EventsFormat(GaiFormat):
    """The native format, whose errors are events."""

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns the frames of a stream of one error."""
        return _only(self, error, request_id)


class _Chunks(DataEncoder):
    __slots__ = ("_clock",)

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._clock = context.clock
        self._ids = b""  # such a client never resumes

    def _encode(self, event: Event) -> None:
        kind = event["type"]
        if kind in _TEXT:
            if not event.get("choice"):
                self._frame(b'{"type":"chunk","content":%b,"timestamp":%d}' % (escape(event["text"]), self._clock()))
        elif kind == "error":
            self._frame(b'{"type":"error","error":%b}' % encode_json(event["error"]))
        elif kind == "done" and event["finished"]:
            self._frame(b'{"type":"done"}')

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Works as `DataEncoder.delta_parts`, with the time of each chunk."""
        if event["type"] not in _TEXT or event.get("choice"):
            return super().delta_parts(event, key)
        return b'data: {"type":"chunk","content":"', "text", b'","timestamp":', "ts", b"}\n\n"


class ChunksFormat(SimpleFormat):
    """`{"type":"chunk","content","timestamp"}` … `{"type":"done"}` or `{"type":"error","error"}`.

    It bears the name of the format `simple`, whose keep-alive and choice of events it has.
    """

    name: ClassVar[str] = "simple"

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder."""
        return _Chunks(framing, context)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns the frames of an answer of one error."""
        return _only(self, error, request_id)


def _only(format: Format, error: Error, request_id: str) -> bytes:
    last: Event = {"type": "error", "error": error.payload()}
    return _frames(format, request_id, last, done(False))


def _frames(format: Format, request_id: str, *events: Event) -> bytes:
    encoder = format.encoder("sse", StreamContext("", request_id, None, "", now_ms, "compact"))
    for event in events:
        encoder.event(event)
    return encoder.take()


EVENTS: Final = EventsFormat()
CHUNKS: Final = ChunksFormat()
DONE: Final = {is_finished: _frames(EVENTS, "", done(is_finished)) for is_finished in (True, False)}
"""The answer to a client that has seen the end of its stream, which had finished or not."""
