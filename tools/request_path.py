"""Counts what a request walks from its client's socket to its upstream's: Python calls, files, and moves between files.

    GAI_FAST_NO_EXTENSIONS=1 python -m tools.request_path

Modules that mypyc has compiled are not seen: run it where none are (`pip install -e .` with `GAI_FAST_MYPYC=0`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Final, NamedTuple

from gai_fast.kernels import MODULES
from gai_fast.model.settings import ModelSettings, ServerSettings, Settings, UpstreamSettings
from gai_fast.server.serving import start

PACKAGE: Final = str(Path(__file__).parents[1] / "gai_fast")
MESSAGES: Final = [{"role": "user", "content": "hi"}]
REQUESTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = MappingProxyType(
    {
        "native": ("/api/v1/stream", {"query": "hi"}),
        "chat, passed through": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        "messages, translated": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9, "stream": True}),
        "embedding": ("/v1/embeddings", {"input": "hi"}),
    }
)
WARM_UP: Final = 20
EVENT: Final = {
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
BODY: Final = f"data: {json.dumps(EVENT)}\n\ndata: [DONE]\n\n".encode()
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Walked(NamedTuple):
    """What one request walks before its upstream is written to.

    Attributes:
        calls: The calls of Python functions of the package.
        files: The files that these stand in.
        moves: How often a call is in another file than the call before.
    """

    calls: int
    files: int
    moves: int


class Walk:
    """Notes the calls from the first read of a client to the first write to an upstream."""

    def __init__(self) -> None:
        self._seen: list[str] = []
        self._is_on = False

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        """Works as a function of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        place = code.co_filename.removeprefix(PACKAGE)
        if not self._is_on:
            self._is_on = place == "/server/lanes/lane.py" and code.co_name == "data_received"
        if self._is_on:
            self._seen.append(place)
            if place == "/net/sockets/socket_transport.py" and code.co_name == "write":
                sys.setprofile(None)

    def path(self) -> Walked:
        """Returns what was walked."""
        moves = sum(one != other for one, other in zip(self._seen, self._seen[1:], strict=False))
        return Walked(len(self._seen), len(set(self._seen)), moves)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that answers each request with the end of a stream."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        writer.write(ANSWER)


async def _ask(port: int, path: str, body: Mapping[str, Any], *, walk: Walk | None = None) -> None:
    text = json.dumps({"model": "m", **body}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(text)}\r\n"
    head += "content-type: application/json\r\nconnection: close\r\n\r\n"
    if walk is not None:
        sys.setprofile(walk.profile)
    writer.write(head.encode() + text)
    answer = await reader.read()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer.decode())
    writer.close()


async def measure() -> dict[str, Walked]:
    """Returns what each kind of request walks."""
    upstream = await asyncio.start_server(_answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}/v1"
    settings = UpstreamSettings("up", "openai-compatible", url, pass_paths=("/v1/embeddings",))
    models = {"m": ModelSettings("m", settings, "m")}
    server = await start(Settings(server=ServerSettings(port=0), upstreams={"up": settings}, models=models))
    port, found = int(server.url.rpartition(":")[2]), {}
    try:
        for name, (path, body) in REQUESTS.items():
            for _ in range(WARM_UP):
                await _ask(port, path, body)
            walk = Walk()
            await _ask(port, path, body, walk=walk)
            found[name] = walk.path()
    finally:
        await server.close()
        upstream.close()
    return found


def main() -> None:
    """Prints the table."""
    if MODULES == "compiled":
        sys.exit("the modules are compiled: their calls cannot be seen")
    print("| request | calls | files | moves |\n|---|--:|--:|--:|")
    for name, walked in asyncio.run(measure()).items():
        print(f"| {name} | {walked.calls} | {walked.files} | {walked.moves} |")


if __name__ == "__main__":
    main()
