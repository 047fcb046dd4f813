"""The AI SDK's own client, in the versions that differ, reads the format `vercel` without a complaint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.server.serving import start
from tests.integration.gateway import Upstream, settings_for, weather_tool
from tests.node.conftest import Run
from tests.unit.formats.every_event import EVERY_EVENT, in_another_order
from tests.unit.formats.streams import ERROR, NOT_DONE, START, context, encoded, finish, text

VERCEL = get_format("vercel")
SDKS = {"ai-5.0.0": "5", "ai-5": "5", "ai-6": "6", "ai-7": "7"}
"""The packages of tests/node/package.json, and the version of the format that each is sent."""


def body(events: list[Any], version: str) -> str:
    return encoded(VERCEL.version(version).encoder("sse", context()), events).decode()


def kept(message: Any) -> list[Any]:
    """Returns the parts of a message without what only some versions write."""
    return [{key: part[key] for key in part if key != "id" or part["type"] != "reasoning"} for part in message["parts"]]


async def test_every_event_is_read_by_every_version_and_makes_the_same_message(run_node: Run) -> None:
    results = await run_node("vercel.mjs", [{"sdk": sdk, "body": body(EVERY_EVENT, SDKS[sdk])} for sdk in SDKS])
    for sdk, result in zip(SDKS, results, strict=True):
        assert result["error"] is None, sdk
        assert len(result["chunks"]) == body(EVERY_EVENT, SDKS[sdk]).count("data: {")
        assert kept(result["message"]) == kept(results[-1]["message"]), sdk
        assert result["message"]["metadata"]["finish_reason"] == "tool_calls"
    request, lost = VERCEL.parse_request({"messages": [results[-1]["message"]]})
    assert lost == []
    assert [message.__struct_config__.tag for message in request.messages] == ["assistant", "assistant", "tool"]


@pytest.mark.parametrize("sdk", SDKS)
async def test_every_event_is_read_in_any_order(run_node: Run, sdk: str) -> None:
    jobs = [{"sdk": sdk, "body": body(in_another_order(seed), SDKS[sdk])} for seed in range(30)]
    for result in await run_node("vercel.mjs", jobs):
        assert result["error"] is None
        assert len(result["chunks"]) > len(EVERY_EVENT) / 2
        assert result["message"]["metadata"]["finish_reason"] == "tool_calls"


async def test_the_newest_is_read_by_its_elders_where_they_are_asked_for(run_node: Run) -> None:
    """The control: 5.0.0 refuses what 6 writes, so the test above could fail."""
    reset = [START, text("void"), {"type": "stream.reset", "reason": "network"}, START, text("Hi"), finish()]
    jobs = [
        {"sdk": "ai-5.0.0", "body": body(EVERY_EVENT, "6")},
        {"sdk": "ai-7", "body": body(EVERY_EVENT, "5")},
        {"sdk": "ai-7", "body": body(reset, "7")},
    ]
    refused, old, again = await run_node("vercel.mjs", jobs)
    assert "Type validation failed" in refused["error"]
    assert old["error"] is None
    assert [part["text"] for part in again["message"]["parts"] if part["type"] == "text"] == ["Hi"]


@pytest.mark.parametrize(("end", "error"), [([ERROR, NOT_DONE], 'cut "off"'), ([finish("cancelled")], None)])
async def test_an_end_that_is_no_finish(run_node: Run, end: list[Any], error: str | None) -> None:
    jobs = [{"sdk": sdk, "body": body([START, text("Hi"), *end], SDKS[sdk])} for sdk in SDKS]
    for result in await run_node("vercel.mjs", jobs):
        assert (error in result["error"]) if error else result["error"] is None
        assert result["message"]["parts"][-1] == {"type": "text", "text": "Hi", "state": "done"}


@pytest.fixture
async def chat() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the address of a running gateway's chat route, and the requests that its upstream got.

    The upstream calls a tool first, and then answers.
    """
    asked: list[dict[str, Any]] = []
    upstream = Upstream(weather_tool(asked))
    await upstream.start()
    gateway = await start(settings_for(upstream.url))
    yield f"{gateway.url}/api/v1/chat", asked
    await gateway.close()
    await upstream.stop()


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_conversation_with_a_tool(run_node: Run, chat: tuple[str, list[dict[str, Any]]], sdk: str) -> None:
    url, asked = chat
    tools = [{"name": "weather", "parameters": {"type": "object"}}]
    user = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Weather?"}]}
    job = {"sdk": sdk, "url": f"{url}?ui={SDKS[sdk]}", "more": {"tools": tools}, "chatId": f"chat-{sdk}"}
    (first,) = await run_node("vercel.mjs", [{**job, "messages": [user]}])
    assert first["error"] is None
    called = first["message"]["parts"][-1]
    assert (called["type"], called["state"], called["input"]) == ("tool-weather", "input-available", {})
    called |= {"state": "output-available", "output": {"degrees": 4}}
    second, idle = await run_node(
        "vercel.mjs", [{**job, "messages": [user, first["message"]]}, {**job, "url": url, "resume": True}]
    )
    assert second["error"] is None
    assert second["message"]["parts"][-1]["text"] == "4 °C"
    assert idle == {"chunks": [], "message": None, "error": None}, "nothing runs any more: 204"
    assert [message["role"] for message in asked[-1]["messages"]] == ["user", "assistant", "tool"]
    assert asked[-1]["messages"][-1]["content"] == '{"degrees":4}'
    assert asked[-1]["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
