"""Tools of the gateway as native requests have them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Raw

from gai_fast.kernels import encode_json
from gai_fast.model.request import SharedTools, Tool
from gai_fast.net.toolbox.tool_source import GatewayTool
from gai_fast.net.tools.tool_list import OfferedTool


def native_tools(offered: Mapping[str, GatewayTool]) -> SharedTools:
    """Returns the tools of runs that offer the same.

    Args:
        offered: What they offer, by the names that models see.
    """
    return SharedTools([_tool(name, each.offered) for name, each in offered.items()])


def _tool(name: str, offered: OfferedTool) -> Tool:
    parameters = Raw(encode_json({"type": "object", **(offered.sent or offered.schema)}))
    return Tool(name=name, description=offered.description or UNSET, parameters=parameters)
