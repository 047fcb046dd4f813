"""`gai-fast serve` as the soak runs it: names resolve as a file says, and a worker counts its objects when asked.

    python -m tests.soak.served FOLDER serve …

`FOLDER/hosts` has lines of a name and an address; a name without one is unknown. On SIGUSR2 a worker writes
`FOLDER/objects.PID`.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import uvloop

from gai_fast.cli import main
from gai_fast.net.connection_pool import ConnectionPool

HOSTS: Final = "hosts"
COUNTED: Final = "objects."
"""The beginning of the name of a worker's file."""
_HELD: Final = ("SSLObject", "MemoryBIO", "Task")
"""Kinds of other packages that a connection or a stream holds."""


def main_of(folder: Path, arguments: list[str]) -> None:
    """Runs the command.

    Args:
        folder: Of the files.
        arguments: The command's.
    """
    signal.signal(signal.SIGUSR2, lambda *_: _count(folder))
    uvloop.run = functools.partial(uvloop.run, loop_factory=functools.partial(_Loop, folder / HOSTS))  # type: ignore[assignment]  # takes the same
    sys.argv = ["gai-fast", *arguments]
    main()


class _Loop(uvloop.Loop):
    """The loop, with names from a file."""

    def __init__(self, hosts: Path) -> None:
        super().__init__()
        self._hosts = hosts

    async def getaddrinfo(self, host: Any, port: Any, **kinds: int) -> Any:
        """Returns the addresses of a host; raises `socket.gaierror` where the file does not name it."""
        known = dict(line.split() for line in self._hosts.read_text().splitlines())
        if host not in known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return await super().getaddrinfo(known[host], port, **kinds)


def _count(folder: Path) -> None:
    gc.collect()
    kinds: Counter[str] = Counter()
    made = reused = retried = 0
    for each in gc.get_objects():
        kind = type(each)
        if isinstance(each, ConnectionPool):
            stats = each.stats
            made, reused, retried = made + stats.opened, reused + stats.reused, retried + stats.retried
        if kind.__module__.startswith("gai_fast.") or kind.__name__ in _HELD:
            kinds[kind.__name__] += 1
    told = {"kinds": kinds, "made": made, "reused": reused, "retried": retried}
    file = folder / f"{COUNTED}{os.getpid()}"
    file.with_suffix(".new").write_text(json.dumps(told))
    file.with_suffix(".new").rename(file)


if __name__ == "__main__":
    main_of(Path(sys.argv[1]), sys.argv[2:])
