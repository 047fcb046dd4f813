"""The standard error of a server: a thread writes the log lines, so that a full pipe blocks no other thread.

Owns the handling of lines that a pipe, a disk or a terminal does not accept. Knows nothing of the lines' content.

1. `install` replaces `sys.stderr` by a `QueuedStream`. Log records, tracebacks and messages of the command line are
   formatted by their own threads; only bytes wait.
2. At most `limits.stderr_waiting` bytes wait. Lines beyond this limit, and lines that the system refuses to write, are
   dropped and counted. Once lines can be written again, a log line reports how many were dropped.
3. The thread joins lines up to `PIPE_BUF` bytes, which a pipe accepts in one piece, so that lines of several workers do
   not mix.
4. At its end, a process waits for the thread, as long as the file accepts bytes (`QueuedStream.drain`).
5. A forked process starts with an empty queue: the parent process writes the lines that were waiting.

`logging.handlers.QueueListener` has no limit in bytes, writes each line separately, and stops without a time limit,
while it holds the lock of `sys.stderr`, without which the interpreter cannot exit.
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
from queue import SimpleQueue
from typing import Final, TextIO, cast

from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class QueuedStream(io.TextIOBase):
    """A text stream whose writes never block. Any thread may write.

    A write is kept or dropped as a whole, so each write must be whole lines.

    Args:
        descriptor: The file to write to. It stays open.
        encoding: The encoding of the text; characters that it lacks are written as escapes.

    Attributes:
        dropped: Number of lines that were dropped.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._begin()

    def _begin(self) -> None:
        self.dropped = 0
        self._reported = 0  # dropped lines that have been reported in the log
        self._waiting = 0  # bytes that are not written yet, including the overhead of keeping them
        self._writer: threading.Thread | None = None
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant: a garbage collection during `write` may log

    # -- the file --

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has None
        """The encoding of the text."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # the base class has None
        """The error handler for characters that the encoding lacks."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Returns the descriptor of the file."""
        return self._descriptor

    def isatty(self) -> bool:
        """Returns whether the file is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, text: str, /) -> int:
        """Queues text for the thread, or drops it.

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
        """Waits until all lines are written; returns whether they are.

        Waits at most `limits.stderr_end` seconds, of which at most `limits.stderr_blocked` seconds in a row without the
        file accepting bytes. The method counts its checks, so that the time does not run out while the process is
        suspended.
        """
        refused = 0.0
        for _ in range(round(LIMITS.stderr_end / LIMITS.stderr_check)):
            if not self._waiting:
                break
            refused = 0.0 if wait_writable(self._descriptor) else refused + LIMITS.stderr_check
            if refused > LIMITS.stderr_blocked:
                break
            time.sleep(LIMITS.stderr_check)
        return not self._waiting

    # -- the thread --

    def _start(self) -> bool:
        """Starts the thread; returns whether the system allows another thread."""
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
            while not self._queue.empty():  # no other thread takes any
                piece = self._queue.get()
                if size + len(piece) > select.PIPE_BUF:
                    break
                pieces.append(piece)
                size, piece = size + len(piece), b""
            lost = _write(self._descriptor, b"".join(pieces)).count(b"\n")
            if not lost and self.dropped > self._reported:
                count, self._reported = self.dropped - self._reported, self.dropped
                _log.error("%d log lines were dropped", count)  # `write` always has room for a line of this thread
            with self._lock:
                self.dropped += lost
                self._waiting -= size + len(pieces) * SHARED.kept_piece
            if not piece:
                time.sleep(LIMITS.stderr_interval)  # lets lines collect


def _write(descriptor: int, data: bytes) -> bytes:
    """Writes to a file, and waits until it accepts the bytes; returns the bytes that it refuses."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another process has made the file non-blocking
            wait_writable(descriptor, None)
        except OSError:
            break
    return data


def wait_writable(descriptor: int, milliseconds: int | None = 0) -> bool:
    """Waits until a file accepts bytes or reports an error; returns False if the time runs out first.

    Args:
        descriptor: The file.
        milliseconds: The most time to wait. `None` for no limit.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))


# ---- the process -----------------------------------------------------------------------------------------------------

_stream: QueuedStream | None = None


def install() -> None:
    """Replaces `sys.stderr` by a queued stream until the end of the process, if `sys.stderr` is a file."""
    global _stream  # noqa: PLW0603  # one for the process, as `sys.stderr`
    former = sys.stderr
    try:
        descriptor = former.fileno()
    except OSError:  # it is in memory, and never blocks
        return
    former.flush()
    stream = _stream = QueuedStream(descriptor, former.encoding)
    sys.stderr = cast(TextIO, stream)
    os.register_at_fork(after_in_child=stream._begin)

    def end() -> None:
        if stream.drain():
            sys.stderr = former  # later lines are written directly: the thread does not run any more

    atexit.register(end)


def drain() -> None:
    """Waits until the lines of this process are written, as `QueuedStream.drain`. For a process that exits at once."""
    if _stream is not None:
        _stream.drain()


def dropped() -> int:
    """Returns the number of log lines of this process that were dropped."""
    return 0 if _stream is None else _stream.dropped
