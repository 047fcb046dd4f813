from __future__ import annotations

import inspect

import openai
import pytest
from openai.resources.beta.agents.environments import Environments
from openai.resources.beta.agents.sessions.events import Events

from gai_fast.providers import get_provider
from gai_fast.server.pass_through.repetition import may_repeat

KEYED = get_provider("openai").keyed_paths
KEY = {"idempotency-key": "k-1"}


@pytest.mark.parametrize(
    "path",
    ["/embeddings", "/v1/embeddings", "/openai/deployments/a/embeddings", "/api/embed", "/v2/embed", "/v1/moderations",
     "/v1/chat/moderations", "/v1/rerank", "/v2/rerank", "/v1/messages/count_tokens", "/responses/input_tokens",
     "/v1beta/models/m:countTokens", "/v1beta/models/m:embedContent", "/v1beta/models/m:batchEmbedContents",
     "/publishers/anthropic/models/count-tokens:rawPredict", "/tokenize"],
)  # fmt: skip
def test_what_only_computes_may_come_twice(path: str) -> None:
    assert may_repeat("POST", path, {}, ())
    assert not may_repeat("DELETE", path, {}, ())
    assert not may_repeat("PUT", path, {}, ())


@pytest.mark.parametrize(
    "path",
    ["/v1/fine_tuning/jobs", "/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/files",
     "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/batches", "/v1/responses/compact", "/",
     "/v1beta/models/m:generateContent", "/publishers/anthropic/models/m:rawPredict", "/v1/embeddings/x",
     "/v1/embed-jobs", "/v1/x:embeddings", "/agents/environments", "/agents/sessions/s/events"],
)  # fmt: skip
def test_what_stores_or_costs_may_not(path: str) -> None:
    assert not may_repeat("POST", path, {}, KEYED)
    assert may_repeat("GET", path, {}, ())
    assert may_repeat("HEAD", path, {}, ())


def test_a_key_counts_where_the_provider_knows_it_alone() -> None:
    for path in ("/agents/environments", "/agents/sessions/s-1/events"):
        assert may_repeat("POST", path, KEY, KEYED)
        assert not may_repeat("POST", path, {"idempotency-key": ""}, KEYED)
        assert not may_repeat("POST", path, KEY, ())
        assert not may_repeat("DELETE", path, KEY, KEYED)
    for path in ("/fine_tuning/jobs", "/agents/sessions", "/agents/sessions/a/b/events", "/images/generations"):
        assert not may_repeat("POST", path, KEY, KEYED)


def test_the_paths_are_those_of_openais_own_client() -> None:
    """The SDK's own parameter says where OpenAI knows the key; it sends none of its own accord."""
    for create in (Environments.create, Events.create):
        assert "idempotency_key" in inspect.signature(create).parameters
    assert openai.OpenAI(api_key="k")._idempotency_header is None
    for provider in ("anthropic", "groq", "mistral", "cohere", "gemini", "azure", "openai-compatible"):
        assert get_provider(provider).keyed_paths == ()
