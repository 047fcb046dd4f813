"""The clients for JavaScript over a gateway whose model calls its tools: they make their own call alone."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.integration.gateway import Net
from tests.integration.test_run_clients import SAID, a_gateway
from tests.node.conftest import Run
from tests.node.test_runs import CLIENTS, GOES_ON, OURS


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "streamText responses"])
async def test_a_run_of_a_gateway_is_read(run_node: Run, client: str) -> None:
    """The AI SDK asks Responses for MCP tools with an address only: its row is in `test_runs.py`."""
    async with AsyncExitStack() as stack:
        gateway, model = await a_gateway(Net(stack))
        (result,) = await run_node("runs.mjs", [{"client": client, "url": gateway.url, "ours": OURS}])
    assert result["error"] is None
    assert [call.partition("(")[0] for call in result["made"]] == ["show"]
    assert result["text"] == (SAID + "Shown." if client in GOES_ON else SAID)
    assert len(model.asked) == (3 if client in GOES_ON else 2)
