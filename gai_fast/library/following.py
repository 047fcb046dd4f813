"""A durable stream that a program in this process follows: `FollowedStream`.

Owns how a log becomes a program's events: at the program's pace, in the compact envelope. Must not know HTTP.

1. For the program, only its position and the events of one read are kept. If it reads slowly, the upstream is paused
   before the log drops events that the program has not read.
2. For events that the log has dropped, the program gets `stream.gap`. If the log's writer is gone, the follower ends
   the stream with its own `error` and `done`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from gai_fast.formats import get_format
from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.events import ENVELOPE_KEYS, Event, done, in_order
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.net.logs.publication import Publication
from gai_fast.net.logs.view import NATIVE, Form, gap
from gai_fast.net.stream.streams import Engine
from gai_fast.stores import StreamLog
from gai_fast.stores._base import data_lines


class FollowedStream:
    """A durable stream, followed from a given event. Made by `Gateway.follow`.

    Iterating yields the events after that event, `done` last. If the program already has the end, there are none. Use
    it in `async with`, or iterate over it directly. Leaving early is a disconnect of a client: `on_disconnect` decides
    whether the stream goes on.

    Attributes:
        id: The stream's id.
        metrics: The figures of a stream of this process. `None` until they are known.
    """

    def __init__(self, find_engine: Callable[[], Engine], stream_id: str, after: int = 0) -> None:
        self.id = stream_id
        self.metrics: StreamMetrics | None = None
        self.position = after
        """The number of the last event read from the log."""
        self._after = after
        self._find_engine = find_engine
        self._engine: Engine | None = None
        self._log: StreamLog | None = None
        self._publication: Publication | None = None
        self._ready: deque[Event] = deque()
        self._news: asyncio.Future[None] | None = None
        self._has_ended = False
        self._is_compact = True

    async def __aenter__(self) -> Self:
        """Finds the stream.

        Raises:
            Error: The stream does not exist (`not_found`), its worker is gone, its store is unreachable, or it was made
                for clients of another dialect, whose frames are not events.
            RuntimeError: The gateway is not open or was opened on another loop, or the stream was entered before.
        """
        if self._engine is not None:
            raise RuntimeError("a stream is entered once: call `follow` again")
        engine = self._engine = self._find_engine()
        log = await engine.store.find(self.id)
        if log is None:
            raise Error("not_found", "there is no such stream, or its time is over", reason="stream")
        if log.header.format != NATIVE or log.header.framing == "json":
            text = f"this stream is kept in format {log.header.format!r} as {log.header.framing}: it has no events"
            raise Error("invalid_request", text, reason="not_acceptable", status=406)
        self._log = log
        self._is_compact = Form(get_format(NATIVE), log.header.framing, log.header.envelope).is_compact
        self._publication = engine.publication(self.id)
        if self._publication is not None:
            self._publication.joined(self)
        log.watch(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def __aiter__(self) -> AsyncIterator[Event]:
        if self._log is None and not self._has_ended:
            await self.__aenter__()
        try:
            while (event := await self.next_event()) is not None:
                yield event
        finally:
            self.leave()

    @property
    def resume_id(self) -> str:
        """The id to follow the stream again."""
        return self.id

    async def next_event(self) -> Event | None:
        """Returns the next event. `None` after the last event and after `leave`.

        Raises:
            RuntimeError: Another task already waits for the next event.
        """
        while not self._ready:
            if self._log is None or self._has_ended:
                return None
            self._read(self._log)
            if not self._ready and not self._has_ended:
                await self._wait()
        return self._ready.popleft()

    async def cancel(self) -> None:
        """Ends the stream for all followers, as `DELETE` does. Does nothing if the stream has ended.

        Raises:
            Error: The stream runs in another process, which is unreachable.
        """
        if self._engine is None or self._log is None or self._log.is_over:
            return
        session = self._engine.streams.get(self.id)
        if session is not None:
            session.cancel()
        else:
            await self._engine.store.cancel(self._log)

    def leave(self) -> None:
        """Stops following. Idempotent."""
        log, self._log = self._log, None
        if log is not None:
            log.unwatch(self)
        publication, self._publication = self._publication, None
        if publication is not None:
            self.metrics = publication.metrics()
            publication.left(self)
        self._wake()

    # -- the log --

    def _read(self, log: StreamLog) -> None:
        """Reads the next part of the log, or its end."""
        backlog = log.read(self.position, SHARED.follower_read)
        if backlog.lost:
            self._ready.append(in_order(gap(self.position, backlog.lost, backlog.text)))
        for piece in backlog.pieces:
            for data in data_lines(piece):
                event: Any = parse_exact(data.decode())
                if not self._is_compact and event.get("seq", 0) > 1:
                    for key in ENVELOPE_KEYS:
                        event.pop(key, None)
                self._ready.append(event)
        self.position = backlog.last_seq
        self._balance()
        if self._ready or not log.is_over:
            return
        self._has_ended = True
        if log.last_seq < self._after:
            text = "the log has not reached the event that this program has seen"
            self._end_with(Error("network", text, reason="log_behind"), self._after + 1)
        elif log.broken is not None:
            self._end_with(log.broken, log.last_seq + 1)

    def _end_with(self, error: Error, seq: int) -> None:
        self._ready += [in_order({"type": "error", "seq": seq, "error": error.payload()}), done(False)]

    async def _wait(self) -> None:
        if self._news is not None:
            raise RuntimeError("somebody else waits for the next event of this stream")
        self._news = asyncio.get_running_loop().create_future()
        try:
            self._balance()
            await self._news
        finally:
            self._news = None
            self._balance()

    def _balance(self) -> None:
        if self._publication is not None:
            self._publication.balance()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # -- LogWatcher --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Wakes the program: the log has more events."""
        self._wake()

    def ended(self) -> None:
        """Wakes the program: the log has ended or has failed."""
        self._wake()

    # -- the publication (`Follows`) --

    is_answer = False
    """False: there is no response whose status could change."""

    @property
    def is_slow(self) -> bool:
        """Whether the program is not waiting for the next event."""
        return self._news is None

    def fail(self, error: Error) -> None:
        """Does nothing: the log has the stream's early failure too."""
