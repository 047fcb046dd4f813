"""Tools of the gateway that an upstream refuses: the requests that go without them, and whose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.providers import get_provider
from tests.integration.gateway import Gateway, M, Net, Peer, Response, on_uvloop
from tests.integration.test_shared_state import HOSTILE, OTHER
from tests.integration.tool_runs import Model, function_tool, gateway_of

KEYS = tuple(
    KeySettings(name, (key_digest(secret),), tools=("*",))
    for name, secret in (("hostile", HOSTILE), ("other", OTHER), ("third", "sk-third-0123456789"))
)
THIRD = "sk-third-0123456789"


def good(city: str) -> str:
    """Fine."""
    return city


def bad(city: str) -> str:
    """Refused."""
    return city


def worse(city: str) -> str:
    """Refused too."""
    return city


class Refusing(Model):
    """A model whose provider refuses tools by their place, or everything."""

    def __init__(self, *refused: str, refuses_all: bool = False) -> None:
        super().__init__(["Hello"])
        self.refused = refused
        self.refuses_all = refuses_all

    def offered(self, request: int = -1) -> list[str]:
        return [tool["function"]["name"] for tool in self.asked[request].get("tools", ())]

    async def handle(self, peer: Peer) -> None:
        while True:
            self.asked.append(json.loads(await peer.request()))
            at = next((at for at, name in enumerate(self.offered()) if name in self.refused), None)
            if at is None and not self.refuses_all:
                await self._answer(peer, self.turns[0], 0)
                continue
            path = "messages" if at is None else f"tools[{at}].function.parameters"
            error = {"message": f"Invalid schema at {path}.", "type": "invalid_request_error", "param": path}
            if self.refuses_all and at is None:
                error["message"] = "Invalid messages."
            await peer.answer(
                "400 Bad Request", json.dumps({"error": error}).encode(), "Content-Type: application/json"
            )


async def ask(gateway: Gateway, secret: str, **more: Any) -> Response:
    headers = {"authorization": f"Bearer {secret}"}
    return await gateway.ask("POST", "/api/v1/stream", {**M, **more}, headers)


@on_uvloop
async def test_a_request_is_sent_once_more_without_a_tool_of_the_gateway_that_is_refused(net: Net) -> None:
    model = Refusing("bad")
    gateway = await gateway_of(net, model, *map(function_tool, (bad, good)), of_gateway={"keys": KEYS})
    assert (await ask(gateway, HOSTILE)).text == "Hello"
    assert [model.offered(at) for at in range(len(model.asked))] == [["bad", "good"], ["good"]]
    assert (await ask(gateway, HOSTILE)).text == "Hello"
    assert (len(model.asked), model.offered()) == (3, ["good"]), "it is remembered"
    assert (net.warned("sent once more without bad"), net.warned("left out for an hour of 'hostile': bad")) == (1, 1)


@on_uvloop
async def test_a_refused_tool_is_left_out_for_its_caller_and_for_all_after_two(net: Net) -> None:
    model = Refusing("bad")
    gateway = await gateway_of(net, model, *map(function_tool, (bad, good)), of_gateway={"keys": KEYS})
    seen: list[int] = []
    for secret in (HOSTILE, HOSTILE, OTHER, OTHER, THIRD):
        former = len(model.asked)
        assert (await ask(gateway, secret)).text == "Hello"
        seen.append(len(model.asked) - former)
    assert seen == [2, 1, 2, 1, 1]
    assert net.warned("refuses tools of the gateway") == 4


@on_uvloop
async def test_several_tools_are_left_out_one_after_the_other(net: Net) -> None:
    model = Refusing("bad", "worse")
    gateway = await gateway_of(net, model, *map(function_tool, (bad, good, worse)), of_gateway={"keys": KEYS})
    assert (await ask(gateway, HOSTILE)).text == "Hello"
    assert model.offered() == ["good"]
    assert net.warned("refuses tools of the gateway") == 3


@on_uvloop
async def test_a_tool_is_not_remembered_if_the_request_is_refused_without_it_too(net: Net) -> None:
    model = Refusing("bad", refuses_all=True)
    gateway = await gateway_of(net, model, *map(function_tool, (bad, good)), of_gateway={"keys": KEYS})
    assert (await ask(gateway, HOSTILE)).status == 400
    model.refuses_all, model.refused = False, ()
    assert (await ask(gateway, HOSTILE)).text == "Hello"
    assert model.offered() == ["bad", "good"]
    assert net.warned("refuses tools of the gateway") == 1


@on_uvloop
async def test_a_tool_of_the_caller_stays(net: Net) -> None:
    model = Refusing("mine")
    gateway = await gateway_of(net, model, function_tool(good), of_gateway={"keys": KEYS})
    mine = {"name": "mine", "parameters": {"type": "object"}}
    assert (await ask(gateway, HOSTILE, tools=[mine])).status == 400
    assert len(model.asked) == 1


@on_uvloop
async def test_the_gateways_last_tools_are_left_out_above_the_providers_bound(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(get_provider("openai-compatible")), "most_tools", 2)
    model = Refusing()
    gateway = await gateway_of(net, model, *map(function_tool, (bad, good, worse)), of_gateway={"keys": KEYS})
    mine = {"name": "mine", "parameters": {"type": "object"}}
    assert (await ask(gateway, HOSTILE, tools=[mine])).text == "Hello"
    assert model.offered() == ["mine", "bad"]
    assert net.warned("takes 2 tools of the 4") == 1
