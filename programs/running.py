"""Runs the blocks of a program, straight against the upstream and through each gateway, and judges what they print."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from programs.environments import Environment
from programs.gateways import Gateway
from programs.page import ADDRESS, Block, Program
from programs.script import STORY, WEATHER
from programs.upstream import Upstream

SECONDS: Final = 300
"""The most that one block may take."""
STRAIGHT: Final = "straight"
_FILES: Final = {"python": "program.py", "js": "program.mjs", "bash": "program.sh"}
_NOWHERE: Final = "http://127.0.0.1:9"
"""A proxy that nobody runs, so that what programs fetch or report besides does not leave this machine."""
_LEFT_OUT: Final = re.compile(r"has no place for (.+): left out")
_ERROR: Final = re.compile(r"[\w. ]*(error|exception)\b.*:", re.I)
"""The line of a program's output that says why it failed, in most languages."""


@dataclass(frozen=True)
class Run:
    """One run of a block: what it printed, why it failed, and the requests that reached the upstream."""

    output: str
    problem: str
    requests: list[tuple[str, Any]]


@dataclass
class Verdict:
    """The result of one kind of block: how many runs were right, and what was seen.

    Args:
        runs: All runs but the straight one.
        right: Those that printed the expected text, and whatever the straight run printed.
        faults: Why the others are not right.
        remarks: What the gateway changed in requests, or left out.
    """

    runs: int = 0
    right: int = 0
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Bench:
    """The upstream and the gateways in front of it.

    Args:
        upstream: The scripted upstream.
        gateways: The gateways by what their upstream speaks.
    """

    def __init__(self, upstream: Upstream, gateways: Mapping[str, Gateway]) -> None:
        self._upstream = upstream
        self._gateways = gateways

    async def judge(self, program: Program, place: Environment) -> tuple[Verdict, Verdict]:
        """Runs both blocks of a program everywhere; returns the verdicts of the text and of the tool."""
        return (
            await self._judge(program.text, STORY, place),
            await self._judge(program.tool, WEATHER, place),
        )

    async def _judge(self, block: Block, expected: str, place: Environment) -> Verdict:
        verdict = Verdict()
        straight, own = None, frozenset[str]()
        if not block.is_of_ours:
            straight, again = [await self._run(block, self._upstream.url, place) for _ in range(2)]
            own = frozenset(changes(straight.requests, again.requests))  # ids and times, which the program makes anew
            if fault := fault_of(straight, expected):
                verdict.faults.append(f"{STRAIGHT}: {fault}")
        for name, gateway in self._gateways.items():
            gateway.new_lines()
            run = await self._run(block, gateway.url, place)
            verdict.runs += 1
            fault = fault_of(run, expected, straight)
            if fault:
                verdict.faults.append(f"{name}: {fault}")
            else:
                verdict.right += 1
            left_out = [path for line in gateway.new_lines() for path in _LEFT_OUT.findall(line)]
            verdict.remarks += [f"{name}: left out {path}" for path in dict.fromkeys(left_out)]
            if straight is not None and {dialect for dialect, _ in straight.requests} == {name}:
                found = [change for change in changes(straight.requests, run.requests) if change not in own]
                verdict.remarks += [f"{name}: {change}" for change in found]
        return verdict

    async def _run(self, block: Block, url: str, place: Environment) -> Run:
        self._upstream.requests.clear()
        with tempfile.TemporaryDirectory(prefix="programs-") as name:
            output, problem = await _execute(block, url, place, Path(name))
        return Run(output, problem, list(self._upstream.requests))


def fault_of(run: Run, expected: str, straight: Run | None = None) -> str:
    """Why a run is not right; empty where it is.

    Args:
        run: The run.
        expected: The text that the program has to print.
        straight: The run without a gateway, which printed the same.
    """
    if run.problem:
        return run.problem
    if expected not in run.output:
        return f"printed {run.output.strip()[-200:]!r}"
    if straight is not None and run.output != straight.output:
        pairs = zip(run.output.splitlines(), straight.output.splitlines(), strict=False)
        ours, theirs = next((pair for pair in pairs if pair[0] != pair[1]), ("more or fewer lines", ""))
        return f"printed {ours!r}, {STRAIGHT} {theirs!r}"
    return ""


def changes(straight: list[tuple[str, Any]], through: list[tuple[str, Any]]) -> list[str]:
    """The members of requests that the gateway changed on their way to an upstream of the same dialect."""
    if len(straight) != len(through):
        return [f"{len(through)} requests for {len(straight)}"]
    found = [_differences(a, b, "") for (_, a), (_, b) in zip(straight, through, strict=True)]
    return sorted({change for each in found for change in each})


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        begin = f"{path}." if path else ""
        found = [f"request without {begin}{key}" for key in a.keys() - b.keys()]
        found += [f"request with {begin}{key}" for key in b.keys() - a.keys()]
        for key in a.keys() & b.keys():
            found += _differences(a[key], b[key], f"{begin}{key}")
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [change for x, y in zip(a, b, strict=True) for change in _differences(x, y, f"{path}[]")]
    return [] if a == b else [f"request's {path} differs"]


async def _execute(block: Block, url: str, place: Environment, folder: Path) -> tuple[str, str]:
    """Runs a block in an empty folder; returns what it printed, and why it failed."""
    file = folder / _FILES[block.language]
    file.write_text(block.text.replace(ADDRESS, url))
    if place.modules is not None:
        (folder / "node_modules").symlink_to(place.modules)
    command = {
        "python": ["python", str(file)],
        "js": ["node", str(file)],
        "bash": ["bash", "-eu", "-o", "pipefail", str(file)],
    }[block.language]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=_variables(place, folder),
            start_new_session=True,
        )
    except OSError as problem:
        return "", f"{command[0]}: {problem.strerror}"
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        return "", f"took more than {SECONDS} s"
    finally:
        # Also what the program has started and left behind.
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        lines = (errors + b"\n" + output).decode(errors="replace").strip().splitlines() or ["it said nothing"]
        named = [line for line in lines if _ERROR.match(line)] or lines
        return "", f"exit code {process.returncode}: {named[-1].strip()[:300]}"
    return output.decode(errors="replace"), ""


def _variables(place: Environment, folder: Path) -> dict[str, str]:
    """The environment of a program: nothing of the user's but where programs and languages are."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE)
    exempt = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    return {
        **kept,
        **proxies,
        **exempt,
        "HOME": str(folder),
        "PATH": place.before(kept.get("PATH", os.defpath)),
    }
