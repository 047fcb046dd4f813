"""The client's side of a stream: the commit of the response headers, the body, and the end of the response.

Owns commit, heartbeats, gathering (`flush_interval`) and the end of a response. Knows no upstream and no event: it
moves the bytes of one `Output` to one `Client`. Its only timer is for `flush_interval`: for commit and heartbeats the
session reads `due` and calls `look`.

The headers are held until the first event or `commit_after`, so that an early failure has its true status. The time
does not run while a limit of the upstream is waited for (`wait_for_limit`).
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable, Sequence
from typing import Final

from gai_fast.kernels import ChunkWriter, FrameLog, LendingTransport, Piece, StreamCounters, size_of
from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.net.attempts.spec import Output
from gai_fast.net.logs.writer import Client


class _State(enum.Enum):
    HELD = "held"  # the headers have not been sent
    COMMITTED = "committed"
    ENDED = "ended"


# Constants, because an enum's attribute costs 75 ns on 3.11, and every read checks the state.
_HELD: Final[_State] = _State.HELD
_COMMITTED: Final[_State] = _State.COMMITTED
_ENDED: Final[_State] = _State.ENDED
_size_of: Final = size_of  # a constant, because a global lookup costs 30 ns


class Delivery:
    """Moves the bytes of one stream to one client.

    Args:
        client: The response.
        output: Holds the stream's bytes.
        stream: The stream's settings.
        counters: Counts what is written.
        loop: The loop.
        now: Its time.
        whole: Whether the response is one JSON object: nothing is written before the end.
        is_timed: Whether `commit_after` and `heartbeat` apply: the client is a connection, not a log.

    Attributes:
        output: Holds the stream's bytes. Replaced if a fallback answers in another dialect.
        gathered: Bytes of the upstream that were read since the last write.
        last_write: The time of the last write, in seconds of the loop's clock.
        is_paused: Whether the client reads too slowly.
    """

    def __init__(
        self,
        client: Client,
        output: Output,
        stream: StreamSettings,
        counters: StreamCounters,
        loop: asyncio.AbstractEventLoop,
        now: float,
        *,
        whole: bool = False,
        is_timed: bool = True,
    ) -> None:
        self.output = output
        self.gathered = 0
        self.is_paused = False
        self.last_write = now
        self._client = client
        self._direct: ChunkWriter | None = None
        self._stream = stream
        self._counters = counters
        self._loop = loop
        self._whole = whole
        self._state = _HELD
        self._handle: asyncio.TimerHandle | None = None
        self._commit_by = self.last_write + stream.commit_after if is_timed else math.inf
        self._heartbeat = stream.heartbeat if is_timed else 0.0

    @property
    def is_committed(self) -> bool:
        """Whether the headers have been committed."""
        return self._state is not _HELD

    @property
    def direct(self) -> LendingTransport | FrameLog | None:
        """The transport or log that a fast path may write to. None if it may not write now."""
        return self._client.direct

    # -- bytes --

    def gather_or_send(self, due: Callable[[], None]) -> bool:
        """Commits the headers if necessary, and writes the pending bytes, now or after `flush_interval`.

        Args:
            due: Called when the gathered bytes must be sent.

        Returns:
            Whether bytes were written.
        """
        if self._state is _HELD:
            self.commit()
        if not self._stream.flush_interval or self.gathered > self._stream.client_buffer:
            return self.send()
        if self._handle is None:
            self._handle = self._loop.call_later(self._stream.flush_interval, due)
        return False

    def send(self) -> bool:
        """Writes the pending bytes; returns whether there were any."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.gathered = 0
        pieces = self.output.take_pieces()
        size = _size_of(pieces)
        if not size:
            return False
        self.last_write = self._loop.time()
        self._counters.wrote(size)
        self._client.write(pieces)
        return True

    def pass_on(self, piece: bytes) -> None:
        """Writes a piece directly, after `commit`. The output must have no pending bytes."""
        self.last_write = self._loop.time()
        self._counters.wrote(len(piece))
        if self._direct is None:
            direct = self._client.direct
            if direct is None or hasattr(direct, "log_frames"):  # no HTTP chunks
                self._client.write((piece,))
                return
            self._direct = ChunkWriter(direct)
        self._direct.write(piece)

    def commit(self) -> None:
        """Begins the response: its headers are sent with the next bytes."""
        self._state = _COMMITTED
        self.last_write = self._loop.time()
        self._client.commit()

    # -- time --

    def due(self) -> float:
        """Returns when `look` must be called if nothing is written before: for the headers, then for heartbeats."""
        if self._whole:
            return math.inf
        heartbeat = self.last_write + self._heartbeat if self._heartbeat else math.inf
        return heartbeat if self._state is not _HELD else min(self._commit_by, heartbeat)

    def look(self, now: float) -> None:
        """Commits the headers or writes a heartbeat, if its time has come."""
        if self._whole:
            return
        if self._state is _HELD and now >= self._commit_by:
            self.commit()
            self._client.flush()
        elif self._heartbeat and now >= self.last_write + self._heartbeat:
            self.last_write = now
            if self._state is _COMMITTED and not self.is_paused:
                self.output.heartbeat()
                self.send()

    def put_off(self, seconds: float) -> None:
        """Holds the headers for longer, because the stream waits for a limit of its upstream.

        If the limit is not lifted, the client gets the status of a limit, which clients retry.

        Args:
            seconds: The wait.
        """
        self._commit_by += seconds
        self._client.put_off(seconds)

    # -- the end --

    def replaces(self, error: Error) -> bool:
        """Returns whether the client gets another answer in place of an error; as `Client.replaces`."""
        return self._state is _HELD and self._client.replaces(error)

    def refuses(self, error: Error | None, *, delivered: bool) -> bool:
        """Returns whether `end` answers with an error response; the arguments are those of `end`."""
        return self._state is _HELD and error is not None and (self._whole or not delivered)

    def stop(self) -> None:
        """Cancels the timer of gathered bytes."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def take_last(self) -> Sequence[Piece]:
        """Returns the last bytes, for `end`."""
        pieces = self.output.take_pieces()
        self._counters.wrote(_size_of(pieces))
        return pieces

    def end(self, pieces: Sequence[Piece], error: Error | None, *, delivered: bool) -> None:
        """Ends the response properly.

        Args:
            pieces: The last bytes, perhaps none.
            error: The failure of the stream, which the last bytes report. Before `commit` it may be the response
                instead.
            delivered: Whether content has been written to the output.
        """
        is_refused = self.refuses(error, delivered=delivered)
        state, self._state = self._state, _ENDED
        if error is not None and is_refused:
            self._client.fail(error, pieces)
            return
        if state is _HELD:
            self._client.commit()
        self._client.end(pieces)

    def cut(self, error: Error) -> None:
        """Ends the response of a stream whose bytes cannot report its end.

        Args:
            error: The response, if none has begun.
        """
        state, self._state = self._state, _ENDED
        if state is _HELD:
            self._client.fail(error, ())
        else:
            self._client.abort(error)
