"""The standard error of a server: a thread writes what the server's logs say, so that nobody waits for a full pipe.

Owns what becomes of lines that a pipe, a disk or a terminal does not take. Knows nothing of what they say.

1. `install` puts a `QueuedStream` in place of `sys.stderr`. Log records, tracebacks and messages of the command line
   are formatted where they arise; only bytes wait.
2. At most `limits.stderr_waiting` bytes wait. What does not fit, and what the system refuses to write, is dropped and
   counted; once lines can be written again, a line of the log says how many were dropped.
3. The thread joins lines up to `PIPE_BUF` bytes, which a pipe takes in one piece: those of several workers do not mix.
4. A process that ends waits for the thread, as long as bytes are taken (`QueuedStream.drain`).
5. A process that has forked begins anew: what waits is written by the one that it was written to.

`logging.handlers.QueueListener` has no bound in bytes, writes each line by itself, and ends without a bound in time,
holding the lock of `sys.stderr`, without which the interpreter cannot end.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import select
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, TextIO, cast

from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class QueuedStream(io.TextIOBase):
    """A text stream whose writes wait for nothing. Any thread may write.

    A write is kept or dropped as a whole: to be a line, it needs its line break.

    Args:
        descriptor: The file that is written to. It stays open.
        encoding: The encoding of the text; characters that it lacks are written as escapes.

    Attributes:
        dropped: Lines that were not written and will not be.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._begin()

    def _begin(self) -> None:
        self.dropped = 0
        self._told = 0  # dropped lines that have been logged
        self._waiting = 0  # bytes that are not written yet, with what it costs to keep them
        self._writer: threading.Thread | None = None
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._lock = threading.RLock()  # a collection of garbage in `write` may log something

    # -- the file --

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the one of the base is always None
        """The encoding of the text."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # the one of the base is always None
        """The way in which characters without a code are written."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The file that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str, /) -> int:
        """Hands text to the thread, or drops it.

        Args:
            text: Whole lines.
        """
        data = text.encode(self._encoding, "backslashreplace")
        cost = len(data) + SHARED.kept_piece
        with self._lock:
            has_room = self._waiting + cost <= LIMITS.stderr_waiting or threading.current_thread() is self._writer
            if has_room and (self._writer is not None or self._start()):
                self._waiting += cost
                self._queue.put(data)
            else:
                self.dropped += data.count(b"\n")
        return len(text)

    # -- the end --

    def drain(self) -> bool:
        """Waits until everything is written: at most `limits.stderr_end` seconds, and `limits.stderr_blocked` seconds
        while the file takes nothing. Returns whether everything is.

        It counts its looks, so that the time does not run out while the machine lets the process stand still.
        """
        refused = 0.0
        for _ in range(round(LIMITS.stderr_end / LIMITS.stderr_look)):
            if not self._waiting:
                break
            refused = 0.0 if takes(self._descriptor) else refused + LIMITS.stderr_look
            if refused > LIMITS.stderr_blocked:
                break
            time.sleep(LIMITS.stderr_look)
        return not self._waiting

    # -- the thread --

    def _start(self) -> bool:
        """Starts the thread; returns whether the system has one to spare."""
        self._writer = threading.Thread(target=self._run, name="gai-fast-log", daemon=True)
        try:
            self._writer.start()
        except RuntimeError:
            self._writer = None
        return self._writer is not None

    def _run(self) -> None:
        piece = b""
        while True:
            pieces = [piece or self._queue.get()]
            size, piece = len(pieces[0]), b""
            with suppress(Empty):
                while size + len(piece := self._queue.get_nowait()) <= select.PIPE_BUF:
                    pieces.append(piece)
                    size, piece = size + len(piece), b""
            lost = _write(self._descriptor, b"".join(pieces)).count(b"\n")
            if not lost and self.dropped > self._told:
                count, self._told = self.dropped - self._told, self.dropped
                _log.error("%d log lines were dropped", count)  # `write` always has room for a line of this thread
            with self._lock:
                self.dropped += lost
                self._waiting -= size + len(pieces) * SHARED.kept_piece
            if not piece:
                time.sleep(LIMITS.stderr_interval)  # lines gather


def _write(descriptor: int, data: bytes) -> bytes:
    """Writes to a file, and waits for it; returns what it refuses."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody has made it non-blocking
            takes(descriptor, None)
        except OSError:
            break
    return data


def takes(descriptor: int, milliseconds: int | None = 0) -> bool:
    """Waits until a file can be written to, or refuses to be; returns whether that is so in time.

    Args:
        descriptor: The file.
        milliseconds: The time; `None`: without end.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))


# ---- the process -----------------------------------------------------------------------------------------------------

_stream: QueuedStream | None = None


def install() -> None:
    """Puts a queued stream in place of `sys.stderr` to the end of the process, where that is a file."""
    global _stream  # noqa: PLW0603  # as `sys.stderr` is one for the process
    former = sys.stderr
    try:
        descriptor = former.fileno()
    except OSError:  # it is in memory, and nobody waits for that
        return
    former.flush()
    stream = _stream = QueuedStream(descriptor, former.encoding)
    sys.stderr = cast(TextIO, stream)
    os.register_at_fork(after_in_child=stream._begin)

    def end() -> None:
        if stream.drain():
            sys.stderr = former  # of what comes later nothing waits for the thread, which does not run any more

    atexit.register(end)


def drain() -> None:
    """Waits until the lines of this process are written, as `QueuedStream.drain`; for a process that ends at once."""
    if _stream is not None:
        _stream.drain()


def dropped() -> int:
    """Log lines of this process that were not written and will not be."""
    return 0 if _stream is None else _stream.dropped
