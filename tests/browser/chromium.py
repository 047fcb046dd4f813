"""A headless Chromium over the DevTools protocol: just what the playground's tests need.

Owns the browser process and its pages; must not know the playground.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import SECONDS

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
]
_BOUND = SECONDS
"""Seconds for the start, for one command and for one condition: generous, a busy machine is no failure."""


def executable() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """One tab in a context of its own: nothing stored, nothing shared.

    Attributes:
        problems: Console errors, uncaught exceptions and what the browser refused, such as violations of the
            Content-Security-Policy.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.problems: list[str] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol to this page."""
        return await self._browser.command(method, session=self._session, **params)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as if a user had caused it.

        Raises:
            AssertionError: It threw.
        """
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        async with asyncio.timeout(_BOUND):
            while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110  # the page sets no event
                await asyncio.sleep(0.02)

    async def open(self, url: str) -> None:
        """Loads a page; returns after its `load` event."""
        await self.command("Page.navigate", url=url)
        await self.until(f"location.href === {url!r} && document.readyState === 'complete'")

    async def press(self, key: str, *, ctrl: bool = False) -> None:
        """Presses and releases a named key (`Enter`, `Escape`) where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=2 if ctrl else 0)

    def receive(self, method: str, params: dict[str, Any]) -> None:
        """Takes an event of the DevTools protocol; keeps what tells of a problem."""
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


class Chromium:
    """A running browser; made by `launch`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def command(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Sends a command, to the browser itself where no session is given, and returns its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json(message)
        async with asyncio.timeout(_BOUND):
            return await answer

    async def listen(self) -> None:
        """Reads answers and events until the browser closes the connection."""
        async for message in self._socket:
            data = message.json()
            if "id" in data:
                answer = self._waiting.pop(data["id"])
                if answer.done():
                    continue  # nobody waits any more
                if "error" in data:
                    answer.set_exception(RuntimeError(data["error"]["message"]))
                else:
                    answer.set_result(data["result"])
            elif data.get("sessionId") in self._pages:
                self._pages[data["sessionId"]].receive(data["method"], data["params"])

    @contextlib.asynccontextmanager
    async def page(
        self, *, width: int = 1280, height: int = 800, scheme: str = "light", mobile: bool = False
    ) -> AsyncIterator[Page]:
        """A new page of a size in CSS pixels and a colour scheme (`light`, `dark`)."""
        context = (await self.command("Target.createBrowserContext"))["browserContextId"]
        target = await self.command("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        await page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        await self.command("Browser.grantPermissions", permissions=permissions, browserContextId=context)
        try:
            yield page
        finally:
            await self.command("Target.disposeBrowserContext", browserContextId=context)
            del self._pages[attached["sessionId"]]


@contextlib.asynccontextmanager
async def launch(folder: Path) -> AsyncIterator[Chromium]:
    """Starts the installed browser with a fresh profile in `folder`, and ends it."""
    path = executable()
    assert path is not None
    # A session of its own: the browser is many processes, which end together.
    process = await asyncio.create_subprocess_exec(
        path,
        *_FLAGS,
        f"--user-data-dir={folder}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port_file = folder / "DevToolsActivePort"
        async with asyncio.timeout(_BOUND):
            while not port_file.exists() or port_file.read_text().count("\n") < 1:
                assert process.returncode is None, "Chromium ended at once"
                await asyncio.sleep(0.05)
        port, path = port_file.read_text().splitlines()[:2]
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            browser = Chromium(socket)
            listener = asyncio.create_task(browser.listen())
            try:
                yield browser
            finally:
                listener.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
