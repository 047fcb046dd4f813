"""Requests to a server: what it refuses, and what no gateway would say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gai_fast.cli import Failure
from gai_fast.cli.keys.server_key import at_server
from gai_fast.model.settings import Secret
from tests.ports import free_port

HEAD = "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"


@contextmanager
def answering(status: int, body: str) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything with this, in a thread of its own; its URL, and the requests that it gets."""
    asked: list[str] = []
    port = free_port()
    loop = asyncio.new_event_loop()
    is_up = threading.Event()
    ends = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.read(1 << 16)).decode())
        writer.write((HEAD.format(status=status, length=len(body.encode())) + body).encode())
        await writer.drain()
        writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            is_up.set()
            await ends.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    is_up.wait()
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        loop.close()


def test_the_key_is_sent_and_the_name_is_quoted() -> None:
    with answering(200, '{"name": "a", "revoked": true}') as (url, asked):
        at_server(url, Secret("sk-canary"), lambda client: client.revoke_key("a/b c"))
    assert asked[0].startswith("DELETE /admin/v1/keys/a%2Fb%20c HTTP/1.1\r\n")
    assert "Bearer sk-canary" in asked[0]


def test_a_new_secret_is_returned() -> None:
    with answering(201, '{"name": "a", "secret": "sk-gai-1", "models": []}') as (url, asked):
        made = at_server(url, None, lambda client: client.new_key({"name": "a", "streams": 3}))
    assert (made.name, made.secret) == ("a", "sk-gai-1")
    assert asked[0].endswith('{"name": "a", "streams": 3}')


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (409, '{"error": {"message": "of the file: \\u001b[2J"}}', "(409): of the file: \N{REPLACEMENT CHARACTER}"),
        (401, "{}", "the server needs an admin's key: set GAI_FAST_KEY_API_KEY"),
        (200, "{}", "no gai-fast with an admin API"),
        (200, "[]", "no gai-fast with an admin API"),
        (200, "no JSON", "no gai-fast with an admin API"),
        (200, '{"name": "a", "secret": 3}', "no gai-fast with an admin API"),
        (200, '{"name": "a", "secret": "\\u001b[2J"}', "no gai-fast with an admin API"),
        (302, "", "no gai-fast with an admin API"),
        (500, "<html>", "no gai-fast with an admin API"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_or_no_gateway_says_is_a_failure(status: int, body: str, words: str) -> None:
    with answering(status, body) as (url, _), pytest.raises(Failure) as caught:
        at_server(url, None, lambda client: client.rotate_key("a", 0))
    assert words in caught.value.message
    assert caught.value.message.isprintable()


def test_no_server_is_a_failure() -> None:
    with pytest.raises(Failure, match=r"cannot connect \(.*\): check --server, and that `gai-fast serve` runs there"):
        at_server(f"http://127.0.0.1:{free_port()}", None, lambda client: client.keys())
