"""The end of a run ends its running calls at once (RUNS §3.8): what tools see while the loop's clock stands still.

No timer fires on such a clock. So whatever a tool sees, nothing has waited for a time.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret, ToolServerSettings, ToolSettings
from gai_fast.stores.stored_keys import REVOKED
from tests.integration.gateway import Client, Gateway, M, Net, Peer, on_asyncio
from tests.integration.mcp_servers import ScriptedServer, started
from tests.integration.test_run_approvals import ALICE, KEYS
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of

SECONDS = 20
"""Of the machine's clock: a test that takes longer has failed."""
AS_ALICE = {"authorization": f"Bearer {ALICE}"}
PROCESS = """
import json, pathlib, sys
asked = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    message = json.loads(line)
    with asked.open("a") as file:
        file.write(message["method"] + "\\n")
    result = {"supportedVersions": ["2026-07-28"], "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    if "id" in message and message["method"] != "tools/call":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


class Held:
    """A tool whose calls last until they are ended.

    Attributes:
        settings: The tool.
        name: The name that the model calls.
        is_begun: Whether a call runs.
        is_ended: Whether the tool has seen the end of its call.
    """

    settings: ToolSettings | ToolServerSettings
    name: str
    is_begun: Callable[[], bool]
    is_ended: Callable[[], bool]
    release: Callable[[], object] = staticmethod(lambda: None)


async def http(net: Net, folder: Path) -> Held:
    held, peers, gone = Held(), [], []

    async def handle(peer: Peer) -> None:
        await peer.request()
        peers.append(peer)
        await peer.until_gone()
        gone.append(peer)

    url = Secret((await net.upstream(handle)).url)
    held.settings, held.name = ToolSettings("t", "A tool", {"type": "object"}, url), "t"
    held.is_begun, held.is_ended = lambda: bool(peers), lambda: bool(gone)
    return held


async def mcp(net: Net, folder: Path, session: str | None = None) -> Held:
    held, gone = Held(), []

    async def hold(peer: Peer, message: dict[str, Any]) -> None:
        await peer.until_gone()
        gone.append(peer)

    server = ScriptedServer(hold, session=session)
    held.settings, held.name = ToolServerSettings("docs", Secret((await started(net, server)).url)), "docs__t"
    held.is_begun = lambda: "tools/call" in server.asked
    held.is_ended = lambda: bool(gone) and (session is None or "notifications/cancelled" in server.asked)
    return held


async def mcp_with_sessions(net: Net, folder: Path) -> Held:
    return await mcp(net, folder, "2025-06-18")


async def process(net: Net, folder: Path) -> Held:
    held, asked = Held(), folder / "asked"
    asked.touch()
    command = (sys.executable, "-S", "-c", PROCESS, str(asked))
    held.settings, held.name = ToolServerSettings("docs", command=command), "docs__t"
    held.is_begun = lambda: "tools/call" in asked.read_text().split()
    held.is_ended = lambda: "notifications/cancelled" in asked.read_text().split()
    return held


async def function(net: Net, folder: Path) -> Held:
    held, gate = Held(), Gate()

    async def t() -> str:
        """Waits."""
        await gate.wait()
        return "late"

    held.settings, held.name = function_tool(t), "t"
    held.is_begun, held.is_ended = gate.begun.is_set, gate.cancelled.is_set
    return held


async def thread(net: Net, folder: Path) -> Held:
    """The thread goes on; its result is dropped."""
    held, begun, free, ended = Held(), threading.Event(), threading.Event(), threading.Event()

    def t() -> str:
        """Waits."""
        begun.set()
        free.wait(SECONDS)
        ended.set()
        return "late"

    held.settings, held.name = function_tool(t), "t"
    held.is_begun, held.is_ended = begun.is_set, lambda: not ended.is_set()
    held.release = free.set
    return held


async def client_leaves(gateway: Gateway, client: Client, stream_id: str) -> None:
    client.close()


async def cancel(gateway: Gateway, client: Client, stream_id: str) -> None:
    other = await gateway.connect()
    other.request("DELETE", f"/api/v1/streams/{stream_id}", None, AS_ALICE)


async def key_revoked(gateway: Gateway, client: Client, stream_id: str) -> None:
    gateway.running.engine.end_callers(["alice"], REVOKED, Error("unauthorized", "revoked", reason=REVOKED))


TOOLS = [http, mcp, mcp_with_sessions, process, function, thread]
CAUSES = [client_leaves, cancel, key_revoked]
Made = Callable[[Net, Path], Awaitable[Held]]


async def spinning_until(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds, without a timer."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "the condition does not hold without a timer"
        await asyncio.sleep(0)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("tool", TOOLS)
@on_asyncio
async def test_the_end_of_a_run_ends_its_calls_without_waiting_for_a_time(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Made, cause: Callable[..., Awaitable[None]]
) -> None:
    held = await tool(net, tmp_path)
    model = Model([(held.name, {})], ["Done."])
    gateway = await gateway_of(net, model, held.settings, of_gateway={"keys": KEYS})
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", {**M}, AS_ALICE)
    stream_id = (await client.response()).headers["x-gai-stream-id"]
    await spinning_until(held.is_begun)
    now = asyncio.get_running_loop().time()
    with monkeypatch.context() as frozen:
        frozen.setattr(asyncio.get_running_loop(), "time", lambda: now)
        await cause(gateway, client, stream_id)
        await spinning_until(lambda: not gateway.running.engine.streams)
        await spinning_until(held.is_ended)
    held.release()
    assert len(model.asked) == 1
    assert gateway.running.engine.run_tools is not None
    calls = gateway.running.engine.runs.calls
    assert {outcome: number for (_, outcome, _), number in calls.items() if number} == {"unknown": 1}
    client.close()
