"""The list of a server's tools, page by page. Sans-IO.

A tool that breaks a bound, or a rule of the protocol, is left out with its reason; the others can be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Raw

from gai_fast.core.requests.reading import decode_json
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import MIB, SHARED
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.param_headers import KEY, ParamHeader, headers_in
from gai_fast.net.tools.rpc import HALF, ToolServerError, readable
from gai_fast.net.tools.tool_schema import acceptable
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.json_pieces import UNREADABLE


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool of a server.

    Attributes:
        name: Its name there.
        description: For the model; may be empty.
        schema: The JSON Schema of its arguments, an object's. No reference in it is followed.
        schema_bytes: Bytes of the schema.
        is_read_only: Whether the server calls it read-only.
        is_idempotent: Whether the server calls it idempotent, or read-only.
        headers: The arguments that requests repeat as headers.
        sent: The schema as it goes up. None if that is the server's.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    schema_bytes: int
    is_read_only: bool = False
    is_idempotent: bool = False
    headers: tuple[ParamHeader, ...] = ()
    sent: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of a server.

    Attributes:
        tools: Those that can be used, by name, in the server's order.
        left_out: The others: each name for people, and the reason.
        ttl: Seconds for which the list holds, as the server says. None if it does not.
        digest: Of the tools as the server has sent them.
    """

    tools: Mapping[str, OfferedTool]
    left_out: tuple[tuple[str, str], ...]
    ttl: float | None = None
    digest: bytes = b""


class ToolListReader:
    """Reads the pages of one list.

    Args:
        has_headers: Whether `x-mcp-header` counts: on HTTP, from 2026-07-28 on.

    Attributes:
        cursor: The cursor of the next page. None if the list is complete.
    """

    def __init__(self, has_headers: bool) -> None:
        self._has_headers = has_headers
        self._tools: dict[str, OfferedTool] = {}
        self._left_out: list[tuple[str, str]] = []
        self._size = 0
        self._beyond = ""  # the limit that the list goes beyond
        self._pages = 0
        self.cursor: str | None = None
        self._ttl: float | None = None
        self._digest = sha256(b"%d " % has_headers)

    def feed(self, page: Mapping[str, Any]) -> str | None:
        """Reads the result of a `tools/list` at once; as `turns`.

        Returns:
            The cursor of the next page. None if the list is complete.
        """
        for _ in self.turns(page):
            pass
        return self.cursor

    def turns(self, page: Mapping[str, Any]) -> Iterator[None]:
        """Reads the result of a `tools/list`; gives others a turn after each `limits.list_turn` bytes. Each turn may be
        beside the loop.

        Raises:
            ToolServerError: It has no list of tools.
        """
        tools = [] if "tools" in page and page["tools"] is None else page.get("tools")  # an empty list in Go
        if not isinstance(tools, list):
            raise ToolServerError("its list of tools is none", "form")
        turn_ends = self._size + LIMITS.list_turn
        for each in tools:
            breathe()
            if self._is_full():
                break
            self._add(each)
            if self._size >= turn_ends:
                turn_ends = self._size + LIMITS.list_turn
                yield
        self.cursor = self._following(page)

    def _is_full(self) -> bool:
        """Returns whether there is no room for one tool more."""
        if len(self._tools) + len(self._left_out) >= LIMITS.listed_tools:
            self._beyond = f"{LIMITS.listed_tools} tools (limit listed_tools)"
        elif self._size >= LIMITS.listed_bytes:
            self._beyond = f"{LIMITS.listed_bytes} bytes (limit listed_bytes)"
        return bool(self._beyond)

    def _following(self, page: Mapping[str, Any]) -> str | None:
        """Reads what a page says of the list; returns the cursor of the next one."""
        ttl = page.get("ttlMs")
        if isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and ttl >= 0:
            bounded = min(ttl, LIMITS.list_ttl_most / _MS) * _MS
            self._ttl = bounded if self._ttl is None else min(self._ttl, bounded)
        self._pages += 1
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str) or not cursor or self._beyond:
            return None
        if self._pages >= LIMITS.list_pages or len(cursor) > LIMITS.list_cursor:
            self._left_out.append(("…", f"the list has more than {LIMITS.list_pages} pages (limit list_pages)"))
            return None
        return cursor

    def read(self) -> ToolList:
        """Returns the list so far."""
        left_out = list(self._left_out)
        if self._beyond:
            left_out.append(("…", f"the list has more than {self._beyond}"))
        self._digest.update(repr(left_out).encode())
        ttl = self._ttl
        if ttl is not None:
            ttl = max(ttl, LIMITS.list_ttl_least * max(self._size / MIB, 1))
        return ToolList(dict(self._tools), tuple(left_out), ttl, self._digest.digest())

    def _add(self, value: Any) -> None:
        written = bytes(value) if isinstance(value, Raw) else encode_json(value)
        self._size += len(written)
        self._digest.update(b"%d " % len(written) + written)
        try:
            tool = self._tool(written)
            if tool.name in self._tools:
                raise ValueError("another tool has its name")
            self._tools[tool.name] = tool
        except ValueError as problem:
            self._left_out.append((_name_in(written), str(problem)))

    def _tool(self, written: bytes) -> OfferedTool:
        """Returns a tool.

        Raises:
            ValueError: It cannot be used. The text says why, and holds nothing of it.
        """
        if len(written) > _MOST:  # it may be of millions of values
            raise ValueError(f"it has more than {_MOST} bytes")
        try:
            read = _TOOL.decode(written)
        except (*UNREADABLE, RecursionError):
            read = _Tool()
        name, description, hints = read.name, read.description or "", read.annotations
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > LIMITS.tool_name:
            raise ValueError(f"its name is no text of 1 to {LIMITS.tool_name} printable characters")
        if not isinstance(description, str):
            raise ValueError("its description is no text")
        if len(description.encode()) > SHARED.tool_description:
            raise ValueError(f"its description has more than {SHARED.tool_description} bytes (limit tool_description)")
        schema = _schema_in(bytes(read.input_schema))
        encoded = encode_json(schema)
        size = len(encoded)
        if size > SHARED.tool_schema:
            raise ValueError(f"its schema has more than {SHARED.tool_schema} bytes (limit tool_schema)")
        if HALF in description or HALF.encode() in encoded:
            raise ValueError("it has half of a surrogate pair")
        required = schema.get("required")
        if isinstance(required, list) and not {*map(type, required)} <= {str}:
            raise ValueError("its schema requires what is no name")
        hints = hints if isinstance(hints, dict) else _NONE
        is_read_only = hints.get("readOnlyHint") is True
        return OfferedTool(
            name,
            description,
            schema,
            size,
            is_read_only,
            is_read_only or hints.get("idempotentHint") is True,
            headers_in(schema) if self._has_headers and KEY.encode() in encoded else (),
            acceptable(schema),
        )


class _Tool(msgspec.Struct, rename="camel"):
    """What is read of a tool."""

    name: Any = None
    description: Any = None
    input_schema: Raw = Raw(b"")
    annotations: Any = None


class _Named(msgspec.Struct):
    name: str


_TOOL: Final = msgspec.json.Decoder(_Tool)
_NAMED: Final = msgspec.json.Decoder(_Named)
_SCHEMA: Final = msgspec.json.Decoder(dict[str, Any])


def _name_in(written: bytes) -> str:
    """Returns the name of a tool, for people."""
    try:
        return readable(_NAMED.decode(written).name)[: LIMITS.tool_name]
    except (*UNREADABLE, RecursionError):
        return "?"


def _schema_in(written: bytes) -> dict[str, Any]:
    """Returns the schema of an object.

    Raises:
        ValueError: It is none, or too deep.
    """
    try:
        schema = decode_json(_SCHEMA, written, SHARED.tool_depth)
    except Error as problem:
        if problem.reason == "depth":
            text = f"its schema is nested deeper than {SHARED.tool_depth} levels (limit tool_depth)"
            raise ValueError(text) from None
        schema = {"type": ""}
    if schema.get("type", "object") != "object":
        raise ValueError("its `inputSchema` is not the schema of an object")
    return schema


_NONE: Final[dict[str, Any]] = {}
_MS: Final = 1e-3
_MOST: Final = 2 * SHARED.tool_schema
"""The most bytes of a tool that is read: schemas may be written with blanks, and beside them stand schemas of results.
"""
