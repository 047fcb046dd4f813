"""Loops over gai-fast.js in a Node process, and what they got."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from tests.integration.gateway import QUERY
from tests.waiting import SECONDS

MODULE = Path(__file__).parents[2] / "gai_fast/client/gai-fast.js"
DRIVER = Path(__file__).parent / "client.mjs"
TRANSPORTS = ["sse", "ndjson", "ws"]
NODE = shutil.which("node")


@pytest.fixture(autouse=True)
def node(unavailable: Callable[[str], NoReturn]) -> None:
    if NODE is None:
        unavailable("node")


class Loop(NamedTuple):
    """The events and the end of one loop.

    Args:
        events: The events.
        thrown: The name and the text of the exception that ended it.
        timers: The timers that it left behind.
        states: The states with which its callback was called.
        heard: Its first state, and the states of its events.
    """

    events: list[dict[str, Any]]
    thrown: str | None
    timers: int
    states: list[str]
    heard: list[str]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["type"] == "text.delta")

    @property
    def error(self) -> dict[str, Any]:
        """The error that is all of it."""
        assert self.types == ["error", "done"]
        assert self.events[1]["finished"] is False
        found: dict[str, Any] = self.events[0]["error"]
        return found


class Driver:
    """A Node process that runs loops one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def announced(self) -> None:
        """Returns when it has got the event that it has to announce."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            assert await self._process.stdout.readline() == b"announced\n"

    def tell(self) -> None:
        """Tells it to abort."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"abort\n")

    async def end(self) -> list[Loop]:
        try:
            async with asyncio.timeout(SECONDS):
                out, errors = await self._process.communicate()
        finally:
            # `fetch` of Node 20 sometimes waits for ever after a connection that was closed at once, and uvloop's end
            # waits for the process: ten minutes (`HEAD_WITHIN` of gai-fast.js).
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        assert self._process.returncode == 0, errors.decode()
        assert errors.decode().count("\n") <= 2, errors.decode()  # that WebSockets are an experiment
        return [Loop(**each) for each in json.loads(out)]


def command(url: str, **more: Any) -> dict[str, Any]:
    """One loop.

    Args:
        url: The server's address.
        more: `transport`, `key` and `seq` (of the last event) are the module's options; `times` is how often the loop
            runs; `hurry` is how much faster the module's clock runs from this loop on, and `leap` makes it go on by so
            many ms whenever it is read. The rest is the driver's.
    """
    options = {name: more.pop(name) for name in ("transport", "key") if name in more}
    if "seq" in more:
        options["after"] = more.pop("seq")
    return {"url": url, "request": QUERY, "options": options, **more}


async def begin(*commands: dict[str, Any]) -> Driver:
    """Starts a process."""
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        "--experimental-websocket",
        str(DRIVER),
        MODULE.as_uri(),
        json.dumps(commands),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Driver(process)


async def run_each(*commands: dict[str, Any]) -> list[Loop]:
    """Loops, one after the other, to their ends."""
    return await (await begin(*commands)).end()


async def run(url: str, **more: Any) -> Loop:
    """One loop, to its end."""
    [loop] = await run_each(command(url, **more))
    return loop
