"""What clients from npm read of a guard: a mask, a flag and a stop, streamed and whole, and a refused request."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.integration.configured import ACTIONS, ASKED, SAID, UNASKED, UPSTREAMS, guarded, model_of, told
from tests.integration.gateway import Net
from tests.node.conftest import Run
from tests.node.test_vercel import SDKS

CASES = [(upstream, action) for upstream in UPSTREAMS for action in ACTIONS]
CLIENTS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...], str]] = {
    "chat": (2, ("stop",), ("content_filter",), "BadRequestError"),
    "responses": (2, ("completed",), ("content_filter",), "BadRequestError"),
    "messages": (2, ("end_turn",), ("refusal",), "BadRequestError"),
    "streamText chat": (1, ("stop",), ("content-filter",), "APICallError"),
    "streamText responses": (1, ("stop",), ("content-filter",), "APICallError"),
    "useChat 5": (1, ("stop", "ready"), ("content_filter", "ready"), "Error"),
    "useChat 7": (1, ("stop", "ready"), ("content_filter", "ready"), "APICallError"),
}
"""For each client of `guards.mjs`: how often it asks, the ends of an answer and of one that is stopped, and the class
of what it throws for 400."""
NOTES = {**dict.fromkeys(CLIENTS, 0), "chat": 2, "messages": 1, "useChat 5": 1, "useChat 7": 1}
"""How often a client is told of a match. Anthropic's skips `ping`, which tells of it in a stream."""


async def test_clients_read_a_mask_a_flag_a_stop_and_a_refusal(run_node: Run, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway, talker = await guarded(Net(stack), tmp_path)
        jobs = [
            {"url": gateway.url, "client": client, "model": model_of(upstream, action), "text": ASKED}
            for client in CLIENTS
            for upstream, action in CASES
        ]
        cases = [(client, *case) for client in CLIENTS for case in CASES]
        for case, found in zip(cases, await run_node("guards.mjs", jobs), strict=True):
            client, _, action = case
            times, usual, stopped, _ = CLIENTS[client]
            assert found["errors"] == [], case
            assert found["texts"] == [SAID[action]] * times, case
            assert found["ends"] == [*(stopped if action == "stop" else usual)] * times, case
            assert found["notes"] == [told(action)] * NOTES[client], case
        before = len(talker.asked)
        refused = [{**job, "text": UNASKED} for job in jobs[:: len(CASES)]]
        for client, found in zip(CLIENTS, await run_node("guards.mjs", refused), strict=True):
            times, _, _, name = CLIENTS[client]
            assert found["texts"] == []
            for problem, status, message in found["errors"]:
                assert (problem, status) == (name, None if name == "Error" else 400), client
                assert "the guard 'door' does not let this request through" in message
            assert len(found["errors"]) == times
            assert UNASKED not in json.dumps(found)
        assert len(talker.asked) == before


async def test_agui_and_each_ai_sdk_check_the_events_of_a_guarded_stream(run_node: Run, tmp_path: Path) -> None:
    """AG-UI's `HttpAgent` runs `verifyEvents`, the AI SDK its schema of each part."""
    async with AsyncExitStack() as stack:
        gateway, talker = await guarded(Net(stack), tmp_path)
        jobs = [agui_job(gateway.url, model_of(*case), ASKED) for case in CASES]
        for case, found in zip(CASES, await run_node("agui.mjs", jobs), strict=True):
            action = case[1]
            assert found["error"] is None, case
            assert found["messages"][-1]["content"] == SAID[action]
            assert found["result"]["finish_reason"] == ("content_filter" if action == "stop" else "stop")
            assert found["types"].count("CUSTOM") == 1, "what is said of the match"
        chats = [(sdk, *case) for sdk in SDKS for case in CASES]
        jobs = [vercel_job(gateway.url, sdk, model_of(*case), ASKED) for sdk, *case in chats]
        for (sdk, _, action), found in zip(chats, await run_node("vercel.mjs", jobs), strict=True):
            assert found["error"] is None, (sdk, action)
            parts = found["message"]["parts"]
            assert "".join(part["text"] for part in parts if part["type"] == "text") == SAID[action]
            assert [part["data"] for part in found["chunks"] if part["type"] == "data-safety"] == [told(action)]
            assert found["message"]["metadata"]["finish_reason"] == ("content_filter" if action == "stop" else "stop")
        before = len(talker.asked)
        (found,) = await run_node("agui.mjs", [agui_job(gateway.url, model_of("chat", "mask"), UNASKED)])
        refused = [found["error"]]
        jobs = [vercel_job(gateway.url, sdk, model_of("chat", "mask"), UNASKED) for sdk in SDKS]
        refused += [found["error"] for found in await run_node("vercel.mjs", jobs)]
        for error in refused:
            assert "the guard 'door' does not let this request through" in error
            assert UNASKED not in error
        assert len(talker.asked) == before


def agui_job(url: str, model: str, text: str) -> dict[str, Any]:
    message = {"id": "1", "role": "user", "content": text}
    return {"url": f"{url}/api/v1/stream?format=agui", "forwardedProps": {"model": model}, "messages": [message]}


def vercel_job(url: str, sdk: str, model: str, text: str) -> dict[str, Any]:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": text}]}
    address = f"{url}/api/v1/chat?ui={SDKS[sdk]}"
    return {"sdk": sdk, "url": address, "more": {"model": model}, "chatId": f"{sdk} {model}", "messages": [message]}
