"""`gai_fast/library/asking.py`: an answer as text or as one result, and requests that are built step by step."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.library.asking import Task, asked, event_number
from gai_fast.library.gateway import Gateway
from gai_fast.library.remote import connect
from gai_fast.model.errors import InvalidRequest, Network


class TestAsk:
    async def test_iterated_it_is_the_text(self, gateway: Gateway) -> None:
        pieces = [text async for text in gateway.ask("Why is the sky blue?")]
        assert len(pieces) == 8
        assert "".join(pieces) == (await gateway.ask("Why is the sky blue?")).text

    async def test_fields_beside_the_prompt(self, mock: Mock, gateway: Gateway) -> None:
        await gateway.ask("Hi", temperature=0.5, max_tokens=7)
        assert mock.requests[0].body["temperature"] == 0.5

    async def test_a_failure_is_raised_after_the_text_before_it(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("cut", 3)
        answer = aiter(gateway.ask("Hi"))
        assert all([await anext(answer) for _ in range(3)])
        with pytest.raises(Network):
            await anext(answer)


class TestTask:
    async def test_each_step_sets_a_field(self, mock: Mock, gateway: Gateway) -> None:
        task = gateway.task().system("Be brief.").prompt("Explain recursion").model("m").temperature(0.7).max_tokens(9)
        assert "".join([text async for text in task.stream()]) == (await task.ask()).text
        body = mock.requests[0].body
        assert body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Explain recursion"},
        ]
        assert (body["model"], body["temperature"]) == ("mock", 0.7)

    async def test_a_beginning_can_be_shared(self, mock: Mock, gateway: Gateway) -> None:
        brief = gateway.task().messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
        await brief.prompt("One").ask()
        async with brief.prompt("Two").events() as stream:
            await stream.result()
        assert [request.body["messages"][-1]["content"] for request in mock.requests] == ["One", "Two"]

    async def test_an_unknown_field_is_refused_at_once(self, gateway: Gateway) -> None:
        with pytest.raises(TypeError, match="nonsense"):
            Task(gateway, {}).set(nonsense=1)


@pytest.mark.parametrize(
    ("fields", "member"),
    [
        ({"temperature": float("nan")}, r"\$\.temperature: NaN and Infinity are not JSON"),
        ({"metadata": {"a": [1, float("inf")]}}, r"\$\.metadata\.a\[1\]: NaN and Infinity are not JSON"),
        ({"metadata": {"a": object()}}, r"\$\.metadata\.a: object is not a JSON type"),
    ],
)
@pytest.mark.parametrize("is_remote", [False, True])
async def test_a_value_that_is_no_json_is_an_invalid_request_that_names_its_member(
    gateway: Gateway, fields: dict[str, Any], member: str, is_remote: bool
) -> None:
    """It is a `ValueError`, too. No server is asked."""
    asking = connect("http://127.0.0.1:9") if is_remote else gateway
    async with contextlib.AsyncExitStack() as stack:
        if is_remote:
            await stack.enter_async_context(asking)
        with pytest.raises(InvalidRequest, match=f"The request is not valid: {member}") as refused:
            await asking.ask("Hi", **fields)
    assert isinstance(refused.value, ValueError)
    assert (refused.value.code, refused.value.reason) == ("invalid_request", "validation")


def test_a_prompt_is_a_request() -> None:
    assert asked("Hi", {"model": "m"}) == {"query": "Hi", "model": "m"}
    assert asked({"query": "Hi", "seed": 1}, {"seed": 2}) == {"query": "Hi", "seed": 2}
    with pytest.raises(TypeError, match="this is int"):
        asked(3, {})


@pytest.mark.parametrize(("after", "seq"), [(None, 0), (0, 0), (7, 7), ("s.7", 7)])
def test_a_place_is_a_number_or_an_id(after: Any, seq: int) -> None:
    assert event_number("s", after) == seq


@pytest.mark.parametrize("after", [-1, True, 1.5, "7", "t.7", "s.", "s.-1", f"s.{'9' * 16}"])
def test_what_is_no_place_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="must be the `seq`"):
        event_number("s", after)
