"""The soak's upstream: OpenAI's chat dialect, an answer by the stream's number, failures by plan and on command.

It notes each request, so that a client's answer can be compared with what happened. It may speak TLS, and then change
its certificate, its address and the time for which it keeps idle connections while it runs.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.soak.answers import Answer, Failure, chat_frame
from tests.wire import chunk, reset

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
_END: Final = chunk(chat_frame({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
_ERROR: Final = chunk(b'data: {"error":{"message":"planned","type":"server_error","code":null}}\n\n') + b"0\r\n\r\n"
_REFUSAL: Final = b'{"error":{"message":"planned","type":"server_error","code":null}}'
_STATUS: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(
    _REFUSAL
)
CLOSING: Final = 5.0
"""Seconds for the proper end of a TLS connection."""
_LEFT: Final = (7, 8)
"""Linux's states of a TCP connection whose other side has closed it: `TCP_CLOSE`, by a reset, and `TCP_CLOSE_WAIT`."""


@dataclass(slots=True, eq=False)
class Call:
    """One request that was read.

    Attributes:
        is_reused: Its connection has carried another one before.
        failure: How it failed, if it did.
        deltas: Written so far.
        at: When it had come.
        accepted: When its connection was accepted, before a handshake.
        was_left: The other side had closed the connection before the request was read here, as of a killed process.
    """

    is_reused: bool
    failure: Failure = ""
    deltas: int = 0
    at: float = field(default_factory=time.monotonic)
    accepted: float = 0.0
    was_left: bool = False

    @property
    def allows_retry(self) -> bool:
        """Whether the answer failed before its first content."""
        return bool(self.failure) and not self.deltas


@dataclass(frozen=True, slots=True)
class Identity:
    """The upstream as a gateway that connects sees it.

    Attributes:
        context: Its certificate. None if it speaks no TLS.
        is_trusted: Whether a gateway may speak to it.
        number: Counts the changes.
    """

    context: ssl.SSLContext | None
    is_trusted: bool = True
    number: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """The time for which the upstream keeps idle connections.

    Attributes:
        seconds: How long it keeps idle connections. None if it never closes them.
        is_announced: Whether its answers name it (`Keep-Alive`).
    """

    seconds: int | None = None
    is_announced: bool = False

    @property
    def header(self) -> bytes:
        """The line of an answer's head."""
        return b"Keep-Alive: timeout=%d\r\n" % self.seconds if self.is_announced and self.seconds else b""


@dataclass(slots=True, eq=False)
class Door:
    """A socket that listens, and those who came through it.

    Attributes:
        sock: The socket.
        identity: Shown to those that connect.
        idle: The connections that wait for a request.
        task: Accepts.
    """

    sock: socket.socket
    identity: Identity
    idle: set[asyncio.StreamWriter] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Upstream:
    """The server.

    Args:
        name: In its URL. None if that has the address, and no TLS.
        context: Its certificate.

    Attributes:
        answers: The answers that may be asked for, by number; the load's.
        calls: The requests by stream; whoever has judged a stream removes its list.
        calls_made: How many there were.
        late: The streams of requests that came when the stream was judged.
        active: Requests that are being answered.
        opened: Connections that are open.
        headers: What the gateway sends as `x-soak`, which a new configuration changes.
        identity: Shown to those that connect from now on.
        idle: How long it keeps connections.
        refused: Handshakes that the gateway broke off.
        served_untrusted: Requests that came though the certificate was wrong: there may be none.
        served_by: The number of the last identity that a request came to.
        closed_idle: Connections that were closed as their time was over.
        crossed: Requests that came when their connection had been closed as idle, and were not read.
    """

    def __init__(self, name: str | None = None, context: ssl.SSLContext | None = None) -> None:
        self._name = name
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
        self.identity = Identity(context)
        self.idle = Idle()
        self.refused = self.served_untrusted = self.served_by = self.closed_idle = self.crossed = 0
        self._door: Door | None = None
        self._doors: set[Door] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """Listens, also if it does so already.

        Args:
            address: Of this machine.
            port: 0 chooses a free one.
        """
        sock = socket.create_server((address, port), backlog=1024)
        sock.setblocking(False)
        self._door = door = Door(sock, self.identity)
        self._doors.add(door)
        door.task = asyncio.get_running_loop().create_task(self._accept_all(door))

    @property
    def place(self) -> tuple[str, int]:
        """Its address and port."""
        assert self._door is not None
        address, port = self._door.sock.getsockname()
        return address, port

    @property
    def url(self) -> str:
        """The base URL."""
        return (
            f"http://127.0.0.1:{self.place[1]}/v1" if self._name is None else f"https://{self._name}:{self.place[1]}/v1"
        )

    async def stop(self) -> None:
        """Closes everything."""
        for door in tuple(self._doors):
            await self.close(door)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def show(self, context: ssl.SSLContext | None, *, is_trusted: bool) -> None:
        """Begins again, as a server that is restarted: idle connections are closed, answers that run come to their end.

        Args:
            context: The certificate from now on.
            is_trusted: Whether a gateway may speak to it.
        """
        self.identity = Identity(context, is_trusted, self.identity.number + 1)
        for door in self._doors:
            door.identity = self.identity
            self._close_idle(door)
        if not is_trusted:
            self.troubles()

    async def move(self, address: str, port: int) -> Door:
        """Listens at another place, too, with the same certificate; returns the former place, which is to be closed."""
        assert self._door is not None
        former = self._door
        self.identity = Identity(self.identity.context, self.identity.is_trusted, self.identity.number + 1)
        await self.start(address, port)
        return former

    def take_over(self, door: Door, context: ssl.SSLContext) -> None:
        """Gives a former address to another server, which no gateway may ask."""
        door.identity = Identity(context, is_trusted=False)
        self._close_idle(door)

    async def close(self, door: Door) -> None:
        """Ends listening there, and closes what is idle; answers that run come to their end."""
        self._doors.discard(door)
        assert door.task is not None
        door.task.cancel()
        await asyncio.gather(door.task, return_exceptions=True)
        door.sock.close()
        self._close_idle(door)

    def close_idle(self) -> None:
        """Closes the connections that wait for a request."""
        for door in self._doors:
            self._close_idle(door)

    def troubles(self) -> None:
        """Notes that requests may fail now, as the gateway cannot reach it."""
        self._failed_at = time.monotonic()

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

    def _close_idle(self, door: Door) -> None:
        for writer in door.idle:
            writer.close()
        door.idle.clear()

    async def _accept_all(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        while True:
            handle, _ = await loop.sock_accept(door.sock)
            self._begin(self._greet(door, handle, time.monotonic()))
            # With one of them a turn of the loop, the thousand that come behind a kill would wait for seconds.
            with suppress(BlockingIOError):
                while True:
                    handle, _ = door.sock.accept()
                    handle.setblocking(False)
                    self._begin(self._greet(door, handle, time.monotonic()))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, door: Door, handle: socket.socket, accepted: float) -> None:
        """Makes a connection, by the identity of this moment."""
        identity = door.identity
        protocol = asyncio.StreamReaderProtocol(
            asyncio.StreamReader(),
            lambda reader, writer: self._begin(self._serve(door, identity, accepted, reader, writer)),
        )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, handle, ssl=identity.context)
        except OSError:
            self.refused += 1
            handle.close()

    async def _serve(
        self,
        door: Door,
        identity: Identity,
        accepted: float,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.opened += 1
        call = None
        try:
            while head := await self._next_head(door, reader, writer, is_reused=call is not None):
                if not identity.is_trusted:
                    self.served_untrusted += 1
                self.served_by = max(self.served_by, identity.number)
                call = await self._answer(head, reader, writer, accepted, is_reused=call is not None)
                if call is None:
                    break
        except (OSError, EOFError):
            pass  # the gateway has closed
        finally:
            self.opened -= 1
            writer.transport.abort()

    async def _next_head(
        self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reused: bool
    ) -> bytes:
        """Returns the head of the next request; empty if there is none, as the connection has been closed.

        A request that crossed the end of its idle connection is not read.
        """
        if door not in self._doors:
            return b""
        door.idle.add(writer)
        try:
            async with asyncio.timeout(self.idle.seconds if is_reused else None):
                head = await reader.readuntil(b"\r\n\r\n")
            if writer in door.idle:
                return head
            self.crossed += 1
            return b""
        except TimeoutError:
            self.closed_idle += 1
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await writer.wait_closed()
            return b""
        finally:
            door.idle.discard(writer)

    async def _answer(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        accepted: float,
        *,
        is_reused: bool,
    ) -> Call | None:
        """Answers one request; `None` if the connection has been closed."""
        fields = dict(line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
        body = json.loads(await reader.readexactly(int(fields[b"content-length"])))
        self.headers.add(fields.get(b"x-soak", b"").decode())
        number = int(body["messages"][-1]["content"])
        answer = self.answers.get(number)
        if answer is None:  # asked by a worker that has been killed: its client has gone
            self.late.append(number)
            return None
        call = Call(is_reused, accepted=accepted, was_left=_is_left(writer))
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
            writer.write(_STATUS + self.idle.header + b"\r\n" + _REFUSAL)
            return True
        if failure == "reset":
            reset(writer)
            return False
        writer.write(_HEAD + self.idle.header + b"\r\n")
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


def _is_left(writer: asyncio.StreamWriter) -> bool:
    """Returns whether the other side has closed the connection, also if that is not read yet."""
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] in _LEFT
