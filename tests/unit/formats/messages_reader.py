"""Helpers of the tests of Anthropic's format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2

from gai_fast.formats import Framing, get_format
from gai_fast.model.events import Event
from tests.unit.formats.relays import received, relay_to
from tests.unit.formats.streams import DONE, START, context, encoded

ANTHROPIC = get_format("anthropic")
CLAUDE: Event = {**START, "provider": "anthropic"}


def streamed(*events: Event, start: Event = START, framing: Framing = "sse", **changes: Any) -> bytes:
    return encoded(ANTHROPIC.encoder(framing, context(**changes)), [start, *events])


def written(*events: Event, start: Event = START, **changes: Any) -> list[Any]:
    """Returns the objects after `message_start`."""
    return objects_of(streamed(*events, start=start, **changes))[1:]


def objects_of(body: bytes) -> list[Any]:
    """Returns the objects of a stream, each with the event name that its frame has."""
    objects = []
    for frame in body.decode().split("\n\n")[:-1]:
        name, _, data = frame.removeprefix("event: ").partition("\ndata: ")
        objects.append(json.loads(data))
        assert objects[-1]["type"] == name
    return objects


def whole(*events: Event, start: Event = START) -> Any:
    return json.loads(encoded(ANTHROPIC.whole(context()), [start, *events, DONE]))


def frame(name: str, **members: Any) -> bytes:
    """Returns a frame of Anthropic's: with blanks, as it sends them."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}   \n\n".encode()


def delta(text: str, index: int = 0) -> bytes:
    return frame("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


BEGIN = frame(
    "message_start",
    message={
        "id": "msg_theirs",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
)
OPEN = frame("content_block_start", index=0, content_block={"type": "text", "text": ""})
PING = frame("ping")
CLOSE = frame("content_block_stop", index=0)
COUNT = frame("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 9})
STOP = frame("message_stop")
ANSWER = BEGIN + OPEN + PING + b"".join(delta(f"wörd {at} ") for at in range(20)) + CLOSE + COUNT + STOP
OVERLOADED = frame("error", error={"type": "overloaded_error", "message": "Overloaded"})


def relayed(pieces: Iterable[bytes], *, cancel: bool = False) -> bytes:
    """Returns the bytes for a client of the dialect, from an upstream of the dialect."""
    encoder = ANTHROPIC.passthrough("sse", context(), whole=False)
    return received(relay_to(encoder, "anthropic"), encoder, pieces, cancel=cancel)


def client(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> anthropic.Anthropic:
    def answer(request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": content_type, "request-id": "req_1"}
        return httpx2.Response(status, content=body, headers=headers)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="k", base_url="http://sdk.test", http_client=http, max_retries=0)


def accumulated_by_sdk(body: bytes) -> Any:
    with (
        client(body) as sdk,
        sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        return stream.get_final_message()
