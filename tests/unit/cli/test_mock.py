"""`cli/mock.py`: what it notes of a request. `integration/test_mock.py` has its answers and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gai_fast.cli.dialects.openai import OpenAIAnswer
from gai_fast.cli.mock import Fault, Mock

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/chat/completions"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_the_end_of_a_connection_closes_all_its_requests(http: aiohttp.ClientSession) -> None:
    async with Mock(deltas=1) as mock:
        for _ in range(2):
            async with http.post(mock.url + PATH, json=BODY) as response:
                await response.read()
        assert mock.connections == 1
        first, second = mock.requests
        assert first.answered_at is not None
        assert not first.closed.is_set()
        await http.close()
        async with asyncio.timeout(5):
            await first.closed.wait()
            await second.closed.wait()
        assert first.closed_at is not None
        assert first.closed_at >= first.answered_at


async def test_a_stop_closes_what_is_stalled(http: aiohttp.ClientSession) -> None:
    async with Mock(fault=Fault("stall", 1)) as mock:
        response = await http.post(mock.url + PATH, json=BODY)
        await response.content.readuntil(b'"Once"')
    async with asyncio.timeout(5):
        await mock.requests[0].closed.wait()
    assert (mock.requests[0].answered_at, mock.requests[0].deltas) == (None, 1)
    response.close()


async def test_the_fault_of_the_next_request_can_be_changed_while_it_runs(http: aiohttp.ClientSession) -> None:
    async with Mock(deltas=1) as mock:
        mock.fault = Fault("refuse")
        with pytest.raises(aiohttp.ClientOSError):
            await http.post(mock.url + PATH, json=BODY)
        mock.fault = Fault("503")
        async with http.post(mock.url + PATH, json=BODY) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        mock.fault = None
        async with http.post(mock.url + PATH, json=BODY) as response:
            assert response.status == 200


async def test_a_dialect_can_be_replaced_while_it_runs(http: aiohttp.ClientSession) -> None:
    class Demanding(OpenAIAnswer):
        required = ("seed",)

    async with Mock() as mock:
        mock.dialects["openai"] = Demanding
        async with http.post(mock.url + PATH, json=BODY) as response:
            assert (await response.json())["error"]["message"] == "The request is not valid: seed missing"


async def test_what_is_of_no_dialect_is_not_found_and_noted_too(http: aiohttp.ClientSession) -> None:
    async with Mock() as mock:
        for method, path in (("GET", PATH), ("POST", "/v1/embeddings"), ("DELETE", "/")):
            async with http.request(method, mock.url + path, data=b"\xff") as response:
                error = (await response.json())["error"]
                assert (response.status, error["message"]) == (404, f"The mock does not answer {method} {path}")
        assert [(request.method, request.path, request.raw, request.body) for request in mock.requests] == [
            ("GET", PATH, b"\xff", None),
            ("POST", "/v1/embeddings", b"\xff", None),
            ("DELETE", "/", b"\xff", None),
        ]
