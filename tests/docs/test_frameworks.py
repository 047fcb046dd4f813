"""docs/frameworks.md: each program runs as it is pasted, under the command below it, and streams."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import aiohttp
import pytest

import gai_fast
from tests.docs.pages import ROOT, Block, blocks, read
from tests.ports import free_port
from tests.waiting import SECONDS

PAGE: Final = "docs/frameworks.md"
PROGRAMS: Final = [(code, run) for code, run in pairwise(blocks(read(PAGE))) if code.language == "python"]
PACKAGES: Final = {"uvicorn": "uvicorn", "gunicorn": "gunicorn", "python3": "aiohttp"}


@pytest.mark.parametrize(("code", "run"), PROGRAMS, ids=[code.section for code, _ in PROGRAMS])
async def test_a_program_streams_an_answer_and_a_source_of_its_own(tmp_path: Path, code: Block, run: Block) -> None:
    (tmp_path / "chat.py").write_text(code.text)
    package = code.section.partition(",")[0].lower()
    program, *arguments = shlex.split(run.text)
    for name in (package, PACKAGES[program]):
        pytest.importorskip(name)
    port = free_port()
    command = [sys.executable, *(["-m", program] if program != "python3" else []), *arguments]
    with serving([each.replace("8000", str(port)) for each in command], tmp_path, port):
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(url + "/progress") as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                assert await response.text() == 'data: half of it\n\ndata: {"percent":100}\n\n'
            async with session.get(url + "/progress?job=8") as response:
                assert response.status == 404
                assert (await response.json())["error"]["message"] == "no such job"
            async with asked(session, url, code) as response:
                stream_id = response.headers["x-gai-stream-id"]
                events = [event async for event in gai_fast.read_events(response.content)]
                result = gai_fast.collect(events)
                assert result.text.startswith("One stormy night")
                assert result.finish_reason == "stop"
            async with asked(session, url, code, {"last-event-id": f"{stream_id}.3"}) as response:
                assert [event async for event in gai_fast.read_events(response.content)] == events[3:]
            async with asked(session, url, code, {"last-event-id": f"{stream_id}.{events[-2]['seq']}"}) as response:
                assert response.status == 204


async def test_an_unknown_model_of_a_pydantic_body_is_404(tmp_path: Path) -> None:
    code, run = PROGRAMS[0]
    pytest.importorskip("fastapi")
    (tmp_path / "chat.py").write_text(code.text)
    port = free_port()
    with serving([sys.executable, "-m", *shlex.split(run.text.replace("8000", str(port)))], tmp_path, port):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/ask", json={"q": "Hi", "model": "nope"}) as response,
        ):
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "not_found"


def asked(
    session: aiohttp.ClientSession, url: str, code: Block, headers: Mapping[str, str] | None = None
) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
    """Asks a program by its route: with a body if it takes one."""
    question = {"q": "Tell me a story"}
    if '@app.post("/ask")' in code.text:
        return session.post(f"{url}/ask", json=question, headers=headers)
    return session.get(f"{url}/ask", params=question, headers=headers)


def test_every_framework_has_its_program_and_its_command() -> None:
    assert [code.section for code, _ in PROGRAMS] == [
        "FastAPI",
        "Starlette",
        "aiohttp",
        "Django, ASGI",
        "Django, WSGI",
        "Flask",
        "Bottle",
    ]
    assert {run.language for _, run in PROGRAMS} == {"bash"}


@contextlib.contextmanager
def serving(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """Runs a server until the block ends."""
    kept = {"PATH", "GAI_FAST_NO_EXTENSIONS", "GAI_FAST_REQUIRE_EXTENSIONS"}
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name in kept}
    with subprocess.Popen(
        command, cwd=folder, env={**environment, "HOME": str(folder), "PYTHONPATH": path}, stderr=subprocess.PIPE
    ) as server:
        try:
            end = time.monotonic() + SECONDS
            while True:
                assert server.poll() is None, server.communicate()[1].decode()
                assert time.monotonic() < end, "the server does not listen"
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=SECONDS)
