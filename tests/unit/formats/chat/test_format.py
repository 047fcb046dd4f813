"""OpenAI's chat format, read back by OpenAI's own SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from gai_fast.model.errors import Error
from tests.unit.formats.chat_reader import (
    DONE_FRAME,
    FINISH_FRAME,
    OPENAI,
    TEXT_FRAME,
    WARNING,
    accumulated_by_sdk,
    client,
    passing,
    read_by_sdk,
    streamed,
)
from tests.unit.formats.every_event import FULL_ANSWER
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    USAGE,
    context,
    encoded,
    finish,
    text,
)


@pytest.mark.parametrize("ids", [False, True])
def test_the_sdk_accumulates_a_full_answer(ids: bool) -> None:
    completion = accumulated_by_sdk(streamed(*FULL_ANSWER, usage=True, ids=ids, retry_ms=3000))
    message = completion.choices[0].message
    assert message.role == "assistant"
    assert message.content == "Grüße, Welt"
    assert message.reasoning_content == "Hm."
    assert [detail["index"] for detail in message.reasoning_details] == [0, 1]
    assert [note.url_citation.url for note in message.annotations] == ["https://a.example", "https://b.example"]
    calls = [(one.id, one.function.name, one.function.arguments) for one in message.tool_calls]
    assert calls == [("call_1", "weather", '{"city":"Oslo"}'), ("call_2", "weather", "{}")]
    assert message.tool_calls[1].extra_content == {"google": {"thought_signature": "sig"}}
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.usage.total_tokens == 30
    assert completion.usage.prompt_tokens_details.cached_tokens == 4
    assert completion.usage.completion_tokens_details.reasoning_tokens == 5


def test_the_sdk_reads_a_stream_with_heartbeats_and_ids() -> None:
    encoder = OPENAI.encoder("sse", context(ids=True, retry_ms=3000))
    body = b""
    for event in (START, text("Hi"), text("!"), finish(), DONE):
        encoder.heartbeat()
        encoder.event(event)
        body += encoder.take()
    read = read_by_sdk(body)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == "Hi!"
    assert read[-1].choices[0].finish_reason == "stop"


def test_the_sdk_finds_usage_on_the_last_chunk_only() -> None:
    read = read_by_sdk(streamed(text("Hi"), finish(usage=USAGE), DONE, usage=True))
    assert [chunk.usage is not None for chunk in read] == [False, False, False, True]
    assert read[-1].choices == []
    assert read[-1].usage is not None
    assert (read[-1].usage.prompt_tokens, read[-1].usage.completion_tokens) == (10, 20)


@pytest.mark.parametrize(
    "make", [lambda: streamed(text("Hi"), ERROR, NOT_DONE), lambda: encoded(passing(TEXT_FRAME), [ERROR, NOT_DONE])]
)
def test_the_sdk_raises_an_error_in_the_stream(make: Callable[[], bytes]) -> None:
    with client(make()) as sdk:
        stream = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)
        read: list[str] = []
        with pytest.raises(openai.APIError) as raised:
            read.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(read) in ("Hi", "")
    assert raised.value.message == 'cut "off"'
    assert raised.value.code == "network"


def test_the_sdk_reads_a_passthrough_with_warnings() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(FINISH_FRAME, last=False)
    encoder.frame(DONE_FRAME, last=True)
    read = read_by_sdk(encoded(encoder, [finish(), DONE]))
    assert [len(chunk.choices) for chunk in read] == [1, 1, 0]
    assert read[-1].model_extra == {"x_gai": {"warnings": [{"reason": "malformed_chunk"}]}}


def test_the_sdk_reads_a_whole_answer() -> None:
    body = encoded(OPENAI.whole(context()), [START, *FULL_ANSWER])
    with client(body, "application/json") as sdk:
        completion = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    message = completion.choices[0].message
    assert message.content == "Grüße, Welt"
    assert message.tool_calls is not None
    assert [one.id for one in message.tool_calls] == ["call_1", "call_2"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 30


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_request", openai.BadRequestError),
        ("unauthorized", openai.AuthenticationError),
        ("forbidden", openai.PermissionDeniedError),
        ("not_found", openai.NotFoundError),
        ("rate_limited", openai.RateLimitError),
        ("provider_unavailable", openai.InternalServerError),
    ],
)
def test_the_sdk_reads_an_error_body(code: Any, expected: type[openai.APIStatusError]) -> None:
    error = Error(code, "no")
    with (
        client(OPENAI.error_body(error, "req_1"), "application/json", error.status) as sdk,
        pytest.raises(expected) as raised,
    ):
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert raised.value.code == code
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["message"] == "no"


def test_a_conversation_grows_by_messages() -> None:
    said, prefill = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    body = {"model": "m", "messages": [said], "logit_bias": {}}
    assert OPENAI.with_messages(body, [prefill]) == {**body, "messages": [said, prefill]}
    assert body["messages"] == [said]


@pytest.mark.parametrize(
    ("body", "is_continued"), [({}, True), ({"n": 1}, True), ({"n": 2}, False), ({"n": "2"}, True)]
)
def test_an_answer_with_several_choices_is_not_continued(body: Any, is_continued: bool) -> None:
    assert OPENAI.is_continued(body) is is_continued
    assert OPENAI.is_continued({**body, "stream": True}) is is_continued
