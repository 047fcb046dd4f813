"""`gai-fast tools probe`: what it prints, what it calls, and that nothing is left of what it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.unit.cli.conftest import Run
from tests.waiting import SECONDS

SERVER = """
import json, os, sys, time
TOOLS = [
    {"name": "now", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "find", "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
     "annotations": {"readOnlyHint": True}},
    {"name": "write", "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": True}},
    {"name": "fails", "inputSchema": {"type": "object"}},
    {"name": "bad\\x1b", "inputSchema": {"type": "object"}},
]
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "serverInfo": {"name": "demo\\x1b[2J", "version": "1"}}
    elif message["method"] == "tools/list":
        result = {"tools": TOOLS}
    else:
        params = message["params"]
        with open("called", "a") as file:
            file.write(params["name"] + json.dumps(params["arguments"]) + "\\n")
        if sys.argv[1:] == ["hangs"]:
            open("pid", "w").write(str(os.getpid()))
            time.sleep(600)
        image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
        result = {"content": [image], "isError": params["name"] == "fails"}
        if params["name"] == "fails":
            result["content"] = [{"type": "text", "text": "no\\x1b good"}]
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.fixture
def server(folder: Path) -> list[str]:
    """Returns the command of a server, which notes its calls in a file."""
    path = folder / "server.py"
    path.write_text(SERVER)
    return [sys.executable, "-S", str(path)]


def test_read_only_tools_without_arguments_are_called(run: Run, folder: Path, server: list[str]) -> None:
    result = run("tools", "probe", "--", *server)
    *lines, called = result.stdout.splitlines()
    assert lines == [
        "protocol 2026-07-28 (demo [2J 1)",
        "4 tools",
        "  now    17 bytes  read-only",
        "  find   71 bytes  read-only",
        "  write  17 bytes  idempotent",
        "  fails  17 bytes",
        "left out: bad: its name is no text of 1 to 128 printable characters",
    ]
    assert called.startswith("called now    ")
    assert called.endswith(" ms, image")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (folder / "called").read_text() == "now{}\n"


def test_with_all_every_tool_is_called_and_what_fails_is_named(run: Run, folder: Path, server: list[str]) -> None:
    result = run("tools", "probe", "--all", "--", *server)
    assert (folder / "called").read_text() == 'now{}\nfind{"q": "text"}\nwrite{}\nfails{}\n'
    assert (result.exit_code, result.stderr) == (1, "error: fails: the tool reports an error: no good\n")


def test_a_server_that_cannot_be_reached_is_an_error(run: Run) -> None:
    result = run("tools", "probe", f"http://127.0.0.1:{free_port()}/mcp")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: http://127.0.0.1:")
    assert ": cannot connect to 127.0.0.1:" in result.stderr
    result = run("tools", "probe", "no-such-command")
    text = "error: no-such-command: its command cannot be run: No such file or directory\n"
    assert (result.exit_code, result.stderr) == (1, text)


@pytest.mark.parametrize(
    "target", [["ftp://a/"], ["http://u:sk-canary@a/"], ["http://127.0.0.1:1/", "more"], []], ids=range(4)
)
def test_a_wrong_target_is_not_repeated(run: Run, target: list[str]) -> None:
    result = run("tools", "probe", *target)
    assert result.exit_code == 2
    assert "sk-canary" not in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_too(folder: Path, server: list[str], number: signal.Signals) -> None:
    program = [sys.executable, "-m", "gai_fast", "tools", "probe", "--", *server, "hangs"]
    root = str(Path(__file__).parents[4])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(program, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE) as probe:
        until = time.monotonic() + SECONDS
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            assert time.monotonic() < until
            assert probe.poll() is None
            time.sleep(0.02)
        probe.send_signal(number)
        _, problems = probe.communicate(timeout=SECONDS)
    assert probe.returncode == (1 if number == signal.SIGINT else 128 + number)
    assert b"Traceback" not in problems
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)
