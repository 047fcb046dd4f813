"""`/v1/responses` over a WebSocket: one turn at a time, what waits, what is wrong, and how a turn ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.integration.websocket import Socket, connect
from tests.wire import chunk

PATH = "/v1/responses"
ASK = {"model": "m", "input": "Tell me a story"}
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


async def opened(gateway: Gateway, protocols: str | None = None, **headers: str) -> Socket:
    return await connect(gateway, protocols, PATH, **headers)


def create(socket: Socket, **members: Any) -> None:
    socket.send(type="response.create", **{**ASK, **members})


async def turn(socket: Socket, **members: Any) -> list[dict[str, Any]]:
    """Asks for a response; returns its messages."""
    create(socket, **members)
    return await rest(socket)


async def rest(socket: Socket) -> list[dict[str, Any]]:
    """Returns the messages up to the end of a turn."""
    found = []
    while not found or found[-1]["type"] not in ENDS:
        message = await socket.read()
        assert message is not None, (socket.closed, found)
        found.append(message)
    return found


def comparable(events: Any) -> str:
    """Returns events without what differs between two answers."""
    text = json.dumps(events)
    for event in events:
        response = event.get("response", {})
        for name in ("id", "created_at", "completed_at"):
            if response.get(name):
                text = text.replace(json.dumps(response[name]).strip('"'), name)
        identifier = event.get("item_id") or event.get("item", {}).get("id", "")
        if identifier:
            text = text.replace(identifier.partition("_")[2], "item")
    return text


@on_both_loops
async def test_a_turn_has_the_events_of_a_stream_over_http(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    over_http = [json.loads(data) for data in (await gateway.ask("POST", PATH, {**ASK, "stream": True})).data]
    socket = await opened(gateway)
    assert "sec-websocket-protocol" not in socket.response.headers
    for members in ({}, {"stream": False, "stream_options": {"include_obfuscation": False}}, {"generate": True}):
        events = await turn(socket, **members)
        assert comparable(events) == comparable(over_http)
        assert [event["sequence_number"] for event in events] == [*range(len(events))]
