"""`gai_fast.from_sdk` on recordings: through each official SDK an answer has the events that its bytes have.

The SDKs read the recordings by their own HTTP clients, without sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import pytest
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
