"""`AdminClient`: what a server may answer, and what that means in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gai_fast.cli.admin_client import AdminClient, AdminError
from gai_fast.model.settings import Secret
from gai_fast.server.admin.bodies import Sample
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.ports import free_port

SAMPLE: dict[str, Any] = {
    "at": "2026-11-22T12:00:05.123Z",
    "active": 1,
    "streams": [
        {
            **dict.fromkeys(("id", "model", "upstream", "endpoint", "transport", "request_id", "started_at"), "s"),
            "key": "k",
            "duration_ms": 1,
            "ttft_ms": None,
            "deltas": 0,
            "state": "waiting",
            "x": 1,
        }
    ],
    "rates": None,
    "first_token_seconds": [{"le": None, "count": 0}],
    "gap_seconds": [],
    "errors": [],
    "breakers": {},
    "limited": {},
    "memory_bytes": None,
    "spend": None,
    "configuration": None,
}
EVENTS = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(data: Any, name: str = "sample") -> str:
    return f"event: {name}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def answer(status: int, body: str = "") -> str:
    return f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"


@asynccontextmanager
async def answering(
    text: str, key: str | None = None, *, ends: bool = True
) -> AsyncIterator[tuple[AdminClient, list[str]]]:
    """Yields a client of a server that answers everything with this text, and the requests that it gets."""
    asked: list[str] = []
    may_end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.read(LIMITS.admin_body)).decode("latin-1"))
        writer.write(text.encode())
        await writer.drain()
        if not ends:
            await may_end.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AdminClient(url, None if key is None else Secret(key)) as client:
            yield client, asked
        may_end.set()


async def first(client: AdminClient) -> tuple[dict[str, Any], Sample]:
    async with aclosing(client.samples()) as samples:
        async for each in samples:
            return each
    raise AssertionError("there is none")


async def test_figures_come_as_they_are_and_read() -> None:
    async with answering(EVENTS + ": comment\n\n" + event("{}", "other") + event(SAMPLE), "sk-1") as (client, asked):
        raw, sample = await first(client)
    assert raw == SAMPLE
    assert (sample.active, sample.streams[0].key, sample.streams[0].ttft_ms) == (1, "k", None)
    assert asked[0].startswith("GET /admin/v1/events HTTP/1.1\r\n")
    assert "authorization: bearer sk-1\r\n" in asked[0].lower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (answer(401), "the server needs an admin's key: set GAI_FAST_TOP_API_KEY"),
        (answer(403, '{"error": {"message": "no admin"}}'), "the server refuses (403): no admin"),
        (answer(404, "<html>"), "no gai-fast"),
        (answer(503, '{"error": "x"}'), "no gai-fast"),
        (answer(302), "no gai-fast"),
        (answer(200, "{}"), "no gai-fast"),
        (EVENTS + event("{"), "no gai-fast"),
        (EVENTS + event([]), "no gai-fast"),
        (EVENTS + event({**SAMPLE, "active": "many"}), "no gai-fast"),
        (EVENTS + "data: " + "x" * LIMITS.admin_body + "x", "no gai-fast"),
        (EVENTS + event({"error": {"message": "a worker is late"}}, "unavailable"), "a worker is late"),
        (EVENTS + event("", "unavailable"), "the server has no figures now"),
        ("nonsense\r\n\r\n", "cannot be read"),
        ("", "the connection was lost"),
    ],
)
async def test_an_answer_that_is_no_use_has_a_reason(text: str, words: str) -> None:
    async with answering(text) as (client, _):
        with pytest.raises(AdminError) as refused:
            await first(client)
    assert words in str(refused.value)


async def test_a_key_that_is_not_known_is_not_repeated() -> None:
    async with answering(answer(401), "sk-secret") as (client, _):
        with pytest.raises(AdminError, match="does not know this key") as refused:
            await client.cancel("s")
    assert "sk-secret" not in str(refused.value) + repr(vars(client))


async def test_why_a_key_is_refused_is_said() -> None:
    expired = answer(401, '{"error": {"message": "this key has expired"}}')
    async with answering(expired, "sk-1") as (client, _):
        with pytest.raises(AdminError, match="this key has expired; set GAI_FAST_TOP_API_KEY"):
            await first(client)


async def test_a_server_that_says_nothing_is_given_up(change_limits: ChangeLimits) -> None:
    change_limits(admin_wait=0.05)
    for ask in (first, lambda client: client.cancel("s")):
        async with answering("", ends=False) as (client, _):
            with pytest.raises(AdminError, match=r"no answer within 0\.05 s"):
                await ask(client)


async def test_nobody_there_and_a_server_without_tls_are_told_apart() -> None:
    async with AdminClient(f"http://127.0.0.1:{free_port()}", None) as client:
        with pytest.raises(AdminError, match="cannot connect"):
            await first(client)
    async with (
        answering("plain text") as (client, _),
        AdminClient(client.url.replace("http:", "https:"), None) as over_tls,
    ):
        with pytest.raises(AdminError, match="no TLS is spoken there"):
            await first(over_tls)


async def test_an_error_that_is_too_long_is_none() -> None:
    body = '{"error": {"message": "' + "x" * LIMITS.admin_body + '"}}'
    async with answering(answer(404, body)) as (client, _):
        with pytest.raises(AdminError, match="no gai-fast"):
            await client.cancel("s")


async def test_an_id_of_a_stream_stays_one_part_of_the_path() -> None:
    async with answering(answer(202)) as (client, asked):
        await client.cancel("../reload?x#y")
    assert asked[0].startswith("DELETE /admin/v1/streams/..%2Freload%3Fx%23y HTTP/1.1\r\n")
