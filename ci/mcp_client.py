"""The client that MCP's conformance suite drives: `conformance client --command 'python ci/mcp_client.py' …`.

Agrees on a protocol, lists the tools and calls each of them: with the arguments that the suite names in
MCP_CONFORMANCE_CONTEXT, else with some made from its schema. An error of the server's is an answer. Exit code 1: there
was none.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from gai_fast.cli.tools.samples import arguments_for
from gai_fast.model.settings import Peer
from gai_fast.net.tools.http_wire import HTTPWire, tool_server_address
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.runtime.timers import TimerWheel


async def main(url: str, named: list[dict[str, Any]]) -> None:
    """Calls the tools of the server at a URL."""
    loop = asyncio.get_running_loop()
    host, path = tool_server_address(url)
    client = ToolClient(HTTPWire(Peer(host), path, {}, timers=TimerWheel(loop), loop=loop))
    try:
        offered = await client.list_tools()
        calls = [(call["name"], call["arguments"]) for call in named]
        for name, arguments in calls or [(each.name, arguments_for(each.schema)) for each in offered.tools.values()]:
            try:
                print(name, await client.call(offered.tools[name], arguments))
            except ToolServerError as problem:
                if problem.fault != "refused":
                    raise
                print(name, problem)
        for name, reason in offered.left_out:
            print(f"left out: {name}: {reason}")
    finally:
        await client.close()


if __name__ == "__main__":
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    asyncio.run(main(sys.argv[1], context.get("toolCalls", [])))
