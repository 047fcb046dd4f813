"""OpenAI's Responses format, read back by OpenAI's own SDK."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import ResponseInputParam
from pydantic import TypeAdapter

from gai_fast.model.errors import Error
from tests.unit.formats.chat_reader import client
from tests.unit.formats.every_event import FULL_ANSWER
from tests.unit.formats.responses_reader import (
    RESPONSE_ID,
    RESPONSES,
    accumulated_by_sdk,
    checked,
    read_by_sdk,
    relayed,
    streamed,
    types,
    upstream,
    whole,
)
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    context,
    encoded,
    finish,
    objects_of,
    text,
)


@pytest.mark.parametrize("ids", [False, True])
def test_the_sdk_accumulates_a_full_answer(ids: bool) -> None:
    response = accumulated_by_sdk(streamed(*FULL_ANSWER, ids=ids, retry_ms=3000))
    assert response.id == RESPONSE_ID
    assert response.output_text == "Grüße, Welt"
    kinds = ["reasoning", "reasoning", "message", "web_search_call", "function_call", "function_call", "reasoning"]
    assert [item.type for item in response.output] == kinds
    assert response.output[0].summary[0].text == "Hm."
    assert [note.url for note in response.output[2].content[0].annotations] == [
        "https://a.example",
        "https://b.example",
    ]
    calls = [(one.call_id, one.name, one.arguments, one.status) for one in response.output[4:6]]
    assert calls == [
        ("call_1", "weather", '{"city":"Oslo"}', "completed"),
        ("call_2", "weather", "{}", "completed"),
    ]
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (10, 20, 30)
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.usage.output_tokens_details.reasoning_tokens == 5
    assert response.model_extra["x_gai"] == {"warnings": [{"reason": "malformed_chunk"}]}


def test_a_whole_answer_is_what_the_stream_ends_with() -> None:
    streamed_end = checked(streamed(*FULL_ANSWER))[-1]["response"]
    assert whole(*FULL_ANSWER[:-1]) == streamed_end


class Place(pydantic.BaseModel):
    city: str


def test_the_sdk_parses_an_answer_by_a_schema() -> None:
    response = accumulated_by_sdk(streamed(text('{"city":'), text('"Oslo"}'), finish(), DONE), text_format=Place)
    assert response.output_parsed == Place(city="Oslo")
    body = json.dumps(whole(text('{"city":"Oslo"}'), finish())).encode()
    with client(body, "application/json") as sdk:
        parsed = sdk.responses.parse(model="m", input="?", text_format=Place)
    assert parsed.output_parsed == Place(city="Oslo")


def test_the_sdk_sees_snapshots_of_texts_and_arguments() -> None:
    with (
        client(streamed(*FULL_ANSWER)) as sdk,
        sdk.responses.stream(model="m", input="?") as stream,
    ):
        seen = [(event.type, event.snapshot) for event in stream if hasattr(event, "snapshot")]
    assert seen == [
        ("response.output_text.delta", "Grüße, "),
        ("response.output_text.delta", "Grüße, Welt"),
        ("response.function_call_arguments.delta", '{"city":'),
        ("response.function_call_arguments.delta", '{"city":"Oslo"}'),
        ("response.function_call_arguments.delta", "{}"),
    ]


def test_the_sdk_reads_a_stream_with_heartbeats_and_ids() -> None:
    encoder = RESPONSES.encoder("sse", context(ids=True, retry_ms=3000))
    body = b""
    for event in (START, text("Hi"), text("!"), finish(), DONE):
        encoder.heartbeat()
        encoder.event(event)
        body += encoder.take()
    read = read_by_sdk(body)
    assert read[-1].response.output_text == "Hi!"
    assert [event.sequence_number for event in read] == list(range(len(read)))


@pytest.mark.parametrize(
    ("reason", "last", "status", "incomplete"),
    [
        ("stop", "response.completed", "completed", None),
        ("length", "response.incomplete", "incomplete", "max_output_tokens"),
        ("content_filter", "response.incomplete", "incomplete", "content_filter"),
        ("cancelled", "response.incomplete", "cancelled", None),
    ],
)
def test_every_stream_has_one_terminal_event(reason: str, last: str, status: str, incomplete: str | None) -> None:
    read = read_by_sdk(streamed(text("Hi"), finish(reason), DONE))
    assert read[-1].type == last
    assert read[-1].response.status == status
    result = read[-1].response.incomplete_details
    assert (result and result.reason) == incomplete


def test_the_sdk_reads_an_error_in_the_stream() -> None:
    read = read_by_sdk(streamed(text("Hi"), ERROR, NOT_DONE))
    assert [event.type for event in read[-2:]] == ["error", "response.failed"]
    assert (read[-2].code, read[-2].message) == ("network", 'cut "off"')
    assert (read[-1].response.error.code, read[-1].response.output_text) == ("server_error", "Hi")


@pytest.mark.parametrize("passes", [True, False])
def test_the_sdk_accumulates_the_answer_of_an_upstream_of_the_dialect(passes: bool) -> None:
    response = accumulated_by_sdk(relayed(upstream(), passes=passes))
    assert (response.output_text, response.usage.total_tokens) == ("Hi there", 3)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (Error("invalid_request", "no"), openai.BadRequestError),
        (Error("unauthorized", "no"), openai.AuthenticationError),
        (Error("forbidden", "no"), openai.PermissionDeniedError),
        (Error("not_found", "no"), openai.NotFoundError),
        (Error("rate_limited", "no"), openai.RateLimitError),
        (Error("overloaded", "no"), openai.InternalServerError),
    ],
)
def test_the_sdk_raises_its_class_of_an_error(error: Error, raised: type[openai.APIStatusError]) -> None:
    body = RESPONSES.error_body(error, "req_1")
    with client(body, "application/json", error.status) as sdk, pytest.raises(raised) as caught:
        sdk.responses.create(model="m", input="?")
    assert (caught.value.code, caught.value.status_code) == (error.code, error.status)


def test_ndjson_has_the_same_objects() -> None:
    lines = streamed(*FULL_ANSWER, framing="ndjson").decode().splitlines()
    assert [json.loads(line) for line in lines] == checked(streamed(*FULL_ANSWER))


def test_only_a_stream_of_sse_without_ids_passes_frames_on() -> None:
    made: list[Any] = [
        RESPONSES.passthrough("sse", context(), whole=False),
        RESPONSES.passthrough("ndjson", context(), whole=False),
        RESPONSES.passthrough("sse", context(ids=True), whole=False),
        RESPONSES.passthrough("sse", context(), whole=True),
    ]
    assert [one is not None for one in made] == [True, False, False, True]


def test_a_whole_answer_of_the_upstream_is_passed_on_as_it_is() -> None:
    encoder = RESPONSES.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(b'{"id":"resp_theirs", "output": []}', last=True)
    assert encoded(encoder, [START, text("Hi"), finish(), DONE]) == b'{"id":"resp_theirs", "output": []}'
    encoder = RESPONSES.passthrough("sse", context(), whole=True)
    assert encoder is not None
    built = json.loads(encoded(encoder, [START, text("Hi"), finish(), DONE]))
    assert built["output"][0]["content"][0]["text"] == "Hi"


def test_a_request_for_an_upstream_of_the_dialect_is_a_stream_that_waits_for_nobody() -> None:
    body = {"model": "m", "input": "?", "background": True, "tools": [{"type": "web_search"}], "top_logprobs": 3}
    sent = RESPONSES.streamed(body)
    assert sent == {"model": "m", "input": "?", "stream": True, "tools": [{"type": "web_search"}], "top_logprobs": 3}
    assert RESPONSES.is_continued(body)


@pytest.mark.parametrize("given", ["Hi", [{"role": "user", "content": "Hi"}]])
def test_a_conversation_grows_by_items(given: Any) -> None:
    body = {"model": "m", "input": given, "store": False}
    grown = RESPONSES.with_messages(body, [{"role": "assistant", "content": "Ho"}])
    assert grown["input"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert {**grown, "input": given} == body
    TypeAdapter(ResponseInputParam).validate_python(grown["input"])


def test_a_response_in_the_background_is_queued() -> None:
    begun = RESPONSES.started_response(context(echo={"background": True}))
    assert (begun["id"], begun["status"], begun["background"]) == (RESPONSE_ID, "queued", True)


def test_usage_is_always_reported() -> None:
    body = {"model": "m", "input": "?", "stream": True}
    assert RESPONSES.with_usage(body) is body
    assert RESPONSES.read_request(body).wants_usage


def test_an_answer_goes_on_with_the_response_that_a_client_knows() -> None:
    """A second upstream's response has another id, which the SDK's helper refuses at the end."""
    first = RESPONSES.passthrough("sse", context(), whole=False)
    assert first is not None
    frames = upstream()
    first.frame(frames[0], last=False)
    first.event({"type": "start", "model": "gpt-x", "provider_metadata": {"id": "resp_theirs"}})
    first.frame(frames[1], last=False)
    body = first.take()
    second = RESPONSES.successor(first, "sse", context())
    body += encoded(second, [{"type": "stream.reset", "reason": "network"}, START, text("Hi"), finish(), DONE])
    response = accumulated_by_sdk(body)
    assert (response.id, response.output_text) == ("resp_theirs", "Hi")
    result = objects_of(body)
    assert types(result)[:3] == ["created", "output_item.added", "content_part.added"]
    assert [one["sequence_number"] for one in result] == list(range(len(result)))
