"""`gai-fast top` as a user runs it: a real server, a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import QUERY, Gateway, Net, on_uvloop
from tests.integration.processes import run_forked
from tests.integration.test_cli import PATIENCE, environment
from tests.integration.test_durable import id_of
from tests.ports import free_port
from tests.waiting import until

ADMIN, USER = "sk-admin-0123456789", "sk-user-0123456789"
KEYS = (
    KeySettings("ops", (key_digest(ADMIN),), role="admin"),
    KeySettings("alice", (key_digest(USER),)),
)
CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|P[^\x1b]*\x1b\\|[=>78])")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)[;m]")
LEAVES = "\x1b[?1049l"
"""Leaves the alternate screen: what was there before is back."""


class Terminal:
    """A terminal of 80 columns and 24 lines, and the program in it."""

    def __init__(self) -> None:
        self.near, self.far = pty.openpty()
        os.set_blocking(self.near, False)
        self.raw = ""
        self.process: asyncio.subprocess.Process
        self.resize(80, 24)
        self.modes = termios.tcgetattr(self.far)
        asyncio.get_running_loop().add_reader(self.near, self._read)

    def _read(self) -> None:
        self.raw += os.read(self.near, 1 << 16).decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        """Gives it another size; the kernel tells the program."""
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.near, keys.encode())

    async def shows(self, *words: str) -> None:
        """Returns once all these words have been written since the last call."""
        await until(lambda: all(word in CONTROL.sub("", self.raw) for word in words))
        self.raw = ""

    async def ended(self) -> int:
        """Returns the exit code of the program, which has restored the terminal."""
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await until(lambda: LEAVES in self.raw)
        assert termios.tcgetattr(self.far) == self.modes
        assert "\x1b[?25h" in self.raw, "the cursor is back"
        return code

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.near)
        os.close(self.near)
        os.close(self.far)


@asynccontextmanager
async def top(url: str, folder: Path, **environ: str) -> AsyncIterator[Terminal]:
    terminal = Terminal()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal.far, termios.TIOCSCTTY, 0)

    terminal.process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gai_fast", "top", "--url", url,
        stdin=terminal.far, stdout=terminal.far, stderr=terminal.far,
        cwd=folder, env=environment(TERM="xterm-256color", **environ), preexec_fn=own_terminal,
    )  # fmt: skip
    try:
        yield terminal
    finally:
        if terminal.process.returncode is None:
            terminal.process.kill()
            await terminal.process.wait()
        terminal.close()


async def streaming(net: Net) -> tuple[Gateway, str]:
    """Returns a gateway with keys and a stream that goes on, and the stream's id."""
    gateway = await net.gateway(await net.mock(rate=50, deltas=10_000), keys=KEYS)
    _, response = await gateway.stream({**QUERY, "model": "m"}, x_api_key=USER)
    await response.until(b"text.delta")
    return gateway, id_of(response)


@on_uvloop
async def test_a_stream_is_shown_and_cancelled_after_a_question(net: Net, tmp_path: Path) -> None:
    gateway, stream_id = await streaming(net)
    async with top(gateway.url, tmp_path, GAI_FAST_TOP_API_KEY=ADMIN) as terminal:
        await terminal.shows(
            "gai-fast top", "1 streams", "tok/s", "alice", stream_id[:10], "breakers  all closed", "Quit"
        )
        terminal.type("c")
        await terminal.shows(f"Cancel the stream {stream_id}?", "key alice, model m, upstream up")
        terminal.type("n")
        await terminal.shows("alice")
        assert stream_id in gateway.running.engine.streams
        terminal.type("c")
        await terminal.shows("Cancel the stream")
        terminal.type("y")
        await terminal.shows(f"cancelled {stream_id}", "0 streams")
        assert stream_id not in gateway.running.engine.streams
        terminal.type("s")
        await terminal.shows("ttft▼")
        terminal.resize(120, 40)
        await terminal.shows("gai-fast top", "ttft▼", "Quit")
        terminal.type("q")
        assert await terminal.ended() == 0


@on_uvloop
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_restores_the_terminal(net: Net, tmp_path: Path, number: signal.Signals) -> None:
    gateway = await net.gateway(await net.mock())
    async with top(gateway.url, tmp_path) as terminal:
        await terminal.shows("0 streams")
        terminal.process.send_signal(number)
        assert await terminal.ended() == 0


@on_uvloop
async def test_a_server_that_is_gone_is_reported_and_found_again_without_colours(net: Net, tmp_path: Path) -> None:
    mock, port = await net.mock(), free_port()
    gateway = await net.gateway(mock, port=port)
    async with top(gateway.url, tmp_path, NO_COLOR="1") as terminal:
        await until(lambda: "0 streams" in terminal.raw)
        assert not COLOUR.search(terminal.raw)
        await gateway.running.close()
        await terminal.shows("cannot connect", "trying again")
        await net.gateway(mock, port=port)
        await terminal.shows("0 streams")
        terminal.type("\x03")  # Ctrl-C
        assert await terminal.ended() == 0


async def once(url: str, folder: Path, **environ: str) -> tuple[int, str, str]:
    return await run_forked("top", "--url", url, "--json", cwd=folder, **environ)


@on_uvloop
async def test_once_as_json(net: Net, tmp_path: Path) -> None:
    gateway, stream_id = await streaming(net)
    code, result, errors = await once(gateway.url, tmp_path, GAI_FAST_TOP_API_KEY=ADMIN)
    assert (code, errors) == (0, "")
    sample = json.loads(result)
    (stream,) = sample["streams"]
    assert (sample["active"], stream["id"], stream["key"], stream["model"]) == (1, stream_id, "alice", "m")
    assert sample["rates"]["requests"] == 0
    assert (sample["breakers"], sample["spend"]["keys"]) == ({}, [])


@on_uvloop
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "the server needs an admin's key: set GAI_FAST_TOP_API_KEY"),
        ({"GAI_FAST_TOP_API_KEY": USER}, "the server refuses (403)"),
    ],
)
async def test_without_an_admins_key_it_says_so(net: Net, tmp_path: Path, environ: dict[str, str], words: str) -> None:
    gateway = await net.gateway(await net.mock(), keys=KEYS)
    code, result, errors = await once(gateway.url, tmp_path, **environ)
    assert (code, result) == (1, "")
    assert words in errors
    assert "sk-" not in errors
