"""The folder of the sockets between the workers of one server.

Owns its name, its removal, and the removal of folders of servers that were killed.

1. A lock on a file in the folder marks it as in use. All processes of the server share the lock, because the workers
   inherit it by `fork`. The lock is released when the last of them has ended, for whatever reason.
2. A server that makes its folder removes other folders of the same user whose lock is free. A folder without the file
   is kept: its server may be about to make the file.
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
    """Makes a folder that no other user may enter, and removes it at the end.

    Args:
        parent: The folder in which it is made.

    Yields:
        The path of the new folder.

    Raises:
        OSError: The folder cannot be made.
        PathTooLong: As above.
    """
    if len(os.fsencode(parent / f"{_PREFIX}12345678" / str(LIMITS.worker_number))) > SHARED.socket_path:
        raise PathTooLong(str(parent))
    _remove_unused(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with (folder / _LOCK).open("x") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(parent: Path) -> None:
    """Removes the folders of servers that are gone: rule 2."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, in use, or just removed by another server
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
