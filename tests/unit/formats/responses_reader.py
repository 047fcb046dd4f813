"""Helpers of the tests of OpenAI's Responses format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gai_fast.formats import Framing, get_format
from gai_fast.model.events import Event
from tests.unit.formats.chat_reader import client
from tests.unit.formats.relays import received, relay_to
from tests.unit.formats.streams import DONE, START, STREAM_ID, context, encoded, objects_of

RESPONSES = get_format("responses")
RESPONSE_ID = f"resp_{STREAM_ID}"

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def streamed(*events: Event, framing: Framing = "sse", **changes: Any) -> bytes:
    return encoded(RESPONSES.encoder(framing, context(**changes)), [START, *events])


def written(*events: Event, **changes: Any) -> list[Any]:
    """Returns the objects of a stream, checked by the SDK's own types, with numbers from 0 without holes."""
    return checked(streamed(*events, **changes))


def checked(body: bytes) -> list[Any]:
    found = objects_of(body)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    for one in found:
        _EVENT.validate_python(one)
    return found


def types(found: Iterable[Any]) -> list[str]:
    return [one["type"].removeprefix("response.") for one in found]


def whole(*events: Event, **changes: Any) -> Any:
    answer = json.loads(encoded(RESPONSES.whole(context(**changes)), [START, *events, DONE]))
    Response.model_validate(answer)
    return answer


def read_by_sdk(body: bytes) -> list[Any]:
    with client(body) as sdk:
        return list(sdk.responses.create(model="m", input="?", stream=True))


def accumulated_by_sdk(body: bytes, **options: Any) -> Any:
    with client(body) as sdk, sdk.responses.stream(model="m", input="?", **options) as stream:
        return stream.get_final_response()


def frame(kind: str, number: int, **members: Any) -> bytes:
    """Returns a frame as OpenAI writes it."""
    data = json.dumps({"type": kind, "sequence_number": number, **members}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def upstream(status: str = "completed", identifier: str = "resp_theirs", text: str = "Hi there") -> list[bytes]:
    """Returns the frames of an answer of OpenAI's."""
    response = {"id": identifier, "object": "response", "created_at": 1, "model": "gpt-x", "output": []}
    at = {"item_id": "msg_1", "output_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    ended = {**message, "status": "completed", "content": [{**part, "text": text}]}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    words = text.split(" ")
    events: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": {**response, "status": "in_progress"}}),
        ("in_progress", {"response": {**response, "status": "in_progress"}}),
        ("output_item.added", {"output_index": 0, "item": message}),
        ("content_part.added", {**at, "content_index": 0, "part": part}),
        *(
            ("output_text.delta", {**at, "content_index": 0, "delta": word if first else f" {word}", "logprobs": []})
            for word, first in zip(words, [True] + [False] * len(words), strict=False)
        ),
        ("output_text.done", {**at, "content_index": 0, "text": text, "logprobs": []}),
        ("content_part.done", {**at, "content_index": 0, "part": {**part, "text": text}}),
        ("output_item.done", {"output_index": 0, "item": ended}),
        (status, {"response": {**response, "status": status, "output": [ended], "usage": usage}}),
    ]
    return [frame(f"response.{kind}", number, **members) for number, (kind, members) in enumerate(events)]


def relayed(pieces: Iterable[bytes], *, provider: str = "openai:responses", passes: bool = True) -> bytes:
    """Returns the bytes of a stream that an upstream has sent in these pieces."""
    return ended(pieces, provider=provider, passes=passes)


def ended(pieces: Iterable[bytes], *, provider: str, passes: bool, cancel: bool = False) -> bytes:
    if passes:
        encoder: Any = RESPONSES.passthrough("sse", context(), whole=False)
    else:
        encoder = RESPONSES.encoder("sse", context())
    return received(relay_to(encoder, provider, passes=passes), encoder, pieces, cancel=cancel)
