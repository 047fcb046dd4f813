"""`make soak-long`: answers of 700 seconds, most of them silence, while their server is replaced.

    python -m tests.soak.long --seconds 700 --workers 2

The configuration sets no time but `grace`: 600 seconds of 700, as in `deploy/`. After a fifth of the time a successor
takes the socket, and the old server gets SIGTERM. The exit code is 1 where an answer is not whole, or the old server
did not end by itself after the last of them.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from gai_fast.cli.mock.command import Mock
from tests.integration.processes import configure
from tests.soak.restarts import started

WORDS: Final = 8
"""Of an answer: the pauses between them are a ninth of its time, as the one before the first is."""
RESTART: Final = 0.2
"""The part of an answer's time after which its server is replaced."""
GRACE: Final = 600 / 700
SPARE: Final = 20.0
"""Seconds by which an answer may be late, and in which a server ends after its last one."""
_MESSAGES: Final = [{"role": "user", "content": "Hello"}]
ASKED: Final[dict[str, tuple[str, dict[str, Any], bytes]]] = {
    "native": ("/api/v1/stream", {"query": "Hello"}, b'{"type":"done","finished":true}'),
    "durable": ("/api/v1/stream", {"query": "Hello", "resumable": True}, b'{"type":"done","finished":true}'),
    "chat": ("/v1/chat/completions", {"messages": _MESSAGES, "stream": True}, b"data: [DONE]"),
    "messages": ("/v1/messages", {"messages": _MESSAGES, "max_tokens": 99, "stream": True}, b"message_stop"),
    "responses": ("/v1/responses", {"input": "Hello", "stream": True}, b"response.completed"),
}
"""A name, and the path, the body, and what the end of the answer has. A whole answer is silent to its end, and
`first_event_timeout` ends it after ten minutes."""


async def _answer(session: aiohttp.ClientSession, url: str, name: str, seconds: float, problems: list[str]) -> None:
    """Asks for an answer, and judges it."""
    path, body, end = ASKED[name]
    begun = time.monotonic()
    try:
        async with session.post(url + path, json={**body, "model": "m"}) as response:
            answer = await response.read()
    except aiohttp.ClientError as problem:
        problems.append(f"{name}: {problem!r} after {time.monotonic() - begun:.1f} s")
        return
    took = time.monotonic() - begun
    if response.status != 200 or end not in answer or b'"error":{' in answer or not took <= seconds + SPARE:
        problems.append(f"{name}: {response.status} after {took:.1f} s: {answer[-300:]!r}")


async def _soak(options: argparse.Namespace) -> int:
    seconds: float = options.seconds
    problems: list[str] = []
    pause = seconds / (WORDS + 1)
    with (
        tempfile.TemporaryDirectory(prefix="gai-fast-long-") as name,
        socket.create_server(("127.0.0.1", 0), backlog=1000) as listening,
    ):
        folder, url = Path(name), f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            Mock(deltas=WORDS, rate=1 / pause, ttft=pause) as mock,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        ):
            configure(folder, mock, grace=seconds * GRACE)
            former = await started(folder, listening.fileno(), options.workers)
            long = [asyncio.create_task(_answer(session, url, one, seconds, problems)) for one in ASKED]
            await asyncio.sleep(seconds * RESTART)
            successor = await started(folder, listening.fileno(), options.workers)
            former.send_signal(signal.SIGTERM)
            await asyncio.gather(*long)
            try:
                async with asyncio.timeout(SPARE):
                    code = await former.wait()
                if code:
                    problems.append(f"the old server ended with {code}")
            except TimeoutError:
                problems.append(f"the old server did not end within {SPARE:g} s after its last answer")
                former.kill()
            async with session.get(f"{url}/healthz") as response:
                if response.status != 200:
                    problems.append(f"the successor answers {response.status}")
            successor.terminate()
            await successor.wait()
    print(f"{len(ASKED)} answers of {seconds:g} s, one restart: {len(problems)} problems", *problems, sep="\n  ")
    return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the answers and the restart; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="soak-long", description="Long, silent answers while their server is replaced."
    )
    parser.add_argument("--seconds", type=float, default=700.0, help="of an answer (default: 700)")
    parser.add_argument("--workers", type=int, default=2, help="of each server (default: 2)")
    return asyncio.run(_soak(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
