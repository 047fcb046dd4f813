"""The environment of the browser tests: a slow fake upstream, the real server in front of it, two browsers."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.browser import chromium, firefox
from tests.browser.driver import Browser, Page
from tests.waiting import SECONDS

BOUND = SECONDS
"""Seconds that anything here may take."""

PIECES = [
    "Grüße, ",
    "<b>world</b> ",
    "<img src=x onerror=alert(1)> ",
    "👩‍🚀 𝒢 ",
    'and "quotes"',
    "\n\n",
    "w" * 400,
    ".",
]
STORY = "".join(PIECES)
HELD = 3
"""The number of pieces before the middle of an answer that is held."""


class Upstream:
    """An OpenAI-compatible upstream whose first word of the prompt says how it behaves.

    `endless` streams until its connection is closed, `silent` waits for that without a word, `refuse` answers 400,
    `break` sends an error object after some text, `think` reasons first, `many` sends thousands of pieces at once,
    `quick` does not wait between the pieces, `hold` waits for `go_on` in the middle.

    Attributes:
        go_on: Set when a held answer may go on.
        prompts: What it was asked, newest last.
        bodies: The requests, newest last.
        closed: Set when the connection of an `endless` or `silent` answer was closed.
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                await self._answer(body, reader, writer)
        writer.close()

    async def _answer(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(part["text"] for part in content)
        self.prompts.append(prompt)
        self.bodies.append(body)
        behaviour = prompt.split(maxsplit=1)[0]
        if behaviour == "refuse":
            error = {
                "message": "Too long a prompt.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
            text = json.dumps({"error": error})
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
            writer.write((head + text).encode())
            await writer.drain()
            return

        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        pause = 0.06 if behaviour in ("slowly", "endless") else 0.0

        async def send(payload: dict[str, Any] | str) -> None:
            data = payload if isinstance(payload, str) else json.dumps(payload)
            frame = f"data: {data}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
            await writer.drain()

        async def choice(delta: dict[str, Any], finish_reason: str | None = None) -> None:
            one = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            await send({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [one]})
            await asyncio.sleep(pause)

        if behaviour in ("endless", "silent"):
            self.closed.clear()
            gone = asyncio.create_task(reader.read(1))
            with suppress(ConnectionError):
                while behaviour == "endless" and not gone.done():
                    await choice({"content": "on and "})
            with suppress(ConnectionError):  # a reset is a close as well
                await gone
            self.closed.set()
            raise ConnectionResetError
        if behaviour == "think":
            for word in ("Let ", "me ", "see."):
                await choice({"reasoning_content": word})
        for piece in ["x "] * 2500 if behaviour == "many" else PIECES:
            if behaviour == "hold" and piece == PIECES[HELD]:
                await self.go_on.wait()
            await choice({"content": piece})
            if behaviour == "break":
                await send({"error": {"message": "The engine is overloaded.", "code": "overloaded_error"}})
                break
        else:
            await choice({}, "stop")
            usage = {"prompt_tokens": 7, "completion_tokens": 1234, "total_tokens": 1241}
            await send({"id": "c1", "object": "chat.completion.chunk", "model": "m-1", "choices": [], "usage": usage})
        await send("[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def required(path: str | None, what: str) -> str:
    """Returns the path of a program; without it the test is skipped."""
    if path is None:
        pytest.skip(f"{what} is not installed (ci/system-deps.sh does it)")
    return path


IN_CHROMIUM = pytest.mark.parametrize("browser", ["chromium"], indirect=True)
"""Marks tests of what no browser decides (markup, styles, numbers, copied code), and of what only Chromium measures."""


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["chromium", "firefox"])
async def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    driver = {"chromium": chromium, "firefox": firefox}[request.param]
    required(driver.executable(), request.param.title())
    async with driver.launch(tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream() -> AsyncIterator[tuple[Upstream, int]]:
    fake = Upstream()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    yield fake, server.sockets[0].getsockname()[1]
    server.close()


class Site:
    """A web site of another origin than the gateway's.

    Attributes:
        origin: Its URL without a path. `/` is an empty page.
        files: Text and content type by path, served from the next request on.
    """

    def __init__(self) -> None:
        self.origin = ""
        self.files = {"/": ("<!doctype html><title>A page</title>", "text/html"), "/favicon.ico": ("", "image/png")}

    async def answer(self, request: web.Request) -> web.Response:
        """Sends a file."""
        if request.path not in self.files:
            raise web.HTTPNotFound
        text, content_type = self.files[request.path]
        return web.Response(text=text, content_type=content_type)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site() -> AsyncIterator[Site]:
    found = Site()
    runner = web.ServerRunner(web.Server(found.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def origin(
    upstream: tuple[Upstream, int], site: Site, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """Yields the URL of a running `gai-fast serve` whose model `fake` is the upstream's, and which `site` may call."""
    more = f'[server]\nallow_get_start = true\ncors_origins = ["{site.origin}"]\n[stream]\nretry = 100\nheartbeat = 1\n'
    async with serving(tmp_path_factory.mktemp("server"), upstream[1], more) as url:
        yield url


@asynccontextmanager
async def serving(folder: Path, upstream: int, more: str = "") -> AsyncIterator[str]:
    """Yields the URL of a running `gai-fast serve`.

    Args:
        folder: Where its configuration and its output are.
        upstream: The port of the upstream behind its models, `fake` and `second`.
        more: Tables for the end of the configuration.
    """
    config = folder / "gai-fast.toml"
    config.write_text(
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        f'[[model]]\nname = "fake"\nupstream = "up"\n[[model]]\nname = "second"\nupstream = "up"\n{more}'
    )
    output = folder / "output.txt"
    with output.open("wb") as stream:
        command = [sys.executable, "-m", "gai_fast", "serve", "-c", str(config), "--port", "0"]
        process = await asyncio.create_subprocess_exec(*command, stdout=stream, stderr=stream)
    try:
        async with asyncio.timeout(SECONDS):
            while (banner := re.search(r" on (http://\S+)\n", output.read_text())) is None:
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.05)
        yield banner[1]
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, origin: str) -> AsyncIterator[Page]:
    """The playground, loaded; at the end nothing but the answers that a test provoked was reported to the console."""
    async with browser.page() as tab:
        await tab.open(f"{origin}/")
        await tab.until("document.querySelector('#model').value === 'fake'")
        yield tab
        assert [problem for problem in tab.problems if not problem.endswith(PROVOKED)] == []


PROVOKED = ("format=openai", "format=vercel", "framing=sse", "framing=ndjson")
"""The console's name of a stream that was refused: the end of its address."""
