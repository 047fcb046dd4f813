"""Errors as the official SDKs raise them: the exact class for each status, of an upstream and of our own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anthropic
import openai
import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration import test_anthropic_sdk, test_openai_sdk
from tests.integration.gateway import MESSAGES, Gateway, Net, Peer, on_uvloop

Ask = Callable[..., Awaitable[Any]]

CLIENTS: Final = ("chat", "responses", "messages")
MODELS: Final = {"chat": "m", "responses": "native/gpt-x", "messages": "claude"}
"""For each route a model whose upstream speaks its dialect."""


def asking(net: Net, gateway: Gateway, route: str, key: str = "none") -> Ask:
    """Returns the SDK's method of a route, for a request that is valid."""
    if route == "messages":
        client = test_anthropic_sdk.client_of(net, gateway, api_key=key)
        return lambda model, **more: client.messages.create(
            **{"model": model, "max_tokens": 9, "messages": MESSAGES, **more}
        )
    sdk = test_openai_sdk.client_of(net, gateway).with_options(api_key=key)
    if route == "chat":
        return lambda model, **more: sdk.chat.completions.create(**{"model": model, "messages": MESSAGES, **more})
    return lambda model, **more: sdk.responses.create(**{"model": model, "input": "hi", **more})


# The upstream's status; the status and the classes of OpenAI's SDK and of Anthropic's. An upstream that refuses our key
# or account is no `AuthenticationError`, which would send the caller looking for the fault in the wrong place.
UPSTREAM: Final[list[tuple[int, int, type[Exception], int, type[Exception]]]] = [
    (400, 400, openai.BadRequestError, 400, anthropic.BadRequestError),
    (401, 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    (402, 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    (403, 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    (404, 404, openai.NotFoundError, 404, anthropic.NotFoundError),
    (408, 504, openai.InternalServerError, 504, anthropic._exceptions.GatewayTimeoutError),
    (409, 409, openai.ConflictError, 409, anthropic.ConflictError),
    (413, 413, openai.APIStatusError, 413, anthropic._exceptions.ContentTooLargeError),
    (422, 422, openai.UnprocessableEntityError, 422, anthropic.UnprocessableEntityError),
    (429, 429, openai.RateLimitError, 429, anthropic.RateLimitError),
    (500, 500, openai.InternalServerError, 500, anthropic.InternalServerError),
    (502, 503, openai.InternalServerError, 503, anthropic._exceptions.ServiceUnavailableError),
    (503, 503, openai.InternalServerError, 503, anthropic._exceptions.ServiceUnavailableError),
    (504, 504, openai.InternalServerError, 504, anthropic._exceptions.GatewayTimeoutError),
    (529, 503, openai.InternalServerError, 529, anthropic._exceptions.OverloadedError),
]


def answer_of(route: str) -> dict[str, Any]:
    """Returns a whole answer of an upstream of a route's dialect."""
    if route == "chat":
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "model": "m", "created": 1, "choices": [choice]}
    if route == "messages":
        content = [{"type": "text", "text": "x"}]
        message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content}
        return {**message, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    content = [{"type": "output_text", "text": "x", "annotations": []}]
    output = [{"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": content}]
    return {"id": "r", "object": "response", "model": "m", "status": "completed", "output": output}


@on_uvloop
@pytest.mark.parametrize("route", CLIENTS)
async def test_a_client_reads_the_rate_limits_of_an_upstream_of_its_dialect(net: Net, route: str) -> None:
    """Streamed, whole and refused; not what a translation, another attempt or another format was made of."""
    refusal = {"type": "error", "error": {"type": "their_error", "message": "as they said it"}}
    answers: list[tuple[str, Any]] = []

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            status, answer = answers.pop(0)
            limits = "X-RateLimit-Remaining-Requests: 7", "OpenAI-Processing-MS: 12", f"anthropic-beta: {status[:3]}"
            others = "Set-Cookie: a=b", "X-Request-Id: theirs", "Content-Language: en", "openai-version: \xe9"
            await peer.answer(status, json.dumps(answer).encode(), "Content-Type: application/json", *limits, *others)

    gateway = await net.gateway(await net.upstream(handler), retries=1)
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}[route]
    body = {"model": MODELS[route], "max_tokens": 9, "input" if route == "responses" else "messages": MESSAGES}
    whole, refused = ("200 OK", answer_of(route)), ("400 Bad Request", refusal)
    broken = "500 Broken", refusal
    for stream, query, answer, expected in (
        (False, "", [whole], "200"),
        (True, "", [whole], "200"),
        (False, "", [refused], "400"),
        (True, "", [refused], "400"),
        (True, "", [broken, whole], "200"),
        (True, "?format=simple", [whole], None),
    ):
        answers[:] = answer
        headers = (await gateway.ask("POST", path + query, {**body, "stream": stream})).headers
        found = {name: headers.get(name) for name in ("x-ratelimit-remaining-requests", "openai-processing-ms")}
        assert headers.get("anthropic-beta") == expected
        assert list(found.values()) == ([None, None] if expected is None else ["7", "12"])
        assert headers["x-request-id"] != "theirs"
        assert not headers.keys() & {"set-cookie", "content-language", "openai-version"}
    other = {"chat": "claude", "responses": "m", "messages": "m"}[route]
    answers[:] = [("200 OK", answer_of({"claude": "messages", "m": "chat"}[other]))]
    headers = (await gateway.ask("POST", path, {**body, "model": other, "stream": False})).headers
    assert not headers.keys() & {"x-ratelimit-remaining-requests", "openai-processing-ms", "anthropic-beta"}


@on_uvloop
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_member_has_the_name_that_the_client_gave_it(net: Net, stream: bool) -> None:
    """The upstream's dialect is chat; its 400 has the form of OpenAI's."""
    unsupported = {"message": "Unsupported value: 'max_tokens'", "type": "invalid_request_error", "param": "max_tokens"}

    async def handler(peer: Peer) -> None:
        while True:
            assert json.loads(await peer.request())["max_tokens"] == 9
            error = {"error": {**unsupported, "code": "unsupported_value"}}
            await peer.answer("400 Bad Request", json.dumps(error).encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), retries=1)
    with pytest.raises(openai.BadRequestError) as caught:
        await asking(net, gateway, "responses")("m", max_output_tokens=9, stream=stream)
    assert caught.value.param == "max_output_tokens"
    with pytest.raises(anthropic.BadRequestError) as refused:
        await asking(net, gateway, "messages")("m", stream=stream)
    assert refused.value.body["error"]["details"]["param"] == "max_tokens"  # the same in this dialect
    native = await gateway.ask("POST", "/api/v1/stream", {"query": "Hi", "model": "m", "max_tokens": 9})
    assert (native.status, native.error["param"]) == (400, "max_tokens")
    with pytest.raises(openai.BadRequestError) as passed:
        await asking(net, gateway, "chat")("m", max_tokens=9, stream=stream)
    assert passed.value.body == {**unsupported, "code": "unsupported_value"}


@on_uvloop
@pytest.mark.parametrize("route", CLIENTS)
async def test_each_status_of_an_upstream_is_its_exception(net: Net, route: str) -> None:
    status = 0

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            error = {"type": "error", "error": {"type": "their_error", "message": "as they said it"}}
            await peer.answer(f"{status} Reason", json.dumps(error).encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    ask = asking(net, gateway, route)
    for status, *expected in UPSTREAM:
        wanted = expected[2:] if route == "messages" else expected[:2]
        for model in ("claude" if route == "chat" else "m", MODELS[route]):
            for stream in (True, False):
                with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
                    await ask(model, stream=stream)
                assert [caught.value.status_code, type(caught.value)] == wanted, (status, model)
                assert caught.value.request_id
    assert all("refuses our" in text for text in net.logged)
    net.logged.clear()


# What is asked for wrongly, and the classes of the refusal.
REFUSED: Final[dict[str, tuple[dict[str, Any], type[Exception], type[Exception]]]] = {
    "a member of another type": ({"extra_body": {"tools": "none"}}, openai.BadRequestError, anthropic.BadRequestError),
    "no such model": ({"model": "nobody"}, openai.NotFoundError, anthropic.NotFoundError),
    "a large body": (
        {"metadata": {"user_id": "x" * 9000}},
        openai.APIStatusError,
        anthropic._exceptions.ContentTooLargeError,
    ),
}


@on_uvloop
@pytest.mark.parametrize("route", CLIENTS)
async def test_our_own_refusals_are_their_exceptions(net: Net, route: str) -> None:
    gateway = await net.gateway(await net.mock(), max_body=8192, keys=(KeySettings("app", (key_digest("sk-app"),)),))
    ask = asking(net, gateway, route, "sk-app")
    for name, (members, *kinds) in REFUSED.items():
        with pytest.raises(kinds[route == "messages"]) as caught:
            await ask(**{"model": "claude" if route == "chat" else "m", **members})
        assert type(caught.value) is kinds[route == "messages"], name
    kind: type[Exception] = anthropic.AuthenticationError if route == "messages" else openai.AuthenticationError
    with pytest.raises(kind):
        await asking(net, gateway, route)("m")


@on_uvloop
@pytest.mark.parametrize("route", CLIENTS)
async def test_a_full_server_is_overloaded_and_a_caller_with_too_many_streams_limited(net: Net, route: str) -> None:
    limited: type[Exception] = anthropic.RateLimitError if route == "messages" else openai.RateLimitError
    full: type[Exception] = anthropic._exceptions.OverloadedError if route == "messages" else openai.InternalServerError
    for limit, kind in (("streams_per_caller", limited), ("streams", full)):
        keys = (KeySettings("alice", (key_digest("sk-alice-0123456789"),)),)
        gateway = await net.gateway(await net.mock(deltas=10_000, rate=1), keys=keys, **{limit: 1})
        ask = asking(net, gateway, route, "sk-alice-0123456789")
        stream = await ask("m", stream=True)
        with pytest.raises(kind) as caught:
            await ask("m")
        assert type(caught.value) is kind
        await stream.close()
