"""The check of a `[[tool_server]]`, for `gai-fast check --probe`: lists its tools, and calls none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gai_fast.cli.diagnosis import Check
from gai_fast.cli.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.model.settings import ToolServerSettings
    from gai_fast.net.toolbox.server_source import ServerSource


async def check_tool_server(settings: ToolServerSettings) -> Check:
    """Checks whether a server lists tools, and whether each pattern of its table names one.

    Args:
        settings: `[[tool_server]]`.
    """
    from gai_fast.net.toolbox.server_source import ServerSource
    from gai_fast.net.tools.rpc import ToolServerError
    from gai_fast.runtime.timers import TimerWheel

    name, loop = f"tools.{settings.name}", asyncio.get_running_loop()
    way = "command" if settings.command else "url"
    tried = "tools probe -- COMMAND" if settings.command else "tools list"
    fix = f"check `{way}` of {settings.name}, and `gai-fast {tried}`"
    try:
        source = ServerSource(settings, TimerWheel(loop), loop)
    except ValueError as problem:
        return Check(name, "error", str(problem), fix)
    try:
        async with asyncio.timeout(LIMITS.tool_listing):
            return await _listed(name, settings, source)
    except TimeoutError:
        return Check(name, "error", f"no list of tools within {LIMITS.tool_listing:g} s", fix)
    except ToolServerError as problem:
        return Check(name, "error", str(problem), fix)
    finally:
        await source.close()


async def _listed(name: str, settings: ToolServerSettings, source: ServerSource) -> Check:
    begun = time.monotonic()
    version = await source.protocol()
    listed = await source.list_tools()
    ms = (time.monotonic() - begun) * 1000
    count = len(listed.tools)
    detail = f"protocol {version}, {count} tool{'' if count == 1 else 's'} in {ms:.0f} ms"
    fixes: list[str] = []
    unnamed = _without_tool(settings, [each.name for each in listed.tools])
    if unnamed:
        detail += f"; no tool for {', '.join(f'`{key}` {pattern!r}' for key, pattern in unnamed)}"
        fixes.append(f"correct the patterns of {settings.name}")
    if listed.left_out:
        detail += f"; left out: {', '.join(each for each, _ in listed.left_out)}"
        fixes.append("`gai-fast tools list` has the reasons")
    is_unsafe = any(key == "approve" for key, _ in unnamed)  # the tool that it means runs without a person
    return Check(name, "error" if is_unsafe else "warning" if fixes else "ok", detail, "; ".join(fixes))


def _without_tool(settings: ToolServerSettings, names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the patterns that name no offered tool, each behind its key."""
    return [
        (key, pattern)
        for key in ("tools", "approve", "idempotent")
        for pattern in getattr(settings, key)
        if not any(fnmatchcase(name, pattern) for name in names)
    ]
