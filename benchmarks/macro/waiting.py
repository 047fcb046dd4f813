"""What runs that wait for approvals keep in memory, beside their logs.

Owns the measurement: a server in this process, whose model calls a tool that a person must approve, gets requests
without clients until so many runs wait. The figure is what Python has allocated since, without the bytes of the logs.
With `memory://` it has request, state and approval too: this memory is the store. Ends with 1 if a run has more than
4 KiB beside its log and the store.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any, Final

from gai_fast.config import load
from gai_fast.net.engine.engine import Engine
from gai_fast.server.serving import start

BOUND: Final = 4096
"""Bytes that a waiting run may have beside its log."""
WARM_UP: Final = 50
"""Runs before the measurement: they make what later ones share."""
PATIENCE: Final = 300.0
"""Seconds in which all runs must wait."""
BODY: Final = json.dumps({"model": "m", "query": "Send the invoice to Ada, please. " * 8}).encode()
CONFIGURATION: Final = """
[server]
port = 0
[limits]
drains = 100000
[runs]
waiting = 100000
[store]
url = "{url}"
[[tool]]
name = "invoice"
python = "benchmarks.macro.waiting:invoice"
approve = true
[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "{upstream}"
[[model]]
name = "m"
upstream = "up"
tools = ["*"]
"""


def invoice(customer: str, euros: int) -> str:
    """Sends an invoice."""
    return f"sent {euros} euros to {customer}"


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


CALL: Final = {"name": "invoice", "arguments": json.dumps({"customer": "Ada", "euros": 7})}
ANSWER: Final = b"".join(
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
        _chunk({"role": "assistant", "content": "I shall send the invoice as soon as you agree."}),
        _chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": CALL}]}),
        _chunk({}, "tool_calls"),
        b"data: [DONE]\n\n",
    ]
)
"""What the model says: a sentence and a call."""


async def _model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a request of the chat dialect."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    writer.write(ANSWER)
    writer.close()


async def _begin(port: int, number: int) -> None:
    """Starts runs without a client, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /api/v1/streams HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    for _ in range(number):
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        said = await reader.readexactly(length)
        if b" 202 " not in answer:
            raise SystemExit(f"a run did not begin: {said.decode()}")
    writer.close()


async def _all_wait(engine: Engine, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while engine.runs.waiting < number or engine.streams:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.05)


async def measure(folder: Path, url: str, number: int) -> tuple[float, float]:
    """Returns the bytes of a waiting run beside its log, and those of the log.

    Args:
        folder: For the configuration.
        url: The store.
        number: How many runs wait.
    """
    upstream = await asyncio.start_server(_model, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}/v1"
    path = folder / "gai-fast.toml"
    path.write_text(CONFIGURATION.format(url=url, upstream=address))
    running = await start(load(path))
    try:
        engine, port = running.engine, int(running.url.rpartition(":")[2])
        await _begin(port, WARM_UP)
        await _all_wait(engine, WARM_UP)
        gc.collect()
        before, logs = tracemalloc.get_traced_memory()[0], engine.store.memory.size
        await _begin(port, number)
        await _all_wait(engine, WARM_UP + number)
        gc.collect()
        of_logs = engine.store.memory.size - logs
        return (tracemalloc.get_traced_memory()[0] - before - of_logs) / number, of_logs / number
    finally:
        await running.close()
        upstream.close()


def main() -> int:
    """Measures as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    number = parser.parse_args().runs
    tracemalloc.start()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for url in ("memory://", f"sqlite:///{folder}/store.db"):
            beside, log = asyncio.run(measure(Path(folder), url, number))
            kind = url.partition(":")[0]
            print(f"{kind}: {number} waiting runs, {beside:.0f} B each beside a log of {log:.0f} B")
            found[kind] = beside
    return int(found["sqlite"] > BOUND)


if __name__ == "__main__":
    sys.exit(main())
