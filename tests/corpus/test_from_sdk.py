"""`gai_fast.from_sdk` on recordings: through each official SDK an answer has the events that its bytes have.

The SDKs read the recordings by their own HTTP clients, without sockets.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps, loads
from pydantic import ValidationError

import gai_fast
from gai_fast.providers.sdk.objects import shape_of
from tests.corpus.recordings import CORPUS, judge
from tests.kernels import IS_REPEATED

ASK = [{"role": "user", "content": "Hi"}]


class Answer:
    """The next answer to an SDK's client. Each client is made once: Gemini's takes 0.15 s of a core to make."""

    body = b""


def transport(library: Any, media_type: str = "text/event-stream") -> Any:
    """Returns a client of httpx, or of its successor, that gets `Answer.body`."""
    headers = {"content-type": media_type}
    return library.Client(
        transport=library.MockTransport(lambda request: library.Response(200, headers=headers, content=Answer.body))
    )


@cache
def openai_client() -> Any:
    import httpx
    from openai import OpenAI

    return OpenAI(api_key="x", http_client=transport(httpx), max_retries=0)


def openai() -> Any:
    return openai_client().chat.completions.create(model="m", messages=ASK, stream=True)


def responses() -> Any:
    return openai_client().responses.create(model="m", input="Hi", stream=True)


@cache
def groq_client() -> Any:
    import httpx
    from groq import Groq

    return Groq(api_key="x", http_client=transport(httpx), max_retries=0)


def groq() -> Any:
    return groq_client().chat.completions.create(model="m", messages=ASK, stream=True)


@cache
def anthropic_client() -> Any:
    import httpx2
    from anthropic import Anthropic

    return Anthropic(api_key="x", http_client=transport(httpx2), max_retries=0)


def anthropic() -> Any:
    return anthropic_client().messages.create(model="m", max_tokens=10, messages=ASK, stream=True)


@cache
def gemini_client() -> Any:
    import httpx
    from google import genai
    from google.genai.types import HttpOptions

    return genai.Client(api_key="x", http_options=HttpOptions(httpx_client=transport(httpx)))


def gemini() -> Any:
    return gemini_client().models.generate_content_stream(model="m", contents="Hi")


@cache
def mistral_client() -> Any:
    import httpx
    from mistralai.client import Mistral

    return Mistral(api_key="x", client=transport(httpx))


def mistral() -> Any:
    return mistral_client().chat.stream(model="m", messages=ASK)


@cache
def cohere_client() -> Any:
    import httpx
    from cohere import ClientV2

    return ClientV2(api_key="x", httpx_client=transport(httpx))


def cohere() -> Any:
    return cohere_client().chat_stream(model="m", messages=ASK)


@cache
def ollama_client() -> Any:
    import httpx
    from ollama import Client

    client = Client(host="http://127.0.0.1:1")
    client._client = transport(httpx, "application/x-ndjson")
    client._client.base_url = "http://127.0.0.1:1"
    return client


def ollama() -> Any:
    return ollama_client().chat(model="m", messages=ASK, stream=True)


SDKS: dict[str, tuple[str, Callable[[], Any], str]] = {
    "openai": ("openai", openai, "chat"),
    "openai:responses": ("openai", responses, "responses"),
    "groq": ("groq", groq, "chat"),
    "anthropic": ("anthropic", anthropic, "anthropic"),
    "gemini": ("gemini", gemini, "gemini"),
    "mistral": ("mistral", mistral, "chat"),
    "cohere": ("cohere", cohere, "cohere"),
    "ollama": ("ollama", ollama, "ollama"),
}


def through_sdk(provider: str, body: bytes) -> Any:
    """Returns what the provider's SDK makes of an answer: an iterator over its objects."""
    Answer.body = body
    return SDKS[provider][1]()


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
    folder, _, kind = SDKS[provider]
    answers = sorted(path for path in (CORPUS / folder).glob(f"{kind}_*") if path.suffix in (".sse", ".ndjson"))
    compared = 0
    for path in answers[:: 4 if IS_REPEATED else 1]:
        body = path.read_bytes()
        if b'"type":"completion"' in body or (kind == "ollama" and b'"response":' in body[:200]):
            continue  # the providers' older APIs
        named = list(gai_fast.from_sdk(through_sdk(provider, body), provider=provider))
        assert comparable(named) == comparable(gai_fast.decode(provider, [body])), path.name
        result = list(gai_fast.from_sdk(through_sdk(provider, body)))
        assert comparable(result) == comparable(named), f"{path.name}: the objects tell the provider"
        compared += 1
    assert compared >= (1 if IS_REPEATED else 4)


# ---- chunks of any shape ---------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["a", "a", "", None, 'Grüße "\\\n\x00', "\ud83d", 5, ["a"], [{"type": "text", "text": "b"}]])
INDEXES = st.sampled_from([0, 0, 0, 0, 1, None, "0", -1])
COUNTS = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
SCORES: dict[str, Any] = {"content": [{"token": "a", "bytes": None, "logprob": -0.5, "top_logprobs": []}]}
FLAGGED = {"output": {"results": [{"categories": {"hate": True}, "category_scores": {"hate": 0.5}}]}}


def members(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these members, most of them none or few."""
    kinds = {
        name: value if isinstance(value, st.SearchStrategy) else st.sampled_from(value)
        for name, value in values.items()
    }
    some = st.just([]) | st.lists(st.sampled_from([*kinds]), max_size=2, unique=True)
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


TEXT_DELTA = joined(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["response.output_text.delta"] * 3 + ["response.refusal.delta", "response.odd"]),
            "delta": TEXTS,
            "output_index": st.sampled_from([0, 0, 0, 0, 1, None]),
            "content_index": st.sampled_from([0, 0, 0, 0, 1, None]),
        }
    ),
    members(
        item_id=["i", "j", None],
        logprobs=[[], None, [{"token": "a", "logprob": -0.5, "top_logprobs": []}]],
        sequence_number=[5],
        obfuscation=["xyz"],
        error=[{"message": "overloaded"}, None],
    ),
)
LOCATED = {"output_index": 0, "content_index": 0, "item_id": "i"}
ITEM = {"id": "i", "type": "message", "role": "assistant", "status": "completed"}
CITED = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
PART = {"type": "output_text", "text": "aab", "annotations": [CITED]}
RESPONSES_EVENT = st.one_of(
    *[TEXT_DELTA] * 4,
    st.sampled_from(
        [
            {"type": "response.output_text.done", "text": "aab", **LOCATED},
            {"type": "response.content_part.added", "part": {"type": "output_text", "text": "a"}, **LOCATED},
            {"type": "response.content_part.done", "part": PART, **LOCATED},
            {"type": "response.output_text.annotation.added", "annotation": CITED, "annotation_index": 0, **LOCATED},
            {"type": "response.output_item.done", "output_index": 0, "item": {**ITEM, "content": [PART]}},
            {"type": "response.output_item.added", "output_index": 1, "item": {**ITEM, "id": "j", "content": []}},
            {"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed", "output": []}},
        ]
    ),
)
COHERE_CONTENT = joined(
    st.fixed_dictionaries({"text": TEXTS.filter(lambda text: isinstance(text, str | None))}),
    members(type=["text", None], thinking=["Hm", "", None], extra=[5, None]),
)
COHERE_END = {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 4}}}
COHERE_EVENT = st.one_of(
    *[
        joined(
            st.fixed_dictionaries(
                {
                    "type": st.just("content-delta"),
                    "delta": joined(
                        st.fixed_dictionaries(
                            {"message": joined(st.fixed_dictionaries({"content": COHERE_CONTENT}), members(role=["a"]))}
                        ),
                        members(text=["b"]),
                    ),
                }
            ),
            members(index=INDEXES, logprobs=[{"token_ids": [1], "text": "a"}, None], message=["b", None]),
        )
    ]
    * 4,
    st.sampled_from(
        [
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            {"type": "content-end", "index": 0},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "Hm"}}},
            {"type": "message-end", "id": "1", "delta": COHERE_END},
        ]
    ),
)
GEMINI_PART = joined(
    st.fixed_dictionaries({"text": st.sampled_from(["a", "a", "a", "", None, "Grüße \U0001f600"])}),
    members(
        thought=[True, False, None],
        thoughtSignature=["c2ln", "", None],
        functionCall=[{"name": "f", "args": {"a": 1}}, {"id": "c", "name": "g", "args": {}}],
        inlineData=[{"mimeType": "image/png", "data": "aaaa"}],
        executableCode=[{"language": "PYTHON", "code": "1"}],
        codeExecutionResult=[{"outcome": "OUTCOME_OK", "output": "1"}],
        videoMetadata=[{"fps": 1}],
    ),
)
SPAN = {"startIndex": 0, "endIndex": 2}
CHUNKS = [{"web": {"uri": "https://a.example", "title": "A"}}]
SUPPORTS = [{"segment": SPAN, "groundingChunkIndices": [0]}]
PAGES = [{"retrievedUrl": "https://c.example", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}]
RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": level} for level in ("NEGLIGIBLE", "HIGH")]
GEMINI_CANDIDATE = joined(
    st.fixed_dictionaries(
        {
            "content": st.fixed_dictionaries(
                {
                    "role": st.just("model"),
                    "parts": st.one_of(*[st.tuples(GEMINI_PART).map(list)] * 3, st.lists(GEMINI_PART)),
                }
            )
        }
    ),
    members(
        index=[0, 0, 1, None],
        finishReason=["STOP", "MAX_TOKENS", "SAFETY", None],
        finishMessage=["why", None],
        safetyRatings=[RATINGS, RATINGS[:1], []],
        citationMetadata=[{"citations": [{"uri": "https://b.example", **SPAN}]}, {}],
        groundingMetadata=[{"groundingChunks": CHUNKS, "groundingSupports": SUPPORTS, "webSearchQueries": ["q"]}, {}],
        urlContextMetadata=[{"urlMetadata": PAGES}, {}],
        avgLogprobs=[-0.5],
        tokenCount=[4],
        logprobsResult=[{"chosenCandidates": [{"token": "a", "logProbability": -0.5}]}],
    ),
)
GEMINI_USAGE = joined(
    st.fixed_dictionaries({"promptTokenCount": st.sampled_from([3, 3, 4, 0, None])}),
    members(
        candidatesTokenCount=[1, 2, 5],
        totalTokenCount=[9],
        thoughtsTokenCount=[6],
        cachedContentTokenCount=[2],
        toolUsePromptTokenCount=[1],
        promptTokensDetails=[[{"modality": "TEXT", "tokenCount": 3}]],
        trafficType=["ON_DEMAND"],
    ),
)
GEMINI_CHUNK = joined(
    st.fixed_dictionaries(
        {
            "candidates": st.one_of(
                *[st.tuples(GEMINI_CANDIDATE).map(list)] * 3, st.lists(GEMINI_CANDIDATE, max_size=2)
            ),
        }
    ),
    st.one_of(*[st.fixed_dictionaries({"responseId": st.just("r"), "modelVersion": st.just("m")})] * 3, st.just({})),
    st.one_of(
        *[st.fixed_dictionaries({"usageMetadata": GEMINI_USAGE})] * 3, st.sampled_from([{}, {"usageMetadata": {}}])
    ),
    members(
        promptFeedback=[{"blockReason": "SAFETY"}, {"safetyRatings": RATINGS}, {}],
        createTime=["2026-01-01T00:00:00Z"],
    ),
)


def made_by(library: str, kind: str) -> Callable[[Any], Any]:
    """Returns how an SDK of OpenAI's family makes an object of JSON: without validation."""
    make = importlib.import_module(f"{library}._models").construct_type
    module, _, name = kind.rpartition(".")
    model = getattr(importlib.import_module(f"{library}.types{module}"), name)
    return lambda value: make(type_=model, value=value)


def decoded(items: list[Any], provider: str) -> str:
    """Returns the events of a stream, without what differs between two readings."""
    events = gai_fast.from_sdk(iter(items), provider=provider)
    plain = [{key: value for key, value in event.items() if key not in ("ts", "request_id")} for event in events]
    return re.sub("call_[0-9a-f]{24}", "call_1", repr(plain))


@pytest.mark.parametrize("provider", ["openai", "groq", "openai-compatible"])
@given(st.lists(CHAT_CHUNK, min_size=1, max_size=6))
def test_a_chat_chunk_of_any_shape_has_the_events_of_its_json(provider: str, chunks: list[Any]) -> None:
    make = made_by("groq" if provider == "groq" else "openai", ".chat.ChatCompletionChunk")
    assert decoded([make(chunk) for chunk in chunks], provider) == decoded(chunks, provider)


@given(st.lists(MESSAGE_EVENT, min_size=1, max_size=6))
def test_an_event_of_messages_of_any_shape_has_the_events_of_its_json(events: list[Any]) -> None:
    make = made_by("anthropic", ".RawMessageStreamEvent")
    opened = [{"type": "message_start", "message": {"id": "1", "model": "m", "content": []}}, *events]
    assert decoded([make(event) for event in opened], "anthropic") == decoded(opened, "anthropic")


@given(st.lists(RESPONSES_EVENT, min_size=1, max_size=6))
def test_an_event_of_responses_of_any_shape_has_the_events_of_its_json(events: list[Any]) -> None:
    make = made_by("openai", ".responses.ResponseStreamEvent")
    opened = [
        {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "content": []}},
        *events,
    ]
    assert decoded([make(event) for event in opened], "openai:responses") == decoded(opened, "openai:responses")


@given(st.lists(COHERE_EVENT, min_size=1, max_size=6))
def test_an_event_of_cohere_of_any_shape_has_the_events_of_its_json(events: list[Any]) -> None:
    from cohere.core.unchecked_base_model import construct_type
    from cohere.v2.types import V2ChatStreamResponse

    opened = [{"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}, *events]
    items = [construct_type(type_=V2ChatStreamResponse, object_=event) for event in opened]
    assert decoded(items, "cohere") == decoded(opened, "cohere")


def dumped(items: list[Any]) -> list[Any]:
    """Returns the JSON of objects whose SDK leaves out what it does not know."""
    return [json.loads(shape_of(item, "").wire(item) or "") for item in items]  # orjson refuses half a character


@given(st.lists(CHAT_CHUNK, min_size=1, max_size=6))
def test_an_event_of_mistral_of_any_shape_has_the_events_of_its_json(chunks: list[Any]) -> None:
    from mistralai.client.models import CompletionEvent

    given = [
        {**chunk, "choices": [{"finish_reason": None, **choice} for choice in chunk["choices"]]} for chunk in chunks
    ]
    items = validated(CompletionEvent, [{"data": chunk} for chunk in given])
    assert decoded(items, "mistral") == decoded(dumped(items), "mistral")


@given(st.lists(GEMINI_CHUNK, min_size=1, max_size=6))
def test_a_chunk_of_gemini_of_any_shape_has_the_events_of_its_json(chunks: list[Any]) -> None:
    from google.genai.types import GenerateContentResponse

    items = validated(GenerateContentResponse, chunks)
    assert decoded(items, "gemini") == decoded(dumped(items), "gemini")


def validated(model: Any, values: list[Any]) -> list[Any]:
    """Returns the objects of an SDK that validates; without those values that it refuses."""
    items = []
    for value in values:
        with suppress(ValidationError):
            items.append(model.model_validate(value))
    return items


def test_what_stands_beside_a_text_is_kept() -> None:
    """A declared member, the model that only the second chunk names, half of a character."""
    make = made_by("openai", ".chat.ChatCompletionChunk")
    first = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    for chunks in (
        [first, {**first, "moderation": FLAGGED}],
        [{"id": "", "model": "", "choices": []}, first],
        [{"choices": [{"index": 0, "delta": {"content": half}}]} for half in ("\ud83d", "\ude00")],
    ):
        assert decoded([make(chunk) for chunk in chunks], "openai") == decoded(chunks, "openai")
    groq = made_by("groq", ".chat.ChatCompletionChunk")
    chunks = [first, {**first, "x_groq": {"id": "r", "usage": COUNTS}}]
    assert "'total_tokens': 7" in decoded([groq(chunk) for chunk in chunks], "groq")


def test_the_bytes_of_gemini_are_written_as_google_writes_them() -> None:
    """The SDK has them in another alphabet."""
    pytest.importorskip("google.genai")
    candidate = {
        "index": 0,
        "content": {"role": "model", "parts": [{"text": "Hi", "thoughtSignature": "+/+/"}]},
        "finishReason": "STOP",
        "continuationToken": "+/+/",
    }
    body = b"data: " + dumps({"candidates": [candidate], "modelVersion": "m", "responseId": "r"}) + b"\n\n"
    events = list(gai_fast.from_sdk(through_sdk("gemini", body), provider="gemini"))
    assert comparable(events) == comparable(gai_fast.decode("gemini", [body]))
    assert events[-2]["provider_metadata"] == {"continuation_token": "+/+/"}
