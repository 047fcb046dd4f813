"""The files that a configuration names: how they are opened. Knows nothing of what is in them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | Path) -> BinaryIO:
    """Opens a file to read it.

    Args:
        path: A regular file, or the null device. Whoever opens a FIFO waits for a writer, and a device may have no end:
            the start or the reload of a server would stand still for ever.

    Raises:
        OSError: It is neither, or cannot be opened.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) and str(path) != os.devnull:
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
