"""The clients of a running gateway whose upstream replays recordings: what each sends, and what it is answered.

Each client sends a request of its own dialect to its own route. Sockets are on both sides.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any, Final

import uvloop

from gai_fast.model.events import Event
from gai_fast.server.serving import start
from tests.corpus.recordings import recordings
from tests.corpus.served import (
    ASKED,
    REFUSED,
    Replay,
    closed_after,
    decoded_here,
    is_incomplete,
    settings_for,
    upstream_of,
    whole_answer,
    wrong_unless,
)
from tests.corpus.test_formats import expected_of
from tests.integration.gateway import Gateway, Net, Peer, Response, run
from tests.readers import TOO_LONG, ClientState

_TEXT: Final = "Tell me a story"
_MESSAGES: Final = [{"role": "user", "content": _TEXT}]
_STREAM: Final = {"stream": True, "stream_options": {"include_usage": True}}

REQUESTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "gai": ("/api/v1/stream", {"query": _TEXT}),
    "simple": ("/api/v1/stream?format=simple", {"query": _TEXT}),
    "raw": ("/api/v1/stream?format=raw", {"query": _TEXT}),
    "openai": ("/v1/chat/completions", {"messages": _MESSAGES, **_STREAM}),
    "completions": ("/v1/completions", {"prompt": _TEXT, **_STREAM}),
    "responses": ("/v1/responses", {"input": _TEXT, "stream": True}),
    "anthropic": ("/v1/messages", {"messages": _MESSAGES, "max_tokens": 500, "stream": True}),
    "vercel": (
        "/api/v1/chat",
        {"id": "chat-1", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": _TEXT}]}]},
    ),
    "agui": (
        "/api/v1/stream?format=agui",
        {"threadId": "thread-1", "runId": "run-1", "messages": [{"id": "1", "role": "user", "content": _TEXT}]},
    ),
}
"""The route and the request of each client."""


class AtOnce(Replay):
    """Sends each recording in one piece: `served.py` is about cuts."""

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            answer = whole_answer(self.recording)
            await peer.send(answer)
            if await closed_after(peer, answer):
                return


@cache
def answers(name: str) -> tuple[tuple[Any, Response], ...]:
    """Returns every recording, with what a client of a format gets for it.

    Args:
        name: The format.
    """
    found: list[tuple[Any, Response]] = []
    path, body = REQUESTS[name]

    async def scenario(net: Net) -> None:
        replay = AtOnce()
        upstream = await net.upstream(replay)
        running = await start(settings_for(list(recordings()), upstream.url))
        net.stack.push_async_callback(running.close)
        net.gateways.append(Gateway(net, running))
        client = await net.gateways[-1].connect()
        for recording in recordings():
            replay.recording = recording
            model = {"model": f"{upstream_of(recording)}/{ASKED}"}
            asked = body | ({"forwardedProps": model} if name == "agui" else model)
            found.append((recording, await client.ask("POST", path, asked)))
        net.warned("refuses our")  # some recordings are of a refused key or account

    run(uvloop.new_event_loop, scenario)
    return tuple(found)


def check_known(through: ClientState, events: list[Event], name: str) -> None:
    """Compares what a client knows with what it must know.

    Of usage what the provider has counted is compared: a server estimates the rest.

    Args:
        through: What the client behind the gateway knows.
        events: The events of the recording.
        name: The client's format.

    Raises:
        Wrong: They differ.
    """
    straight = expected_of(events, name)
    if events[-2]["type"] == "error" or "usage" not in events[-2] or is_incomplete(events[-2]["usage"]):
        counts = straight.usage.items()
        wrong_unless(all(through.usage.get(key, 0) >= count for key, count in counts), "usage", through.usage)
        through = dataclasses.replace(through, usage=straight.usage)
    wrong_unless(through == straight, through, "and should be", straight)


def check_refused(name: str, recording: Any, response: Response) -> None:
    """Compares an error that is no stream with what the recording tells.

    Args:
        name: The client's format.
        recording: What the upstream sent.
        response: What the gateway answered.

    Raises:
        Wrong: They differ.
    """
    events = decoded_here(recording)
    straight = expected_of(events, name)
    wrong_unless(
        straight == ClientState(error=straight.error, usage=straight.usage), "its head was due before", straight
    )
    check_message(json.loads(response.body)["error"]["message"], events, upstream_of(recording))


def check_message(message: str, events: list[Event], upstream: str) -> None:
    """Compares the text of an error that is no stream with the error of the recording.

    Raises:
        Wrong: They differ.
    """
    error, message = events[-2]["error"], message.removeprefix(TOO_LONG)
    if error["code"] in ("unauthorized", "forbidden") and message != error["message"]:
        is_named = repr(upstream) in message and any(setting in message for setting in REFUSED.values())
        wrong_unless(is_named, "the setting of the upstream that refuses the gateway is not named", message)
    else:
        expected = error["message"].removeprefix(TOO_LONG)
        wrong_unless(message == expected, message, "and should be", expected)
