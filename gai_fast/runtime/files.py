"""The files that a configuration names: how they are opened. Knows nothing of what is in them."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from gai_fast.model.limits import SHARED
from gai_fast.runtime.limits import LIMITS


def open_file(path: str | Path, *, may_be_piped: bool = False) -> BinaryIO:
    """Opens a file to read it.

    Args:
        path: A regular file, or the null device. Whoever opens a FIFO waits for a writer, and a device may have no end:
            the start or the reload of a server would stand still for ever.
        may_be_piped: A pipe is read, too, as the shell makes one for `<(…)`: to its end, within limits.

    Raises:
        OSError: It is none of these, or cannot be opened; or a pipe does not end in time, or had nothing in it.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    kind = os.fstat(file.fileno()).st_mode
    if may_be_piped and stat.S_ISFIFO(kind):
        with file:
            return io.BytesIO(_piped(file.fileno(), str(path)))
    if not stat.S_ISREG(kind) and str(path) != os.devnull:
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _piped(pipe: int, path: str) -> bytes:
    """Reads a pipe to its end, or until there is more than any file of a configuration may have."""
    end = time.monotonic() + LIMITS.piped_file
    news = select.poll()
    news.register(pipe, select.POLLIN)
    text = b""
    while len(text) <= SHARED.config_file:
        left = end - time.monotonic()
        if left <= 0 or not news.poll(left * 1000):
            raise OSError(errno.ETIMEDOUT, f"a pipe that nobody wrote to the end within {LIMITS.piped_file:g} s", path)
        piece = os.read(pipe, SHARED.config_file)
        if not piece:
            if not text:  # it is no empty configuration: a reload would take everything away
                raise OSError(errno.EINVAL, "a pipe with nothing in it; once read, it cannot be read again", path)
            break
        text += piece
    return text
