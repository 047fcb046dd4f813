"""`python -m benchmarks.macro.others [--rounds N] [KEY]…`: what slow clients and a slow store cost everybody else.

The figure is the time from an upstream's delta to its arrival at a client that reads, as in `paced`: 100 deltas 10 ms
apart, on 100 connections.

* `slow-clients`: 1,000 clients ask for an endless answer and read nothing of it. The others are measured before they
  come, while they come, while they are stuck, and while they are cut off. Their memory is that of the server's process
  and of the kernel's sockets (`/proc/net/sockstat`).
* `slow-store`: durable streams with `memory://`, with a redis-server, and with one whose replies take 200 ms.

Each round measures all cases one after the other; figures are medians of the rounds, and ratios and differences are
those within a round. Exit code 1: an answer was wrong, or a client that does not read was not cut off.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.contenders import EVENTS, Route
from benchmarks.macro.environments import tool
from benchmarks.macro.measuring import LIMIT_SECONDS, Sample, assigned, checked, drive, request_bytes
from benchmarks.macro.running import PAGE_KIB, Fault, Process, cores, free_port
from benchmarks.macro.scene import Row, argument_parser, measure
from benchmarks.macro.scene import Scene as Processes

ROUNDS: Final = 5
SLOW_CLIENTS: Final = 1000
COMING_SECONDS: Final = 3.0
WRITE_TIMEOUT: Final = 20.0
"""Seconds until they are cut off: long enough to measure before."""
FLOOD_RATE: Final = 300_000
"""Bytes a second of an endless answer, 1,100 deltas: faster than models are, so that its client is soon stuck."""
DELAY: Final = 0.2
"""Seconds until the slow store answers."""
CONNECTIONS: Final = 100
ANSWER: Final = 100
"""Deltas of an answer."""
INTERVAL_US: Final = 10_000
DURABLE: Final = Route(EVENTS.path, {**EVENTS.body, "resumable": True}, EVENTS.key, EVENTS.end)
FLOOD: Final = Route(EVENTS.path, {**EVENTS.body, "model": "flood"}, EVENTS.key, EVENTS.end)

CONFIG: Final = """\
[server]
demo = false

[limits]
streams_per_caller = 5000

[stream]
write_timeout = {write_timeout}

[store]
url = "{store}"

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
max_connections = 10000

[[upstream]]
name = "flood"
provider = "openai"
base_url = "http://127.0.0.1:{flood}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"

[[model]]
name = "flood"
upstream = "flood"
"""

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"bench-1",'
    b'"service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
    b'"choices":[{"index":0,"delta":{"content":" and so on"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_FRAMES: Final = _CHUNK * 64
_PIECE: Final = b"%x\r\n%b\r\n" % (len(_FRAMES), _FRAMES)

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Background:
    """Servers of the benchmark's own, on a loop in a thread.

    Attributes:
        sent: Bytes of endless answers that were taken.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, args=(cores(),), daemon=True).start()

    def _run(self, pair: tuple[int, int] | None) -> None:
        if pair is not None:
            os.sched_setaffinity(0, {pair[1]})  # this thread; beside the provider and the client
        self._loop.run_forever()

    def flood(self) -> int:
        """Starts a provider of endless answers; returns its port."""
        return self._start(self._flood, unsent=4096)

    def delay(self, port: int) -> int:
        """Starts a proxy whose answers take `DELAY` seconds; returns its port."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(self._copy(reader, to_writer, 0.0), self._copy(to_reader, writer, DELAY))

        return self._start(handle)

    def _start(self, handle: Handle, unsent: int = 0) -> int:
        """Starts a server; returns its port.

        Args:
            handle: Answers a connection.
            unsent: The size of its send buffers, so that little of what waits is theirs; 0: the system's.
        """
        listening = socket.create_server(("127.0.0.1", free_port()), backlog=SLOW_CLIENTS)
        if unsent:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, unsent)
        asyncio.run_coroutine_threadsafe(asyncio.start_server(handle, sock=listening), self._loop).result()
        port: int = listening.getsockname()[1]
        return port

    async def _flood(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_HEAD)
            while True:
                writer.write(_PIECE)
                await writer.drain()
                self.sent += len(_PIECE)
                await asyncio.sleep(len(_PIECE) / FLOOD_RATE)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(1 << 16):
            if delay:
                self._loop.call_later(delay, writer.write, data)
            else:
                writer.write(data)
        self._loop.call_later(delay, writer.close)


class Scene(Processes):
    """The processes of one scenario, with its provider. Arguments as for `Processes`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self._load = tool("load")
        self.background = Background()
        self._flood = self.background.flood()
        self._provider = free_port()
        options = {"port": self._provider, "words": self.words, "interval_us": INTERVAL_US, "events": ANSWER}
        self.start("provider", [tool("upstream"), *assigned(options)], self._provider)

    def serve(self, name: str, store: str = "memory://", write_timeout: float = 30.0) -> tuple[Process, int]:
        """Starts a gateway; returns it and its port."""
        return self.gateway(
            name, CONFIG.format(write_timeout=write_timeout, store=store, provider=self._provider, flood=self._flood)
        )

    def measure(self, port: int, route: Route, milliseconds: int) -> Sample:
        """Loads a gateway for some time; returns the sample.

        Raises:
            Fault: An answer was wrong.
        """
        request = self.folder / f"{port}.http"
        request.write_bytes(request_bytes(route, port))
        options = {
            "port": port,
            "request": request,
            "words": self.words,
            "key": route.key,
            "end": route.end,
            "events": ANSWER,
            "conns": CONNECTIONS,
            "milliseconds": milliseconds,
            "ramp_us": INTERVAL_US // CONNECTIONS,  # the streams of many users are not in step
        }
        return checked(drive(self._load, options))


# ---- slow clients ----------------------------------------------------------------------------------------------------


class SlowClients:
    """Clients that ask, and never read.

    Args:
        port: The gateway's.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def come(self) -> None:
        """Connects and asks, one after the other over most of a measurement."""
        request = request_bytes(FLOOD, self._port)
        begun = time.monotonic()
        for number in range(SLOW_CLIENTS):
            time.sleep(max(0.0, begun + COMING_SECONDS * number / SLOW_CLIENTS - time.monotonic()))
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", self._port))
            client.sendall(request)
            self._sockets.append(client)

    def close(self) -> None:
        """Closes what is left."""
        for each in self._sockets:
            each.close()


@contextmanager
def slow_clients(port: int) -> Iterator[threading.Thread]:
    """Slow clients; gives the thread in which they begin to come."""
    clients = SlowClients(port)
    coming = threading.Thread(target=clients.come, daemon=True)
    coming.start()
    try:
        yield coming
    finally:
        clients.close()


def measure_slow_clients(scene: Scene, rounds: int) -> list[Row]:
    """Returns the rows of `slow-clients`."""
    process, port = scene.serve("gateway", write_timeout=WRITE_TIMEOUT)
    scene.measure(port, EVENTS, 1000)
    phases: dict[str, list[Sample]] = {"alone": [], "they come": [], "they are stuck": [], "they are cut off": []}
    resident, kernel = [], []
    # Freed memory is kept for the next round: all rounds are compared with the start of the first one.
    resident_before = process.resident_kib
    for _ in range(rounds):
        phases["alone"].append(scene.measure(port, EVENTS, 4000))
        kernel_before = kernel_kib()
        begun = time.monotonic()
        with slow_clients(port) as coming:
            phases["they come"].append(scene.measure(port, EVENTS, 4000))
            coming.join()
            _wait_until_stuck(scene.background)
            resident.append((process.resident_kib - resident_before) / SLOW_CLIENTS)
            kernel.append((kernel_kib() - kernel_before) / SLOW_CLIENTS)
            phases["they are stuck"].append(scene.measure(port, EVENTS, 4000))
            if streams(port) != SLOW_CLIENTS:
                raise Fault("clients were cut off too early, as the machine is busy")
            time.sleep(max(0.0, begun + WRITE_TIMEOUT - 0.5 - time.monotonic()))
            phases["they are cut off"].append(scene.measure(port, EVENTS, 6000))
            _wait(lambda: not streams(port), "clients that do not read were not cut off")
    alone = phases["alone"]
    rows: list[Row] = [("the others, while", "p50", "p99", "p99: times as alone")]
    for name, samples in phases.items():
        ratio = median(
            each["latency"]["p99"] / base["latency"]["p99"] for each, base in zip(samples, alone, strict=True)
        )
        rows.append((name, *_percentiles(samples), f"{ratio:.2f}"))
    rows.append(("memory of a slow client", f"{median(resident):.0f} KiB", f"kernel: {median(kernel):.0f} KiB", ""))
    return rows


def _wait_until_stuck(background: Background) -> None:
    sent, since = background.sent, time.monotonic()
    end = since + LIMIT_SECONDS
    while time.monotonic() < min(since + 1.0, end):
        time.sleep(0.1)
        if background.sent != sent:
            sent, since = background.sent, time.monotonic()


def streams(port: int) -> int:
    """Streams that are under way at a gateway."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_SECONDS) as answer:
        text = answer.read().decode()
    return sum(int(float(number)) for number in re.findall(r"^gai_fast_active_streams{.*} (\S+)$", text, re.MULTILINE))


def kernel_kib() -> int:
    """Returns the memory of all TCP sockets of this machine, in KiB."""
    match = re.search(r"^TCP:.* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * PAGE_KIB


def _wait(condition: Callable[[], bool], problem: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Fault(problem)
        time.sleep(0.1)


# ---- a slow store ----------------------------------------------------------------------------------------------------


def measure_slow_store(scene: Scene, rounds: int) -> list[Row]:
    """Returns the rows of `slow-store`."""
    redis = scene.redis()
    slow = scene.background.delay(redis)
    stores = {
        "memory://": "memory://",
        "redis://": f"redis://127.0.0.1:{redis}",
        f"redis://, {DELAY * 1000:.0f} ms": f"redis://127.0.0.1:{slow}",
    }
    ports = {name: scene.serve(f"gateway {at}", url)[1] for at, (name, url) in enumerate(stores.items())}
    for port in ports.values():
        scene.measure(port, DURABLE, 1000)
    samples: dict[str, list[Sample]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, port in ports.items():
            samples[name].append(scene.measure(port, DURABLE, 4000))
    rows: list[Row] = [("store", "p50", "p99", "p99: more than memory://")]
    for name, some in samples.items():
        more = median(
            each["latency"]["p99"] - base["latency"]["p99"]
            for each, base in zip(some, samples["memory://"], strict=True)
        )
        rows.append((name, *_percentiles(some), f"{more / 1000:+.2f} ms"))
    return rows


def _percentiles(samples: Sequence[Sample]) -> tuple[str, str]:
    p50, p99 = (median(each["latency"][name] for each in samples) / 1000 for name in ("p50", "p99"))
    return f"{p50:.2f} ms", f"{p99:.2f} ms"


SCENARIOS: Final[Mapping[str, Callable[[Scene, int], list[Row]]]] = {
    "slow-clients": measure_slow_clients,
    "slow-store": measure_slow_store,
}


def main() -> int:
    """Returns the exit code."""
    parser = argument_parser("benchmarks.macro.others", str(__doc__), SCENARIOS, ROUNDS)
    chosen = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    return measure(parser, SCENARIOS, Scene, chosen.keys, chosen.rounds)


if __name__ == "__main__":
    sys.exit(main())
