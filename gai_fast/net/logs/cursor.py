"""A cursor: a moving position in a stream's log, as all readers of a log have it.

Owns when a reader reads its log, when it pauses, and when it ends. A subclass owns the use of the bytes.

1. A cursor that has read all of its log gets each piece as it is logged. Any other cursor reads the log from its
   position, at most `limits.follower_read` bytes and one piece in a turn of the loop; new pieces stay in the log.
2. A paused cursor keeps its position, and no bytes. If it pauses within a part, it later reads the log from there.
3. A cursor ends when its log has ended and it has read all of it, even if it is paused. It ends with an error if the
   log's writer is gone, or if the log has not reached the event that the cursor began after.
4. An exception in a subclass ends this cursor alone.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.logs.publication import Published
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.stores import Backlog, StreamLog

_log: Final = logging.getLogger("gai_fast.follower")


@mypyc_attr(allow_interpreted_subclasses=True)
class LogCursor(ClientCallbacks, ABC):
    """A reader of a log: a `LogWatcher`, and a follower of the log's publication (`Follows`).

    Args:
        log: The log.
        position: The number of the event after which the log is read.
        after: The number of the last event that the reader's client has.
        publication: The stream. None if it runs in another process, or need not know of the reader.
        loop: The loop.
        takes_metrics: Whether the reader needs the metrics of the stream.

    Attributes:
        log: The log.
        metrics: The metrics of the stream, once the reader has left. None if it does not need them.
        position: The number of the last event that was read.
        is_paused: Whether nothing is read now.
        is_over: Whether nothing is read any more.
        is_answer: Whether the client's response answers a request for the stream.
    """

    def __init__(
        self,
        log: StreamLog,
        position: int,
        after: int,
        publication: Published | None,
        loop: asyncio.AbstractEventLoop,
        *,
        takes_metrics: bool,
    ) -> None:
        self.log = log
        self.position = position
        self.is_paused = False
        self.is_over = False
        self.is_answer = False
        self.metrics = None
        self._after = after
        self._publication = publication
        self._takes_metrics = takes_metrics
        self._loop = loop
        self._is_ahead = log.last_seq < position
        self._is_behind = False  # new pieces stay in the log
        self._is_late = False  # because the cursor was paused
        self._handle: asyncio.Handle | None = None  # of the next read

    def put_off(self, seconds: float) -> None:
        """Called when the stream waits for a limit of its upstream: a response holds its headers for longer."""

    # -- for a subclass --

    @abstractmethod
    def _take(self, backlog: Backlog) -> None:
        """Uses the next part of the log, which may be empty, and moves `position` to the last used event.

        Raises:
            Error: Ends the cursor.
        """

    @abstractmethod
    def _take_piece(self, piece: bytes, last_seq: int) -> None:
        """Uses a piece that has just been logged; as `_take`."""

    @abstractmethod
    def _finish(self, error: Error | None) -> None:
        """Ends the reader's own output, and leaves.

        Args:
            error: The reason. None if the whole stream has been read.
        """

    def _abort(self, error: Error) -> None:
        """Ends the reader after a bug: its output may be broken."""
        self._finish(error)

    def _read(self) -> Backlog:
        """Returns the next part of the log."""
        return self.log.read(self.position, SHARED.follower_read)

    def _join(self) -> None:
        """Follows the log from now on. If `_is_behind` is set then, the caller must call `_go_on`."""
        self._is_behind = self.log.last_seq > self.position or self.log.is_over
        if self._publication is not None:
            self._publication.add(self)
        self.log.watch(self)

    def meet(self, publication: Published) -> None:
        """Joins the publication of a stream that runs in this process from now on, in place of a former one."""
        if not self.is_over and self._publication is not publication:
            self._publication = publication
            publication.add(self)

    def _balance(self) -> None:
        """Makes the publication read `is_slow` and `position` again."""
        if self._publication is not None:
            self._publication.balance()

    # -- LogWatcher --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Uses the next piece, or leaves it in the log."""
        if self._is_behind:
            return
        if self.is_paused:
            self._is_behind = self._is_late = True
            return
        try:
            if not self._is_ahead:  # most pieces
                self._take_piece(piece, last_seq)
            elif last_seq > self.position:  # the client may have the piece's first events: the log is cut after them
                self._is_ahead = False
                self._is_behind = True
                self._read_on()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    def ended(self) -> None:
        """Ends the reader, or reads the rest of the log first."""
        if self._is_behind:
            return
        if self.position < self.log.last_seq:  # the log ended while an earlier watcher used its last piece
            self._is_behind = True
            self._go_on()
            return
        try:
            self._end()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    # -- Follows --

    @property
    def is_slow(self) -> bool:
        """Whether the reader is paused, or has not read all that the log has."""
        return self._is_behind or self.is_paused

    def fail(self, error: Error) -> None:  # some readers override it
        """Does nothing: the log has the stream's early failure too."""

    # -- the client --

    def pause(self) -> None:
        """Reads nothing until `resume`."""
        self.is_paused = True
        self._balance()

    def resume(self) -> None:
        """Reads on."""
        self.is_paused = False
        if self.position < self.log.last_seq:  # it may have paused within a piece: rule 2
            self._is_behind = True
        if not self._is_behind:
            self._balance()
        elif self._handle is None:
            self._go_on()

    def leave(self) -> None:
        """Stops reading, and leaves the publication. Idempotent."""
        self._stop()
        self._note_metrics()
        publication, self._publication = self._publication, None
        if publication is not None:
            publication.remove(self)

    # -- own --

    def _go_on(self) -> None:
        self._handle = None
        if self.is_paused or self.is_over:
            return
        try:
            self._read_on()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    def _read_on(self) -> None:
        """Uses the next part of the log: rule 1."""
        self._take(self._read())
        if self.is_over:
            return
        if self.position < self.log.last_seq:
            if not self.is_paused and self._handle is None:
                self._handle = self._loop.call_soon(self._go_on)
        else:
            self._is_behind = self._is_late = False
            if self.log.is_over:
                self._end()
        self._balance()

    def _end(self) -> None:
        """Ends the reader: rule 3."""
        if self.log.is_short_of(self._after):
            text = "the log has not reached the event that this client has seen"
            self._finish(Error("network", text, reason="log_behind"))
        else:
            self._finish(self.log.broken)

    def _break_off(self, problem: Exception) -> None:
        """Ends the reader after an exception: with an `Error` as it is, after a bug by rule 4."""
        if isinstance(problem, Error):
            try:
                self._finish(problem)
                return
            except Exception as worse:  # noqa: BLE001  # rule 4: the end cannot be written either
                problem = worse
        _log.error("a follower of stream %s failed: a bug of the gateway", self.log.header.stream_id, exc_info=problem)
        self._abort(Error("internal", "the gateway failed while it handled this answer"))

    def _note_metrics(self) -> None:
        if self._takes_metrics and self._publication is not None:
            self.metrics = self._publication.metrics()

    def _stop(self) -> None:
        """Stops reading. Idempotent."""
        self.is_over = self._is_behind = True
        self.log.unwatch(self)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
