"""Helpers of the tests of OpenAI's chat format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from gai_fast.formats import Framing, PassthroughEncoder, get_format
from gai_fast.model.events import Event
from tests.unit.formats.relays import received, relay_to
from tests.unit.formats.streams import (
    CREATED,
    DONE,
    START,
    STREAM_ID,
    context,
    encoded,
    objects_of,
)

OPENAI = get_format("openai")


HEAD = f'{{"id":"chatcmpl-{STREAM_ID}","object":"chat.completion.chunk","created":{CREATED},"model":"test-model",'


def streamed(*events: Event, framing: Framing = "sse", **changes: Any) -> bytes:
    return encoded(OPENAI.encoder(framing, context(**{"usage": False, **changes})), [START, *events])


def chunks(*events: Event, **changes: Any) -> list[Any]:
    """Returns the chunks after the first, which says the role."""
    return objects_of(streamed(*events, **changes))[1:]


def deltas(*events: Event, **changes: Any) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(*events, **changes)]


SIGNED = {"extra_content": {"google": {"thought_signature": "sig"}}}


SIGNATURE: Event = {"type": "reasoning.signature", "signature": "sig", "call_id": "call_1"}


def whole(*events: Event) -> Any:
    return json.loads(encoded(OPENAI.whole(context()), [START, *events, DONE]))


UPSTREAM_START: Event = {
    "type": "start",
    "provider": "openai",
    "model": "gpt-x",
    "provider_metadata": {"id": "chatcmpl-theirs", "upstream": "openai"},
}


TEXT_FRAME = (
    b'data: {"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":1,"model":"gpt-x", '
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}],"obfuscation":"x"}\n\n'
)


FINISH_FRAME = b'data: {"id":"chatcmpl-theirs","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


ERROR_FRAME = b'data: {"error":{"message":"broke","type":"server_error"}}\n\n'


DONE_FRAME = b"data: [DONE]\n\n"


WARNING: Event = {"type": "warning", "reason": "malformed_chunk"}


def passing(*frames: bytes, **changes: Any) -> PassthroughEncoder:
    """Returns a passthrough that has taken frames, and the events of a first one."""
    encoder = OPENAI.passthrough("sse", context(**{"usage": False, **changes}), whole=False)
    assert encoder is not None
    for raw in frames:
        encoder.frame(raw, last=False)
    encoder.event(UPSTREAM_START)
    return encoder


ANSWER = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    b': keep-alive\n\ndata: {"id":"c","choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}]}\r\n\r\n'
    b'event: x\ndata:{"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
)


def relayed(pieces: Iterable[bytes], *, cancel: bool = False) -> bytes:
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    assert encoder is not None
    return received(relay_to(encoder, "openai", copies=False), encoder, pieces, cancel=cancel)


def client(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://sdk.test/v1", http_client=http, max_retries=0)


def read_by_sdk(body: bytes) -> list[ChatCompletionChunk]:
    with client(body) as sdk:
        return list(sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True))


def accumulated_by_sdk(body: bytes) -> Any:
    with (
        client(body) as sdk,
        sdk.chat.completions.stream(model="m", messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        return stream.get_final_completion()
