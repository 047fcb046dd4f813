"""A server of tools of the package `mcp`, over its standard input and output, or with an argument on that port."""

from __future__ import annotations

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.types import ToolAnnotations

SERVER = MCPServer("peer", log_level="ERROR")


@SERVER.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@SERVER.tool()
async def steps(context: Context, count: int) -> str:
    for number in range(count):
        await context.report_progress(number, count, f"step {number}")
    return "done"


@SERVER.tool()
def picture() -> Image:
    return Image(data=b"\x89PNG", format="png")


@SERVER.tool()
def fails() -> str:
    raise ValueError("a fault of the tool")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        SERVER.run("streamable-http", port=int(sys.argv[1]))
    else:
        SERVER.run("stdio")
