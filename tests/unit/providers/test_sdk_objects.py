"""`gai_fast/providers/_sdk_objects.py`: an object's API is told by its members, and a delta is read without a dump.

`tests/corpus/test_from_sdk.py` has recordings through the SDKs themselves.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from orjson import loads

import gai_fast
from gai_fast.providers import PROVIDERS
from gai_fast.providers._sdk_objects import provider_of, shape_of


def langchain(text: Any = "", *, calls: Any = (), usage: Any = None, **told: Any) -> Any:
    return SimpleNamespace(
        type="AIMessageChunk",
        content=text,
        tool_call_chunks=[*calls],
        usage_metadata=usage,
        response_metadata=told,
        additional_kwargs={},
    )


def test_message_chunks_of_langchain_keep_reasoning_calls_and_usage() -> None:
    call = {"index": 0, "id": "c1", "name": "now", "args": '{"a":'}
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "output_token_details": {"reasoning": 1}}
    messages = [
        langchain([{"type": "reasoning", "reasoning": "Hm"}]),
        langchain([{"type": "text", "text": "Let us see."}]),
        langchain(calls=[call]),
        langchain(calls=[{"index": 0, "id": None, "name": None, "args": "1}"}]),
        langchain(finish_reason="tool_calls", model_name="m"),
        langchain(usage=usage),
    ]
    result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
    assert (result.reasoning, result.text) == ("Hm", "Let us see.")
    assert result.tool_calls[0].input == {"a": 1}
    assert result.usage["output_tokens"] == 4


def test_pairs_of_langgraph_are_read() -> None:
    pairs = [(langchain("Hi"), {}), (langchain(finish_reason="stop"), {})]
    assert gai_fast.collect(gai_fast.from_sdk(iter(pairs))).text == "Hi"


@pytest.mark.parametrize(
    ("members", "api"),
    [
        ({"choices": []}, "openai"),
        ({"object": "chat.completion.chunk"}, "openai"),
        ({"type": "response.created"}, "openai:responses"),
        ({"type": "message_start"}, "anthropic"),
        ({"type": "message-start"}, "cohere"),
        ({"candidates": []}, "gemini"),
        ({"usageMetadata": {}}, "gemini"),
        ({"model": "m", "message": {}, "done": False}, "ollama"),
        ({"model": "m", "response": "", "done": False}, "ollama:generate"),
    ],
)
def test_members_tell_the_api(members: dict[str, Any], api: str) -> None:
    shape = shape_of(members, "")
    assert shape.api == api
    assert loads(shape.wire(members) or "") == members


class Model:
    """A model of pydantic, as far as it is read."""

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)
        self.__pydantic_extra__: dict[str, Any] = {}

    def model_dump_json(self, **options: Any) -> str:
        raise AssertionError("a delta is not dumped")


def chunk(**delta: Any) -> Model:
    choice = Model(index=0, delta=Model(**delta), finish_reason=None, logprobs=None)
    return Model(id="1", model="m", choices=[choice], usage=None)


def test_a_delta_of_text_is_read_without_a_dump() -> None:
    shape = shape_of(chunk(content="Hi"), "")
    assert shape.delta is not None
    assert loads(shape.delta(chunk(content="Hi", role=None)) or "") == {
        "choices": [{"index": 0, "delta": {"content": "Hi"}}]
    }


@pytest.mark.parametrize("more", [{"refusal": "no"}, {"audio": {"id": "a"}}, {"role": "r", "reasoning": "Hm"}])
def test_a_chunk_that_says_more_is_dumped(more: dict[str, Any]) -> None:
    shape = shape_of(chunk(content="Hi"), "")
    assert shape.delta is not None
    assert shape.delta(chunk(**{"content": "Hi", **more})) is None
    extra = chunk(content="Hi")
    extra.__pydantic_extra__ = {"citations": ["https://example.com"]}
    assert shape.delta(extra) is None
    extra.__pydantic_extra__ = {"obfuscation": "x"}
    assert shape.delta(extra) is not None


def test_the_members_of_a_model_tell_its_api_without_a_dump() -> None:
    assert shape_of(Model(candidates=None, usage_metadata=Model()), "").api == "gemini"
    assert shape_of(Model(choices=None, type="response.created"), "").api == "openai:responses"
    bare = Model()
    bare.__pydantic_extra__ = {"choices": []}
    assert shape_of(bare, "").api == "openai"


def test_a_delta_of_text_is_json_whatever_is_in_it() -> None:
    shape = shape_of(chunk(content="Hi"), "")
    assert shape.delta is not None
    for text in ('"\\\n\x00', "Grüße", "{0} %s"):
        assert loads(shape.delta(chunk(content=text)) or "")["choices"][0]["delta"] == {"content": text}
    assert shape.delta(chunk(content="Hi", role="assistant")) is not None
    odd = chunk(content="Hi")
    vars(odd)["choices"][0].index = None
    for each in (odd, chunk(content=None), Model(choices=[{}]), Model(choices=None), Model(choices=[])):
        assert shape.delta(each) is None


def test_what_an_sdks_helper_adds_says_nothing() -> None:
    assert shape_of(Model(type="text", text="Hi", snapshot="Hi"), "anthropic").wire(None) is None
    with pytest.raises(TypeError, match="Model"):
        shape_of(Model(type="text", text="Hi"), "")


def test_the_library_names_the_provider_of_a_dialect() -> None:
    class Chunk:
        __module__ = "groq.types.chat"

    assert provider_of("openai", Chunk(), PROVIDERS) == "groq"
    assert provider_of("anthropic", Chunk(), PROVIDERS) == "anthropic"
    assert provider_of("openai", {}, PROVIDERS) == "openai"
