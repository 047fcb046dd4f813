"""`gai_fast/guards/stages/changed.py`: what is left out once a text was changed."""

from __future__ import annotations

from typing import Any

from gai_fast.guards.stages.changed import Changed, rewritten
from gai_fast.model.events import Event

SIGNATURE: Event = {"type": "reasoning.signature", "signature": "signed"}
PLACE: dict[str, Any] = {"uri": "https://a.example", "start": 0, "end": 2}


def citing() -> Event:
    return {"type": "citations", "citations": [PLACE]}


def test_masked_reasoning_loses_the_next_signature_alone() -> None:
    changed = Changed()
    assert changed.fitting(SIGNATURE) is SIGNATURE
    changed.masked("reasoning.delta")
    redacted: Event = {"type": "reasoning.signature", "signature": "x", "redacted": True}
    of_call: Event = {"type": "reasoning.signature", "signature": "x", "call_id": "c"}
    assert changed.fitting(redacted) is redacted
    assert changed.fitting(of_call) is of_call
    assert changed.fitting(SIGNATURE) is None
    assert changed.fitting(SIGNATURE) is SIGNATURE


def test_own_words_leave_the_signature_and_move_the_text() -> None:
    changed = Changed()
    changed.restored("reasoning.delta")
    assert changed.fitting(SIGNATURE) is SIGNATURE
    event = citing()
    assert changed.fitting(event) is event
    changed.restored("text.delta")
    fitting = changed.fitting(event)
    assert fitting is not None
    assert fitting["citations"] == [{"uri": "https://a.example"}]
    assert event["citations"] == [PLACE], "an event is not changed"


def test_citations_of_masked_text_have_no_places() -> None:
    changed = Changed()
    changed.masked("refusal.delta")
    event = citing()
    assert changed.fitting(event) is event
    changed.masked("text.delta")
    assert changed.fitting(event) == {"type": "citations", "citations": [{"uri": "https://a.example"}]}


def test_a_delta_with_the_same_text_is_itself_unless_it_has_probabilities() -> None:
    plain: Event = {"type": "text.delta", "text": "a"}
    assert rewritten(plain, "a") is plain
    assert rewritten(plain, "b") == {"type": "text.delta", "text": "b"}
    scored: Event = {"type": "text.delta", "text": "a", "logprobs": [{"token": "a"}]}
    assert rewritten(scored, "a") == plain
    call: Event = {"type": "tool.call.delta", "call_id": "c", "arguments": "{"}
    assert rewritten(call, "}") == {"type": "tool.call.delta", "call_id": "c", "arguments": "}"}
