"""`net/toolbox/server_source.py`: servers of tools as a configuration has them: of the package `mcp` over HTTP and as a
process, and scripted ones that refuse a token."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.settings import BreakerSettings, IdentitySettings, Secret, SessionKind, ToolServerSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.server_source import ServerSource, peer_of
from gai_fast.net.tools.protocol import STATELESS
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import ToolProgress
from gai_fast.runtime.timers import TimerWheel
from tests.integration.gateway import Net, Peer, on_uvloop
from tests.integration.mcp_servers import ScriptedServer, reply, said, send, started
from tests.integration.test_tool_client import peer_on_http
from tests.limits import LIMITS
from tests.waiting import until

PEER = Path(__file__).parent / "mcp_peer.py"
META = ToolMeta("request-1", "stream-1", 2, "call-1", 3, "ab" * 32, f"00-{'1' * 32}-{'2' * 16}-01")


def source_of(net: Net, **settings: Any) -> ServerSource:
    loop = asyncio.get_running_loop()
    source = ServerSource(ToolServerSettings("docs", **settings), TimerWheel(loop), loop)
    net.stack.push_async_callback(source.close)
    return source


async def try_peer(source: ServerSource) -> None:
    """Lists the tools of the peer and calls some."""
    listed = await source.list_tools()
    assert [(each.address, each.approve, each.idempotent) for each in listed.tools] == [
        ("docs.add", False, True),
        ("docs.steps", False, True),
        ("docs.fails", True, False),
    ]
    add, steps, fails = listed.tools
    assert (await source.call(add, {"a": 1, "b": 2}, META)).value == {"result": 3}
    seen: list[ToolProgress] = []
    assert (await source.call(steps, {"count": 2}, META, on_progress=seen.append)).value == {"result": "done"}
    assert [each.text for each in seen] == ["step 0", "step 1"]
    assert (await source.call(fails, {}, META)).is_error
    with pytest.raises(ToolServerError, match="the argument 'b' is missing"):
        await source.call(add, {"a": 1}, META)


PATTERNS: dict[str, Any] = {"tools": ("add", "s*", "fails"), "approve": ("f*",), "idempotent": ("steps",)}


@on_uvloop
async def test_a_server_of_the_package_mcp(net: Net) -> None:
    async with peer_on_http() as url:
        source = source_of(net, url=Secret(url), **PATTERNS)
        assert await source.protocol() == STATELESS
        await try_peer(source)
        await source.close()


@on_uvloop
async def test_a_process_of_the_package_mcp(net: Net) -> None:
    inherited = {"PATH": os.environ["PATH"]}
    await try_peer(source_of(net, command=(sys.executable, str(PEER)), inherited=inherited, **PATTERNS))


@on_uvloop
async def test_a_process_has_the_variables_of_its_table_and_no_others(net: Net, tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        "    error = {'code': -32021, 'message': json.dumps(dict(os.environ), sort_keys=True)}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], 'error': error}), flush=True)\n"
    )
    env = {"T": Secret("sk-canary-0123456789"), "MODE": Secret("a-mode-of-the-table")}
    inherited = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    source = source_of(net, command=(sys.executable, "-S", str(program)), env=env, inherited=inherited)
    with pytest.raises(ToolServerError) as raised:
        await source.list_tools()
    expected = 'it answers: {"LC_ALL": "C.UTF-8", "MODE": "***", "PATH": "/usr/bin:/bin", "T": "***"} (code -32021)'
    assert str(raised.value) == expected


@on_uvloop
async def test_its_own_credential_is_in_no_result(net: Net, tmp_path: Path) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        said = {"head": server.heads[-1]}
        await send(peer, reply(message, {"content": [], "structuredContent": said}))

    server = ScriptedServer(answer)
    headers = {"authorization": Secret("bearer sk-canary-0123456789"), "x-project": Secret("project-1")}
    url = f"{(await started(net, server)).url}?key=sk-planted-0123"
    token = tmp_path / "token"
    token.write_text("t-canary-0123456789")
    program = IdentitySettings(command=("cat", str(token)))
    source = source_of(net, url=Secret(url), headers=headers, plain=frozenset({"x-project"}))
    granted = source_of(net, url=Secret(url), identity=program)
    for each in (source, granted):
        [tool] = (await each.list_tools()).tools
        result = await each.call(tool, {}, META)
        said = result.value["head"]
        assert "-canary-" in server.heads[-1]
        assert ("canary" in said, "planted" in said, "authorization: ***" in said.replace("bearer ", "")) == (
            False,
            False,
            True,
        )
        assert ("x-project: project-1" in said) is (each is source)


@on_uvloop
async def test_a_credential_of_its_environment_is_in_no_result(net: Net, tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        "    result = {'supportedVersions': ['2026-07-28'], 'tools': [{'name': 't', 'inputSchema': {}}],\n"
        "              'content': [{'type': 'text', 'text': json.dumps(dict(os.environ), sort_keys=True)}]}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], 'result': result}), flush=True)\n"
    )
    env = {"T": Secret("sk-canary-0123456789"), "ROOT": Secret("/srv/documents")}
    inherited = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    command = (sys.executable, "-S", str(program))
    source = source_of(net, command=command, env=env, inherited=inherited, plain=frozenset({"ROOT"}))
    [tool] = (await source.list_tools()).tools
    expected = '{"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "ROOT": "/srv/documents", "T": "***"}'
    assert await source.call(tool, {}, META) == ToolResult(expected)


@on_uvloop
async def test_a_call_says_which_it_is(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("ok")))

    server = ScriptedServer(answer)
    source = source_of(net, url=Secret((await started(net, server)).url))
    [tool] = (await source.list_tools()).tools
    assert await source.call(tool, {}, META) == ToolResult("ok")
    meta = server.messages[-1]["params"]["_meta"]
    assert {name: meta[name] for name in meta if name.startswith("gai-fast/") or name == "traceparent"} == {
        "gai-fast/request-id": "request-1",
        "gai-fast/call-id": "call-1",
        "gai-fast/idempotency-key": "ab" * 32,
        "gai-fast/attempt": 3,
        "traceparent": META.traceparent,
    }
    await source.call(tool, {}, ToolMeta())
    assert "traceparent" not in server.messages[-1]["params"]["_meta"]


@pytest.mark.parametrize("is_process", [False, True])
@on_uvloop
async def test_half_of_a_surrogate_pair_hides_no_other_tool(net: Net, tmp_path: Path, is_process: bool) -> None:
    tools = [{"name": name, "description": text, "inputSchema": {}} for name, text in (("a", "\ud800"), ("b", "ok"))]

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("half: \ud800")))

    if is_process:
        program = tmp_path / "server.py"
        program.write_text(
            "import json, sys\n"
            "for line in sys.stdin:\n"
            "    message = json.loads(line)\n"
            "    half = [{'type': 'text', 'text': 'half: \\ud800'}]\n"
            "    result = {'supportedVersions': ['2026-07-28'], 'content': half}\n"
            "    if message['method'] == 'tools/list':\n"
            f"        result = {{'tools': {tools!r}}}\n"
            "    print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], 'result': result}), flush=True)\n"
        )
        source = source_of(net, command=(sys.executable, "-S", str(program)), inherited={"PATH": "/usr/bin:/bin"})
    else:
        source = source_of(net, url=Secret((await started(net, ScriptedServer(answer, *tools))).url))
    found = await source.list_tools()
    assert [each.name for each in found.tools] == ["b"]
    assert found.left_out == (("a", "it has half of a surrogate pair"),)
    assert await source.call(found.tools[0], {}, META) == ToolResult("half: \ufffd")


class Guarded(ScriptedServer):
    """A server that takes one token."""

    def __init__(self, token: str) -> None:
        async def answer(peer: Peer, message: dict[str, Any]) -> None:
            await send(peer, reply(message, said("ok")))

        super().__init__(answer)
        self.token = token
        self.refused = 0

    async def _handled(self, peer: Peer, message: dict[str, Any]) -> bool:
        if f"authorization: bearer {self.token}\r\n" not in self.heads[-1]:
            self.refused += 1
            await peer.answer("401 Unauthorized", b"")
            return True
        return await super()._handled(peer, message)


def program_of(folder: Path) -> IdentitySettings:
    """Returns a program that prints another token each time: t1, t2, …"""
    script = f"""
import pathlib
path = pathlib.Path({str(folder / "count")!r})
count = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(count))
print(f"t{{count}}")
"""
    return IdentitySettings(command=(sys.executable, "-S", "-c", script))


@on_uvloop
async def test_a_token_that_is_refused_is_replaced_and_the_request_sent_again_once(net: Net, tmp_path: Path) -> None:
    server = Guarded("t2")
    source = source_of(net, url=Secret((await started(net, server)).url), identity=program_of(tmp_path))
    [tool] = (await source.list_tools()).tools
    assert await source.call(tool, {}, META) == ToolResult("ok")
    assert (server.refused, server.asked.count("tools/call")) == (1, 1)
    server.token = "t9"
    assert await source.call(tool, {}, META) == ToolResult(
        "it answers with status 401: check its credential", is_error=True
    )
    assert server.asked.count("tools/call") <= 3


class Scoped(ScriptedServer):
    """A server that refuses some arguments as it refuses a token."""

    def __init__(self) -> None:
        async def answer(peer: Peer, message: dict[str, Any]) -> None:
            await send(peer, reply(message, said("ok")))

        super().__init__(answer)

    async def _handled(self, peer: Peer, message: dict[str, Any]) -> bool:
        if "secret" in message.get("params", {}).get("arguments", {}):
            await peer.answer("401 Unauthorized", b"")
            return True
        return await super()._handled(peer, message)


@on_uvloop
async def test_calls_of_one_caller_that_are_answered_401_take_the_token_from_no_other(net: Net, tmp_path: Path) -> None:
    server = Scoped()
    source = source_of(net, url=Secret((await started(net, server)).url), identity=program_of(tmp_path))
    [tool] = (await source.list_tools()).tools
    for _ in range(4):
        assert (await source.call(tool, {"secret": 1}, META, caller="hostile")).is_error
        assert await source.call(tool, {}, META, caller="bob") == ToolResult("ok")


@on_uvloop
async def test_a_token_is_replaced_before_a_session_is_begun_anew(net: Net, tmp_path: Path) -> None:
    server = Guarded("t1")
    server.session = "2025-06-18"
    source = source_of(net, url=Secret((await started(net, server)).url), identity=program_of(tmp_path))
    [tool] = (await source.list_tools()).tools
    assert await source.call(tool, {}, META) == ToolResult("ok")
    server.token = "t2"
    assert await source.call(tool, {}, META) == ToolResult("ok")
    assert (server.refused, server.sessions) == (1, 2), "one session reads lists"


@on_uvloop
async def test_without_a_token_nothing_is_asked(net: Net) -> None:
    server = Guarded("t1")
    program = IdentitySettings(command=(sys.executable, "-S", "-c", "raise SystemExit(1)"))
    source = source_of(net, url=Secret((await started(net, server)).url), identity=program)
    with pytest.raises(ToolServerError, match="there is no token for it: check its `auth_command`") as raised:
        await source.list_tools()
    assert (raised.value.fault, server.asked) == ("unreachable", [])
    assert net.warned("`auth_command`")


# ---- sessions of callers ---------------------------------------------------------------------------------------------


class Pages:
    """A server whose sessions remember the page that was opened last, and answer with it."""

    def __init__(self) -> None:
        self.server = ScriptedServer(self.answer, session="2025-06-18")
        self.pages: dict[str, str] = {}

    async def answer(self, peer: Peer, message: dict[str, Any]) -> None:
        [session] = [line for line in self.server.heads[-1].splitlines() if line.startswith("mcp-session-id")]
        opened = message["params"]["arguments"].get("open")
        if opened is not None:
            self.pages[session] = opened
        await send(peer, reply(message, said(self.pages.get(session, "none"))))


@pytest.mark.parametrize(
    ("kind", "seen"), [(None, ["mine", "none", "mine"]), ("run", ["none", "none", "mine"]), ("shared", ["mine"] * 3)]
)
@on_uvloop
async def test_what_one_caller_does_in_its_session_another_does_not_meet(
    net: Net, kind: SessionKind | None, seen: list[str]
) -> None:
    pages = Pages()
    source = source_of(net, url=Secret((await started(net, pages.server)).url), session=kind)
    [tool] = (await source.list_tools()).tools
    await source.call(tool, {"open": "mine"}, META, caller="a")
    other = replace(META, stream_id="stream-2")
    asked = [await source.call(tool, {}, meta, caller=who) for who, meta in (("a", other), ("b", META), ("a", META))]
    assert [each.value for each in asked] == seen
    await source.close()
    assert pages.server.asked.count("DELETE") == pages.server.sessions


@on_uvloop
async def test_a_server_without_sessions_is_asked_no_more_for_callers(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("ok")))

    server = ScriptedServer(answer)
    source = source_of(net, url=Secret((await started(net, server)).url))
    [tool] = (await source.list_tools()).tools
    for caller in ("a", "b"):
        await source.call(tool, {}, META, caller=caller)
    assert server.asked == ["server/discover", "tools/list", "tools/call", "tools/call"]


@on_uvloop
async def test_a_process_is_a_callers_own_if_its_table_says_so(net: Net, tmp_path: Path) -> None:
    counting = """
import json, sys
count = 0
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "tools/call":
        count += 1
        result = {"content": [{"type": "text", "text": str(count)}]}
    else:
        result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {},
                  "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
    for kind, counts in ((None, "123"), ("caller", "112")):
        source = source_of(net, command=(sys.executable, "-S", "-c", counting), session=kind)
        [tool] = (await source.list_tools()).tools
        asked = [await source.call(tool, {}, META, caller=who) for who in ("a", "b", "a")]
        assert "".join(each.value for each in asked) == counts
        await source.close()


@on_uvloop
async def test_a_header_that_the_client_writes_is_refused_without_its_value(net: Net) -> None:
    headers = {"Mcp-Session-Id": Secret("sk-canary")}
    with pytest.raises(ValueError, match="the header 'Mcp-Session-Id' is set by the client itself"):
        source_of(net, url=Secret("http://127.0.0.1:1/"), headers=headers)


def test_the_times_of_a_connection_stand_above_those_of_a_call() -> None:
    peer = peer_of("http://a", 900.0, 2.0)
    assert peer.connect_timeout == 2.0
    assert peer.idle_timeout > 900.0
    assert peer.total_timeout > LIMITS.tool_progress * 900.0


CRASHES = """
import json, os, sys
from pathlib import Path
def answer(message, result):
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
tool = {"name": "t", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    message = json.loads(line)
    method = message["method"]
    if method == "server/discover":
        answer(message, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
    elif method == "tools/list":
        answer(message, {"tools": [tool]})
    elif method == "tools/call":
        what = message["params"]["arguments"]["what"]
        with open(sys.argv[1], "a") as file:
            file.write(what + "\\n")
        if what == "crash":
            os._exit(3)
        if what.startswith("wait") and Path(sys.argv[1]).read_text().split().count(what) == 1:
            continue  # it ends under this call
        answer(message, {"content": [{"type": "text", "text": what}]})
"""


@on_uvloop
@pytest.mark.parametrize("is_idempotent", [True, False])
async def test_a_caller_whose_arguments_end_a_process_takes_no_result_and_no_breaker_from_another(
    net: Net, tmp_path: Path, *, is_idempotent: bool
) -> None:
    (tmp_path / "server.py").write_text(CRASHES)
    calls = tmp_path / "calls"
    calls.touch()
    idempotent = ("t",) if is_idempotent else ()
    command = (sys.executable, "-S", str(tmp_path / "server.py"), str(calls))
    source = source_of(net, command=command, inherited={"PATH": os.environ["PATH"]}, idempotent=idempotent)
    [tool] = (await source.list_tools()).tools

    async def call(caller: str, what: str) -> ToolResult:
        return await source.call(tool, {"what": what}, META, caller=caller)

    for number in range(BreakerSettings().failures):
        what = f"wait{number}"
        waits = asyncio.ensure_future(call(f"other{number}", what))
        await until(lambda: what in calls.read_text())  # noqa: B023  # waited for in its own turn
        with pytest.raises(ToolServerError, match="its process has ended"):
            await call("hostile", "crash")
        if is_idempotent:
            assert await waits == ToolResult(what)
        else:
            with pytest.raises(ToolServerError, match="its process has ended"):
                await waits
        assert calls.read_text().split().count(what) == (2 if is_idempotent else 1)
    assert await call("another", "ok") == ToolResult("ok")
    assert await call("hostile", "ok") == ToolResult("ok")


@on_uvloop
async def test_a_source_that_is_closed_starts_no_process_for_what_it_has_lost(net: Net, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(CRASHES)
    calls = tmp_path / "calls"
    calls.touch()
    command = (sys.executable, "-S", str(tmp_path / "server.py"), str(calls))
    source = source_of(net, command=command, inherited={"PATH": os.environ["PATH"]}, idempotent=("t",))
    [tool] = (await source.list_tools()).tools
    running = asyncio.ensure_future(source.call(tool, {"what": "wait"}, META, caller="a"))
    await until(lambda: "wait" in calls.read_text())
    await source.close()
    with pytest.raises(ToolServerError):
        await running
    assert calls.read_text().split() == ["wait"]
