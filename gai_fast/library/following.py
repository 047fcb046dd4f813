"""A durable stream that a program in this process follows: `FollowedStream`.

Owns how a log becomes a program's events: at the program's pace, in the compact envelope. Knows no HTTP.

1. Nothing is held for the program but its position and the events of one read. While it reads slowly the upstream is
   paused before the log would lose what it has not read.
2. For events that the log has lost the program gets `stream.gap`. A log whose writer is gone ends with an `error` and
   `done` that are this follower's own.
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
    """A durable stream, followed from a place in it. Made by `Gateway.follow`.

    Iterating gives the events after that place, `done` last; none where the program has the end already. Use it in
    `async with`, or iterate it at once. Leaving early is what it is for a client: the stream goes on as its
    `on_disconnect` has it.

    Attributes:
        id: The stream's id.
        metrics: The figures of a stream of this process, once they are known here.
    """

    def __init__(self, find_engine: Callable[[], Engine], stream_id: str, after: int = 0) -> None:
        self.id = stream_id
        self.metrics: StreamMetrics | None = None
        self.position = after
        """The number of the last event that the program has, or is about to have."""
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
            Error: There is no such stream (`not_found`), its worker is gone, its store is out of reach, or it was made
                for clients of another dialect, whose frames are no events.
            RuntimeError: The gateway is not open, or was opened on another loop; or this was entered before.
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
        """The id by which the stream can be followed again."""
        return self.id

    async def next_event(self) -> Event | None:
        """Returns the next event; `None` after the last one, and once the stream has been left.

        Raises:
            RuntimeError: Somebody else waits for it.
        """
        while not self._ready:
            if self._log is None or self._has_ended:
                return None
            self._read(self._log)
            if not self._ready and not self._has_ended:
                await self._wait()
        return self._ready.popleft()

    async def cancel(self) -> None:
        """Ends the stream for everybody, as `DELETE` does; one that has ended stays as it is.

        Raises:
            Error: It runs in another process, which cannot be reached.
        """
        if self._engine is None or self._log is None or self._log.is_over:
            return
        session = self._engine.streams.get(self.id)
        if session is not None:
            session.cancel()
        else:
            await self._engine.store.cancel(self._log)

    def leave(self) -> None:
        """Follows no more; idempotent."""
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
        """Takes the next part of the log, or its end."""
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
        """More can be read."""
        self._wake()

    def ended(self) -> None:
        """The log has ended, or is broken off."""
        self._wake()

    # -- the publication (`Follows`) --

    is_answer = False
    """There is no response that could have a status."""

    @property
    def is_slow(self) -> bool:
        """Whether the program has not come for more yet."""
        return self._news is None

    def fail(self, error: Error) -> None:
        """Does nothing: the log has the stream's early failure, too."""
