"""`gai_fast/net/tools/tool_list.py`: what is offered, and why the rest is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from gai_fast.net.tools.rpc import ServerReply, ToolServerError, read_messages
from gai_fast.net.tools.tool_list import ToolList, ToolListReader
from tests.limits import LIMITS

OBJECT = {"type": "object"}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"properties": schema}
    return schema


def page(*tools: Any, **members: Any) -> dict[str, Any]:
    """Returns the result of a message with tools, as it is read."""
    [answer] = read_messages(json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"tools": tools, **members}}).encode())
    assert isinstance(answer, ServerReply)
    assert (answer.id, answer.error) == (7, None)
    return answer.result or {}


def listed(*tools: Any, has_headers: bool = True) -> ToolList:
    reader = ToolListReader(has_headers)
    assert reader.feed(page(*tools)) is None
    return reader.read()


def test_a_tool_has_its_hints_and_its_schema() -> None:
    tools = listed(
        {"name": "a", "inputSchema": OBJECT, "annotations": {"readOnlyHint": True}, "description": "Reads."},
        {"name": "b", "inputSchema": {}, "annotations": {"idempotentHint": True, "readOnlyHint": "true"}},
        {"name": "c", "inputSchema": OBJECT, "annotations": 1, "description": None},
    ).tools
    assert [(each.is_read_only, each.is_idempotent) for each in tools.values()] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert (tools["a"].description, tools["a"].schema, tools["a"].schema_bytes) == ("Reads.", OBJECT, 17)


def test_a_replaced_character_is_one_as_any_other() -> None:
    tool = {"name": "a", "inputSchema": {"title": "\ufffd"}, "description": "\ufffd"}
    assert listed(tool).tools["a"].description == "\ufffd"


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("x", "its name is no text"),
        ({"inputSchema": OBJECT}, "its name is no text"),
        ({"name": "", "inputSchema": OBJECT}, "its name is no text"),
        ({"name": "x" * 129, "inputSchema": OBJECT}, "its name is no text of 1 to 128 printable characters"),
        ({"name": "a\nb", "inputSchema": OBJECT}, "its name is no text"),
        ({"name": "a", "inputSchema": OBJECT, "description": 1}, "its description is no text"),
        ({"name": "a", "inputSchema": OBJECT, "description": "é" * 2049}, "its description has more than 4096 bytes"),
        ({"name": "a"}, "its `inputSchema` is not the schema of an object"),
        ({"name": "a", "inputSchema": {"type": "string"}}, "its `inputSchema` is not the schema of an object"),
        ({"name": "a", "inputSchema": {"title": "x" * 65_536}}, "its schema has more than 65536 bytes"),
        ({"name": "a", "inputSchema": deep(65)}, "its schema is nested deeper than 64 levels"),
        ({"name": "a", "inputSchema": {"x-mcp-header": ""}}, "x-mcp-header is not the name of a header"),
        ({"name": "a", "inputSchema": {"required": ["x", {}]}}, "its schema requires what is no name"),
        ({"name": "a", "inputSchema": {"properties": {"x": {"$ref": "#"}}}}, "its schema refers to itself"),
        ({"name": "a", "inputSchema": {"$ref": "http://x/y.json"}}, "its schema refers to another document"),
        ({"name": "ok", "inputSchema": OBJECT}, "another tool has its name"),
        ({"name": "a\ud800", "inputSchema": OBJECT}, "its name is no text"),
        ({"name": "a", "inputSchema": OBJECT, "description": "b\udfff"}, "it has half of a surrogate pair"),
        ({"name": "a", "inputSchema": {"required": ["\ud800"]}}, "it has half of a surrogate pair"),
        ({"name": "a", "inputSchema": {"properties": {"\ud800": {}}}}, "it has half of a surrogate pair"),
    ],
    ids=range(20),
)
def test_a_tool_that_breaks_a_bound_is_left_out_alone(tool: Any, reason: str) -> None:
    found = listed({"name": "ok", "inputSchema": deep(64)}, tool, {"name": "last", "inputSchema": OBJECT})
    assert [*found.tools] == ["ok", "last"]
    [(name, why)] = found.left_out
    assert why.startswith(reason)
    assert name.isprintable()


def test_a_schema_that_is_far_too_deep_hides_no_other_tool() -> None:
    tools = [{"name": "ok", "inputSchema": OBJECT}, {"name": "deep", "inputSchema": deep(140)}]
    found = listed(*tools)
    assert ([*found.tools], [name for name, _ in found.left_out]) == (["ok"], ["deep"])


def test_headers_count_on_http_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    assert [*listed({"name": "a", "inputSchema": schema}, has_headers=False).tools] == ["a"]
    assert listed({"name": "a", "inputSchema": schema}).tools == {}


def test_a_list_has_at_most_so_many_tools() -> None:
    reader = ToolListReader(True)
    tools = [{"name": f"t{number}", "inputSchema": OBJECT} for number in range(10_000)]
    assert reader.feed({"tools": tools, "nextCursor": "more"}) is None
    found = reader.read()
    assert len(found.tools) == LIMITS.listed_tools
    assert found.left_out == (("…", "the list has more than 512 tools (limit listed_tools)"),)


def test_a_list_has_at_most_so_many_pages() -> None:
    reader = ToolListReader(True)
    for _ in range(LIMITS.list_pages - 1):
        assert reader.feed({"tools": [], "nextCursor": "again"}) == "again"
    assert reader.feed({"tools": [], "nextCursor": "again"}) is None
    assert reader.read().left_out == (("…", "the list has more than 64 pages (limit list_pages)"),)
    assert ToolListReader(True).feed({"tools": [], "nextCursor": "x" * 5000}) is None
    assert ToolListReader(True).feed({"tools": [], "nextCursor": 1}) is None


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(ToolServerError, match="its list of tools is none"):
        ToolListReader(True).feed({"tools": {}})


@pytest.mark.parametrize(
    ("named", "ttl"),
    [
        ([None], None),
        (["60000"], None),
        ([True], None),
        ([-1], None),
        ([30_000], 30.0),
        ([30_000, 10_000.5, None], 10.0005),
        ([0], LIMITS.list_ttl_least),
        ([10**15], LIMITS.list_ttl_most),
        ([10**400], LIMITS.list_ttl_most),
    ],
)
def test_a_list_holds_as_long_as_its_shortest_page(named: list[Any], ttl: float | None) -> None:
    reader = ToolListReader(has_headers=False)
    for value in named:
        reader.feed({"tools": [], "ttlMs": value, "nextCursor": "more"})
    assert reader.read().ttl == ttl


def test_of_a_large_page_a_tool_that_is_too_large_is_not_read() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}}
    huge = {"name": "huge", "inputSchema": {"type": "object", "x": [[]] * 100_000}}
    tools = [huge, *({"name": f"t{n}", "inputSchema": schema} for n in range(40)), huge]
    reader = ToolListReader(has_headers=True)
    assert reader.feed(page(*tools, nextCursor="more", ttlMs=60_000)) == "more"
    read = reader.read()
    assert (len(read.tools), read.ttl) == (40, 60.0)
    assert read.left_out == (("huge", "it has more than 131072 bytes"),) * 2
    assert dict(read.tools["t39"].schema) == schema


def test_a_large_page_is_the_same_list_as_a_small_one() -> None:
    tools = [
        {"name": "a", "inputSchema": {"type": "object"}, "description": "\ud800"},
        1,
        {"name": "b"},
        {"name": "t", "inputSchema": OBJECT},
    ]
    small = listed(*tools)
    large = listed(*tools, {"name": "c", "inputSchema": {"type": "object"}, "description": "x" * 70_000})
    assert (large.tools, large.left_out[:-1]) == (small.tools, small.left_out)


def test_of_a_large_page_with_a_half_of_a_surrogate_pair_one_tool_is_left_out() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"title": "\\ud800 \U0001f600"} for n in range(1500)}}
    bad = {"name": "bad", "inputSchema": OBJECT, "description": "\udfff"}
    tools = [_named("a", schema), bad, _named("b", {"title": "\U0001f600 \u00e9"}), bad, _named("c", schema)]
    found = listed(*tools)
    assert [dict(found.tools[name].schema) for name in "abc"] == [schema, {"title": "\U0001f600 \u00e9"}, schema]
    assert found.left_out == (("bad", "it has half of a surrogate pair"),) * 2


def _named(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "inputSchema": schema}


def test_the_digest_of_a_list_is_of_what_its_server_has_sent() -> None:
    one, two = _named("a", OBJECT), _named("a", {"type": "object", "title": "t"})
    assert listed(one).digest == listed(one).digest
    digests = [listed(one), listed(two), listed(one, one), listed(one, has_headers=False), listed()]
    assert len({each.digest for each in digests}) == 5


def test_a_list_has_at_most_so_many_bytes_and_a_large_one_is_read_more_seldom() -> None:
    reader = ToolListReader(has_headers=True)
    tools = [_named(f"t{n}", {"title": "x" * 60_000}) for n in range(100)]
    assert reader.feed(page(*tools, ttlMs=1, nextCursor="more")) is None
    found = reader.read()
    assert len(found.tools) == -(-LIMITS.listed_bytes // len(json.dumps(tools[10])))
    assert found.left_out == (("…", "the list has more than 4194304 bytes (limit listed_bytes)"),)
    assert found.ttl is not None
    assert 4 * LIMITS.list_ttl_least <= found.ttl < 5 * LIMITS.list_ttl_least


@pytest.mark.parametrize("member", ["error", "method"])
def test_a_member_that_is_null_makes_no_other_message(member: str) -> None:
    text = json.dumps({"id": 1, member: None, "result": {"tools": [_named("a", OBJECT), {}], "content": None}})
    [answer] = read_messages(text.encode())
    assert isinstance(answer, ServerReply)
    assert [type(each) for each in (answer.result or {})["tools"]] == [Raw, Raw]


def test_a_large_page_is_read_in_turns() -> None:
    tools = [_named(f"t{n}", {"title": "x" * 40_000}) for n in range(10)]
    turns = sum(1 for _ in ToolListReader(has_headers=True).turns(page(*tools)))
    assert turns == 5, "one after each 64 KiB"
