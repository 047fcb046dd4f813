"""Tools of the gateway as native requests have them.

Runs that offer the same tools share their list, so that providers learn once how they write it (`SharedTools`).
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Raw

from gai_fast.kernels import encode_json
from gai_fast.model.request import SharedTools, Tool
from gai_fast.net.toolbox.tool_source import GatewayTool
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.tool_list import OfferedTool


class NativeTools:
    """The lists of what runs offer. A list holds until a source offers another tool under one of its names."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[list[OfferedTool], SharedTools]] = {}  # by the names of its tools

    def of(self, offered: Mapping[str, GatewayTool]) -> SharedTools:
        """Returns the tools of a run.

        Args:
            offered: What it offers, by the names that its model sees.
        """
        names = tuple(offered)
        known = self._known.get(names)
        if known is not None and all(map(_is_same, known[0], offered.values())):
            return known[1]
        if len(self._known) >= LIMITS.run_offers:
            self._known.clear()
        made = native_tools(offered)
        self._known[names] = [each.offered for each in offered.values()], made
        return made


def native_tools(offered: Mapping[str, GatewayTool]) -> SharedTools:
    """Returns the tools of one run; as `NativeTools.of`."""
    return SharedTools([_tool(name, each.offered) for name, each in offered.items()])


def _tool(name: str, offered: OfferedTool) -> Tool:
    parameters = Raw(encode_json({"type": "object", **offered.schema}))
    return Tool(name=name, description=offered.description or UNSET, parameters=parameters)


def _is_same(known: OfferedTool, tool: GatewayTool) -> bool:
    return known is tool.offered
