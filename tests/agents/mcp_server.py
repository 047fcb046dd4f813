"""An MCP server of one useful tool among many, over standard input and output, for Claude Code's search for tools."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOLS = ["read_note", *(f"other_{number}" for number in range(20))]
SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}}


def result(asked: dict[str, Any]) -> Any:
    method = asked["method"]
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "n", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "description": f"Does {name}", "inputSchema": SCHEMA} for name in TOOLS]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": f"note {asked['params']['arguments'].get('number')}"}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result(request)}), flush=True)
