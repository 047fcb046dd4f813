"""`gai_fast/formats/simple.py`: text and nothing else."""

from __future__ import annotations

import json

import pytest

from gai_fast.formats import Framing, get_format
from gai_fast.model.events import Event
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    USAGE,
    call,
    call_delta,
    call_start,
    context,
    encoded,
    finish,
    text,
)

SIMPLE = get_format("simple")


def test_text_then_done() -> None:
    body = encoded(SIMPLE.encoder("sse", context()), [START, text('Hé "you"\n'), text(" there"), finish(), DONE])
    assert body.decode() == ('data: {"content":"Hé \\"you\\"\\n"}\n\ndata: {"content":" there"}\n\ndata: [DONE]\n\n')


def test_ndjson_has_the_same_objects_and_no_end_mark() -> None:
    body = encoded(SIMPLE.encoder("ndjson", context()), [START, text("Hi"), text(" there"), finish(), DONE])
    assert body == b'{"content":"Hi"}\n{"content":" there"}\n'


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("sse", b'data: {"content":"Hi"}\n\ndata: {"error":"cut \\"off\\""}\n\n'),
        ("ndjson", b'{"content":"Hi"}\n{"error":"cut \\"off\\""}\n'),
    ],
)
def test_an_error_is_the_last_frame(framing: Framing, body: bytes) -> None:
    assert encoded(SIMPLE.encoder(framing, context()), [START, text("Hi"), ERROR, NOT_DONE]) == body


def test_a_refusal_is_text() -> None:
    body = encoded(SIMPLE.encoder("sse", context()), [START, {"type": "refusal.delta", "text": "No."}, finish(), DONE])
    assert body == b'data: {"content":"No."}\n\ndata: [DONE]\n\n'


def test_a_cancelled_answer_is_complete_as_far_as_it_came() -> None:
    body = encoded(SIMPLE.encoder("sse", context()), [START, text("Hi"), finish("cancelled"), DONE])
    assert body == b'data: {"content":"Hi"}\n\ndata: [DONE]\n\n'


SILENT: list[Event] = [
    START,
    text("second choice", choice=1),
    {"type": "reasoning.delta", "text": "Hm."},
    {"type": "reasoning.signature", "signature": "sig"},
    call_start(),
    call_delta("{}"),
    call(),
    {"type": "citations", "citations": [{"uri": "https://example.org"}]},
    {"type": "usage", "usage": USAGE},
    {"type": "warning", "reason": "malformed_chunk"},
    finish(),
    NOT_DONE,
]


@pytest.mark.parametrize("event", SILENT, ids=lambda event: event["type"])
def test_everything_else_is_silent(event: Event) -> None:
    assert encoded(SIMPLE.encoder("sse", context()), [event]) == b""


@pytest.mark.parametrize(("framing", "ping"), [("sse", b": ping\n"), ("ndjson", b"\n")])
def test_a_heartbeat_is_a_comment_or_an_empty_line(framing: Framing, ping: bytes) -> None:
    encoder = SIMPLE.encoder(framing, context())
    encoder.heartbeat()
    assert encoder.take() == ping


def test_the_whole_answer_is_all_the_text() -> None:
    body = encoded(SIMPLE.whole(context()), [START, text("Hi"), text(" there"), finish(), DONE])
    assert json.loads(body) == {"content": "Hi there"}


def test_a_failed_whole_answer_has_no_bytes() -> None:
    assert encoded(SIMPLE.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""
