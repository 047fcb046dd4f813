"""`gai_fast/net/tools/toolbox.py`: each tool of a configuration has its source."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gai_fast.model.settings import FunctionSettings, Secret, Settings, ToolServerSettings, ToolSettings
from gai_fast.net.tools.function_tool import FunctionTool
from gai_fast.net.tools.http_tool import HTTPTool
from gai_fast.net.tools.server_source import ServerSource
from gai_fast.net.tools.toolbox import Toolbox
from gai_fast.runtime.timers import TimerWheel

SCHEMA = {"type": "object"}


def settings(folder: Path, function: str = "tool") -> Settings:
    (folder / "function_for_a_box.py").write_text("def tool(): ...\nno_function = 1\n")
    return Settings(
        tool_servers=(
            ToolServerSettings("docs", Secret("http://127.0.0.1:1/mcp")),
            ToolServerSettings("local", command=("no-such-command",)),
        ),
        tools=(
            ToolSettings("weather", parameters=SCHEMA, url=Secret("http://127.0.0.1:1/")),
            ToolSettings(
                "own", parameters=SCHEMA, function=FunctionSettings(f"function_for_a_box:{function}", str(folder))
            ),
        ),
    )


def test_a_tool_is_found_by_its_address(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        box = Toolbox(settings(tmp_path), TimerWheel(loop), loop)
        assert [each.name for each in box.sources] == ["docs", "local", "weather", "own"]
        kinds = {"docs.search": ServerSource, "local.a.b": ServerSource, "weather": HTTPTool, "own": FunctionTool}
        assert {address: type(box.source_of(address)) for address in kinds} == kinds
        assert [box.source_of(address) for address in ("docs", "other.search", "weather.x", "")] == [None] * 4
        await box.close()

    asyncio.run(main())


def test_a_source_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match=r"^tools 'own': names no_function"):
            Toolbox(settings(tmp_path, "no_function"), TimerWheel(loop), loop)

    asyncio.run(main())
