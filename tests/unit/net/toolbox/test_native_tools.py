"""Tools of the gateway as native requests have them."""

from __future__ import annotations

from dataclasses import replace

from gai_fast.net.toolbox.native_tools import NativeTools, native_tools
from gai_fast.net.toolbox.tool_source import GatewayTool
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.tool_list import OfferedTool


def gateway_tool(name: str = "search", description: str = "Searches") -> GatewayTool:
    return GatewayTool("docs", OfferedTool(name, description, {"required": ["q"]}, 16), approve=False, idempotent=False)


def test_a_tool_has_its_name_for_models_and_a_schema_of_an_object() -> None:
    [one, other] = native_tools({"docs__search": gateway_tool(), "docs__read": gateway_tool("read", "")})
    assert (one.name, one.description) == ("docs__search", "Searches")
    assert bytes(one.parameters) == b'{"type":"object","required":["q"]}'
    assert not other.description


def test_runs_that_offer_the_same_share_a_list() -> None:
    native, tool = NativeTools(), gateway_tool()
    known = native.of({"docs__search": tool})
    assert native.of({"docs__search": replace(tool, approve=True)}) is known
    assert native.of({"docs__search": tool, "docs__read": gateway_tool("read")}) is not known
    assert native.of({"docs__search": tool}) is known


def test_a_list_ends_where_its_source_offers_another_tool_of_the_name() -> None:
    native = NativeTools()
    known = native.of({"docs__search": gateway_tool()})
    [changed] = native.of({"docs__search": gateway_tool(description="Finds")})
    assert (known[0].description, changed.description) == ("Searches", "Finds")


def test_few_lists_are_kept() -> None:
    native = NativeTools()
    for number in range(2 * LIMITS.run_offers):
        native.of({f"t{number}": gateway_tool(f"t{number}")})
    assert len(native._known) <= LIMITS.run_offers
