"""The walks of what tool servers send, and of patterns that name their tools, each with its worst input of n.

All but the patterns are beside the loop above `limits.list_turn` bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gai_fast.kernels import encode_json
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns
from gai_fast.net.toolbox.http_tool import _read_json
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList
from gai_fast.net.toolbox.toolbox import _chosen
from gai_fast.net.tools.rpc import ServerReply, ToolServerError, depth_of, read_messages
from gai_fast.net.tools.tool_list import OfferedTool, ToolListReader
from gai_fast.net.tools.tool_results import read_result
from gai_fast.net.tools.tool_schema import acceptable

Work = Callable[[], object]

SECRETS = (b"secret-of-the-server",)
_PNG = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
_TEXT = {"type": "text", "text": "secret-of-the-server"}
_HALF = "half \ud800"


def _refusing(function: Callable[..., Any], *arguments: Any) -> Work:
    def work() -> None:
        with suppress(ToolServerError, ValueError):
            function(*arguments)

    return work


def _answer(result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def _schema(n: int, inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{at}": inner for at in range(n)}}


def _listed(body: bytes) -> None:
    [answer] = read_messages(body)
    assert isinstance(answer, ServerReply)
    reader = ToolListReader(has_headers=True)
    reader.feed(answer.result or {})
    assert reader.read().digest


def _tool(n: int, schema: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"name": f"t{n}", "inputSchema": schema, **members}


_REPEATED = {"type": "string", "x-mcp-header": "A"}
_LISTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "small tools": lambda n: {"tools": [_tool(at, {}) for at in range(n)]},
    "one name": lambda n: {"tools": [_tool(0, {})] * n},
    "no tools": lambda n: {"tools": [1] * n},
    "half surrogates": lambda n: {"tools": [_tool(at, {"title": _HALF}, description=_HALF) for at in range(n)]},
    "large tools": lambda n: {"tools": [_tool(at, _schema(8, {"description": "x" * 400})) for at in range(n)]},
    "one schema": lambda n: {"tools": [_tool(0, _schema(n, {"type": "string"}))], "x": "x" * 65_536},
    "headers": lambda n: {"tools": [_tool(0, _schema(n, _REPEATED))]},
    "required": lambda n: {"tools": [_tool(0, {"required": ["x"] * n, "properties": None})]},
    "a half in a schema": lambda n: {"tools": [_tool(0, _schema(n, {"title": _HALF}))]},
    "alternatives": lambda n: {"tools": [_tool(0, {"anyOf": [{"type": "object"}] * n})]},
    "of another form": lambda n: {"tools": {f"t{at}": {} for at in range(n)}},
    "beside other members": lambda n: {"tools": [], **{f"m{at}": [] for at in range(n)}},
}
_RESULTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "texts": lambda n: {"content": [_TEXT] * n},
    "empty texts": lambda n: {"content": [{"type": "text", "text": ""}] * n},
    "images": lambda n: {"content": [_PNG] * n},
    "an image and texts": lambda n: {"content": [_PNG, *[_TEXT] * n]},
    "links": lambda n: {"content": [{"type": "resource_link", "uri": "u"}] * n},
    "structured, a list": lambda n: {"content": [], "structuredContent": [0] * n},
    "structured, objects": lambda n: {"structuredContent": [{"a": {}}] * n},
    "structured, with a secret": lambda n: {"structuredContent": [{f"k{at}": _TEXT} for at in range(n)]},
    "structured, half surrogates": lambda n: {"structuredContent": [_HALF] * n},
    "structured, and texts": lambda n: {"content": [_TEXT] * n, "structuredContent": {"a": 1}},
    "one long text": lambda n: {"content": [{"type": "text", "text": "secret-of-the-server " * n}]},
    "no parts": lambda n: {"content": [0] * n},
}


def _result(result: dict[str, Any]) -> Work:
    def read(body: bytes) -> None:
        [answer] = read_messages(body)
        assert isinstance(answer, ServerReply)
        read_result(answer.result or {}, 65_536, SECRETS)

    return _refusing(read, _answer(result))


def _tools_of(n: int) -> SourceList:
    offered = [OfferedTool(f"tool_{at}", "", {}, 2) for at in range(n)]
    return SourceList(tuple(GatewayTool("docs", each, False, False) for each in offered))


def _patterns(n: int, pattern: str) -> AllowedTools:
    return AllowedTools([ToolPatterns([pattern.format(at) for at in range(n)])])


SERVERS: dict[str, Callable[[int], Work]] = {
    **{
        f"tool server, a list of {name}": (lambda n, make=make: _refusing(_listed, _answer(make(n))))
        for name, make in _LISTS.items()
    },
    **{f"tool server, a result of {name}": (lambda n, make=make: _result(make(n))) for name, make in _RESULTS.items()},
    "tool server, a batch": lambda n: _refusing(read_messages, encode_json([{"method": "m"}] * n)),
    "tool on HTTP, a result": lambda n: _refusing(_read_json, encode_json([_TEXT] * n), 65_536, SECRETS, True),
    "tool on HTTP, a result that is cut": lambda n: _refusing(_read_json, encode_json([_TEXT] * n), 99, SECRETS, True),
    "tool on HTTP, no JSON": lambda n: _refusing(_read_json, b"x" * 20 * n, 99, SECRETS, False),
    "tool schema, acceptable": lambda n: _refusing(acceptable, _schema(n, {"required": None})),
    "tool schema, references": lambda n: _refusing(
        acceptable, {"$defs": _schema(n, {}), **_schema(n, {"$ref": "#/$defs/properties/p0"})}
    ),
    "tool arguments, depth": lambda n: partial(depth_of, [[{}] * n, *[0] * n]),
    "tool patterns, many tools": lambda n: partial(_chosen, [_tools_of(n)], _patterns(100, "docs.*x{}*")),
    "tool patterns, that name them": lambda n: partial(_chosen, [_tools_of(n)], _patterns(1, "docs.*")),
}
