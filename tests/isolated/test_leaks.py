"""A gateway in a process of its own: what it holds after many streams, and what a client that stops reading costs it.

The upstream is another process and the clients are this one, so that the figures are the gateway's alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.limits import KIB, MIB
from tests.integration.gateway import TESTED_LOOPS
from tests.waiting import SECONDS

ROOT = Path(__file__).parents[2]
STREAMS = 1500
STUCK = 40

UPSTREAM = """
import asyncio, json, sys

def delta(text, **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    data = b"data: %b\\n\\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()
    return b"%x\\r\\n%b\\r\\n" % (len(data), data)

HEAD = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n"
FEW = [delta("word ")] * 20
END = delta("", finish_reason="stop") + b"e\\r\\ndata: [DONE]\\n\\n\\r\\n0\\r\\n\\r\\n"
MUCH = delta("word " * 2000)

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\\r\\n")[0])
            body = await reader.readexactly(length)
            writer.write(HEAD)
            while b"endless" in body:
                writer.write(MUCH)
                await writer.drain()
            for piece in FEW:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(END)
    except (OSError, EOFError):
        pass
    finally:
        writer.transport.abort()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

GATEWAY = """
import asyncio, gc, json, os, sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from gai_fast.server.limits import LIMITS
from gai_fast.server.serving import start
from gai_fast.model.settings import ModelSettings, ServerSettings, Settings, StreamSettings, UpstreamSettings

def kinds():
    names = ("Session", "Relay", "StreamResponse", "ResponseWriter", "Exchange", "LaneConnection",
             "RequestReader", "HTTPRequest", "Handler", "UpstreamConnection", "Task", "TimerHandle", "Incoming",
             "Reply")
    return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__ in names)

def files():
    found = Counter(files=0, sets=0)
    for name in os.listdir("/dev/fd"):
        try:
            link = os.readlink(f"/dev/fd/{name}")
            found["sets" if "eventpoll" in link or "timerfd" in link else "files"] += 1
        except OSError:  # the folder's own
            pass
    return found

def objects():
    # The wheel keeps the slot of a tick until its time has come (test_timers.py), so a slow run has more of them.
    return sum(type(thing).__name__ != "_Slot" for thing in gc.get_objects())

async def main(port):
    object.__setattr__(LIMITS, "recent_requests", 100)  # the list of those that have ended is full from the start
    upstream = UpstreamSettings("up", "openai-compatible", f"http://127.0.0.1:{port}/v1")
    model = ModelSettings("m", upstream, "x", StreamSettings(write_timeout=600))
    settings = Settings(server=ServerSettings(port=0), upstreams={"up": upstream}, models={"m": model})
    running = await start(settings)
    print(running.url.rpartition(":")[2], flush=True)
    loop = asyncio.get_running_loop()
    gc.disable()
    # The looks do not visit what a server has before its first stream: this file takes 16 s of a core instead of 69.
    gc.collect()
    gc.freeze()
    garbage = 0
    lines = ThreadPoolExecutor(1)  # the loop's own begins another thread if the first one is not idle yet
    while await loop.run_in_executor(lines, sys.stdin.readline):
        garbage += gc.collect()
        facts = {
            **files(), "garbage": garbage, "tasks": len(asyncio.all_tasks()),
            "streams": len(running.engine.streams), "timers": len(running.engine.timers),
            "kinds": kinds(), "objects": objects(),
        }
        print(json.dumps(facts), flush=True)
    await running.close()

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main(int(sys.argv[1])))
else:
    asyncio.run(main(int(sys.argv[1])))
"""


class Child:
    """A script in a process of its own; its first line is the port it listens on."""

    def __init__(self, source: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=SECONDS)[1])
        return line

    def facts(self) -> dict[str, Any]:
        """Returns the memory, sockets and tasks of the gateway."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        facts: dict[str, Any] = json.loads(self._line())
        return facts

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return self._figure("rss") * KIB

    @property
    def threads(self) -> int:
        """Threads of the system."""
        return self._figure("nlwp")

    def _figure(self, name: str) -> int:
        said = subprocess.run(["ps", "-o", f"{name}=", "-p", str(self.process.pid)], capture_output=True, check=True)
        return int(said.stdout)

    def stop(self) -> None:
        """Ends it: the gateway by the end of its input, and without a word on the standard error."""
        try:
            _, errors = self.process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert errors == ""
        assert self.process.returncode == 0

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)


@contextmanager
def running(loop: str) -> Iterator[Child]:
    upstream = Child(UPSTREAM)
    try:
        gateway = Child(GATEWAY, str(upstream.port), loop)
        try:
            yield gateway
            gateway.stop()
        finally:
            gateway.kill()
    finally:
        upstream.kill()


def asked(port: int, path: str, body: dict[str, Any], receive_buffer: int | None = None) -> socket.socket:
    """Returns a client that has asked."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(SECONDS)
    client.connect(("127.0.0.1", port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def one_stream(port: int, number: int) -> None:
    """One stream of some kind: read to its end, left at some moment, or refused."""
    native = {"model": "m", "query": "hi"}
    openai = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    path, body = (
        ("/api/v1/stream", native),
        ("/v1/chat/completions", openai),
        ("/api/v1/stream?framing=ndjson", native),
        ("/api/v1/stream", {**native, "stream": False}),
        ("/api/v1/stream", {**native, "model": "nobody"}),
    )[number % 5]
    with asked(port, path, body) as client:
        if number % 7 == 0:
            return
        got = client.recv(100)
        if number % 7 == 1:
            return
        while not got.endswith((b"0\r\n\r\n", b"}")):
            more = client.recv(1 << 16)
            assert more
            got += more


def settled(gateway: Child) -> dict[str, Any]:
    """Returns the same once all streams have ended, and no socket has been opened or closed for a while.

    A connection that is being made, or is closed by the loop's next turn, has a socket and no object that is counted.
    """
    end = time.monotonic() + SECONDS
    former: list[object] = []
    while time.monotonic() < end:
        facts = gateway.facts()
        idle = facts["kinds"].get("UpstreamConnection", 0)
        if (
            not facts["streams"]
            and facts["timers"] <= 2 + idle  # each idle one's look, the pool's for all, and the look at the memory
            and not any(facts["kinds"].get(kind) for kind in ("LaneConnection", "Handler"))
        ):
            former.append((facts["files"], idle))
            if former[-5:] == former[-1:] * 5:
                return facts
        time.sleep(0.05)
    raise AssertionError(facts)


def test_a_stream_leaves_nothing_for_the_garbage_collector() -> None:
    """A nested function that another one refers to is a cycle if mypyc compiles it, and keeps its request's objects.

    On uvloop, since each transport of asyncio's own is a cycle.
    """
    streams = 50
    with running("uvloop") as gateway:
        one_stream(gateway.port, 2)
        before = settled(gateway)
        for _ in range(streams):
            one_stream(gateway.port, 2)
        garbage = settled(gateway)["garbage"] - before["garbage"]
        assert garbage < streams, "objects that only the collector could free"


@pytest.mark.parametrize("loop", TESTED_LOOPS)
def test_after_many_streams_nothing_is_left_of_them(loop: str) -> None:
    with running(loop) as gateway:
        for number in range(200):
            one_stream(gateway.port, number)
        before, memory = settled(gateway), gateway.memory
        for number in range(STREAMS):
            one_stream(gateway.port, number)
        after = settled(gateway)
        # Idle upstream connections are kept, each with its socket; how many there are varies.
        kept = after["kinds"].get("UpstreamConnection", 0) - before["kinds"].get("UpstreamConnection", 0)
        assert after["files"] - before["files"] == kept
        # The set of the upstream's sockets that are borrowed, once some have been, and its timer.
        assert after["sets"] - before["sets"] <= 2
        assert after["tasks"] == before["tasks"]
        for kind in (
            *("Session", "Relay", "StreamResponse", "ResponseWriter", "Exchange", "Incoming", "Reply"),
            *("RequestReader", "HTTPRequest"),
        ):
            assert after["kinds"].get(kind, 0) == 0, kind
        assert after["objects"] - before["objects"] < STREAMS / 5
        assert gateway.memory - memory < 4 * MIB
        assert gateway.threads == 2  # its own, and that which reads its input: none is needed to reach an address


@pytest.mark.parametrize("loop", TESTED_LOOPS)
@pytest.mark.parametrize("path", ["/api/v1/stream", "/v1/chat/completions"])
def test_a_client_that_stops_reading_costs_a_bounded_amount(
    loop: str, path: str, record_property: Callable[[str, object], None]
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "endless"}], "stream": True}
    with running(loop) as gateway, ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(asked(gateway.port, path, body, 4 * KIB))
        before = stopped_growing(gateway, 3)
        for _ in range(STUCK):
            clients.enter_context(asked(gateway.port, path, body, 4 * KIB))
        each = (stopped_growing(gateway, STUCK + 3) - before) / STUCK
        record_property("bytes per stopped client", each)
        # The high-water mark of 256 KiB, one read of the upstream on top of it, and the objects of a stream; in pure
        # Python an object for each frame of that read as well.
        assert each < 1280 * KIB


def stopped_growing(gateway: Child, streams: int) -> int:
    """Returns the gateway's memory once it has so many streams, and every upstream is paused."""
    last, same = 0, 0
    end = time.monotonic() + SECONDS
    while gateway.facts()["streams"] != streams:
        assert time.monotonic() < end
        time.sleep(0.05)
    while time.monotonic() < end:
        now = gateway.memory
        same = same + 1 if now == last else 0
        if same == 8:
            return now
        last = now
        time.sleep(0.05)
    raise AssertionError(f"{last} bytes and growing")
