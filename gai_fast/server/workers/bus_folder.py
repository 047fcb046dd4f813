"""The folder of the sockets between the workers of one server.

Owns its name, its end, and the folders that servers have left which were killed.

1. A lock on a file in the folder says that it is in use. All processes of the server share it, since the workers are
   forked with it: it lasts until the last of them has ended, however that comes.
2. A server that makes its folder removes those of the same user beside it whose lock nobody holds. One without the
   file stays: its server may be about to make it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.server.limits import LIMITS

_PREFIX: Final = "gai-fast-"
_LOCK: Final = "lock"


class PathTooLong(ValueError):
    """The path of a socket in the folder would be too long."""


@contextmanager
def bus_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder, which nobody else may enter, and removes it at the end.

    Args:
        parent: Where it is made.

    Yields:
        Its path.

    Raises:
        OSError: It cannot be made.
        PathTooLong: As above.
    """
    if len(os.fsencode(parent / f"{_PREFIX}12345678" / str(LIMITS.worker_number))) > SHARED.socket_path:
        raise PathTooLong(str(parent))
    _remove_left(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with (folder / _LOCK).open("x") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(parent: Path) -> None:
    """Removes the folders of servers that are gone: rule 2."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, in use, or removed meanwhile
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
