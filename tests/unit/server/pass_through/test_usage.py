from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.server.pass_through.usage import UsageReader, text_characters
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

VECTOR = [0.125] * 2000
"""Several times the bytes that are kept of each end."""


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
            {
                "usageMetadata": {
                    "promptTokenCount": 6,
                    "candidatesTokenCount": 3,
                    "toolUsePromptTokenCount": 20,
                    "thoughtsTokenCount": 40,
                    "totalTokenCount": 69,
                }
            },
            tokens(26, 43),
        ),
        (
            {"usageMetadata": {"promptTokenCount": 6, "toolUsePromptTokenCount": 20, "candidatesTokenCount": 3}},
            tokens(26, 3),
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
    assert usage_of(json.dumps({**counts, "data": VECTOR}).encode(), size) == usage
    assert usage_of(json.dumps({"data": VECTOR, **counts}).encode(), size) == usage
    assert usage_of(json.dumps(counts).encode(), size) == usage
    for body in ({**counts, "n": 1}, {"data": VECTOR, **counts}, counts):
        for indent in (None, 2):
            assert UsageReader("application/json").usage(json.dumps(body, indent=indent).encode()) == usage


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


COMPACTION = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}
MESSAGE = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}
CACHED = {"cache_read_input_tokens": 5, "cache_creation_input_tokens": 3}


@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        ([COMPACTION, MESSAGE], tokens(203_000, 4500)),
        ([MESSAGE, COMPACTION, COMPACTION], tokens(383_000, 8000)),
        ([{**COMPACTION, **CACHED}], tokens(203_008, 4500, 5, 3)),
        ([{**COMPACTION, "input_tokens": -1, "output_tokens": "x"}, None, 5], tokens(23_000, 1000)),
        ([], tokens(23_000, 1000)),
        (5, tokens(23_000, 1000)),
        (None, tokens(23_000, 1000)),
    ],
)
def test_anthropics_compactions_are_added_to_the_message(iterations: Any, expected: Any, size: int) -> None:
    usage = {"input_tokens": 23_000, "output_tokens": 1000, "iterations": iterations}
    assert usage_of(json.dumps({"content": VECTOR, "usage": usage}).encode(), size) == expected
    assert usage_of(json.dumps({"usage": usage, "content": VECTOR}).encode(), size) == expected
    start = b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 23000, "output_tokens": 1}}}\n\n'
    for counts in (usage, {"output_tokens": 1000, "iterations": iterations}):
        end = b'data: {"type": "message_delta", "usage": %b}\n\n' % json.dumps(counts).encode()
        stop = b'data: {"type": "message_stop"}\n\n'
        assert usage_of(start + end + stop, size, "text/event-stream") == expected


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
    assert UsageReader("audio/mpeg").usage(b'{"usage": {"total_tokens": 1}}') is None
    assert usage_of(b'{"usage": {"total_tokens": 1', 9) is None
    assert usage_of(b'{"usage": ' + b'{"a":' * 5000, 1 << 20) is None
    assert usage_of(b"\xff" * (2 * LIMITS.usage_text), 9) is None


OWN = {"total_tokens": 900}
ECHO = {"usage": {"prompt_tokens": 0, "total_tokens": 0}, "meta": {"billed_units": {"input_tokens": 0}}}


@pytest.mark.parametrize("padding", ["x" * LIMITS.usage_text, ']}{[\\"' * LIMITS.usage_text])
@pytest.mark.parametrize("size", [1000, 1 << 20])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"model": "jina-reranker", "usage": OWN}, {"results": [{"index": 0, "document": ECHO}]}),
        (
            {"results": [{"index": 0, "document": ECHO}]},
            {"meta": {"v": {"x": 1}, "billed_units": {"input_tokens": 900}}},
        ),
        ({"results": [{"document": {"a": ECHO}}] * 9}, {"usage": OWN, "data": [ECHO]}),
        ({"metadata": ECHO, "usage": OWN}, {"text": {"format": {"schema": {"properties": ECHO}}}}),
        ({"usage": OWN}, {"metadata": ECHO}),
        ({"usage": OWN}, {"metadata": {"response": {}, "a b": ECHO}}),
        ({"usage": OWN}, {"tools": [ECHO], "last": ECHO}),
    ],
)
def test_what_an_answer_repeats_of_its_request_is_no_count(
    before: dict[str, Any], after: dict[str, Any], size: int, padding: str
) -> None:
    """A caller chose what it paid for a reranking: an `usage` in its documents was read as the answer's."""
    for body in ({**before, **after, "p": padding}, {**before, "p": padding, **after}):
        assert usage_of(json.dumps(body).encode(), size) in (tokens(900), None)
    assert usage_of(json.dumps({**before, **after}).encode(), size) == tokens(900)
    assert usage_of(json.dumps({"n": VECTOR, **before, **after}).encode(), size) == tokens(900)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.completed", "response": {"output": [ECHO], "usage": OWN, "metadata": ECHO}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"billed_units": OWN}}},
        {"choices": [], "x_groq": {"id": "1", "usage": OWN}},
    ],
)
def test_the_counts_of_an_event_stand_in_its_object(event: dict[str, Any]) -> None:
    line = b"data: %b\n\n" % json.dumps(event).encode()
    other = (
        b'data: {"type": "x", "item": {"usage": {"total_tokens": 1}}, "items": [{"usage": {"total_tokens": 1}}]}\n\n'
    )
    for body in (line, other + line, line + other, 90 * other + line + other, line + b"data: [DONE]\n\n"):
        assert usage_of(body, 100, "text/event-stream") == tokens(900)
    long = json.dumps({"type": "x", "response": {"output": "x" * LIMITS.usage_text, "usage": OWN}}).encode()
    assert usage_of(b"data: %b\n\n" % long, 100, "text/event-stream") == tokens(900)


def test_an_array_of_answers_has_the_counts_of_its_last() -> None:
    answers = [{"usageMetadata": {"totalTokenCount": count}, "candidates": [ECHO]} for count in (1, 900)]
    for text in (json.dumps(answers), json.dumps(answers, indent=1), json.dumps(answers)[:-1]):
        assert usage_of(text.encode(), 10) == tokens(900)


def test_the_number_of_counts_that_are_looked_at_is_bounded(change_limits: ChangeLimits) -> None:
    change_limits(usage_looks=3)
    many = [ECHO] * 20
    assert usage_of(json.dumps({"n": VECTOR, "results": many, "usage": OWN}).encode(), 1 << 20) == tokens(900)
    assert usage_of(json.dumps({"n": VECTOR, "usage": OWN, "results": many}).encode(), 1 << 20) is None


@pytest.mark.parametrize(
    ("request_", "characters"),
    [
        ({"query": "q", "documents": ["a" * 40]}, 41),
        ({"query": "q", "documents": [{"text": "ab"}, {"title": "t", "body": {"en": "cd"}}], "top_n": 1}, 6),
        ({"input": ["é" * 3, "b"], "encoding_format": "float"}, 4),
        ({"input": [1, 2, 3]}, 12),
        ({"input": [[1, 2], [3]]}, 12),
        ({"input": [{"type": "text", "text": "ab"}, {"type": "image_url", "image_url": {"url": "data:"}}]}, 2),
        ({"prompt": "a cat", "size": "1024x1024", "n": 1}, 5),
        ({"instructions": "be", "input": [{"role": "user", "content": "hi"}, {"type": "reasoning", "x": "y"}]}, 4),
        ({"input": None, "query": True, "documents": 1.5}, 0),
    ],
    ids=str,
)
def test_the_texts_of_a_request_are_counted(request_: dict[str, Any], characters: int) -> None:
    assert text_characters(json.dumps({"model": "rerank", **request_}).encode()) == characters


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_request_of_any_depth_is_counted(depth: int) -> None:
    body = b'{"input":%b"hello"%b}' % (b"[" * depth, b"]" * depth)
    assert text_characters(body) in (5, len(body))


@pytest.mark.parametrize("body", [b'{"model":"m","texts":["a"]}', b'{"input":1e999}', b'{"input":"\xff"}', b"[]", b"x"])
def test_a_request_without_known_texts_counts_by_its_size(body: bytes) -> None:
    assert text_characters(body) == len(body)
