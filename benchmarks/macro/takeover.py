"""`python -m benchmarks.macro.takeover [--rounds N] [KEY]…`: what a killed server costs, its streams and others.

* `many`: two servers over one store, SQLite and Redis. One has 1,000 durable streams and is killed (SIGKILL); their
  clients ask the other one at once. Half of the streams have an upstream with prefill, the others one that repeats
  itself. Meanwhile the surviving server has streams of its own, every second of them durable, whose upstream and
  clients are a process that does nothing else: the figure is the 99th percentile of the times between two of their
  deltas, until as many streams have gone on as the surviving server has connections (`max_connections`). The upstream
  counts these. The other streams wait for them.
* `workers`: from the kill of a worker to the next request of its stream at the upstream, which another worker of the
  server sends. A follower waits.
* `machines`: the same with two servers of one Redis that see nothing of each other's processes. Needs `unshare` and
  the rights for a namespace of process ids.

A round of the last two is ten kills; the figures are medians of all. Exit code 1: an answer lacks a word, has one
twice or another end than its own, the upstream was asked too often, or a figure is beyond its bound.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

from benchmarks.macro.running import Fault, Process, free_port
from benchmarks.macro.scene import Row, argument_parser, measure, reported
from benchmarks.macro.scene import Scene as Processes
from gai_fast.model.limits import SHARED

ROUNDS: Final = 5
KILLS: Final = 10
"""Kills of a round."""
STREAMS: Final = 1000
CONNECTIONS: Final = 800
"""Of the surviving server to their upstream."""
OTHERS: Final = 50
WORDS: Final = 40
"""Deltas of a stream of the server that is killed."""
INTERVAL: Final = 1.0
"""Seconds between them."""
OTHER_WORDS: Final = 10_000
"""More than there is time for."""
OTHER_INTERVAL: Final = 0.05
COMING: Final = 4.0
"""Seconds in which the streams begin."""
ALONE: Final = 3.0
"""Seconds in which the other streams are watched before the kill."""
STORED: Final = 2
"""Deltas that each client has before the kill."""
PATIENCE: Final = 180.0
MOST: Final = {
    "gap": 250.0,
    "workers": 1500.0,
    "machines": (SHARED.lease_lost + 1.5) * 1e3,
}
"""The bound of each figure, in milliseconds."""
CONFIG: Final = """\
[server]
demo = false
grace = 0.1

[limits]
streams = 10000
streams_per_caller = 10000

[stream]
on_midstream_failure = "continue"

[store]
url = "{store}"

[[upstream]]
name = "bench"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{provider}/{name}/v1"
max_connections = {connections}

[[upstream]]
name = "beside"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{beside}/{name}/v1"

[[model]]
name = "other"
upstream = "beside"

[[model]]
name = "prefill"
upstream = "bench"
prefill = true

[[model]]
name = "repeats"
upstream = "bench"
"""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_Figures = TypeVar("_Figures")
_PROCESSES: Final = multiprocessing.get_context("spawn")
_CLOSED: Final = (ConnectionError, asyncio.IncompleteReadError)


# ---- the upstream ----------------------------------------------------------------------------------------------------


class Answer:
    """One stream's answer: numbered words.

    Args:
        tag: Its prompt.
        words: Their number.
        interval: Seconds between two of them.

    Attributes:
        said: The words that were sent.
        asked: When it was asked for, in monotonic seconds, and the port that the request came from.
    """

    def __init__(self, tag: str, words: int, interval: float) -> None:
        self.tag = tag
        self.words = [f"{tag}-{number} " for number in range(words)]
        self.text = "".join(self.words)
        self.interval = interval
        self.said = 0
        self.asked: list[tuple[float, int]] = []


class Provider:
    """An upstream of Chat Completions: it goes on with an answer behind a prefill, or repeats what it has said at once.

    Args:
        port: Its port. 0 chooses one.

    Attributes:
        answers: By prompt.
        port: Its port.
        most: The most connections that each server has had at a time.
    """

    def __init__(self, port: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        self.port = port or free_port()
        self.most: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=STREAMS)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = json.loads(await reader.readexactly(int(length[1]) if length else 0))
                if not name:
                    name = head.split(b"/")[1].decode()
                    self._open[name] += 1
                    self.most[name] = max(self.most[name], self._open[name])
                await self._answer(body, reader, writer)
        except (*_CLOSED, asyncio.CancelledError):  # a task of a server that is closed
            pass
        finally:
            self._open[name] -= 1
            writer.close()

    async def _answer(self, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages = body["messages"]
        answer = self.answers[messages[0]["content"]]
        answer.asked.append((time.monotonic(), writer.get_extra_info("peername")[1]))
        writer.write(_HEAD)
        prefill = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        if prefill:
            rest = answer.text[len(prefill) :].split(" ")[:-1]
            pieces = [f"{word} " for word in rest]
        else:
            pieces = answer.words[answer.said :]
            if answer.said:
                writer.write(_chunk("".join(answer.words[: answer.said])))
        for piece in pieces:
            writer.write(_chunk(piece))
            answer.said = max(answer.said, len(answer.words) - len(pieces))
            pieces = pieces[1:]
            await asyncio.sleep(answer.interval)
            if writer.is_closing() or reader.at_eof():
                raise ConnectionResetError
        writer.write(_chunk("", "stop") + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return _framed(b"data: %b\n\n" % json.dumps(data).encode())


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---- clients ---------------------------------------------------------------------------------------------------------


class Client:
    """A client of one stream, which comes back at once after each cut with the id of its last event.

    Args:
        answer: What it must get.
        durable: Whether the stream outlives its connection.

    Attributes:
        arrivals: When each delta came, in monotonic seconds.
        stream_id: The stream. Empty until it is known.
        cuts: How often its connection was cut.
        gaps: How often it was sent that something is void.
        refusals: What it was told as it was to come again.
    """

    def __init__(self, answer: Answer, *, durable: bool = True) -> None:
        self.answer = answer
        self.arrivals: list[float] = []
        self.stream_id = ""
        self.cuts = self.gaps = 0
        self.refusals: list[str] = []
        self._durable = durable
        self._text = ""
        self._last = ""
        self._ends: list[str] = []

    async def start(self, port: int, model: str, back: int) -> None:
        """Begins the stream, and reads it to its end.

        Args:
            port: The server's.
            model: The model.
            back: The server that is asked after a cut.

        Raises:
            Fault: The answer was wrong.
        """
        body = json.dumps({"model": model, "query": self.answer.tag, "resumable": self._durable}).encode()
        request = b"POST /api/v1/stream HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        await self._read(port, request + b"content-length: %d\r\n\r\n" % len(body) + body)
        await self.follow(back, self.stream_id)

    async def follow(self, port: int, stream_id: str) -> None:
        """Reads a stream to its end, if it has not ended. Arguments and errors as for `start`."""
        self.stream_id = stream_id
        while not self._ends:
            last = f"last-event-id: {self._last}\r\n" if self._last else ""
            await self._read(
                port, f"GET /api/v1/streams/{stream_id} HTTP/1.1\r\nhost: 127.0.0.1\r\n{last}\r\n".encode()
            )
        if self._ends != ["finish", "done"] or self._text != self.answer.text:
            raise Fault(f"WRONG: {self.answer.tag} ({stream_id}): {self._ends}, {self._text[-200:]!r}")

    async def _read(self, port: int, request: bytes) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head[:16]:
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if b" 503 " not in head[:16]:
                    raise Fault(f"WRONG: {head!r} {body!r}")
                self.refusals.append(body.decode())
                await asyncio.sleep(1.0)  # its `retry-after`
                return
            kept = b""
            while size := int(await reader.readline() or b"0", 16):
                *frames, kept = (kept + (await reader.readexactly(size + 2))[:-2]).split(b"\n\n")
                for frame in frames:
                    self._frame(frame)
        except _CLOSED:
            pass
        finally:
            if writer is not None:
                writer.close()
        self.cuts += not self._ends

    def _frame(self, frame: bytes) -> None:
        name, data = "", b""
        for line in frame.split(b"\n"):
            if line.startswith(b"id: "):
                name = line[4:].decode()
            elif line.startswith(b"data: "):
                data = line[6:]
        if not data:
            return
        event = json.loads(data)
        kind = event["type"]
        if name:
            self._last = name
            self.stream_id = self.stream_id or name.rpartition(".")[0]
        if kind == "text.delta":
            self._text += event["text"]
            self.arrivals.append(time.monotonic())
        elif kind == "stream.gap":
            self._text = event["text"]
            self.gaps += 1
        elif kind in ("finish", "done"):
            self._ends.append(kind)
        elif kind == "error":
            self._ends.append(f"error {event['error']}")


# ---- scenarios -------------------------------------------------------------------------------------------------------


class Scene(Processes):
    """The processes of one scenario. Arguments as for `Processes`."""

    def serve(
        self, name: str, provider: Provider, store: str, beside: int = 1, workers: int = 1, connections: int = STREAMS
    ) -> tuple[Process, int]:
        """Starts a server; returns it and its port. `beside` is the port of the other streams' upstream."""
        configuration = _configuration(name, provider, store, beside, connections)
        return self.gateway(name, configuration, "--workers", str(workers))

    def serve_elsewhere(self, name: str, provider: Provider, store: str) -> tuple[Process, int]:
        """Starts a server whose process other servers of this machine know nothing of; returns it and its port."""
        config, port = self.folder / f"{name}.toml", free_port()
        config.write_text(_configuration(name, provider, store))
        command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "gai_fast", "serve"]
        return self.start(name, [*command, "-c", str(config), "--port", str(port)], port, relay=True), port


def _configuration(name: str, provider: Provider, store: str, beside: int = 1, connections: int = STREAMS) -> str:
    return CONFIG.format(name=name, provider=provider.port, store=store, beside=beside, connections=connections)


def many(scene: Scene, rounds: int) -> list[Row]:
    """Measures 1,000 streams that are taken over at once."""
    stores = {"SQLite": f"sqlite:///{scene.folder}/store.db", "Redis": f"redis://127.0.0.1:{scene.redis()}"}
    rows: list[Row] = [("store", "p99 alone", "p99 then", "longest", "bound", "goes on: median", "last", "connections")]
    worst = 0.0
    for name, store in stores.items():
        found = [_run(_many(scene, f"{name}{number}", store)) for number in range(rounds)]
        alone, then, longest, middle, last, most = (median(column) for column in zip(*found, strict=True))
        worst = max(worst, then)
        shown = [f"{each * 1e3:.0f} ms" for each in (alone, then, longest)]
        bound = f"<= {MOST['gap']:g} ms"
        rows.append((name, *shown, bound, f"{middle:.1f} s", f"{last:.1f} s", f"{most:.0f} (<= {CONNECTIONS})"))
    return reported(rows, {"gap": worst * 1e3}, MOST)


async def _many(scene: Scene, name: str, store: str) -> tuple[float, float, float, float, float, int]:
    """Returns the 99th percentile of gaps before the kill and after it, the longest, from the kill until half of the
    streams and all of them have gone on, in seconds; and the most connections of the surviving server.
    """
    provider, beside = Provider(), free_port()
    async with provider.listening():
        lost, port = scene.serve(f"{name}-lost", provider, store, beside)
        _, back = scene.serve(f"{name}-left", provider, store, beside, connections=CONNECTIONS)
        others = Others(beside, back)
        streams = [_client(provider, f"{name}-{number}", WORDS, INTERVAL) for number in range(STREAMS)]
        async with others.running(), asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
            for number, each in enumerate(streams):
                group.create_task(each.start(port, ("prefill", "repeats")[number % 2], back))
                await asyncio.sleep(COMING / STREAMS)
            await _until(lambda: all(len(each.arrivals) >= STORED for each in streams))
            began = time.monotonic()
            await asyncio.sleep(ALONE)
            killed = time.monotonic()
            lost.signal(signal.SIGKILL)
            await _until(lambda: sum(bool(each.gaps) for each in streams) >= CONNECTIONS)
            ended = time.monotonic()
            alone, then = await others.gaps((began, killed), (killed, ended))
            await _until(lambda: all(each.gaps for each in streams))
    asked = sum(len(each.answer.asked) for each in streams)
    if asked != 2 * STREAMS:
        raise Fault(f"WRONG: the upstream was asked {asked} times")
    most = provider.most[f"{name}-left"]
    if most > CONNECTIONS:
        raise Fault(f"WRONG: {most} connections, at most {CONNECTIONS}")
    waits = sorted(each.answer.asked[1][0] - killed for each in streams)
    return _p99(alone), _p99(then), then[-1], median(waits), waits[-1], most


_Period = tuple[float, float]
"""Its beginning and its end, in monotonic seconds, which all processes of a machine share."""


class Others:
    """Streams of a server, whose upstream and clients are a process of their own.

    Args:
        upstream: A free port for the upstream.
        port: The server's.
    """

    def __init__(self, upstream: int, port: int) -> None:
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_others, args=(upstream, port, theirs), daemon=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the process."""
        self._process.start()
        try:
            await self._told()
            yield
        finally:
            self._process.kill()
            self._process.join()

    async def gaps(self, *periods: _Period) -> list[list[float]]:
        """Returns the times between two deltas of one stream, of which the second came within a period, sorted.

        Raises:
            Fault: An answer was wrong.
        """
        self._pipe.send(periods)
        found: list[list[float]] = await self._told()
        return found

    async def _told(self) -> Any:
        found = await asyncio.to_thread(self._pipe.recv)
        if isinstance(found, str):
            raise Fault(found)
        return found


def _others(upstream: int, port: int, pipe: Connection) -> None:
    """The process of `Others`. What it sends is a text if an answer was wrong."""
    try:
        _run(_watch(upstream, port, pipe))
    except Fault as fault:
        pipe.send(str(fault))


async def _watch(upstream: int, port: int, pipe: Connection) -> None:
    provider = Provider(upstream)
    clients = [
        _client(provider, f"{number}", OTHER_WORDS, OTHER_INTERVAL, durable=bool(number % 2))
        for number in range(OTHERS)
    ]
    async with provider.listening(), asyncio.TaskGroup() as group:
        reading = [group.create_task(each.start(port, "other", port)) for each in clients]
        await _until(lambda: all(len(each.arrivals) > STORED for each in clients))
        pipe.send(None)
        periods: list[_Period] = await asyncio.to_thread(pipe.recv)
        pairs = [pair for each in clients for pair in pairwise(each.arrivals)]
        pipe.send(
            [sorted(after - before for before, after in pairs if begin <= after <= end) for begin, end in periods]
        )
        for task in reading:
            task.cancel()


def _client(provider: Provider, tag: str, words: int, interval: float, *, durable: bool = True) -> Client:
    answer = provider.answers[tag] = Answer(tag, words, interval)
    return Client(answer, durable=durable)


def _p99(values: Sequence[float]) -> float:
    return values[len(values) * 99 // 100]


def _run(figures: Coroutine[Any, Any, _Figures]) -> _Figures:
    """Measures.

    Raises:
        Fault: The first one, or some stream has not ended in time.
    """
    try:
        return asyncio.run(figures)
    except BaseExceptionGroup as problems:
        faults = problems.subgroup(Fault)
        if faults is not None:
            raise Fault("; ".join(str(each) for each in faults.exceptions[:3])) from None
        if problems.subgroup(TimeoutError) is not None:
            raise Fault(f"not done after {PATIENCE:g} s") from None
        raise


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # clients set no event
        await asyncio.sleep(0.02)


def workers(scene: Scene, rounds: int) -> list[Row]:
    """Measures the time to the next request after the kill of a worker."""
    stores = {"SQLite": f"sqlite:///{scene.folder}/store.db", "Redis": f"redis://127.0.0.1:{scene.redis()}"}
    return _firsts("workers", {name: _run(_workers(scene, name, url, rounds)) for name, url in stores.items()})


async def _workers(scene: Scene, name: str, store: str, rounds: int) -> list[float]:
    """Returns the seconds of each kill."""
    provider = Provider()
    found: list[float] = []
    async with provider.listening():
        for _ in range(rounds):  # a server of its own: it waits longer and longer with new workers
            server, port = scene.serve(f"{name}-{len(found)}", provider, store, workers=2)
            for _ in range(KILLS):
                await _until(partial(_has_two, server))
                await asyncio.sleep(1.0)  # the new one answers too
                [first] = await _kill(provider, [(partial(_kill_worker, server), port, port)])
                found.append(first)
            server.stop()
    return found


def machines(scene: Scene, rounds: int) -> list[Row]:
    """Measures the time to the next request after the end of a machine."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode
    ):
        raise Fault("this process may make no namespace of process ids (unshare)")
    return _firsts("machines", {"Redis": _run(_machines(scene, f"redis://127.0.0.1:{scene.redis()}", rounds))})


async def _machines(scene: Scene, store: str, rounds: int) -> list[float]:
    """Returns the seconds of each kill; those of a round come together."""
    provider = Provider()
    found: list[float] = []
    async with provider.listening():
        _, back = scene.serve("left", provider, store)
        for number in range(rounds):
            lost = [scene.serve_elsewhere(f"lost-{number}-{kill}", provider, store) for kill in range(KILLS)]
            found += await _kill(provider, [(partial(_kill_server, each), port, back) for each, port in lost])
    return found


_Kill = tuple[Callable[[int], None], int, int]
"""Kills the server of a stream, whose argument is the port of its upstream connection; the server's port, and the port
of the server that is followed."""
_numbers: Final = count()


async def _kill(provider: Provider, kills: Sequence[_Kill]) -> list[float]:
    """Kills servers, each with a stream that a client follows elsewhere.

    Returns:
        Seconds from each kill to the next request at the upstream.
    """
    found = []
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        begun: list[tuple[Client, _Kill]] = []
        for each in kills:
            client = _client(provider, f"first-{next(_numbers)}", 20, 0.2)
            group.create_task(client.start(each[1], "repeats", each[2]))
            await _until(partial(_is_known, client))
            group.create_task(Client(client.answer).follow(each[2], client.stream_id))
            begun.append((client, each))
        await _until(lambda: all(len(client.arrivals) > STORED for client, _ in begun))
        for client, (kill, _, _) in begun:
            killed = time.monotonic()
            kill(client.answer.asked[0][1])
            found.append((client, killed))
        await _until(lambda: all(len(client.answer.asked) > 1 for client, _ in begun))
    if any(len(client.answer.asked) != 2 for client, _ in begun):
        raise Fault("WRONG: the upstream was asked too often")
    return [client.answer.asked[1][0] - killed for client, killed in found]


def _has_two(server: Process) -> bool:
    return len(server.children) == 2


def _is_known(client: Client) -> bool:
    return bool(client.stream_id)


def _kill_server(server: Process, _: int) -> None:
    server.signal(signal.SIGKILL)


def _kill_worker(server: Process, peer: int) -> None:
    """Kills the worker that has a connection from this port."""
    line = next(line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{peer:04X} " in line[:22])
    for child in server.children:
        for descriptor in Path(f"/proc/{child}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) == f"socket:[{line[9]}]":
                    os.kill(child, signal.SIGKILL)
                    return
    raise Fault("no worker has this connection")


def _firsts(key: str, found: Mapping[str, Sequence[float]]) -> list[Row]:
    rows: list[Row] = [("store", "kills", "median", "longest", "bound")]
    for name, each in found.items():
        shown = [f"{value:.2f} s" for value in (median(each), max(each))]
        rows.append((name, len(each), *shown, f"<= {MOST[key] / 1e3:g} s"))
    return reported(rows, {key: max(median(each) for each in found.values()) * 1e3}, MOST)


SCENARIOS: Final[Mapping[str, Callable[[Scene, int], list[Row]]]] = {
    "many": many, "workers": workers, "machines": machines,
}  # fmt: skip


def main() -> int:
    """Returns the exit code."""
    parser = argument_parser("benchmarks.macro.takeover", str(__doc__), SCENARIOS, ROUNDS)
    chosen = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    return measure(parser, SCENARIOS, Scene, chosen.keys, chosen.rounds)


if __name__ == "__main__":
    sys.exit(main())
