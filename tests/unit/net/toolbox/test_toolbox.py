"""`gai_fast/net/toolbox/toolbox.py`: each tool of a configuration has its source."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gai_fast.model.settings import FunctionSettings, Secret, Settings, ToolServerSettings, ToolSettings
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns
from gai_fast.net.toolbox.function_tool import FunctionTool
from gai_fast.net.toolbox.http_tool import HTTPTool
from gai_fast.net.toolbox.server_source import ServerSource
from gai_fast.net.toolbox.toolbox import Toolbox
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits

SCHEMA = {"type": "object"}


class _CountedTools(AllowedTools):
    """Counts how often servers are compared with the patterns."""

    looks = 0

    def servers(self, labels: Iterable[str]) -> list[str]:
        self.looks += 1
        return super().servers(labels)


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


SERVER = """
import json, sys
NAMES = ["search", "a.b", "a_b", "secret"]
for line in sys.stdin:
    message = json.loads(line)
    result = {"supportedVersions": ["2026-07-28"]}
    if message["method"] == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def test_a_run_is_offered_what_it_may_use_by_the_names_that_models_see(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    whole = settings(tmp_path)
    process = ToolServerSettings("docs", command=(sys.executable, "-S", str(tmp_path / "server.py")))
    whole = replace(whole, tool_servers=(process, whole.tool_servers[1]))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        box = Toolbox(whole, TimerWheel(loop), loop)
        model, key = ToolPatterns(["docs.[sa]*", "local.*", "w*", "own"]), ToolPatterns(["*.search", "docs.a*", "own"])
        for _ in range(2):
            found = (await box.offered(AllowedTools([model, key]))).tools
            assert {name: tool.address for name, tool in found.items()} == {"docs__search": "docs.search", "own": "own"}
        assert (await box.offered(AllowedTools([model, ToolPatterns([])]))).tools == {}
        some, none = ("docs.search", "docs.*", "*.s*", "own", "local.any"), ("docs.secret", "docs.sear", "weather")
        allowed = _CountedTools([model, key])  # nobody knows what `local` offers
        assert [box.unknown([*some, each, "docs.x"], allowed) for each in none] == [*none]
        assert (box.unknown(some, allowed), box.unknown((), allowed)) == (None, None)
        assert allowed.looks == 4, "a request may have 128 patterns, and each server is compared with all of them"
        await box.close()

    asyncio.run(main())
    assert sorted(record.getMessage() for record in caplog.records) == [
        "tools 'docs.a.b': left out: its name for models is also that of another (2 such tools)",
        "tools 'local': there is no list: its command cannot be run: No such file or directory: it offers nothing",
    ]


GROWING = SERVER.replace('NAMES = ["search", "a.b", "a_b", "secret"]', 'NAMES = ["search"]').replace(
    'result = {"tools": [', 'NAMES.append(f"n{len(NAMES)}"); result = {"ttlMs": 500, "tools": ['
)
"""A server that has one more tool in each list."""


def test_what_was_offered_before_is_offered_again_until_a_list_or_the_toolbox_is_another(
    tmp_path: Path, change_limits: ChangeLimits
) -> None:
    change_limits(list_ttl_least=1.0, list_again=60.0)
    (tmp_path / "server.py").write_text(GROWING)
    whole = settings(tmp_path)
    process = ToolServerSettings("docs", command=(sys.executable, "-S", str(tmp_path / "server.py")))
    whole = replace(whole, tool_servers=(process,))
    allowed = AllowedTools([ToolPatterns(["docs.*", "own"])])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        box, other = (Toolbox(whole, TimerWheel(loop), loop) for _ in range(2))
        first = await box.offered(allowed)
        assert [*first.tools] == ["docs__n1", "docs__search", "own"]
        assert await box.offered(allowed, first) is first
        elsewhere = await other.offered(allowed, first)
        assert (elsewhere.toolbox, elsewhere.tools) == (other, first.tools)
        await asyncio.sleep(1.5)
        second = await box.offered(allowed, first)
        assert [*second.tools] == ["docs__n1", "docs__n2", "docs__search", "own"]
        assert await box.offered(allowed, second) is second
        await box.close()
        await other.close()

    asyncio.run(main())


def test_a_source_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match=r"^tools 'own': names no_function"):
            Toolbox(settings(tmp_path, "no_function"), TimerWheel(loop), loop)

    asyncio.run(main())
