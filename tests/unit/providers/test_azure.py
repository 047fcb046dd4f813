"""Additions of Azure to the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import NotFound
from gai_fast.model.events import other_ends
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import between, body, chunk, read, request


def _results(**categories: Any) -> dict[str, Any]:
    return {"content_filter_results": {"self_harm": {"filtered": False, "severity": "safe"}, **categories}}


def test_the_first_chunk_says_nothing_yet() -> None:
    first = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0, **_results()}]}
    events = read("azure", first, chunk({"content": "a"}), chunk(finish="stop"))
    assert events[0] == {"type": "start", "provider": "azure", "model": "m1", "provider_metadata": {"id": "c1"}}


def test_what_is_filtered_or_detected_is_reported() -> None:
    prompt = {"prompt_filter_results": [_results(jailbreak={"filtered": False, "detected": True})]}
    answer = chunk(finish="content_filter")
    answer["choices"][0] |= _results(violence={"filtered": True, "severity": "high"}, error=None)
    events = read("azure", {"choices": [], "id": "c1", **prompt}, answer)
    assert between(events) == [
        {"type": "safety", "safety": {"category": "jailbreak", "action": "detected"}},
        {"type": "safety", "safety": {"category": "violence", "action": "filtered", "score": 6}},
    ]
    assert events[-1]["finish_reason"] == "content_filter"


def test_a_blocked_prompt_is_content_filtered() -> None:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
    said = {
        "error": {"message": "m", "type": None, "param": "prompt", "code": None, "status": 400, "innererror": inner}
    }
    error = get_provider("azure").decode_error(400, {}, json.dumps(said).encode())
    assert error.code == "content_filtered"
    assert error.details == said["error"]


def test_a_missing_deployment_is_not_found() -> None:
    body = b'{"error":{"type":"invalid_request_error","code":"DeploymentNotFound","message":"m"}}'
    assert get_provider("azure").decode_error(404, {}, body).code == "not_found"


def test_the_deployment_is_the_model_and_the_key_has_its_own_header() -> None:
    sent = request("azure", model="my gpt/5", api_key="secret")
    assert sent.path == "/openai/v1/chat/completions"
    assert json.loads(sent.body)["model"] == "my gpt/5"
    assert dict(sent.headers)["api-key"] == "secret"
    assert "authorization" not in dict(sent.headers)
    assert "api-key" not in dict(request("azure", api_key=None).headers)


def test_a_dated_version_is_an_option_whose_path_has_the_deployment() -> None:
    options = {"azure": {"api_version": "2025-04-01-preview"}}
    sent = request("azure", model="my gpt/5", provider_options=options)
    assert sent.path == "/openai/deployments/my%20gpt%2F5/chat/completions?api-version=2025-04-01-preview"
    assert "api_version" not in json.loads(sent.body)
    assert body("azure")["stream_options"] == {"include_usage": True}


def test_a_request_of_the_dialect_passes_to_the_deployment() -> None:
    sent = get_provider("azure").build_passthrough({"model": "fast", "messages": []}, Target("gpt-5", "k"))
    assert sent.path == "/openai/v1/chat/completions"
    assert json.loads(sent.body)["model"] == "gpt-5"


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_a_model_that_would_lead_to_another_path_is_not_found(model: str) -> None:
    with pytest.raises(NotFound, match="no name of a deployment"):
        request("azure", model=model, provider_options={"azure": {"api_version": "2024-10-21"}})
    with pytest.raises(NotFound, match="no name of a deployment"):
        get_provider("azure").build_passthrough({"messages": [], "api_version": "2024-10-21"}, Target(model))


def test_what_is_filtered_of_a_choice_has_its_number_and_its_end() -> None:
    first, second = chunk({"content": "a"}, finish="stop"), chunk({"content": "b"}, finish="content_filter")
    second["choices"][0] |= {"index": 1, **_results(violence={"filtered": True, "severity": "high"})}
    events = read("azure", first, second)
    assert [each.get("choice", 0) for each in events if each["type"] == "safety"] == [1]
    assert events[-1]["finish_reason"] == "stop"
    assert other_ends(events[-1]) == [
        {"choice": 1, "finish_reason": "content_filter", "finish_reason_raw": "content_filter"}
    ]
