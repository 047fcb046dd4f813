"""`gai-fast serve` as the soak runs it: names resolve as a file says, and a worker counts its objects when asked.

    python -m tests.soak.served FOLDER serve …

`FOLDER/hosts` has lines of a name and an address; a name without one is unknown. `FOLDER/machine` has the name of the
machine that the server takes itself to be on, if that is not this one. On two signals a worker writes
`FOLDER/objects.PID`. At the end of each stream it adds a line to `FOLDER/retries.PID`: the request id, and the retries
by the metrics.
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
from gai_fast.model.metrics import StreamMetrics
from gai_fast.net.upstream.connection_pool import ConnectionPool
from gai_fast.runtime import processes
from gai_fast.server.observe.metrics import PrometheusSink

HOSTS: Final = "hosts"
MACHINE: Final = "machine"
COUNT: Final = signal.SIGUSR1
COLLECT_AND_COUNT: Final = signal.SIGUSR2
"""After a run of the garbage collector."""
COUNTED: Final = "objects."
RETRIES: Final = "retries."
"""The beginnings of the names of a worker's files."""
REQUEST_ID: Final = "soak-"
"""The beginning of the id of the request that starts a stream; its number follows."""
_HELD: Final = ("SSLObject", "MemoryBIO", "Task")
"""Kinds of other packages that a connection or a stream holds."""


def main_of(folder: Path, arguments: list[str]) -> None:
    """Runs the command.

    Args:
        folder: Of the files.
        arguments: The command's.
    """
    signal.signal(COUNT, lambda *_: _count(folder))
    signal.signal(COLLECT_AND_COUNT, lambda *_: _collect_and_count(folder))
    _note_retries(folder)
    if machine := (folder / MACHINE).read_text():
        processes._machine = lambda: machine
    uvloop.run = functools.partial(uvloop.run, loop_factory=functools.partial(_Loop, folder / HOSTS))
    sys.argv = ["gai-fast", *arguments]
    main()


class _Loop(uvloop.Loop):
    """The loop, with names from a file."""

    def __init__(self, hosts: Path) -> None:
        super().__init__()
        self._hosts = hosts

    async def getaddrinfo(self, host: Any, port: Any, **kinds: int) -> Any:
        """Returns the addresses of a host; raises `socket.gaierror` if the file does not name it."""
        known = dict(line.split() for line in self._hosts.read_text().splitlines())
        if host not in known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return await super().getaddrinfo(known[host], port, **kinds)


def _note_retries(folder: Path) -> None:
    count = PrometheusSink.stream_ended

    def stream_ended(sink: PrometheusSink, metrics: StreamMetrics) -> None:
        count(sink, metrics)
        with (folder / f"{RETRIES}{os.getpid()}").open("a") as file:
            file.write(f"{metrics.request_id} {metrics.retries}\n")

    PrometheusSink.stream_ended = stream_ended


def _collect_and_count(folder: Path) -> None:
    gc.collect()
    _count(folder)


def _count(folder: Path) -> None:
    kinds: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    made = reused = retried = 0
    for each in gc.get_objects():
        kind = type(each)
        if isinstance(each, ConnectionPool):
            stats = each.stats
            made, reused, retried = made + stats.opened, reused + stats.reused, retried + stats.retried
        if kind.__module__.startswith("gai_fast.") or kind.__name__ in _HELD:
            kinds[kind.__name__] += 1
        if kind.__name__ == "Task":
            tasks[f"{each.get_coro().__qualname__}{' (done)' if each.done() else ''}"] += 1
    connections = {"made": made, "reused": reused, "retried": retried}
    result = {"kinds": kinds, "tasks": tasks, "blocks": sys.getallocatedblocks(), **connections}
    file = folder / f"{COUNTED}{os.getpid()}"
    file.with_suffix(".new").write_text(json.dumps(result))
    file.with_suffix(".new").rename(file)


if __name__ == "__main__":
    main_of(Path(sys.argv[1]), sys.argv[2:])
