"""`cli/mock.py`: what the fake upstream says, without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.cli.mock import DIALECTS, FAULTS, WORDS, Answer, Fault

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000, "stream": True}


def chunks(frame: bytes) -> list[Any]:
    """The JSON of every data line."""
    lines = frame.decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_a_kind_with_or_without_a_count(kind: str) -> None:
    assert Fault.parse(kind) == Fault(kind, None)
    assert Fault.parse(f"{kind}@0") == Fault(kind, 0)
    assert Fault.parse(f"{kind}@12") == Fault(kind, 12)


@pytest.mark.parametrize("text", ["", "nope", "@3", "cut@", "cut@-1", "cut@+1", "cut@1_0", "cut@x", "CUT", "cut @1"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fault|how many deltas"):
        Fault.parse(text)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
class TestEveryDialect:
    def test_answers_are_the_same_every_time(self, dialect: type[Answer]) -> None:
        first, second = dialect(BODY, 1), dialect(BODY, 1)
        assert first.opening() == second.opening()
        assert first.closing(3, False) == second.closing(3, False)
        assert first.whole(["a"], False) == second.whole(["a"], False)

    def test_the_text_is_joined_words_and_repeats_when_it_is_long(self, dialect: type[Answer]) -> None:
        texts, cut_short = dialect(BODY, 1).texts(len(WORDS) + 2)
        assert not cut_short
        assert "".join(texts) == " ".join([*WORDS, *WORDS[:2]])

    def test_the_requests_own_limit_cuts_it_short(self, dialect: type[Answer]) -> None:
        texts, cut_short = dialect({**BODY, "max_tokens": 3}, 1).texts(64)
        assert cut_short
        assert len(texts) == 3

    def test_every_frame_is_complete_and_its_data_json(self, dialect: type[Answer]) -> None:
        answer = dialect(BODY, 1)
        frames = [*answer.opening(), answer.delta("é🐈"), *answer.closing(1, False), answer.error_frame(503, "x")]
        for frame in frames:
            assert frame.endswith(b"\n\n")
            assert chunks(frame) or frame == b"data: [DONE]\n\n"


def test_openai_tells_usage_only_where_it_is_asked() -> None:
    plain = DIALECTS["openai"](BODY, 1)
    assert all("usage" not in chunk for frame in plain.closing(5, False) for chunk in chunks(frame))
    asked = DIALECTS["openai"]({**BODY, "stream_options": {"include_usage": True}}, 1)
    assert chunks(asked.delta("a"))[0]["usage"] is None
    [last] = chunks(asked.closing(5, False)[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5


def test_gemini_reads_the_model_and_whether_it_streams_from_the_path() -> None:
    gemini = DIALECTS["gemini"]
    body = {"contents": [], "generationConfig": {"maxOutputTokens": 3}}
    asked = gemini.asked("/v1beta/models/m-1:streamGenerateContent", body)
    assert asked == {**body, "model": "m-1", "stream": True, "max_tokens": 3}
    whole = gemini.asked("/v1/publishers/google/models/m:generateContent", {})
    assert whole == {"model": "m", "stream": False, "max_tokens": None}
    for path in ("/v1beta/models/m:countTokens", "/v1/chat/completions", "/v1beta/models/m:xstreamGenerateContent"):
        assert gemini.asked(path, body) is None
    answer = gemini(asked, 1)
    [last] = chunks(answer.closing(3, True)[-1])
    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert last["usageMetadata"]["candidatesTokenCount"] == 3
    assert answer.error(429, "x") == {"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}


def test_anthropic_names_every_event() -> None:
    answer = DIALECTS["anthropic"](BODY, 1)
    for frame in [*answer.opening(), answer.delta("a"), *answer.closing(1, True), answer.error_frame(429, "x")]:
        name, data = frame.decode().splitlines()[:2]
        assert name.removeprefix("event: ") == json.loads(data[6:])["type"]
