"""`config/tool_keys.py`: the valid values of the keys of `[[tool_server]]` and `[[tool]]`."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.config.tool_keys import TOOL, TOOL_DEFAULTS, TOOL_SERVER, TOOL_SERVER_DEFAULTS, WAY_OF, WAYS, parameters
from tests.limits import LIMITS

SCHEMA = {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "$defs": {"city": {"type": "string"}}}


def nested(levels: int) -> dict[str, Any]:
    """Returns the schema of an object that is nested so deep."""
    inner: dict[str, Any] = {}
    for _ in range(levels - 2):
        inner = {"items": inner}
    return {"type": "object", "not": inner} if levels > 1 else {"type": "object"}


def test_every_key_of_a_way_is_a_key() -> None:
    for section, keys in (("tool_server", TOOL_SERVER), ("tool", TOOL)):
        assert {*WAYS[section], *WAY_OF[section]} <= keys.keys()
        assert {*WAY_OF[section].values()} <= {*WAYS[section]}
    assert TOOL_SERVER_DEFAULTS.keys() <= TOOL_SERVER.keys()
    assert TOOL_DEFAULTS.keys() <= TOOL.keys()


@pytest.mark.parametrize(
    ("keys", "name", "value"),
    [
        (TOOL_SERVER, "name", "docs-2"),
        (TOOL_SERVER, "url", "https://tools.example.com/mcp/?key=1"),
        (TOOL_SERVER, "headers", {"authorization": "env:TOKEN"}),
        (TOOL_SERVER, "env", {"DOCS_TOKEN": "env:TOKEN", "EMPTY": ""}),
        (TOOL_SERVER, "max_result", 1 << 20),
        (TOOL, "name", "send_Invoice-2"),
        (TOOL, "description", "two\nlines"),
        (TOOL, "description", ""),
        (TOOL, "parameters", SCHEMA),
        (TOOL, "headers", {"x-team": "search"}),
    ],
)
def test_a_good_value_is_kept_as_it_is(keys: Any, name: str, value: Any) -> None:
    assert keys[name].read(value) == value


@pytest.mark.parametrize(
    ("keys", "name", "value", "problem"),
    [
        (TOOL_SERVER, "name", "Docs", "must be 1 to 32 characters of a-z 0-9 -"),
        (TOOL_SERVER, "name", "x" * 33, "must be 1 to 32 characters"),
        (TOOL_SERVER, "name", "gateway", r"must not be gateway: so \[\[tool\]\] tables are labelled"),
        (TOOL_SERVER, "url", "ftp://a", "must begin with http:// or https://"),
        (TOOL_SERVER, "url", "https://u:p@a/", "must not hold a user or a password: use headers"),
        (TOOL_SERVER, "url", "https://a/?b=c#d", "must not hold a fragment"),
        (TOOL_SERVER, "url", "https://a/?b=ä", "must not hold a fragment, a blank or other than ASCII"),
        (TOOL_SERVER, "url", "http://169.254.169.254/", "must not be a link-local or metadata address"),
        (TOOL_SERVER, "headers", {"Mcp-Session-Id": "1"}, "must not set Mcp-Session-Id: the gateway writes it"),
        (TOOL_SERVER, "headers", {"accept": "1"}, "must not set accept: the gateway writes it"),
        (TOOL_SERVER, "auth_command", [], "must be a list of 1 to 64 strings"),
        (TOOL_SERVER, "command", "docs-mcp", "must be a list of 1 to 64 strings"),
        (TOOL_SERVER, "env", ["A=1"], "must be a table of variables"),
        (TOOL_SERVER, "env", {"A-B": "1"}, "must have names of variables"),
        (TOOL_SERVER, "env", {"A": 1}, "must have a string for A"),
        (TOOL_SERVER, "tools", [""], "must be a list of names of tools"),
        (TOOL_SERVER, "approve", ["x" * 129], "of at most 128 characters each"),
        (TOOL_SERVER, "timeout", 0, "must be seconds, more than 0"),
        (TOOL_SERVER, "max_result", (1 << 20) + 1, "must be a whole number, 1 to 1048576"),
        (TOOL_SERVER, "max_calls", 0, "must be a whole number, 1 to 1024"),
        (TOOL, "name", "docs.search", "must be 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (TOOL, "description", 1, "must be a string of at most 4096 bytes"),
        (TOOL, "description", "x" * 4097, "must be a string of at most 4096 bytes"),
        (TOOL, "headers", {"Traceparent": "1"}, "must not set Traceparent: the gateway writes it"),
        (TOOL, "headers", {"x-gai-call-id": "1"}, "must not set x-gai-call-id: the gateway writes it"),
    ],
)
def test_a_wrong_value_is_answered_with_the_rule(keys: Any, name: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        keys[name].read(value)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ([], "must be the JSON Schema of an object"),
        ({"properties": {}}, "must be the JSON Schema of an object"),
        ({"type": "object", "const": object()}, "without dates and times of TOML"),
        ({"type": "object", "description": "x" * LIMITS.tool_schema}, "must be a JSON Schema of at most 65536 bytes"),
        (nested(LIMITS.tool_depth + 1), "must be a JSON Schema of at most 64 levels"),
        ({"type": "object", "allOf": [{"$ref": "https://example.com/a"}]}, r'each \$ref of which begins with "#"'),
        (
            {"type": "object", "properties": {"a": {"$dynamicRef": "other.json#a"}}},
            r'each \$dynamicRef of which begins with "#"',
        ),
    ],
)
def test_a_schema_that_no_provider_would_take_is_refused(schema: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parameters(schema)


def test_a_schema_of_the_deepest_level_is_taken() -> None:
    assert parameters(nested(LIMITS.tool_depth))
    assert parameters({"type": "object", "properties": {"$ref": {"type": "string"}}}), "the name of an argument"
