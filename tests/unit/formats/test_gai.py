"""`gai_fast/formats/gai.py`: whole answers of the native format."""

from __future__ import annotations

import json

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import get_format
from gai_fast.model.events import Event
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
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


def test_a_whole_answer_that_the_gateway_has_ended_says_why() -> None:
    answer = json.loads(
        encoded(GAI.whole(context()), [START, text("a"), {**finish("length"), "reason": "spend"}, DONE])
    )
    assert answer["reason"] == "spend"


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
