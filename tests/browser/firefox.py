"""Drives Firefox over WebDriver BiDi."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.browser.driver import Browser, Connection, Page, connected, started

_NAMES = ("firefox-esr", "firefox")
_PREFERENCES = {
    "dom.events.testing.asyncClipboard": True,  # reading the clipboard asks nobody
    "layout.css.prefers-color-scheme.content-override": 1,  # light
}
_KEYS = {"Enter": "\ue007", "Escape": "\ue00c"}
_CONTROL = "\ue009"


def executable() -> str | None:
    """Returns the path of an installed Firefox."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class FirefoxPage(Page):
    """A page of Firefox."""

    def __init__(self, connection: Connection, context: str) -> None:
        super().__init__()
        self._connection = connection
        self._context = context

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._connection.command(method, params)

    async def run(self, source: str) -> str:
        answer = await self._command(
            "script.evaluate",
            expression=source,
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return str(answer["result"]["value"])

    async def open(self, url: str) -> None:
        await self._command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def reload(self) -> None:
        await self._command("browsingContext.reload", context=self._context, wait="complete")

    async def press(self, key: str, *, ctrl: bool = False) -> None:
        pressed = [*([_CONTROL] if ctrl else []), _KEYS[key]]
        steps = [{"type": "keyDown", "value": value} for value in pressed]
        steps += [{"type": "keyUp", "value": value} for value in reversed(pressed)]
        source = {"type": "key", "id": "keyboard", "actions": steps}
        await self._command("input.performActions", context=self._context, actions=[source])

    async def prepare(self, source: str) -> None:
        function = f"() => {{ {source} }}"
        await self._command("script.addPreloadScript", functionDeclaration=function, contexts=[self._context])

    async def set_offline(self, offline: bool) -> None:
        conditions = {"type": "offline"} if offline else None
        await self._command("emulation.setNetworkConditions", contexts=[self._context], networkConditions=conditions)

    async def bring_to_front(self) -> None:
        await self._command("browsingContext.activate", context=self._context)

    def receive(self, params: dict[str, Any]) -> None:
        """Takes an entry of the log; keeps what tells of a problem."""
        if params["level"] in ("error", "warn"):
            self.problems.append(params["text"] or str(params))


class Firefox(Browser):
    """A running Firefox; made by `launch`."""

    connection: Connection

    def __init__(self) -> None:
        self._pages: dict[str, FirefoxPage] = {}

    def receive(self, message: dict[str, Any]) -> None:
        """Takes an entry of the log to its page."""
        if message.get("method") == "log.entryAdded":
            page = self._pages.get(message["params"]["source"].get("context", ""))
            if page is not None:
                page.receive(message["params"])

    @contextlib.asynccontextmanager
    async def page(self, *, width: int = 1280, height: int = 800) -> AsyncIterator[FirefoxPage]:
        command = self.connection.command
        user = (await command("browser.createUserContext", {}))["userContext"]
        try:
            context = (await command("browsingContext.create", {"type": "tab", "userContext": user}))["context"]
            page = self._pages[context] = FirefoxPage(self.connection, context)
            size = {"width": width, "height": height}
            await command("browsingContext.setViewport", {"context": context, "viewport": size})
            yield page
            del self._pages[context]
        finally:
            await command("browser.removeUserContext", {"userContext": user})


@contextlib.asynccontextmanager
async def launch(folder: Path) -> AsyncIterator[Firefox]:
    """Starts the installed browser with a fresh profile in `folder`, and ends it."""
    program = executable()
    assert program is not None
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))
    command = [program, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(folder)]
    browser = Firefox()
    async with (
        started(command, folder / "WebDriverBiDiServer.json", r'(?s)\{.*"ws_port": (\d+)\s.*\}\s*') as address,
        connected(f"ws://127.0.0.1:{address[1]}/session", browser.receive) as browser.connection,
    ):
        await browser.connection.command("session.new", {"capabilities": {}})
        await browser.connection.command("session.subscribe", {"events": ["log.entryAdded"]})
        yield browser
