"""The tools of the soak, in a process of their own, and their journal: a line as a call begins, one as it is answered.

    python -m tests.soak.kill_runs.tool_server PORT JOURNAL SECONDS

A line is one write to a file that outlives the process. Times are of the machine's monotonic clock, as the soak's. The
answer to a call has a ticket that no other answer has.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from functools import partial
from typing import Any


async def _serve(journal: int, longest: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            arguments = json.loads(await reader.readexactly(int(fields["content-length"])))
            ticket = os.urandom(8).hex()
            key, attempt = fields["idempotency-key"], int(fields["x-gai-attempt"])
            tool = lines[0].split(" ")[1].strip("/")
            _note(journal, ticket=ticket, tool=tool, key=key, attempt=attempt, arguments=arguments)
            await asyncio.sleep(random.random() * longest)
            said = json.dumps({"ticket": ticket}).encode()
            _note(journal, ticket=ticket)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said)
            writer.write(head + said)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


def _note(journal: int, **what: Any) -> None:
    os.write(journal, json.dumps({"time": time.monotonic(), **what}).encode() + b"\n")


async def _main(port: int, path: str, longest: float) -> None:
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    server = await asyncio.start_server(partial(_serve, journal, longest), "127.0.0.1", port)
    print("listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
