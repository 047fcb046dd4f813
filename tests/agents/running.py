"""Runs coding agents from npm, unmodified, through a gateway in a process of its own, without any other network."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from programs.dialects import DIALECTS, Dialect
from programs.environments import Environment
from programs.gateways import Gateway, gateway
from programs.page import ADDRESS, KEY
from tests.agents.upstream import CachingUpstream
from tests.docs.pages import blocks, read

SECONDS: Final = 120
"""The most that an agent may take for one prompt."""
UPSTREAMS: Final[Mapping[str, Dialect]] = {
    **DIALECTS,
    "gemini": dataclasses.replace(DIALECTS["chat"], provider="gemini", prefix=""),
    "ollama": dataclasses.replace(DIALECTS["chat"], provider="ollama", prefix=""),
}
_LOG: Final = '[server]\naccess_log = true\nlog_format = "json"\n\n'
_LONGEST_LINE: Final = 16 << 20
_NOWHERE: Final = "http://127.0.0.1:9"
_SECTION: Final = "Agents on another provider's model"
_MCP: Final = Path(__file__).with_name("mcp_server.py")


def pasted() -> dict[str, str]:
    """The configuration of docs/programs.md, and its block for each agent."""
    found = [block for block in blocks(read("docs/programs.md")) if block.section == _SECTION]
    [configuration] = [block.text for block in found if block.language == "toml"]
    claude, codex = [block.text for block in found if block.language == "bash"]
    return {"configuration": configuration, "claude": claude, "codex": codex}


@asynccontextmanager
async def gateway_before(folder: Path, api: str, upstream: CachingUpstream) -> AsyncIterator[Gateway]:
    """A gateway with the page's configuration and an access log, before an upstream."""
    configuration = _LOG + pasted()["configuration"]
    async with gateway(folder, configuration, UPSTREAMS[api], upstream.url) as running:
        yield running


def refusals(lines: list[str]) -> list[Any]:
    """What the gateway has refused; Codex leaves some streams at their end mark (499)."""
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in logged if line.get("status", 0) >= 400 and line["status"] != 499]


def variables(place: Environment, folder: Path) -> dict[str, str]:
    """The environment of an agent: nothing of the user's but where programs are."""
    return {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PATH": place.before(os.environ.get("PATH", os.defpath)),
    }


async def run(command: list[str], folder: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Runs a command; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environ,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (errors + output).decode()[-2000:]
    return output.decode(), errors.decode()


async def run_block(name: str, url: str, folder: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Runs an agent's block of docs/programs.md."""
    text = pasted()[name].replace(ADDRESS, url)
    return await run(["bash", "-eu", "-o", "pipefail", "-c", text], folder, environ)


async def two_prompts_of_claude(
    url: str, folder: Path, environ: Mapping[str, str], *, with_mcp: bool = False
) -> tuple[str, str]:
    """Runs Claude Code with two prompts in one session."""
    own = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": KEY}
    models = dict.fromkeys(("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"), "fast")
    command = ["claude", "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    command += ["--allowedTools", "Bash", "mcp__notes__read_note"]
    if with_mcp:
        server = {"notes": {"command": sys.executable, "args": [str(_MCP)]}}
        command += ["--mcp-config", json.dumps({"mcpServers": server})]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**environ, **own, **models},
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = b""
    try:
        async with asyncio.timeout(SECONDS):
            for prompt in ("Do the steps", "Do them again"):
                said = {"type": "user", "message": {"role": "user", "content": prompt}}
                process.stdin.write(json.dumps(said).encode() + b"\n")
                line = b"{}"
                while line and json.loads(line).get("type") != "result":
                    line = await process.stdout.readline()
                    output += line
            process.stdin.close()
            rest, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (errors + output + rest).decode()[-2000:]
    return output.decode(), errors.decode()


async def two_prompts_of_codex(url: str, folder: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Runs Codex with two prompts in one session, with two lines of configuration."""
    (folder / ".codex").mkdir(exist_ok=True)
    (folder / ".codex/config.toml").write_text(f'model = "fast"\nopenai_base_url = "{url}/v1"\n')
    environ = {**environ, "CODEX_API_KEY": KEY}
    options = ["--skip-git-repo-check"]
    first = await run(["codex", "exec", *options, "Do the steps"], folder, environ)
    again = await run(["codex", "exec", "resume", "--last", *options, "Do them again"], folder, environ)
    return first[0] + again[0], first[1] + again[1]
