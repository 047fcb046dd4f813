"""Searches that a provider has run, as it counts them: they cost beside the tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.providers import get_provider

ANTHROPIC = [
    {"type": "message_start", "message": {"id": "i", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 2, "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}},
    },
    {"type": "message_stop"},
]
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
SEARCH = {"type": "web_search_call", "status": "completed"}


def responses(*items: Any, **more: Any) -> list[Any]:
    whole = {"id": "r", "model": "m", "status": "completed", "output": [*items, MESSAGE], **more}
    return [{"type": "response.completed", "response": {**whole, "usage": {"input_tokens": 5, "output_tokens": 2}}}]


def gemini(model: str, *queries: list[str]) -> list[Any]:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    chunks: list[Any] = []
    for at, each in enumerate(queries):
        grounded = {"groundingMetadata": {"webSearchQueries": each}}
        candidate = {"content": {"parts": [{"text": "Hi"}]}, **grounded, **({"finishReason": "STOP"} if at else {})}
        chunks.append({"candidates": [candidate], "modelVersion": model, "usageMetadata": usage})
    return chunks


def perplexity(**usage: Any) -> list[Any]:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    return [
        {
            "id": "c",
            "model": "sonar",
            "choices": [choice],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, **usage},
        }
    ]


@pytest.mark.parametrize(
    ("provider", "chunks", "searches"),
    [
        ("anthropic", ANTHROPIC, 3),
        ("openai:responses", responses(SEARCH), 1),
        (
            "openai:responses",
            responses(*({**SEARCH, "action": {"type": kind}} for kind in ("search", "open_page", "search", "find"))),
            2,
        ),
        ("openai:responses", responses(SEARCH, SEARCH, tool_usage={"web_search": {"num_requests": 1}}), 1),
        ("openai:responses", responses(SEARCH, tool_usage={"web_search": {"num_requests": 0}}), 0),
        ("openai:responses", responses(), 0),
        ("gemini", gemini("gemini-3-pro", ["a", "b", "a", ""], ["b", "c"]), 3),
        ("gemini", gemini("gemini-2.5-pro", ["a", "b"], ["c"]), 1),
        ("gemini", gemini("gemini-3-pro", [], []), 0),
        ("perplexity", perplexity(num_search_queries=4), 4),
        ("perplexity", perplexity(num_search_queries=-4), 0),
    ],
)
def test_searches_are_counted_as_the_provider_charges_them(provider: str, chunks: list[Any], searches: int) -> None:
    adapter = get_provider(provider).adapter()
    for each in chunks:
        adapter.receive(each.get("type", ""), json.dumps(each))
    adapter.finish()
    assert adapter.usage is not None
    assert (adapter.usage["input_tokens"], adapter.usage["output_tokens"], adapter.searches) == (5, 2, searches)


def anthropic_search(at: int, name: str, output: Any) -> list[Any]:
    use = {"type": "server_tool_use", "id": f"s{at}", "name": name, "input": {}}
    result = {"type": f"{name}_tool_result", "tool_use_id": f"s{at}", "content": output}
    chunks: list[Any] = []
    for index, block in ((2 * at, use), (2 * at + 1, result)):
        chunks += [
            {"type": "content_block_start", "index": index, "content_block": block},
            {"type": "content_block_stop", "index": index},
        ]
    return chunks


def ended(kind: str, at: int, **more: Any) -> dict[str, Any]:
    item = {"type": "web_search_call", "id": f"w{at}", "status": "completed", "action": {"type": kind}, **more}
    return {"type": "response.output_item.done", "output_index": at, "item": item}


@pytest.mark.parametrize(
    ("provider", "chunks"),
    [
        (
            "openai:responses",
            [
                {"type": "response.created", "response": {"id": "r", "model": "m"}},
                ended("search", 0),
                ended("open_page", 1),
                ended("search", 2),
                ended("search", 2),
            ],
        ),
        (
            "anthropic",
            [
                ANTHROPIC[0],
                *anthropic_search(0, "web_search", []),
                *anthropic_search(1, "web_search", {"error_code": "max_uses_exceeded"}),
                *anthropic_search(2, "web_fetch", {}),
                *anthropic_search(3, "web_search", []),
            ],
        ),
    ],
)
def test_searches_of_an_answer_that_is_cut_off_are_those_that_have_ended(provider: str, chunks: list[Any]) -> None:
    adapter = get_provider(provider).adapter()
    for each in chunks:
        adapter.receive(each["type"], json.dumps(each))
    assert adapter.searches == 2


def test_the_providers_count_of_searches_replaces_those_that_have_ended() -> None:
    adapter = get_provider("anthropic").adapter()
    for each in [ANTHROPIC[0], *anthropic_search(0, "web_search", []), ANTHROPIC[4]]:
        adapter.receive(each["type"], json.dumps(each))
    assert adapter.searches == 3
    adapter = get_provider("openai:responses").adapter()
    for each in [ended("search", 0), *responses(SEARCH, tool_usage={"web_search": {"num_requests": 0}})]:
        adapter.receive(each["type"], json.dumps(each))
    assert adapter.searches == 0
