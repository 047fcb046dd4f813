"""The soak's upstream: OpenAI's chat dialect, an answer by the stream's number, failures by plan and on command.

It notes each request, so that a client's answer can be compared with what happened.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.soak.answers import Answer, Failure, chat_frame
from tests.wire import chunk, reset

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_END: Final = chunk(chat_frame({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
_ERROR: Final = chunk(b'data: {"error":{"message":"planned","type":"server_error","code":null}}\n\n') + b"0\r\n\r\n"
_REFUSAL: Final = b'{"error":{"message":"planned","type":"server_error","code":null}}'
_STATUS: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_REFUSAL)
) + _REFUSAL


@dataclass(slots=True, eq=False)
class Call:
    """One request: how it failed, if it did."""

    is_reused: bool
    """Its connection has carried another one before."""
    failure: Failure = ""
    deltas: int = 0
    """Written so far."""

    @property
    def was_stale(self) -> bool:
        """To the gateway its connection had ended before, as idle ones do: it asks once more on a fresh one."""
        return self.is_reused and self.failure == "reset"

    @property
    def allows_retry(self) -> bool:
        """It failed before its first content."""
        return bool(self.failure) and not self.deltas


class Upstream:
    """The server.

    Attributes:
        answers: The answers that may be asked for, by number; the load's.
        calls: The requests by stream; whoever has judged a stream removes its list.
        calls_made: How many there were.
        late: The streams of requests that came when the stream was judged.
        active: Requests that are being answered.
        opened: Connections that are open.
        headers: What the gateway sends as `x-soak`, which a new configuration changes.
    """

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.calls: dict[int, list[Call]] = {}
        self.calls_made = 0
        self.late: list[int] = []
        self.active = 0
        self.opened = 0
        self.headers: set[str] = set()
        self._outage_ended = self._failed_at = float("-inf")
        self._failing_until = float("-inf")
        self._running: dict[Call, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)

    @property
    def url(self) -> str:
        """The base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Closes everything."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fail(self, seconds: float, share: float) -> None:
        """Refuses every request for some time, and cuts off running answers.

        Args:
            seconds: How long.
            share: The part of the running answers that is cut off.
        """
        self._failing_until = self._outage_ended = time.monotonic() + seconds
        running = list(self._running.items())
        for call, writer in running[: int(len(running) * share)]:
            call.failure = "cut"
            reset(writer)

    def was_failing(self, since: float, margin: float) -> bool:
        """Whether it failed after `since`, or no longer than `margin` seconds before: a breaker may be open for it."""
        return max(self._outage_ended, self._failed_at) + margin >= since

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        call = None
        try:
            while call := await self._answer(reader, writer, is_reused=call is not None):
                pass
        except (OSError, EOFError):
            pass  # the gateway has closed
        finally:
            self.opened -= 1
            writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reused: bool
    ) -> Call | None:
        """Answers one request; `None` where the connection has been closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
        body = json.loads(await reader.readexactly(int(fields[b"content-length"])))
        self.headers.add(fields.get(b"x-soak", b"").decode())
        number = int(body["messages"][-1]["content"])
        answer = self.answers.get(number)
        if answer is None:  # asked by a worker that has been killed: its client has gone
            self.late.append(number)
            return None
        call = Call(is_reused)
        calls = self.calls.setdefault(answer.number, [])
        if time.monotonic() < self._failing_until:
            call.failure = "status"
        elif len(calls) < answer.fails_times:
            call.failure = answer.failure
        if call.failure:
            self._failed_at = time.monotonic()
        calls.append(call)
        self.calls_made += 1
        self.active += 1
        try:
            return call if await self._tell(answer, call, reader, writer) else None
        finally:
            self.active -= 1

    async def _tell(
        self, answer: Answer, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        failure = call.failure
        if failure == "status":
            writer.write(_STATUS)
            return True
        if failure == "reset":
            reset(writer)
            return False
        writer.write(_HEAD)
        count = answer.fails_at if failure else answer.deltas
        self._running[call] = writer
        try:
            if answer.interval:
                for place in range(count):
                    if place:
                        await asyncio.sleep(answer.interval)
                    if writer.is_closing():
                        return False
                    writer.write(chunk(answer.frame(place)))
                    call.deltas += 1
                    await writer.drain()
            else:
                for begin in range(0, count, 50):
                    if writer.is_closing():
                        return False
                    places = range(begin, min(count, begin + 50))
                    writer.write(chunk(b"".join(map(answer.frame, places))))
                    call.deltas += len(places)
                    await writer.drain()
        finally:
            del self._running[call]
        if failure == "cut" or writer.is_closing():
            writer.close()
            return False
        if failure == "stall":
            with suppress(OSError):
                await reader.read()
            return False
        writer.write(_ERROR if failure == "error" else _END)
        await writer.drain()
        return True
