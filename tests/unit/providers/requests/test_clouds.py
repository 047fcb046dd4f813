"""The forms of APIs in clouds, judged by the requests of the official SDKs."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import NotFound
from gai_fast.providers import Target, UpstreamRequest, get_provider
from gai_fast.providers.requests.clouds import InCloud

BASE = "https://us-east5-aiplatform.googleapis.com/v1/projects/p-1/locations/us-east5"
ASKED: Any = [{"role": "user", "content": "Hi"}]
BODY: dict[str, Any] = {"model": "m", "max_tokens": 16, "messages": ASKED}


def theirs(call: Any) -> httpx2.Request:
    """Returns the request that the official SDK sends."""
    sent: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(400, json={"type": "error", "error": {"type": "invalid_request_error", "message": "no"}})

    client = anthropic.AnthropicVertex(
        region="us-east5",
        project_id="p-1",
        access_token="tok",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handler)),
    )
    with client, pytest.raises(anthropic.BadRequestError):
        call(client)
    return sent[0]


def check(ours: UpstreamRequest, expected: httpx2.Request) -> None:
    assert f"{BASE}{ours.path}" == str(expected.url)
    assert json.loads(ours.body) == json.loads(expected.content)
    headers = dict(ours.headers)
    assert headers.get("anthropic-beta") == expected.headers.get("anthropic-beta")
    assert "x-api-key" not in headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-3-5-sonnet@20240620", "a;b c%d"])
def test_claude_on_vertex_is_asked_as_anthropics_own_client_asks_it(stream: bool, model: str) -> None:
    expected = theirs(lambda client: client.messages.create(**{**BODY, "model": model, "stream": stream}))
    ours = get_provider("anthropic:vertex").build_passthrough({**BODY, "stream": stream}, Target(model, "tok"))
    check(ours, expected)
    assert dict(ours.headers)["authorization"] == expected.headers["authorization"]


def test_the_version_that_a_client_names_is_kept_and_sampling_has_the_older_one() -> None:
    api = get_provider("anthropic:vertex")
    named = api.build_passthrough(BODY, Target("m"), {"anthropic-version": "2023-06-01"})
    assert json.loads(named.body)["anthropic_version"] == "2023-06-01"
    sampled = api.build_passthrough({**BODY, "temperature": 0.5}, Target("m"))
    assert json.loads(sampled.body)["anthropic_version"] == "2023-06-01"


def test_a_native_request_is_asked_as_a_stream_with_its_betas_in_the_header() -> None:
    asked = parse_request(b'{"query":"Hi","max_tokens":16,"provider_options":{"anthropic":{"betas":["b-1"]}}}')
    ours = get_provider("anthropic:vertex").build_request(asked, Target("m"))
    assert ours.path == "/publishers/anthropic/models/m:streamRawPredict"
    body = json.loads(ours.body)
    assert (body["anthropic_version"], body["stream"], "model" in body, "betas" in body) == (
        "2026-10-21",
        True,
        False,
        False,
    )
    assert dict(ours.headers)["anthropic-beta"] == "b-1"
    assert "anthropic-version" not in dict(ours.headers)


def test_tokens_are_counted_as_anthropics_own_client_counts_them() -> None:
    expected = theirs(lambda client: client.messages.count_tokens(model="m", messages=ASKED))
    ours = get_provider("anthropic:vertex").build_count({"model": "other", "messages": ASKED}, Target("m"))
    check(ours, expected)


@pytest.mark.parametrize(
    ("model", "resource"),
    [
        ("gemini-3-pro", "publishers/google/models/gemini-3-pro"),
        ("publishers/google/models/gemini-3-pro", "publishers/google/models/gemini-3-pro"),
        ("projects/p/locations/l/publishers/google/models/m@1", "publishers/google/models/m@1"),
        ("endpoints/123", "endpoints/123"),
        ("a/b", "publishers/google/models/a%2Fb"),
    ],
)
def test_gemini_on_vertex_is_asked_below_its_location(model: str, resource: str) -> None:
    asked = parse_request(b'{"query":"Hi"}')
    ours = get_provider("gemini:vertex").build_request(asked, Target(model, "tok"))
    assert ours.path == f"/{resource}:streamGenerateContent?alt=sse"
    assert dict(ours.headers)["authorization"] == "Bearer tok"


def test_vertex_takes_no_ids_of_calls() -> None:
    call = {"type": "tool_call", "call_id": "call_1", "name": "f", "input": {}}
    asked = {
        "messages": [
            *ASKED,
            {"role": "assistant", "content": [call]},
            {"role": "tool", "call_id": "call_1", "content": "x"},
        ],
        "tools": [{"name": "f", "parameters": {"type": "object"}}],
    }
    ours = get_provider("gemini:vertex").build_request(parse_request(json.dumps(asked).encode()), Target("m"))
    assert b"call_1" not in ours.body


@pytest.mark.parametrize("provider", ["anthropic:vertex", "gemini:vertex"])
@pytest.mark.parametrize("model", ["", ".", ".."])
def test_an_id_that_would_change_the_path_is_no_model(provider: str, model: str) -> None:
    with pytest.raises(NotFound):
        get_provider(provider).build_request(parse_request(b'{"query":"Hi","max_tokens":16}'), Target(model))


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ],
)
def test_vertex_has_a_host_for_each_region(region: str, host: str) -> None:
    assert InCloud("https://{vertex}/{project}/{region}").address(region, "p") == f"https://{host}/p/{region}"
