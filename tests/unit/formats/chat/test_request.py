"""`gai_fast/formats/chat/request.py`: OpenAI's chat requests as native ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw

from gai_fast.core.collector import Collector
from gai_fast.formats import get_format
from gai_fast.formats.chat.request import read_chat_request
from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    CacheMark,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from tests.unit.formats.streams import DONE, START, call, call_delta, call_start, context, encoded, finish, text

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def read(**fields: Any) -> Request:
    """Returns a request that must have a place for all its fields."""
    request, lost = read_chat_request({"messages": [USER], **fields})
    assert lost == []
    return request


def message(**fields: Any) -> Message:
    request, lost = read_chat_request({"messages": [fields]})
    assert lost == []
    return request.messages[0]


def lost_of(**fields: Any) -> list[str]:
    return read_chat_request({"messages": [USER], **fields})[1]


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as raised:
        read_chat_request({"messages": [USER], **fields})
    assert raised.value.reason == "validation"
    return raised.value.message


# ---- fields ----------------------------------------------------------------------------------------------------------


def test_the_format_reads_requests() -> None:
    request, lost = get_format("openai").parse_request({"model": "m", "messages": [USER], "audio": {"voice": "x"}})
    assert (request.model, lost) == ("m", ["audio"])


def test_the_smallest_request() -> None:
    assert read() == Request(messages=[UserMessage(content="Hi")], stream=False)


def test_fields_of_the_same_meaning_are_taken_over() -> None:
    request = read(
        model="m", temperature=1, top_p=0.5, seed=-7, metadata={"k": "v"}, max_tokens=5, stop=["a", "b"], stream=True
    )
    assert request == Request(
        model="m",
        temperature=1.0,
        top_p=0.5,
        seed=-7,
        metadata={"k": "v"},
        max_tokens=5,
        stop=["a", "b"],
        stream=True,
        messages=[UserMessage(content="Hi")],
    )


def test_a_stop_string_is_a_list_of_one() -> None:
    assert read(stop="END").stop == ["END"]


def test_the_newer_token_limit_wins() -> None:
    assert read(max_tokens=5, max_completion_tokens=6).max_tokens == 6
    assert read(max_completion_tokens=6).max_tokens == 6


def test_nulls_are_absent() -> None:
    optional = (
        "model temperature top_p seed metadata max_tokens max_completion_tokens stop stream n reasoning_effort tools "
        "response_format tool_choice functions function_call logprobs user something_new"
    )
    assert read(**dict.fromkeys(optional.split())) == read()


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high"])
def test_reasoning_effort(effort: str) -> None:
    request = read(reasoning_effort=effort)
    assert request.reasoning is not UNSET
    assert request.reasoning.effort == effort


@pytest.mark.parametrize("effort", ["utmost", ""])
def test_an_effort_that_we_do_not_have_has_no_place(effort: str) -> None:
    assert lost_of(reasoning_effort=effort) == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("fields", "native"),
    [
        ({"reasoning": {"effort": "high"}}, Reasoning(effort="high")),
        ({"reasoning": {"max_tokens": 2000, "exclude": True}}, Reasoning(max_tokens=2000, summary="none")),
        ({"reasoning": {"enabled": True}}, Reasoning(effort="medium")),
        ({"reasoning": {"enabled": False}}, Reasoning(effort="none")),
        ({"reasoning": {"enabled": True, "effort": "low", "summary": "auto"}}, Reasoning(effort="low", summary="auto")),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, Reasoning(effort="low")),
        ({"reasoning": {}}, UNSET),
        ({"thinking": {"type": "disabled"}}, Reasoning(effort="none")),
        ({"thinking": {"type": "enabled"}}, Reasoning(effort="medium")),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}, Reasoning(effort="high")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, Reasoning(max_tokens=2000)),
    ],
    ids=str,
)
def test_members_of_other_providers_ask_for_reasoning(fields: dict[str, Any], native: Any) -> None:
    """OpenRouter's `reasoning`; `thinking` of DeepSeek, of Z.AI and of LiteLLM's clients, for any model."""
    assert read(**fields).reasoning == native


def test_reasoning_that_we_do_not_have_has_no_place() -> None:
    fields = {"reasoning": {"effort": "utmost", "x": 1}, "thinking": {"type": "x", "keep": 1}}
    assert lost_of(**fields) == ["reasoning.x", "reasoning.effort", "thinking.keep", "thinking.type"]


def test_several_choices_have_no_place() -> None:
    assert lost_of(n=2) == ["n"]
    assert read(n=1) == read()


@pytest.mark.parametrize(
    ("asked", "native"),
    [
        ({"type": "text"}, ResponseFormat(type="text")),
        ({"type": "json_object"}, ResponseFormat(type="json")),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True},
            },
            ResponseFormat(
                type="json_schema", name="n", schema=Raw(b'{"description":"d","type":"object"}'), strict=True
            ),
        ),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, ResponseFormat(type="json_schema", name="n")),
    ],
)
def test_response_formats(asked: Any, native: ResponseFormat) -> None:
    assert read(response_format=asked).response_format == native


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"stream_options": {"include_usage": True}},
        {"logit_bias": {}, "modalities": ["text"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_change_nothing_are_ignored(fields: dict[str, Any]) -> None:
    assert read(**fields) == read()


def test_fields_without_effect_are_named() -> None:
    fields = {"store": True, "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "x"}}
    assert lost_of(**fields) == [*fields]
    assert {*fields} == get_format("openai").without_effect


def test_fields_without_a_place_are_named_in_their_order() -> None:
    assert lost_of(
        modalities=["text", "audio"],
        audio={"voice": "x"},
        web_search_options={"x": 1},
        something_new=0,
    ) == ["web_search_options.x", "modalities", "audio", "something_new"]


def test_knobs_have_their_names() -> None:
    knobs = {
        "top_k": 5,
        "min_p": 0.1,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": 1, "6": -2.5},
        "logprobs": True,
        "top_logprobs": 2,
        "parallel_tool_calls": False,
        "verbosity": "low",
        "service_tier": "flex",
        "user": "u",
        "safety_identifier": "s",
    }
    request = read(**knobs)
    assert {name: getattr(request, name) for name in knobs} == knobs


@pytest.mark.parametrize("name", ["top_k", "min_p", "logit_bias", "parallel_tool_calls", "verbosity", "user"])
def test_a_knob_of_another_type_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"at `\$\.{name}`"):
        read_chat_request({"messages": [USER], name: [{}]})


# ---- tools -----------------------------------------------------------------------------------------------------------


def test_tools() -> None:
    schema = {"type": "object", "properties": {"n": {"maximum": 12345678901234567}}}
    full = {"name": "f", "description": "d", "parameters": schema, "strict": False}
    request = read(tools=[{"type": "function", "function": full}, {"type": "function", "function": {"name": "g"}}])
    first, second = request.tools
    assert (first.name, first.description, json.loads(bytes(first.parameters)), first.strict) == (
        "f",
        "d",
        schema,
        False,
    )
    assert (second.name, second.description, second.strict) == ("g", UNSET, UNSET)


def test_legacy_functions_are_tools() -> None:
    request = read(functions=[{"name": "f", "parameters": {"type": "object"}}], function_call={"name": "f"})
    assert [tool.name for tool in request.tools] == ["f"]
    assert request.tool_choice == NamedTool(name="f")


@pytest.mark.parametrize(
    ("choice", "native"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),  # Mistral's
        ({"type": "function", "function": {"name": "f"}}, NamedTool(name="f")),
    ],
)
def test_tool_choices(choice: Any, native: Any) -> None:
    assert read(tool_choice=choice).tool_choice == native


def test_a_legacy_function_call_is_a_tool_choice() -> None:
    assert read(function_call="none").tool_choice == "none"


def test_a_search_is_a_tool() -> None:
    place = {"type": "approximate", "approximate": {"city": "Oslo"}}
    (tool,) = read(web_search_options={"search_context_size": "low", "user_location": place}).tools
    assert (tool.type, tool.options) == ("web_search", {"context_size": "low", "user_location": {"city": "Oslo"}})
    (plain,) = read(web_search_options={"search_context_size": "medium"}).tools
    assert plain.options == {}


def test_custom_tools_and_their_calls_are_native_ones() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    custom = {"type": "custom", "custom": {"name": "c", "description": "d", "format": grammar}}
    call = {"id": "1", "type": "custom", "custom": {"name": "c", "input": "SELECT 1"}}
    messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "x"}]
    request = read(tools=[custom], tool_choice={"type": "custom", "custom": {"name": "c"}}, messages=messages)
    (tool,) = request.tools
    assert (tool.type, tool.name, tool.description) == ("custom", "c", "d")
    assert tool.format == {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    assert request.tool_choice == NamedTool(name="c")
    called: Any = request.messages[0].content[0]
    assert (called.name, bytes(called.input)) == ("c", b'"SELECT 1"')


def test_tools_of_other_kinds_have_no_place() -> None:
    custom = {"type": "browser", "browser": {}}
    kept = {"type": "function", "function": {"name": "f", "x": 1}, "y": 1}
    assert lost_of(tools=[custom, kept], tool_choice={"type": "browser"}) == [
        "tools[0]",
        "tools[1].y",
        "tools[1].function.x",
        "tool_choice",
    ]


def test_a_tool_or_its_function_may_end_what_is_cached() -> None:
    """As parts may; clients of LiteLLM send both forms."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    tools = [
        {"type": "function", "function": {"name": "f"}, **mark},
        {"type": "function", "function": {"name": "g", "cache_control": {"type": "ephemeral"}}},
    ]
    request = read(tools=tools)
    assert [tool.cache for tool in request.tools] == [CacheMark(ttl="1h"), True]


# ---- messages --------------------------------------------------------------------------------------------------------


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_a_message_may_end_what_is_cached(role: str) -> None:
    """LiteLLM's clients mark the message as OpenRouter's mark a part: its last part is meant."""
    marked = [TextPart(text="Hi", cache=True)]
    assert message(role=role, content="Hi", **MARK).content == marked
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "Hi"}]
    assert message(role=role, content=texts, **MARK).content == [TextPart(text="a"), *marked]
    assert not message(role=role, content="", **MARK).content


def test_a_result_and_a_message_of_sound_may_be_marked() -> None:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL], **MARK}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "4", "cache_control": {"type": "x", "ttl": "1h"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    heard = {"role": "user", "content": [{"type": "text", "text": "?"}, sound], **MARK}
    request = read(messages=[USER, answer, result, heard])
    assert request.messages[2].content == [TextPart(text="4", cache=CacheMark(ttl="1h"))]
    said: Any = request.messages[3].content[0]
    assert said == TextPart(text="?", cache=True)


def test_a_mark_without_a_part_of_its_own_stands_at_the_last_one_before() -> None:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL], **MARK}
    result = {"role": "tool", "tool_call_id": "call_1", "content": ""}
    asked = [TextPart(text="Hi", cache=True)]
    assert read(messages=[USER, answer]).messages[0].content == asked
    assert read(messages=[USER, {**answer, "cache_control": None}, {**result, **MARK}]).messages[0].content == asked
    sound = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    assert read(messages=[USER, {"role": "user", "content": [sound], **MARK}, USER]).messages[0].content == asked
    nothing = read(messages=[{"role": "user", "content": [sound], **MARK}, USER])
    assert nothing.messages[1].content == "Hi"


def test_thinking_blocks_of_litellm_are_anthropics_reasoning() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "s2"},
        {"type": "thinking", "thinking": "So", "signature": None},
    ]
    given = message(role="assistant", content="4", thinking_blocks=blocks, reasoning_content="HmSo")
    assert given.content == [
        ReasoningPart(text="Hm", signature="s1", provider="anthropic"),
        ReasoningPart(text="", signature="s2", provider="anthropic", redacted=True),
        ReasoningPart(text="So"),
        TextPart(text="4"),
    ]
    assert message(role="assistant", content="4", thinking_blocks=[]).content == [TextPart(text="4")]
    assert "messages[0].thinking_blocks[0]" in refused(
        messages=[{"role": "assistant", "content": "4", "thinking_blocks": [{"thinking": "x"}]}]
    )


def test_details_of_reasoning_stand_for_its_blocks() -> None:
    detail = {"type": "reasoning.text", "text": "Hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    block = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    given = message(role="assistant", content="4", thinking_blocks=[block], reasoning_details=[detail])
    assert given.content == [ReasoningPart(text="Hm", signature="s", provider="anthropic"), TextPart(text="4")]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions(role: str) -> None:
    assert message(role=role, content="Be brief.") == SystemMessage(content="Be brief.")
    parts = [{"type": "text", "text": "Be brief."}]
    assert message(role=role, content=parts) == SystemMessage(content=[TextPart(text="Be brief.")])


def test_user_parts() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "flac"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,DDDD"}},
    ]
    assert message(role="user", content=parts) == UserMessage(
        content=[
            TextPart(text="What is this?"),
            ImagePart(url="https://example.org/a.png"),
            ImagePart(data="AAAA", media_type="image/png"),
            AudioPart(data="BBBB", media_type="audio/mpeg"),
            AudioPart(data="BBBB", media_type="audio/flac"),
            FilePart(data="CCCC", media_type="application/pdf", filename="a.pdf"),
            FilePart(data="DDDD", media_type="text/plain"),
        ]
    )


def test_a_file_may_have_an_address() -> None:
    """As OpenRouter's clients send documents."""
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://a.example/a.pdf"}}
    assert message(role="user", content=[file]).content == [FilePart(url="https://a.example/a.pdf", filename="a.pdf")]


def test_an_assistants_text_and_refusal_are_text() -> None:
    expected = AssistantMessage(content=[TextPart(text="Well. "), TextPart(text="No.")])
    assert message(role="assistant", content="Well. ", refusal="No.") == expected
    parts = [{"type": "text", "text": "Well. "}, {"type": "refusal", "refusal": "No."}]
    assert message(role="assistant", content=parts) == expected


def test_an_assistants_calls_keep_their_arguments_verbatim() -> None:
    arguments = '{"n": 12345678901234567890, "x": 1.10, "s": "a b"}'
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}},
        {"id": "b", "index": 1, "function": {"name": "g", "arguments": ""}},
        {
            "id": "c",
            "type": "function",
            "function": {"name": "h", "arguments": "not json"},
            "extra_content": {"google": {"thought_signature": "sig"}},
        },
    ]
    assert message(role="assistant", content=None, tool_calls=calls) == AssistantMessage(
        content=[
            ToolCallPart(call_id="a", name="f", input=Raw(b'{"n":12345678901234567890,"x":1.10,"s":"a b"}')),
            ToolCallPart(call_id="b", name="g", input=Raw(b"{}")),
            ToolCallPart(call_id="c", name="h", input=Raw(b'"not json"'), signature="sig"),
        ]
    )


@pytest.mark.parametrize("place", ["call", "function"])
def test_googles_signature_of_a_call_may_stand_where_litellm_puts_it(place: str) -> None:
    fields = {"provider_specific_fields": {"thought_signature": "sig"}}
    function = {"name": "f", "arguments": "{}", **(fields if place == "function" else {})}
    call = {"id": "a", "type": "function", "function": function, **(fields if place == "call" else {})}
    given = message(role="assistant", content="", tool_calls=[call], provider_specific_fields={"refusal": None})
    assert given == AssistantMessage(content=[ToolCallPart(call_id="a", name="f", input=Raw(b"{}"), signature="sig")])


def test_a_tools_result() -> None:
    assert message(role="tool", tool_call_id="call_1", name="weather", content="4 °C") == ToolMessage(
        call_id="call_1", content="4 °C"
    )


def test_a_legacy_call_and_its_result_find_each_other() -> None:
    request = read(
        messages=[
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "2"},
        ]
    )
    ids = [
        part.call_id
        for said in request.messages
        if isinstance(said, AssistantMessage)
        for part in said.content
        if isinstance(part, ToolCallPart)
    ]
    assert [said.call_id for said in request.messages if isinstance(said, ToolMessage)] == ids
    assert len(set(ids)) == 2


def test_what_a_message_cannot_say_is_named() -> None:
    messages = [
        {
            "role": "user",
            "name": "Ann",
            "content": [{"type": "video_url", "video_url": {}}, {"type": "text", "text": "?"}],
        },
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_id": "f"}}, {"type": "text", "text": "?", "x": 1}],
        },
        {"role": "assistant", "audio": {"id": "a"}, "tool_calls": [{"id": "c", "type": "browser"}]},
        {"role": "assistant", "content": "ok", "annotations": [], "refusal": None, "audio": None},
    ]
    assert lost_of(messages=messages) == [
        "messages[0].name",
        "messages[0].content[0]",
        "messages[1].content[0]",
        "messages[1].content[1].x",
        "messages[2].audio",
        "messages[2].tool_calls[0]",
    ]


# ---- reasoning comes back --------------------------------------------------------------------------------------------


def reasoning(**fields: Any) -> list[Any]:
    said = message(role="assistant", **fields)
    assert isinstance(said, AssistantMessage)
    return [part for part in said.content if isinstance(part, ReasoningPart)]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_text_comes_back(key: str) -> None:
    assert reasoning(content="x", **{key: "Hm."}) == [ReasoningPart(text="Hm.")]


def test_a_signature_without_text_signs_the_reasoning() -> None:
    details = [
        {"type": "reasoning.encrypted", "data": "opaque", "index": 0},
        {"type": "reasoning.text", "signature": "sig", "format": "anthropic-claude-v1", "index": 1},
    ]
    assert reasoning(content="x", reasoning_content="Hm.", reasoning_details=details) == [
        ReasoningPart(signature="opaque", redacted=True),
        ReasoningPart(text="Hm.", signature="sig", provider="anthropic"),
    ]


def test_reasoning_beside_opaque_blocks_stands_before_them() -> None:
    details = [{"type": "reasoning.encrypted", "data": "opaque", "format": "new-v9"}]
    assert reasoning(content="x", reasoning_content="Hm.", reasoning_details=details) == [
        ReasoningPart(text="Hm."),
        ReasoningPart(signature="opaque", redacted=True),
    ]


def test_details_with_text_stand_for_themselves() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "First.", "index": 0},
        {"type": "reasoning.text", "text": "Second.", "signature": "sig", "index": 1},
    ]
    assert reasoning(content="x", reasoning_content="First.Second.", reasoning_details=details) == [
        ReasoningPart(text="First."),
        ReasoningPart(text="Second.", signature="sig"),
    ]


def test_a_block_in_pieces_is_one_block() -> None:
    details = [
        {"type": "reasoning.text", "text": "Hm", "index": 0},
        {"type": "reasoning.text", "text": ".", "index": 0},
        {"type": "reasoning.text", "signature": "sig", "index": 0},
        {"type": "reasoning.text", "text": "Next.", "index": 0},
        {"type": "reasoning.text", "text": "Other.", "index": 1},
    ]
    assert reasoning(content="x", reasoning_details=details) == [
        ReasoningPart(text="Hm.", signature="sig"),
        ReasoningPart(text="Next."),
        ReasoningPart(text="Other."),
    ]


def test_text_that_the_details_lack_is_of_the_first_block() -> None:
    details = [
        {"type": "reasoning.text", "signature": "one", "index": 0},
        {"type": "reasoning.encrypted", "data": "opaque", "index": 1},
        {"type": "reasoning.text", "text": "Second.", "signature": "two", "index": 2},
    ]
    assert reasoning(content="x", reasoning_content="First.Second.", reasoning_details=details) == [
        ReasoningPart(text="First.", signature="one"),
        ReasoningPart(signature="opaque", redacted=True),
        ReasoningPart(text="Second.", signature="two"),
    ]
    assert reasoning(content="x", reasoning_content="Other.", reasoning_details=details[2:]) == [
        ReasoningPart(text="Second.", signature="two")
    ]


def test_a_signature_of_the_text_stands_behind_it() -> None:
    details = [{"type": "reasoning.text", "signature": "sig", "format": "google-gemini-v1", "index": 0}]
    said = message(role="assistant", content="42", reasoning_content="Hm.", reasoning_details=details)
    assert said.content == [
        ReasoningPart(text="Hm."),
        TextPart(text="42"),
        ReasoningPart(signature="sig", provider="gemini"),
    ]


def test_our_own_answer_can_be_sent_back() -> None:
    events = [
        {**START, "provider": "anthropic"},
        {"type": "reasoning.delta", "text": "Hm."},
        {"type": "reasoning.signature", "signature": "sig"},
        {"type": "reasoning.signature", "signature": "opaque", "redacted": True},
        text("Let me look."),
        call_start(),
        call_delta('{"city":"Oslo"}'),
        call(signature="call-sig"),
        {**finish("tool_calls"), "provider": "anthropic"},
        DONE,
    ]
    answer = json.loads(encoded(get_format("openai").whole(context()), events))
    collector = Collector()
    for event in events:
        collector.event(event)
    native, _ = read_chat_request({"messages": [USER, answer["choices"][0]["message"]]})
    said = native.messages[1]
    assert isinstance(said, AssistantMessage)
    expected = collector.result().message["content"]
    assert said.content == [
        ReasoningPart(text="Hm.", signature="sig", provider="anthropic"),
        ReasoningPart(signature="opaque", redacted=True, provider="anthropic"),
        TextPart(text="Let me look."),
        ToolCallPart(call_id="call_1", name="weather", input=Raw(b'{"city":"Oslo"}'), signature="call-sig"),
    ]
    assert [part["type"] for part in expected] == ["reasoning", "reasoning", "text", "tool_call"]


# ---- what is wrong is named by its path ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": None}, "$.messages"),
        ({"messages": []}, "$.messages"),
        ({"messages": {}}, "$.messages"),
        ({"messages": ["Hi"]}, "$.messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "$.messages[0]"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user"}]}, "$.messages[0]"),
        ({"messages": [{"role": "user", "content": 1}]}, "$.messages[0].content"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "$.messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "$.messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            "$.messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "AAAA"}}]}]},
            "$.messages[0].content[0].file.file_data",
        ),
        ({"messages": [{"role": "tool", "content": "4"}]}, "$.messages[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "4"}]}, "$.messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "$.messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "$.messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "id": 7}]}]},
            "$.messages[0].tool_calls[0].id",
        ),
        (
            {"messages": [{"role": "assistant", "reasoning_details": [{"type": "reasoning.encrypted"}]}]},
            "$.messages[0].reasoning_details[0]",
        ),
        ({"stream": "yes"}, "$.stream"),
        ({"n": True}, "$.n"),
        ({"stop": 1}, "$.stop"),
        ({"stop": [1]}, "$.stop[0]"),
        ({"model": 1}, "$.model"),
        ({"temperature": 3}, "$.temperature"),
        ({"max_completion_tokens": "5"}, "$.max_completion_tokens"),
        ({"max_completion_tokens": 0}, "$.max_completion_tokens"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"reasoning_effort": 1}, "$.reasoning_effort"),
        ({"reasoning": "high"}, "$.reasoning"),
        ({"reasoning": {"effort": 1}}, "$.reasoning.effort"),
        ({"reasoning": {"max_tokens": "1"}}, "$.reasoning.max_tokens"),
        ({"reasoning": {"exclude": 1}}, "$.reasoning.exclude"),
        ({"reasoning": {"enabled": 1}}, "$.reasoning.enabled"),
        ({"reasoning": {"summary": 1}}, "$.reasoning.summary"),
        ({"thinking": True}, "$.thinking"),
        ({"thinking": {"type": 1}}, "$.thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "$.thinking.budget_tokens"),
        ({"response_format": "json"}, "$.response_format"),
        ({"response_format": {"type": "json_schema"}}, "$.response_format"),
        ({"tools": [{"type": "function"}]}, "$.tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": 1}}]}, "$.tools[0].function.name"),
        ({"tools": [{"type": "other"}, {"function": {"name": ""}}]}, "$.tools[1].function.name"),
        ({"functions": [{}]}, "$.functions[0]"),
        ({"functions": [{"name": ""}]}, "$.functions[0].name"),
        ({"tool_choice": "maybe"}, "$.tool_choice"),
        ({"tool_choice": {"type": "function"}}, "$.tool_choice"),
    ],
    ids=str,
)
def test_a_wrong_type_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    assert refused(**fields).endswith(f"`{path}`")


def test_the_text_never_quotes_the_request() -> None:
    assert "secret" not in refused(messages=[{"role": "user", "content": {"secret": "secret"}}])
    assert "secret" not in refused(messages=[{"role": "secret", "content": ""}])


def test_a_format_without_requests_says_so() -> None:
    for ask in (get_format("gai").read_request, get_format("gai").with_usage, get_format("gai").parse_request):
        with pytest.raises(Unsupported, match="format 'gai' has no request of its own"):
            ask({})


@pytest.mark.timeout(100)
def test_a_block_of_reasoning_in_many_pieces_is_joined_in_linear_time() -> None:
    """Each piece that was added copied all pieces before it."""
    pieces = [{"type": "reasoning.text", "text": said, "index": 0} for said in ("x" * 8_000_000, *["a"] * 160_000)]
    asked = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "reasoning_details": pieces}]}
    request, _ = read_chat_request(asked)
    [part] = request.messages[1].content
    assert isinstance(part, ReasoningPart)
    assert part.text == "x" * 8_000_000 + "a" * 160_000
