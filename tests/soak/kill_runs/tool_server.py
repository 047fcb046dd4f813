"""The tools of the soak, in a process of their own, over HTTP and over MCP: what `[[tool]]` and `[[tool_server]]` call.

    python -m tests.soak.kill_runs.tool_server PORT JOURNAL SECONDS

Their journal is a file that outlives the process: a line as a call begins, one as it is answered, each in one write.
Times are of the machine's monotonic clock, as the soak's. The answer to a call has a ticket that no other answer has.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from functools import partial
from typing import Any, Final

from tests.soak.kill_runs.plans import SERVER, TOOLS

_PREFIX: Final = f"{SERVER}__"


async def _serve(journal: int, longest: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    calls = _Calls(journal, longest)
    try:
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = json.loads(await reader.readexactly(int(fields["content-length"])))
            path = lines[0].split(" ")[1]
            if path == "/mcp":
                said: Any = {"jsonrpc": "2.0", "id": body["id"], "result": await calls.answer(body)}
            else:
                said = await calls.call(path[1:], fields["idempotency-key"], int(fields["x-gai-attempt"]), body)
            sent = json.dumps(said).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(sent)
            writer.write(head + sent)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


class _Calls:
    """The tools.

    Args:
        journal: The descriptor of the journal.
        longest: The most seconds that a call takes.
    """

    def __init__(self, journal: int, longest: float) -> None:
        self._journal = journal
        self._longest = longest

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Returns the result of a request of MCP 2026-07-28."""
        if message["method"] == "server/discover":
            return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        if message["method"] == "tools/list":
            names = {name.removeprefix(_PREFIX): may for name, may in TOOLS.items() if name.startswith(_PREFIX)}
            tools = [
                {"name": name, "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": may}}
                for name, may in names.items()
            ]
            return {"resultType": "complete", "tools": tools}
        given = message["params"]
        key, attempt = given["_meta"]["gai-fast/idempotency-key"], given["_meta"]["gai-fast/attempt"]
        said = await self.call(_PREFIX + given["name"], key, attempt, given["arguments"])
        return {"resultType": "complete", "content": [], "structuredContent": said}

    async def call(self, tool: str, key: str, attempt: int, arguments: Any) -> dict[str, Any]:
        """Executes a call. Returns its result."""
        ticket = os.urandom(8).hex()
        self._note(ticket=ticket, tool=tool, key=key, attempt=attempt, arguments=arguments)
        await asyncio.sleep(random.random() * self._longest)
        self._note(ticket=ticket)
        return {"ticket": ticket}

    def _note(self, **what: Any) -> None:
        os.write(self._journal, json.dumps({"time": time.monotonic(), **what}).encode() + b"\n")


async def _main(port: int, path: str, longest: float) -> None:
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    server = await asyncio.start_server(partial(_serve, journal, longest), "127.0.0.1", port)
    print("listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
