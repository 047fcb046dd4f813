"""OpenAI's own client for JavaScript is asked for an approval, and answers in its next request."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.integration.gateway import Net
from tests.integration.test_approval_answers import paying
from tests.node.conftest import Run


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_approved_call_is_made_once_and_a_denied_one_never(run_node: Run, stream: bool, kept: bool) -> None:
    async with AsyncExitStack() as stack:
        gateway, model, desk = await paying(Net(stack))
        job = {"url": gateway.url, "stream": stream, "kept": kept}
        jobs = [{**job, "approve": True}, {**job, "approve": False, "reason": "too much"}]
        approved, denied = await run_node("approvals.mjs", jobs)
    for result in (approved, denied):
        assert (result["asked"]["name"], result["asked"]["server_label"]) == ("pay", "gateway")
        assert result["asked"]["arguments"] == '{"euros":7}'
        assert result["types"] == [["message", "mcp_call", "mcp_approval_request"], ["mcp_call", "message"]]
        assert result["call"]["approval_request_id"] == result["asked"]["id"]
        assert (result["text"], result["again"]) == ("Done.", 409)
    assert (approved["call"]["status"], approved["call"]["output"]) == ("completed", "paid 7")
    assert denied["call"]["status"] == "failed"
    assert desk.paid == [7]
    assert model.results() == ["the call was denied: too much"]
