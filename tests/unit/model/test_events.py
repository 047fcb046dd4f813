"""`gai_fast/model/events.py`: the vocabulary is frozen, and what "empty" and "joined" mean."""

from __future__ import annotations

from typing import get_args

import pytest

from gai_fast.model import events
from gai_fast.model.events import (
    ENVELOPE_KEYS,
    FINISH_REASONS,
    KEY_RANK,
    KEYS,
    TYPES,
    Event,
    FinishReason,
    JSONText,
    other_ends,
)

# Word for word: this order is bytes on the wire.
FROZEN = (
    "schema type ts seq trace_id request_id step call_id provider model text audio tool_call tool_result citations "
    "safety usage finish_reason error"
).split()
ADDITIVE = (
    "stream_id finish_reason_raw index choice block signature redacted arguments refusal image server_tool json reason "
    "from to from_seq continued provider_metadata logprobs guard executed_by server progress total parts approval "
    "is_error attempt duration_ms truncated steps"
).split()


def test_keys_are_written_in_the_order_of_the_contract() -> None:
    assert list(KEYS) == FROZEN + ADDITIVE
    assert sorted(KEYS, key=KEY_RANK.__getitem__) == list(KEYS)


def test_an_event_may_hold_these_keys_and_what_done_says_and_callbacks_get() -> None:
    assert set(Event.__annotations__) == {*KEYS, "finished", "metrics"}


def test_type_checkers_know_that_each_event_has_a_type() -> None:
    """Of other keys pyright reports `event["text"]`: an event may lack them."""
    assert Event.__required_keys__ == {"type"}


def test_the_envelope_is_made_of_keys() -> None:
    assert ENVELOPE_KEYS == ("schema", "ts", "trace_id", "request_id")
    assert set(ENVELOPE_KEYS) <= set(KEYS)
    assert events.SCHEMA == "gai.events.v1"


def test_types_are_those_of_the_contract() -> None:
    assert (
        set(
            "start text.delta audio.delta tool.call tool.result citations safety step.end finish error done "
            "reasoning.delta reasoning.signature refusal.delta tool.call.start tool.call.delta server_tool image "
            "json.snapshot usage stream.reset stream.gap warning provider.block step.start step.reset tool.progress "
            "approval.required approval.decided".split()
        )
        == TYPES
    )


def test_finish_reasons_are_seven() -> None:
    assert frozenset("stop length tool_calls content_filter cancelled pause other".split()) == FINISH_REASONS
    assert frozenset(get_args(FinishReason)) == FINISH_REASONS


def test_done_says_nothing_but_whether_the_stream_finished() -> None:
    assert list(events.done(True).items()) == [("type", "done"), ("finished", True)]
    assert list(events.done(False).items()) == [("type", "done"), ("finished", False)]


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_these_are_empty_and_left_out(value: object) -> None:
    assert events.is_empty(value)


@pytest.mark.parametrize("value", [0, False, 0.0, " ", [None], {"a": None}, JSONText("{}", {})])
def test_these_say_something_and_stay(value: object) -> None:
    assert not events.is_empty(value)


def test_json_text_is_equal_by_its_text_not_by_its_value() -> None:
    one, same, other = JSONText("1.0", 1.0), JSONText("1.0", 1.0), JSONText("1", 1)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != 1.0
    assert repr(one) == "JSONText('1.0')"


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("plain ä€😀", "plain ä€😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00b", "\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83dx\ude00", "\ufffdx\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("", ""),
    ],
)
def test_halves_that_meet_are_one_character_and_a_lone_one_is_replaced(text: str, joined: str) -> None:
    assert events.join_surrogates(text) == joined


def test_an_events_keys_are_put_in_order_and_empty_ones_left_out() -> None:
    event = events.in_order({"own": 0, "text": "", "seq": 1, "zone": False, "type": "x", "usage": {}})
    assert [*event.items()] == [("type", "x"), ("seq", 1), ("own", 0), ("zone", False)]


@pytest.mark.parametrize("given", [None, "x", [1], [{"choice": 1}], [{"choice": 1, "finish_reason": 5}]])
def test_what_is_no_end_of_a_choice_is_none(given: object) -> None:
    """A program's model may write any members beside an end."""
    assert other_ends({"type": "finish", "finish_reason": "stop", "provider_metadata": {"choices": given}}) == []
