"""`gai_fast/formats/agui/request.py`: every message and every part of a `RunAgentInput`."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gai_fast.core.requests.signatures import seal
from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import Request

AGUI = get_format("agui")
USER = {"id": "1", "role": "user", "content": "Hi"}


def read(*messages: Any, **more: Any) -> tuple[Request, list[str]]:
    whole = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    return AGUI.parse_request({**whole, "messages": list(messages), **more})


def messages_of(*messages: Any, **more: Any) -> list[Any]:
    request, lost = read(*messages, **more)
    assert lost == []
    found: list[Any] = json.loads(msgspec.json.encode(request.messages))
    return found


def call(call_id: str = "call_1", arguments: str = '{"city": "Oslo"}', **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def test_a_thread_with_every_role() -> None:
    assert messages_of(
        {"id": "1", "role": "developer", "content": "Be brief"},
        {"id": "2", "role": "system", "content": "Be kind"},
        {"id": "3", "role": "user", "content": "Hi", "name": "Ann", "metadata": {"x": 1}},
        {"id": "4", "role": "activity", "activityType": "x", "content": {}},
        {"id": "5", "role": "reasoning", "content": "Hm", "encryptedValue": seal("s", "anthropic")},
        {"id": "6", "role": "assistant", "content": "Look"},
        {"id": "7", "role": "assistant", "toolCalls": [call(encryptedValue=seal("c", None))]},
        {"id": "8", "role": "tool", "toolCallId": "call_1", "content": "4 °C"},
        {"id": "9", "role": "tool", "toolCallId": "call_2", "content": "", "error": "broke"},
        {"id": "10", "role": "assistant", "content": "4"},
    ) == [
        {"role": "system", "content": "Be brief"},
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "Hm", "signature": "s", "redacted": False, "provider": "anthropic"},
                {"type": "text", "text": "Look"},
                {
                    "type": "tool_call",
                    "call_id": "call_1",
                    "name": "weather",
                    "input": {"city": "Oslo"},
                    "signature": "c",
                },
            ],
        },
        {"role": "tool", "call_id": "call_1", "content": "4 °C", "is_error": False},
        {"role": "tool", "call_id": "call_2", "content": "broke", "is_error": True},
        {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
    ]


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        ("opaque", "opaque"),
        ('{"signature":5}', '{"signature":5}'),
        ('{"other":1}', '{"other":1}'),
        ("[" * 5000, "[" * 5000),
        ('{"signature":"s","redacted":true}', '{"signature":"s","redacted":true}'),
    ],
)
def test_an_encrypted_value_of_another_author_is_a_signature(value: str, signature: str) -> None:
    [message] = messages_of({"id": "1", "role": "reasoning", "content": "", "encryptedValue": value})
    assert message["content"][0]["signature"] == signature


@pytest.mark.parametrize(
    ("part", "native"),
    [
        ({"type": "text", "text": "Hi"}, {"type": "text", "text": "Hi"}),
        (
            {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}},
            {"type": "image", "data": "aGk=", "media_type": "image/png"},
        ),
        (
            {"type": "image", "source": {"type": "url", "value": "https://a.example/i"}},
            {"type": "image", "url": "https://a.example/i"},
        ),
        (
            {"type": "audio", "source": {"type": "data", "value": "aGk=", "mimeType": "audio/wav"}},
            {"type": "audio", "data": "aGk=", "media_type": "audio/wav"},
        ),
        (
            {"type": "document", "source": {"type": "data", "value": "aGk=", "mimeType": "application/pdf"}},
            {"type": "file", "data": "aGk=", "media_type": "application/pdf"},
        ),
    ],
)
def test_parts(part: dict[str, Any], native: dict[str, Any]) -> None:
    assert messages_of({**USER, "content": [part]})[0]["content"] == [native]


LOST = [
    {"type": "video", "source": {"type": "data", "value": "aGk=", "mimeType": "video/mp4"}},
    {"type": "document", "source": {"type": "url", "value": "https://a.example/a.pdf"}},
    {"type": "image", "source": {"type": "file", "value": "file-1"}},
    {"type": "binary", "mimeType": "image/png", "data": "aGk="},
]


@pytest.mark.parametrize("part", LOST, ids=lambda part: part["type"])
def test_parts_without_a_native_form_are_reported(part: dict[str, Any]) -> None:
    assert read({**USER, "content": [{"type": "text", "text": "Hi"}, part]})[1] == ["messages[0].content[1]"]


def test_a_result_holds_text_and_images_alone() -> None:
    image = {"type": "image", "source": {"type": "url", "value": "https://a.example/i"}}
    audio = {"type": "audio", "source": {"type": "data", "value": "aGk=", "mimeType": "audio/wav"}}
    result = {"id": "2", "role": "tool", "toolCallId": "c", "content": [image, audio]}
    assert read(USER, result)[1] == ["messages[1].content[1]"]


def test_arguments_that_are_no_json_stay_text_and_numbers_stay_exact() -> None:
    calls = [call(arguments="{oops"), call("b", '{"n": 12345678901234567890}'), call("c", "")]
    request, _ = read({"id": "1", "role": "assistant", "toolCalls": calls})
    assert [bytes(part.input) for part in request.messages[0].content] == [
        b'"{oops"',
        b'{"n":12345678901234567890}',
        b"{}",
    ]


def test_context_stands_in_front() -> None:
    context = [{"description": "The user's name", "value": "Ann"}, {"description": "Time zone", "value": "UTC"}]
    assert messages_of(USER, context=context)[0] == {
        "role": "system",
        "content": "The user's name: Ann\nTime zone: UTC",
    }


def test_forwarded_members_are_those_of_a_native_request() -> None:
    props = {"model": "fast", "temperature": 0.5, "stream": False, "seed": None, "mode": "x"}
    tools = [
        {"name": "weather", "description": "W", "parameters": {"type": "object"}},
        {"name": "b", "description": ""},
    ]
    request, lost = read(USER, forwardedProps=props, tools=tools, state={"a": 1}, resume=[{}], surprise=1)
    assert (request.model, request.temperature, request.stream) == ("fast", 0.5, False)
    assert [tool.name for tool in request.tools] == ["weather", "b"]
    assert lost == ["forwardedProps.mode", "state", "resume", "surprise"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"messages": []}, "at least one message - at `$.messages`"),
        ({"messages": [{"role": "assistant"}]}, "a message for the model - at `$.messages`"),
        ({"messages": ["Hi"]}, "Expected `object`, got `str` - at `$.messages[0]`"),
        ({"messages": [{"role": "robot"}]}, "activity - at `$.messages[0].role`"),
        ({"messages": [{"role": "user"}]}, "missing required field `content` - at `$.messages[0]`"),
        ({"messages": [{**USER, "content": [5]}]}, "at `$.messages[0].content[0]`"),
        ({"messages": [{**USER, "content": [{"type": "image"}]}]}, "`source` - at `$.messages[0].content[0]`"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "`toolCallId` - at `$.messages[0]`"),
        ({"messages": [{"role": "assistant", "toolCalls": [{"id": "c"}]}]}, "at `$.messages[0].toolCalls[0]`"),
        ({"messages": [{"role": "reasoning", "encryptedValue": 5}]}, "`$.messages[0].encryptedValue`"),
        ({"tools": [5]}, "at `$.tools[0]`"),
        ({"context": [{}]}, "`description` - at `$.context[0]`"),
        ({"forwardedProps": "x"}, "at `$.forwardedProps`"),
        ({"forwardedProps": {"temperature": "hot"}}, "at `$.forwardedProps.temperature`"),
        ({"forwardedProps": {"reasoning": {"effort": "all"}}}, "at `$.forwardedProps.reasoning.effort`"),
        ({"forwardedProps": {"model": ""}}, "at `$.forwardedProps.model`"),
        ({"tools": [{"name": ""}]}, "at `$.tools[0].name`"),
        ({"threadId": 5}, "at `$.threadId`"),
    ],
)
def test_a_bad_body_is_refused_by_its_path(body: dict[str, Any], problem: str) -> None:
    whole = {"threadId": "t", "runId": "r", "messages": [USER], **body}
    with pytest.raises(InvalidRequest) as caught:
        AGUI.parse_request(whole)
    assert problem in caught.value.message
