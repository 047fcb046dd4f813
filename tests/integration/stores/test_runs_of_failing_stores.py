"""Runs whose store fails between a call and its result: a call is made if it may be made again, or was noted before."""

from __future__ import annotations

import pytest

from tests.conftest import ChangeLimits
from tests.integration.gateway import QUERY, Net
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.servers import FAULTS
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of
from tests.legal import check_legal
from tests.waiting import until_answered

PAY, LOOK = ("pay", {"euros": 7}), ("look", {"euros": 7})
NOT_MADE = "the call was not made: the store is out of reach"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_resumable", [False, True])
async def test_a_call_is_made_whose_record_is_in_the_store(
    net: Net, make_server: MakeServer, change_limits: ChangeLimits, fault: str, is_resumable: bool
) -> None:
    change_limits(store_retry=0.2)
    fail, mend = FAULTS[fault]
    server, gate = make_server(), Gate()
    made: list[str] = []

    async def pay(euros: int) -> str:
        made.append("pay")
        await gate.wait()
        return f"paid {euros}"

    async def look(euros: int) -> str:
        made.append("look")
        return f"saw {euros}"

    model = Model(["Now. ", PAY], ["Again. ", PAY, LOOK], ["Done."])
    tools = function_tool(pay), function_tool(look, idempotent=True)
    gateway = await gateway_of(net, model, *tools, of_stream={"url": server.url, "commit_after": 0.02})
    body = {**QUERY, "model": "m", "resumable": is_resumable}
    client, response = await gateway.stream(body)
    await gate.begun.wait()
    fail(server)
    gate.open.set()
    await response.rest()
    client.close()
    check_legal(response.events)
    assert response.text == "Now. Again. Done."
    assert model.results() == ["paid 7", NOT_MADE, "saw 7"]
    assert made == ["pay", "look"]
    mend(server)

    async def is_paid() -> bool:
        made.clear()
        await gateway.ask("POST", "/api/v1/stream", body)
        return sorted(made) == ["look", "pay", "pay"]

    await until_answered(is_paid)
