"""The fields of a native request that some APIs have, each under its own name, and others lack."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from gai_fast import decode
from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Unsupported
from gai_fast.providers import PROVIDERS, Target, get_provider
from gai_fast.providers.requests.parts import KNOBS
from tests.unit.providers.answer_reading import body, body_without

TOOL = {"name": "f", "parameters": {"type": "object"}}
GIVEN: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "repetition_penalty": 1.5,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 3,
    "parallel_tool_calls": False,
    "verbosity": "low",
    "service_tier": "flex",
    "user": "u",
    "safety_identifier": "s",
}
OPENAI = {name: GIVEN[name] for name in KNOBS if name not in ("top_k", "min_p", "repetition_penalty")}
_LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 3}
_RESPONSES = {**_LOGPROBS, "parallel_tool_calls": False, "service_tier": "flex", "user": "u"}
WRITTEN: dict[str, dict[str, Any]] = {
    "openai": OPENAI,
    "azure": OPENAI,
    "openai-compatible": GIVEN,
    "openrouter": GIVEN,
    "xai": {name: OPENAI[name] for name in OPENAI if name not in ("logit_bias", "verbosity", "safety_identifier")},
    "openai:responses": {**_RESPONSES, "text": {"verbosity": "low"}, "safety_identifier": "s"},
    "xai:responses": _RESPONSES,
    "groq": {name: OPENAI[name] for name in OPENAI if name not in ("verbosity", "safety_identifier")},
    "groq:responses": {"parallel_tool_calls": False, "service_tier": "flex", "user": "u"},
    "mistral": {
        "top_k": 5,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.5,
        "logprobs": True,
        "top_logprobs": 3,
        "parallel_tool_calls": False,
        "service_tier": "standard_only",
    },
    "deepseek": {"frequency_penalty": 0.5, "presence_penalty": -0.5, "logprobs": True, "top_logprobs": 3},
    "perplexity": {"top_k": 5, "frequency_penalty": 0.5, "presence_penalty": -0.5},
    "anthropic": {
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    },
    "gemini": {
        "generationConfig": {
            "topK": 5,
            "frequencyPenalty": 0.5,
            "presencePenalty": -0.5,
            "responseLogprobs": True,
            "logprobs": 3,
        },
        "serviceTier": "flex",
    },
    "cohere": {"k": 5, "frequency_penalty": 0.5, "presence_penalty": 0},
    "ollama": {
        "options": {
            "top_k": 5,
            "min_p": 0.1,
            "frequency_penalty": 0.5,
            "presence_penalty": -0.5,
            "repeat_penalty": 1.5,
        },
        "logprobs": True,
        "top_logprobs": 3,
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_knob_has_the_apis_own_name_and_place(name: str) -> None:
    tools = {} if name == "perplexity" else {"tools": [TOOL]}
    plain = body_without(name, **tools)[0]
    sent, _ = body_without(name, **tools, **GIVEN)
    expected = WRITTEN[name]
    assert {key: value for key, value in sent.items() if key not in plain or value != plain[key]} == expected


LACKING = {
    "openai": "top_k min_p repetition_penalty",
    "azure": "top_k min_p repetition_penalty",
    "openai-compatible": "",
    "openrouter": "",
    "openai:responses": "top_k min_p frequency_penalty presence_penalty repetition_penalty logit_bias",
    "xai:responses": "top_k min_p frequency_penalty presence_penalty repetition_penalty logit_bias verbosity "
    "safety_identifier",
    "xai": "top_k min_p repetition_penalty logit_bias verbosity safety_identifier",
    "groq": "top_k min_p repetition_penalty verbosity safety_identifier",
    "groq:responses": "top_k min_p frequency_penalty presence_penalty repetition_penalty logit_bias logprobs "
    "top_logprobs verbosity safety_identifier",
    "mistral": "min_p logit_bias verbosity user safety_identifier",
    "deepseek": "top_k min_p repetition_penalty logit_bias parallel_tool_calls verbosity service_tier user "
    "safety_identifier",
    "perplexity": "min_p repetition_penalty logit_bias logprobs top_logprobs verbosity service_tier user "
    "safety_identifier",
    "anthropic": "min_p frequency_penalty presence_penalty repetition_penalty logit_bias logprobs top_logprobs "
    "verbosity service_tier safety_identifier",
    "gemini": "min_p repetition_penalty logit_bias parallel_tool_calls verbosity user safety_identifier",
    "cohere": "min_p repetition_penalty logit_bias logprobs top_logprobs parallel_tool_calls verbosity service_tier "
    "user safety_identifier",
    "ollama": "logit_bias parallel_tool_calls verbosity service_tier user safety_identifier",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_an_api_lacks_is_refused_by_its_name_or_left_out(name: str) -> None:
    for knob, value in GIVEN.items():
        wanted = {knob: value} if name == "perplexity" else {"tools": [TOOL], knob: value}
        sent, dropped = body_without(name, **wanted)
        assert set(dropped) - {"logprobs"} == {knob} & {*LACKING[name].split()} - {"logprobs"}, knob
        if dropped and knob not in ("user", "safety_identifier"):
            with pytest.raises(Unsupported, match=f"`{knob}`"):
                body(name, **wanted)
        else:
            assert body(name, **wanted) == sent


@pytest.mark.parametrize("name", WRITTEN)
def test_a_value_that_asks_for_the_default_is_never_refused(name: str) -> None:
    body(
        name,
        frequency_penalty=0,
        presence_penalty=0,
        repetition_penalty=1,
        min_p=0,
        logit_bias={},
        logprobs=False,
        top_logprobs=0,
        parallel_tool_calls=True,
        verbosity="medium",
        service_tier="auto",
        stream=True,
    )


def test_each_name_of_a_table_is_a_knob() -> None:
    for module in PROVIDERS.values():
        for api in import_module(module).APIS.values():
            assert api.knobs.keys() <= {*KNOBS}


@pytest.mark.parametrize(
    ("name", "asked", "sent", "adjusted"),
    [
        ("openai", "max", {"reasoning_effort": "max"}, None),
        ("openai:responses", "xhigh", {"reasoning": {"effort": "xhigh", "summary": "auto"}}, None),
        ("groq", "xhigh", {"reasoning_effort": "high"}, "high"),
        ("groq", "none", {"reasoning_effort": "none"}, None),
        ("groq", "minimal", {"reasoning_effort": "low"}, "low"),
        ("mistral", "max", {"reasoning_effort": "max"}, None),
        ("xai", "max", {"reasoning_effort": "high"}, "high"),
        ("perplexity", "none", {"reasoning_effort": "low"}, "low"),
        ("deepseek", "none", {"thinking": {"type": "disabled"}}, None),
        ("openrouter", "max", {"reasoning": {"effort": "xhigh"}}, "xhigh"),
        ("cohere", "none", {"thinking": {"type": "disabled"}}, None),
        ("cohere", "minimal", {"thinking": {"type": "disabled"}}, "disabled"),
        ("cohere", "max", {"thinking": {"type": "enabled"}}, "enabled"),
        ("ollama", "none", {"think": False}, None),
        ("ollama", "xhigh", {"think": "high"}, "high"),
    ],
)
def test_an_effort_is_the_apis_word_or_its_nearest_which_is_reported(
    name: str, asked: str, sent: dict[str, Any], adjusted: str | None
) -> None:
    target = Target("m1", "k")
    request = parse_request(encode_json({"query": "Hi", "reasoning": {"effort": asked}}))
    written = parse_exact(get_provider(name).build_request(request, target).body.decode())
    assert {key: written[key] for key in sent} == sent
    assert target.changes.adjusted == ({} if adjusted is None else {"reasoning.effort": adjusted})


@pytest.mark.parametrize(
    ("name", "model", "summary", "sent"),
    [
        ("openai:responses", "m", "detailed", {"reasoning": {"effort": "low", "summary": "detailed"}}),
        ("openai:responses", "m", "none", {"reasoning": {"effort": "low"}}),
        ("openai", "m", "none", {"reasoning_effort": "low"}),
        ("groq", "qwen/qwen3-32b", "none", {"reasoning_format": "hidden"}),
        ("groq", "qwen/qwen3-32b", "concise", {"reasoning_format": "parsed"}),
        ("groq", "openai/gpt-oss-20b", "none", {"include_reasoning": False}),
        ("openrouter", "m", "none", {"reasoning": {"effort": "low", "exclude": True}}),
        ("anthropic", "m", "none", {"thinking": {"type": "adaptive", "display": "omitted"}}),
        ("anthropic", "m", "auto", {"thinking": {"type": "adaptive", "display": "summarized"}}),
        ("gemini", "gemini-3-flash", "none", {"thinkingLevel": "LOW", "includeThoughts": False}),
    ],
)
def test_a_summary_says_whether_thoughts_are_shown(name: str, model: str, summary: str, sent: dict[str, Any]) -> None:
    request = parse_request(encode_json({"query": "Hi", "reasoning": {"effort": "low", "summary": summary}}))
    written = parse_exact(get_provider(name).build_request(request, Target(model, "k")).body.decode())
    if name == "gemini":
        written = written["generationConfig"]["thinkingConfig"]
    assert {key: written.get(key) for key in sent} == sent
    assert not {"include_reasoning", "reasoning_format"} <= written.keys()


@pytest.mark.parametrize("name", ["deepseek", "cohere", "ollama", "mistral", "groq:responses"])
def test_a_summary_that_an_api_cannot_choose_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=r"`reasoning\.summary`"):
        body(name, reasoning={"summary": "concise"})
    assert body_without(name, reasoning={"summary": "concise"})[1] == ["reasoning.summary"]
    body(name, reasoning={"summary": "auto"})


SCORE = {"token": "Hi", "logprob": -0.5}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ollama", {"model": "m", "message": {"content": "Hi"}, "done": False, "logprobs": [SCORE]}),
        (
            "gemini",
            {
                "candidates": [
                    {
                        "content": {"parts": [{"text": "Hi"}]},
                        "logprobsResult": {
                            "chosenCandidates": [{"token": "Hi", "tokenId": 5, "logProbability": -0.5}],
                            "topCandidates": [{"candidates": [{"token": "Hi", "logProbability": -0.5}]}],
                        },
                    }
                ]
            },
        ),
        (
            "openai:responses",
            {
                "type": "response.output_text.delta",
                "output_index": 0,
                "content_index": 0,
                "delta": "Hi",
                "logprobs": [SCORE],
            },
        ),
        ("openai", {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [SCORE]}}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_probabilities_of_tokens_are_on_the_text_that_they_are_of(name: str, body: dict[str, Any]) -> None:
    line = encode_json(body)
    chunk = line + b"\n" if name == "ollama" else b"data: " + line + b"\n\n"
    events = [event for event in decode(name, [chunk, chunk]) if event["type"] == "text.delta"]
    expected = SCORE | ({"top_logprobs": [SCORE]} if name == "gemini" else {})
    assert [event.get("logprobs") for event in events] == [[expected], [expected]]


@pytest.mark.parametrize("odd", [5, [], "x", {"content": 5}, {"content": [5]}, {"content": None}])
def test_probabilities_of_another_shape_cost_no_text(odd: Any) -> None:
    body = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": odd}]}
    events = [*decode("openai", [b"data: " + encode_json(body) + b"\n\n"])]
    assert [(event["text"], "logprobs" in event) for event in events if event["type"] == "text.delta"] == [
        ("Hi", False)
    ]
