"""`gai_fast/formats/_base.py`: what every format gets for nothing."""

from __future__ import annotations

import json
from random import Random
from typing import ClassVar

import pytest

from gai_fast.core.result import Result
from gai_fast.formats import FORMATS, Encoder, Format, Framing, StreamContext, get_format
from gai_fast.formats._base import DataEncoder, WholeEncoder
from gai_fast.model.errors import Error, Unsupported
from gai_fast.model.events import Event
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    STREAM_ID,
    call_delta,
    call_start,
    context,
    encoded,
    finish,
    text,
)


class Words(DataEncoder):
    """One frame per word; nothing for other events."""

    __slots__ = ()

    def _encode(self, event: Event) -> None:
        if event["type"] == "done":
            self._frame(b"END")
        for word in event.get("text", "").split():
            self._frame(word.encode())


class Shout(WholeEncoder):
    def _answer(self, result: Result) -> bytes:
        return result.text.upper().encode()


class Plain(Format):
    name: ClassVar[str] = "plain"

    def encoder(self, framing: Framing, context: StreamContext) -> Encoder:
        return Words(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        return Shout(context)


def test_sse_frames_are_one_data_line_and_a_blank_line() -> None:
    assert encoded(Words("sse", context()), [text("a b"), DONE]) == b"data: a\n\ndata: b\n\ndata: END\n\n"


def test_ndjson_frames_are_lines() -> None:
    assert encoded(Words("ndjson", context()), [text("a b"), DONE]) == b"a\nb\nEND\n"


def test_taking_empties_the_buffer() -> None:
    encoder = Words("sse", context())
    encoder.event(text("a"))
    assert encoder.take() == b"data: a\n\n"
    assert encoder.take() == b""


def test_ids_count_all_events_and_stand_on_the_last_frame_of_an_event() -> None:
    encoder = Words("sse", context(ids=True))
    body = encoded(encoder, [START, text("a b"), finish(), text("c"), DONE])
    assert body == (f"data: a\n\nid: {STREAM_ID}.2\ndata: b\n\nid: {STREAM_ID}.4\ndata: c\n\ndata: END\n\n".encode())


def test_an_event_that_brings_its_number_keeps_it() -> None:
    encoder = Words("sse", context(ids=True))
    body = encoded(encoder, [text("a", seq=7), text("b")])
    assert body == f"id: {STREAM_ID}.7\ndata: a\n\nid: {STREAM_ID}.8\ndata: b\n\n".encode()


def test_retry_stands_inside_the_first_frame_of_a_stream_with_ids_only() -> None:
    body = encoded(Words("sse", context(ids=True, retry_ms=3000)), [START, text("a"), text("b")])
    assert body.startswith(f"id: {STREAM_ID}.2\nretry: 3000\ndata: a\n\n".encode())
    assert body.count(b"retry:") == 1
    assert encoded(Words("sse", context(retry_ms=3000)), [text("a")]) == b"data: a\n\n"


@pytest.mark.parametrize("name", ["openai", "simple"])
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
@pytest.mark.parametrize("ids", [True, False])
def test_every_event_but_the_last_is_counted_whatever_is_written_of_it(name: str, framing: Framing, ids: bool) -> None:
    """Else a log that had to drop its oldest frames could not say up to which event."""
    encoder = get_format(name).encoder(framing, context(ids=ids))
    seen = []
    for event in (START, text("a"), text("b", choice=1), call_start(), call_delta("{"), finish(), DONE):
        encoder.event(event)
        seen.append(encoder.seq)
    assert seen == [1, 2, 3, 4, 5, 6, 6]
    encoder.append_frames(b"two", 2)
    assert encoder.seq == 8


@pytest.mark.parametrize("name", ["openai", "simple"])
def test_no_value_of_a_callers_is_taken_for_the_text_of_a_delta(name: str) -> None:
    encoder = get_format(name).encoder(
        "ndjson", context(model="\U000f6a3d\U0010c5e9", stream_id="a\U000f6a3d\U0010c5e9b")
    )
    for event in (text("x"), text("x", choice=1)):
        encoder.event(event)
        encoder.take()
        parts = encoder.delta_parts(event, "text") or ()
        encoder.event(event)
        assert b"".join(part if isinstance(part, bytes) else b"x" for part in parts) == encoder.take()


def test_ndjson_has_no_ids() -> None:
    assert encoded(Words("ndjson", context(ids=True, retry_ms=3000)), [text("a")]) == b"a\n"


@pytest.mark.parametrize(("framing", "ping"), [("sse", b": ping\n"), ("ndjson", b"\n")])
def test_a_heartbeat_is_no_frame(framing: Framing, ping: bytes) -> None:
    encoder = Words(framing, context(ids=True))
    encoder.heartbeat()
    assert encoder.take() == ping


def test_a_whole_answer_is_there_once_and_only_at_the_end() -> None:
    encoder = Shout(context())
    assert encoded(encoder, [START, text("hi"), finish()]) == b""
    encoder.heartbeat()
    assert encoded(encoder, [DONE]) == b"HI"
    assert encoder.take() == b""


def test_a_whole_answer_that_failed_has_no_bytes() -> None:
    assert encoded(Shout(context()), [START, text("hi"), ERROR, NOT_DONE]) == b""


def test_a_format_without_more_has_no_passthrough_and_no_request() -> None:
    plain = Plain()
    assert plain.passthrough("sse", context(), whole=False) is None
    with pytest.raises(Unsupported, match="'plain' has no request of its own"):
        plain.parse_request({})


def test_an_error_body_holds_the_payload_and_the_request_id() -> None:
    error = Error("rate_limited", "slow down", retry_after_ms=1500, phase="first_event", reason="rpm")
    assert json.loads(Plain().error_body(error, "req_1")) == {
        "error": {
            "code": "rate_limited",
            "message": "slow down",
            "temporary": True,
            "retry_after_ms": 1500,
            "phase": "first_event",
            "reason": "rpm",
            "request_id": "req_1",
        }
    }


@pytest.mark.parametrize(
    ("framing", "media_type"),
    [("sse", "text/event-stream; charset=utf-8"), ("ndjson", "application/x-ndjson")],
)
def test_the_framing_says_the_media_type(framing: Framing, media_type: str) -> None:
    assert Plain().media_type(framing) == media_type


@pytest.mark.parametrize("name", [name for name in FORMATS if not get_format(name).copies_upstream])
def test_events_in_any_order_are_written_without_an_exception(name: str) -> None:
    """Processors leave events out and make others. An exception would end the stream with an error."""
    random, made = Random(19), get_format(name)
    *inner, end, done = EVERY_EVENT
    for _ in range(30):
        events = [*random.choices(inner, k=random.randrange(30)), end, done]
        for framing in made.framings:
            encoded(made.encoder(framing, context()), events)
        assert json.loads(encoded(made.whole(context()), events))
