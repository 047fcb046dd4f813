"""`python -m benchmarks.macro.doors [--rounds N] [KEY]…`: what gRPC and a sealed store add to the cost of an event.

* `grpc`: answers of 1,000 deltas that come at once, through `gai-fast grpc` and its clients; then as many over SSE, at
  the same pace: a gateway that is seldom asked has lost its code from the caches, and its timers count with few events.
  Beside them, the bare server of grpcio, which writes ready messages of the same form.
* `sealed`: durable answers, kept by `sqlite://` and `redis://`, sealed and not: of 1,000 and of 100 deltas that come at
  once, and of 100 that come 10 ms apart. The time in which the rest of a load is written counts.

A figure is CPU time of a process (user and system) by event. The cases take turns; figures are medians of the turns,
ratios and differences those within a turn. A sealed store takes many short turns, so that what else runs on the machine
slows both cases; beside its ratio stands the standard error. Exit code 1: an answer was not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from statistics import median, stdev
from typing import Any, Final, NamedTuple

from benchmarks.contenders import EVENTS, Route
from benchmarks.macro.environments import tool
from benchmarks.macro.measuring import assigned, checked, drive, request_bytes
from benchmarks.macro.running import Fault, Process, cores, free_port
from benchmarks.macro.scene import Row, argument_parser, measure
from benchmarks.macro.scene import Scene as Processes

ROUNDS: Final = 5
BURST: Final = 1000
CALLS: Final = 4
"""Calls, and SSE connections, that are under way at once."""
ANSWERS: Final = 100
"""Answers of a turn of `grpc`."""
SETTLING: Final = 0.2
"""Seconds after a load in which the store gets the rest."""
GENERATE: Final = "/gai.v1.Gateway/Generate"
DURABLE: Final = Route(EVENTS.path, {**EVENTS.body, "resumable": True}, EVENTS.key, EVENTS.end)

CONFIG: Final = """\
[server]
demo = false

[limits]
streams_per_caller = 10000

[store]
url = "{store}"
{sealing}

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"
"""


class Load(NamedTuple):
    """The answers of a turn of `sealed`.

    Args:
        name: For the table.
        events: The deltas of an answer.
        interval_us: The time between two of them; 0: they come at once.
        connections: The answers under way at a time.
        answers: All of them.
        turns: The turns of a round.
    """

    name: str
    events: int
    interval_us: int
    connections: int
    answers: int
    turns: int


LOADS: Final = (
    Load("bursts of 1,000", BURST, 0, 32, 32, 20),
    Load("bursts of 100", 100, 0, 32, 160, 40),
    Load("paced", 100, 10_000, 200, 200, 4),
)


class Scene(Processes):
    """The processes of one scenario, and their loads. Arguments as for `Processes`."""

    def provider(self, events: int, interval_us: int = 0) -> int:
        """Starts a provider whose answers have so many deltas; returns its port."""
        port = free_port()
        options = {"port": port, "words": self.words, "interval_us": interval_us, "events": events}
        self.start(f"provider {port}", [tool("upstream"), *assigned(options)], port)
        return port

    def serve(self, name: str, provider: int, store: str = "memory://", *, sealed: bool = False) -> tuple[Process, int]:
        """Starts a gateway; returns it and its port."""
        sealing = ""
        if sealed:
            key = self.folder / "key"
            key.write_bytes(b64encode(secrets.token_bytes(32)))
            key.chmod(0o600)
            sealing = f'[store.encryption]\nkeys = ["file:{key}"]'
        return self.gateway(name, CONFIG.format(store=store, sealing=sealing, provider=provider))

    def load(self, port: int, load: Load) -> None:
        """Asks a gateway for durable answers.

        Raises:
            Fault: An answer was wrong.
        """
        request = self.folder / f"{port}.http"
        request.write_bytes(request_bytes(DURABLE, port))
        options = {
            "port": port,
            "request": request,
            "words": self.words,
            "key": DURABLE.key,
            "end": DURABLE.end,
            "events": load.events,
            "conns": load.connections,
            "requests": load.answers,
            "ramp_us": load.interval_us // load.connections,  # the streams of many users are not in step
        }
        checked(drive(tool("load"), options))


# ---- gRPC ------------------------------------------------------------------------------------------------------------


async def call(port: int) -> None:
    """Gets `ANSWERS` answers over gRPC, `CALLS` at once."""
    import grpc

    from gai_fast.grpc.messages import written

    request = written("GenerateRequest", json=json.dumps(EVENTS.body).encode())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        generate = channel.unary_stream(GENERATE)

        async def ask(number: int) -> None:
            for _ in range(number, ANSWERS, CALLS):
                received = 0
                async for _message in generate(request):
                    received += 1
                if received < BURST:
                    raise Fault(f"WRONG: an answer of {received} events")

        await asyncio.gather(*map(ask, range(CALLS)))


async def read_sse(port: int, seconds: float) -> None:
    """Gets `ANSWERS` answers over SSE, evenly in so many seconds."""
    route = Route(f"{EVENTS.path}?envelope=compact", EVENTS.body, EVENTS.key, EVENTS.end)  # as gRPC asks
    request, end, last = request_bytes(route, port), route.end.encode(), b"\r\n0\r\n\r\n"
    began = time.monotonic()

    async def ask(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, ANSWERS, CALLS):
            await asyncio.sleep(began + number * seconds / ANSWERS - time.monotonic())
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            while not answer.endswith(last):
                data = await reader.read(1 << 16)
                if not data:
                    raise Fault("WRONG: an answer that ends early")
                answer += data
            if end not in answer or answer.count(b'"text":') < BURST:
                raise Fault("WRONG: an answer that is not whole")
        writer.close()

    await asyncio.gather(*map(ask, range(CALLS)))


def serve_bare(port: int) -> None:
    """Serves ready messages with grpcio alone, in a process that is tuned like `gai-fast grpc`."""
    import grpc

    from gai_fast.grpc.messages import event_message
    from gai_fast.runtime.tuning import tune_process

    text = '{"type":"text.delta","seq":123,"text":" lighthouse"}'
    message = event_message({"type": "text.delta", "seq": 123, "text": " lighthouse"}, text)

    async def generate(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        for _ in range(BURST):
            await context.write(message)

    async def serve() -> None:
        server = grpc.aio.server()
        service, _, method = GENERATE[1:].partition("/")
        handlers = {method: grpc.unary_stream_rpc_method_handler(generate)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        tune_process()
        await server.wait_for_termination()

    asyncio.run(serve())


def measure_grpc(scene: Scene, rounds: int) -> list[Row]:
    """Returns the rows of `grpc`."""
    gateway, port = scene.serve("gateway", scene.provider(BURST))
    to_grpc, to_bare = free_port(), free_port()
    command = [sys.executable, "-m", "gai_fast", "grpc", "--url", f"http://127.0.0.1:{port}", "--port", str(to_grpc)]
    door = scene.start("grpc", command, to_grpc)
    bare = scene.start("bare", [sys.executable, "-m", "benchmarks.macro.doors", "--bare", str(to_bare)], to_bare)
    if (pair := cores()) is not None:
        os.sched_setaffinity(0, {pair[1]})  # beside the provider
    costs: dict[str, list[float]] = {"SSE": [], "gRPC": [], "door": [], "bare": []}
    for turn in range(-1, rounds):  # the first one warms up
        begun = time.monotonic()
        through, own = _cost(gateway, call(to_grpc), door)
        seconds = time.monotonic() - begun
        (direct,) = _cost(gateway, read_sse(port, seconds))
        (alone,) = _cost(bare, call(to_bare))
        if turn >= 0:
            for name, cost in zip(costs, (direct, through, own, alone), strict=True):
                costs[name].append(cost)
    ratios = [each / base for each, base in zip(costs["gRPC"], costs["SSE"], strict=True)]
    own_parts = [each - base for each, base in zip(costs["door"], costs["bare"], strict=True)]
    return [
        ("process", "µs an event", ""),
        ("gateway, SSE at the pace of gRPC", f"{median(costs['SSE']):.2f}", ""),
        ("gateway, gRPC", f"{median(costs['gRPC']):.2f}", f"{median(ratios):.2f} times SSE"),
        ("gai-fast grpc", f"{median(costs['door']):.1f}", f"{median(own_parts):.1f} more than grpcio"),
        ("grpcio alone", f"{median(costs['bare']):.1f}", ""),
    ]


def _cost(process: Process, load: Awaitable[None], *more: Process) -> list[float]:
    """Returns what an event costs each process, in microseconds of CPU."""
    processes = (process, *more)
    before = [each.cpu_seconds for each in processes]

    async def run() -> None:
        await load

    asyncio.run(run())
    return [(each.cpu_seconds - spent) * 1e6 / (ANSWERS * BURST) for each, spent in zip(processes, before, strict=True)]


# ---- sealing ---------------------------------------------------------------------------------------------------------


def measure_sealed(scene: Scene, rounds: int) -> list[Row]:
    """Returns the rows of `sealed`."""
    rows: list[Row] = [("durable answers", "µs an event", "sealed", "")]
    stores: Mapping[str, Callable[[str], str]] = {
        "sqlite": lambda name: f"sqlite:///{scene.folder}/{name}.db",
        "redis": lambda name: f"redis://127.0.0.1:{scene.redis()}",
    }
    for load in LOADS:
        provider = scene.provider(load.events, load.interval_us)
        for store, url in stores.items():
            plain, sealed = _in_turns(scene, rounds, load, provider, url)
            more = [each / base - 1 for each, base in zip(sealed, plain, strict=True)]
            error = 1.25 * stdev(more) / len(more) ** 0.5  # of a median
            shown = f"{median(more):+.1%} ± {error:.1%}"
            rows.append((f"{load.name}, {store}", f"{median(plain):.3f}", f"{median(sealed):.3f}", shown))
    return rows


def _in_turns(
    scene: Scene, rounds: int, load: Load, provider: int, url: Callable[[str], str]
) -> tuple[list[float], list[float]]:
    """Returns what an event costs a gateway whose store is not sealed, and one whose store is, in each turn."""
    costs: tuple[list[float], list[float]] = ([], [])
    gateways = []
    for is_sealed in (False, True):
        name = f"gateway-{provider}-{free_port()}"
        gateways.append(scene.serve(name, provider, url(name), sealed=is_sealed))
    cases = [*zip(gateways, costs, strict=True)]
    for turn in range(-1, rounds * load.turns):  # the first one warms up
        spent = [0.0, 0.0]
        for number in (0, 1, 1, 0):
            (process, port), _ = cases[number]
            before = process.cpu_seconds
            scene.load(port, load)
            time.sleep(SETTLING)
            spent[number] += process.cpu_seconds - before
        if turn >= 0:
            for (_, found), seconds in zip(cases, spent, strict=True):
                found.append(seconds * 1e6 / (2 * load.answers * load.events))
    for process, _ in gateways:
        process.stop()
    return costs


SCENARIOS: Final[Mapping[str, Callable[[Scene, int], list[Row]]]] = {"grpc": measure_grpc, "sealed": measure_sealed}


def main() -> int:
    """Returns the exit code."""
    parser = argument_parser("benchmarks.macro.doors", str(__doc__), SCENARIOS, ROUNDS)
    parser.add_argument("--bare", type=int, metavar="PORT", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.bare is not None:
        serve_bare(chosen.bare)
        return 0
    return measure(parser, SCENARIOS, Scene, chosen.keys, chosen.rounds)


if __name__ == "__main__":
    sys.exit(main())
