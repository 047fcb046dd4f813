"""`gai_fast/formats/gai.py`: the native format."""

from __future__ import annotations

import json

import pytest

from gai_fast.events import Event
from gai_fast.formats import Framing, get_format
from gai_fast.reading import parse_request
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    NOW_MS,
    START,
    STREAM_ID,
    USAGE,
    call,
    call_delta,
    call_start,
    context,
    encoded,
    finish,
    text,
)

GAI = get_format("gai")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def test_sse_is_compact() -> None:
    body = encoded(GAI.encoder("sse", context(trace_id=TRACE_ID)), [START, text("Hi"), DONE])
    first = (
        f'{{"schema":"gai.events.v1","type":"start","ts":{NOW_MS},"seq":1,"trace_id":"{TRACE_ID}","request_id":"req_1",'
        f'"provider":"test","model":"test-model","stream_id":"{STREAM_ID}"}}'
    )
    assert body.decode() == (
        f"event: start\ndata: {first}\n\n"
        'event: text.delta\ndata: {"type":"text.delta","seq":2,"text":"Hi"}\n\n'
        'event: done\ndata: {"type":"done","finished":true}\n\n'
    )


def test_ndjson_is_full() -> None:
    body = encoded(GAI.encoder("ndjson", context()), [START, text("Hi"), DONE])
    lines = body.decode().splitlines()
    assert lines[1] == (
        f'{{"schema":"gai.events.v1","type":"text.delta","ts":{NOW_MS},"seq":2,"request_id":"req_1","text":"Hi"}}'
    )
    assert lines[2] == '{"type":"done","finished":true}'


def test_the_envelope_can_be_chosen() -> None:
    assert (
        b'"schema"'
        not in encoded(GAI.encoder("ndjson", context(envelope="compact")), [START, text("Hi")]).split(b"\n")[1]
    )
    full = encoded(GAI.encoder("sse", context(envelope="full")), [START, text("Hi")])
    assert full.count(b'"schema"') == 2


def test_timestamps_stand_on_every_event_where_asked_for() -> None:
    assert encoded(GAI.encoder("sse", context(timestamps=True)), [START, text("Hi")]).count(b'"ts"') == 2
    assert encoded(GAI.encoder("sse", context()), [START, text("Hi")]).count(b'"ts"') == 1


def test_ids_and_retry_are_written_where_the_stream_is_resumable() -> None:
    body = encoded(GAI.encoder("sse", context(ids=True, retry_ms=3000)), [START, text("Hi"), DONE]).decode()
    assert body.startswith(f"event: start\nid: {STREAM_ID}.1\nretry: 3000\ndata: ")
    assert f"event: text.delta\nid: {STREAM_ID}.2\ndata: " in body
    assert body.endswith('event: done\ndata: {"type":"done","finished":true}\n\n')
    assert body.count("retry:") == 1


def test_a_plain_stream_has_neither_ids_nor_retry() -> None:
    body = encoded(GAI.encoder("sse", context(retry_ms=3000)), [START, text("Hi"), DONE])
    assert b"id: " not in body
    assert b"retry:" not in body


@pytest.mark.parametrize(("framing", "ping"), [("sse", b": ping\n"), ("ndjson", b"\n")])
def test_a_heartbeat_is_a_comment_or_an_empty_line(framing: Framing, ping: bytes) -> None:
    encoder = GAI.encoder(framing, context())
    encoder.heartbeat()
    assert encoder.take() == ping


def test_tool_input_is_written_as_the_model_wrote_it() -> None:
    body = encoded(GAI.encoder("sse", context()), [START, call(arguments='{"n":12345678901234567890,"x":1.10}')])
    assert b'"tool_call":{"name":"weather","input":{"n":12345678901234567890,"x":1.10}}' in body


# ---- one object ------------------------------------------------------------------------------------------------------

KEYS = (
    "id request_id provider model message text reasoning refusal tool_calls citations finish_reason finish_reason_raw "
    "usage metrics"
).split()


def test_the_whole_answer_has_every_key_in_order() -> None:
    answer = json.loads(encoded(GAI.whole(context()), [START, text("Hi"), finish(), DONE]))
    assert list(answer) == KEYS


def test_what_is_empty_in_the_whole_answer_is_null_or_a_list() -> None:
    answer = json.loads(encoded(GAI.whole(context()), [{"type": "start", "provider": "test"}, finish(), DONE]))
    assert answer == {
        "id": STREAM_ID,
        "request_id": "req_1",
        "provider": "test",
        "model": "test-model",
        "message": {"role": "assistant", "content": []},
        "text": None,
        "reasoning": None,
        "refusal": None,
        "tool_calls": [],
        "citations": [],
        "finish_reason": "stop",
        "finish_reason_raw": None,
        "usage": None,
        "metrics": None,
    }


def test_the_whole_answer_holds_what_the_events_said() -> None:
    cited = {"uri": "https://example.org", "title": "Example", "start": 0, "end": 2}
    body = encoded(
        GAI.whole(context()),
        [
            START,
            {"type": "reasoning.delta", "text": "Hm."},
            {"type": "reasoning.signature", "signature": "sig"},
            text("Hi"),
            {"type": "citations", "citations": [cited]},
            call_start(),
            call_delta('{"n": 12345678901234567890}'),
            call(arguments='{"n":12345678901234567890}'),
            finish("tool_calls", finish_reason_raw="tool_use", usage=USAGE),
            DONE,
        ],
    )
    assert b'"input":{"n":12345678901234567890}' in body
    answer = json.loads(body)
    assert answer["text"] == "Hi"
    assert answer["reasoning"] == "Hm."
    assert answer["citations"] == [cited]
    assert answer["tool_calls"] == [
        {
            "call_id": "call_1",
            "name": "weather",
            "input": {"n": 12345678901234567890},
            "arguments": '{"n": 12345678901234567890}',
        }
    ]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["finish_reason_raw"] == "tool_use"
    assert answer["usage"] == USAGE


def test_the_whole_answer_has_the_events_that_no_other_key_holds() -> None:
    image: Event = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}}
    answer = json.loads(encoded(GAI.whole(context()), [START, text("a"), image, text("b"), finish(), DONE]))
    assert answer["events"] == [image]
    assert answer["message"]["content"] == [{"type": "text", "text": "ab"}]


def test_the_message_of_a_whole_answer_can_be_sent_back() -> None:
    answer = json.loads(
        encoded(
            GAI.whole(context()),
            [
                START,
                {"type": "reasoning.delta", "text": "Hm."},
                {"type": "reasoning.signature", "signature": "sig"},
                {"type": "reasoning.signature", "signature": "opaque", "redacted": True},
                text("Hi"),
                call(signature="call-sig"),
                finish("tool_calls"),
                DONE,
            ],
        )
    )
    request = parse_request(json.dumps({"messages": [{"role": "user", "content": "?"}, answer["message"]]}).encode())
    assert len(request.messages) == 2


def test_a_failed_answer_has_no_bytes_of_its_own() -> None:
    assert encoded(GAI.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""
