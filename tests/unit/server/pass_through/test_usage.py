from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.server.pass_through.usage import UsageReader
from tests.limits import LIMITS

VECTOR = [0.125] * 20_000


def usage_of(body: bytes, size: int, media_type: str = "application/json") -> dict[str, Any] | None:
    reader = UsageReader(media_type)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return reader.usage()


def tokens(into: int, out: int = 0, cached: int = 0, written: int = 0) -> dict[str, Any]:
    beside = {"cached_input_tokens": cached, "cache_write_input_tokens": written}
    known = {name: counted for name, counted in beside.items() if counted}
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, **known}


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, tokens(8)),  # OpenAI's embeddings
        ({"usage": {"total_tokens": 10}}, tokens(10)),  # Voyage, Jina
        ({"usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14, "x": {"y": 1}}}, tokens(5, 9)),  # images
        ({"usage": {"completion_tokens": 3, "total_tokens": 14}}, tokens(11, 3)),
        ({"meta": {"billed_units": {"input_tokens": 4.0}}}, tokens(4)),  # Cohere
        ({"usageMetadata": {"promptTokenCount": 6, "totalTokenCount": 6}}, tokens(6)),  # Gemini
        (
            {
                "usageMetadata": {
                    "promptTokenCount": 6,
                    "candidatesTokenCount": 3,
                    "thoughtsTokenCount": 40,
                    "totalTokenCount": 49,
                }
            },
            tokens(6, 43),
        ),
        (
            {"usageMetadata": {"promptTokenCount": 6, "cachedContentTokenCount": 4, "totalTokenCount": 6}},
            tokens(6, 0, 4),
        ),
        (
            {"usage": {"prompt_tokens": 8, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}},
            tokens(8, 2, 5),
        ),
        (
            {"usage": {"input_tokens": 8, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 5}}},
            tokens(8, 2, 5),
        ),
        ({"usage": {"prompt_tokens": 8, "prompt_tokens_details": None}}, tokens(8)),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"usage": {"type": "duration", "seconds": 1}}, None),
        ({"usage": {"prompt_tokens": 8, "tier": "a } of {"}}, tokens(8)),
        ({"usage": {"completion_tokens": 3}, "meta": {"billed_units": {"input_tokens": 5}}}, tokens(5)),
        ({"meta": {"billed_units": {"input_tokens": 5}}, "usage": {"completion_tokens": 3}}, tokens(5, 3)),
        ({"usage": None}, None),
        ({"usage": {"prompt_tokens": -1, "total_tokens": True}}, None),
        ({"usage": {"prompt_tokens": 1e999}}, None),
        ({"usage": {"prompt_tokens": 1e300}}, None),
        ({"usage": {"prompt_tokens": 10**300}}, None),
        ({"text": '"usage": {"prompt_tokens": 8}'}, None),
    ],
)
def test_the_counts_are_found_at_both_ends_of_a_body(counts: dict[str, Any], usage: Any, size: int) -> None:
    vector = VECTOR[:1000] if size == 1 else VECTOR
    assert usage_of(json.dumps({**counts, "data": vector}).encode(), size) == usage
    assert usage_of(json.dumps({"data": vector, **counts}).encode(), size) == usage
    assert usage_of(json.dumps(counts).encode(), size) == usage


def test_the_last_counts_of_a_stream_are_those_of_the_answer() -> None:
    body = b'data: {"usage": {"input_tokens": 1}}\n\ndata: {"usage": {"input_tokens": 2, "output_tokens": 3}}\n\n'
    assert usage_of(body, 5, "text/event-stream; charset=utf-8") == tokens(2, 3)


def test_a_stream_of_anthropics_counts_its_input_first_and_its_output_last() -> None:
    start = {"input_tokens": 25, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 30, "output_tokens": 1}
    text = (
        b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}\n\n' * LIMITS.usage_text
    )
    body = b'data: {"type": "message_start", "message": {"usage": %b}}\n\n' % json.dumps(start).encode()
    end = b'data: {"type": "message_delta", "usage": {"output_tokens": 415}}\n\n'
    assert usage_of(body + text + end, 4096, "text/event-stream") == tokens(755, 415, 700, 30)
    last = json.dumps({**start, "output_tokens": 415}).encode()
    assert usage_of(body + b'data: {"usage": %b}\n\n' % last, 7, "text/event-stream") == tokens(755, 415, 700, 30)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "cache_read_input_tokens": 80},
            (100, 20, 80),
        ),
        ({"input_tokens": 10, "output_tokens": 5, "total_tokens": 715, "cache_read_input_tokens": 700}, (710, 5, 700)),
        ({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 700}, (710, 5, 700)),
    ],
    ids=["in the input, as LiteLLM has them", "beside it, with a sum", "beside it, as Anthropic has them"],
)
def test_cached_tokens_count_once(counts: dict[str, int], expected: tuple[int, ...]) -> None:
    assert usage_of(json.dumps({"usage": counts}).encode(), 9) == tokens(*expected)


def test_a_body_that_is_not_json_has_no_counts_and_is_not_kept() -> None:
    assert usage_of(b'{"usage": {"total_tokens": 1}}', 9, "audio/mpeg") is None
    assert usage_of(b'{"usage": {"total_tokens": 1', 9) is None
    assert usage_of(b'{"usage": ' + b'{"a":' * 5000, 1 << 20) is None
    assert usage_of(b"\xff" * (2 * LIMITS.usage_text), 9) is None
