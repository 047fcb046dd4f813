"""Servers of tools that are processes: `net/tools/stdio_wire.py`. Whatever they do, they end with their client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gai_fast.net.tools.message_reader import Beside
from gai_fast.net.tools.protocol import STATELESS
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.stdio_wire import StdioWire
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import ToolProgress
from tests.conftest import ChangeLimits
from tests.integration.gateway import Net, on_both_loops, on_uvloop
from tests.integration.mcp_servers import Noted
from tests.limits import LIMITS
from tests.waiting import until

# What all servers have: a call is `on_call(message)`. Each notes its process, and what it has started, in a file.
SERVER = """
import json, os, signal, sys, time
FOLDER = sys.argv[1]
def note(name, text=1):
    with open(os.path.join(FOLDER, name), "a") as file:
        file.write(str(text) + "\\n")
def send(value):
    sys.stdout.write((value if isinstance(value, str) else json.dumps(value)) + "\\n")
    sys.stdout.flush()
def reply(message, result):
    send({"jsonrpc": "2.0", "id": message["id"], "result": result})
def said(message, text):
    reply(message, {"content": [{"type": "text", "text": text}]})
def refuse(message, code):
    send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": "no"}})
def discover(message):
    reply(message, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
def initialize(message):
    reply(message, {"protocolVersion": "2025-06-18", "capabilities": {}})
def on_call(message):
    said(message, "ok")
def at_end():
    pass
def main():
    note("pids", os.getpid())
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        note("asked", method)
        if method == "server/discover":
            discover(message)
        elif method == "initialize":
            initialize(message)
        elif method == "tools/list":
            reply(message, {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]})
        elif method == "tools/call":
            on_call(message)
    at_end()
"""
PROGRAMS = {
    "good": "",
    "logs": """
def on_call(message):
    for line in ("INFO: a log", "", "{", "[1]", "{}", "\\x00", '{"jsonrpc": "2.0", "id": 99, "result": {}}'):
        send(line)
    said(message, "ok")
""",
    "floods": """
def on_call(message):
    step = {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1}
    for _ in range(5000):
        send({"method": "notifications/progress", "params": step})
        send({"method": "notifications/message", "params": {}})
    said(message, "ok")
""",
    "large result": """
def on_call(message):
    step = {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1}
    send({"method": "notifications/progress", "params": step})
    said(message, "x" * 300_000)
    send({"method": "notifications/progress", "params": {**step, "progress": 2}})
""",
    "exits after a large result": """
def on_call(message):
    said(message, "x" * 300_000)
    sys.exit(0)
""",
    "exits": """
def on_call(message):
    sys.exit(3)
""",
    "silent": """
def on_call(message):
    note("called")
""",
    "large": """
def on_call(message):
    for _ in range(50):
        sys.stdout.write("x" * (1 << 20))
    sys.stdout.flush()
    time.sleep(600)
""",
    "hangs": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def at_end():
    time.sleep(600)
""",
    "forks": """
def on_call(message):
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("pids", os.getpid())
        note("forked")
        time.sleep(600)
    said(message, "ok")
""",
    "forks at once": """
if not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("pids", os.getpid())
    time.sleep(600)
""",
    "forks and exits": """
def on_call(message):
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.close(1)
        note("pids", os.getpid())
        note("forked")
        time.sleep(600)
    while not os.path.exists(os.path.join(FOLDER, "forked")):
        time.sleep(0.01)
    os._exit(0)
""",
    "leaves its output": """
def on_call(message):
    if not os.fork():
        os.setsid()
        note("pids", os.getpid())
        note("forked")
        time.sleep(600)
    while not os.path.exists(os.path.join(FOLDER, "forked")):
        time.sleep(0.01)
    os._exit(3)
""",
    "answers and exits": """
def on_call(message):
    while not os.path.exists(os.path.join(FOLDER, "go")):
        time.sleep(0.01)
    if not os.fork():
        os.setsid()
        note("pids", os.getpid())
        time.sleep(600)
    said(message, "x" * int(open(os.path.join(FOLDER, "go")).read()))
    os._exit(0)
""",
    "old": """
def discover(message):
    refuse(message, -32601)
""",
    "old and silent": """
def discover(message):
    pass
""",
    "slow to start": """
def discover(message):
    if not os.path.exists(os.path.join(FOLDER, "late")):
        note("late")
        return
    reply(message, {"supportedVersions": ["2026-07-28"]})
def initialize(message):
    refuse(message, -32601)
""",
    "pings": """
def discover(message):
    refuse(message, -32601)
def on_call(message):
    send({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    send({"jsonrpc": "2.0", "id": 2, "method": "roots/list"})
    answers = [json.loads(sys.stdin.readline()) for _ in range(2)]
    said(message, json.dumps([sorted(each) for each in answers]))
""",
    "deaf": """
def on_call(message):
    time.sleep(600)
""",
    "tells": """
def discover(message):
    send({"id": message["id"], "error": {"code": -32021, "message": os.environ["T"]}})
""",
    "closes its input": """
def on_call(message):
    said(message, "ok")
    if not os.path.exists(os.path.join(FOLDER, "closed")):
        os.close(0)
        note("closed")
        time.sleep(600)
""",
    "ends at once": """
def main():
    note("pids", os.getpid())
    print("no such server")
""",
}


def client_of(
    net: Net,
    folder: Path,
    program: str,
    env: Mapping[str, str] | None = None,
    beside: Beside | None = None,
    **options: Any,
) -> tuple[ToolClient, Path]:
    source = folder / "server.py"
    source.write_text(f"{SERVER}\n{PROGRAMS[program]}\nmain()\n")
    command = [sys.executable, "-S", str(source), str(folder)]
    wire = StdioWire(command, env, secrets=(env or {}).values(), loop=asyncio.get_running_loop())
    wire.beside = beside
    client = ToolClient(wire, **options)
    net.stack.push_async_callback(client.close)
    return client, folder


async def called(client: ToolClient, **options: Any) -> ToolResult:
    return await client.call((await client.list_tools()).tools["t"], {}, **options)


def lines(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().split() if (folder / name).exists() else []


def is_alive(pid: str) -> bool:
    """Whether a process runs; one that has ended and is not reaped does not."""
    try:
        os.kill(int(pid), 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # perhaps just now
        return False


def until_it_has_ended(folder: Path) -> None:
    """Keeps the loop busy until a process that has started another one has ended."""
    while len(lines(folder, "pids")) < 2 or is_alive(lines(folder, "pids")[0]):
        time.sleep(0.01)
    time.sleep(0.1)


def children() -> set[str]:
    """The processes that this one has started."""
    return {*Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


async def until_ended(folder: Path) -> None:
    """Returns once every process that has noted itself has ended."""
    assert lines(folder, "pids")
    await until(lambda: not any(map(is_alive, lines(folder, "pids"))))


@on_both_loops
@pytest.mark.parametrize("program", ["large result", "exits after a large result"])
async def test_a_large_line_is_read_beside_the_loop_in_the_turn_of_its_caller(
    net: Net, tmp_path: Path, program: str
) -> None:
    beside = Noted(net)
    client, _ = client_of(net, tmp_path, program, beside=beside.do, max_result=1 << 20)
    callers = ["ann"] if program.startswith("exits") else ["ann", "bob"]
    for caller in callers:
        assert await called(client, caller=caller) == ToolResult("x" * 300_000)
    assert beside.callers == [each for caller in callers for each in (caller, caller)]


@on_both_loops
@pytest.mark.parametrize("program", ["good", "logs", "floods"])
async def test_a_process_is_asked_whatever_it_logs(net: Net, tmp_path: Path, program: str) -> None:
    client, folder = client_of(net, tmp_path, program)
    found: list[ToolProgress] = []
    assert await called(client, on_progress=found.append) == ToolResult("ok")
    assert len(found) == (LIMITS.tool_progress if program == "floods" else 0)
    assert (await client.connect()).version == STATELESS
    await client.close()
    assert lines(folder, "asked") == ["server/discover", "tools/list", "tools/call"]
    assert not any(map(is_alive, lines(folder, "pids")))


@on_both_loops
async def test_a_process_that_exits_under_a_call_is_started_anew_by_the_next_request(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "exits")
    for number in (1, 2):
        with pytest.raises(ToolServerError, match="its process has ended") as raised:
            await called(client)
        assert (raised.value.fault, raised.value.may_have_run) == ("lost", True)
        assert lines(folder, "asked").count("tools/call") == number
    assert len(lines(folder, "pids")) == 2


@on_uvloop
async def test_a_process_that_ends_at_once_is_an_error_each_time(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "ends at once")
    for _ in range(2):
        with pytest.raises(ToolServerError, match=r"its process has ended \(exit code 0\): run it by `gai-fast tools"):
            await client.connect()
    assert len(lines(folder, "pids")) == 2


@on_both_loops
async def test_a_process_that_ends_before_the_loop_has_its_pipes_is_an_error(net: Net) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(5):
        client = ToolClient(StdioWire(["sh", "-c", "exit 3"], loop=loop))
        attempt = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)
        loop.call_soon(time.sleep, 0.1)  # other work, while it ends
        with pytest.raises(ToolServerError, match=r"its process has ended \(exit code 3\)"):
            await attempt
        await client.close()


@on_both_loops
@pytest.mark.parametrize("turns", range(6))
async def test_a_start_that_is_cancelled_closes_each_pipe_once(net: Net, tmp_path: Path, turns: int) -> None:
    wire = StdioWire(["cat"], loop=asyncio.get_running_loop())
    attempt = asyncio.ensure_future(wire.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    attempt.cancel()
    await asyncio.wait((attempt,))
    with (tmp_path / "other").open("w") as other:  # it may get the number of a pipe that is closed
        await wire.close(None)
        assert other.write("whole") == 5


@on_both_loops
async def test_a_process_that_closes_its_input_is_started_anew(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "closes its input")
    tool = (await client.list_tools()).tools["t"]
    assert await client.call(tool, {}) == ToolResult("ok")
    await until(lambda: lines(folder, "closed"))
    assert await client.call(tool, {}) == ToolResult("ok")
    assert len(lines(folder, "pids")) == 2


@on_both_loops
@pytest.mark.parametrize("line", ["y", '{"method": "notifications/message"}'])
async def test_a_process_that_floods_its_output_is_ended(net: Net, line: str) -> None:
    client = ToolClient(StdioWire(["yes", line], loop=asyncio.get_running_loop()))
    net.stack.push_async_callback(client.close)
    text = f"it sends more than {LIMITS.lines_unasked} lines without an answer"
    with pytest.raises(ToolServerError, match=text):
        await client.connect()


@on_both_loops
async def test_other_work_has_its_turn_while_much_is_read(
    net: Net, tmp_path: Path, change_limits: ChangeLimits
) -> None:
    client, _ = client_of(net, tmp_path, "floods")
    tool = (await client.list_tools()).tools["t"]
    loop, done = asyncio.get_running_loop(), False
    most = found = 0

    def turn() -> None:
        nonlocal most, found
        most, found = max(most, found), 0
        if not done:
            loop.call_soon(turn)

    def on_progress(_: ToolProgress) -> None:
        nonlocal found
        found += 1

    loop.call_soon(turn)
    await client.call(tool, {}, on_progress=on_progress)
    done = True
    assert 0 < most < LIMITS.output_turn / 50  # bytes of a line


@on_uvloop
async def test_a_command_that_cannot_be_run_is_an_error(net: Net, tmp_path: Path) -> None:
    for command in ([str(tmp_path / "missing")], ["a\0b"], [str(tmp_path)]):
        client = ToolClient(StdioWire(command, loop=asyncio.get_running_loop()))
        with pytest.raises(ToolServerError, match="its command cannot be run") as raised:
            await client.connect()
        assert (raised.value.fault, raised.value.may_have_run) == ("unreachable", False)
        await client.close()


@on_both_loops
async def test_a_late_or_cancelled_call_is_told_to_the_process(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "silent", timeout=1.0)
    tool = (await client.list_tools()).tools["t"]
    task = asyncio.ensure_future(client.call(tool, {}))
    await until(lambda: lines(folder, "called"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ToolServerError, match="it does not answer within 1 s"):
        await client.call(tool, {})
    await until(lambda: lines(folder, "asked").count("notifications/cancelled") == 2)


@on_uvloop
async def test_a_line_without_end_ends_the_process(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "large")
    with pytest.raises(ToolServerError, match=r"it sends a line of more than 8388608 bytes"):
        await called(client)
    await until_ended(folder)


@on_both_loops
@pytest.mark.parametrize("program", ["hangs", "forks"])
async def test_a_process_that_will_not_end_is_killed_with_its_children(
    net: Net, tmp_path: Path, change_limits: ChangeLimits, program: str
) -> None:
    change_limits(exit_wait=0.2)
    client, folder = client_of(net, tmp_path, program)
    assert await called(client) == ToolResult("ok")
    await until(lambda: program == "hangs" or lines(folder, "forked"))
    await client.close()
    await until_ended(folder)


GATEWAY = """
import asyncio, sys
from gai_fast.net.tools.stdio_wire import StdioWire
async def main():
    wire = StdioWire(sys.argv[1:], loop=asyncio.get_running_loop())
    await wire.start()
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@on_uvloop
@pytest.mark.parametrize("program", ["hangs", "forks at once"])
async def test_a_process_ends_with_a_gateway_that_is_killed(net: Net, tmp_path: Path, program: str) -> None:
    path = tmp_path / "server.py"
    path.write_text(SERVER + PROGRAMS[program] + "main()\n")
    command = [sys.executable, "-c", GATEWAY, sys.executable, str(path), str(tmp_path)]
    gateway = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"started\n"
    await until(lambda: len(lines(tmp_path, "pids")) == (1 if program == "hangs" else 2))
    gateway.kill()
    await gateway.wait()
    await until_ended(tmp_path)


@on_uvloop
async def test_a_process_that_nothing_would_end_is_not_left_running(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def launch_no_shell(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if command[0] == "/bin/sh":
            raise FileNotFoundError(2, "No such file or directory")
        started.append(launch(command, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", launch_no_shell)
    client, _ = client_of(net, tmp_path, "good")
    with pytest.raises(ToolServerError, match="without a shell that can end it: No such file or directory"):
        await client.connect()
    assert [each.returncode for each in started] == [-signal.SIGKILL]


@on_uvloop
async def test_what_a_process_leaves_behind_is_killed(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "forks and exits")
    with pytest.raises(ToolServerError, match="its process has ended"):
        await called(client)
    assert len(lines(folder, "pids")) == 2
    await until_ended(folder)  # before anything else is asked


@on_both_loops
@pytest.mark.parametrize("looks", [0.05, 600.0])
async def test_a_process_whose_output_a_child_holds_has_ended(
    net: Net, tmp_path: Path, change_limits: ChangeLimits, looks: float
) -> None:
    """The child has a session of its own, and outlives it: only the operating system knows that the process ended."""
    change_limits(exit_look=looks)
    client, folder = client_of(net, tmp_path, "leaves its output")
    net.stack.callback(lambda: [os.kill(int(pid), signal.SIGKILL) for pid in lines(folder, "pids") if is_alive(pid)])
    tool = (await client.list_tools()).tools["t"]
    lost = asyncio.create_task(client.call(tool, {}))
    if looks > 1:
        await until(lambda: bool(lines(folder, "forked")))
        await until(lambda: not is_alive(lines(folder, "pids")[0]))
        await client.list_tools()  # another process
    with pytest.raises(ToolServerError, match=r"its process has ended \(exit code 3\)") as raised:
        await lost
    assert (raised.value.fault, raised.value.may_have_run) == ("lost", True)
    assert (await client.list_tools()).tools.keys() == {"t"}
    assert len(lines(folder, "pids")) == 3


@on_both_loops
@pytest.mark.parametrize("looks", [0.05, 600.0])
@pytest.mark.parametrize("size", [2, 60_000])
async def test_an_answer_that_was_written_before_the_end_is_read(
    net: Net, tmp_path: Path, change_limits: ChangeLimits, looks: float, size: int
) -> None:
    """The loop is busy meanwhile: then its timers come before what can be read, and reading takes several turns."""
    change_limits(exit_look=looks)
    client, folder = client_of(net, tmp_path, "answers and exits")
    net.stack.callback(lambda: [os.kill(int(pid), signal.SIGKILL) for pid in lines(folder, "pids") if is_alive(pid)])
    tool = (await client.list_tools()).tools["t"]
    call = asyncio.create_task(client.call(tool, {}))
    await until(lambda: "tools/call" in lines(folder, "asked"))
    (folder / "going").write_text(str(size))
    (folder / "going").rename(folder / "go")
    until_it_has_ended(folder)
    if looks > 1:
        await client.list_tools()  # another process
    assert (await call).value == "x" * size


@on_uvloop
async def test_a_group_is_sent_nothing_once_its_process_is_known_to_have_ended(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may give its id to another process, and to a group of others."""
    sent: list[int] = []
    end = os.killpg

    def killpg(group: int, number: int) -> None:
        sent.append(number)
        end(group, number)

    before = children()
    client, folder = client_of(net, tmp_path, "leaves its output")
    net.stack.callback(lambda: [os.kill(int(pid), signal.SIGKILL) for pid in lines(folder, "pids") if is_alive(pid)])
    tool = (await client.list_tools()).tools["t"]
    shells = children() - before - {*lines(folder, "pids")}
    assert shells
    monkeypatch.setattr(os, "killpg", killpg)
    call = asyncio.create_task(client.call(tool, {}))
    await until(lambda: bool(lines(folder, "forked")) and not is_alive(lines(folder, "pids")[0]))
    call.cancel()  # it looks whether the process runs
    with pytest.raises(asyncio.CancelledError):
        await call
    assert sent == [signal.SIGKILL]
    await until(lambda: not any(is_alive(pid) for pid in shells))  # it would end the group with this process
    await client.close()
    assert sent == [signal.SIGKILL]


@on_uvloop
@pytest.mark.parametrize(
    ("program", "version"),
    [("old", "2025-06-18"), ("old and silent", "2025-06-18"), ("slow to start", STATELESS)],
)
async def test_a_process_has_the_protocol_that_it_answers_to(
    net: Net, tmp_path: Path, change_limits: ChangeLimits, program: str, version: str
) -> None:
    if program != "old":
        change_limits(discovery=0.5)
    client, _ = client_of(net, tmp_path, program)
    assert (await client.connect()).version == version
    assert await called(client) == ToolResult("ok")


@on_uvloop
async def test_questions_of_a_process_are_answered(net: Net, tmp_path: Path) -> None:
    client, _ = client_of(net, tmp_path, "pings")
    assert (await called(client)).value == '[["id", "jsonrpc", "result"], ["error", "id", "jsonrpc"]]'


@on_uvloop
async def test_secrets_of_its_environment_are_cut_out(net: Net, tmp_path: Path) -> None:
    client, _ = client_of(net, tmp_path, "tells", {"T": "sk-canary-0123456789"})
    with pytest.raises(ToolServerError) as raised:
        await client.connect()
    assert str(raised.value) == "it answers: *** (code -32021)"


@on_uvloop
async def test_errors_lack_what_results_must_not_have(net: Net, tmp_path: Path) -> None:
    url, password = "postgres://app:s3cret-0123@db/shop", b"s3cret-0123"
    wire = StdioWire(["true"], secrets=[url], credentials=[password], loop=asyncio.get_running_loop())
    assert {*wire.secrets} == {url.encode(), password}
    assert {*wire.credentials} == {password}


@on_uvloop
async def test_a_close_that_is_cancelled_kills_the_process_at_once(net: Net, tmp_path: Path) -> None:
    client, folder = client_of(net, tmp_path, "hangs")
    assert await called(client) == ToolResult("ok")
    task = asyncio.ensure_future(client.close())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_ended(folder)


@on_uvloop
async def test_a_process_that_does_not_read_is_asked_for_nothing_more(
    net: Net, tmp_path: Path, change_limits: ChangeLimits
) -> None:
    change_limits(exit_wait=0.2)
    client, folder = client_of(net, tmp_path, "deaf")
    tool = (await client.list_tools()).tools["t"]
    calls = [asyncio.ensure_future(client.call(tool, {"a": "x" * 200_000})) for _ in range(20)]
    done, late = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        with pytest.raises(ToolServerError, match="its process does not read its standard input") as raised:
            await task
        assert (raised.value.fault, raised.value.may_have_run) == ("unreachable", False)
    for task in late:
        task.cancel()
    await asyncio.wait(late)
    await client.close()
    await until_ended(folder)
