"""Tools of the gateway as native requests have them."""

from __future__ import annotations

from gai_fast.net.toolbox.tool_source import GatewayTool, native_tools
from gai_fast.net.tools.tool_list import OfferedTool
from tests.unit.net.tools.test_tool_list import listed


def gateway_tool(name: str = "search", description: str = "Searches") -> GatewayTool:
    return GatewayTool("docs", OfferedTool(name, description, {"required": ["q"]}, 16), approve=False, idempotent=False)


def test_a_tool_has_its_name_for_models_and_a_schema_of_an_object() -> None:
    [one, other] = native_tools({"docs__search": gateway_tool(), "docs__read": gateway_tool("read", "")})
    assert (one.name, one.description) == ("docs__search", "Searches")
    assert bytes(one.parameters) == b'{"type":"object","required":["q"]}'
    assert not other.description


def test_a_schema_goes_up_as_providers_take_it() -> None:
    [found] = listed({"name": "a", "inputSchema": {"type": "object", "required": None}}).tools.values()
    [tool] = native_tools({"docs__a": GatewayTool("docs", found, approve=False, idempotent=False)})
    assert bytes(tool.parameters) == b'{"type":"object","properties":{}}'
