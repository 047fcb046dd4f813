"""Opens the files that a configuration names. Knows nothing about their content."""

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
    """Opens a file for reading.

    Args:
        path: A regular file, or the null device. To open a FIFO waits for a writer, and a device may have no end: both
            could block the start or the reload of a server forever.
        may_be_piped: Whether `path` may be a pipe, such as the shell's `<(…)`. It is read to its end, within limits.

    Raises:
        OSError: The path is none of these, or cannot be opened; or a pipe does not end in time, or was empty.
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
    """Reads a pipe to its end, or until its content is larger than a configuration file may be."""
    end = time.monotonic() + LIMITS.piped_file
    readable = select.poll()
    readable.register(pipe, select.POLLIN)
    text = b""
    while len(text) <= SHARED.config_file:
        remaining = end - time.monotonic()
        if remaining <= 0 or not readable.poll(remaining * 1000):
            raise OSError(
                errno.ETIMEDOUT, f"a pipe that was not written to its end within {LIMITS.piped_file:g} s", path
            )
        piece = os.read(pipe, SHARED.config_file)
        if not piece:
            if not text:  # an empty pipe is not an empty configuration: a reload would remove everything
                raise OSError(errno.EINVAL, "a pipe with nothing in it; once read, it cannot be read again", path)
            break
        text += piece
    return text
