"""`model/tool_functions.py`: what `@gai_fast.tool` notes of a function."""

from __future__ import annotations

import gai_fast
from gai_fast.model.tool_functions import NotedTool, noted_of


def test_a_function_stays_as_it_is() -> None:
    @gai_fast.tool
    def plain(text: str) -> str:
        return text.upper()

    @gai_fast.tool(name="other", approve=True, idempotent=True)
    async def named() -> None: ...

    assert plain("a") == "A"
    assert noted_of(plain) == NotedTool()
    assert noted_of(named) == NotedTool("other", approve=True, idempotent=True)


def test_a_function_without_the_decorator_has_the_defaults() -> None:
    assert noted_of(len) == NotedTool()


def test_a_call_of_a_program_s_own_has_a_meta_without_values() -> None:
    assert gai_fast.ToolMeta() == gai_fast.ToolMeta(step=1, attempt=1)
