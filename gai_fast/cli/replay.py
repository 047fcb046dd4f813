"""`gai-fast replay`: serves a recorded answer with its timing, to any request.

Owns the small HTTP server that does so. What a recording is, `net/replay.py` says; a file that is none is served as
the body of an answer, all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import click

from gai_fast.cli import ConfigFailure, StartupFailure, option
from gai_fast.limits import LIMITS
from gai_fast.net.replay import Recording, read_recording

HEAD_TIMEOUT: Final = 10.0
"""Seconds for a request to come whole."""


def load(path: Path) -> Recording:
    """A recording, or a bare body as one.

    Raises:
        ConfigFailure: The file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigFailure(f"cannot read {path}: {problem.strerror}") from None
    try:
        return read_recording(data)
    except ValueError as problem:
        first = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if data.startswith(b'{"format":') or not first:
            raise ConfigFailure(f"{path}: {problem}") from None
        # One JSON document, lines of JSON, or frames: a client's parser tells them apart by their first bytes too.
        kind = "text/event-stream" if first not in b"{[" else "application/json"
        return Recording([(0.0, data)], headers={"content-type": kind})


class Replay:
    """An HTTP server on 127.0.0.1 that answers every request with one recording.

    Args:
        recording: What it answers.
        port: Where it listens; 0 chooses a free one.
        speed: How many times faster than recorded; 0: without any pause.
        split: Bytes of a piece that is written by itself; 0: as recorded.
    """

    def __init__(self, recording: Recording, *, port: int = 0, speed: float = 1.0, split: int = 0) -> None:
        self._recording = recording
        self._port = port
        self._speed = speed
        self._split = split
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.url = ""
        """Where it listens, once it does."""

    async def __aenter__(self) -> Replay:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
        try:
            # Only a stopping server cancels, and asyncio would report that as an error of this callback.
            with contextlib.suppress(ConnectionError, TimeoutError, EOFError, ValueError, asyncio.CancelledError):
                async with asyncio.timeout(HEAD_TIMEOUT):
                    await _read_request(reader)
                await self._answer(writer)
        finally:
            if task is not None:
                self._open.discard(task)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        recording, loop = self._recording, asyncio.get_running_loop()
        began = loop.time()
        fields = {**recording.headers, "transfer-encoding": "chunked", "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {recording.status} {_phrase(recording.status)}\r\n{head}\r\n".encode("latin-1"))
        for at, data in recording.chunks:
            if self._speed:
                await asyncio.sleep(began + at / self._speed - loop.time())
            size = self._split or len(data)
            for begin in range(0, len(data), size or 1):
                piece = data[begin : begin + size]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                if self._split:
                    await asyncio.sleep(0)
        if not recording.broke:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> None:
    """Reads one request whole, whatever it says.

    Raises:
        ValueError: It is larger than what is read here, or has no usable length.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
            if not 0 <= length <= LIMITS.whole_answer:
                raise ValueError("a body of no usable length")
            await reader.readexactly(length)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


async def _run(replay: Replay, ready: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with replay:
        ready(replay.url)
        await stopped.wait()


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@option("--port", type=click.IntRange(0, 65535), default=9000, help="Port on 127.0.0.1; 0 chooses a free one.")
@option("--speed", type=click.FloatRange(0), default=1.0, help="Times faster than recorded; 0: without any pause.")
@option("--split", type=click.IntRange(0), default=0, help="Bytes of a piece that is sent by itself; 0: as recorded.")
def command(file: Path, port: int, speed: float, split: int) -> None:
    """Serve a recording with its timing.

    FILE is one that serve --record wrote, or the bare body of an answer. Point an upstream's base_url at the URL that
    is printed: every request gets the recording.
    """
    replay = Replay(load(file), port=port, speed=speed, split=split)
    try:
        asyncio.run(_run(replay, lambda url: click.echo(f"replaying {file} on {url}")))
    except OSError as problem:
        raise StartupFailure(f"cannot listen on 127.0.0.1:{port}: {problem.strerror}") from None
