"""`core/relay.py`, rule 11: the turns of a run, and the events between them."""

from __future__ import annotations

from typing import Any

from gai_fast.core.account import Account, Bill
from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Processor
from gai_fast.core.transcript import Transcript
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.settings import Price
from tests.unit.core.test_relay import FakeAdapter, FakeAPI, Stream, chunk

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
FINISH: Event = {"type": "finish", "finish_reason": "stop"}


class Sent:
    sent = True


class Run:
    """A stream that is a run, and what its owner was told."""

    def __init__(self, **options: Any) -> None:
        self.bill = Bill()
        self.turns: list[Event] = []
        self.stream = Stream(account=self.account(), prompt_characters=40, **options)
        self.relay = self.stream.relay
        self.relay.ended = self.turns.append

    def account(self) -> Account:
        price = Price(1_000_000, 1_000_000, 1_000_000, 2_000_000, 2_000_000)
        return Account(self.bill, Sent(), "fake", "one", price, prompt_characters=40)

    def turn(self, text: str = "", *, finish: bool = True) -> None:
        """One more attempt's answer."""
        if self.relay.is_between_turns:
            self.begin()
        if text:
            self.stream.send(chunk(id="m1", model="big", text=text))
        if finish:
            self.stream.send(chunk(end="stop", usage=USAGE))
            self.relay.receive_eof()

    def begin(self, **options: Any) -> None:
        self.relay.begin_turn(80)
        self.attempt(**options)

    def attempt(self, **options: Any) -> None:
        self.relay.begin(FakeAdapter(FakeAPI()), self.stream.sink, account=self.account(), **options)

    @property
    def kinds(self) -> str:
        return " ".join(self.stream.kinds)


def test_the_end_of_a_turn_is_no_end_of_the_stream() -> None:
    run = Run()
    run.turn("Hello")
    assert run.kinds == "start text.delta"
    assert (run.relay.is_over, run.relay.is_between_turns) == (False, True)
    assert run.turns[0]["finish_reason"] == "stop"
    run.relay.add({"type": "tool.result", "call_id": "c", "tool_result": 1})
    run.turn("Bye")
    run.relay.finish_run(FINISH)
    assert run.kinds == "start text.delta tool.result start text.delta finish done"
    assert run.relay.end is FINISH


def test_each_turn_has_its_own_usage_and_cost_and_all_have_their_sum() -> None:
    run = Run()
    run.turn("Hello")
    run.turn("Bye")
    first, second = (turn["usage"] for turn in run.turns)
    assert first == second
    total = run.relay.usage_of_turns()
    assert total["total_tokens"] == 2 * first["total_tokens"]
    assert total["cost"]["amount"] == 2 * first["cost"]["amount"] > 0


def test_a_stream_that_ends_otherwise_has_the_usage_of_all_turns_once() -> None:
    run = Run()
    run.turn("Hello")
    run.relay.stop("cancelled")
    end = run.stream.events[-2]
    assert end["finish_reason"] == "cancelled"
    assert end["usage"] == run.turns[0]["usage"]
    assert len(run.bill.charges) == 1


def test_a_later_turn_that_fails_adds_what_it_has_used() -> None:
    run = Run()
    run.turn("Hello")
    run.turn("Bye", finish=False)
    run.relay.fail(Error("network", "gone"))
    assert run.stream.error["code"] == "network"
    assert run.stream.events[-2]["usage"]["output_tokens"] > USAGE["output_tokens"]


def test_one_who_leaves_between_turns_or_in_one_has_the_usage_so_far() -> None:
    run = Run()
    run.turn("Hello")
    assert (run.relay.usage_so_far() or {})["total_tokens"] == run.turns[0]["usage"]["total_tokens"]
    run.turn("Bye", finish=False)
    assert (run.relay.usage_so_far() or {})["total_tokens"] > run.turns[0]["usage"]["total_tokens"]


def test_a_turn_without_content_is_asked_again_in_silence_and_one_with_content_is_reset() -> None:
    run = Run()
    run.turn("Hello")
    run.begin()
    failures = [Error("network", "gone"), Error("network", "gone again")]
    run.relay.failed = lambda error: True
    run.relay.fail_attempt(failures[0])
    run.attempt()
    assert run.kinds == "start text.delta"
    run.stream.send(chunk(id="m2", model="big", text="By"))
    run.relay.fail_attempt(failures[1])
    run.attempt()
    run.turn("Bye")
    run.relay.finish_run(FINISH)
    assert run.kinds == "start text.delta start text.delta stream.reset start text.delta finish done"


def test_a_continued_turn_repeats_its_own_content_alone() -> None:
    run = Run(transcript=Transcript())
    run.turn("Hello")
    run.begin()
    run.relay.failed = lambda error: True
    run.stream.send(chunk(id="m2", model="big", text="By"))
    run.relay.fail_attempt(Error("network", "gone"))
    run.attempt(continued="verified")
    run.turn("Bye")
    run.relay.finish_run(FINISH)
    texts = [event["text"] for event in run.stream.events if event["type"] == "text.delta"]
    assert texts == ["Hello", "By", "e"]


class Holding(Processor):
    """Holds each text until it is let go."""

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.lets = False

    @property
    def holds(self) -> bool:
        return bool(self.held)

    @property
    def due_ms(self) -> int | None:
        return 0 if self.lets else None

    def process(self, event: Event, now_ms: int = 0) -> list[Event]:
        if event["type"] != "text.delta":
            return [event]
        self.held.append(event)
        return []

    def flush(self, now_ms: int = 0) -> list[Event]:
        held, self.held = self.held, []
        return held

    def release(self, now_ms: int = 0) -> list[Event]:
        return self.flush() if self.lets else []


def test_the_end_of_a_turn_waits_for_processors_as_that_of_a_stream() -> None:
    holding = Holding()
    run = Run(chain=Chain([holding]))
    run.turn("Hello")
    assert (run.kinds, run.turns) == ("start", [])
    holding.lets = True
    run.relay.tick(1)
    assert (run.kinds, len(run.turns)) == ("start text.delta", 1)
    holding.lets = False
    run.turn("Bye")
    holding.lets = True
    run.relay.tick(2)
    run.relay.finish_run(FINISH)
    assert run.kinds == "start text.delta start text.delta finish done"


def test_after_the_end_nothing_is_added() -> None:
    run = Run()
    run.turn("Hello")
    run.relay.finish_run(FINISH)
    run.relay.add({"type": "tool.result"})
    run.relay.finish_run(FINISH)
    run.relay.begin_turn(1)
    assert run.kinds == "start text.delta finish done"


def test_an_event_that_does_not_belong_between_turns_is_a_bug() -> None:
    run = Run()
    run.turn("Hello")
    run.relay.add({"type": "text.delta", "text": "x"})
    assert run.relay.fault is not None
    assert run.stream.error["code"] == "internal"
