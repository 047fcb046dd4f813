"""The `input` of a Responses request, read as native messages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gai_fast.model.errors import InvalidRequest, Unsupported
from tests.unit.formats.responses_reader import RESPONSES, written
from tests.unit.formats.run_events import RUN_EVENTS
from tests.unit.formats.streams import DONE, START, call, finish, text

USER = {"role": "user", "content": "hi"}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c",
    "name": "f",
    "arguments": '{"a": 1}',
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "ok"}


def read(*items: Any, **members: Any) -> tuple[list[Any], list[str]]:
    request, lost = RESPONSES.parse_request({"input": list(items), **members})
    encoded = msgspec.json.decode(msgspec.json.encode(request.messages))
    return encoded, lost


def content(*parts: Any, role: str = "user") -> tuple[Any, list[str]]:
    (message,), lost = read({"type": "message", "role": role, "content": list(parts)})
    return message["content"], lost


def _bare(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value not in (False, "")}


@pytest.mark.parametrize(
    ("role", "native"), [("user", "user"), ("system", "system"), ("developer", "system"), ("assistant", "assistant")]
)
def test_messages_of_every_role(role: str, native: str) -> None:
    messages, lost = read({"role": role, "content": "hi"}, {"type": "message", "role": role, "content": []}, USER)
    assert lost == []
    assert messages[0]["role"] == native
    assert messages[0]["content"] == ([{"type": "text", "text": "hi"}] if native == "assistant" else "hi")


def test_parts_of_every_kind() -> None:
    found, lost = content(
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "https://a.example/i.png", "detail": "high"},
        {"type": "input_image", "image_url": "data:image/png;base64,eA=="},
        {"type": "input_file", "file_data": "data:application/pdf;base64,eA==", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "mp3"}},
    )
    assert lost == []
    assert found == [
        {"type": "text", "text": "a"},
        {"type": "image", "url": "https://a.example/i.png"},
        {"type": "image", "data": "eA==", "media_type": "image/png"},
        {"type": "file", "data": "eA==", "media_type": "application/pdf", "filename": "a.pdf"},
        {"type": "audio", "data": "eA==", "media_type": "audio/mpeg"},
    ]


def test_a_file_may_have_an_address() -> None:
    found, lost = content({"type": "input_file", "file_url": "https://a.example"})
    assert (found, lost) == ([{"type": "file", "url": "https://a.example"}], [])


def test_parts_that_only_their_upstream_has_are_lost() -> None:
    found, lost = content(
        {"type": "input_text", "text": "a", "x": 1},
        {"type": "input_image", "file_id": "f"},
        {"type": "input_file", "file_id": "f"},
        {"type": "input_video", "video": "x"},
    )
    assert found == [{"type": "text", "text": "a"}]
    assert lost == ["input[0].content[0].x", "input[0].content[1]", "input[0].content[2]", "input[0].content[3]"]


def test_the_assistants_turn_is_one_message() -> None:
    messages, lost = read(
        USER,
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "e",
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {"type": "output_text", "text": "Let me look.", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "No."},
            ],
        },
        CALL,
        RESULT,
    )
    assert lost == []
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert [_bare(part) for part in messages[1]["content"]] == [
        {"type": "reasoning", "text": "Hm.", "signature": "e", "provider": "openai"},
        {"type": "text", "text": "Let me look."},
        {"type": "text", "text": "No."},
        {"type": "tool_call", "call_id": "c", "name": "f", "input": {"a": 1}},
    ]
    assert (messages[2]["call_id"], messages[2]["content"]) == ("c", "ok")


@pytest.mark.parametrize(
    ("members", "text_of"),
    [
        ({"summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]}, "a\n\nb"),
        ({"summary": [], "content": [{"type": "reasoning_text", "text": "a"}, {"text": "b"}]}, "ab"),
    ],
)
def test_reasoning_without_a_signature_is_text(members: Any, text_of: str) -> None:
    messages, _ = read(USER, {"type": "reasoning", "id": "r", **members})
    assert [_bare(part) for part in messages[1]["content"]] == [{"type": "reasoning", "text": text_of}]
    assert len(read(USER, {"type": "reasoning", "summary": []})[0]) == 1


def test_a_custom_tools_call_and_results_of_parts() -> None:
    messages, lost = read(
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x y"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "ok"}]},
    )
    assert lost == []
    assert messages[0]["content"][0]["input"] == "x y"
    assert messages[1]["content"] == [{"type": "text", "text": "ok"}]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed", "action": {}},
        {"type": "mcp_approval_response", "approve": True},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "unheard"},
    ],
)
def test_items_that_only_their_upstream_knows_are_lost(item: Any) -> None:
    messages, lost = read(USER, item)
    assert lost == ["input[1]"]
    assert len(messages) == 1


@pytest.mark.parametrize(
    "name", ["web_search", "file_search", "code_interpreter", "image_generation", "of_the_provider"]
)
def test_an_answer_may_be_returned_with_what_its_provider_has_run(name: str) -> None:
    """Agents return every item of an answer; what a provider has run is no part of a native conversation."""
    run = {"id": "run_1", "name": name}
    events: list[Any] = [
        {"type": "server_tool", "server_tool": {**run, "status": "started", "input": {"query": "q"}}},
        {"type": "server_tool", "server_tool": {**run, "status": "completed", "output": "found"}},
        {"type": "text.delta", "text": "It is so."},
    ]
    answer = written(*events, finish(), DONE)[-1]["response"]["output"]
    assert [item["type"] for item in answer[1:]] == ["message"]
    messages, lost = read(USER, *answer)
    assert lost == []
    assert messages[1:] == [{"role": "assistant", "content": [{"type": "text", "text": "It is so."}]}]
    assert read({"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": []}, USER)[1] == []


def test_nothing_but_lost_items_is_a_question_without_parts() -> None:
    assert read({"type": "unheard", "id": "m"}) == ([{"role": "user", "content": []}], ["input[0]"])


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_an_item_that_only_its_upstream_has_is_never_left_out(item: Any) -> None:
    with pytest.raises(Unsupported, match=r"`input\[1\]` names an item") as caught:
        read(USER, item)
    assert caught.value.reason == "conversation"


INVALID: dict[str, tuple[Any, str]] = {
    "no object": (5, "Expected `object`, got `int` - at `$.input[1]`"),
    "type": ({"type": 5}, "Expected `str`, got `int` - at `$.input[1].type`"),
    "no role": ({"content": "a"}, "missing required field `role` - at `$.input[1]`"),
    "a role": ({"role": "tool", "content": "a"}, "The role is not one of"),
    "no content": ({"role": "user"}, "missing required field `content` - at `$.input[1]`"),
    "content": ({"role": "user", "content": 5}, "Expected `str | array`, got `int` - at `$.input[1].content`"),
    "a part": ({"role": "user", "content": [5]}, "Expected `object`, got `int` - at `$.input[1].content[0]`"),
    "a part without type": (
        {"role": "user", "content": [{}]},
        "missing required field `type` - at `$.input[1].content[0]`",
    ),
    "a text": (
        {"role": "user", "content": [{"type": "input_text", "text": 5}]},
        "Expected `str`, got `int` - at `$.input[1].content[0].text`",
    ),
    "an image": (
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]},
        "at `$.input[1].content[0].image_url`",
    ),
    "a file": (
        {"role": "user", "content": [{"type": "input_file", "file_data": "eA=="}]},
        "at `$.input[1].content[0].file_data`",
    ),
    "audio": (
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
        "missing required field `format` - at `$.input[1].content[0].input_audio`",
    ),
    "a summary": (
        {"type": "reasoning", "summary": [{}]},
        "missing required field `text` - at `$.input[1].summary[0]`",
    ),
    "what is sealed": (
        {"type": "reasoning", "summary": [], "encrypted_content": "gai:{}"},
        "missing required field `signature` - at `$.input[1].encrypted_content`",
    ),
    "a call without id": (
        {"type": "function_call", "name": "f", "arguments": "{}"},
        "missing required field `call_id` - at `$.input[1]`",
    ),
    "arguments": (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
        "Expected `str`, got `object` - at `$.input[1].arguments`",
    ),
    "a custom tool's input": (
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "arguments": "x"},
        "missing required field `input` - at `$.input[1]`",
    ),
    "a result without a call": (RESULT, "No call with this `call_id` came before - at `$.input[1].call_id`"),
    "a result without id": (
        {"type": "function_call_output", "output": "ok"},
        "missing required field `call_id` - at `$.input[1]`",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_wrong_items_are_refused_with_their_path(name: str) -> None:
    item, words = INVALID[name]
    with pytest.raises(InvalidRequest) as raised:
        read(USER, item)
    assert words in raised.value.message


def test_more_items_than_the_limit_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than 20000 items"):
        read(*[USER] * 20_001)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_an_answer_can_be_sent_back_as_it_is(provider: str) -> None:
    redacted: list[Any] = [{"type": "reasoning.signature", "signature": "r", "redacted": True, "block": 1}]
    found = written(
        {**START, "provider": provider},
        {"type": "reasoning.delta", "text": "Hm."},
        {"type": "reasoning.signature", "signature": "s", "block": 0},
        *(redacted if provider == "anthropic" else ()),
        text("Hi"),
        call("c", signature="sig") if provider == "gemini" else call("c"),
        finish("tool_calls"),
        DONE,
    )
    (message, _), lost = read(*found[-1]["response"]["output"], RESULT)
    assert lost == []
    own = {"provider": provider}
    expected: list[Any] = [{"type": "reasoning", "text": "Hm.", "signature": "s", **own}]
    if provider == "anthropic":
        expected.append({"type": "reasoning", "signature": "r", "redacted": True, **own})
    tool: dict[str, Any] = {"type": "tool_call", "call_id": "c", "name": "weather", "input": {"city": "Oslo"}}
    expected += [{"type": "text", "text": "Hi"}, tool | ({"signature": "sig"} if provider == "gemini" else {})]
    assert [_bare(part) for part in message["content"]] == expected


MADE = {
    "type": "mcp_call",
    "id": f"mcp_{'a' * 22}_1",
    "server_label": "docs",
    "name": "search",
    "arguments": '{"q":20000000000000000000}',
    "output": "found",
    "error": None,
    "status": "completed",
}


def test_a_call_that_the_gateway_has_made_is_a_call_and_its_result() -> None:
    failed = {**MADE, "id": f"mcp_{'a' * 22}_2", "server_label": "gateway", "name": "weather", "output": None}
    failed |= {"error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no city"}]}}
    messages, lost = read(USER, MADE, failed, CALL, {"role": "assistant", "content": "Well"}, RESULT)
    assert lost == []
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "tool"]
    calls = [(part["call_id"], part["name"]) for part in messages[1]["content"]]
    assert calls == [(MADE["id"], "docs__search"), (failed["id"], "weather"), ("c", "f")]
    assert messages[1]["content"][0]["input"] == {"q": 20000000000000000000}
    assert (messages[2]["call_id"], messages[2]["content"]) == (MADE["id"], "found")
    assert (messages[3]["content"], messages[3]["is_error"]) == ("no city", True)
    assert read(USER, MADE)[0][-1]["role"] == "tool"


@pytest.mark.parametrize("is_early", [True, False])
def test_the_signature_of_a_call_that_the_gateway_has_made_comes_back_with_it(is_early: bool) -> None:
    """Gemini refuses a call without its signature. The calls of one turn stay in one message."""
    signature: Any = {"type": "reasoning.signature", "signature": "sig", "call_id": "search_1"}
    events: list[Any] = []
    for event in RUN_EVENTS[1:]:
        is_end = event["type"] == "tool.call" and event["call_id"] == "search_1"
        events += [signature, event] if is_end and is_early else [{**event, "signature": "sig"} if is_end else event]
    output = written(*events)[-1]["response"]["output"]
    items = [item for item in output if item["type"] != "mcp_approval_request"]
    messages, lost = read(USER, *items)
    assert lost == []
    assert [message["role"] for message in messages[:4]] == ["user", "assistant", "tool", "tool"]
    calls = [part for part in messages[1]["content"] if part["type"] == "tool_call"]
    assert [part.get("signature") for part in calls] == ["sig", None]


def test_a_call_of_the_gateway_without_a_result_or_of_a_provider_is_dropped() -> None:
    waiting = {**MADE, "output": None, "status": "incomplete"}
    theirs = {**MADE, "id": "mcp_0a1b2c"}
    assert read(USER, waiting, theirs) == read(USER)
    tools = [{"type": "mcp", "server_label": "docs"}]
    assert [message["role"] for message in read(USER, theirs, tools=tools)[0]] == ["user", "assistant", "tool"]


def test_a_call_of_the_gateway_whose_members_are_wrong_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"input\[1\]"):
        read(USER, {**MADE, "arguments": 5})


def test_what_an_answer_of_a_run_holds_can_be_sent_back() -> None:
    output = written(*RUN_EVENTS[1:])[-1]["response"]["output"]
    items = [item for item in output if item["type"] != "mcp_approval_request"]
    messages, lost = read(USER, *items)
    assert lost == []
    results = {message["call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    assert [*results.values()] == ['{"hits":[20000000000000000000]}', "no such city", "written", "y"]
