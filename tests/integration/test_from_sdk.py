"""`gai_fast.from_sdk` given the calls and the stream managers of the official SDKs, which a server on loopback answers.

Each SDK asks by its own HTTP client, plain and async. What it raises for a refusal is the `error` event of the answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

import pytest

import gai_fast
from gai_fast.integrations._body import checked_source
from tests.ports import free_port

# google-genai derives a class from aiohttp's session, and leaves the connections of its clients to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")

ASK: Final = [{"role": "user", "content": "Hi"}]


def sse(*objects: Any, named: bool = False) -> bytes:
    return "".join(
        (f"event: {each['type']}\n" if named else "") + f"data: {json.dumps(each)}\n\n" for each in objects
    ).encode()


def chat(text: str | None, finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


CHAT: Final = sse(chat("Hello", None), chat(None, "stop")) + b"data: [DONE]\n\n"
MESSAGE: Final[dict[str, Any]] = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
}
MESSAGES: Final = sse(
    {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
    named=True,
)
RESPONSE: Final[dict[str, Any]] = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "output": [],
    "tools": [],
}
PLACE: Final[dict[str, Any]] = {"item_id": "i", "output_index": 0, "content_index": 0}
ITEM: Final[dict[str, Any]] = {"type": "message", "id": "i", "role": "assistant", "content": []}
TEXT: Final[dict[str, Any]] = {"type": "output_text", "text": "", "annotations": []}
WHOLE: Final = {**ITEM, "status": "completed", "content": [{**TEXT, "text": "Hello"}]}
RESPONSES: Final = sse(
    *(
        {**event, "sequence_number": number}
        for number, event in enumerate(
            (
                {"type": "response.created", "response": {**RESPONSE, "status": "in_progress"}},
                {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
                {"type": "response.content_part.added", **PLACE, "part": TEXT},
                {"type": "response.output_text.delta", **PLACE, "delta": "Hello", "logprobs": []},
                {"type": "response.output_item.done", "output_index": 0, "item": WHOLE},
                {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": [WHOLE]}},
            )
        )
    ),
    named=True,
)
GEMINI: Final = sse({"candidates": [{"content": {"parts": [{"text": "Hello"}]}, "finishReason": "STOP"}]})
COHERE: Final = sse(
    {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
    named=True,
)
OLLAMA: Final = b"".join(
    json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": done, **more}).encode() + b"\n"
    for text, done, more in (("Hello", False, {}), ("", True, {"done_reason": "stop"}))
)


class Provider(ThreadingHTTPServer):
    """Answers every request in one way.

    Attributes:
        status: Of the next answers.
        body: Of the next answers.
        asked: How many requests have come.
    """

    status, body, media_type, asked = 200, b"", "text/event-stream", 0
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("content-type", self.server.media_type if self.server.status == 200 else "application/json")
        self.send_header("retry-after", "7")
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def of_openai(url: str, *, is_async: bool) -> Any:
    import openai

    return (openai.AsyncOpenAI if is_async else openai.OpenAI)(api_key="x", base_url=f"{url}/v1", max_retries=0)


def of_anthropic(url: str, *, is_async: bool) -> Any:
    import anthropic

    kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    return kind(api_key="x", base_url=url, max_retries=0)


def of_groq(url: str, *, is_async: bool) -> Any:
    import groq

    return (groq.AsyncGroq if is_async else groq.Groq)(api_key="x", base_url=url, max_retries=0)


def of_gemini(url: str, *, is_async: bool) -> Any:
    from google import genai
    from google.genai.types import HttpOptions

    client = genai.Client(api_key="x", http_options=HttpOptions(base_url=url))
    return client.aio if is_async else client


def of_mistral(url: str, *, is_async: bool) -> Any:
    from mistralai.client import Mistral

    return Mistral(api_key="x", server_url=url).chat


def of_cohere(url: str, *, is_async: bool) -> Any:
    import cohere

    return (cohere.AsyncClientV2 if is_async else cohere.ClientV2)(api_key="x", base_url=url)


def of_ollama(url: str, *, is_async: bool) -> Any:
    import ollama

    return (ollama.AsyncClient if is_async else ollama.Client)(host=url)


def chat_ask(client: Any) -> Any:
    return client.chat.completions.create(model="m", messages=ASK, stream=True)


def message_ask(client: Any) -> Any:
    return client.messages.create(model="m", max_tokens=9, messages=ASK, stream=True)


class Way(NamedTuple):
    """One way to ask a provider by its SDK.

    Attributes:
        client: Makes the plain or the async client.
        body: The provider's answer.
        ask: Asks by a client. A manager is given as it is.
        ask_later: Asks by the async client, if that has another method.
    """

    client: Callable[..., Any]
    body: bytes
    ask: Callable[[Any], Any]
    ask_later: Callable[[Any], Any] | None = None


WAYS: Final = {
    "openai": Way(of_openai, CHAT, chat_ask),
    "openai manager": Way(of_openai, CHAT, lambda client: client.chat.completions.stream(model="m", messages=ASK)),
    "openai responses": Way(
        of_openai, RESPONSES, lambda client: client.responses.create(model="m", input="Hi", stream=True)
    ),
    "openai responses manager": Way(
        of_openai, RESPONSES, lambda client: client.responses.stream(model="m", input="Hi")
    ),
    "anthropic": Way(of_anthropic, MESSAGES, message_ask),
    "anthropic manager": Way(
        of_anthropic, MESSAGES, lambda client: client.messages.stream(model="m", max_tokens=9, messages=ASK)
    ),
    "groq": Way(of_groq, CHAT, chat_ask),
    "gemini": Way(of_gemini, GEMINI, lambda client: client.models.generate_content_stream(model="m", contents="Hi")),
    "mistral": Way(
        of_mistral,
        CHAT,
        lambda chat: chat.stream(model="m", messages=ASK),
        lambda chat: chat.stream_async(model="m", messages=ASK),
    ),
    "cohere": Way(of_cohere, COHERE, lambda client: client.chat_stream(model="m", messages=ASK)),
    "ollama": Way(of_ollama, OLLAMA, lambda client: client.chat(model="m", messages=ASK, stream=True)),
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
PACKAGES: Final = {"gemini": "google.genai", "mistral": "mistralai"}


class Clients:
    """The plain and the async client of one SDK.

    Args:
        way: A key of `WAYS`.
        url: The provider's URL.
    """

    def __init__(self, way: str, url: str) -> None:
        package = way.partition(" ")[0]
        pytest.importorskip(PACKAGES.get(package, package))
        self.way = WAYS[way]
        self._is_manager = way.endswith("manager")
        self._plain, self._later = (self.way.client(url, is_async=is_async) for is_async in (False, True))

    def asking(self, *, is_async: bool) -> Any:
        """Returns what a program gives to `from_sdk`: an async call, a plain one as a function, or a manager."""
        if is_async:
            return (self.way.ask_later or self.way.ask)(self._later)
        return self.way.ask(self._plain) if self._is_manager else partial(self.way.ask, self._plain)

    async def answers(self) -> list[list[gai_fast.Event]]:
        """Returns the events of two answers: to the plain client, and to the async one."""
        return [
            list(gai_fast.from_sdk(self.asking(is_async=False))),
            [event async for event in gai_fast.from_sdk(self.asking(is_async=True))],
        ]


def url_of(provider: Provider) -> str:
    return f"http://127.0.0.1:{provider.server_port}"


@EVERY_WAY
async def test_a_call_or_a_manager_streams(provider: Provider, way: str) -> None:
    clients = Clients(way, url_of(provider))
    provider.body = clients.way.body
    provider.media_type = "application/x-ndjson" if way == "ollama" else "text/event-stream"
    for events in await clients.answers():
        result = gai_fast.collect(events)
        assert (result.text, result.finish_reason) == ("Hello", "stop")
    assert provider.asked == 2


REFUSED: Final = {
    401: ("unauthorized", 401),
    404: ("not_found", 404),
    422: ("invalid_request", 422),
    429: ("rate_limited", 429),
    503: ("provider_unavailable", 503),
}


@EVERY_WAY
async def test_a_refusal_is_an_error_and_the_response_with_its_status(provider: Provider, way: str) -> None:
    clients = Clients(way, url_of(provider))
    for status, (code, expected) in REFUSED.items():
        error: Any = {"message": "not now", "type": "their_error", "code": None}
        if way == "gemini":
            error = {"code": status, "message": "not now", "status": "THEIR_ERROR"}
        body = {"message": "not now"} if way == "cohere" else {"error": "not now" if way == "ollama" else error}
        provider.status, provider.body = status, json.dumps({"type": "error", **body}).encode()
        for events in await clients.answers():
            assert [event["type"] for event in events] == ["error", "done"]
            assert (events[0]["error"]["code"], events[0]["error"]["phase"]) == (code, "first_event")
            assert "not now" in events[0]["error"]["message"]
        for is_async in (False, True):
            source = gai_fast.from_sdk(clients.asking(is_async=is_async))
            reply = await checked_source(source, "sse", {}).body().begin()
            assert reply is not None
            assert reply.status == expected
            assert json.loads(reply.body)["error"]["code"] == code


@EVERY_WAY
async def test_a_server_that_is_not_there_is_the_network(way: str) -> None:
    for error, done in await Clients(way, f"http://127.0.0.1:{free_port()}").answers():
        assert (error["error"]["code"], error["error"]["reason"]) == ("network", "connect")
        assert done["type"] == "done"
