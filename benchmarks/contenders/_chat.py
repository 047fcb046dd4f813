"""Code that the contenders in Python share: reading OpenAI's stream, and their events. orjson is their JSON library.

Every contender that normalizes does the same work: it parses each chunk and sends `text.delta` with a number, then
`finish` with the reason and the usage, then `done`. They differ in how an event becomes bytes on a socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from benchmarks.contenders import CHAT

REQUEST = orjson.dumps(CHAT.body)
JSON = {"content-type": "application/json"}


class ChatReader:
    """OpenAI's chat stream, fed in pieces of any size."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, int] | None = None
        self.is_done = False
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Returns the texts in the bytes of one read."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        texts = []
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                self.is_done = True
                continue
            chunk = orjson.loads(line[6:])
            if "usage" in chunk:
                self.usage = chunk["usage"]
            for choice in chunk["choices"]:
                text = choice["delta"].get("content")
                if text:
                    texts.append(text)
                if choice["finish_reason"]:
                    self.finish_reason = choice["finish_reason"]
        return texts


def delta(seq: int, text: str) -> dict[str, Any]:
    """Returns one piece of text."""
    return {"type": "text.delta", "seq": seq, "text": text}


def ending(seq: int, reader: ChatReader) -> list[dict[str, Any]]:
    """Returns the last two events."""
    finish = {"type": "finish", "seq": seq, "usage": reader.usage, "finish_reason": reader.finish_reason}
    return [finish, {"type": "done", "finished": reader.is_done}]


class Upstream:
    """The provider, asked with aiohttp: the fastest HTTP client of Python in wide use.

    Args:
        url: The URL of the POST.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    def ask(self) -> aiohttp.client._RequestContextManager:
        """Returns one answer, under way."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session.post(self._url, data=REQUEST, headers=JSON)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the events of one answer."""
        reader = ChatReader()
        seq = 0
        async with self.ask() as response:
            async for data in response.content.iter_any():
                for text in reader.feed(data):
                    seq += 1
                    yield delta(seq, text)
        for event in ending(seq + 1, reader):
            yield event


async def from_memory(texts: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Yields the events of an answer that has arrived whole."""
    for seq, text in enumerate(texts, 1):
        yield delta(seq, text)
    reader = ChatReader()
    reader.finish_reason, reader.is_done = "stop", True
    for event in ending(len(texts) + 1, reader):
        yield event


def frame(event: dict[str, Any]) -> bytes:
    """Returns one event as SSE, by hand."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
