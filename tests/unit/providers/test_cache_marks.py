"""What ends a cached part of the prompt, and the cache of a whole request: each provider's form of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import get_format
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import Cache
from tests.unit.providers.answer_reading import body

TOOL = {"name": "f", "parameters": {"type": "object"}}
HOUR = {"ttl": "1h"}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}]


def test_anthropic_has_marks_on_tools_texts_and_the_request() -> None:
    messages = [{"role": "system", "content": [text("Be brief.", cache=HOUR)]}, *asked(text("Hi", cache=True))]
    sent = body("anthropic", messages=messages, tools=[{**TOOL, "cache": True}], cache={"key": "k", "ttl": "10m"})
    assert sent["tools"][0]["cache_control"] == {"type": "ephemeral"}
    assert sent["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert sent["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert sent["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_openai_has_a_key_and_marks_on_parts(name: str) -> None:
    sent = body(name, messages=asked(text("Hi", cache=HOUR)), cache={"key": "k", "ttl": "1h"})
    assert (sent["prompt_cache_key"], sent["prompt_cache_options"]) == ("k", {"ttl": "30m"})
    mark = {"mode": "explicit", "ttl": "12h"}
    assert sent["messages"][0]["content"] == [text("Hi", prompt_cache_breakpoint=mark)]


@pytest.mark.parametrize("name", ["openai:responses", "azure:responses"])
def test_so_has_the_responses_api(name: str) -> None:
    sent = body(name, messages=asked(text("Hi", cache=True)), cache={"key": "k"})
    assert sent["prompt_cache_key"] == "k"
    part = {"type": "input_text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert sent["input"][0]["content"] == [part]


def test_openrouter_has_anthropics_marks_and_mistral_the_key() -> None:
    sent = body("openrouter", messages=asked(text("Hi", cache=True)))
    assert sent["messages"][0]["content"] == [text("Hi", cache_control={"type": "ephemeral"})]
    assert body("mistral", cache={"key": "k"})["prompt_cache_key"] == "k"


@pytest.mark.parametrize("name", ["groq", "xai", "deepseek", "gemini", "cohere", "ollama", "xai:responses", "mistral"])
def test_marks_are_left_out_where_caching_is_automatic(name: str) -> None:
    messages, tools = asked(text("Hi", cache=True)), [{**TOOL, "cache": True}]
    plain = body(name, messages=asked(text("Hi")), tools=[TOOL])
    assert body(name, messages=messages, tools=tools, cache={"ttl": "1h"}) == plain


@pytest.mark.parametrize(("given", "kept"), [(None, 4), ({}, 3)])
def test_the_latest_marks_are_kept(given: Any, kept: int) -> None:
    parts = [text(str(at), cache=True) for at in range(5)]
    fields = {"messages": asked(*parts), "tools": [{**TOOL, "cache": True}]}
    request = parse_request(encode_json(fields | ({} if given is None else {"cache": given})))
    assert request.tools[0].cache is UNSET
    content: Any = request.messages[0].content
    assert [part.cache for part in content] == [UNSET] * (5 - kept) + [True] * kept


@pytest.mark.parametrize("ttl", ["", "5", "m", "-5m", "5m\n", "5 m", "1000m", 5])
def test_a_time_of_another_form_is_refused_by_its_path(ttl: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"at `\$\.messages\[0\]\.content\[0\]\.cache"):
        parse_request(encode_json({"messages": asked(text("Hi", cache={"ttl": ttl}))}))


@pytest.mark.parametrize(
    ("dialect", "request_body"),
    [
        (
            "openai",
            {
                "prompt_cache_key": "k",
                "prompt_cache_options": {"ttl": "30m"},
                "messages": asked(
                    text("Hi", prompt_cache_breakpoint={"mode": "explicit"}), text("!", cache_control={})
                ),
            },
        ),
        (
            "responses",
            {
                "prompt_cache_key": "k",
                "prompt_cache_options": {"ttl": "30m"},
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}},
                            {"type": "input_text", "text": "!", "prompt_cache_breakpoint": {"mode": "explicit"}},
                        ],
                    }
                ],
            },
        ),
    ],
)
def test_openais_dialects_have_them(dialect: str, request_body: dict[str, Any]) -> None:
    request, lost = get_format(dialect).parse_request(request_body)
    assert lost == []
    assert request.cache == Cache(key="k", ttl="30m")
    content: Any = request.messages[0].content
    assert [part.cache for part in content] == [True, True]


def test_anthropics_dialect_has_them() -> None:
    mark: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    request, lost = get_format("anthropic").parse_request(
        {
            "max_tokens": 5,
            "system": [text("Be brief.", **mark)],
            "tools": [{"name": "f", "input_schema": {}, **mark}],
            "messages": [
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "4", **mark}]},
            ],
        }
    )
    assert lost == []
    marked: list[Any] = [request.tools[0], request.messages[0].content[0], request.messages[2].content[0]]
    assert [each.cache.ttl for each in marked] == ["1h"] * 3
