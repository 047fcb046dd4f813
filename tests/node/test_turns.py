"""Conversations over `/v1/responses` with clients from npm, with an upstream of each dialect."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import Net
from tests.integration.talking import MODELS, NAME, RESULT, SIGNATURE, talking
from tests.node.conftest import Run

SECRET = "sk-canary-ada-0123456"


async def test_turns_loops_and_the_socket_have_the_whole_conversation(run_node: Run) -> None:
    async with AsyncExitStack() as stack:
        gateway, talker = await talking(Net(stack), keys=(KeySettings("ada", (key_digest(SECRET),)),))
        jobs = [
            {"url": gateway.url, "key": SECRET, "model": model, "client": client}
            for model in MODELS
            for client in ("ai", "ai streamed", "openai")
        ]
        for job, found in zip(jobs, await run_node("turns.mjs", jobs), strict=True):
            both = f"I know {NAME} and {RESULT}"
            assert found["texts"] == [f"I know {NAME}"] * 2 + [both] * 3, job
            assert found["results"] == [RESULT], job
            is_ai = job["client"].startswith("ai")
            assert (found["references"] > 10) is is_ai, "the AI SDK names earlier items"
            assert found["problems"] == ([] if is_ai else ["Previous response with id 'resp_none' not found."]), job
    # A tool's loop has one request more.
    assert [path for path, _ in talker.asked] == [path for path in MODELS.values() for _ in range(3 * 6)]
    for _, body in talker.asked[5::6]:
        said = json.dumps(body)
        for text in (f"My name is {NAME}.", "What is my name?", "How deep is it?", "And again?", "Who am I?"):
            assert said.count(text) == 1
    assert json.dumps(talker.asked[-1 - 2 * 18][1]).count(SIGNATURE) == 5, "each thought of Claude goes back to it"
