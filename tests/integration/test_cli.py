"""`gai-fast` as a user runs it: real processes, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import gai_fast
from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.cli.mock.dialects._base import WORDS
from gai_fast.cli.mock.dialects.openai import OpenAIAnswer
from gai_fast.model.settings import ServerSettings, Settings
from gai_fast.server.serving import start
from tests.terminal import Terminal
from tests.waiting import SECONDS

TEXT = " ".join(WORDS[:8])
PACKAGE = str(Path(gai_fast.__file__).parents[1])
PATIENCE = SECONDS


def environment(**values: str) -> dict[str, str]:
    """This process's environment without what would configure the gateway."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "GAI_FAST_NO_EXTENSIONS") if name in os.environ}
    return {**kept, "PYTHONPATH": PACKAGE, **values}


class Process:
    """One run of the command line."""

    def __init__(self, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader | None) -> None:
        self.process = process
        assert stdout is not None
        self.stdout = stdout

    async def until(self, mark: bytes) -> str:
        """Returns its output up to a mark."""
        return (await asyncio.wait_for(self.stdout.readuntil(mark), PATIENCE)).decode()

    async def end(self, given: bytes | None = None) -> tuple[int, str, str]:
        """Its exit code, and the rest of what it printed; what it printed to a terminal is not there."""
        output, errors = await asyncio.wait_for(self.process.communicate(given), PATIENCE)
        assert self.process.returncode is not None
        return self.process.returncode, (output or b"").decode(), errors.decode()


@contextlib.asynccontextmanager
async def gai(
    *arguments: str,
    cwd: Path,
    program: tuple[str, ...] = ("-m", "gai_fast"),
    terminal: Terminal | None = None,
    **environ: str,
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if terminal is None else terminal.descriptor,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(**environ),
    )
    try:
        yield Process(process, process.stdout if terminal is None else terminal.reader)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*arguments: str, cwd: Path, given: bytes | None = None, **environ: str) -> tuple[int, str, str]:
    async with gai(*arguments, cwd=cwd, **environ) as process:
        return await process.end(given)


@pytest.fixture
def config(tmp_path: Path, mock: Mock) -> Path:
    """Returns a configuration whose upstreams are the mock, in both dialects."""
    file = tmp_path / "gai-fast.toml"
    file.write_text(
        f"[server]\nport = 0\n"
        f'[[upstream]]\nname = "chat"\nprovider = "openai"\nbase_url = "{mock.url}/v1"\napi_key = "env:KEY"\n'
        f'[[upstream]]\nname = "messages"\nprovider = "anthropic"\nbase_url = "{mock.url}"\n'
        f'[[model]]\nname = "it\'s fast"\nupstream = "chat"\nid = "gpt"\n'
        f'[[model]]\nname = "deep"\nupstream = "messages"\nid = "claude"\n'
    )
    return file


class TestServe:
    async def test_the_banners_examples_work_as_pasted(self, config: Path, mock: Mock, tmp_path: Path) -> None:
        async with Terminal() as terminal, gai("serve", cwd=tmp_path, terminal=terminal, KEY="sk-hidden") as server:
            banner = await server.until(b"print()\n")
            assert "\x1b" not in banner
            assert "hidden" not in banner
            assert "configuration: gai-fast.toml\n" in banner
            lines = banner.splitlines()
            [curl] = [line for line in lines if line.startswith("curl ")]
            await self.call(curl)
            snippet = "\n".join(lines[lines.index("from openai import OpenAI  # pip install openai") :])
            async with gai(snippet, cwd=tmp_path, program=("-c",)) as client:
                assert await client.end() == (0, f"{TEXT}\n", "")
            assert [request.body["model"] for request in mock.requests] == ["gpt"] * len(mock.requests)
            assert {request.headers["authorization"] for request in mock.requests} == {"Bearer sk-hidden"}
            server.process.send_signal(signal.SIGINT)
            code, _, errors = await server.end()
            assert (code, errors) == (0, "")

    async def call(self, curl: str) -> None:
        """Runs the line, and if there is no curl what it says."""
        words = shlex.split(curl)
        request = urllib.request.Request(words[2], words[-1].encode(), dict([words[4].split(": ")]))

        def without_curl() -> bytes:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return bytes(response.read())

        async def with_curl() -> bytes:
            process = await asyncio.create_subprocess_shell(
                curl, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            return (await asyncio.wait_for(process.communicate(), PATIENCE))[0]

        answer = await (with_curl() if shutil.which("curl") else asyncio.to_thread(without_curl))
        assert answer.endswith(b'event: done\ndata: {"type":"done","finished":true}\n\n')

    async def test_without_anything_the_demo_is_served_and_term_ends_it(self, tmp_path: Path) -> None:
        async with Terminal() as terminal, gai("serve", "--port", "0", cwd=tmp_path, terminal=terminal) as server:
            banner = await server.until(b"flush=True)\n")
            assert "models: demo\n" in banner
            assert banner.splitlines()[1].startswith(("kernels compiled (", "kernels pure Python, "))
            await self.call(next(line for line in banner.splitlines() if line.startswith("curl ")))
            server.process.send_signal(signal.SIGTERM)
            assert (await server.end())[0] == 0

    async def test_what_is_to_be_pasted_is_for_a_terminal_alone(self, tmp_path: Path) -> None:
        """Programs, and the log of a service, get the lines with the URL."""
        async with gai("serve", "--port", "0", cwd=tmp_path) as server:
            first, rest = (await server.until(b"\nmodels: ")).split("\n", 1)
            assert re.fullmatch(r"gai-fast \S+ on http://127\.0\.0\.1:\d+", first)
            assert "playground: http://127.0.0.1:" in rest
            server.process.send_signal(signal.SIGTERM)
            assert await server.end() == (0, "demo\ndemo: a recorded answer, whatever is asked\n", "")

    async def test_more_interrupts_end_an_end_that_hangs(self, tmp_path: Path) -> None:
        (tmp_path / "shop.py").write_text(
            "import asyncio\n\n"
            "async def close(app):\n    print('closing', flush=True)\n    await asyncio.Event().wait()\n\n"
            "def extend(app):\n    app.on_cleanup.append(close)\n"
        )
        async with gai("serve", "--port", "0", "--app", "shop:extend", cwd=tmp_path) as server:
            await server.until(b"\nmodels: ")
            server.process.send_signal(signal.SIGINT)
            await server.until(b"closing\n")
            ended = asyncio.create_task(server.end())
            while not ended.done():
                server.process.send_signal(signal.SIGINT)
                await asyncio.wait((ended,), timeout=0.1)
            assert ended.result()[0] in (1, -signal.SIGINT), "the latter where one comes while the interpreter ends"

    async def test_a_port_in_use_is_one_clear_line(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert await run("serve", "--port", str(port), cwd=tmp_path) == (
                3,
                "",
                f"error: cannot listen on 127.0.0.1:{port}: in use by another program: choose another with --port\n",
            )

    async def test_binding_openly_is_refused(self, tmp_path: Path) -> None:
        code, output, errors = await run("serve", cwd=tmp_path, GAI_FAST_HOST="0.0.0.0")
        assert (code, output) == (2, "")
        assert errors.startswith("error: GAI_FAST_HOST: 0.0.0.0 is open to other machines")
        assert errors.count("\n") == 1


class TestChat:
    async def test_it_streams_from_both_dialects_without_a_server(self, config: Path, mock: Mock) -> None:
        for model, path in (("it's fast", "/v1/chat/completions"), ("deep", "/v1/messages")):
            got = await run("chat", "-c", str(config), "-m", model, "hi", cwd=config.parent, KEY="k")
            assert got == (0, TEXT + "\n", "")
            assert mock.requests[-1].path == path

    async def test_a_conversation_is_kept(self, config: Path, mock: Mock) -> None:
        assert await run("chat", cwd=config.parent, given=b"one\ntwo\n", KEY="k") == (0, f"{TEXT}\n{TEXT}\n", "")
        assert [message["role"] for message in mock.requests[-1].body["messages"]] == ["user", "assistant", "user"]

    async def test_an_interrupt_cancels_the_answer(self, config: Path, mock: Mock) -> None:
        mock.rate, mock.deltas = 20, 10_000
        async with gai("chat", "hi", cwd=config.parent, KEY="k") as chat:
            await chat.until(b"Once")
            chat.process.send_signal(signal.SIGINT)
            code, output, errors = await chat.end()
        assert (code, errors) == (1, "")
        assert output.endswith("\n")
        await asyncio.wait_for(mock.requests[0].closed.wait(), PATIENCE)
        assert mock.requests[0].answered_at is None

    async def test_a_break_is_reported_after_what_came(self, config: Path, mock: Mock) -> None:
        mock.fault = Fault("reset", 3)
        code, output, errors = await run("chat", "hi", cwd=config.parent, KEY="k")
        assert (code, output) == (1, " ".join(WORDS[:3]) + "\n")
        assert errors.startswith("error: network: ")


class TestChatTools:
    """The gateway's tools in a conversation; the terminal is the standard input."""

    MODULE = """
def pay(euros: int, to: str) -> str:
    \"\"\"Pays.\"\"\"
    return f"paid {euros}"


async def answer(request):
    last = request["messages"][-1]
    if last["role"] == "tool":
        yield f"It says: {last['content']}"
    else:
        call = {"name": "pay", "input": {"euros": 7, "to": "\\u202eAda"}}
        yield {"type": "tool.call", "call_id": "c1", "tool_call": call}
"""
    CONFIG = """
[[tool]]
name = "pay"
python = "paying:pay"
approve = true
[[upstream]]
name = "mine"
provider = "python"
python = "paying:answer"
[[model]]
name = "m"
upstream = "mine"
tools = ["pay"]
"""

    def written(self, folder: Path) -> Path:
        (folder / "paying.py").write_text(self.MODULE)
        (folder / "gai-fast.toml").write_text(self.CONFIG)
        return folder

    @pytest.mark.parametrize(
        ("typed", "said"),
        [(b"y\n", "It says: paid 7\n"), (b"\n", "It says: the call was denied\n"), (None, "")],
        ids=["yes", "no", "interrupt"],
    )
    async def test_a_person_is_asked_before_a_call_is_made(
        self, tmp_path: Path, typed: bytes | None, said: str
    ) -> None:
        ours, theirs = os.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gai_fast", "chat", "Pay", cwd=self.written(tmp_path), env=environment(),
                stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stderr is not None
            asked = await asyncio.wait_for(process.stderr.readuntil(b"y/N] "), PATIENCE)
            assert asked.endswith(rb'[pay {"euros": 7, "to": "\u202eAda"}: make this call? y/N] ')
            if typed is None:
                process.send_signal(signal.SIGINT)
            else:
                os.write(ours, typed)
            output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            os.close(ours)
            os.close(theirs)
        assert (process.returncode, output.decode()) == (1 if typed is None else 0, said)

    async def test_without_a_terminal_nobody_is_asked(self, tmp_path: Path) -> None:
        code, output, errors = await run("chat", "Pay", cwd=self.written(tmp_path))
        assert (code, output) == (0, "It says: the call needs an approval, and nobody can be asked\n")
        assert "y/N" not in errors


class TestCheck:
    async def test_probe_asks_each_upstream(self, config: Path, mock: Mock) -> None:
        code, output, errors = await run("check", "--probe", "--json", cwd=config.parent, KEY="k")
        assert (code, errors) == (0, "")
        probes = json.loads(output)["probes"]
        assert [(probe["upstream"], probe["model"], probe["ok"]) for probe in probes] == [
            ("chat", "gpt", True),
            ("messages", "claude", True),
        ]
        assert sorted(request.path for request in mock.requests) == ["/v1/chat/completions", "/v1/messages"]

    async def test_probe_asks_the_upstream_of_each_target(self, tmp_path: Path, mock: Mock) -> None:
        upstream = f'provider = "openai-compatible"\nbase_url = "{mock.url}/v1"\n'
        names = [f'[[upstream]]\nname = "{name}"\n{upstream}' for name in ("one", "two")]
        targets = '[[model]]\nname = "m"\ntargets = [{upstream = "one", id = "a"}, {upstream = "two", id = "b"}]\n'
        (tmp_path / "c.toml").write_text("".join(names) + targets)
        _, output, _ = await run("check", "-c", "c.toml", "--probe", "--json", cwd=tmp_path)
        probes = json.loads(output)["probes"]
        assert [(probe["upstream"], probe["model"], probe["ok"]) for probe in probes] == [
            ("one", "a", True),
            ("two", "b", True),
        ]
        assert sorted(request.body["model"] for request in mock.requests) == ["a", "b"]

    async def test_an_upstream_that_fails_is_a_failure(self, config: Path, mock: Mock) -> None:
        mock.fault = Fault("500")
        code, output, errors = await run("check", "--probe", cwd=config.parent, KEY="sk-hidden")
        assert (code, errors) == (1, "")
        assert "hidden" not in output
        assert output.splitlines()[0] == "config OK (2 upstreams, 2 models and the demo): gai-fast.toml"
        results = [line.split()[:2] for line in output.splitlines()[1:]]
        assert results == [["chat", "FAILED"], ["messages", "FAILED"], ["store:", "ok:"]]

    @pytest.mark.parametrize(
        ("said", "code"), [("The model `gai-fast-probe` does not exist", 0), ("There is no such URL", 1)]
    )
    async def test_an_upstream_without_a_model_answers_by_refusing_one(
        self, tmp_path: Path, mock: Mock, said: str, code: int
    ) -> None:
        """A wrong base_url is refused as well, but with no word of the model."""

        class Refusing(OpenAIAnswer):
            required = ("what nobody sends",)

            @classmethod
            def error(cls, status: int, message: str) -> dict[str, Any]:
                return super().error(status, said)

        mock.dialects["openai"] = Refusing
        (tmp_path / "c.toml").write_text(f'[[upstream]]\nname = "chat"\nprovider = "openai"\nbase_url = "{mock.url}"\n')
        got = await run("check", "-c", "c.toml", "--probe", cwd=tmp_path)
        assert (got[0], mock.requests[0].body["model"]) == (code, "gai-fast-probe")

    @pytest.mark.parametrize(
        ("provider", "path", "hint"),
        [
            ("openai-compatible", "", "try {}/v1"),
            ("openai-compatible", "/", "try {}/v1"),
            ("openai:responses", "/openai", "try {}/openai/v1"),
            ("openai", "/api/v1", "requests ask {}/api/v1/chat/completions"),
            ("anthropic", "/claude", "requests ask {}/claude/v1/messages"),
        ],
    )
    async def test_a_path_that_the_upstream_does_not_have_is_followed_by_one_to_try(
        self, tmp_path: Path, provider: str, path: str, hint: str
    ) -> None:
        """Another gateway is the upstream: it has OpenAI's and Anthropic's API below `/v1` alone."""
        gateway = await start(Settings(server=ServerSettings(port=0)))
        try:
            (tmp_path / "c.toml").write_text(
                f'[[upstream]]\nname = "up"\nprovider = "{provider}"\nbase_url = "{gateway.url}{path}"\n'
            )
            code, output, _ = await run("check", "-c", "c.toml", "--probe", cwd=tmp_path)
        finally:
            await gateway.close()
        assert code == 1
        assert f" -> check base_url of up: {hint.format(gateway.url)}\n" in output

    async def test_a_refused_key_is_reported_once(self, config: Path, mock: Mock) -> None:
        """The engine warns of it as well, for those who run a server."""

        class Refusing(OpenAIAnswer):
            @classmethod
            def error(cls, status: int, message: str) -> dict[str, Any]:
                return {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}

        mock.dialects["openai"] = Refusing
        mock.fault = Fault("json-error")
        said = "provider_unavailable: upstream 'chat' refuses our credentials"
        code, output, errors = await run("check", "--probe", cwd=config.parent, KEY="k")
        assert (code, output.count(said), errors) == (1, 1, "")
        code, output, errors = await run("chat", "hi", cwd=config.parent, KEY="k")
        assert (code, output, errors.count("\n")) == (1, "", 1)
        assert errors.startswith(f"error: {said}")


class TestDecode:
    async def test_a_pipe_is_decoded_as_it_comes(self, tmp_path: Path) -> None:
        async with gai("decode", "--provider", "openai", cwd=tmp_path) as decode:
            stdin = decode.process.stdin
            assert stdin is not None
            stdin.write(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
            await stdin.drain()
            assert '"text":"Hi"' in await decode.until(b'"Hi"}\n')
            code, output, errors = await decode.end(b"")
        assert (code, errors) == (0, "")
        assert '"reason":"truncated"' in output
