"""The chain: order, numbers of joined events, what is due, and how much of a stream it must be given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from gai_fast.kernels import SSEEncoder
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.processors import Chain, Processor, StreamInfo, Touches, make_chain
from gai_fast.processors.batch import BatchProcessor
from gai_fast.processors.filter import FilterProcessor
from tests.unit.processors.streams import FINISH, START, delta, stream


class Twice(Processor):
    """Says every delta twice, and may break behind the first."""

    def __init__(self, touches: Touches = "deltas", breaks: bool = False) -> None:
        self.touches = touches
        self.breaks = breaks

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        yield event
        if self.breaks:
            raise Error("internal", "enough")
        if event["type"] == "text.delta":
            yield event


def run(chain: Chain, events: list[Event], now: int = 0) -> list[Any]:
    return [out for event in events for out in chain.process(event, now)]


def test_an_empty_chain_changes_nothing_and_must_be_given_nothing() -> None:
    chain = Chain([])
    assert run(chain, stream("a", "b")) == stream("a", "b")
    assert (chain.touches, chain.due_ms, list(chain.flush(0))) == ("events", None, [])


@pytest.mark.parametrize(
    ("touches", "most"),
    [(["events"], "events"), (["events", "deltas", "events"], "deltas")],
)
def test_a_chain_must_be_given_what_the_most_curious_of_it_must_be(touches: list[Touches], most: Touches) -> None:
    assert Chain([Twice(each) for each in touches]).touches == most


def test_processors_run_in_their_order() -> None:
    dropping_first = Chain([FilterProcessor(drop=["text.delta"]), Twice()])
    assert run(dropping_first, [delta("a")]) == []
    twice_first = Chain([Twice(), BatchProcessor(characters=2)])
    assert [event["text"] for event in run(twice_first, [delta("a"), delta("b")])] == ["aa", "bb"]


def test_what_came_before_an_error_has_been_given_out() -> None:
    out = []
    with pytest.raises(Error, match="enough"):
        for event in Chain([Twice(breaks=True), Twice()]).process(delta("a")):
            out.append(event)  # noqa: PERF402  # the error comes between
    assert out == [delta("a"), delta("a")]


def numbers(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.get("from_seq", event["seq"]), event["seq"]) for event in events if "seq" in event]


def test_joined_events_are_numbered_as_if_they_had_not_been_joined() -> None:
    chain = Chain([FilterProcessor(drop=["usage"]), BatchProcessor(characters=3)])
    usage: Event = {"type": "usage", "usage": {"input_tokens": 1}}
    events = run(chain, [START, delta("a"), usage, delta("b"), delta("c"), delta("d"), delta("e"), FINISH])
    assert numbers(events) == [(2, 4), (5, 6)]
    # An encoder numbers what has no number, so that every number is there once.
    encoder = SSEEncoder()
    for event in events:
        encoder.event(event)
    assert [
        line.partition(b'"seq":')[2].partition(b",")[0] for line in encoder.take().splitlines() if b"seq" in line
    ] == [
        b"1",
        b"4",
        b"6",
        b"7",
    ]


def test_what_a_second_batch_joins_counts_as_what_the_first_did() -> None:
    chain = Chain([BatchProcessor(characters=2), BatchProcessor(characters=4), FilterProcessor(choices=[0])])
    assert numbers(run(chain, [START, *map(delta, "abcdefgh"), FINISH])) == [(2, 5), (6, 9)]


def test_what_is_dropped_behind_a_batch_leaves_no_gap() -> None:
    chain = Chain([BatchProcessor(characters=2), FilterProcessor(choices=[0])])
    other = [delta("x", choice=1), delta("y", choice=1)]
    assert numbers(run(chain, [START, delta("a"), delta("b"), *other, delta("c"), delta("d"), FINISH])) == [
        (2, 3),
        (4, 5),
    ]


def test_numbers_that_are_there_stay() -> None:
    events: list[Event] = [{**event, "seq": number} for number, event in enumerate([START, *map(delta, "abcd")], 7)]
    assert numbers(run(Chain([BatchProcessor(characters=2)]), events)) == [(7, 7), (8, 9), (10, 11)]


def test_what_is_due_passes_through_the_processors_behind() -> None:
    chain = Chain([BatchProcessor(milliseconds=10), Twice()])
    assert len(run(chain, [delta("a"), delta("b")], 100)) == 2  # the first is given out at once
    assert chain.due_ms == 110
    assert list(chain.flush(109)) == []
    assert [event["text"] for event in chain.flush(110)] == ["b", "b"]
    assert chain.due_ms is None


def test_at_the_end_of_a_source_all_that_waits_is_given_out() -> None:
    chain = Chain([BatchProcessor(characters=100), BatchProcessor(characters=100)])
    assert run(chain, [delta("a"), delta("b")]) == []
    assert [event["text"] for event in chain.release()] == ["ab"]


def test_guards_come_first_then_what_is_said_then_the_configured() -> None:
    said: Event = {"type": "warning", "reason": "guard_failed", "guard": "policy"}
    seen: list[str] = []

    class Noting(Processor):
        def __init__(self, name: str) -> None:
            self.name = name

        def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
            seen.append(f"{self.name} {event['type']}")
            return (event,)

        def processor(self, _: StreamInfo) -> Processor:
            return self

    chain = make_chain([Noting("own")], StreamInfo(said=(said,)), Noting("guard"))
    assert chain is not None
    assert [event["type"] for event in chain.process(START)] == ["start", "warning"]
    assert seen == ["guard start", "own start", "own warning"]
    assert make_chain([], StreamInfo(said=(said,))) is not None
    assert make_chain([], StreamInfo()) is None
