"""The native request's types; how it is read is in `test_reading.py`."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.reading import conversation
from gai_fast.model.request import (
    AssistantMessage,
    ImagePart,
    ReasoningPart,
    Request,
    SystemMessage,
    TextPart,
    ToolCallPart,
    UserMessage,
)


@pytest.mark.parametrize(
    "part",
    [TextPart(text="x"), ImagePart(url="u"), ReasoningPart(signature="s"), ToolCallPart(call_id="c", name="f")],
)
def test_a_request_cannot_be_changed(part: Any) -> None:
    with pytest.raises(AttributeError):
        part.text = "y"


def test_the_beginning_of_an_answer_stands_behind_all_that_was_asked() -> None:
    asked = Request(system="Be brief.", messages=[UserMessage(content="Hi")], query="And now?", seed=7)
    again = asked.with_prefill("Once")
    assert conversation(again) == [
        SystemMessage(content="Be brief."),
        UserMessage(content="Hi"),
        UserMessage(content="And now?"),
        AssistantMessage(content="Once"),
    ]
    assert again.seed == 7
    assert conversation(asked)[-1] == UserMessage(content="And now?")
