"""What a guard says in every format: a mask, a flag, a stop, a judge that failed and let a piece pass or ended all."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from gai_fast.formats import Format, get_format
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from tests.guarding import SAFETY, failed
from tests.unit.formats.streams import DONE, NOT_DONE, START, context, encoded, finish, text

USAGE: Final = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12, "source": "partial"}
WARNING: Event = {"type": "warning", "reason": "guard_failed", "guard": "policy"}
STOPPED: Final[list[Event]] = [
    START,
    WARNING,
    text("Hi"),
    SAFETY,
    {**finish("content_filter", usage=USAGE), "reason": "guard"},
    DONE,
]
FAILED: Final[list[Event]] = [START, text("Hi"), {"type": "error", "error": failed().payload()}, NOT_DONE]
SAFETY_TEXT: Final = '{"category":"words","action":"stop","guard":"names","on":"output"}'
WARNINGS_TEXT: Final = '"warnings":[{"reason":"guard_failed","guard":"policy"}]'
NONE: Final[tuple[str, ...]] = ()

STREAMED: Final[dict[str, tuple[str, ...]]] = {
    "gai": (
        f'"type":"safety","seq":4,"safety":{SAFETY_TEXT}}}',
        '"type":"warning","seq":2,"reason":"guard_failed","guard":"policy"}',
        '"finish_reason":"content_filter","reason":"guard"}',
    ),
    "simple": NONE,
    "openai": (
        '"finish_reason":"content_filter"', f'"safety":{SAFETY_TEXT}', WARNINGS_TEXT, '"reason":"guard"',
    ),
    "completions": ('"finish_reason":"content_filter"', WARNINGS_TEXT),
    "anthropic": (
        '"stop_reason":"refusal"',
        '"stop_details":{"type":"refusal","category":null,"explanation":"words"}',
        f'"safety":{SAFETY_TEXT}',
        WARNINGS_TEXT,
        '"reason":"guard"',
    ),
    "responses": (
        "event: response.incomplete\n",
        '"incomplete_details":{"reason":"content_filter"}',
        '"status":"incomplete"',
        WARNINGS_TEXT,
        '"reason":"guard"',
    ),
    "vercel": (
        '"finish_reason":"content_filter"',
        f'{{"type":"data-safety","data":{SAFETY_TEXT}}}',
        '{"type":"data-warning","data":{"reason":"guard_failed","guard":"policy"},"transient":true}',
    ),
    "agui": (
        '"finish_reason":"content_filter"',
        f'"name":"safety","value":{SAFETY_TEXT}',
        '"name":"warning","value":{"reason":"guard_failed","guard":"policy"}',
        '"type":"RUN_FINISHED"',
    ),
}  # fmt: skip


def format_of(name: str) -> Format:
    return get_format(name)


@pytest.mark.parametrize("name", STREAMED)
def test_a_stopped_stream(name: str) -> None:
    body = encoded(format_of(name).encoder("sse", context()), STOPPED).decode()
    for piece in STREAMED[name]:
        assert piece in body, body
    assert body.count("Hi") >= 1


@pytest.mark.parametrize("name", STREAMED)
def test_a_stopped_answer_in_one_object(name: str) -> None:
    body = encoded(format_of(name).whole(context()), STOPPED).decode()
    ends = {
        "openai": '"finish_reason":"content_filter"',
        "completions": '"finish_reason":"content_filter"',
        "anthropic": '"stop_reason":"refusal"',
        "responses": '"incomplete_details":{"reason":"content_filter"}',
        "gai": '"finish_reason":"content_filter"',
    }
    assert ends.get(name, "Hi") in body, body
    json.loads(body)


@pytest.mark.parametrize("name", STREAMED)
def test_a_failed_judge_ends_a_stream_with_an_error_whose_message_names_it(name: str) -> None:
    body = encoded(format_of(name).encoder("sse", context()), FAILED).decode()
    assert "the guard 'policy' failed" in body, body
    if name == "gai":
        assert '"reason":"guard_failed","guard":"policy"}}' in body


def test_the_body_of_a_refusal_has_the_guard_last() -> None:
    error = Error("content_filtered", "the guard 'names' refuses this", reason="guard", guard="names")
    assert (error.status, error.temporary) == (400, False)
    assert [*error.payload()][-2:] == ["reason", "guard"]
    again: Any = Error.from_payload(error.payload())
    assert again.payload() == error.payload()
    for name in STREAMED:
        body = json.loads(format_of(name).error_body(error, "req_1"))
        assert "names" in json.dumps(body)


@pytest.mark.parametrize("action", ["mask", "flag"])
def test_what_a_guard_lets_through_is_not_why_a_provider_refuses(action: str) -> None:
    said: Event = {"type": "safety", "safety": {"category": "words", "action": action, "guard": "names", "on": "input"}}
    events = [START, said, text("Hi"), finish("content_filter"), DONE]
    anthropic = format_of("anthropic")
    for body in (
        encoded(anthropic.encoder("sse", context()), events),
        encoded(anthropic.whole(context()), events),
    ):
        assert b'"stop_details":null' in body
        assert b'"guard":"names"' in body
