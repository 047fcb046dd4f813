"""The gateway in this process, over the mock upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock import Fault, Mock
from gai_fast.errors import Error, InvalidRequest, Network, NotFound
from gai_fast.gateway import Gateway, Task
from gai_fast.server.config import ConfigError
from gai_fast.settings import ModelSettings, Settings, UpstreamSettings

QUERY = {"query": "Tell me a story"}


def settings_for(mock: Mock) -> Settings:
    upstream = UpstreamSettings("up", "openai-compatible", f"{mock.url}/v1")
    return Settings(upstreams={"up": upstream}, models={"m": ModelSettings("m", upstream, "mock")})


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with asyncio.timeout(20), Mock(deltas=8) as mock:
        yield mock


@pytest.fixture
async def gateway(mock: Mock) -> AsyncIterator[Gateway]:
    async with Gateway(settings_for(mock)) as gateway:
        yield gateway


class TestStream:
    async def test_events_come_in_order_and_numbered(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
        types = [event["type"] for event in events]
        assert types == ["start", *["text.delta"] * 8, "finish", "done"]
        assert [event["seq"] for event in events[:-1]] == list(range(1, 11))
        assert events[0]["stream_id"] == stream.id
        assert events[-1] == {"type": "done", "finished": True}

    async def test_the_result_of_a_stream_that_nobody_read(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            result = await stream.result()
        assert result.text
        assert result.finish_reason == "stop"

    async def test_the_result_holds_what_was_read_before(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            async for event in stream:
                if event["type"] == "text.delta":
                    break
            result = await stream.result()
        async with gateway.stream(QUERY) as stream:
            assert await stream.result() == result

    async def test_leaving_it_closes_the_upstream(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with gateway.stream(QUERY) as stream:
            await anext(stream)
        await asyncio.wait_for(mock.requests[0].closed.wait(), 5)
        assert [event["type"] async for event in stream][-1:] != ["done"]

    async def test_cancel_ends_it_with_what_was_used(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with gateway.stream(QUERY) as stream:
            await anext(stream)
            await stream.cancel()
            events = [event async for event in stream]
            result = await stream.result()
        assert events[-2]["finish_reason"] == "cancelled"
        assert events[-1] == {"type": "done", "finished": True}
        assert result.usage is not None
        assert result.usage["source"] == "partial"

    async def test_a_program_that_does_not_read_stops_the_upstream(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas = 1_000_000
        async with gateway.stream(QUERY) as stream:
            before, now = -1, 0
            while before != now or not now:
                await asyncio.sleep(0.1)
                before, now = now, mock.requests[0].deltas if mock.requests else 0
            assert now < 500_000
            while mock.requests[0].deltas == now:  # what the kernel holds is read first
                await anext(stream)

    async def test_what_fails_is_an_event_and_raised_by_the_result(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("cut", 3)
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
            with pytest.raises(Error) as failure:
                await stream.result()
        assert [event["type"] for event in events][-2:] == ["error", "done"]
        assert failure.value.code == events[-2]["error"]["code"] == "network"

    async def test_a_failure_before_the_first_event_is_one_too(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("429")
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
        assert [event["type"] for event in events] == ["error", "done"]
        assert events[0]["error"]["code"] == "rate_limited"

    @pytest.mark.parametrize(
        ("request_", "problem", "named"),
        [
            ({"query": 1}, InvalidRequest, "query"),
            ({}, InvalidRequest, "messages"),
            ({"query": "a", "nonsense": 1}, InvalidRequest, "nonsense"),
            ({"query": "a", "model": "other"}, NotFound, "other"),
        ],
    )
    async def test_a_request_that_cannot_be_made_is_raised(
        self, gateway: Gateway, request_: dict[str, Any], problem: type[Error], named: str
    ) -> None:
        with pytest.raises(problem, match=named):
            async with gateway.stream(request_):
                pass

    async def test_it_is_followed_once(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            await stream.result()
        with pytest.raises(RuntimeError, match="once"):
            async with stream:
                pass

    async def test_it_must_be_open(self, gateway: Gateway) -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await anext(gateway.stream(QUERY))


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


class TestGateway:
    async def test_it_must_be_open(self, mock: Mock) -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await Gateway(settings_for(mock)).ask("Hi")

    async def test_closing_it_ends_its_streams(self, mock: Mock) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with Gateway(settings_for(mock)) as gateway:
            stream = gateway.stream(QUERY)
            await stream.__aenter__()
            await anext(stream)
        events = [event async for event in stream]
        assert events[-2]["error"]["reason"] == "shutdown"

    async def test_a_configuration_file(self, mock: Mock, tmp_path: Path) -> None:
        file = tmp_path / "gai-fast.toml"
        file.write_text(
            f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{mock.url}/v1"\n'
            '[[model]]\nname = "m"\nupstream = "up"\n'
        )
        async with Gateway.from_config(file) as gateway:
            assert (await gateway.ask("Hi")).text

    async def test_a_configuration_that_cannot_be_used(self, tmp_path: Path) -> None:
        file = tmp_path / "gai-fast.toml"
        file.write_text("[server]\nprot = 1\n")
        with pytest.raises(ConfigError, match="port"):
            Gateway.from_config(file)
