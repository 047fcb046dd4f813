"""`StreamEventProcessor`: steps over the events of one stream, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gai_fast.library.pipeline import StreamEventProcessor
from gai_fast.model.errors import Error
from gai_fast.processors.json_stream import JSONStreamProcessor


def stream(*texts: str) -> list[Any]:
    deltas = [{"type": "text.delta", "text": text} for text in texts]
    events = [{"type": "start"}, *deltas, {"type": "usage", "usage": {}}, {"type": "finish", "finish_reason": "stop"}]
    return [{**event, "seq": number} for number, event in enumerate(events, 1)]


def test_steps_run_in_their_order() -> None:
    steps = (
        StreamEventProcessor()
        .filter(drop=["usage"])
        .transform(lambda event: {**event, "text": event["text"].upper()})
        .batch(characters=2)
    )
    out = list(steps.apply(stream("a", "b", "c")))
    assert [(event["type"], event.get("text"), event.get("from_seq"), event["seq"]) for event in out] == [
        *(
            ("start", None, None, 1),
            ("text.delta", "AB", 2, 3),
            ("text.delta", "C", None, 4),
            ("finish", None, None, 6),
        ),
    ]


def test_a_chain_is_made_once_and_used_for_many_streams() -> None:
    plain = StreamEventProcessor()
    batched = plain.batch(characters=10)
    assert list(plain.apply(stream("a"))) == stream("a")
    for _ in range(2):
        assert [event.get("text") for event in batched.apply(stream("a", "b"))] == [None, "ab", None, None]


def test_what_is_held_is_given_out_at_the_end_of_any_source() -> None:
    steps = StreamEventProcessor().batch(characters=10)
    assert [event["text"] for event in steps.apply(stream("a", "b")[1:3])] == ["ab"]


def test_time_passes_between_events() -> None:
    times = iter([0, 10, 20, 100, 170, 175, 180])
    steps = StreamEventProcessor(clock=lambda: next(times)).batch(milliseconds=50)
    texts = [event.get("text") for event in steps.apply(stream("a", "b", "c", "d"))]
    # "b" is due at 60 and given out at 100, when "c" comes and waits in turn.
    assert texts == [None, "a", "b", "c", "d", None, None]


async def test_async_events() -> None:
    async def source() -> AsyncIterator[Any]:
        for event in stream("a", "b", "c")[:4]:
            yield event

    steps = StreamEventProcessor().batch(characters=2)
    assert [event.get("text") async for event in steps.aapply(source())] == [None, "ab", "c"]


def test_any_processor_is_a_step() -> None:
    steps = StreamEventProcessor().then(lambda: JSONStreamProcessor(on_invalid="error"))
    assert len(list(steps.apply(stream("[1", "]")))) == 5
    with pytest.raises(Error, match="is not JSON"):
        list(steps.apply(stream("no")))


@pytest.mark.parametrize(
    "call", [lambda s: s.batch(), lambda s: s.filter(keep=["nope"]), lambda s: s.batch(characters=0)]
)
def test_a_wrong_step_is_refused_where_it_is_written(call: Any) -> None:
    with pytest.raises(ValueError, match=r"batch needs|no event type|must be positive"):
        call(StreamEventProcessor())


def test_a_filter_may_be_a_function_and_never_harms_the_frame_of_a_stream() -> None:
    reset: list[Any] = [{"type": "start"}, {"type": "stream.reset"}, *stream("a", "b")]
    out = StreamEventProcessor().filter(lambda event: event.get("text") == "b", drop=["usage"]).apply(reset)
    result = [(event["type"], event.get("text")) for event in out]
    assert result == [
        ("start", None),
        ("stream.reset", None),
        ("start", None),
        ("text.delta", "b"),
        ("finish", None),
    ]
