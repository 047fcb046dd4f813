"""`gai_fast/formats/vercel/request.py`: every part of a `UIMessage` in every state."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gai_fast.formats import get_format
from gai_fast.formats.vercel.request import is_own_body
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import Request

VERCEL = get_format("vercel")
PNG = "data:image/png;base64,aGk="


def read(*messages: dict[str, Any], **more: Any) -> tuple[Request, list[str]]:
    return VERCEL.parse_request({"id": "c", "trigger": "submit-message", "messages": list(messages), **more})


def said(role: str, *parts: Any) -> dict[str, Any]:
    return {"id": "m", "role": role, "parts": [text(part) if isinstance(part, str) else part for part in parts]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "state": "done"}


def tool(state: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool-weather", "toolCallId": "call_1", "state": state, "input": {"city": "Oslo"}, **more}


def messages_of(*messages: dict[str, Any]) -> list[Any]:
    """Returns the native messages, as JSON; nothing may be lost."""
    request, lost = read(*messages)
    assert lost == []
    found: list[Any] = json.loads(msgspec.json.encode(request.messages))
    return found


CALL = {"type": "tool_call", "call_id": "call_1", "name": "weather", "input": {"city": "Oslo"}}


def test_a_conversation() -> None:
    assert messages_of(said("system", "Be", " brief"), said("user", "Hi"), said("assistant", "Yes?")) == [
        {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": " brief"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes?"}]},
    ]


@pytest.mark.parametrize(
    ("file", "native"),
    [
        ({"mediaType": "image/png", "url": PNG}, {"type": "image", "data": "aGk=", "media_type": "image/png"}),
        ({"mediaType": "image/*", "url": "https://a.example/i"}, {"type": "image", "url": "https://a.example/i"}),
        (
            {"mediaType": "audio/wav", "url": "data:audio/wav;base64,aGk="},
            {"type": "audio", "data": "aGk=", "media_type": "audio/wav"},
        ),
        (
            {"mediaType": "application/pdf", "filename": "a.pdf", "url": "data:application/pdf;base64,aGk="},
            {"type": "file", "data": "aGk=", "media_type": "application/pdf", "filename": "a.pdf"},
        ),
    ],
)
def test_files(file: dict[str, Any], native: dict[str, Any]) -> None:
    assert messages_of(said("user", {"type": "file", **file}))[0]["content"] == [native]


def test_documents_and_video_may_have_an_address() -> None:
    pdf = {"type": "file", "mediaType": "application/pdf", "url": "https://a.example/a.pdf"}
    video = {"type": "file", "mediaType": "video/mp4", "url": "https://a.example/v.mp4"}
    sound = {"type": "file", "mediaType": "audio/wav", "url": "https://a.example/s.wav"}
    (message,) = messages_of(said("user", pdf, video))
    assert message["content"] == [
        {"type": "file", "media_type": "application/pdf", "url": "https://a.example/a.pdf"},
        {"type": "video", "url": "https://a.example/v.mp4"},
    ]
    assert read(said("user", "Hear", sound))[1] == ["messages[0].parts[1]"]
    assert read(said("assistant", "Here", video))[1] == ["messages[0].parts[1]"]


@pytest.mark.parametrize(
    ("part", "result"),
    [
        (tool("output-available", output="4 °C"), {"content": "4 °C"}),
        (tool("output-available", output={"t": 4, "w": None}), {"content": '{"t":4,"w":null}'}),
        (tool("output-available"), {"content": "null"}),
        (tool("output-error", errorText="broken"), {"content": "broken", "is_error": True}),
        (
            tool("output-denied", approval={"id": "a", "approved": False}),
            {"content": "The user did not allow this call", "is_error": True},
        ),
        (
            tool("approval-responded", approval={"id": "a", "approved": False, "reason": "never"}),
            {"content": "never", "is_error": True},
        ),
    ],
)
def test_what_became_of_a_call_is_its_result(part: dict[str, Any], result: dict[str, Any]) -> None:
    assistant, found = messages_of(said("assistant", part))
    assert assistant == {"role": "assistant", "content": [CALL]}
    assert {"is_error": False, **found} == {"role": "tool", "call_id": "call_1", "is_error": False, **result}


@pytest.mark.parametrize("state", ["input-available", "approval-requested"])
def test_a_call_that_waits_has_no_result(state: str) -> None:
    assert messages_of(said("assistant", tool(state))) == [{"role": "assistant", "content": [CALL]}]


def test_a_dynamic_tool_names_itself() -> None:
    part = {**tool("output-available", output=1), "type": "dynamic-tool", "toolName": "weather"}
    assert messages_of(said("assistant", part))[0]["content"] == [CALL]


def test_a_call_with_bad_arguments_is_sent_back_as_it_was() -> None:
    part = {**tool("output-error", errorText="no JSON", rawInput="{oops")}
    del part["input"]
    assert messages_of(said("assistant", part))[0]["content"][0]["input"] == "{oops"


def test_an_allowed_call_without_an_output_is_reported() -> None:
    approved = tool("approval-responded", approval={"id": "a", "approved": True})
    assert read(said("user", "Hi"), said("assistant", approved))[1] == ["messages[1].parts[0]"]


def test_what_only_a_page_needs_is_left_out() -> None:
    parts = [
        {"type": "step-start"},
        "Hi",
        {"type": "data-weather", "data": {"t": 4}},
        {"type": "source-url", "sourceId": "1", "url": "https://a.example"},
        {"type": "source-document", "sourceId": "2", "mediaType": "text/plain", "title": "T"},
        tool("input-streaming"),
        {**tool("output-available", output=1), "providerExecuted": True},
        {"type": "text", "text": ""},
        {"type": "reasoning", "text": ""},
    ]
    assert messages_of(said("user", {"type": "data-x", "data": 1}, "Go"), said("assistant", *parts))[1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    ]


def test_each_step_is_a_message_with_its_results_behind_it() -> None:
    second = {**tool("output-available", output="b"), "toolCallId": "call_2"}
    parts = [{"type": "step-start"}, "Look", tool("output-available", output="a"), {"type": "step-start"}, second]
    found = messages_of(said("assistant", *parts, {"type": "step-start"}, "Done"))
    assert [(message["role"], message.get("call_id")) for message in found] == [
        ("assistant", None),
        ("tool", "call_1"),
        ("assistant", None),
        ("tool", "call_2"),
        ("assistant", None),
    ]


def test_signatures_come_back() -> None:
    metadata = {"gai": {"signature": "s", "provider": "anthropic"}}
    redacted = {"gai": {"signature": "o", "redacted": True}, "other": {"x": 1}}
    parts = [
        {"type": "reasoning", "text": "Hm", "providerMetadata": metadata},
        {"type": "reasoning", "text": "", "providerMetadata": redacted},
        tool("input-available", callProviderMetadata={"gai": {"signature": "c"}}),
    ]
    assert messages_of(said("assistant", *parts))[0]["content"] == [
        {"type": "reasoning", "text": "Hm", "signature": "s", "provider": "anthropic", "redacted": False},
        {"type": "reasoning", "text": "", "signature": "o", "redacted": True},
        {**CALL, "signature": "c"},
    ]


def test_a_providers_blocks_come_back() -> None:
    data = {"provider": "anthropic", "block": {"type": "server_tool_use", "id": "s"}}
    parts = [{"type": "data-provider-block", "data": data}, {"type": "data-other", "data": 1}]
    assert messages_of(said("assistant", *parts))[0]["content"] == [{"type": "provider_block", **data}]


def test_members_of_the_body_are_those_of_a_native_request() -> None:
    request, lost = read(
        said("user", "Hi"),
        messageId="m1",
        model="fast",
        temperature=0.5,
        tools=[{"name": "weather"}],
        stream=False,
        seed=None,
        surprise=1,
        query="x",
    )
    assert (request.model, request.temperature, request.stream) == ("fast", 0.5, False)
    assert [each.name for each in request.tools] == ["weather"]
    assert lost == ["surprise", "query"]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("Hi", "Expected `object`, got `str` - at `$.messages[0]`"),
        ({"role": "user"}, "missing required field `parts` - at `$.messages[0]`"),
        (said("tool", "Hi"), "not one of system, user, assistant - at `$.messages[0].role`"),
        (said("user", 5), "Expected `object`, got `int` - at `$.messages[0].parts[0]`"),
        (said("user", {"text": "x"}), "missing required field `type` - at `$.messages[0].parts[0]`"),
        (said("user", {"type": "text"}), "missing required field `text` - at `$.messages[0].parts[0]`"),
        (
            said("user", {"type": "file", "mediaType": "image/png", "url": "data:image/png,hi"}),
            "data:<media type>;base64,<data>` - at `$.messages[0].parts[0].url`",
        ),
        (said("assistant", tool("gone")), "not one of a tool part's - at `$.messages[0].parts[0].state`"),
        (said("assistant", tool("output-error")), "missing required field `errorText`"),
        (said("assistant", {**tool("input-available"), "toolCallId": 5}), "`$.messages[0].parts[0].toolCallId`"),
        (said("assistant", tool("approval-responded", approval=[])), "`$.messages[0].parts[0].approval`"),
        (
            said("assistant", {"type": "reasoning", "text": "", "providerMetadata": {"gai": {"signature": 5}}}),
            "`$.messages[0].parts[0].providerMetadata.gai.signature`",
        ),
        (
            said("assistant", tool("input-available", callProviderMetadata={"gai": []})),
            "`$.messages[0].parts[0].callProviderMetadata.gai`",
        ),
        (
            said("assistant", {"type": "data-provider-block", "data": {"provider": "p"}}),
            "missing required field `block`",
        ),
        (said("assistant", {"type": "data-provider-block", "data": 5}), "`$.messages[0].parts[0].data`"),
        (said("user"), "at least one message with a part - at `$.messages`"),
    ],
)
def test_a_bad_message_is_refused_by_its_path(message: Any, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(message)
    assert problem in caught.value.message


@pytest.mark.parametrize("member", ["id", "messageId", "trigger"])
def test_a_member_of_another_type_is_refused(member: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"`\$\.{member}`"):
        read(said("user", "Hi"), **{member: 5})


@pytest.mark.parametrize(
    ("body", "is_own"),
    [
        ({"id": "c", "messages": []}, True),
        ({"trigger": "submit-message"}, True),
        ({"messages": [{"role": "user", "parts": []}]}, True),
        ({"query": "Hi"}, False),
        ({"messages": [{"role": "user", "content": "Hi"}]}, False),
        ({"messages": ["Hi", 5]}, False),
    ],
)
def test_the_sdks_body_is_reported_from_a_native_request(body: dict[str, Any], is_own: bool) -> None:
    assert is_own_body(body) is is_own
