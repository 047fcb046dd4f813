"""`gai_fast/providers/_finish_words.py`: every adapter reads every vendor's words; nothing is no call."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.providers._finish_words import FAILURE_WORDS, FINISH_WORDS
from tests.unit.providers.answers import call, calls_of, chunk, read

WORDS = {
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "end_turn": "stop",
    "COMPLETE": "stop",
    "tool_use": "tool_calls",
}
PROVIDERS = ("openai-compatible", "openai", "mistral", "deepseek", "groq", "xai", "openrouter")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("word", "reason"), WORDS.items())
def test_another_vendors_word_means_what_it_means_there(provider: str, word: str, reason: str) -> None:
    finish = read(provider, chunk({"content": "Hi"}), chunk(finish=word))[-1]
    assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)


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
