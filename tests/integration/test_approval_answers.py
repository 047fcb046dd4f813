"""Approvals in the Responses dialect: a response asks, and the next request answers."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import openai
import pytest
from agents import Agent, HostedMCPTool, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses.response_output_item import McpApprovalRequest, McpCall

from gai_fast.model.settings import RunSettings
from gai_fast.net.runs.records.records import RunRecords
from gai_fast.stores.backend import StoreError
from tests.integration.asked_approvals import KEYS, as_key
from tests.integration.gateway import Gateway, Net, on_both_loops, on_uvloop
from tests.integration.test_openai_sdk import client_of
from tests.integration.test_responses_socket import turn
from tests.integration.tool_runs import Model, function_tool, gateway_of
from tests.integration.websocket import connect
from tests.waiting import until, until_answered

TOOLS: Any = [{"type": "mcp", "server_label": "gateway"}]
PAY = {"euros": 7}


class Desk:
    """The tools, and what they were called with."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.keys: list[str] = []

    def tools(self) -> list[Any]:
        def pay(euros: int) -> str:
            """Pays."""
            self.paid.append(euros)
            return f"paid {euros}"

        def weather(city: str) -> str:
            """The weather of a city."""
            return f"{city}: 4"

        return [function_tool(pay, approve=True), function_tool(weather, idempotent=True)]


def answer(request: Any, approve: bool = True, **more: Any) -> dict[str, Any]:
    identifier = request if isinstance(request, str) else request.id
    return {"type": "mcp_approval_response", "approval_request_id": identifier, "approve": approve, **more}


def requests_of(response: OpenAIResponse) -> list[McpApprovalRequest]:
    return [item for item in response.output if isinstance(item, McpApprovalRequest)]


def calls_of(response: OpenAIResponse) -> list[McpCall]:
    return [item for item in response.output if isinstance(item, McpCall)]


async def paying(net: Net, *turns: Any, **options: Any) -> tuple[Gateway, Model, Desk]:
    desk, model = Desk(), Model(*(turns or (["Shall I? ", ("pay", PAY)], ["Done."])))
    return await gateway_of(net, model, *desk.tools(), **options), model, desk


async def ask(client: openai.AsyncOpenAI, is_stream: bool, **given: Any) -> OpenAIResponse:
    """Asks, as a stream or not. Checks that the items of the events are those of the response."""
    given = {"model": "m", "tools": TOOLS, **given}
    if not is_stream:
        return await client.responses.create(**given)
    done: dict[int, Any] = {}
    async with client.responses.stream(**given) as stream:
        async for event in stream:
            if event.type == "response.output_item.done":
                done[event.output_index] = event.item
        response = await stream.get_final_response()
    ended = [done[at] for at in sorted(done)]
    assert [(each.id, each.type) for each in ended] == [(each.id, each.type) for each in response.output]
    return response


@pytest.mark.parametrize("is_stream", [True, False])
@on_both_loops
async def test_an_approved_call_is_made_by_the_next_request(net: Net, is_stream: bool) -> None:
    gateway, model, desk = await paying(net)
    client = client_of(net, gateway)
    first = await ask(client, is_stream, input="Pay")
    assert (first.status, desk.paid, len(model.asked)) == ("completed", [], 1)
    [request] = requests_of(first)
    assert first.output[-1] is request
    assert (request.server_label, request.name, request.arguments) == ("gateway", "pay", '{"euros":7}')
    second = await ask(client, is_stream, input=[answer(request)], previous_response_id=first.id)
    assert (second.status, second.output_text, desk.paid) == ("completed", "Done.", [7])
    [call] = calls_of(second)
    assert (call.approval_request_id, call.output, call.status) == (request.id, "paid 7", "completed")
    roles = [message["role"] for message in model.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert model.results() == ["paid 7"]
    third = await ask(client, is_stream, input="And?", previous_response_id=second.id)
    assert third.output_text == "Done."
    assert model.results() == ["paid 7"]
    assert desk.paid == [7]


@pytest.mark.parametrize("is_stream", [True, False])
@on_both_loops
async def test_a_denied_call_is_an_error_that_the_model_reads(net: Net, is_stream: bool) -> None:
    gateway, model, desk = await paying(net)
    client = client_of(net, gateway)
    first = await ask(client, is_stream, input="Pay", store=False)
    [request] = requests_of(first)
    history: list[Any] = [{"role": "user", "content": "Pay"}, *(item.to_dict() for item in first.output)]
    history.append(answer(request, approve=False, reason="too much"))
    second = await ask(client, is_stream, input=history, store=False)
    assert (second.output_text, desk.paid) == ("Done.", [])
    assert model.results() == ["the call was denied: too much"]
    [call] = calls_of(second)
    assert (call.approval_request_id, call.status) == (request.id, "failed")
    history += [item.to_dict() for item in second.output]
    third = await ask(client, is_stream, input=[*history, {"role": "user", "content": "And?"}], store=False)
    assert third.output_text == "Done."
    assert model.results() == ["the call was denied: too much"]


@on_uvloop
async def test_of_two_calls_one_is_decided_then_the_other(net: Net) -> None:
    gateway, model, desk = await paying(
        net, [("pay", {"euros": 1}), ("weather", {"city": "Oslo"}), ("pay", {"euros": 2})], ["Done."]
    )
    client = client_of(net, gateway)
    first = await ask(client, True, input="Pay")
    assert [item.type for item in first.output[-2:]] == ["mcp_approval_request"] * 2
    one, two = requests_of(first)
    assert [call.output for call in calls_of(first)] == [None, "Oslo: 4", None]
    second = await ask(client, True, input=[answer(two)], previous_response_id=first.id)
    assert desk.paid == [2]
    assert sorted(model.results()) == ["Oslo: 4", "paid 2"]
    await ask(client, True, input=[answer(one)], previous_response_id=second.id)
    assert desk.paid == [2, 1]
    assert sorted(model.results()) == ["Oslo: 4", "paid 1", "paid 2"]
    assert len(model.asked) == 3


@on_uvloop
async def test_a_call_of_the_client_stands_beside_one_that_waits(net: Net) -> None:
    gateway, model, desk = await paying(net, [("show", {}), ("pay", PAY)], ["Done."])
    client = client_of(net, gateway)
    tools = [*TOOLS, {"type": "function", "name": "show", "parameters": {"type": "object", "properties": {}}}]
    first = await ask(client, True, input="Pay", tools=tools)
    [own] = [item for item in first.output if item.type == "function_call"]
    [request] = requests_of(first)
    shown = {"type": "function_call_output", "call_id": own.call_id, "output": "shown"}
    second = await ask(client, True, input=[shown, answer(request)], previous_response_id=first.id, tools=tools)
    assert (second.output_text, desk.paid) == ("Done.", [7])
    assert sorted(model.results()) == ["paid 7", "shown"]


async def refusal_of(client: openai.AsyncOpenAI, **given: Any) -> str:
    """Returns the message of a refusal."""
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client, False, **given)
    error: Any = refused.value.body
    assert error["code"] == "invalid_request"
    return str(error["message"])


@on_uvloop
async def test_a_call_is_decided_once(net: Net) -> None:
    gateway, _, desk = await paying(net)
    client = client_of(net, gateway)
    first = await ask(client, False, input="Pay")
    [request] = requests_of(first)
    given: Any = {"input": [answer(request)], "previous_response_id": first.id}
    tries = await asyncio.gather(*[ask(client, False, **given) for _ in range(4)], return_exceptions=True)
    lost = [each for each in tries if isinstance(each, openai.ConflictError)]
    assert (len(lost), len(tries), desk.paid) == (3, 4, [7])
    given["input"] = [answer(request, approve=False)]
    with pytest.raises(openai.ConflictError):
        await ask(client, False, **given)
    assert desk.paid == [7]


@on_uvloop
async def test_a_repeated_request_gets_the_answer_of_the_first(net: Net) -> None:
    gateway, _, desk = await paying(net)
    client = client_of(net, gateway)
    first = await ask(client, False, input="Pay")
    [request] = requests_of(first)
    given: Any = {"input": [answer(request)], "previous_response_id": first.id}
    again = [
        await ask(client, is_stream, **given, extra_headers={"idempotency-key": f"k{is_stream}"})
        for is_stream in (True, True)
    ]
    assert [each.output_text for each in again] == ["Done.", "Done."]
    assert again[0].id == again[1].id
    assert desk.paid == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": '{"euros":700}'}, "names another call"),
        ({"arguments": '{"euros": 7}'}, "names another call"),
        ({"name": "weather"}, "names another call"),
        ({"server_label": "docs"}, "names another call"),
        ({"server_label": None}, "names another call"),
        ({"id": "x"}, "is missing"),
        (None, "is missing"),
    ],
)
@on_uvloop
async def test_a_changed_call_is_not_made(net: Net, changes: dict[str, Any] | None, message: str) -> None:
    gateway, _, desk = await paying(net)
    client = client_of(net, gateway)
    [request] = requests_of(await ask(client, False, input="Pay"))
    shown: Any = [] if changes is None else [{**request.to_dict(), **changes}]
    said: Any = {"role": "user", "content": "Pay"}
    assert message in await refusal_of(client, input=[said, *shown, answer(request)])
    assert desk.paid == []
    assert (await ask(client, False, input=[said, request.to_dict(), answer(request)])).output_text == "Done."
    assert desk.paid == [7]


@on_uvloop
async def test_what_is_unknown_or_not_valid_is_refused(net: Net) -> None:
    gateway, _, desk = await paying(net)
    client = client_of(net, gateway)
    first = await ask(client, False, input="Pay")
    [request] = requests_of(first)
    unknown = "no response of yours has asked"
    for given, message in (
        ([answer("mcpr_1")], unknown),
        ([answer(f"{request.id}9")], unknown),
        ([answer(f"{request.id}/0")], unknown),
        ([answer("list/0")], unknown),
        ([answer("x" * 100_000)], unknown),
        ([answer(request), answer(request)], "twice"),
        ([answer(f"{request.id}{at}") for at in range(129)], "more than 128"),
        ([{**answer(request), "approve": "yes"}], "true or false"),
        ([{**answer(request), "approval_request_id": 1}], "true or false"),
        ([answer(request, reason="x" * 1001)], "1000 characters"),
        ([answer(request, reason=1)], "a text"),
    ):
        assert message in await refusal_of(client, input=given, previous_response_id=first.id)
    answered: Any = {"input": [answer(request)], "previous_response_id": first.id}
    assert "name the tools" in await refusal_of(client, **answered, tools=[])
    assert "may use" in await refusal_of(client, **answered, tools=[{**TOOLS[0], "allowed_tools": ["weather"]}])
    assert desk.paid == []
    await ask(client, False, **answered)
    assert desk.paid == [7]


@on_uvloop
async def test_only_its_caller_decides(net: Net) -> None:
    keys = tuple(dataclasses.replace(key, tools=("*",)) for key in KEYS)
    gateway, _, desk = await paying(net, of_gateway={"keys": keys})
    asked = {"model": "m", "input": "Pay", "tools": TOOLS}
    first = await gateway.ask("POST", "/v1/responses", asked, as_key("alice"))
    assert first.status == 200, first.json
    request = first.json["output"][-1]
    given = [{"role": "user", "content": "Pay"}, request, answer(request["id"])]
    for name in ("bob", "operator"):
        refused = await gateway.ask("POST", "/v1/responses", {**asked, "input": given}, as_key(name))
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
    listed = await gateway.ask("GET", "/admin/v1/approvals", None, as_key("operator"))
    assert listed.json["total"] == 0
    stream_id, _, _ = request["id"].rpartition("-")
    path = f"/api/v1/streams/{stream_id}/approvals/{request['id']}"
    native = await gateway.ask("POST", path, {"decision": "approve", "digest": "0"}, as_key("alice"))
    assert native.status == 404
    made = await gateway.ask("POST", "/v1/responses", {**asked, "input": given}, as_key("alice"))
    assert made.status == 200
    assert desk.paid == [7]


@on_uvloop
async def test_after_its_time_a_call_is_denied(net: Net) -> None:
    gateway, model, desk = await paying(net, of_gateway={"runs": RunSettings(approval_ttl=0.05)})
    client = client_of(net, gateway)
    first = await ask(client, False, input="Pay")
    [request] = requests_of(first)
    await asyncio.sleep(0.1)
    second = await ask(client, False, input=[answer(request)], previous_response_id=first.id)
    assert (second.output_text, desk.paid) == ("Done.", [])
    assert model.results() == ["the call was denied: expired"]


@on_uvloop
async def test_the_header_denies(net: Net) -> None:
    gateway, model, desk = await paying(net)
    client = client_of(net, gateway)
    only = await ask(client, False, input="Pay", extra_headers={"x-gai-approvals": "deny"})
    assert (only.output_text[-5:], requests_of(only), desk.paid) == ("Done.", [], [])
    assert model.results() == ["the call needs an approval, and nobody can be asked"]


@on_both_loops
async def test_over_a_websocket_nothing_need_be_kept(net: Net) -> None:
    gateway, model, desk = await paying(net)
    socket = await connect(gateway, None, "/v1/responses")
    events = await turn(socket, tools=TOOLS, store=False)
    response = events[-1]["response"]
    request = response["output"][-1]
    assert (response["status"], request["type"], desk.paid) == ("completed", "mcp_approval_request", [])
    members: Any = {"tools": TOOLS, "store": False, "previous_response_id": response["id"]}
    events = await turn(socket, input=[answer(request["id"])], **members)
    assert desk.paid == [7]
    assert model.results() == ["paid 7"]
    made = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["type"], item.get("approval_request_id")) for item in made][:1] == [("mcp_call", request["id"])]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    again = [{"role": "user", "content": "Pay"}, request, answer(request["id"])]
    events = await turn(socket, input=again, tools=TOOLS, store=False)
    assert (events[-1]["type"], events[-1]["status"]) == ("error", 409)
    assert desk.paid == [7]


@pytest.mark.parametrize("is_approved", [True, False])
@on_uvloop
async def test_openais_agents_ask_a_person(net: Net, is_approved: bool) -> None:
    set_tracing_disabled(True)
    gateway, model, desk = await paying(net)
    asked: list[tuple[str, str]] = []

    def decide(request: Any) -> Any:
        asked.append((request.data.name, request.data.arguments))
        return {"approve": True} if is_approved else {"approve": False, "reason": "too much"}

    hosted = HostedMCPTool(
        tool_config={"type": "mcp", "server_label": "gateway", "require_approval": "always"},
        on_approval_request=decide,
    )
    agent = Agent(name="Payer", model=OpenAIResponsesModel("m", client_of(net, gateway)), tools=[hosted])
    run = Runner.run_streamed(agent, "Pay")
    async for _ in run.stream_events():
        pass
    assert (run.final_output, asked) == ("Done.", [("pay", '{"euros":7}')])
    assert desk.paid == ([7] if is_approved else [])
    assert model.results() == ["paid 7" if is_approved else "the call was denied: too much"]


@on_uvloop
async def test_require_approval_adds_some_and_lifts_none(net: Net) -> None:
    gateway, _, desk = await paying(net, [("weather", {"city": "Oslo"}), ("pay", PAY)], ["Done."])
    client = client_of(net, gateway)
    for required, names in (
        ("never", ["pay"]),
        ("always", ["weather", "pay"]),
        ({"always": {"tool_names": ["weather"]}}, ["weather", "pay"]),
        ({"never": {"tool_names": ["pay"]}}, ["pay"]),
    ):
        response = await ask(client, False, input="Pay", tools=[{**TOOLS[0], "require_approval": required}])
        assert [request.name for request in requests_of(response)] == names
    assert desk.paid == []


@on_uvloop
async def test_what_cannot_be_kept_is_denied(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, model, desk = await paying(net)

    async def fail(*_: Any, **__: Any) -> None:
        raise StoreError("unreachable", "it is gone")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.running.engine.store.records, "swap", fail)
        only = await ask(client_of(net, gateway), True, input="Pay")
    assert (only.output_text[-5:], requests_of(only), desk.paid) == ("Done.", [], [])
    [denied] = model.results()
    assert "could not be kept" in denied
    assert [line.partition(": ")[2].partition(": ")[2] for line in net.logged] == [
        "an approval is not kept: it is gone"
    ]
    net.logged.clear()


@on_uvloop
async def test_of_a_client_that_leaves_before_its_stream_nothing_is_decided(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, _, desk = await paying(net)
    client, records = client_of(net, gateway), gateway.running.engine.store.records
    first = await ask(client, False, input="Pay")
    [request] = requests_of(first)
    swap, begun, go_on = records.swap, asyncio.Event(), asyncio.Event()

    async def late(*given: Any, **more: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await swap(*given, **more)

    given: Any = {"input": [answer(request)], "previous_response_id": first.id}
    with monkeypatch.context() as patched:
        patched.setattr(records, "swap", late)
        left = asyncio.create_task(ask(client, False, **given))
        await begun.wait()
        left.cancel()
        await asyncio.wait([left])
        await until(lambda: not gateway.running.engine.streams)
        await asyncio.sleep(0.05)  # the gateway sees the end of the connection
        go_on.set()
    kept = RunRecords(records, 60.0)

    async def is_open() -> bool:
        found = await kept.left(request.id)
        return found is not None and found[1] is None

    await until_answered(is_open)
    assert desk.paid == []
    assert (await ask(client, False, **given)).output_text == "Done."
    assert desk.paid == [7]
