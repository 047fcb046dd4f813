"""Additions of Perplexity to the chat dialect."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.core.requests.shapes import chat_shape
from gai_fast.model.errors import Unsupported
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import body, body_without, chunk, of_type, read, request, text_of

SOURCES: dict[str, Any] = {
    "citations": ["https://a", "https://b"],
    "search_results": [{"title": "A", "url": "https://a", "date": None}, {"title": "B", "url": "https://b"}],
}


def test_sources_are_repeated_and_reported_once() -> None:
    events = read("perplexity", *[chunk({"content": "a"}, **SOURCES)] * 3)
    assert of_type(events, "citations") == [
        {"type": "citations", "citations": [{"uri": "https://a", "title": "A"}, {"uri": "https://b", "title": "B"}]}
    ]
    assert text_of(events) == "aaa"


@pytest.mark.parametrize("given", ["citations", "search_results"])
def test_either_list_will_do(given: str) -> None:
    found = of_type(read("perplexity", chunk({"content": "a"}, **{given: SOURCES[given]})), "citations")
    assert [one["uri"] for one in found[0]["citations"]] == ["https://a", "https://b"]


def test_usage_is_cumulative() -> None:
    def counted(out: int, **keys: Any) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 5, "completion_tokens": out, "total_tokens": 5 + out, **keys}}

    events = read("perplexity", chunk({"content": "a"}, **counted(1)), chunk(finish="stop", **counted(3)))
    assert events[-1]["usage"] == {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    assert of_type(events, "usage") == []


@pytest.mark.parametrize(("total", "out"), [(15, 10), (8, 3)])
def test_reasoning_is_added_only_where_the_total_says_so(total: int, out: int) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "reasoning_tokens": 7, "total_tokens": total}
    result = read("perplexity", chunk(finish="stop", usage=usage))[-1]["usage"]
    assert (result["output_tokens"], result["reasoning_tokens"]) == (out, 7)


def test_the_last_chunk_holds_the_message_again() -> None:
    last = chunk({"content": ""}, finish="stop", object="chat.completion.done")
    last["choices"][0]["message"] = {"role": "assistant", "content": "ab"}
    assert text_of(read("perplexity", chunk({"content": "a"}), chunk({"content": "b"}), last)) == "ab"


def test_usage_is_not_asked_for() -> None:
    assert "stream_options" not in body("perplexity")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"seed": 0}, "seed"),
        ({"stop": ["x"]}, "stop"),
        ({"response_format": {"type": "json"}}, "response_format"),
        ({"messages": [{"role": "tool", "call_id": "a", "content": "4"}]}, "messages[0]"),
    ],
)
def test_there_are_no_tools_and_less_to_set(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(f"perplexity does not support `{named}`")):
        request("perplexity", **fields)
    sent, dropped = body_without("perplexity", **{"query": "Hi", **fields})
    assert dropped == [named]
    assert sent.keys() <= {"model", "messages", "stream"}


ASK = {"role": "user", "content": "Hi"}


def test_a_conversation_with_tools_can_go_on_without_them() -> None:
    calls = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "a", "name": "f"}]}
    found = {"role": "assistant", "content": [{"type": "text", "text": "Look"}, *calls["content"]]}
    result = {"role": "tool", "call_id": "a", "content": "4"}
    sent, dropped = body_without("perplexity", messages=[ASK, calls, result, found], query="So?")
    assert sent["messages"] == [ASK, {"role": "assistant", "content": "Look"}, {"role": "user", "content": "So?"}]
    assert dropped == ["messages[3].content[1]", "messages[1].content[0]", "messages[2]"]


def test_a_file_is_its_bare_data() -> None:
    part = {"type": "file", "data": "BB", "media_type": "application/pdf"}
    assert body("perplexity", messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [
        {"type": "file_url", "file_url": {"url": "BB"}, "file_name": "file.pdf"}
    ]


def ask(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("given", "becomes", "adjusted"),
    [
        ([ask("Rhyme.", "system")], [ask("Rhyme.")], {"messages[0].role": "user"}),
        ([ask("Hi"), ask("Well?")], [ask("Hi\n\nWell?")], {"messages[1]": "joined"}),
        (
            [ask("Hi"), ask("Hello", "assistant"), ask("Rhyme.", "system"), ask("Well?")],
            [ask("Hi"), ask("Hello", "assistant"), ask("Rhyme.\n\nWell?")],
            {"messages[2].role": "user", "messages[3]": "joined"},
        ),
        ([ask("Be brief.", "system"), ask("Rhyme.", "system"), ask("Hi")], None, {}),
        ([ask("Hi"), ask("Hello", "assistant"), ask("Well?")], None, {}),
    ],
)
def test_user_and_assistant_take_turns_after_the_instructions(
    given: list[Any], becomes: list[Any] | None, adjusted: dict[str, str]
) -> None:
    """A client's own body and a native request alike."""
    for native in (False, True):
        target = Target("m1")
        if native:
            request = parse_request(json.dumps({"messages": given}).encode())
            sent = get_provider("perplexity").build_request(request, target)
        else:
            shape = chat_shape(given)
            sent = get_provider("perplexity").build_passthrough({"messages": given}, target, shape=shape)
        assert json.loads(sent.body)["messages"] == (becomes or given)
        assert target.changes.adjusted == adjusted


def test_what_tools_said_has_no_place_and_the_last_question_ends_the_conversation() -> None:
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    given = [
        ask("Hi"),
        {**ask("I look.", "assistant"), "tool_calls": [called]},
        {**ask("4", "tool"), "tool_call_id": "c"},
    ]
    perplexity, shape = get_provider("perplexity"), chat_shape(given)
    with pytest.raises(Unsupported, match=r"does not support `messages\[1\]\.tool_calls`"):
        perplexity.build_passthrough({"messages": given}, Target("m1"), shape=shape)
    target = Target("m1", None, "drop")
    sent = perplexity.build_passthrough({"messages": given}, target, shape=shape)
    assert json.loads(sent.body)["messages"] == [ask("Hi")]
    assert target.changes.dropped == ["messages[1].tool_calls", "messages[2]", "messages[1]"]


def test_a_file_of_a_chat_request_is_bare_base64() -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    parts = [{"type": "text", "text": "?"}, {"type": "file", "file": file}, {"type": "file", "file": 5}]
    given = [{"role": "user", "content": parts}]
    perplexity = get_provider("perplexity")
    sent = perplexity.build_passthrough({"messages": given}, Target("m1"), shape=chat_shape(given))
    assert json.loads(sent.body)["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "?"},
                {"type": "file_url", "file_url": {"url": "AAAA"}, "file_name": "a.pdf"},
                {"type": "file", "file": 5},
            ],
        }
    ]
    with pytest.raises(Unsupported, match=r"`messages\[0\]\.content\[0\]`"):
        stored = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]
        perplexity.build_passthrough({"messages": stored}, Target("m1"), shape=chat_shape(stored))


def test_images_and_related_questions_are_reported_at_the_end_and_once() -> None:
    images = [{"image_url": "https://a.example/i.png", "origin_url": "https://a.example", "height": 1, "width": 2}]
    beside = {"images": images, "related_questions": ["And then?"]}
    events = read("perplexity", chunk({"content": "a"}, **beside), chunk({"content": "b"}, finish="stop", **beside))
    assert events[-1]["provider_metadata"] == beside
    odd = read("perplexity", chunk({"content": "a"}, images={}, related_questions=5), chunk(finish="stop"))
    assert "provider_metadata" not in odd[-1]
