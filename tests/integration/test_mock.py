"""`gai-fast mock`: a fake upstream that official SDKs take for the real one, and that fails on demand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.cli.mock.dialects._base import WORDS
from tests.waiting import SECONDS, until

MESSAGES: Any = [{"role": "user", "content": "hi"}]
BODY = {"model": "m", "messages": MESSAGES, "max_tokens": 50}
TEXT = " ".join(WORDS[:8])
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ENDS = {"openai": b"data: [DONE]\n\n", "anthropic": b'data: {"type":"message_stop"}\n\n'}


@dataclass
class Got:
    """The response that a client got."""

    status: int = 0
    kind: str = ""
    body: bytes = b""
    problem: Exception | None = None


async def post(http: aiohttp.ClientSession, url: str, got: Got | None = None, *, stream: bool = True) -> Got:
    got = got or Got()
    try:
        async with http.post(url, json={**BODY, "stream": stream}) as response:
            got.status, got.kind = response.status, response.content_type
            async for data in response.content.iter_any():
                got.body += data
    except (aiohttp.ClientError, OSError, TimeoutError) as problem:
        got.problem = problem
    return got


class TestAsOfficialClientsSeeIt:
    async def test_the_openai_sdk_streams_and_gets_usage(self, mock: Mock) -> None:
        async with openai.AsyncOpenAI(base_url=f"{mock.url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            whole = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2)
            models = await client.models.list()
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 8
        assert whole.choices[0].message.content == " ".join(WORDS[:2])
        assert whole.choices[0].finish_reason == "length"
        assert models.data[0].id == "mock"

    async def test_the_anthropic_sdk_streams_and_gets_usage(self, mock: Mock) -> None:
        async with anthropic.AsyncAnthropic(base_url=mock.url, api_key="k", max_retries=0) as client:
            async with client.messages.stream(model="m", max_tokens=50, messages=MESSAGES) as stream:
                streamed = await stream.get_final_message()
            whole = await client.messages.create(model="m", max_tokens=2, messages=MESSAGES)
        assert streamed.content[0].type == "text"
        assert streamed.content[0].text == TEXT
        assert (streamed.stop_reason, streamed.usage.output_tokens) == ("end_turn", 8)
        assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 2)

    async def test_paths_work_without_v1_and_below_a_prefix(self, mock: Mock, http: aiohttp.ClientSession) -> None:
        for path in ("/chat/completions", "/openai/v1/chat/completions", "/messages", "/v1/messages?beta=true"):
            assert (await post(http, mock.url + path)).status == 200

    async def test_a_chosen_dialect_is_the_only_one(self, http: aiohttp.ClientSession) -> None:
        async with Mock(dialect="anthropic") as mock:
            assert (await post(http, mock.url + PATHS["anthropic"])).status == 200
            assert (await post(http, mock.url + PATHS["openai"])).status == 404

    @pytest.mark.parametrize("path", PATHS.values())
    async def test_a_request_without_what_it_needs_is_refused(
        self, mock: Mock, http: aiohttp.ClientSession, path: str
    ) -> None:
        for body in (b"", b"[]", b'{"model": "m"}', b'{"messages": []}'):
            async with http.post(mock.url + path, data=body) as response:
                assert response.status == 400
                assert "missing" in (await response.json())["error"]["message"]

    async def test_requests_are_recorded_as_they_came(self, mock: Mock, http: aiohttp.ClientSession) -> None:
        async with http.post(mock.url + "/v1/messages?a=b", json=BODY, headers={"X-API-Key": "k"}) as response:
            await response.read()
        [request] = mock.requests
        assert (request.method, request.path, request.body) == ("POST", "/v1/messages", BODY)
        assert request.headers["x-api-key"] == "k"
        assert json.loads(request.raw) == BODY
        assert request.answered_at is not None
        assert not request.closed.is_set()

    async def test_one_connection_takes_many_requests(self, mock: Mock, http: aiohttp.ClientSession) -> None:
        for _ in range(3):
            assert (await post(http, mock.url + PATHS["openai"])).body.endswith(ENDS["openai"])
        assert mock.connections == 1

    @pytest.mark.parametrize("stream", [True, False])
    async def test_an_answer_takes_its_time(self, http: aiohttp.ClientSession, stream: bool) -> None:
        async with Mock(deltas=8, ttft=0.1, rate=100) as mock:
            await post(http, mock.url + PATHS["openai"], stream=stream)
        [request] = mock.requests
        assert request.answered_at is not None
        assert request.answered_at - request.at >= 0.1 + 7 / 100

    async def test_a_client_that_leaves_is_seen_at_once(self, http: aiohttp.ClientSession) -> None:
        async with Mock(deltas=10_000, rate=100) as mock:
            async with http.post(mock.url + PATHS["openai"], json={**BODY, "stream": True, "max_tokens": 9999}) as got:
                await got.content.read(1)
                got.close()
            [request] = mock.requests
            await asyncio.wait_for(request.closed.wait(), SECONDS)
            assert request.closed_at is not None
            assert request.answered_at is None
            assert 0 < request.deltas < 9999


@pytest.mark.parametrize("dialect", PATHS)
class TestFaults:
    async def get(self, http: aiohttp.ClientSession, dialect: str, fault: str, *, stream: bool = True) -> Got:
        async with Mock(deltas=8, fault=Fault.parse(fault)) as mock:
            got = await post(http, mock.url + PATHS[dialect], stream=stream)
            self.requests = mock.requests
            return got

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_a_status_is_that_status_with_an_error(
        self, http: aiohttp.ClientSession, dialect: str, status: int, stream: bool
    ) -> None:
        got = await self.get(http, dialect, str(status), stream=stream)
        assert (got.status, got.kind) == (status, "application/json")
        assert json.loads(got.body)["error"]["message"]

    async def test_html_and_json_error_come_with_status_200(self, http: aiohttp.ClientSession, dialect: str) -> None:
        html = await self.get(http, dialect, "html")
        assert (html.status, html.kind) == (200, "text/html")
        error = await self.get(http, dialect, "json-error")
        assert (error.status, error.kind) == (200, "application/json")
        assert json.loads(error.body)["error"]["message"]

    async def test_refuse_refuses_the_connection(self, http: aiohttp.ClientSession, dialect: str) -> None:
        got = await self.get(http, dialect, "refuse")
        assert isinstance(got.problem, aiohttp.ClientConnectorError)
        assert isinstance(got.problem.os_error, ConnectionRefusedError)
        assert not self.requests

    @pytest.mark.parametrize("after", [0, 3])
    async def test_error_event_is_an_error_in_the_stream(
        self, http: aiohttp.ClientSession, dialect: str, after: int
    ) -> None:
        got = await self.get(http, dialect, f"error-event@{after}")
        assert (got.status, got.problem) == (200, None)
        last = got.body.decode().rstrip().splitlines()[-1]
        assert json.loads(last[6:])["error"]["message"]
        assert self.requests[0].deltas == after
        if not after:
            assert got.body.count(b"\n\n") == 1

    @pytest.mark.parametrize("fault", ["429@3", "500@3", "503@3", "html@3", "json-error@3"])
    async def test_what_comes_in_place_of_an_answer_can_come_into_it(
        self, http: aiohttp.ClientSession, dialect: str, fault: str
    ) -> None:
        got = await self.get(http, dialect, fault)
        assert (got.status, got.kind, got.problem) == (200, "text/event-stream", None)
        assert self.requests[0].deltas == 3
        assert ENDS[dialect] not in got.body

    @pytest.mark.parametrize("after", [0, 3])
    async def test_cut_ends_the_connection_without_an_end_mark(
        self, http: aiohttp.ClientSession, dialect: str, after: int
    ) -> None:
        got = await self.get(http, dialect, f"cut@{after}")
        assert isinstance(got.problem, aiohttp.ClientPayloadError)
        assert "reset" not in str(got.problem)
        assert self.requests[0].deltas == after
        assert ENDS[dialect] not in got.body

    @pytest.mark.parametrize("stream", [True, False])
    async def test_reset_is_a_real_reset(self, http: aiohttp.ClientSession, dialect: str, stream: bool) -> None:
        got = await self.get(http, dialect, "reset@3", stream=stream)
        assert "Connection reset by peer" in str(got.problem)
        assert ENDS[dialect] not in got.body

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("fault", ["stall", "stall@3", "silent", "silent@3"])
    async def test_stall_and_silent_keep_the_connection_open(
        self, http: aiohttp.ClientSession, dialect: str, fault: str, stream: bool
    ) -> None:
        async with Mock(deltas=8, fault=Fault.parse(fault)) as mock:
            got = Got()
            asking = asyncio.create_task(post(http, mock.url + PATHS[dialect], got, stream=stream))
            await until(lambda: mock.requests if fault == "silent" else got.status)
            await asyncio.sleep(0.2)
            assert not asking.done()
            assert got.status == (0 if fault == "silent" else 200)
            assert not mock.requests[0].answered_at
            assert not mock.requests[0].closed.is_set()
            asking.cancel()
            await asyncio.wait((asking,))

    @pytest.mark.parametrize("after", [0, 3])
    async def test_malformed_is_one_broken_chunk_beside_a_whole_answer(
        self, http: aiohttp.ClientSession, dialect: str, after: int
    ) -> None:
        broken = (await self.get(http, dialect, f"malformed@{after}")).body
        intact = (await self.get(http, dialect, "malformed@9")).body
        assert broken.endswith(ENDS[dialect])
        left_out = [frame for frame in broken.split(b"\n\n") if frame not in intact.split(b"\n\n")]
        assert len(left_out) == 1
        data = left_out[0].split(b"data: ")[1]
        with pytest.raises(ValueError, match=r"."):
            json.loads(data)

    async def test_a_fault_after_the_end_never_happens(self, http: aiohttp.ClientSession, dialect: str) -> None:
        got = await self.get(http, dialect, "reset@9")
        assert got.problem is None
        assert got.body.endswith(ENDS[dialect])


class TestCommand:
    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GAI_FAST_MOCK")}
        return subprocess.Popen(
            [sys.executable, "-m", "gai_fast", "mock", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_it_prints_one_line_with_its_url_and_stops_on_a_signal(
        self, http: aiohttp.ClientSession, number: signal.Signals
    ) -> None:
        process = self.start("--port", "0", "--rate", "0", "--ttft", "0", "--fail", "cut@2")
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), SECONDS)
            found = re.fullmatch(r"mock upstream on (http://127\.0\.0\.1:\d+)\n", line)
            assert found
            got = await post(http, found[1] + PATHS["openai"])
            assert isinstance(got.problem, aiohttp.ClientPayloadError)
        finally:
            process.send_signal(number)
            output, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, output, errors) == (0, "", "")

    def test_a_port_in_use_is_a_start_up_failure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = self.start("--port", str(port))
            output, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, output) == (3, "")
        assert (
            errors
            == f"error: cannot listen on 127.0.0.1:{port}: in use by another program: choose another with --port\n"
        )

    @pytest.mark.parametrize(
        "arguments", [("--fail", "nope"), ("--dialect", "x"), ("--port", "70000"), ("--rate", "-1")]
    )
    def test_a_wrong_flag_is_a_usage_error(self, arguments: tuple[str, ...]) -> None:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, output) == (2, "")
        assert arguments[0] in errors
