"""The chats of the AI SDK are asked for an approval, and answer in their next request, as their pages do by default."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.integration.gateway import Net, Peer
from tests.integration.test_approval_answers import paying
from tests.integration.test_idempotency import logs
from tests.node.conftest import Run
from tests.waiting import until

VERSIONS = ["6", "7"]
ONE: list[Any] = [["Shall I? ", ("pay", {"euros": 7})], ["Done."]]


def tools_of(message: Any) -> list[Any]:
    return [part for part in message["parts"] if part["type"] == "dynamic-tool"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_approved_call_is_made_once_and_the_next_response_goes_on(run_node: Run, version: str) -> None:
    async with AsyncExitStack() as stack:
        gateway, model, desk = await paying(Net(stack), *ONE)
        job = {"version": version, "url": gateway.url, "answers": [{"approved": True}], "by": "click"}
        (result,) = await run_node("chat_approvals.mjs", [job])
    assert result["error"] is None
    assert result["asked"] == [{"toolName": "pay", "input": {"euros": 7}}]
    assert [each["status"] for each in result["requests"]] == [200, 200]
    first, second = [each["parts"] for each in result["requests"]]
    assert first[-2:] == ["finish-step", "finish"]
    assert second[0] == "start"
    assert "tool-output-available" in second
    assert "tool-input-available" not in second
    [part] = tools_of(result["message"])
    assert (part["state"], part["output"]) == ("output-available", "paid 7")
    assert result["texts"] == ["Shall I? Done."]
    assert (desk.paid, len(model.asked)) == ([7], 2)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_denied_call_is_never_made_and_the_model_reads_why(run_node: Run, version: str) -> None:
    async with AsyncExitStack() as stack:
        gateway, model, desk = await paying(Net(stack), *ONE)
        job = {"version": version, "url": gateway.url, "answers": [{"approved": False, "reason": "too much"}]}
        (result,) = await run_node("chat_approvals.mjs", [{**job, "by": "click", "more": "And?"}])
    assert result["error"] is None
    assert [each["status"] for each in result["requests"]] == [200, 200, 200]
    assert (desk.paid, model.results(1)) == ([], ["the call was denied: too much"])
    assert result["roles"] == ["user", "assistant", "user", "assistant"]
    assert result["texts"] == ["Shall I? Done.", "Done."]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_chat_that_resumes_after_a_decision_elsewhere_goes_on(run_node: Run, version: str) -> None:
    async with AsyncExitStack() as stack:

        async def followed(_: Peer) -> None:
            """Returns once the page is back: of an answer that has ended it would get nothing, as the SDK asks."""
            await until(lambda: any(log.watchers > 1 for log in logs(gateway)))  # one frees the chat at the end

        gateway, _, desk = await paying(Net(stack), ONE[0], [followed, "Done."])
        job = {"version": version, "url": gateway.url, "answers": [{"approved": True}], "by": "post"}
        (result,) = await run_node("chat_approvals.mjs", [job])
    assert result["error"] is None
    [part] = tools_of(result["message"])
    assert (part["state"], part["output"], desk.paid) == ("output-available", "paid 7", [7])
    assert result["texts"][-1] == "Shall I? Done."
