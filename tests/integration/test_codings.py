"""`Content-Encoding` of an upstream: what is no coding is none, what is one is refused."""

from __future__ import annotations

import pytest

from tests.integration.gateway import CHAT, DONE, FINISH, LAST_CHUNK, NATIVE, OPENAI, M, Net, Peer, delta, on_uvloop
from tests.wire import chunk

NONE = ["none", "", "utf-8", "UTF-8", "8bit", "binary", "aws-chunked", "identity", "identity, identity", "Identity,"]
CODED = ["gzip", "x-gzip", "br", "zstd", "deflate", "compress", "GZIP", "identity, gzip", "aws-chunked, gzip", "dcz"]


async def answered(net: Net, coding: str, path: str) -> tuple[int, str]:
    async def handler(peer: Peer) -> None:
        await peer.request()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: {coding}\r\n"
        await peer.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        await peer.send(*map(chunk, (delta("Hello"), FINISH, DONE)), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", path, M if path == NATIVE else {**OPENAI, "stream": True})
    return response.status, bytes(response.body).decode()


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("coding", NONE)
@on_uvloop
async def test_a_word_that_is_no_coding_changes_nothing(net: Net, coding: str, path: str) -> None:
    status, body = await answered(net, coding, path)
    assert (status, "Hello" in body) == (200, True)


@pytest.mark.parametrize("coding", CODED)
@on_uvloop
async def test_an_encoded_body_is_refused(net: Net, coding: str) -> None:
    status, body = await answered(net, coding, NATIVE)
    assert (status, "content_encoding" in body) == (503, True)
