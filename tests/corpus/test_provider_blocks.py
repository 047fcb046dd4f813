"""Blocks that only their provider understands, in every recorded answer: they go to the client and back unchanged.

The official SDKs say what the blocks of an answer are, and whether the provider accepts the request that has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.library.collecting import collect
from gai_fast.library.decoding import decode
from gai_fast.providers import get_provider
from gai_fast.providers.requests.target import Target as Wanted
from tests.corpus.recordings import name_of, recordings_of
from tests.requests.sdk_types import ANY, Types
from tests.requests.targets import TARGETS

pytestmark = pytest.mark.usefixtures("judged")

SHARED_BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use")
SHARED_ITEMS = ("message", "reasoning", "function_call", "custom_tool_call", "image_generation_call")
GEMINI_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "fileData")
NOT_IN_TYPES = {
    "anthropic": (".abort_reason: ",),
    # xAI's items have the form of its own calls; OpenAI's types stand for its API.
    "xai:responses": (".action: ", ".arguments: ", ".call_id: ", ".name: "),
}
"""Members of recorded blocks that the types of requests lack. All providers say to send blocks back unchanged."""


def sse(body: bytes) -> Iterator[dict[str, Any]]:
    """Yields the JSON of each event."""
    for line in body.decode().splitlines():
        if line.startswith("data:") and line[5:].strip().startswith("{"):
            yield json.loads(line[5:])


def of_anthropic(body: bytes) -> list[Any]:
    """Returns the blocks as the SDK accumulates them."""
    from anthropic.lib.streaming._beta_messages import accumulate_event

    message: Any = None
    pieces: dict[int, bytes] = {}
    for event in sse(body):
        if event["type"] not in ("ping", "error"):
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=pieces, request_headers={})
    if message is None:
        return []
    blocks = [block.to_dict() for block in message.content]
    return [block for block in blocks if block["type"] not in SHARED_BLOCKS]


def of_responses(body: bytes) -> list[Any]:
    items = [event["item"] for event in sse(body) if event.get("type") == "response.output_item.done"]
    return [item for item in items if item["type"] not in SHARED_ITEMS]


def of_gemini(body: bytes) -> list[Any]:
    parts = [
        part
        for chunk in sse(body)
        for candidate in chunk.get("candidates") or ()
        for part in (candidate.get("content") or {}).get("parts") or ()
    ]
    return [part for part in parts if any(name in part for name in GEMINI_PARTS)]


READERS = {
    "anthropic": of_anthropic,
    "openai:responses": of_responses,
    "azure:responses": of_responses,
    "xai:responses": of_responses,
    "gemini": of_gemini,
}


def types_of(name: str) -> Types:
    if name == "anthropic":
        from anthropic.types.beta import message_create_params as params

        more = {"stream": bool, "temperature": float, "top_p": float}
        return Types(params.MessageCreateParamsStreaming, {"": more}, {"InputSchemaTyped": ANY})
    return next(target.types() for target in TARGETS if target.name == name)


def without_nulls(value: Any) -> Any:
    """The SDK adds members that the wire did not have, as null."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def blocks_in(name: str, body: Any) -> list[Any]:
    """Returns the blocks in a request, as its provider has them."""
    if name == "gemini":
        return [part for turn in body["contents"] for part in turn["parts"] if any(key in part for key in GEMINI_PARTS)]
    if name == "anthropic":
        parts = [block for turn in body["messages"] for block in turn["content"]]
        return [block for block in parts if block["type"] not in SHARED_BLOCKS]
    return [item for item in body["input"] if item.get("type", "message") not in SHARED_ITEMS]


@pytest.mark.parametrize("name", sorted(READERS))
def test_blocks_of_recordings_come_and_return_unchanged(name: str) -> None:
    api = get_provider(name)
    types, seen, refused = types_of(name), 0, []
    for recording in recordings_of(name.partition(":")[0]):
        if (
            name_of(recording) != name
            or recording.status != 200
            or not recording.body.lstrip().startswith((b"e", b"d"))
        ):
            continue
        events = list(decode(name, [recording.body]))
        if events[-1] != {"type": "done", "finished": True}:
            continue
        blocks = [event for event in events if event["type"] == "provider.block"]
        expected = READERS[name](recording.body)
        assert [without_nulls(event["block"]) for event in blocks] == without_nulls(expected), recording.name
        if not blocks:
            continue
        seen += len(blocks)
        message = collect(events).message
        assert [part["block"] for part in message["content"] if part["type"] == "provider_block"] == [
            event["block"] for event in blocks
        ]
        request = parse_request(json.dumps({"messages": [{"role": "user", "content": "hi"}, message]}).encode())
        wanted = Wanted(recording.model if hasattr(recording, "model") else "model-1")
        sent = json.loads(api.build_request(request, wanted).body)
        assert blocks_in(name, sent) == [event["block"] for event in blocks], recording.name
        problems = [one for one in types.problems(sent) if not any(word in one for word in NOT_IN_TYPES.get(name, ()))]
        refused += [(recording.name, problems)] if problems else []
        other = get_provider("openai" if name == "anthropic" else "anthropic")
        target = Wanted("other-1")
        left = other.build_request(request, target).body
        assert json.dumps(blocks[0]["block"])[:40] not in left.decode()
        assert sum(path.startswith("messages[1].content[") for path in target.changes.dropped) == len(blocks)
    assert seen, f"no recording of {name} has blocks"
    assert not refused
