"""Claude Code's attribution block is cut, and no other text."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats.messages.attribution import without_attribution

LINE = "x-anthropic-billing-header: cc_version=2.1.332.a41; cc_entrypoint=cli; cch=5f2e1;"
BLOCK = {"type": "text", "text": LINE}
OTHER = {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}}
USER = [{"role": "user", "content": LINE}]


@pytest.mark.parametrize(
    ("system", "rest"),
    [
        ([BLOCK, OTHER], [OTHER]),
        ([OTHER, BLOCK], [OTHER]),
        ([BLOCK, BLOCK, OTHER], [BLOCK, OTHER]),
        ([BLOCK], None),
        (LINE, None),
        (f"{LINE}\nYou are Claude Code.\n{LINE}", f"You are Claude Code.\n{LINE}"),
    ],
)
def test_the_first_block_or_line_is_cut(system: Any, rest: Any) -> None:
    body = {"model": "m", "system": system, "messages": USER}
    cut = without_attribution(body)
    assert cut.get("system") == rest
    assert ("system" in cut) is (rest is not None)
    assert (cut["messages"], body["system"]) == (USER, system)


@pytest.mark.parametrize(
    "system",
    [
        None,
        5,
        "",
        [],
        [None, 5, {}, {"type": "text"}, {"type": "text", "text": 5}],
        [OTHER],
        f" {LINE}",
        f"You are Claude Code.\n{LINE}",
        [{"type": "text", "text": f"See {LINE}"}],
    ],
)
def test_no_other_text_is_looked_at(system: Any) -> None:
    body = {"system": system, "messages": USER}
    assert without_attribution(body) is body
    assert without_attribution({"messages": USER}) == {"messages": USER}
