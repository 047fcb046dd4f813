"""The memory of an adapter is bounded, whatever an upstream sends: one stream for each thing that grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import gai_fast
from gai_fast.core.relay import Relay
from gai_fast.formats import FORMATS, StreamContext, get_format
from gai_fast.model.errors import Error
from gai_fast.providers import Adapter, get_provider
from gai_fast.providers.answers.room import Room, too_many
from tests.legal import sse
from tests.limits import LIMITS

LONG = "x" * 1024 * 1024
Chunks = Callable[[int], Any]


def test_room_is_taken_given_back_and_used_up() -> None:
    room = Room(1000)
    room.take(1000 - LIMITS.kept_piece)
    assert room.remaining == 0
    room.give_back(100, 0)
    room.note(101, 0)
    with pytest.raises(Error) as caught:
        room.take(0, 0)
    assert (caught.value.code, caught.value.reason) == ("provider_unavailable", "answer_too_large")
    assert str(LIMITS.kept_answer) in caught.value.message


def test_a_small_piece_takes_the_room_of_its_object() -> None:
    room = Room()
    room.take(LIMITS.kept_answer // (LIMITS.kept_piece + 1) * 1, LIMITS.kept_answer // (LIMITS.kept_piece + 1))
    with pytest.raises(Error):
        room.take(1, 2)


def test_a_count_that_is_passed_is_named() -> None:
    error = too_many("tool_calls", 5)
    assert (error.code, error.reason, error.message) == (
        "provider_unavailable",
        "tool_calls",
        "an answer with more than 5 tool calls",
    )


def delta(**content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content}]}


def call(**keys: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": 0, **keys}])


def block(number: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": number, "content_block": content}


def block_delta(**content: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": content}


def item(number: int, kind: str, end: str = "added", **keys: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{end}", "output_index": number, "item": {"type": kind, **keys}}


def candidate(*parts: Any, index: int = 0, **keys: Any) -> dict[str, Any]:
    return {"candidates": [{"index": index, "content": {"parts": list(parts)}, **keys}]}


def cohere_call(**function: Any) -> dict[str, Any]:
    return {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": function}}}}


COHERE_CALL = {
    "type": "tool-call-start",
    "index": 0,
    "delta": {"message": {"tool_calls": {"id": "c", "function": {"name": "f"}}}},
}

GROWING: dict[str, tuple[str, list[Any], Chunks]] = {
    "arguments": ("openai", [call(id="c", function={"name": "f"})], lambda n: call(function={"arguments": LONG})),
    "arguments of a call without a name": ("openai", [], lambda n: call(function={"arguments": LONG})),
    "ids of one call": (
        "openai",
        [call(id="c", function={"arguments": "x"})],
        lambda n: call(id=f"{n}{LONG}", function={"arguments": "x"}),
    ),
    "signatures of calls without a name": (
        "openai",
        [],
        lambda n: call(index=n, id=f"c{n}", extra_content={"google": {"thought_signature": LONG}}),
    ),
    "names of calls": ("openai", [], lambda n: call(index=n, id=f"c{n}", function={"name": LONG})),
    "sources in a list": ("xai", [], lambda n: {"citations": [f"{n}{LONG}"], **delta()}),
    "sources with titles": ("perplexity", [], lambda n: {"search_results": [{"url": f"{n}{LONG}"}], **delta()}),
    "signatures of open blocks": ("anthropic", [], lambda n: block(n, type="thinking", signature=LONG)),
    "citations of an open block": (
        "anthropic",
        [block(0, type="text")],
        lambda n: block_delta(type="citations_delta", citation={"url": LONG}),
    ),
    "inputs of open blocks": ("anthropic", [], lambda n: block(n, type="tool_use", name="f", input={"a": LONG})),
    "input of a server tool": (
        "anthropic",
        [block(0, type="server_tool_use", id="s", name="web")],
        lambda n: block_delta(type="input_json_delta", partial_json=LONG),
    ),
    "runs of server tools": ("anthropic", [], lambda n: block(0, type="server_tool_use", id=f"{n}{LONG}", name="web")),
    "input of a call": (
        "anthropic",
        [block(0, type="tool_use", id="c", name="f")],
        lambda n: block_delta(type="input_json_delta", partial_json=LONG),
    ),
    "arguments of an item": (
        "openai:responses",
        [item(0, "function_call", call_id="c", name="f")],
        lambda n: {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": LONG},
    ),
    "arguments that replace others": (
        "openai:responses",
        [],
        lambda n: item(n, "function_call", "done", id=f"i{n}", call_id=f"c{n}", name="f", arguments=LONG),
    ),
    "ids of items": ("openai:responses", [], lambda n: item(n, "message", id=f"{n}{LONG}")),
    "names of server tools": ("openai:responses", [], lambda n: item(n, "mcp_call", id=f"i{n}", name=LONG)),
    "arguments of Cohere": ("cohere", [COHERE_CALL], lambda n: cohere_call(arguments=LONG)),
    "arguments of Ollama": (
        "ollama",
        [],
        lambda n: {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": LONG}}}]}},
    ),
    "arguments of Gemini": ("gemini", [], lambda n: candidate({"functionCall": {"name": "f", "args": {"a": LONG}}})),
    "pieces of arguments": (
        "gemini",
        [candidate({"functionCall": {"name": "f", "willContinue": True}})],
        lambda n: candidate(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": LONG, "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
    ),
    "recited sources": (
        "gemini",
        [],
        lambda n: candidate(citationMetadata={"citations": [{"uri": f"{n}{LONG}", "endIndex": 1}]}),
    ),
    "sources of many candidates": (
        "gemini",
        [],
        lambda n: candidate(index=n, groundingMetadata={"groundingChunks": [{"web": {"uri": LONG}}]}),
    ),
    "ratings": (
        "gemini",
        [],
        lambda n: candidate(safetyRatings=[{"category": f"{n}{LONG}", "probability": "HIGH"}]),
    ),
}


@pytest.mark.parametrize("what", GROWING)
def test_an_answer_that_grows_without_an_end_is_one_error(what: str) -> None:
    provider, before, chunks = GROWING[what]
    adapter = get_provider(provider).adapter()
    for chunk in before:
        adapter.receive("", json.dumps(chunk))
    with pytest.raises(Error) as caught:
        for number in range(100):
            adapter.receive("", json.dumps(chunks(number)))
    assert (caught.value.code, caught.value.reason) == ("provider_unavailable", "answer_too_large")
    assert number <= LIMITS.kept_answer // len(LONG)


@pytest.mark.parametrize(
    ("provider", "begin"),
    [
        ("openai", call(id="c", function={"name": "f"})),
        ("openai:responses", item(0, "function_call", call_id="c", name="f")),
        ("cohere", COHERE_CALL),
    ],
)
def test_arguments_that_were_copied_count_at_the_next_that_are_not(provider: str, begin: Any) -> None:
    adapter = get_provider(provider).adapter()
    adapter.receive("", json.dumps(begin))
    event: Any = {"type": "tool.call.delta", "call_id": "c", "index": 0}
    for _ in range(LIMITS.kept_answer // len(LONG) + 1):
        adapter.copied(event, len(LONG), LONG)
    fragment = {
        "openai": call(function={"arguments": "x"}),
        "openai:responses": {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "x"},
        "cohere": cohere_call(arguments="x"),
    }[provider]
    with pytest.raises(Error, match="kept in memory"):
        adapter.receive("", json.dumps(fragment))


def test_of_anthropics_counts_only_those_that_are_read_are_kept() -> None:
    adapter: Any = get_provider("anthropic").adapter()
    for number in range(10):
        usage = {f"count_{number}": number, "input_tokens": number, "output_tokens": 1}
        adapter.receive("", json.dumps({"type": "message_delta", "delta": {}, "usage": usage}))
    assert adapter.usage == {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
    assert len(adapter._counts) == 2


def test_sources_that_are_listed_anew_take_no_more_room() -> None:
    adapter = get_provider("gemini").adapter()
    sources = [{"web": {"uri": f"{number}{LONG[:1000]}", "title": "t"}} for number in range(100)]
    chunk = candidate({"text": "a"}, groundingMetadata={"groundingChunks": sources})
    for _ in range(1000):
        adapter.receive("", json.dumps(chunk))
    assert adapter.room.remaining > LIMITS.kept_answer // 2


MODEL = LONG[: 100 * 1024]
REPEATED: dict[str, tuple[str, list[Any], Any]] = {
    "model": ("anthropic", [{"type": "message_start", "message": {"id": "m", "model": MODEL}}, block(0, type="text")],
              block_delta(type="text_delta", text="a")),
    "id of a call": ("openai", [call(id=LONG[: LIMITS.call_id + 1], function={"name": "f"})],
                     call(function={"arguments": "1"})),
    "name of a tool of Anthropic's": (
        "anthropic", [block(0, type="server_tool_use", id="s", name=MODEL)],
        block(1, type="web_search_tool_result", tool_use_id="s", content=1),
    ),
    "name of a tool of OpenAI's": (
        "openai:responses", [item(0, "mcp_call", id="i", name=MODEL)], item(1, "mcp_call", "done", id="i"),
    ),
    "id of a run of Google's": (
        "gemini", [candidate({"executableCode": {"id": MODEL}})], candidate({"codeExecutionResult": {}}),
    ),
    "kind of a run of Google's": (
        "gemini", [candidate({"toolCall": {"id": "a", "toolType": MODEL}})], candidate({"toolResponse": {"id": "a"}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "raw"])
@pytest.mark.parametrize("what", REPEATED)
def test_what_an_upstream_says_once_makes_no_later_event_long(what: str, name: str) -> None:
    provider, before, short = REPEATED[what]
    encoder = get_format(name).encoder("sse", StreamContext("s" * 22, "r", None, "m", lambda: 1))
    relay = Relay(get_provider(provider).adapter(), encoder)
    relay.receive_data(sse(*before))
    encoder.take()
    relay.receive_data(sse(short, short))
    assert len(encoder.take()) < len(MODEL) // 8


def test_the_id_of_a_call_may_be_as_long_as_the_limit_says() -> None:
    for size, is_taken in ((LIMITS.call_id, True), (LIMITS.call_id + 1, False)):
        relay_events = gai_fast.decode("openai", [sse(call(id=LONG[:size], function={"name": "f", "arguments": "{}"}))])
        error = next(event["error"] for event in relay_events if event["type"] == "error")
        assert error["reason"] == ("truncated" if is_taken else "answer_too_large")


def words_of(provider: str) -> tuple[Adapter, list[Any]]:
    word = LONG[:100_000]
    ends: dict[str, list[Any]] = {
        "openai": [{"choices": [{"delta": {"content": "a"}, "finish_reason": word}]}],
        "anthropic": [{"type": "message_delta", "delta": {"stop_reason": word}}],
        "gemini": [candidate({"text": "a"}, finishReason=word)],
        "cohere": [{"type": "message-end", "delta": {"finish_reason": word}}],
        "ollama": [{"message": {"content": "a"}, "done": True, "done_reason": word}],
        "openai:responses": [
            {
                "type": "response.incomplete",
                "response": {"status": "incomplete", "incomplete_details": {"reason": word}},
            }
        ],
    }
    return get_provider(provider).adapter(), ends[provider]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "cohere", "ollama", "openai:responses"])
def test_of_a_word_for_the_end_only_so_much_is_kept(provider: str) -> None:
    adapter, chunks = words_of(provider)
    for chunk in chunks:
        adapter.receive("", json.dumps(chunk))
    end = adapter.finish()[-1]
    assert (end["finish_reason"], len(end["finish_reason_raw"])) == ("other", LIMITS.kept_word)
