"""`gai_fast/providers/answers/finish_words.py`: every adapter reads every vendor's words; nothing is no call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.library.decoding import decode
from gai_fast.model.upstream_errors import REFUSAL_WORDS
from gai_fast.providers import get_provider
from gai_fast.providers.answers.finish_words import FAILURE_WORDS, FINISH_WORDS, known_word
from tests.unit.providers.answer_reading import call, calls_of, chunk, read
from tests.unit.providers.upstreams import PROVIDERS, end_mark, ending, frames, opening

WORDS = {
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "end_turn": "stop",
    "COMPLETE": "stop",
    "tool_use": "tool_calls",
}
CHAT = ("openai-compatible", "openai", "mistral", "deepseek", "groq", "xai", "openrouter")


@pytest.mark.parametrize("provider", CHAT)
@pytest.mark.parametrize(("word", "reason"), WORDS.items())
def test_another_vendors_word_means_what_it_means_there(provider: str, word: str, reason: str) -> None:
    finish = read(provider, chunk({"content": "Hi"}), chunk(finish=word))[-1]
    assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("FinishReason.STOP", "stop"),
        ("FinishReason.MAX_TOKENS", "length"),
        ("maxTokens", "length"),
        ("max-tokens", "length"),
        ("stop ", "stop"),
        ("EndTurn", "stop"),
        ("toolUse", "tool_calls"),
        ("tool-calls", "tool_calls"),
        ("content-filter", "content_filter"),
        ("content_filter: SAFETY", "content_filter"),
        ("x: y", "other"),
        (": .", "other"),
        ("unstoppable", "other"),
    ],
)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_word_keeps_its_meaning_in_another_spelling(provider: str, word: str, reason: str) -> None:
    finish = ended(provider, word)
    assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)


@pytest.mark.parametrize(
    "word", ["function_call_filter: MALFORMED_FUNCTION_CALL", "FinishReason.MALFORMED_FUNCTION_CALL", "error: upstream"]
)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_failure_stays_one_in_another_spelling(provider: str, word: str) -> None:
    """OpenRouter's words for Gemini's."""
    error = ended(provider, word)["error"]
    assert (error["code"], error["reason"]) == ("internal", known_word(word))


def ended(provider: str, word: str) -> Any:
    """Returns the last event but `done` of an answer with this finish reason."""
    return list(decode(provider, frames(provider, [*opening(provider), *ending(provider, word), *end_mark(provider)])))[
        -2
    ]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_adapter_reads_every_vendors_words_in_any_case(provider: str) -> None:
    read = {word: ended(provider, word) for word in FINISH_WORDS} | {
        word.upper(): ended(provider, word.upper()) for word in FINISH_WORDS
    }
    assert {finish["finish_reason_raw"] for finish in read.values()} == read.keys()
    wrong = {
        word: finish["finish_reason"]
        for word, finish in read.items()
        if finish["finish_reason"] != FINISH_WORDS[word.lower()]
    }
    assert wrong == {}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_adapter_reads_every_vendors_words_for_a_failure(provider: str) -> None:
    events = {word: ended(provider, word) for word in FAILURE_WORDS}
    assert {word for word, event in events.items() if event["type"] != "error"} == set()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_word_for_refused_content_means_it_wherever_it_stands(provider: str) -> None:
    """As a finish reason, as the code of an error with status 400, and of an error in the stream."""
    spelled = [*REFUSAL_WORDS, "DataInspectionFailed", "ResponsibleAIPolicyViolation", "SAFETY", "PROHIBITED_CONTENT"]
    for word in spelled:
        assert ended(provider, word)["finish_reason"] == "content_filter", word
        for error in ({"code": word, "message": "No."}, {"type": word, "message": "No."}):
            refusal = get_provider(provider).decode_error(400, {}, json.dumps({"error": error}).encode())
            assert refusal.code == "content_filtered", word
            for chunks in ([{"error": error}], [*opening(provider), {"error": error}]):
                event = list(decode(provider, frames(provider, chunks)))[-2]
                assert event["error"]["code"] == "content_filtered", word


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "message",
    [
        "Content Exists Risk",  # DeepSeek
        "The request was rejected because it was considered high risk",  # Moonshot
        "Output blocked by content filtering policy",  # Anthropic
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "<400> InternalError.Algo: Output data may contain inappropriate content.",  # Alibaba
        "Your request was rejected as a result of our safety system.",  # OpenAI
        "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语",  # Zhipu
    ],
)
def test_a_message_for_refused_content_means_it_beside_a_generic_word(provider: str, message: str) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_request_error"}}
    assert get_provider(provider).decode_error(400, {}, json.dumps(error).encode()).code == "content_filtered"
    event = list(decode(provider, frames(provider, [error])))[-2]
    assert event["error"]["code"] == "content_filtered"


def test_no_word_for_a_failure_is_one_for_an_end() -> None:
    assert FAILURE_WORDS.isdisjoint(FINISH_WORDS)
    assert all(word == word.lower() for word in (*FINISH_WORDS, *FAILURE_WORDS))


@pytest.mark.parametrize(
    "last",
    [{"function_call": {"name": "", "arguments": ""}}, call("", name="", index=0), call("{}", name="", index=0)],
    ids=["function_call", "tool_calls", "empty object"],
)
def test_a_call_without_a_name_and_arguments_is_none(last: Any) -> None:
    events = read("openai-compatible", chunk({"content": "Hi"}), chunk(last, finish="stop"))
    assert calls_of(events) == []
    assert events[-1]["finish_reason"] == "stop"
