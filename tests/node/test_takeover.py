"""A chat of the AI SDK whose server is killed amid an answer: its own resume goes on with it at another server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.conftest import net as net
from tests.integration.gateway import Net
from tests.integration.stores.conftest import needs_redis as needs_redis
from tests.integration.stores.conftest import redis_server as redis_server
from tests.integration.stores.conftest import shared_server as shared_server
from tests.integration.stores.conftest import url as url
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_takeover_clients import alone, kill_amid, two_servers
from tests.node.conftest import Run

USER = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Say it"}]}


def text_of(message: Any) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@pytest.mark.parametrize("sdk", ["ai-5.0.0", "ai-7"])
async def test_a_chat_is_resumed_at_another_server(net: Net, folder: Path, url: str, sdk: str, run_node: Run) -> None:
    async with Mock(deltas=150, rate=0) as mock:
        job = {"sdk": sdk, "more": {"model": "m"}, "messages": [USER], "chatId": "chat"}
        async with alone(net, folder, mock) as host:
            (whole,) = await run_node("vercel.mjs", [{**job, "url": f"http://{host}/api/v1/chat"}])
        async with two_servers(net, folder, mock, url) as (host, processes):
            job["url"] = f"http://{host}/api/v1/chat"
            jobs = [job, {**job, "resume": True}]
            reading = asyncio.create_task(run_node("vercel.mjs", jobs))
            await kill_amid(lambda: processes, mock)
            cut, resumed = await reading
            assert len(mock.requests) == 2
    assert whole["error"] is None
    assert cut["error"] is not None
    assert text_of(whole["message"]).startswith(text_of(cut["message"]))
    assert resumed["error"] is None
    assert text_of(resumed["message"]) == text_of(whole["message"])
    assert [chunk["type"] for chunk in resumed["chunks"]].count("finish") == 1
