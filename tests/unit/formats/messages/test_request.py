"""Messages requests → native ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gai_fast.formats.messages.parts import error_object
from gai_fast.formats.messages.request import is_continued, read_messages_request
from gai_fast.model.errors import InvalidRequest, Unsupported
from tests.unit.formats.messages_reader import ANTHROPIC

USER = {"role": "user", "content": "Hi"}
CALLED = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}],
}


def read(**body: Any) -> tuple[Any, list[str]]:
    request, lost = read_messages_request({"messages": [USER], "max_tokens": 9, **body})
    return _without_false(json.loads(msgspec.json.encode(request))), lost


def _without_false(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_false(one) for one in value]
    if not isinstance(value, dict):
        return value
    empty: tuple[Any, ...] = (False, {})
    return {key: _without_false(one) for key, one in value.items() if key == "input" or one not in empty}


def messages_of(*messages: Any) -> tuple[Any, list[str]]:
    native, lost = read(messages=list(messages))
    return native["messages"], lost


def test_a_plain_request() -> None:
    native, lost = read(
        model="m", system="Be brief.", temperature=0.5, top_p=1, stop_sequences=["END"], stream=True, max_tokens=5
    )
    assert lost == []
    assert native["messages"] == [{"role": "system", "content": "Be brief."}, USER]
    assert (native["model"], native["max_tokens"], native["temperature"], native["stop"]) == ("m", 5, 0.5, ["END"])
    assert native["stream"] is True
    assert "stream" not in read()[0]


def test_a_system_prompt_may_be_blocks_with_marks_of_a_cache() -> None:
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    native, lost = read(system=[block, {"type": "text", "text": "Please."}])
    assert lost == []
    parts = [{"type": "text", "text": "Be brief.", "cache": True}, {"type": "text", "text": "Please."}]
    assert native["messages"][0] == {"role": "system", "content": parts}


MARK = {"cache_control": {"type": "ephemeral"}}
CALL_OF_F = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
STORED = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}


@pytest.mark.parametrize(
    "later",
    [
        [{"role": "assistant", "content": [CALL_OF_F | MARK]}],
        [{"role": "assistant", "content": [{"type": "container_upload", "file_id": "f"} | MARK]}],
        [{"role": "assistant", "content": [{"type": "unheard"} | MARK]}],
        [{"role": "user", "content": [STORED | MARK]}],
        [
            {"role": "assistant", "content": [CALL_OF_F]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": ""} | MARK]},
        ],
        [
            {"role": "assistant", "content": [CALL_OF_F]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [STORED | MARK]}]},
        ],
    ],
)
def test_a_mark_without_a_part_of_its_own_stands_at_the_last_one_before(later: list[Any]) -> None:
    messages, _ = messages_of(USER, *later, USER)
    assert messages[0]["content"] == [{"type": "text", "text": "Hi", "cache": True}]
    assert messages[-1]["content"] == "Hi"
    assert json.dumps(messages).count('"cache"') == 1


def test_media_become_parts() -> None:
    content = [
        {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
            "citations": {"enabled": False},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "hi"}]}},
    ]
    messages, lost = messages_of({"role": "user", "content": content})
    assert lost == []
    text_file = {"type": "file", "data": "aGk=", "media_type": "text/plain"}
    assert messages[0]["content"] == [
        {"type": "text", "text": "Look", "cache": True},
        {"type": "image", "data": "aGk=", "media_type": "image/png"},
        {"type": "image", "url": "https://a.example/x.png"},
        {"type": "file", "data": "aGk=", "media_type": "application/pdf", "filename": "a.pdf"},
        text_file,
        text_file,
    ]


def test_results_of_tools_are_messages_of_their_own_in_order() -> None:
    second = {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}}
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_2",
        "is_error": True,
        "content": [
            {"type": "text", "text": "no"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
        ],
    }
    messages, lost = messages_of(
        USER,
        {"role": "assistant", "content": [*CALLED["content"], second]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "4 °C"},
                result,
                {"type": "text", "text": "And?"},
            ],
        },
        CALLED,
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
    )
    assert lost == []
    image = {"type": "image", "data": "aGk=", "media_type": "image/png"}
    assert messages[2] == {"role": "tool", "call_id": "toolu_1", "content": "4 °C"}
    file = {"type": "file", "data": "aGk=", "media_type": "application/pdf"}
    assert messages[3]["content"] == [{"type": "text", "text": "no"}, image, file]
    assert messages[3]["is_error"] is True
    assert messages[4] == {"role": "user", "content": [{"type": "text", "text": "And?"}]}
    assert messages[6] == {"role": "tool", "call_id": "toolu_1", "content": ""}


def test_an_earlier_answer_keeps_its_reasoning_calls_and_signatures() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm", "signature": "own"},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "thinking", "thinking": "Hm", "signature": 'gai:{"provider":"openai","signature":"theirs"}'},
        {"type": "redacted_thinking", "data": 'gai:{"provider":"gemini","signature":"theirs"}'},
        {"type": "redacted_thinking", "data": 'gai:{"provider":"gemini","signature":"sig","call_id":"toolu_1"}'},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        {"type": "text", "text": "Let me look.", "citations": [{"type": "x"}]},
        *CALLED["content"],
    ]
    messages, lost = messages_of(USER, {"role": "assistant", "content": content})
    assert lost == []
    assert messages[1]["content"] == [
        {"type": "reasoning", "text": "Hm", "signature": "own", "provider": "anthropic"},
        {"type": "reasoning", "text": "", "signature": "opaque", "redacted": True, "provider": "anthropic"},
        {"type": "reasoning", "text": "Hm", "signature": "theirs", "provider": "openai"},
        {"type": "reasoning", "text": "", "signature": "theirs", "redacted": True, "provider": "gemini"},
        {"type": "reasoning", "text": "unsigned"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_call", "call_id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}, "signature": "sig"},
    ]


def test_tools_and_choices() -> None:
    tool = {"name": "weather", "description": "d", "input_schema": {"type": "object"}, "strict": True}
    native, lost = read(
        tools=[{**tool, "type": "custom", "cache_control": {}, "defer_loading": False, "allowed_callers": ["direct"]}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": False},
    )
    assert lost == []
    schema = {"type": "object"}
    expected = {
        "type": "function",
        "name": "weather",
        "description": "d",
        "parameters": schema,
        "strict": True,
        "cache": True,
    }
    assert native["tools"] == [expected]
    assert native["tool_choice"] == {"name": "weather"}


@pytest.mark.parametrize(("given", "ours"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_each_tool_choice_has_its_word(given: str, ours: str) -> None:
    assert read(tool_choice={"type": given})[0]["tool_choice"] == ours


def test_thinking_and_the_form_of_the_answer() -> None:
    schema = {"type": "object"}
    thinking = {"type": "enabled", "budget_tokens": 2048, "display": "omitted"}
    output = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    native, lost = read(thinking=thinking, output_config=output)
    assert lost == []
    assert native["reasoning"] == {"effort": "low", "max_tokens": 2048}
    assert native["response_format"] == {"type": "json_schema", "schema": schema, "strict": True}
    assert native["provider_options"] == {"anthropic": {"thinking": thinking}}
    native, _ = read(output_format={"type": "json_schema", "schema": schema, "name": "n"})
    assert native["response_format"]["name"] == "n"


@pytest.mark.parametrize(
    ("thinking", "output", "effort"),
    [
        ({"type": "disabled"}, {}, "none"),
        ({"type": "between_tools"}, {}, "none"),
        ({"type": "adaptive"}, {}, "high"),
        ({"type": "adaptive"}, {"effort": "max"}, "max"),
        ({"type": "disabled"}, {"effort": "low"}, "none"),
    ],
)
def test_thinking_is_an_effort_elsewhere_and_anthropic_gets_it_unchanged(
    thinking: dict[str, Any], output: dict[str, Any], effort: str
) -> None:
    native, lost = read(thinking=thinking, output_config=output)
    assert (native["reasoning"], lost) == ({"effort": effort}, [])
    kept = {"output_config": output} if output and effort == "none" else {}
    assert native["provider_options"] == {"anthropic": {"thinking": thinking, **kept}}


def test_what_is_harmless_goes_to_anthropic_alone() -> None:
    native, lost = read(metadata={"user_id": "u"}, service_tier="auto", cache_control={"type": "ephemeral"})
    assert lost == []
    options = {"cache_control": {"type": "ephemeral"}, "metadata": {"user_id": "u"}, "service_tier": "auto"}
    assert native["provider_options"] == {"anthropic": options}
    assert "metadata" not in native
    assert native["user"] == "u"
    with pytest.raises(InvalidRequest, match=r"`\$\.metadata\.user_id`"):
        read(metadata={"user_id": 5})
    assert read(mcp_servers=[], speed="standard", context_management=None, betas=[])[1] == []
    assert read(context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]})[1] == []


def test_knobs_have_their_names() -> None:
    one_call = {"type": "any", "disable_parallel_tool_use": True}
    request, lost = read_messages_request({"messages": [USER], "top_k": 5, "tool_choice": one_call})
    assert lost == []
    assert (request.top_k, request.tool_choice, request.parallel_tool_calls) == (5, "required", False)
    request, _ = read_messages_request({"messages": [USER], "tool_choice": {"type": "any"}})
    assert request.parallel_tool_calls is msgspec.UNSET


LOST: list[tuple[dict[str, Any], list[str]]] = [
    ({"mcp_servers": [{}], "container": "c", "inference_geo": "us"}, ["mcp_servers", "container", "inference_geo"]),
    ({"context_management": {"edits": [{"type": "x"}]}}, ["context_management"]),
    ({"thinking": {"type": "sometimes"}}, ["thinking"]),
    ({"output_config": {"effort": "most", "more": 1}}, ["output_config.more", "output_config.effort"]),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, ["tools[0]"]),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search", "x": 1}]}, ["tools[0].x"]),
    ({"tools": [{"name": "a", "input_schema": {}, "input_examples": [{}]}]}, ["tools[0].input_examples"]),
    ({"system": [{"type": "image"}]}, ["system[0]"]),
]


@pytest.mark.parametrize(("body", "paths"), LOST, ids=lambda one: str(one)[:30])
def test_what_cannot_be_expressed_is_named_by_its_path(body: dict[str, Any], paths: list[str]) -> None:
    assert read(**body)[1] == paths


LOST_BLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
    ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
    (
        {"type": "document", "source": {"type": "text", "data": "x"}, "context": "c"},
        "messages[0].content[0].context",
    ),
    (
        {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
        "messages[0].content[0].citations",
    ),
    (
        {"type": "search_result", "title": "T", "source": "s", "content": [], "citations": {"enabled": True}},
        "messages[0].content[0].citations",
    ),
    ({"type": "container_upload", "file_id": "f"}, "messages[0].content[0]"),
]


@pytest.mark.parametrize(("block", "path"), LOST_BLOCKS, ids=lambda one: str(one)[:40])
def test_blocks_that_cannot_be_expressed_are_named_by_their_path(block: dict[str, Any], path: str) -> None:
    text = {"type": "text", "text": "x"}
    assert messages_of({"role": "user", "content": [block, text]})[1] == [path]


def test_what_a_result_or_an_answer_cannot_express_is_named() -> None:
    found = {"type": "hologram"}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [found]}
    run = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    call = {**CALLED["content"][0], "caller": {"type": "code_execution_20250825", "tool_id": "s"}}
    answer = {"role": "assistant", "content": [run, {**call}]}
    _, lost = messages_of(USER, answer, {"role": "user", "content": [result]}, {"role": "system", "content": "x"})
    assert lost == ["messages[1].content[1].caller", "messages[2].content[0].content[0]"]


SEARCH_RESULT = {
    "type": "search_result",
    "title": "Oslo",
    "source": "https://a.example",
    "content": [{"type": "text", "text": "4 degrees"}, {"type": "text", "text": "Rain"}],
    "citations": {"enabled": False},
    "cache_control": {"type": "ephemeral"},
}


def test_search_results_and_names_of_tools_are_text() -> None:
    found = {"type": "text", "text": "Oslo\nhttps://a.example\n4 degrees\nRain", "cache": True}
    parts = [SEARCH_RESULT, {"type": "tool_reference", "tool_name": "weather"}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": parts}
    messages, lost = messages_of(USER, CALLED, {"role": "user", "content": [result, SEARCH_RESULT]})
    assert lost == []
    assert messages[2]["content"] == [found, {"type": "text", "text": "weather"}]
    assert messages[3]["content"] == [found]


@pytest.mark.parametrize("name", ["title", "source", "content"])
def test_a_search_result_needs_its_members(name: str) -> None:
    block = {key: value for key, value in SEARCH_RESULT.items() if key != name}
    with pytest.raises(InvalidRequest, match=rf"`{name}` - at `\$\.messages\[0\]\.content\[0\]`"):
        messages_of({"role": "user", "content": [block]})


def test_blocks_that_only_anthropic_understands_are_its_own() -> None:
    run = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    blocks = [run, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, {"type": "compaction"}]
    messages, lost = messages_of(USER, {"role": "assistant", "content": blocks})
    assert lost == []
    assert messages[1]["content"] == [
        {"type": "provider_block", "provider": "anthropic", "block": one} for one in blocks
    ]


def test_tools_that_anthropic_runs_are_native_ones() -> None:
    search = {
        "type": "web_search_20250305",
        "name": "web_search",
        "max_uses": 2,
        "cache_control": {"type": "ephemeral"},
    }
    native, lost = read(tools=[search, {"type": "code_execution_20250825", "name": "code_execution"}])
    assert lost == []
    assert native["tools"] == [
        {"type": "web_search", "options": {"max_uses": 2}, "parameters": {"type": "object"}, "cache": True},
        {"type": "code_execution", "parameters": {"type": "object"}},
    ]


RESULT = {"type": "tool_result", "tool_use_id": "toolu_1"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "$.messages"),
    ({"messages": []}, "$.messages"),
    ({"messages": {}}, "$.messages"),
    ({"messages": [5]}, "$.messages[0]"),
    ({"messages": [{"role": "user"}]}, "$.messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "$.messages[0].role"),
    ({"messages": [{"role": 5, "content": "x"}]}, "$.messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "$.messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "$.messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "$.messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "$.messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "$.messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": 5}]}]}, "$.messages[0].content[0].source"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": 5}}]}]},
        "$.messages[0].content[0].source.url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64"}}]}]},
        "$.messages[0].content[0].source",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
        "$.messages[0].content[0].tool_use_id",
    ),
    (
        {
            "messages": [
                CALLED,
                {"role": "user", "content": [{**RESULT, "is_error": 1}]},
            ]
        },
        "$.messages[1].content[0].is_error",
    ),
    ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]}, "$.messages[0].content[0]"),
    (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": "x"}]}]},
        "$.messages[0].content[0].input",
    ),
    ({"system": 5}, "$.system"),
    ({"system": ["x"]}, "$.system[0]"),
    ({"max_tokens": "9"}, "$.max_tokens"),
    ({"max_tokens": 0}, "$.max_tokens"),
    ({"stream": 1}, "$.stream"),
    ({"temperature": "warm"}, "$.temperature"),
    ({"stop_sequences": "x"}, "$.stop_sequences"),
    ({"stop_sequences": [5]}, "$.stop_sequences[0]"),
    ({"tools": [5]}, "$.tools[0]"),
    ({"tools": [{"name": "a"}]}, "$.tools[0]"),
    ({"tools": [{"name": "", "input_schema": {}}]}, "$.tools[0].name"),
    ({"tools": [{"type": "bash_20250124"}, {"name": "", "input_schema": {}}]}, "$.tools[1].name"),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}}],
                }
            ]
        },
        "$.messages[0].content[0].source.content[0]",
    ),
    ({"tool_choice": "auto"}, "$.tool_choice"),
    ({"tool_choice": {"type": "some"}}, "$.tool_choice.type"),
    ({"tool_choice": {"type": "tool"}}, "$.tool_choice"),
    ({"thinking": "on"}, "$.thinking"),
    ({"thinking": {"type": "enabled"}}, "$.thinking"),
    ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "$.thinking.budget_tokens"),
    ({"output_config": {"format": {"type": "json"}}}, "$.output_config.format.type"),
]


@pytest.mark.parametrize(("body", "path"), WRONG, ids=lambda one: str(one)[:60])
def test_a_wrong_member_is_refused_by_its_path(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**body)
    assert refused.value.message.endswith(f"at `{path}`")


def test_a_conversation_that_only_anthropic_has_is_refused_by_a_code_that_its_sdk_knows() -> None:
    """Left out, the model would see the last messages alone."""
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        with pytest.raises(Unsupported) as refused:
            ANTHROPIC.parse_request({"messages": [{"role": "user", "content": "a"}], "thread": thread})
        assert error_object(refused.value)["details"] == {"error_code": "thread_unsupported_request"}
    assert read(thread=None)[1] == []


def test_an_answer_in_which_tools_run_is_not_continued() -> None:
    assert not is_continued({"container": "c"})
    assert not is_continued({"mcp_servers": [{"name": "m"}]})
    assert is_continued({"container": None, "mcp_servers": [], "top_k": 5})
