"""The upstream of the limited load: each request says what its answer is, so that its caller knows what it has used."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

from gai_fast.cli.mock.dialects import DIALECTS
from tests.wire import chunk

_PLAN: Final = re.compile(rb"plan (\d+) (\d+) (\d+) ([\d.]+) (\w+)")
_KINDS: Final = {b"/v1/chat/completions": "openai", b"/v1/messages": "anthropic"}


class Plan(NamedTuple):
    """One answer.

    Attributes:
        number: The request's own.
        input: Tokens of the prompt, as the upstream counts them.
        deltas: Of text, each of which is one token.
        pace: Seconds between two of them.
        end: `whole`, `status` (an error in place of an answer), `cut` (broken off before the last delta), or `held`
            (its end comes when it is released).
    """

    number: int
    input: int
    deltas: int
    pace: float = 0.0
    end: str = "whole"

    @property
    def text(self) -> str:
        """The prompt that asks for it."""
        return "plan " + " ".join(map(str, self))

    @property
    def seconds(self) -> float:
        """The seconds that the answer takes."""
        return self.pace * max(0, self.deltas - 1)


class Record:
    """The course of one answer.

    Attributes:
        reached: When the request had come.
        finishing: When its end began to be sent, in `time.monotonic()` seconds.
        closed: When its connection was found closed before.
        released: Set when a held answer may end.
    """

    __slots__ = ("closed", "finishing", "reached", "released")

    def __init__(self) -> None:
        self.reached = self.finishing = self.closed = math.inf
        self.released = asyncio.Event()


class Upstream:
    """A server on loopback that speaks the dialects of OpenAI and Anthropic.

    Attributes:
        records: What became of each answer, by its number.
        faults: A line for each connection that this server failed to serve.
    """

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.faults: list[str] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, backlog=1024)

    @property
    def url(self) -> str:
        """The URL, without a path."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def record(self, number: int) -> Record:
        """Returns the record of an answer, asked for or not."""
        return self.records.setdefault(number, Record())

    async def stop(self) -> None:
        """Closes everything."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.faults.append(f"the upstream: {problem!r}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):  # the gateway has closed
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
                body = await reader.readexactly(length)
                found = _PLAN.search(body)
                assert found is not None, body
                number, prompt, deltas = (int(found[place]) for place in (1, 2, 3))
                plan = Plan(number, prompt, deltas, float(found[4]), found[5].decode())
                if not await self._answer(plan, _KINDS[head.split(b" ", 2)[1]], json.loads(body), reader, writer):
                    break
        writer.close()

    async def _answer(
        self, plan: Plan, kind: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answers one request; false if the connection is of no use any more."""
        record, dialect = self.record(plan.number), DIALECTS[kind]
        record.reached = time.monotonic()
        if plan.end == "status":
            record.finishing = time.monotonic()
            writer.write(_whole("500 Internal Server Error", dialect.error(500, "it fails as it was asked to")))
            return True
        answer = dialect(body, plan.number)
        answer.input_tokens = plan.input
        words = [f"{place} " for place in range(plan.deltas)]
        is_stream = body.get("stream") is True
        if is_stream:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(chunk(b"".join(answer.opening())))
        begun = time.monotonic()
        for place, word in enumerate(words):
            if plan.end == "cut" and place == plan.deltas - 1:
                record.finishing = time.monotonic()
                return False
            if place == plan.deltas - 1 and plan.end == "held":
                while not record.released.is_set() and not reader.at_eof():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await record.released.wait()
            if place and plan.pace:
                await asyncio.sleep(max(0.0, begun + place * plan.pace - time.monotonic()))
            if reader.at_eof() or writer.is_closing():
                record.closed = time.monotonic()
                return False
            if is_stream:
                if place == plan.deltas - 1:
                    record.finishing = time.monotonic()
                writer.write(chunk(answer.delta(word)))
        record.finishing = min(record.finishing, time.monotonic())
        if is_stream:
            writer.write(chunk(b"".join(answer.closing(plan.deltas, cut_short=False))) + b"0\r\n\r\n")
        else:
            writer.write(_whole("200 OK", answer.whole(words, cut_short=False)))
        await writer.drain()
        return True


def _whole(status: str, value: Any) -> bytes:
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
