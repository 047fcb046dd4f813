"""The delivered content of a stream, compared with another attempt."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.transcript import Transcript
from gai_fast.model.errors import Error, Network
from gai_fast.model.events import DELTAS, Event
from tests.conftest import ChangeLimits

FAILURE = Error("network", "cut")
FINISH: Any = {"type": "finish", "finish_reason": "stop"}


def text(piece: str, **more: Any) -> Any:
    return {"type": "text.delta", "text": piece, **more}


def thought(piece: str) -> Any:
    return {"type": "reasoning.delta", "text": piece}


def call(call_id: str, *pieces: str) -> list[Any]:
    start = {"type": "tool.call.start", "call_id": call_id, "index": 0, "tool_call": {"name": "f"}}
    deltas = [{"type": "tool.call.delta", "call_id": call_id, "index": 0, "arguments": piece} for piece in pieces]
    return [start, *deltas]


def delivered(*events: Any) -> Transcript:
    transcript = Transcript()
    for event in events:
        assert transcript.take(event) is event
    return transcript


def repeated(transcript: Transcript, *events: Any) -> list[Event]:
    """Returns the events of an attempt that reach the client."""
    transcript.repeat(FAILURE)
    return [result for event in events if (result := transcript.take(event)) is not None]


def test_only_what_follows_is_reported() -> None:
    transcript = delivered(thought("hm"), text("Hel"), text("lo "))
    result = repeated(transcript, thought("h"), thought("m"), text("Hello w"), text("orld"), FINISH)
    assert result == [text("w"), text("orld"), FINISH]


def test_it_can_be_repeated_again_with_what_was_reported_since() -> None:
    transcript = delivered(text("Hel"))
    assert repeated(transcript, text("Hello")) == [text("lo")]
    assert repeated(transcript, text("Hello w")) == [text(" w")]


@pytest.mark.parametrize(
    "events",
    [
        [text("Help")],
        [text("Hel"), text("lp")],
        [text("Hel"), FINISH],
        [FINISH],
        [thought("Hello"), text("Hello")],
        [text("Hello", choice=1)],
        call("c1", "{}"),
        [text("He"), *call("c1")],
    ],
)
def test_an_attempt_that_differs_raises_the_first_failure(events: list[Any]) -> None:
    with pytest.raises(Network) as raised:
        repeated(delivered(text("Hello")), *events)
    assert raised.value is FAILURE


def test_a_call_keeps_the_id_that_was_reported_first() -> None:
    transcript = delivered(text("a"), *call("first", '{"a"'))
    end = {"type": "tool.call", "call_id": "second", "tool_call": {"name": "f", "input": {"a": 1}}}
    result = repeated(transcript, text("a"), *call("second", '{"a":1}'), end)
    assert result == [
        {"type": "tool.call.delta", "call_id": "first", "index": 0, "arguments": ":1}"},
        {**end, "call_id": "first"},
    ]


def named(name: str, value: Any = None) -> list[Any]:
    start = {"type": "tool.call.start", "call_id": "c", "index": 0, "tool_call": {"name": name}}
    return [start] if value is None else [start, {"type": "tool.call", "call_id": "c", "tool_call": {"input": value}}]


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (named("weather"), named("time")),
        (named("weather", {"a": 1}), named("weather", {"a": 2})),
        ([{"type": "image", "image": {"data": "AA=="}}], [{"type": "image", "image": {"data": "BB=="}}]),
        ([{"type": "citations", "citations": [{"uri": "a"}]}], [{"type": "citations", "citations": [{"uri": "b"}]}]),
    ],
)
def test_what_is_no_text_must_be_the_same_too(said: list[Any], again: list[Any]) -> None:
    assert repeated(delivered(*said), *said) == []
    with pytest.raises(Network):
        repeated(delivered(*said), *again)


def test_what_a_provider_makes_up_anew_is_not_compared() -> None:
    signed: Any = {"type": "reasoning.signature", "signature": "one", "block": 0}
    found: Any = {"type": "server_tool", "server_tool": {"id": "a", "name": "search", "status": "started"}}
    other = {"type": "server_tool", "server_tool": {**found["server_tool"], "id": "b"}}
    assert repeated(delivered(signed, found), {**signed, "signature": "two"}, other, text("x")) == [text("x")]


def test_what_is_void_is_not_asked_for_again() -> None:
    transcript = delivered(text("Hello"))
    transcript.forget()
    assert transcript.take(text("By")) == text("By")
    assert repeated(transcript, text("Bye")) == [text("e")]


def test_what_is_said_of_an_answer_is_neither_compared_nor_reported_twice() -> None:
    usage: Any = {"type": "usage", "usage": {"input_tokens": 1}}
    transcript = delivered(text("a"))
    assert repeated(transcript, usage, text("a"), usage) == [usage]


def test_a_prefill_needs_one_text_and_nothing_else() -> None:
    assert delivered(text("Hel"), text("lo")).text == "Hello"
    assert delivered().text is None
    assert delivered(thought("hm"), text("Hello")).text is None
    assert delivered(text("Hello", choice=1)).text is None


def test_after_a_prefill_all_is_reported() -> None:
    transcript = delivered(text("Hel"))
    transcript.go_on()
    assert transcript.take(text("lo")) == text("lo")
    assert transcript.text == "Hello"


KINDS = st.sampled_from(sorted(DELTAS))


@given(st.lists(st.tuples(KINDS, st.text(min_size=1, max_size=6)), min_size=1, max_size=6), st.data())
def test_however_both_attempts_are_cut_the_client_has_the_answer_once(runs: list[tuple[str, str]], data: Any) -> None:
    def cut(runs: list[tuple[str, str]]) -> list[Any]:
        events: list[Any] = []
        for kind, whole in runs:
            while whole:
                size = data.draw(st.integers(1, len(whole)))
                events.append({"type": kind, DELTAS[kind]: whole[:size]})
                whole = whole[size:]
        return events

    def joined(events: list[Any]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for event in events:
            kind, piece = event["type"], event[DELTAS[event["type"]]]
            if found and found[-1][0] == kind:
                found[-1] = kind, found[-1][1] + piece
            else:
                found.append((kind, piece))
        return found

    first, second = cut(runs), cut(runs)
    first = first[: data.draw(st.integers(0, len(first)))]
    transcript = delivered(*first)
    assert joined([*first, *repeated(transcript, *second)]) == joined(second)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text.delta", "text": "x" * 40},
        {"type": "image", "image": {"data": "x" * 40}},
        {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": {"a": "x" * 40}}},
    ],
    ids=lambda event: str(event["type"]),
)
def test_an_answer_that_is_too_long_is_not_kept(event: Any, change_limits: ChangeLimits) -> None:
    change_limits(transcript=1000)
    transcript = Transcript()
    for _ in range(5):
        assert transcript.take(event) == event
    assert not transcript.is_lost
    for _ in range(10):
        assert transcript.take(event) == event
    assert transcript.is_lost
    assert transcript.text is None
    assert transcript._said == []
    transcript.forget()
    assert not transcript.is_lost


LONG = "A text that no answer has twice. " * 2


def test_a_short_delivered_text_that_comes_again_after_a_prefill_is_new() -> None:
    assert gone_on(delivered(text("the ")), text("the "), text("end"), FINISH) == "the end"


def gone_on(transcript: Transcript, *events: Any) -> str:
    """Returns the text of a prefilled attempt that reaches the client."""
    transcript.go_on()
    said = ""
    for event in events:
        said += transcript.release(event)
        result = transcript.take(event)
        said += "" if result is None else result.get("text", "")
    return said


@given(st.text("ab", min_size=1, max_size=6), st.text("ab", max_size=6), st.lists(st.integers(0, 12), max_size=4))
def test_of_a_prefilled_attempt_a_whole_repetition_is_left_out_wherever_it_is_cut(
    known: str, answer: str, edges: list[int]
) -> None:
    known, answer = LONG + known, (LONG + answer if answer else "")
    edges = [edge and len(LONG) + edge for edge in edges]
    cuts = [0, *sorted(min(edge, len(answer)) for edge in edges), len(answer)]
    pieces = [text(answer[begin:end]) for begin, end in itertools.pairwise(cuts) if begin < end]
    said = gone_on(delivered(text(known)), *pieces, FINISH)
    assert said == answer.removeprefix(known)


def test_text_that_a_prefilled_attempt_holds_back_comes_before_what_follows() -> None:
    transcript = delivered(text("Hello " * 10))
    transcript.go_on()
    assert transcript.take(text("Hel")) is None
    assert transcript.release({"type": "usage", "usage": {}}) == ""
    assert transcript.release(call("c")[0]) == "Hel"
    assert transcript.take(text("Hel")) == text("Hel")


def test_a_block_of_the_provider_is_the_same_with_other_ids() -> None:
    block: Any = {"type": "provider.block", "provider": "p", "index": 0, "block": {"type": "use", "id": "a"}}
    transcript = delivered(block)
    transcript.repeat(FAILURE)
    assert transcript.take({**block, "block": {"type": "use", "id": "b"}}) is None
    transcript.repeat(FAILURE)
    with pytest.raises(Error):
        transcript.take({**block, "block": {"type": "result", "id": "a"}})
