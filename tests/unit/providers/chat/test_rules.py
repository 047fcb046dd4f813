"""What each provider of the chat dialect accepts, of a client's own body and of a native request alike."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.formats.chat.request import detail_format, read_chat_request
from gai_fast.model.errors import Unsupported
from gai_fast.providers import Target, UpstreamRequest, get_provider
from tests.unit.providers.answer_reading import body as native

ASK: dict[str, Any] = {"role": "user", "content": "Hi"}
LEFT_BY_AN_ANSWER: dict[str, Any] = {
    "role": "assistant",
    "content": "Look.",
    "refusal": None,
    "annotations": [],
    "reasoning_content": "Hm",
    "reasoning_details": [{"type": "reasoning.text", "signature": "s", "format": "anthropic-claude-v1", "index": 0}],
    "x_gai": {"warnings": []},
    "provider_specific_fields": {"citations": None},
    "tool_calls": [
        {
            "id": "toolu_01",
            "index": 0,
            "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "s"}},
            "provider_specific_fields": {"thought_signature": "s"},
        }
    ],
}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "toolu_01", "content": "4", "name": "f"}
STRICT = ("groq", "mistral")
CHAT = (*STRICT, "openai", "azure", "xai", "deepseek")


def passed(provider: str, body: dict[str, Any], target: Target | None = None) -> UpstreamRequest:
    """Returns the request for a client's own body, which its format has read as the server does."""
    asked = get_format("openai").read_request({"model": "m", "messages": [ASK], **body})
    return get_provider(provider).build_passthrough(asked.body, target or Target("m1", "k"), shape=asked.shape)


def sent(provider: str, body: dict[str, Any], target: Target | None = None) -> Any:
    return json.loads(passed(provider, body, target).body)


@pytest.mark.parametrize("provider", [*CHAT, "openrouter", "openai-compatible"])
def test_a_plain_request_is_sent_as_its_client_wrote_it(provider: str) -> None:
    messages = [{"role": "system", "content": "s"}, ASK, {"role": "assistant", "content": "a"}, ASK]
    asked = {"model": "m", "messages": messages, "temperature": 0.5, "stream": True}
    before = json.dumps(asked)
    assert sent(provider, asked) == {**asked, "model": "m1"}
    assert json.dumps(asked) == before


@pytest.mark.parametrize("provider", CHAT)
def test_what_answers_leave_in_messages_is_taken_out_of_the_next_request(provider: str) -> None:
    message, result = sent(provider, {"messages": [ASK, LEFT_BY_AN_ANSWER, RESULT]})["messages"][1:]
    kept = {*message} - {"refusal", "reasoning_content"}
    assert kept == {"role", "content", "tool_calls"}
    assert ("reasoning_content" in message) == (provider in ("deepseek", "xai"))
    assert {*message["tool_calls"][0]} == {"id", "type", "function"}
    assert result["tool_call_id"] == message["tool_calls"][0]["id"]


def test_a_gateway_keeps_the_reasoning_that_only_it_understands() -> None:
    message = sent("openrouter", {"messages": [ASK, LEFT_BY_AN_ANSWER, RESULT]})["messages"][1]
    assert message["reasoning_details"] == LEFT_BY_AN_ANSWER["reasoning_details"]


def test_googles_signature_of_a_call_is_kept_for_googles_endpoint() -> None:
    message = sent("openai-compatible", {"messages": [ASK, LEFT_BY_AN_ANSWER, RESULT]})["messages"][1]
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}
    assert message["reasoning_content"] == "Hm"
    assert "reasoning_details" not in message


def test_parts_that_only_answers_have_are_left_out_where_another_provider_made_them() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": "a"}]}
    lone = {"role": "assistant", "content": [thought]}
    asked = {"messages": [ASK, answer, ASK, lone, ASK]}
    assert sent("mistral", asked)["messages"] == asked["messages"]
    for provider in ("openai", "groq", "xai"):
        text = {"role": "assistant", "content": [{"type": "text", "text": "a"}]}
        assert sent(provider, asked)["messages"] == [ASK, text, ASK, ASK]


@pytest.mark.parametrize(
    ("provider", "given", "becomes"),
    [
        ("mistral", {"max_completion_tokens": 5, "seed": 1}, {"max_tokens": 5, "random_seed": 1}),
        ("mistral", {"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 5}),
        ("mistral", {"user": "u", "store": True, "stream_options": {"include_usage": True}}, {}),
        ("mistral", {"logit_bias": {}, "n": 1, "verbosity": "medium"}, {"n": 1}),
        ("groq", {"max_tokens": 5, "stream_options": {}}, {"max_completion_tokens": 5}),
        ("groq", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ("groq", {"prompt_cache_key": "k", "safety_identifier": "u"}, {}),
        ("openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai", {"seed": 1, "user": "u", "new_member": {"a": 1}}, {"seed": 1, "user": "u", "new_member": {"a": 1}}),
        ("deepseek", {"max_completion_tokens": 5, "store": True}, {"max_tokens": 5}),
        ("xai", {"max_tokens": 5, "store": False}, {"max_completion_tokens": 5}),
        ("perplexity", {"max_completion_tokens": 5, "tool_choice": "auto"}, {"max_tokens": 5}),
        ("openrouter", {"stream_options": {"include_usage": True}}, {}),
    ],
)
def test_members_have_the_names_and_words_of_their_provider(
    provider: str, given: dict[str, Any], becomes: dict[str, Any]
) -> None:
    assert sent(provider, given) == {"model": "m1", "messages": [ASK], **becomes}


@pytest.mark.parametrize(
    ("provider", "given", "path"),
    [
        ("mistral", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("mistral", {"unheard_of": 1}, "unheard_of"),
        ("groq", {"top_k": 5}, "top_k"),
        ("groq", {"unheard_of": 1}, "unheard_of"),
        ("perplexity", {"seed": 5}, "seed"),
        ("mistral", {"messages": [{**ASK, "name": "Ann"}]}, "messages[0].name"),
        ("mistral", {"messages": [ASK, {"role": "function", "name": "f", "content": "4"}]}, "messages[1]"),
        ("groq", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}, ASK]}, "messages[0].content[0]"),
        ("mistral", {"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]"),
        ("openai", {"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_a_provider_lacks_is_refused_by_its_path_or_left_out(
    provider: str, given: dict[str, Any], path: str
) -> None:
    with pytest.raises(Unsupported, match=f"^{provider} does not support `{path.replace('[', '.')}"):
        passed(provider, given)
    target = Target("m1", "k", "drop")
    assert "unheard_of" not in sent(provider, given, target)
    assert target.changes.dropped == [path]


def test_what_was_left_out_or_changed_is_recorded_but_not_what_asks_for_nothing() -> None:
    target = Target("m1", "k")
    given = {"reasoning_effort": "max", "user": "u", "store": True, "verbosity": "medium", "stream_options": {}}
    sent("groq", given | {"prompt_cache_key": "k", "messages": [ASK, LEFT_BY_AN_ANSWER, RESULT]}, target)
    assert (target.changes.dropped, target.changes.adjusted) == (["prompt_cache_key"], {"reasoning_effort": "high"})


@pytest.mark.parametrize("provider", ["openai", "mistral", "deepseek", "perplexity", "groq", "xai"])
def test_of_two_limits_the_newer_counts_and_the_other_is_reported(provider: str) -> None:
    for limits in ({"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 6, "max_completion_tokens": 5}):
        target = Target("m1", "k")
        body = sent(provider, limits, target)
        assert [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body] == [5]
        assert target.changes.dropped == ["max_tokens"]
    target = Target("m1", "k")
    sent(provider, {"max_completion_tokens": 5, "max_tokens": 5}, target)
    assert not target.changes


def test_a_developer_is_the_system_where_a_provider_has_no_such_role() -> None:
    result = {"role": "developer", "content": "Be brief."}
    for provider in ("mistral", "deepseek", "perplexity"):
        assert sent(provider, {"messages": [result, ASK]})["messages"] == [{**result, "role": "system"}, ASK]
    for provider in ("openai", "groq", "xai"):
        assert sent(provider, {"messages": [result, ASK]})["messages"] == [result, ASK]


def test_several_texts_are_one_where_a_provider_takes_no_parts() -> None:
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": texts}, {"role": "user", "content": texts}]
    assert sent("deepseek", {"messages": messages})["messages"] == [
        {"role": "system", "content": "a\n\nb"},
        messages[1],
    ]


def test_audio_and_files_have_mistrals_form() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}}
    parts = sent("mistral", {"messages": [{"role": "user", "content": [audio, file]}]})["messages"][0]["content"]
    assert parts == [
        {"type": "input_audio", "input_audio": "QQ=="},
        {"type": "document_url", "document_url": "data:application/pdf;base64,QQ==", "document_name": "a.pdf"},
    ]
    stored = {"type": "file", "file": {"file_id": "file-1"}}
    with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[0\]"):
        passed("mistral", {"messages": [{"role": "user", "content": [stored]}]})


@pytest.mark.parametrize("provider", STRICT)
def test_a_tool_has_the_members_that_its_provider_knows(provider: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": None, "x": 1}, "cache_control": {}}
    parameters = {"parameters": {"type": "object", "properties": {}}} if provider == "mistral" else {}
    assert sent(provider, {"tools": [tool]})["tools"] == [{"type": "function", "function": {"name": "f", **parameters}}]


@pytest.mark.parametrize(
    ("provider", "path"), [("mistral", "/v1/chat/completions"), ("deepseek", "/beta/chat/completions")]
)
def test_a_last_message_of_the_assistant_is_marked_as_the_beginning_of_the_answer(provider: str, path: str) -> None:
    begun = [ASK, {"role": "assistant", "content": "It is"}]
    marked = [ASK, {"role": "assistant", "content": "It is", "prefix": True}]
    request = passed(provider, {"messages": begun})
    assert (json.loads(request.body)["messages"], request.path) == (marked, path)
    assert native(provider, messages=begun)["messages"] == marked
    assert native(provider, messages=[*begun, ASK])["messages"] == [*begun, ASK]
    assert "beta" not in passed(provider, {"messages": [*begun, ASK]}).path


def test_ids_of_calls_are_changed_alike_in_calls_and_results_if_their_provider_refuses_them() -> None:
    for provider, identifier, is_kept in (
        ("mistral", "functions.w:0", False),
        ("mistral", "abcdefgh9", True),
        ("openai", "functions.w:0", True),
        ("openai", "x" * 64, True),
        ("openai", "x" * 65, False),
        ("openai", "", False),
    ):
        call = {"id": identifier, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        asked = [ASK, {"role": "assistant", "tool_calls": [call]}, {**RESULT, "tool_call_id": identifier}]
        answer, result = sent(provider, {"messages": asked})["messages"][1:]
        assert answer["tool_calls"][0]["id"] == result["tool_call_id"]
        assert (result["tool_call_id"] == identifier) == is_kept
        assert 0 < len(result["tool_call_id"]) <= 64


@pytest.mark.parametrize("provider", [*CHAT, "openrouter", "perplexity", "openai-compatible"])
@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, [5], {"a": None}])
def test_members_of_any_shape_are_sent_or_refused(provider: str, odd: Any) -> None:
    asked: dict[str, Any] = {"role": odd, "content": odd, "tool_calls": odd, "tool_call_id": odd, "name": odd, "x": odd}
    for message in (odd, asked, {**asked, "role": "assistant"}, {**asked, "role": "tool", "tool_calls": [{"id": odd}]}):
        for members in ({"messages": [message, ASK]}, {"messages": odd}, dict.fromkeys(("tools", "tool_choice"), odd)):
            with contextlib.suppress(Unsupported):
                passed(provider, members)


FUNCTION: dict[str, Any] = {"name": "f", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("provider", ["mistral", "deepseek"])
def test_functions_are_tools_where_a_provider_has_no_functions(provider: str) -> None:
    call = {"name": "f", "arguments": "{}"}
    asked = {
        "functions": [FUNCTION],
        "function_call": {"name": "f"},
        "messages": [
            ASK,
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": "4"},
        ],
    }
    found = sent(provider, asked)
    answer, result = found["messages"][1:]
    assert found["tools"] == [{"type": "function", "function": FUNCTION}]
    assert found["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (answer["tool_calls"][0]["function"], result["role"], result["content"]) == (call, "tool", "4")
    assert answer["tool_calls"][0]["id"] == result["tool_call_id"]
    assert {"functions", "function_call"}.isdisjoint({*found, *answer})


def calls(*ids: str) -> dict[str, Any]:
    made = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result_of(identifier: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identifier, "content": identifier}


@pytest.mark.parametrize("provider", ["openai", "groq", "deepseek", "xai", "azure", "openrouter", "openai-compatible"])
def test_a_message_between_a_call_and_its_result_follows_the_result_and_is_reported(provider: str) -> None:
    target = Target("m1", "k")
    asked = [ASK, calls("a", "b"), result_of("b"), ASK, result_of("a"), ASK]
    moved = [ASK, calls("a", "b"), result_of("a"), result_of("b"), ASK, ASK]
    assert sent(provider, {"messages": asked}, target)["messages"] == moved
    assert "messages[4]" in target.changes.adjusted
    assert sent(provider, {"messages": moved})["messages"] == moved


def test_what_is_left_out_takes_its_results_and_calls_with_it() -> None:
    broken = [ASK, calls("a"), ASK, result_of("c"), ASK]
    assert sent("openai", {"messages": broken})["messages"] == broken  # the provider refuses it
    target = Target("m1", "k", "drop")
    assert sent("openai", {"messages": broken}, target)["messages"] == [ASK, ASK, ASK]
    assert target.changes.dropped == ["messages[1].tool_calls", "messages[3]"]


def test_mistral_is_asked_by_the_user_and_after_results_by_none() -> None:
    target, result = Target("m1", "k"), {"role": "system", "content": "s"}
    assert sent("mistral", {"messages": [result]}, target)["messages"] == [{**result, "role": "user"}]
    assert target.changes.adjusted == {"messages[0].role": "user"}
    asked = [ASK, calls("abcdefgh9"), result_of("abcdefgh9"), ASK]
    after = sent("mistral", {"messages": asked}, target)["messages"]
    assert after == [*asked[:3], {"role": "assistant", "content": "OK."}, ASK]
    assert "messages[3]" in target.changes.adjusted
    assert native("mistral", system="s", query="q")["messages"] == [result, {"role": "user", "content": "q"}]


def test_perplexitys_turns_alternate_and_what_was_joined_is_reported() -> None:
    target, result = Target("m1", "k"), {"role": "system", "content": "s"}
    said = {"role": "assistant", "content": "a"}
    asked = [result, ASK, {"role": "user", "content": [{"type": "text", "text": "b"}]}, said, result, ASK]
    assert sent("perplexity", {"messages": asked}, target)["messages"] == [
        result,
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "b"}]},
        said,
        {"role": "user", "content": "s\n\nHi"},
    ]
    assert [*target.changes.adjusted] == ["messages[2]", "messages[4].role", "messages[5]"]
    with pytest.raises(Unsupported, match="a last message of the assistant"):
        sent("perplexity", {"messages": [ASK, said]})
    target = Target("m1", "k", "drop")
    tools = [ASK, calls("a"), result_of("a"), said, ASK]
    assert sent("perplexity", {"messages": tools}, target)["messages"] == [ASK, said, ASK]
    assert target.changes.dropped == ["messages[1].tool_calls", "messages[2]"]


def test_numbers_lists_and_forms_stay_within_what_a_provider_takes() -> None:
    target = Target("m1", "k", "drop")
    assert sent("mistral", {"temperature": 1.8}, target)["temperature"] == 1.5
    assert sent("groq", {"stop": [*"abcde"]}, target)["stop"] == [*"abcd"]
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}
    assert sent("deepseek", form, target)["response_format"] == {"type": "json_object"}
    assert target.changes.adjusted == {"temperature": "1.5"}
    assert target.changes.dropped == ["stop[4]", "response_format.json_schema"]
    for provider, given in (("groq", {"stop": [*"abcde"]}), ("groq", {"n": 2}), ("deepseek", form)):
        with pytest.raises(Unsupported):
            sent(provider, given)


def test_openrouter_gets_the_reasoning_that_it_wrote_and_not_what_is_marked_as_anothers() -> None:
    own = {"type": "reasoning.text", "text": "a", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    marked, others = {**own, "format": "gai-openrouter-v1"}, {**own, "format": "gai-mistral-v1"}
    asked = [ASK, {"role": "assistant", "content": "a", "reasoning_details": [own, marked, others]}, ASK]
    kept = sent("openrouter", {"messages": asked})["messages"][1]["reasoning_details"]
    assert kept == [own, {name: value for name, value in own.items() if name != "format"}]


@pytest.mark.parametrize("author", ["mistral", "openrouter", "cohere", "anthropic", "gemini", "azure"])
def test_a_signature_keeps_its_author_on_the_way_through_a_chat_client(author: str) -> None:
    named = detail_format(author, is_encrypted=False)
    detail = {"type": "reasoning.text", "text": "Hm", "signature": "s", "format": named, "index": 0}
    message = {"role": "assistant", "content": "a", "reasoning_details": [detail]}
    request, _ = read_chat_request({"messages": [ASK, message, ASK]})
    part: Any = request.messages[1].content[0]
    assert (part.signature, part.provider) == ("s", author)


BLOCKS = [{"type": "thinking", "thinking": "Hm", "signature": "s"}]


@pytest.mark.parametrize(
    "provider", ["openai", "groq", "mistral", "xai", "deepseek", "openrouter", "azure", "perplexity"]
)
def test_members_of_litellms_messages_cost_no_request(provider: str) -> None:
    """Fireworks answers "Extra inputs are not permitted, field: 'messages[2].thinking_blocks'"."""
    mark = {"cache_control": {"type": "ephemeral"}}
    answer = {"role": "assistant", "content": "Look.", "thinking_blocks": BLOCKS}
    asked = {"messages": [{**ASK, **mark}, answer, ASK]}
    target = Target("m")
    sent = json.loads(get_provider(provider).build_passthrough(asked, target).body)["messages"]
    assert [message.get("thinking_blocks") for message in sent] == [None, None, None]
    if "cache_control" not in sent[0]:  # strict rules
        assert target.changes.dropped == ["messages[0].cache_control"]


def test_any_other_server_gets_the_blocks_of_a_gateway_behind_it() -> None:
    asked = {"messages": [ASK, {"role": "assistant", "content": "Look.", "thinking_blocks": BLOCKS}, ASK]}
    sent = json.loads(get_provider("openai-compatible").build_passthrough(asked, Target("m")).body)
    assert sent["messages"] == asked["messages"]


def test_litellms_members_reach_anthropic_in_its_own_form() -> None:
    answer = {
        "role": "assistant",
        "content": "Look.",
        "thinking_blocks": BLOCKS,
        "cache_control": {"type": "ephemeral"},
    }
    request, lost = read_chat_request({"messages": [ASK, answer, ASK]})
    assert not lost
    sent = json.loads(get_provider("anthropic").build_request(request, Target("m")).body)
    assert sent["messages"][1]["content"] == [
        *BLOCKS,
        {"type": "text", "text": "Look.", "cache_control": {"type": "ephemeral"}},
    ]
