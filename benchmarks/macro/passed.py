"""`python -m benchmarks.macro.passed [--rounds N] [KEY]…`: what the pass-through costs beside nginx.

* `embeddings`: requests to `/v1/embeddings` with 1 and with 48 inputs of 400 characters, one after the other on 16
  connections. The answer has 1,536 numbers for each, in base64 as OpenAI's SDK asks for them.

A figure is CPU time of the relay (user and system) by request. The relays take turns; figures are medians of rounds,
ratios those within a round. Exit code 1: an answer was wrong, or a ratio is above `MOST`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.contenders import Place
from benchmarks.contenders.nginx import CONTENDERS as NGINX
from benchmarks.macro.running import Fault, Process, cores, free_port
from benchmarks.macro.scene import Row, Scene, argument_parser, measure

ROUNDS: Final = 5
MOST: Final = 1.3
"""The highest ratio to nginx: the target."""
CONNECTIONS: Final = 16
SECONDS: Final = 2.0
"""The length of one turn."""
INPUTS: Final = (1, 48)
VECTOR: Final = "A" * (1536 * 4 * 4 // 3)

CONFIG: Final = """\
[server]
demo = false

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
lane = ["/v1/embeddings"]

[[model]]
name = "bench"
upstream = "bench"
id = "text-embedding-3-small"
"""


def _answer(inputs: int) -> bytes:
    data = [{"object": "embedding", "index": at, "embedding": VECTOR} for at in range(inputs)]
    usage = {"prompt_tokens": 100 * inputs, "total_tokens": 100 * inputs}
    return json.dumps({"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}).encode()


class _Provider(asyncio.Protocol):
    """One connection of the fake provider: an answer of the size that the header `x-inputs` says."""

    def __init__(self, answers: Mapping[bytes, bytes]) -> None:
        self._answers = answers
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            size = end + 4 + int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
            if len(self._data) < size:
                return
            self._data = self._data[size:]
            self._transport.write(self._answers[head.partition(b"x-inputs: ")[2].partition(b"\r")[0]])


class Lane(Scene):
    """The relays of one scenario. Arguments as for `Scene`."""

    def provider(self) -> int:
        """Starts the fake provider, in a thread on the core beside the relays; returns its port."""
        port, ready = free_port(), threading.Event()
        bodies = {str(each).encode(): _answer(each) for each in INPUTS}
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        answers = {name: head % len(body) + body for name, body in bodies.items()}

        async def serve() -> None:
            await asyncio.get_running_loop().create_server(lambda: _Provider(answers), "127.0.0.1", port)
            ready.set()
            await asyncio.get_running_loop().create_future()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
        ready.wait()
        return port

    def nginx(self, provider: int) -> tuple[Process, int]:
        """Starts an nginx; returns it and its port."""
        port, folder = free_port(), self.folder / "nginx"
        folder.mkdir()
        place = Place(
            port=port, upstream=f"http://127.0.0.1:{provider}", folder=folder, cache=folder, python=Path(sys.executable)
        )
        return self.start("nginx", NGINX[0].command(place), port, relay=True), port


async def _ask(port: int, request: bytes, answer: bytes, until: float) -> int:
    """Asks on one connection until a time; returns the number of requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    count = 0
    while time.monotonic() < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r")[0]
        body = b""
        if length:
            body = await reader.readexactly(int(length))
        else:
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        if body != answer:
            raise Fault(f"a wrong answer: {head[:60]!r}")
        count += 1
    writer.close()
    return count


def _turn(process: Process, port: int, inputs: int, seconds: float = SECONDS) -> float:
    """Returns the microseconds of CPU of one relay by request."""
    asked = {"model": "bench", "input": ["x" * 400] * inputs, "encoding_format": "base64"}
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Inputs: {inputs}\r\n"
    )
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def load() -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*[_ask(port, request, _answer(inputs), until) for _ in range(CONNECTIONS)]))

    before = process.cpu_seconds
    count = asyncio.run(load())
    return (process.cpu_seconds - before) / count * 1e6


def embeddings(scene: Lane, rounds: int) -> list[Row]:
    """Measures; arguments as for a scenario of `scene.measure`."""
    provider = scene.provider()
    relays = {"nginx": scene.nginx(provider), "gai-fast": scene.gateway("gai-fast", CONFIG.format(provider=provider))}
    rows: list[Row] = [("inputs", "gai-fast, µs", "nginx, µs", "ratio", "target")]
    ratios: list[float] = []
    for inputs in INPUTS:
        for process, port in relays.values():
            _turn(process, port, inputs, SECONDS / 4)
        turns = [{name: _turn(*relay, inputs) for name, relay in relays.items()} for _ in range(rounds)]
        ratios.append(median(each["gai-fast"] / each["nginx"] for each in turns))
        ours, its = (median(each[name] for each in turns) for name in ("gai-fast", "nginx"))
        rows.append((inputs, f"{ours:.0f}", f"{its:.0f}", f"{ratios[-1]:.2f}", f"<= {MOST}"))
    if max(ratios) > MOST:
        for row in rows:
            print(*row, file=sys.stderr)
        raise Fault(f"a request costs {max(ratios):.2f} of nginx, and the target is {MOST}")
    return rows


def main() -> int:
    """Returns the exit code."""
    scenarios = {"embeddings": embeddings}
    parser = argument_parser("benchmarks.macro.passed", __doc__ or "", scenarios, ROUNDS)
    arguments = parser.parse_args()
    pair = cores()
    if pair is not None:
        os.sched_setaffinity(0, {pair[1]})
    return measure(parser, scenarios, Lane, arguments.keys, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
