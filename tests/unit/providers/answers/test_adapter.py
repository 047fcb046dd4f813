"""The base of adapters: what it makes of chunks that are no answer."""

from __future__ import annotations

import json

import pytest

from gai_fast.model.errors import Error, Malformed
from gai_fast.providers import get_provider
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.requests.tool_names import RenamingAdapter


def test_an_adapter_has_nothing_to_tell_before_an_error_unless_it_says_so() -> None:
    assert ProviderAdapter.abort(get_provider("openai").adapter()) == []


def test_a_chunk_must_be_an_object_that_tells_of_no_failure() -> None:
    for provider in ("openai", "anthropic", "gemini", "cohere", "ollama", "openai:responses"):
        adapter = get_provider(provider).adapter()
        assert adapter.checked({"odd": 1}) == {"odd": 1}
        with pytest.raises(Malformed, match="a JSON list, not an object"):
            adapter.checked([])
        with pytest.raises(Error, match="broke") as caught:
            adapter.checked({"error": {"message": "broke", "code": "rate_limit_exceeded"}})
        assert (caught.value.code, caught.value.provider) == ("rate_limited", provider.partition(":")[0])


def test_an_answer_amid_another_is_an_error_of_the_upstream() -> None:
    error = get_provider("anthropic").adapter().spliced()
    assert (error.code, error.reason) == ("provider_unavailable", "spliced_answer")


def test_an_error_event_is_reported_in_whatever_shape_it_is() -> None:
    adapter = get_provider("openai").adapter()
    assert adapter.error_event('{"error":{"message":"m","code":"rate_limit_exceeded"}}').code == "rate_limited"
    assert adapter.error_event('{"odd":1}').message == '{"odd":1}'
    assert adapter.error_event("it broke").message == "it broke"


def test_a_wrapping_adapter_makes_the_start_again_if_it_was_lost() -> None:
    adapter = RenamingAdapter(get_provider("openai").adapter("m"), {"a.b": "a_b"})
    chunk = '{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}'
    assert [event["type"] for event in adapter.receive("", chunk)] == ["start", "text.delta"]
    adapter.started = False  # as the relay does after a chunk that could not be read
    assert [event["type"] for event in adapter.receive("", chunk)] == ["start", "text.delta"]
    assert adapter.started


def test_a_wrapping_adapter_knows_the_usage_of_a_chunk_that_reports_a_failure() -> None:
    adapter = RenamingAdapter(get_provider("cohere").adapter("m"), {"a.b": "a_b"})
    end = {"finish_reason": "ERROR", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 4}}}
    with pytest.raises(Error):
        adapter.receive("", json.dumps({"type": "message-end", "delta": end}))
    assert adapter.usage is not None


def test_a_wrapping_adapter_knows_the_usage_of_a_whole_answer_that_reports_a_failure() -> None:
    adapter = RenamingAdapter(get_provider("cohere").adapter("m"), {"a.b": "a_b"})
    usage = {"tokens": {"input_tokens": 3, "output_tokens": 4}}
    with pytest.raises(Error):
        adapter.receive_whole({"id": "c", "finish_reason": "ERROR", "message": {"content": []}, "usage": usage})
    assert adapter.usage is not None
