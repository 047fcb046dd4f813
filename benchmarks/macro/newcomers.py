"""`python -m benchmarks.macro.newcomers [--seconds N] [RATE]…`: whether new clients hold up the loop.

So many clients come each second, each on a connection of its own: it asks for an answer of 20 deltas, reads it and
leaves. The figures are the longest turns of the gateway's loop (`probed.py`) and the time from a client's `connect` to
the first byte of its answer. Exit code 1: an answer was not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

import uvloop

from benchmarks.contenders import EVENTS
from benchmarks.macro.environments import ROOT, tool
from benchmarks.macro.measuring import LIMIT_SECONDS, assigned, request_bytes
from benchmarks.macro.running import Process, free_port, pinned
from benchmarks.macro.scenarios import WORDS

RATES: Final = (100, 500, 1000)
SECONDS: Final = 60.0
LATE: Final = 20.0
"""Milliseconds of a stall that others notice."""
PATIENCE: Final = 30.0
WARM_UP: Final = 200
"""Clients before the figures."""
_CONFIG: Final = """\
[server]
demo = false

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"
"""


class Client(asyncio.Protocol):
    """One client.

    Args:
        request: Its bytes.
        end: The text that only the end of an answer holds.
    """

    def __init__(self, request: bytes, end: bytes) -> None:
        self._request = request
        self._end = end
        self._last = b""
        self._began = time.monotonic()
        self.first = 0.0
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.first = self.first or time.monotonic() - self._began
        self._last = self._last[-len(self._end) :] + data
        if self._end in self._last:
            self._settle(is_whole=True)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(is_whole=False)

    def _settle(self, *, is_whole: bool) -> None:
        if not self.over.done():
            self.over.set_result(is_whole)


async def visit(port: int, request: bytes, end: bytes) -> float:
    """One client from its coming to its leaving; returns the milliseconds to its first byte, or -1: not whole."""
    loop = asyncio.get_running_loop()
    client = Client(request, end)
    try:
        async with asyncio.timeout(PATIENCE):
            await loop.create_connection(lambda: client, "127.0.0.1", port)
            return client.first * 1000 if await client.over else -1.0
    except OSError:  # refused, or too late
        return -1.0


async def come(port: int, rate: int, seconds: float) -> list[float]:
    """Lets clients come evenly; returns what `visit` does, of each."""
    request, end = request_bytes(EVENTS, port), EVENTS.end.encode()
    began = time.monotonic()
    visits: list[asyncio.Task[float]] = []
    for number in range(int(rate * seconds)):
        late = began + number / rate - time.monotonic()
        if late > 0:
            await asyncio.sleep(late)
        visits.append(asyncio.create_task(visit(port, request, end)))
    return await asyncio.gather(*visits)


def measure(folder: Path, rate: int, seconds: float) -> tuple[str, bool]:
    """Measures one rate on a fresh gateway; returns the line of the table, and whether every answer was whole."""
    with ExitStack() as stack:
        words = folder / "words"
        words.write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
        provider, port = free_port(), free_port()
        options = {"port": provider, "words": words, "interval_us": 0, "events": 20}
        config, turns = folder / "newcomers.toml", folder / f"turns.{rate}"
        config.write_text(_CONFIG.format(provider=provider))
        serve = [sys.executable, "-m", "benchmarks.macro.probed", str(turns), "serve", "-c", str(config)]
        for name, command, listens, is_relay in (
            ("provider", [tool("upstream"), *assigned(options)], provider, False),
            ("gai-fast", [*serve, "--port", str(port)], port, True),
        ):
            environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
            log = folder / f"{name}.log"
            process = Process(name, pinned(command, relay=is_relay), log, environment, folder)
            stack.callback(process.stop)
            process.wait_until_it_listens(listens, LIMIT_SECONDS)
        uvloop.run(come(port, WARM_UP, 1))
        turns.write_text("")
        cpu = process.cpu_seconds
        firsts = sorted(uvloop.run(come(port, rate, seconds)))
        cpu = process.cpu_seconds - cpu
        time.sleep(1)  # the last line
    seen = [tuple(map(float, line.split())) for line in turns.read_text().splitlines()]
    stalls, works = sorted(each[0] for each in seen), sorted(each[1] for each in seen)
    late = sum(stall > LATE for stall in stalls)
    lost = sum(first < 0 for first in firsts)
    middle, high = firsts[len(firsts) // 2], firsts[int(len(firsts) * 0.99)]
    result = (
        f"{rate:>7,} {len(firsts):>8,} {lost:>6} {stalls[-1]:>10.1f} {stalls[len(stalls) // 2]:>10.1f} {late:>8} "
        f"{works[-1]:>10.1f} {middle:>8.1f} {high:>8.1f} {cpu * 1e6 / len(firsts):>8.0f} {os.getloadavg()[0]:>6.1f}"
    )
    return result, not lost


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="newcomers", description="New clients, and the turns of the loop.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each rate (default: 60)")
    parser.add_argument("rate", type=int, nargs="*", default=RATES, help="clients a second (default: 100 500 1000)")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(
        f"{'a second':>8} {'clients':>7} {'lost':>6} {'stall ms':>10} {'median s':>10} {'> 20 ms':>8} {'CPU ms':>10} "
        f"{'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} {'load':>6}"
    )
    is_whole = True
    with tempfile.TemporaryDirectory(prefix="gai-fast-newcomers-") as folder:
        for rate in options.rate:
            line, is_good = measure(Path(folder), rate, options.seconds)
            is_whole &= is_good
            print(line, flush=True)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
