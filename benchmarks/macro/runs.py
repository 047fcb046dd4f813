"""`python -m benchmarks.macro.runs [--rounds N] [KEY]…`: what runs cost, beside streams without tools.

* `turns`: 100 runs at once, whose last tools answer at once: the time from each result to the request of the next turn,
  beside that from the client's request to the upstream's, of the same runs and of 100 streams without tools.
* `crowd`: 1,000 runs of three steps at once, beside 1,000 resumable streams of the same text, each on a gateway of its
  own: resident memory at its most, and the p99 of the time to the first token of others, which ask meanwhile.

Model, tools and clients of the runs are in this process; the others are `load.c` and `upstream.c`, which share a core
with it and go ahead of it where that is allowed: p99 was 8 to 16 ms otherwise, most of it waiting for this process.
Figures are medians of rounds, ratios those within a round. Exit code 1: an answer was wrong, or a ratio is above its
bound in `MOST`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import uvloop

from benchmarks.contenders import EVENTS
from benchmarks.macro.environments import tool
from benchmarks.macro.measuring import LIMIT_SECONDS, assigned, checked, drive, request_bytes
from benchmarks.macro.running import Fault, Process, cores, free_port, may_go_ahead
from benchmarks.macro.scene import Row, argument_parser, measure, reported
from benchmarks.macro.scene import Scene as Processes

ROUNDS: Final = 5
AT_ONCE: Final = 100
"""Runs of `turns`."""
BURSTS: Final = 10
"""Bursts of each kind in a round of `turns`: a p99 is of 1,000 times."""
CROWD: Final = 1_000
STEPS: Final = 3
DELTAS: Final = 10
"""Deltas of a turn."""
INTERVAL: Final = 0.5
"""Seconds between the deltas of `crowd`."""
RAMP: Final = INTERVAL * DELTAS
"""Seconds in which a crowd comes, as long as a turn: the runs of many users are not in step."""
OTHERS: Final = 4
"""Connections of the others, which ask one after the other."""
OTHER_EVENTS: Final = 5
OTHER_INTERVAL_US: Final = 2_000
LOOK_SECONDS: Final = 0.2
SETTLING: Final = 0.05
"""Seconds until a gateway has nothing left to do for calls that wait."""
AHEAD: Final = 2
"""The priority of the gateway, and of the others and their provider; that of this process is 1."""
TEXT: Final = " and so on"
MOST: Final = {"turn median": 2.0, "turn p99": 4.0, "memory": 2.0, "first token": 1.5}
"""The bound of each ratio."""

CONFIG: Final = """\
[server]
demo = false

[limits]
streams_per_caller = 10000

[[upstream]]
name = "own"
provider = "openai"
base_url = "http://127.0.0.1:{model}/v1"
max_connections = 10000

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{others}/v1"
max_connections = 10000

[[tool]]
name = "look"
description = "Looks something up"
parameters = {{type = "object", properties = {{number = {{type = "integer"}}}}, required = ["number"]}}
url = "http://127.0.0.1:{tool}/look"
idempotent = true
max_calls = 1024

[[model]]
name = "plain"
upstream = "own"

[[model]]
name = "run"
upstream = "own"
tools = ["look"]

[[model]]
name = "bench"
upstream = "bench"
"""
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_NUMBER: Final = re.compile(rb"#(\d+)#")
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BODY_END: Final = b"\r\n0\r\n\r\n"
_T = TypeVar("_T")


def share(times: Sequence[float], part: float) -> float:
    """Returns the time that a part of all times is not above."""
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


# ---- model, tools and clients ----------------------------------------------------------------------------------------


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frame(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _chunk(b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode())


def _call(number: int, step: int) -> bytes:
    function = {"name": "look", "arguments": json.dumps({"number": number})}
    return _frame({"tool_calls": [{"index": 0, "id": f"call_{step}", "type": "function", "function": function}]})


def _end(finish: str) -> bytes:
    usage = b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9}}\n\n'
    return _frame({}, finish) + _chunk(usage) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


_DELTA: Final = _frame({"content": TEXT})


class World:
    """The model and its tool, on the running loop.

    Args:
        deltas: Deltas of a turn.
        interval: Seconds between them; 0: they come at once.
        steps: Turns of a run.
        is_held: Whether results are held until `release`.

    Attributes:
        asked: When the last request of a conversation has come, by its number.
        held: What sends the result of a call, by the number of its conversation.
        answered: When the result was sent, by the number.
    """

    def __init__(self, deltas: int, interval: float, steps: int, *, is_held: bool) -> None:
        self.deltas, self.interval, self.steps, self.is_held = deltas, interval, steps, is_held
        self.asked: dict[int, float] = {}
        self.held: dict[int, asyncio.Transport] = {}
        self.answered: dict[int, float] = {}

    async def serve(self) -> tuple[int, int]:
        """Returns the ports of the model and of the tool."""
        loop, ports = asyncio.get_running_loop(), (free_port(), free_port())
        await loop.create_server(lambda: _Model(self), "127.0.0.1", ports[0], backlog=4096)
        await loop.create_server(lambda: _Tool(self), "127.0.0.1", ports[1], backlog=4096)
        return ports

    def answer(self, number: int, transport: asyncio.Transport) -> None:
        """Sends the result of a call."""
        body = b'{"number":%d}' % number
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.answered[number] = time.perf_counter()
        transport.write(head + body)

    def release(self) -> None:
        """Sends the results that are held."""
        held, self.held = self.held, {}
        for number, transport in held.items():
            self.answer(number, transport)


class _Peer(asyncio.Protocol):
    """A connection on which requests come one by one.

    Args:
        world: Where it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(self._data, 0, end) if end > 3 else None
        if length is not None and len(self._data) >= end + int(length[1]):
            body, self._data = self._data[end:], b""
            self.requested(body)

    def requested(self, body: bytes) -> None:
        """A request has come."""
        raise NotImplementedError


class _Model(_Peer):
    """A connection to the model."""

    def requested(self, body: bytes) -> None:
        now, found = time.perf_counter(), _NUMBER.search(body)
        assert found is not None
        number, world = int(found[1]), self._world
        world.asked[number] = now
        step = 1 + body.count(b'"role":"tool"')
        calls = b'"tools":' in body and step < world.steps
        # A stream without tools says in one turn what a run says in all.
        count = world.deltas if b'"tools":' in body or not world.interval else world.deltas * world.steps
        last = (_call(number, step) + _end("tool_calls")) if calls else _end("stop")
        if world.interval:
            self._transport.write(_HEAD)
            self._say(count, last)
        else:
            self._transport.write(_HEAD + _DELTA * count + last)

    def _say(self, count: int, last: bytes) -> None:
        if not count:
            self._transport.write(last)
            return
        self._transport.write(_DELTA)
        asyncio.get_running_loop().call_later(self._world.interval, self._say, count - 1, last)


class _Tool(_Peer):
    """A connection to the tool."""

    def requested(self, body: bytes) -> None:
        number, world = json.loads(body)["number"], self._world
        if world.is_held:
            world.held[number] = self._transport
        else:
            world.answer(number, self._transport)


class Client(asyncio.Protocol):
    """One client, on a connection of its own.

    Attributes:
        over: Done when the answer has ended, or the connection.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._last = b""
        self._transport: Any = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._last = (self._last + data)[-len(_BODY_END) :]
        if self._last == _BODY_END and not self.over.done():
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def ask(self, model: str, number: int, **more: Any) -> None:
        """Asks for a stream."""
        self._pieces.clear()
        self._last = b""
        self.over = asyncio.get_running_loop().create_future()
        body = json.dumps({"model": model, "stream": True, "query": f"Look up #{number}#", **more}).encode()
        head = b"POST /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))

    def check(self, deltas: int, results: int) -> None:
        """Checks the answer.

        Raises:
            Fault: It has other deltas or results of tools, or no good end.
        """
        data = b"".join(self._pieces)
        said, found = data.count(b'"type":"text.delta"'), data.count(b'"type":"tool.result"')
        is_well = data.startswith(b"HTTP/1.1 200 ") and data.count(TEXT.encode()) >= said
        if not is_well or (said, found) != (deltas, results) or b'"finish_reason":"stop"' not in data:
            raise Fault(f"WRONG: {said} deltas and {found} results: {data[:300]!r} … {data[-300:]!r}")

    def close(self) -> None:
        self._transport.close()


async def connected(port: int) -> Client:
    """Returns a client that has asked for nothing yet."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


# ---- scenarios -------------------------------------------------------------------------------------------------------


class Scene(Processes):
    """The processes of one scenario, with the others' provider. Arguments as for `Processes`."""

    priority = AHEAD

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self._load = tool("load")
        self._provider = free_port()
        options = {
            "port": self._provider,
            "words": self.words,
            "interval_us": OTHER_INTERVAL_US,
            "events": OTHER_EVENTS,
        }
        self.start("provider", [tool("upstream"), *assigned(options)], self._provider)

    async def serve(self, name: str, world: World) -> tuple[Process, int]:
        """Starts a gateway before a world; returns it and its port."""
        model, own = await world.serve()
        text = CONFIG.format(model=model, tool=own, others=self._provider)
        return await asyncio.to_thread(self.gateway, name, text)

    def first_token(self, port: int, seconds: float) -> float:
        """Returns the p99 of the time to the first token of others, in microseconds.

        Raises:
            Fault: An answer was wrong.
        """
        request = self.folder / f"{port}.http"
        request.write_bytes(request_bytes(EVENTS, port))
        options = {
            "port": port,
            "request": request,
            "words": self.words,
            "key": EVENTS.key,
            "end": EVENTS.end,
            "events": OTHER_EVENTS,
            "conns": OTHERS,
            "milliseconds": int(seconds * 1000),
        }
        found: float = checked(drive(self._load, options, priority=self.priority))["ttft"]["p99"]
        return found


def turns(scene: Scene, rounds: int) -> list[Row]:
    """Measures the time between two turns of a run; arguments as for a scenario of `scene.measure`."""
    return _run(_turns(scene, rounds))


async def _turns(scene: Scene, rounds: int) -> list[Row]:
    world = World(DELTAS, 0.0, STEPS - 1, is_held=True)
    _, port = await scene.serve("gateway", world)
    clients = [await connected(port) for _ in range(AT_ONCE)]
    await _bursts(world, clients)
    ratios: dict[str, list[float]] = {"turn median": [], "turn p99": []}
    beside: list[float] = []
    rows: list[Row] = [("round", "before", "median ms", "p99 ms")]
    for number in range(rounds):
        times: dict[str, list[float]] = {"a stream": [], "a run": [], "the next turn": []}
        for _ in range(BURSTS):
            for name, some in (await _bursts(world, clients)).items():
                times[name] += some
        figures = {name: [share(some, part) * 1e3 for part in (0.5, 0.99)] for name, some in times.items()}
        rows += [(number + 1, name, *(f"{each:.1f}" for each in some)) for name, some in figures.items()]
        for at, name in enumerate(ratios):
            ratios[name].append(figures["the next turn"][at] / figures["a run"][at])
        beside.append(figures["the next turn"][0] / figures["a stream"][0])
    rows.append(("to a stream", f"{median(beside):.2f}", "", ""))
    return _with_ratios(rows, ratios)


async def _bursts(world: World, clients: Sequence[Client]) -> dict[str, list[float]]:
    """Returns the times to the first request of streams and of runs, and from runs' results to the next one."""
    asked = {"a stream": await _ask_at_once(world, clients, "plain")}
    await asyncio.gather(*(client.over for client in clients))
    for client in clients:
        client.check(DELTAS, 0)
    asked["a run"] = await _ask_at_once(world, clients, "run")
    await _until(lambda: len(world.held) == len(clients), "calls were made")
    await asyncio.sleep(SETTLING)
    world.asked.clear()
    world.release()
    await asyncio.gather(*(client.over for client in clients))
    for client in clients:
        client.check(2 * DELTAS, 1)
    return {**asked, "the next turn": [world.asked[number] - at for number, at in world.answered.items()]}


async def _ask_at_once(world: World, clients: Sequence[Client], model: str) -> list[float]:
    """Returns the times from the clients' requests to their upstream's."""
    world.asked.clear()
    began: dict[int, float] = {}
    for number, client in enumerate(clients):
        began[number] = time.perf_counter()
        client.ask(model, number)
    await _until(lambda: len(world.asked) == len(clients), "requests reached the model")
    return [world.asked[number] - at for number, at in began.items()]


async def _until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        await asyncio.sleep(0.005)
        if time.monotonic() > end:
            raise Fault(f"not all {what}")


def crowd(scene: Scene, rounds: int) -> list[Row]:
    """Measures a thousand runs; arguments as for a scenario of `scene.measure`."""
    rows: list[Row] = [("round", "streams, KiB each", "others' p99, ms", "runs, KiB each", "others' p99, ms")]
    ratios: dict[str, list[float]] = {"memory": [], "first token": []}
    for number in range(rounds):
        figures: list[float] = []
        for name, results in (("plain", 0), ("run", STEPS - 1)):
            figures += _run(_crowd(scene, f"{name} {number}", name, results))
        ratios["memory"].append(figures[2] / figures[0])
        ratios["first token"].append(figures[3] / figures[1])
        rows.append((number + 1, *(f"{each:.1f}" for each in figures)))
    return _with_ratios(rows, ratios)


async def _crowd(scene: Scene, name: str, model: str, results: int) -> tuple[float, float]:
    """Returns the KiB of each stream at their most, and the p99 of others in milliseconds."""
    world = World(DELTAS, INTERVAL, STEPS, is_held=False)
    process, port = await scene.serve(name, world)
    await asyncio.to_thread(scene.first_token, port, 0.5)
    warmed = await connected(port)
    warmed.ask(model, 0, resumable=True)
    await warmed.over
    clients: list[Client] = []
    before = most = process.resident_kib
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(LOOK_SECONDS):
            most = max(most, process.resident_kib)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        others = asyncio.create_task(asyncio.to_thread(scene.first_token, port, RAMP + INTERVAL * DELTAS * STEPS))
        for number in range(CROWD):
            clients.append(await connected(port))
            clients[-1].ask(model, number, resumable=True)
            await asyncio.sleep(max(0.0, began + number * RAMP / CROWD - time.monotonic()))
        await _until(lambda: all(client.over.done() for client in clients), "answers have ended")
        p99 = await others
    finally:
        ended.set()
        watcher.join()
    for client in clients:
        client.check(DELTAS * STEPS, results)
        client.close()
    await asyncio.to_thread(process.stop)
    return (most - before) / CROWD, p99 / 1e3


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return uvloop.run(work)


def _with_ratios(rows: list[Row], ratios: dict[str, list[float]]) -> list[Row]:
    """Returns the rows and one for the median of each ratio; raises as `reported`."""
    figures = {name: median(each) for name, each in ratios.items()}
    more = [""] * (len(rows[0]) - 3)
    rows += [(name, f"{ratio:.2f}", f"<= {MOST[name]:g}", *more) for name, ratio in figures.items()]
    return reported(rows, figures, MOST)


def main() -> int:
    """Returns the exit code."""
    scenarios = {"turns": turns, "crowd": crowd}
    parser = argument_parser("benchmarks.macro.runs", __doc__ or "", scenarios, ROUNDS)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    pair = cores()
    if pair is not None:
        os.sched_setaffinity(0, {pair[1]})
    if may_go_ahead():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(AHEAD - 1))
    else:
        print("no process may go ahead here (`chrt --fifo`): first tokens wait for this process", file=sys.stderr)
    return measure(parser, scenarios, Scene, arguments.keys, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
