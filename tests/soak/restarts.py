"""`make soak-restarts`: servers that follow each other on one socket, while streams outlast `grace`.

    python -m tests.soak.restarts --restarts 45 --workers 2 --seed 1

As an operator does it: the successor is started on the same descriptor, and the old server gets SIGTERM when the new
one is up. Clients ask all the time, on new connections and on kept ones. Each server runs streams that are longer than
its `grace`: plain ones, which end, and durable ones, whose clients follow them by id at the successor. Some of these
outlast five restarts. The exit code is 1 where a request was not answered, such a stream did not end or go on as
promised, or a client that follows by id was sent an error.
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
from gai_fast.cli.mock.dialects._base import WORDS
from tests.integration.processes import configure
from tests.soak.client import Connection, CutError, Reply, SilenceError
from tests.soak.outlive.readers import Reader

PATIENCE: Final = 30.0
"""Seconds for the start and the end of a server."""
LONG: Final = 6
"""Streams that outlast the `grace` of each server; half of them are durable."""
LONGEST: Final = 5
"""Restarts that one stream of so many servers outlasts."""
_QUERY: Final = {"model": "m", "query": "Hello"}
_WHOLE: Final = " ".join(WORDS[number % len(WORDS)] for number in range(10_000))
"""The beginning of the upstream's answer, longer than any stream here."""
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
        self._streams = 0
        self._is_over = False

    async def run(self, restarts: int) -> None:
        """Restarts the server so often while clients ask."""
        server = await self._start()
        longest: list[asyncio.Task[None]] = []
        clients = [asyncio.create_task(self._ask_always(is_kept=is_kept)) for is_kept in (True, False) * 5]
        try:
            for number in range(restarts):
                long = [asyncio.create_task(self._outlast()) for _ in range(LONG // 2)]
                long += [asyncio.create_task(self._go_on(1)) for _ in range(LONG // 2)]
                if not number % LONGEST and number + LONGEST <= restarts:
                    longest.append(asyncio.create_task(self._go_on(LONGEST)))
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
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*longest)
        finally:
            self._is_over = True
            for task in longest:
                task.cancel()
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

    async def _outlast(self) -> None:
        """Reads a plain stream that does not end by itself."""
        connection = await Connection.open(self._host)
        try:
            reply = await connection.ask("POST", "/api/v1/stream", _QUERY)
        except (CutError, SilenceError) as cut:
            self.tally.unanswered.append(f"a long stream: {cut!r}")
            return
        body = await _all_of(reply)
        connection.close()
        self.tally.answered["long streams"] += 1
        events = [orjson.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
        kinds = [each["type"] for each in events[-2:]]
        if not (reply.ended and kinds == ["error", "done"] and events[-2]["error"]["reason"] == "draining"):
            self.tally.others.append(f"a plain stream ended with {body[-300:]!r}")

    async def _go_on(self, restarts: int) -> None:
        """Follows a durable stream over some restarts, and cancels it."""
        reader = Reader(self._host, "gai", self._random)
        self._streams += 1
        reading = asyncio.create_task(
            reader.start("/api/v1/stream", {**_QUERY, "resumable": True}, f"stream-{self._streams}")
        )
        while reader.gaps < restarts and not reading.done():  # noqa: ASYNC110  # it sets no event
            await asyncio.sleep(0.05)
        if not reading.done():
            connection = await Connection.open(self._host)
            await (await connection.ask("DELETE", f"/api/v1/streams/{reader.stream_id}")).rest()
            connection.close()
        await reading
        self.tally.answered["long streams"] += 1
        self.tally.answered["handovers"] += reader.gaps
        is_right = reader.gaps == restarts and reader.retries > 1 and reader.ends == 1 and reader.text
        if not is_right or reader.faults or reader.errors or not _WHOLE.startswith(reader.text):
            found = f"{reader.faults} {reader.errors}, {reader.gaps} gaps, {reader.retries} times to come back"
            self.tally.others.append(f"a stream of {restarts} restarts: {found}, {reader.text[-100:]!r}")


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
            more = f'[stream]\non_midstream_failure = "continue"\n[store]\nurl = "sqlite:///{name}/store.db"\n'
            configure(folder, mock, grace=options.grace, more=more)
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
