"""Drives Chromium over the DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.browser.driver import Browser, Connection, Page, connected, started
from tests.waiting import SECONDS

_NAMES = (
    "chromium-headless-shell",  # the same engine without a user interface, which takes half a second of a core a page
    *("chrome-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
)
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


def executable() -> str | None:
    """Returns the path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class ChromiumPage(Page):
    """A page of Chromium; `command` reaches what the interface does not name."""

    def __init__(self, connection: Connection, session: str) -> None:
        super().__init__()
        self._connection = connection
        self._session = session
        self._loaded = asyncio.Event()

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol to this page."""
        return await self._connection.command(method, params, sessionId=self._session)

    async def run(self, source: str) -> str:
        answer = await self.command(
            "Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return str(answer["result"]["value"])

    async def open(self, url: str) -> None:
        await self.command("Page.navigate", url=url)
        await self.until(f"location.href === {url!r} && document.readyState === 'complete'")

    async def reload(self) -> None:
        self._loaded.clear()
        await self.command("Page.reload")
        async with asyncio.timeout(SECONDS):
            await self._loaded.wait()

    async def press(self, key: str, *, ctrl: bool = False) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=2 if ctrl else 0)

    async def prepare(self, source: str) -> None:
        await self.command("Page.addScriptToEvaluateOnNewDocument", source=source)

    async def set_offline(self, offline: bool) -> None:
        await self.command("Network.enable")
        limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.command("Network.emulateNetworkConditions", offline=offline, **limits)

    async def bring_to_front(self) -> None:
        await self.command("Page.bringToFront")

    def receive(self, method: str, params: dict[str, Any]) -> None:
        """Takes an event of the DevTools protocol; keeps what tells of a problem."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


class Chromium(Browser):
    """A running Chromium; made by `launch`."""

    connection: Connection

    def __init__(self) -> None:
        self._pages: dict[str, ChromiumPage] = {}

    def receive(self, message: dict[str, Any]) -> None:
        """Takes an event to its page."""
        if (page := self._pages.get(message.get("sessionId", ""))) is not None:
            page.receive(message["method"], message["params"])

    @contextlib.asynccontextmanager
    async def page(
        self, *, width: int = 1280, height: int = 800, scheme: str = "light", mobile: bool = False
    ) -> AsyncIterator[ChromiumPage]:
        """Yields a new page of a size in CSS pixels and a colour scheme (`light`, `dark`)."""
        command = self.connection.command
        context = (await command("Target.createBrowserContext", {}))["browserContextId"]
        target = await command("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        session = (await command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}))[
            "sessionId"
        ]
        page = self._pages[session] = ChromiumPage(self.connection, session)
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        await page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        await command("Browser.grantPermissions", {"permissions": permissions, "browserContextId": context})
        try:
            yield page
        finally:
            await command("Target.disposeBrowserContext", {"browserContextId": context})
            del self._pages[session]


@contextlib.asynccontextmanager
async def launch(folder: Path) -> AsyncIterator[Chromium]:
    """Starts the installed browser with a fresh profile in `folder`, and ends it."""
    program = executable()
    assert program is not None
    browser = Chromium()
    async with (
        started(
            [program, *_FLAGS, f"--user-data-dir={folder}"], folder / "DevToolsActivePort", r"(\d+)\n(/\S+)"
        ) as address,
        connected(f"ws://127.0.0.1:{address[1]}{address[2]}", browser.receive) as browser.connection,
    ):
        yield browser
