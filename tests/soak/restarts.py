"""`make soak-restarts`: servers that follow each other on one socket, while streams outlast `grace`.

    python -m tests.soak.restarts --restarts 45 --workers 2 --seed 1

As an operator does it: the successor is started on the same descriptor, and the old server gets SIGTERM when the new
one is up. Clients ask all the time, on new connections and on kept ones. Each server runs streams that are longer than
its `grace`. The exit code is 1 where a request was not answered, or such a stream did not end as promised.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import orjson
import uvloop

from gai_fast.cli.mock.command import Mock
from tests.integration.processes import configure
from tests.soak.client import Connection, CutError, Reply, SilenceError

PATIENCE: Final = 30.0
"""Seconds for the start and the end of a server."""
LONG: Final = 6
"""Streams that outlast the `grace` of each server; half of them are durable."""
_QUERY: Final = {"model": "m", "query": "Hello"}
_ROOT: Final = Path(__file__).parents[2]


class Tally:
    """The answers that clients got.

    Attributes:
        answered: Requests, by how they were sent.
        unanswered: Requests without a whole response, in words.
    """

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.unanswered: list[str] = []
        self.others: list[str] = []


class Restarts:
    """The servers, one after the other, and their clients.

    Args:
        folder: Of the configuration.
        listening: The socket.
        workers: Of each server.
        grace: Seconds that a server may take for its end.
        random: Of the clients' pauses.
    """

    def __init__(self, folder: Path, listening: socket.socket, *, workers: int, grace: float, random: Random) -> None:
        self.tally = Tally()
        self._folder = folder
        self._fd = listening.fileno()
        self._host = f"127.0.0.1:{listening.getsockname()[1]}"
        self._workers = workers
        self._grace = grace
        self._random = random
        self._is_over = False

    async def run(self, restarts: int) -> None:
        """Restarts the server so often while clients ask."""
        server = await self._start()
        clients = [asyncio.create_task(self._ask_always(is_kept=is_kept)) for is_kept in (True, False) * 5]
        try:
            for number in range(restarts):
                long = [asyncio.create_task(self._outlast(is_durable=bool(each % 2))) for each in range(LONG)]
                await asyncio.sleep(0.3)  # they run
                successor = await self._start()
                server.send_signal(signal.SIGTERM)
                began = time.monotonic()
                async with asyncio.timeout(PATIENCE):
                    code = await server.wait()
                    await asyncio.gather(*long)
                if code or time.monotonic() - began < self._grace:
                    self.tally.others.append(
                        f"server {number} ended with {code} after {time.monotonic() - began:.1f} s"
                    )
                server = successor
        finally:
            self._is_over = True
            for result in await asyncio.gather(*clients, return_exceptions=True):
                if isinstance(result, BaseException):
                    self.tally.others.append(repr(result))
            server.kill()
            await server.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await started(self._folder, self._fd, self._workers)

    async def _ask_always(self, *, is_kept: bool) -> None:
        connection: Connection | None = None
        kind = "on a kept connection" if is_kept else "on a new connection"
        while not self._is_over:
            try:
                connection = connection or await Connection.open(self._host)
                if self._random.random() < 0.5:
                    await asyncio.sleep(self._random.uniform(0, 0.3))  # before its request, less than an idle time
                reply = await connection.ask("GET", "/healthz")
                await reply.rest()
            except (CutError, SilenceError) as cut:
                self.tally.unanswered.append(f"{kind}: {cut!r}")
                connection = None
                continue
            self.tally.answered[kind] += 1
            if not is_kept or reply.headers.get("connection") == "close":
                connection.close()
                connection = None
            await asyncio.sleep(self._random.uniform(0, 0.02))
        if connection is not None:
            connection.close()

    async def _outlast(self, *, is_durable: bool) -> None:
        """Reads a stream that does not end by itself."""
        connection = await Connection.open(self._host)
        try:
            reply = await connection.ask("POST", "/api/v1/stream", {**_QUERY, "resumable": is_durable})
        except (CutError, SilenceError) as cut:
            self.tally.unanswered.append(f"a long stream: {cut!r}")
            return
        body = await _all_of(reply)
        connection.close()
        self.tally.answered["long streams"] += 1
        if is_durable:  # cut off after a whole frame, which says when to come back
            is_right = not reply.ended and body.endswith(b"\n\n") and b"\nretry: " in body.split(b"\n\n")[-2]
        else:
            events = [orjson.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
            kinds = [each["type"] for each in events[-2:]]
            is_right = reply.ended and kinds == ["error", "done"] and events[-2]["error"]["reason"] == "draining"
        if not is_right:
            self.tally.others.append(f"a {'durable' if is_durable else 'plain'} stream ended with {body[-300:]!r}")


async def started(folder: Path, listening: int, workers: int) -> asyncio.subprocess.Process:
    """Returns a server that answers.

    Args:
        folder: Of its configuration.
        listening: The descriptor of its socket.
        workers: How many it has.
    """
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gai_fast", "serve", "--fd", str(listening), "--workers", str(workers),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)}, pass_fds=(listening,),
    )  # fmt: skip
    assert server.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await server.stdout.readuntil(b"\nmodels: ")
    return server


async def _all_of(reply: Reply) -> bytes:
    """Returns the body, as far as it comes."""
    parts = []
    with suppress(CutError):
        while not reply.ended:
            parts.append(await reply.read())
    return b"".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the restarts; returns the exit code."""
    parser = argparse.ArgumentParser(prog="soak-restarts", description="Rolling restarts under steady connections.")
    parser.add_argument("--restarts", type=int, default=45, help="how many (default: 45)")
    parser.add_argument("--workers", type=int, default=2, help="of each server (default: 2)")
    parser.add_argument("--grace", type=float, default=1.5, help="seconds for the end of a server (default: 1.5)")
    parser.add_argument("--seed", type=int, help="of the pauses (default: a new one)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_soak(options))


async def _soak(options: argparse.Namespace) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="gai-fast-restarts-") as name,
        socket.create_server(("127.0.0.1", 0), backlog=1000) as listening,
    ):
        folder = Path(name)
        async with Mock(deltas=100_000, rate=20) as mock:
            configure(folder, mock, grace=options.grace)
            restarts = Restarts(
                folder, listening, workers=options.workers, grace=options.grace, random=Random(options.seed)
            )
            await restarts.run(options.restarts)
    tally = restarts.tally
    print(
        f"{options.restarts} restarts, {options.workers} workers, seed {options.seed}: {dict(tally.answered)}; "
        f"unanswered {len(tally.unanswered)}, other {len(tally.others)}",
        *tally.unanswered[:10], *tally.others[:10], sep="\n  ",
    )  # fmt: skip
    return 1 if tally.unanswered or tally.others or not tally.answered else 0


if __name__ == "__main__":
    sys.exit(main())
