"""`gai_fast.from_sdk` on recordings: through each official SDK an answer has the events that its bytes have.

The SDKs read the recordings by their own HTTP clients, without sockets.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps, loads

import gai_fast
from tests.corpus.recordings import CORPUS, judge

ASK = [{"role": "user", "content": "Hi"}]


def transport(library: Any, body: bytes, media_type: str = "text/event-stream") -> Any:
    """A client of httpx, or of its successor, that gets this answer."""
    answer = library.Response(200, headers={"content-type": media_type}, content=body)
    return library.Client(transport=library.MockTransport(lambda request: answer))


def openai(body: bytes) -> Any:
    import httpx
    from openai import OpenAI

    client = OpenAI(api_key="x", http_client=transport(httpx, body), max_retries=0)
    return client.chat.completions.create(model="m", messages=ASK, stream=True)  # type: ignore[call-overload]  # plain


def responses(body: bytes) -> Any:
    import httpx
    from openai import OpenAI

    client = OpenAI(api_key="x", http_client=transport(httpx, body), max_retries=0)
    return client.responses.create(model="m", input="Hi", stream=True)


def groq(body: bytes) -> Any:
    import httpx
    from groq import Groq

    client = Groq(api_key="x", http_client=transport(httpx, body), max_retries=0)
    return client.chat.completions.create(model="m", messages=ASK, stream=True)


def anthropic(body: bytes) -> Any:
    import httpx2
    from anthropic import Anthropic

    client = Anthropic(api_key="x", http_client=transport(httpx2, body), max_retries=0)
    return client.messages.create(model="m", max_tokens=10, messages=ASK, stream=True)


def gemini(body: bytes) -> Any:
    import httpx
    from google import genai
    from google.genai.types import HttpOptions

    client = genai.Client(api_key="x", http_options=HttpOptions(httpx_client=transport(httpx, body)))
    return client.models.generate_content_stream(model="m", contents="Hi")


def mistral(body: bytes) -> Any:
    import httpx
    from mistralai.client import Mistral

    return Mistral(api_key="x", client=transport(httpx, body)).chat.stream(model="m", messages=ASK)


def cohere(body: bytes) -> Any:
    import httpx
    from cohere import ClientV2

    return ClientV2(api_key="x", httpx_client=transport(httpx, body)).chat_stream(model="m", messages=ASK)


def ollama(body: bytes) -> Any:
    import httpx
    from ollama import Client

    client = Client(host="http://127.0.0.1:1")
    client._client = transport(httpx, body, "application/x-ndjson")
    client._client.base_url = "http://127.0.0.1:1"
    return client.chat(model="m", messages=ASK, stream=True)


SDKS: dict[str, tuple[str, Callable[[bytes], Any], str]] = {
    "openai": ("openai", openai, "chat"),
    "openai:responses": ("openai", responses, "responses"),
    "groq": ("groq", groq, "chat"),
    "anthropic": ("anthropic", anthropic, "anthropic"),
    "gemini": ("gemini", gemini, "gemini"),
    "mistral": ("mistral", mistral, "chat"),
    "cohere": ("cohere", cohere, "cohere"),
    "ollama": ("ollama", ollama, "ollama"),
}


def comparable(events: Iterable[Any]) -> list[Any]:
    """Events without what differs between two readings, and with neighbouring deltas joined.

    An SDK parses the arguments of Gemini's calls, so their spaces are lost; log probabilities are left out, as SDKs
    write other numbers.
    """
    plain = [
        {key: event[key] for key in event if key not in ("ts", "request_id", "seq", "logprobs")} for event in events
    ]
    text = re.sub(rb"call_[0-9a-f]{24}", b"call_1", dumps(plain))
    joined = []
    for (kind, _), several in groupby(loads(text), lambda event: (event["type"], event.get("index"))):
        group = list(several)
        if kind == "tool.call.delta":
            arguments = "".join(event["arguments"] for event in group)
            joined.append({**group[0], "arguments": arguments.replace('": ', '":').replace(", ", ",")})
        else:
            joined += group
    return joined


@pytest.mark.parametrize("provider", SDKS)
def test_an_answer_is_the_same_through_its_sdk(provider: str) -> None:
    judge()
    pytest.importorskip(provider.partition(":")[0].replace("gemini", "google.genai").replace("mistral", "mistralai"))
    folder, ask, kind = SDKS[provider]
    compared = 0
    for path in sorted((CORPUS / folder).iterdir()):
        is_of_api = path.name.startswith(f"{kind}_")
        if path.suffix not in (".sse", ".ndjson") or not is_of_api:
            continue
        body = path.read_bytes()
        if b'"type":"completion"' in body or (kind == "ollama" and b'"response":' in body[:200]):
            continue  # the providers' older APIs
        named = list(gai_fast.from_sdk(ask(body), provider=provider))
        assert comparable(named) == comparable(gai_fast.decode(provider, [body])), path.name
        told = list(gai_fast.from_sdk(ask(body)))
        assert comparable(told) == comparable(named), f"{path.name}: the objects tell the provider"
        compared += 1
    assert compared >= 4


# ---- chunks of any shape ---------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["a", "a", "", None, 'Grüße "\\\n\x00', "\ud83d", 5, ["a"], [{"type": "text", "text": "b"}]])
INDEXES = st.sampled_from([0, 0, 0, 0, 1, None, "0", -1])
COUNTS = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
SCORES: dict[str, Any] = {"content": [{"token": "a", "bytes": None, "logprob": -0.5, "top_logprobs": []}]}
FLAGGED = {"output": {"results": [{"categories": {"hate": True}, "category_scores": {"hate": 0.5}}]}}


def members(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these members, most of them few."""
    kinds = {
        name: value if isinstance(value, st.SearchStrategy) else st.sampled_from(value)
        for name, value in values.items()
    }
    some = st.lists(st.sampled_from([*kinds]), max_size=2, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries({name: kinds[name] for name in names}))


def joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda each: {name: value for part in each for name, value in part.items()})


CHAT_DELTA = joined(
    st.fixed_dictionaries({"content": TEXTS}),
    members(
        role=["assistant", None, "", 5],
        refusal=["no", None],
        reasoning_content=["Hm", "", None],
        reasoning=["Hm", None],
        tool_calls=[[CALL], [], None],
        function_call=[{"name": "f", "arguments": "{}"}],
        annotations=[[{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]],
        executed_tools=[[{"type": "search", "arguments": "{}", "index": 0}]],
        reasoning_details=[[], [{"type": "reasoning.text", "text": "Hm", "signature": "s"}]],
    ),
)
CHAT_CHOICE = joined(
    st.fixed_dictionaries(
        {"index": INDEXES, "delta": st.one_of(CHAT_DELTA, CHAT_DELTA, st.sampled_from([None, {}, []]))}
    ),
    members(
        finish_reason=["stop", "length", None, "", 5],
        logprobs=[SCORES, None, {}],
        usage=[COUNTS, {}],
        stop_reason=["###", None],
        message=[{"content": "whole"}, None],
        content_filter_results=[{"hate": {"filtered": True, "severity": "low"}}, {}],
        error=[{"message": "overloaded", "code": 502}, None],
    ),
)
CHAT_CHUNK = joined(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(["1", "1", "", None]),
            "model": st.sampled_from(["m", "m", "", "n"]),
            "choices": st.one_of(
                *[st.tuples(CHAT_CHOICE).map(list)] * 3,
                st.lists(CHAT_CHOICE, max_size=3),
            ),
        }
    ),
    members(
        usage=[COUNTS, None, {}],
        moderation=[FLAGGED, None],
        x_groq=[{"id": "r", "usage": COUNTS}, {"id": "r", "error": "overloaded"}, None],
        obfuscation=["xyz"],
        service_tier=["default", None],
        citations=[["https://a.example"], []],
        prompt_filter_results=[[{"content_filter_results": {"hate": {"filtered": True}}}], []],
        error=[{"message": "overloaded", "code": 502}],
    ),
)


MESSAGE_DELTA = st.one_of(
    joined(
        st.fixed_dictionaries({"type": st.sampled_from(["text_delta", "text_delta", None, "odd"]), "text": TEXTS}),
        members(citations=[[], None], extra=[5]),
    ),
    st.sampled_from(
        [
            {"type": "thinking_delta", "thinking": "Hm"},
            {"type": "signature_delta", "signature": "s"},
            {"type": "input_json_delta", "partial_json": "{}"},
            {"type": "citations_delta", "citation": {"type": "web_search_result_location", "url": "https://a.example"}},
        ]
    ),
)
BLOCKS = [{"type": "text", "text": ""}, {"type": "text", "text": "b"}, {"type": "thinking", "thinking": ""}]
TOOL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
MESSAGE_EVENT = st.one_of(
    *[
        joined(
            st.fixed_dictionaries({"type": st.just("content_block_delta"), "delta": MESSAGE_DELTA}),
            members(index=[0, 0, 1, None], error=[{"type": "overloaded_error"}, None]),
        )
    ]
    * 4,
    st.fixed_dictionaries(
        {
            "type": st.just("content_block_start"),
            "index": st.sampled_from([0, 1, None]),
            "content_block": st.sampled_from([*BLOCKS, TOOL]),
        }
    ),
    st.sampled_from([{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}, {"type": "ping"}]),
)


def made_by(library: str, kind: str) -> Callable[[Any], Any]:
    """Returns how an SDK of OpenAI's family makes an object of JSON: without validation."""
    make = importlib.import_module(f"{library}._models").construct_type
    module, _, name = kind.rpartition(".")
    model = getattr(importlib.import_module(f"{library}.types{module}"), name)
    return lambda value: make(type_=model, value=value)


def told(items: list[Any], provider: str) -> str:
    """Returns the events of a stream, without what differs between two readings."""
    events = gai_fast.from_sdk(iter(items), provider=provider)
    plain = [{key: value for key, value in event.items() if key not in ("ts", "request_id")} for event in events]
    return re.sub("call_[0-9a-f]{24}", "call_1", repr(plain))


@pytest.mark.parametrize("provider", ["openai", "groq", "openai-compatible"])
@given(st.lists(CHAT_CHUNK, min_size=1, max_size=6))
def test_a_chat_chunk_of_any_shape_has_the_events_of_its_json(provider: str, chunks: list[Any]) -> None:
    make = made_by("groq" if provider == "groq" else "openai", ".chat.ChatCompletionChunk")
    assert told([make(chunk) for chunk in chunks], provider) == told(chunks, provider)


@given(st.lists(MESSAGE_EVENT, min_size=1, max_size=6))
def test_an_event_of_messages_of_any_shape_has_the_events_of_its_json(events: list[Any]) -> None:
    make = made_by("anthropic", ".RawMessageStreamEvent")
    opened = [{"type": "message_start", "message": {"id": "1", "model": "m", "content": []}}, *events]
    assert told([make(event) for event in opened], "anthropic") == told(opened, "anthropic")


def test_what_stands_beside_a_text_is_kept() -> None:
    """A declared member, the model that only the second chunk names, half of a character."""
    make = made_by("openai", ".chat.ChatCompletionChunk")
    first = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    for chunks in (
        [first, {**first, "moderation": FLAGGED}],
        [{"id": "", "model": "", "choices": []}, first],
        [{"choices": [{"index": 0, "delta": {"content": half}}]} for half in ("\ud83d", "\ude00")],
    ):
        assert told([make(chunk) for chunk in chunks], "openai") == told(chunks, "openai")
    groq = made_by("groq", ".chat.ChatCompletionChunk")
    chunks = [first, {**first, "x_groq": {"id": "r", "usage": COUNTS}}]
    assert "'total_tokens': 7" in told([groq(chunk) for chunk in chunks], "groq")
