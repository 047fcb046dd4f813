"""A headless browser as the tests see it: its pages, and the connection over which a driver commands it.

`chromium.py` and `firefox.py` are the drivers. Both speak a protocol of JSON objects with numbered commands over a
WebSocket. Must not know the pages under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import SECONDS, until


class Page(ABC):
    """One tab in a context of its own, where nothing is stored and nothing is shared.

    Attributes:
        problems: Console errors, uncaught exceptions and what the browser refused, such as violations of the
            Content-Security-Policy.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    @abstractmethod
    async def run(self, source: str) -> str:
        """Returns the string that an asynchronous JavaScript expression comes to, as if a user had caused it.

        Raises:
            AssertionError: It is no JavaScript.
        """

    @abstractmethod
    async def open(self, url: str) -> None:
        """Loads a page; returns after its `load` event."""

    @abstractmethod
    async def reload(self) -> None:
        """Loads the page again; returns after its `load` event."""

    @abstractmethod
    async def press(self, key: str, *, ctrl: bool = False) -> None:
        """Presses and releases a named key (`Enter`, `Escape`) where the focus is."""

    @abstractmethod
    async def prepare(self, source: str) -> None:
        """Runs statements in every document that is opened from now on, before its own scripts."""

    @abstractmethod
    async def set_offline(self, offline: bool) -> None:
        """Takes the network away, running connections included if the browser does that, or gives it back."""

    @abstractmethod
    async def bring_to_front(self) -> None:
        """Gives the tab the focus, which the clipboard asks for."""

    async def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression, awaited, as JSON has it.

        Raises:
            AssertionError: It threw.
        """
        found = json.loads(
            await self.run(
                f"""(async () => {{
                  try {{
                    return JSON.stringify({{ value: await ({expression}) }});
                  }} catch (error) {{
                    return JSON.stringify({{ error: String(error) }});
                  }}
                }})()"""
            )
        )
        assert "error" not in found, found["error"]
        return found.get("value")

    async def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        async with asyncio.timeout(SECONDS):
            while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110  # the page sets no event
                await asyncio.sleep(0.02)


class Browser(ABC):
    """A running browser."""

    @abstractmethod
    def page(self, *, width: int = 1280, height: int = 800) -> AbstractAsyncContextManager[Page]:
        """Returns a new page of a size in CSS pixels."""


class Connection:
    """Numbered commands, their answers, and events between them.

    Args:
        socket: The browser's.
        on_event: Called with each message that is no answer.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._socket = socket
        self._on_event = on_event
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def command(self, method: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Sends a command and returns its result; `more` are further members of its message.

        Raises:
            RuntimeError: The browser refuses it, or is gone.
        """
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": params, **more})
        async with asyncio.timeout(SECONDS):
            return await answer

    async def listen(self) -> None:
        """Reads answers and events until the browser closes the connection."""
        async for message in self._socket:
            data = message.json()
            if data.get("id") is None:
                self._on_event(data)
                continue
            answer = self._waiting.pop(data["id"])
            if answer.done():
                continue  # nobody waits any more
            if "error" in data:
                answer.set_exception(RuntimeError(str(data)))
            else:
                answer.set_result(data["result"])
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(RuntimeError("the browser closed the connection"))


@contextlib.asynccontextmanager
async def started(command: list[str], address: Path, pattern: str) -> AsyncIterator[re.Match[str]]:
    """Starts a browser, and ends it.

    Args:
        command: The program and its arguments.
        address: The file to which the browser writes its address.
        pattern: Matches that file once it is whole; the match is what the context gives.
    """
    # A session of its own: the browser is many processes, which end together.
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )

    def found() -> re.Match[str] | None:
        assert process.returncode is None, f"{command[0]} ended at once"
        return re.fullmatch(pattern, address.read_text()) if address.exists() else None

    try:
        await until(found)
        match = found()
        assert match is not None
        yield match
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def connected(url: str, on_event: Callable[[dict[str, Any]], None]) -> AsyncIterator[Connection]:
    """Yields a connection to a running browser."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
        connection = Connection(socket, on_event)
        listener = asyncio.create_task(connection.listen())
        try:
            yield connection
        finally:
            listener.cancel()
