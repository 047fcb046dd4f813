"""Approvals in the Responses dialect over a store: servers that restart, and workers that are killed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway import Net
from tests.integration.processes import Server, serving
from tests.integration.stores.test_run_takeover import Till, configured
from tests.integration.stores.test_serve import folder as folder
from tests.integration.tool_runs import Model
from tests.waiting import until, until_answered

TOOLS = [{"type": "mcp", "server_label": "gateway"}]
CALL = ("pay", {"city": "Oslo"})


async def respond(server: Server, **members: Any) -> dict[str, Any]:
    answered = await server.ask("POST", "/v1/responses", {"model": "m", "tools": TOOLS, **members})
    assert answered.status == 200, (answered.status, answered.json)
    return dict(answered.json)


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}]


async def test_another_server_makes_the_call_once(net: Net, folder: Path, url: str) -> None:
    till, model = Till(), Model([CALL], ["Done."])
    configured(
        folder, (await net.upstream(model.handle)).url, (await net.upstream(till.handle)).url, of_tool="approve = true"
    )
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first:
        asked = await respond(first, input="Pay")
    assert till.journal == []
    request = asked["output"][-1]
    given: Any = {"input": answer(request), "previous_response_id": asked["id"]}
    async with serving(net, folder, *arguments) as second:
        made = await respond(second, **given)
        assert [item["type"] for item in made["output"]] == ["mcp_call", "message"]
        again = await second.ask("POST", "/v1/responses", {"model": "m", "tools": TOOLS, **given})
        assert again.status == 409
    assert len(till.journal) == 1
    assert len(till.journal[0]["idempotency-key"]) == 64


@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_the_worker_of_an_answer_is_killed(net: Net, folder: Path, url: str, is_idempotent: bool) -> None:
    """A call whose outcome is unknown is not made again; an idempotent one is, with the key of the run that left it."""
    till, model = Till(held=1), Model([CALL], ["Done."])
    of_tool = f"approve = true\nidempotent = {str(is_idempotent).lower()}"
    configured(folder, (await net.upstream(model.handle)).url, (await net.upstream(till.handle)).url, of_tool=of_tool)
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
        asked = await respond(first, input="Pay")
        given: Any = {"input": answer(asked["output"][-1]), "previous_response_id": asked["id"]}
        begun = await respond(first, **given, background=True)
        await until(lambda: bool(till.journal))

        async def shown() -> dict[str, Any]:
            return dict((await second.ask("GET", f"/v1/responses/{begun['id']}")).json)

        async def is_known() -> bool:
            return (await shown()).get("status") == "in_progress"

        await until_answered(is_known)
        await asyncio.sleep(0.3)  # the state of the run is in the store
        first.process.kill()
        await first.ended()

        async def is_over() -> bool:
            return (await shown()).get("status") == "completed"

        await until_answered(is_over)
        response = await shown()
    [call] = [item for item in response["output"] if item["type"] == "mcp_call"]
    assert call["approval_request_id"] == asked["output"][-1]["id"]
    if is_idempotent:
        assert len(till.journal) == 2
        assert len({each["idempotency-key"] for each in till.journal}) == 1
        assert call["output"] == '{"paid":2}'
    else:
        assert len(till.journal) == 1
        assert "unknown" in json.dumps(call["error"])
    assert response["output"][-1]["content"][0]["text"] == "Done."
