"""AG-UI's own client, which checks each event and their order, reads the format `agui` without a complaint."""

from __future__ import annotations

from typing import Any

from gai_fast.formats import get_format
from gai_fast.server.serving import start
from tests.integration.gateway import Upstream, settings_for, weather_tool
from tests.node.conftest import Run
from tests.unit.formats.every_event import EVERY_EVENT, in_another_order
from tests.unit.formats.streams import ERROR, NOT_DONE, START, call_delta, call_start, context, encoded, finish, text

AGUI = get_format("agui")
NO_CLOSED_CALL = [START, call_start(), call_delta("{"), finish("length")]


def body(*events: Any) -> str:
    return encoded(AGUI.encoder("sse", context()), events).decode()


async def test_every_event_is_read_in_its_order(run_node: Run) -> None:
    whole = body(*EVERY_EVENT)
    control = "".join(frame + "\n\n" for frame in whole.split("\n\n")[:-1] if "TOOL_CALL_END" not in frame)
    jobs = [whole, body(START, text("Hi"), ERROR, NOT_DONE), body(*NO_CLOSED_CALL), control]
    read, failed, cut, refused = await run_node("agui.mjs", [{"body": job} for job in jobs])
    assert read["error"] is None
    assert len(read["types"]) == whole.count("data: {")
    assert read["result"] == {"finish_reason": "tool_calls"}
    assert [message["role"] for message in read["messages"]] == [
        "reasoning",
        "reasoning",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert failed["error"] == 'cut "off"'
    assert cut["error"] is None
    assert "tool calls are still active" in refused["error"], "the control: the client does check"


async def test_every_event_is_read_in_any_order(run_node: Run) -> None:
    for result in await run_node("agui.mjs", [{"body": body(*in_another_order(seed))} for seed in range(30)]):
        assert result["error"] is None
        assert result["result"] == {"finish_reason": "tool_calls"}


async def test_a_conversation_with_a_tool(run_node: Run) -> None:
    asked: list[Any] = []
    upstream = Upstream(weather_tool(asked))
    await upstream.start()
    gateway = await start(settings_for(upstream.url))
    try:
        job = {
            "url": f"{gateway.url}/api/v1/stream?format=agui",
            "tools": [{"name": "weather", "description": "", "parameters": {"type": "object"}}],
            "forwardedProps": {"model": "m"},
        }
        user = {"id": "1", "role": "user", "content": "Weather?"}
        (first,) = await run_node("agui.mjs", [{**job, "messages": [user]}])
        assert first["error"] is None
        _, reasoning, assistant = first["messages"]
        assert (reasoning["content"], assistant["content"]) == ("Hm", "Look.")
        result = {"id": "9", "role": "tool", "toolCallId": assistant["toolCalls"][0]["id"], "content": "4"}
        (second,) = await run_node("agui.mjs", [{**job, "messages": [*first["messages"], result]}])
        assert second["error"] is None
        assert second["messages"][-1]["content"] == "4 °C"
        assert [message["role"] for message in asked[-1]["messages"]] == ["user", "assistant", "tool"]
        assert asked[-1]["messages"][1]["content"] == "Look."
    finally:
        await gateway.close()
        await upstream.stop()
