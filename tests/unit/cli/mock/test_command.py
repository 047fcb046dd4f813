"""`cli/mock/command.py`: what it notes of a request. `integration/test_mock.py` has its answers and its faults."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.cli.mock.dialects.openai import OpenAIAnswer
from tests.waiting import SECONDS

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/chat/completions"


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
        async with asyncio.timeout(SECONDS):
            await first.closed.wait()
            await second.closed.wait()
        assert first.closed_at is not None
        assert first.closed_at >= first.answered_at


async def test_a_stop_closes_what_is_stalled(http: aiohttp.ClientSession) -> None:
    async with Mock(fault=Fault("stall", 1)) as mock:
        response = await http.post(mock.url + PATH, json=BODY)
        await response.content.readuntil(b'"Once"')
    async with asyncio.timeout(SECONDS):
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


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"model":' + b"1" * 5000 + b',"messages":[1]}', 400),
        (b'{"model":"\\ud800","messages":["\\ud800"]}', 200),
        (b'{"model":{"a":NaN},"messages":[1],"max_tokens":true,"stream_options":5}', 200),
    ],
    ids=["deep", "digits", "surrogate", "types"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_any_json_is_answered(http: aiohttp.ClientSession, body: bytes, status: int, stream: bool) -> None:
    if stream:
        body = body.replace(b'"messages"', b'"stream":true,"messages"')
    async with Mock(deltas=1) as mock, http.post(mock.url + PATH, data=body) as response:
        answer = await response.text()
    assert response.status == status
    assert answer.endswith("data: [DONE]\n\n" if stream and status == 200 else "}")


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks() -> None:
    body = json.dumps(BODY).encode()
    async with Mock(deltas=1) as mock:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(mock.url.rpartition(":")[2]))
        writer.write(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (PATH.encode(), len(body), body))
        async with asyncio.timeout(SECONDS):
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.startswith(b"data: {")
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_mock_that_keeps_no_requests_numbers_its_answers_all_the_same(http: aiohttp.ClientSession) -> None:
    ids = []
    async with Mock(deltas=1, keeps_requests=False) as mock:
        for _ in range(2):
            async with http.post(mock.url + PATH, json={**BODY, "stream": False}) as response:
                ids.append((await response.json())["id"])
        assert mock.requests == []
    assert ids == ["chatcmpl-mock-1", "chatcmpl-mock-2"]
