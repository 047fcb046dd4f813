"""`net/runs/content_stage.py`: the content of a turn, before processors change it."""

from __future__ import annotations

from typing import Any

from gai_fast.net.runs.content_stage import ContentStage
from gai_fast.net.runs.sink import TurnContent


def test_a_stage_notes_the_content_and_lets_all_pass() -> None:
    content = TurnContent()
    stage = ContentStage(content)
    event: Any = {"type": "text.delta", "text": "Hm"}
    assert stage.process(event) == (event,)
    assert content.take() == [{"type": "text", "text": "Hm"}]
    assert content.take() == []
