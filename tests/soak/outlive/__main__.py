"""`make soak-outlive`: servers are killed amid streams, which others go on with, and no word is lost or doubled.

    python -m tests.soak.outlive --kills 1000 --seed 1
    python -m tests.soak.outlive --kills 20 --stores sqlite --sync batched

Three servers share a socket and a store. Streams of numbered words run all the time, and each has a server that is
killed (SIGKILL) as its upstream reaches a random place of the answer; a new server takes the place of a killed one.
Half of the streams have an upstream with prefill, the others one that repeats itself. They begin on every route. The
client that has started a stream and two followers, in formats that change from stream to stream, come back after each
cut; one of each response in the background names the `sequence_number` that it has.

The exit code is 1 if a reader lacks a word, has one twice, has two ends or an error; if a stream was asked for more
often than it was begun or taken over; or if no server of it was killed. Two ends are allowed, and counted: with
`batched` a reader of another format than `gai` may be told `log_behind`, and a stream whose server was killed before
the store had it is unknown; with `before_send` its upstream was never asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from tests.integration.forked import ForkedProcess
from tests.integration.stores.servers import RedisServer
from tests.integration.test_cli import environment
from tests.soak.client import Connection, CutError
from tests.soak.outlive.readers import BEHIND, BY_NUMBER, FORMATS, ROUTES, Reader, bearer
from tests.soak.outlive.upstream import Answer, WordsUpstream

SERVERS: Final = 3
STREAMS: Final = 9
"""Streams that run at a time."""
MOST_LOST: Final = 3
"""Workers that a stream may lose: `limits.takeovers`."""
PATIENCE: Final = 60.0
"""Seconds for the start of a server, and for one stream behind the last kill."""
PAUSE: Final = 0.01
_CONFIGURATION: Final = """\
[server]
port = 0
[store]
url = "{url}"
sync = "{sync}"
[stream]
on_midstream_failure = "continue"
[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{port}/{number}/v1"
[[model]]
name = "prefill"
upstream = "up"
prefill = true
[[model]]
name = "repeats"
upstream = "up"
"""


class Killed:
    """A server of the soak.

    Args:
        number: Never used before.
        process: Its process.
        errors: The file of its log.
    """

    def __init__(self, number: int, process: ForkedProcess, errors: Path) -> None:
        self.number = number
        self.process = process
        self.errors = errors


class Outlive:
    """Streams over one store, and the servers that are killed.

    Args:
        folder: For all files.
        url: The store.
        sync: `[store] sync`.
        kills: How many servers are killed.
        random: Of everything.
        tally: Counts.
    """

    def __init__(self, folder: Path, url: str, sync: str, kills: int, random: Random, tally: Counter[str]) -> None:
        self.faults: list[str] = []
        self._folder = folder
        self._url = url
        self._sync = sync
        self._left = kills
        self._random = random
        self._tally = tally
        self._upstream = WordsUpstream(random, PAUSE)
        self._upstream.reached = self._reached
        self._servers: dict[int, Killed] = {}
        self._last = 0
        self._shared = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._host = f"127.0.0.1:{self._shared.getsockname()[1]}"
        self._words = (60, 200)
        self._killed: dict[int, float] = {}  # when, in monotonic seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_killing = False

    async def run(self) -> None:
        """Runs streams until so many servers were killed, and these streams have ended."""
        await self._upstream.start()
        try:
            await asyncio.gather(*(self._start() for _ in range(SERVERS)))
            await asyncio.gather(*(self._keep_on() for _ in range(STREAMS)))
            await asyncio.gather(*self._tasks)
            await self._ended()
        finally:
            for server in [*self._servers.values()]:
                await self._end(server)
            await self._upstream.stop()
            self._shared.close()

    async def _ended(self) -> None:
        """Judges what is known once all streams have ended; the servers run."""

    # -- servers --

    def _configuration(self, number: int) -> str:
        """Returns the configuration of a server."""
        return _CONFIGURATION.format(url=self._url, sync=self._sync, port=self._upstream.port, number=number)

    async def _start(self) -> None:
        self._last += 1
        number = self._last
        folder = self._folder / f"{number}"
        folder.mkdir()
        (folder / "gai-fast.toml").write_text(self._configuration(number))
        errors = folder / "log"
        with errors.open("wb") as file:
            arguments = ("serve", "--fd", self._shared)
            process = ForkedProcess(arguments, folder, environment(), PATIENCE, file.fileno())
        await process.__aenter__()
        async with asyncio.timeout(PATIENCE):
            await process.stdout.readuntil(b"\nmodels: ")
        self._servers[number] = Killed(number, process, errors)

    async def _end(self, server: Killed) -> None:
        del self._servers[server.number]
        if server.process.returncode is not None:
            self.faults.append(f"server {server.number} ended by itself: {server.process.returncode}")
        await server.process.__aexit__()
        log = server.errors.read_text(errors="replace")
        if "bug" in log or "Traceback" in log:
            self.faults.append(f"server {server.number}: {log[-2000:]}")

    def _reached(self, answer: Answer) -> None:
        """Kills the server of an answer, unless another stream would lose too many."""
        if not self._left or answer.lost >= MOST_LOST:
            answer.kills.clear()
        if self._is_killing or answer.server not in self._servers or not answer.kills:
            return
        running = [each for each in self._upstream.answers.values() if not each.is_over]
        lost = [each for each in running if self._may_lose(each, answer.server)]
        if any(each.lost >= MOST_LOST for each in lost):
            self._tally["kills put off"] += 1
            return
        for each in lost:
            each.lost += 1
            each.is_running = False  # until another server asks
        del answer.kills[0]
        self._left -= 1
        self._is_killing = True
        self._tally["kills"] += 1
        task = asyncio.create_task(self._kill(self._servers[answer.server]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _may_lose(self, answer: Answer, server: int) -> bool:
        """Returns whether a stream may be of a server: which one takes it over is not known before it asks."""
        return answer.server == server or not answer.is_running

    async def _kill(self, server: Killed) -> None:
        self._killed[server.number] = time.monotonic()
        await self._end(server)
        await self._start()
        self._is_killing = False

    # -- streams --

    def _secret(self, number: int) -> str:
        """Returns the secret of a stream's key. Empty: it has none."""
        return ""

    async def _keep_on(self) -> None:
        while self._left and not self.faults:
            await self._stream()

    async def _stream(self) -> None:
        words = self._random.randint(*self._words)
        number = self._tally["streams"]
        self._tally["streams"] += 1
        answer = Answer(f"{self._sync}-{number}", words, [], self._secret(number))
        answer.kills = [self._random.randint(1, len(answer.text) - 1) for _ in range(self._random.randint(1, 2))]
        answer.kills.sort()
        self._upstream.answers[answer.tag] = answer
        route = ROUTES[number % len(ROUTES)]
        form = BY_NUMBER if route.form == "responses" else FORMATS[number % len(FORMATS)]
        readers = [Reader(self._host, each, self._random, answer.secret) for each in (route.form, "gai", form)]
        self._tally[f"streams of {route.path}"] += 1
        body = {**route.asking(answer.tag), "model": ("prefill", "repeats")[number // len(FORMATS) % 2]}
        first = asyncio.create_task(readers[0].start(route.path, body, answer.tag))
        tasks = [first]
        try:
            async with asyncio.timeout(4 * PATIENCE):
                while not readers[0].stream_id and not first.done():  # noqa: ASYNC110  # it sets no event
                    await asyncio.sleep(0.01)
                tasks += [asyncio.create_task(each.follow(readers[0].stream_id)) for each in readers[1:]]
                await asyncio.gather(*tasks)
        except TimeoutError:
            where = [f"{each.name} {len(each.text)} of {len(answer.text)}, {each.cuts} cuts" for each in readers]
            self.faults.append(f"{answer.tag}: no end: {where}")
        finally:
            for task in tasks:
                task.cancel()
        answer.is_over = True
        await self._judge(answer, readers)
        del self._upstream.answers[answer.tag]

    async def _judge(self, answer: Answer, readers: Sequence[Reader]) -> None:
        # No server went on with it. With `before_send` the store has it before the upstream is asked.
        most_asked = 0 if self._sync == "before_send" else 1
        if readers[0].is_unknown and answer.asked <= most_asked:
            self._tally["never stored"] += 1
            return
        state = await self._state(readers[0].stream_id, answer.secret)
        what = f"{answer.tag} ({readers[0].stream_id}, lost {answer.lost}, {state})"
        takeovers = state.get("takeovers", 0)
        self._tally["take-overs"] += takeovers
        self._tally["streams that lost a server"] += bool(answer.lost)
        if self._left and not answer.lost:
            self.faults.append(f"{what}: no server was killed")
        if answer.asked > 1 + takeovers:
            self.faults.append(f"{what}: asked {answer.asked} times")
        for reader in readers:
            self._tally[f"readers of {reader.name}"] += 1
            self._tally["cuts"] += reader.cuts
            self._tally["gaps"] += reader.gaps
            who = f"{what}, a reader of {reader.name} with {reader.cuts} cuts"
            is_behind = any(each in BEHIND for each in reader.errors)
            if is_behind and self._sync == "batched" and reader.form != "gai":
                self._tally["log_behind"] += 1
                continue
            if reader.faults or reader.errors or reader.ends != 1:
                self.faults.append(f"{who}: {reader.faults} {reader.errors} {reader.ends} ends")
            if reader.text != answer.text:
                self.faults.append(f"{who}: {_difference(reader.text, answer.text)}")

    async def _state(self, stream_id: str, secret: str) -> dict[str, Any]:
        for _ in range(150):  # if its server was killed before the end was stored, it is generated once more
            try:
                connection = await Connection.open(self._host)
                headers = {"accept": "application/json", "connection": "close", **bearer(secret)}
                reply = await connection.ask("GET", f"/api/v1/streams/{stream_id}", None, headers)
                body = await reply.rest()
                connection.close()
                state: dict[str, Any] = json.loads(body)
                if reply.status == 200 and state["state"] != "running":
                    return state
            except CutError:
                pass
            await asyncio.sleep(0.2)
        return {"state": "unknown"}


def _difference(text: str, wanted: str) -> str:
    words, all_ = text.split(), wanted.split()
    doubled = [word for word, count in Counter(words).items() if count > 1]
    lost = [word for word in all_ if word not in {*words}]
    at = next((at for at, pair in enumerate(zip(text, wanted, strict=False)) if pair[0] != pair[1]), len(text))
    return (
        f"lost {lost[:5]}, doubled {doubled[:5]}, differs at {at} of {len(wanted)}: {text[max(0, at - 20) : at + 20]!r}"
    )


def main(arguments: Sequence[str] | None = None, kind: type[Outlive] = Outlive, kills: int = 1000) -> int:
    """Runs the soak; returns the exit code.

    Args:
        arguments: Those of the command line.
        kind: What it runs for each store.
        kills: How many servers are killed, unless the command line says so.
    """
    parser = argparse.ArgumentParser(prog="soak-outlive", description="Servers are killed amid streams.")
    parser.add_argument("--kills", type=int, default=kills, help=f"how many (default: {kills})")
    parser.add_argument("--stores", default="sqlite,redis", help="of which kind (default: both)")
    parser.add_argument("--sync", default="before_send,batched", help="`[store] sync` (default: both)")
    parser.add_argument("--seed", type=int, help="of everything random (default: a new one)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its servers end with it
    return asyncio.run(_soak(options, kind))


async def _soak(options: argparse.Namespace, kind: type[Outlive]) -> int:
    random, tally = Random(options.seed), Counter[str]()
    cases = [(store, sync) for store in options.stores.split(",") for sync in options.sync.split(",")]
    faults = 0
    for number, (store, sync) in enumerate(cases):
        began, before = time.monotonic(), tally.copy()
        kills = options.kills // len(cases) + (number < options.kills % len(cases))
        with tempfile.TemporaryDirectory(prefix="gai-fast-outlive-") as name:
            redis = None
            url = f"sqlite:///{name}/store.db"
            if store == "redis":
                redis = RedisServer(Path(name))
                redis.start()
                url = redis.url
            outlive = kind(Path(name), url, sync, kills, random, tally)
            try:
                await outlive.run()
            finally:
                if redis is not None:
                    redis.kill()
        faults += len(outlive.faults)
        counted = {key: count - before[key] for key, count in sorted(tally.items()) if count != before[key]}
        text = f"{store}, {sync}, seed {options.seed}: {time.monotonic() - began:.0f} s, {counted}"
        print(text, *outlive.faults[:10], sep="\n  ", flush=True)
    is_enough = tally["kills"] >= options.kills
    print(f"faults: {faults}" + ("" if is_enough else ", and too few kills"))
    return 1 if faults or not is_enough else 0


if __name__ == "__main__":
    sys.exit(main())
