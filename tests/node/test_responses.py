"""OpenAI's own client and the AI SDK read over the keep-alives that Codex gets in a Responses stream."""

from __future__ import annotations

from gai_fast.formats import get_format
from tests.node.conftest import Run
from tests.unit.formats.streams import DONE, START, USAGE, context, finish, text


def body(user_agent: str | None) -> str:
    encoder = get_format("responses").for_program(user_agent).encoder("sse", context())
    encoder.heartbeat()
    for event in (START, text("Hel"), text("lo"), finish(usage=USAGE), DONE):
        encoder.event(event)
        encoder.heartbeat()
    return encoder.take().decode()


async def test_they_read_over_keep_alives(run_node: Run) -> None:
    bodies = [body("codex_exec/0.169.0"), body(None)]
    for result, sent in zip(await run_node("responses.mjs", [{"body": each} for each in bodies]), bodies, strict=True):
        assert result["openai"]["text"] == "Hello"
        assert result["openai"]["types"].count("keepalive") == sent.count("event: keepalive")
        assert result["ai"] == {"text": "Hello", "finish": "stop", "errors": []}
    assert bodies[0].count("event: keepalive") == 6
