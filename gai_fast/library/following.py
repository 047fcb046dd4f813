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
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.cursor import LogCursor
from gai_fast.net.logs.view import NATIVE, Representation, gap_event
from gai_fast.stores import Backlog
from gai_fast.stores._base import data_lines


class FollowedStream(LogCursor):
    """A durable stream, followed from a given event. Made by `Gateway.follow`.

    Iterating yields the events after that event, `done` last. If the program already has the end, there are none. Use
    it in `async with`, or iterate over it directly. Leaving early is a disconnect of a client: `on_disconnect` decides
    whether the stream goes on.

    Attributes:
        id: The stream's id.
        metrics: The figures of a stream of this process. `None` until they are known.
        position: The number of the last event read from the log.
    """

    def __init__(
        self,
        find_engine: Callable[[], Engine],
        stream_id: str,
        after: int = 0,
        put_off: Callable[[float], None] | None = None,
    ) -> None:
        self.id = stream_id
        self.metrics = None
        self.position = after
        self._find_engine = find_engine
        self._put_off = put_off
        self._engine: Engine | None = None
        self._is_entered = False  # `LogCursor` is initialized then: it needs the log
        self._ready: deque[Event] = deque()
        self._news: asyncio.Future[None] | None = None
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
        self._is_compact = Representation(get_format(NATIVE), log.header.framing, log.header.envelope).is_compact
        after, loop = self.position, asyncio.get_running_loop()
        super().__init__(log, after, after, engine.durable.publication(self.id), loop, takes_metrics=True)
        self.is_paused = self._is_entered = True
        self._join()
        return self

    def put_off(self, seconds: float) -> None:
        """Tells the stream that this one is the answer of."""
        if self._put_off is not None:
            self._put_off(seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def __aiter__(self) -> AsyncIterator[Event]:
        if not self._is_entered:
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
            if not self._is_entered or self.is_over:
                return None
            if self._news is not None:
                raise RuntimeError("another task waits for the next event of this stream: read it in one place")
            self._news = self._loop.create_future()
            try:
                self.resume()
                await self._news
            finally:
                self._news = None
                self.pause()
        return self._ready.popleft()

    async def cancel(self) -> None:
        """Ends the stream for all followers, as `DELETE` does. Does nothing if the stream has ended.

        Raises:
            Error: The stream runs in another process, which is unreachable.
        """
        if self._engine is None or not self._is_entered or self.is_over or self.log.is_over:
            return
        if not self._engine.cancel(self.id):
            await self._engine.store.cancel(self.log)

    def leave(self) -> None:
        """Stops following. Idempotent."""
        if self._is_entered:
            super().leave()
            self._wake()

    # -- LogCursor: paused unless the program waits for the next event --

    def _take(self, backlog: Backlog) -> None:
        """Reads the events of the next part of the log."""
        if backlog.lost:
            self._ready.append(in_order(gap_event(self.position, backlog.lost, backlog.text)))
        self._take_piece(b"".join(backlog.pieces), backlog.last_seq)

    def _take_piece(self, piece: bytes, last_seq: int) -> None:
        """Reads the events of a piece."""
        for data in data_lines(piece):
            event: Any = parse_exact(data.decode())
            if not self._is_compact and event.get("seq", 0) > 1:
                for key in ENVELOPE_KEYS:
                    event.pop(key, None)
            self._ready.append(event)
        self.position = last_seq
        if self._ready:
            self._wake()

    def _finish(self, error: Error | None) -> None:
        """Ends with the stream, or with an error of its own."""
        if error is not None:
            seq = max(self.log.last_seq, self._after) + 1
            self._ready += [in_order({"type": "error", "seq": seq, "error": error.payload()}), done(False)]
        self.leave()

    def _wake(self) -> None:
        self.is_paused = True
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
