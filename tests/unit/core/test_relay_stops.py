"""Processors that end a stream, and those that hold it: what the client gets, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import pytest

from gai_fast.core.processing.processor import Processor, Stop
from gai_fast.model.errors import Error
from gai_fast.model.money import total_of
from gai_fast.processors import Chain
from gai_fast.processors.batch import BatchProcessor
from gai_fast.processors.usage import UsageProcessor
from tests.guarding import SAFETY, Judged, Stopping, failed, stop
from tests.legal import check_legal
from tests.unit.core.test_relay_money import CUT, Scene, chunk

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
TWO_CHOICES = {
    "id": "c",
    "model": "m",
    "choices": [
        {"index": 0, "delta": {"content": "one"}, "finish_reason": None},
        {"index": 1, "delta": {"content": "two"}, "finish_reason": None},
    ],
}


def calling() -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]}


def kinds(events: list[Any]) -> list[str]:
    return [event.get("text", event["type"]) for event in events]


def legal(scene: Scene) -> list[Any]:
    """Returns what the client got, which must be a legal stream."""
    events: list[Any] = scene.sink.take()
    check_legal([event for event in events if event["type"] != "stream.reset"])
    return events


def scene_of(*processors: Processor, **options: Any) -> Scene:
    return Scene(chain=Chain(processors), **options)


# ---- a stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("start", ["start", "safety"]),
        ("text.delta", ["start", "safety"]),
        ("tool.call.start", ["start", "Hello", "safety"]),
        ("tool.call.delta", ["start", "Hello", "tool.call.start", "safety"]),
        ("tool.call", ["start", "Hello", "tool.call.start", "tool.call.delta", "safety"]),
        ("usage", ["start", "Hello", "tool.call.start", "tool.call.delta", "tool.call", "safety"]),
        ("finish", ["start", "Hello", "tool.call.start", "tool.call.delta", "tool.call", "safety"]),
    ],
)
def test_a_stop_at_any_event_is_a_finish_of_the_gateways_own(kind: str, before: list[str]) -> None:
    scene = scene_of(Stopping(kind))
    scene.retries = 1
    scene.say(chunk("Hello"), calling())
    counted = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}
    scene.say(chunk(finish="tool_calls"), {"id": "c", "model": "m", "choices": [], "usage": counted}, "[DONE]")
    scene.say(chunk("more"))
    scene.relay.receive_eof(CUT)
    events = legal(scene)
    given = kinds(events[:-2])
    if kind == "usage" and "usage" not in given:  # this provider's count comes with the end alone
        assert events[-2]["finish_reason"] in ("tool_calls", "content_filter")
        return
    assert given == before
    finish = events[-2]
    assert (finish["finish_reason"], finish["reason"]) == ("content_filter", "guard")
    assert scene.relay.end["finish_reason"] == "content_filter"
    assert scene.retries == 1, "no other attempt is made"
    assert (scene.relay.error, scene.relay.fault) == (None, None)


@pytest.mark.parametrize("ends", [stop, failed], ids=["a stop", "a failure"])
@pytest.mark.parametrize("others", [stop, failed], ids=["after a stop", "after a failure"])
@pytest.mark.parametrize("by", ["an event", "the clock", "the upstream's error"])
def test_what_is_decided_at_the_end_ends_the_stream_once_more(
    ends: Callable[[], Exception], others: Callable[[], Exception], by: str
) -> None:
    """At the `finish` or `error` that another one, or the upstream, brings about, a processor finds what it held."""
    judged = Judged()
    first = [Stopping(kind, ends) for kind in ("finish", "error")]
    scene = scene_of(*first, Stopping("reasoning.delta", others), judged)
    scene.say(chunk("Hello"))
    if by == "an event":
        scene.say({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    elif by == "the clock":
        judged.due = 0
        judged.allow(0, others())
        scene.relay.tick(1)
    else:
        scene.relay.receive_eof(CUT)
    *_, end, done = legal(scene)
    assert scene.relay.fault is None
    assert end["type"] == done["type"].replace("done", "error" if scene.relay.error else "finish")
    if end["type"] == "error":
        assert end["error"]["reason"] == "guard_failed"
    else:
        assert (end["finish_reason"], end["reason"]) == ("content_filter", "guard")


def test_a_stop_is_charged_as_a_cancel_and_says_so() -> None:
    ends = []
    for stops in (True, False):
        scene = scene_of(*([Stopping("tool.call.start")] if stops else []))
        scene.say(chunk("four" * 5), calling())
        if not stops:
            scene.relay.stop("cancelled")
        end: Any = scene.sink.take()[-2]
        total = total_of(scene.bill.charges)
        assert total is not None
        assert end["usage"]["source"] == "partial"
        assert end["usage"]["cost"]["amount"] > 0
        ends.append((total[0] > 0, end["usage"]["input_tokens"]))
    assert ends[0] == ends[1] == (True, 100)


def test_a_stop_in_one_choice_ends_all_and_an_incomplete_call_is_no_call() -> None:
    choice = {"index": 1, "delta": {"reasoning_content": "hm"}, "finish_reason": None}
    for stops, ended in ((True, "safety"), (False, "hm")):
        scene = scene_of(*([Stopping("reasoning.delta")] if stops else []), provider="deepseek")
        scene.say(TWO_CHOICES, calling(), {"id": "c", "model": "m", "choices": [choice]})
        scene.relay.stop("cancelled")
        given = kinds(legal(scene))
        assert given[:4] == ["start", "one", "two", "tool.call.start"]
        assert given[-3 if stops else given.index("hm")] == ended
        assert ("tool.call" in given) is not stops


def test_what_is_held_behind_the_stop_goes_out_before_the_safety() -> None:
    scene = scene_of(Stopping("tool.call.start"), BatchProcessor(characters=100))
    scene.say(chunk("a"), chunk("b"), calling())
    events = legal(scene)
    assert kinds(events) == ["start", "ab", "safety", "finish", "done"]
    assert events[2]["safety"] == SAFETY["safety"]


def test_a_processor_behind_may_count_the_tokens_of_a_stopped_stream() -> None:
    scene = scene_of(Stopping("tool.call.start"), UsageProcessor(lambda text: 7, lambda: "prompt"))
    scene.say(chunk("a"), calling())
    assert legal(scene)[-2]["usage"]["source"] in ("counted", "partial")


@pytest.mark.parametrize("kind", ["finish", "error"])
def test_a_stop_at_the_end_that_the_gateway_makes_takes_its_place(kind: str) -> None:
    scene = scene_of(Stopping(kind))
    scene.say(chunk("a"))
    if kind == "finish":
        scene.relay.stop("cancelled")
    else:
        scene.relay.fail(Error("overloaded", "draining"))
    events = legal(scene)
    assert events[-2]["finish_reason"] == "content_filter"
    assert scene.relay.error is None
    assert scene.relay.end["type"] == "finish"


def test_a_stop_at_an_upstreams_failure_is_no_failure() -> None:
    scene = scene_of(Stopping("error"))
    scene.say(chunk("a"))
    scene.relay.receive_eof(CUT)
    assert legal(scene)[-2]["finish_reason"] == "content_filter"
    assert scene.relay.error is None
    assert len(scene.bill.charges) == 1


def test_a_stop_before_the_start_has_one() -> None:
    scene = scene_of(Stopping("error"))
    scene.relay.receive_eof(CUT)
    assert kinds(legal(scene)) == ["start", "finish", "done"]


def test_a_stop_at_done_is_a_bug_and_the_stream_ends() -> None:
    scene = scene_of(Stopping("done"))
    scene.say(chunk("a"), chunk(finish="stop"), "[DONE]")
    events = scene.sink.take()
    assert events[-1] == {"type": "done", "finished": True}
    assert isinstance(scene.relay.fault, Stop)


def test_a_stop_at_a_reset_ends_the_stream_that_begins_again() -> None:
    scene = scene_of(Stopping("stream.reset"), retries=1)
    scene.say(chunk("a"))
    scene.relay.receive_eof(CUT)
    scene.again()
    scene.say(chunk("b"), chunk(finish="stop"), "[DONE]")
    events: list[Any] = scene.sink.take()
    assert kinds(events) == ["start", "a", "stream.reset", "start", "finish", "done"]
    assert events[-2]["finish_reason"] == "content_filter"
    assert (scene.relay.is_over, scene.relay.fault) == (True, None)


def test_a_stop_in_what_another_attempt_goes_on_with() -> None:
    both: list[Literal["verified", "prefill"]] = ["verified", "prefill"]
    for continued in both:
        scene = scene_of(Stopping("tool.call.start"), retries=1, transcript=True)
        scene.say(chunk("four" * 5))
        scene.relay.receive_eof(CUT)
        scene.again(continued)
        if continued == "verified":
            scene.say(chunk("four" * 5))
        scene.say(calling(), chunk("more"))
        events = legal(scene)
        assert kinds(events) == ["start", "four" * 5, "safety", "finish", "done"]
        assert events[-2]["reason"] == "guard"


def test_a_failed_judge_is_an_error_behind_what_was_let_through() -> None:
    scene = scene_of(Stopping("tool.call.start", failed), retries=1)
    scene.say(chunk("a"), calling(), chunk("b"))
    events = legal(scene)
    assert kinds(events) == ["start", "a", "safety", "error", "done"]
    error = events[-2]["error"]
    assert (error["code"], error["reason"], error["temporary"]) == ("provider_unavailable", "guard_failed", True)
    assert [*error][-1] == "guard"
    assert scene.relay.error is not None
    assert scene.relay.error.status == 503
    assert scene.retries == 1, "no other attempt is made"


def test_a_stop_after_the_end_changes_nothing() -> None:
    scene = scene_of(Judged())
    scene.say(chunk(finish="stop"), "[DONE]")
    before = scene.sink.take()
    scene.relay.break_off(stop())
    assert scene.sink.take() == []
    assert before[-1]["type"] == "done"


# ---- held text -------------------------------------------------------------------------------------------------------


def test_the_end_waits_for_the_text_that_is_held() -> None:
    judged = Judged()
    scene = scene_of(judged)
    scene.say(chunk("a"), chunk("b"), chunk(finish="stop"), "[DONE]")
    assert kinds(scene.sink.take()) == ["start"]
    assert (scene.relay.is_over, judged.waiting, judged.released) == (False, 2, [0])
    scene.say(chunk("late"))
    scene.relay.receive_eof(CUT)
    judged.free = 1
    assert scene.relay.due_ms == 0
    scene.relay.tick(5)
    assert kinds(scene.sink.take()) == ["a"]
    judged.free = 1
    scene.relay.tick(6)
    assert kinds(scene.sink.take()) == ["b", "finish", "done"]
    assert scene.relay.end["finish_reason"] == "stop"
    assert scene.relay.due_ms is None
    scene.relay.tick(7)
    assert scene.sink.take() == []


def test_a_chain_that_holds_nothing_is_not_released() -> None:
    judged = Judged()
    scene = scene_of(judged)
    scene.say(chunk(finish="stop"), "[DONE]")
    assert judged.released == []
    assert kinds(legal(scene)) == ["start", "finish", "done"]


def test_a_call_that_closes_with_the_answer_waits_behind_its_text() -> None:
    judged = Judged()
    scene = scene_of(judged)
    scene.say(chunk("a"), calling(), chunk(finish="tool_calls"), "[DONE]")
    assert kinds(scene.sink.take()) == ["start"]
    judged.free = 2
    scene.relay.tick(5)
    assert kinds(scene.sink.take()) == ["a", "tool.call.start", "tool.call.delta", "tool.call", "finish", "done"]


def test_half_a_character_at_the_end_is_judged_too() -> None:
    judged = Judged()
    scene = scene_of(judged)
    scene.say(b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}\n\n')
    scene.say(chunk(finish="stop"), "[DONE]")
    assert [event["text"] for event in judged.held] == ["a", "\ufffd"]
    judged.free = 2
    scene.relay.tick(5)
    assert kinds(legal(scene)) == ["start", "a", "\ufffd", "finish", "done"]


def test_a_text_that_a_prefill_holds_is_judged_too() -> None:
    judged = Judged()
    scene = scene_of(judged, retries=1, transcript=True)
    prefill = "a long beginning of the answer " * 20
    scene.say(chunk(prefill))
    judged.free = 1
    scene.relay.tick(1)
    scene.sink.take()
    scene.relay.receive_eof(CUT)
    scene.again("prefill")
    scene.say(chunk(prefill[:40]), chunk(finish="stop"), "[DONE]")
    assert [event["text"] for event in judged.held] == [prefill[:40]]
    judged.free = 1
    scene.relay.tick(5)
    assert kinds(scene.sink.take()) == [prefill[:40], "finish", "done"]


def test_an_answer_in_one_object_waits_as_a_stream_does() -> None:
    judged = Judged()
    scene = scene_of(judged)
    whole = {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91},
    }
    scene.relay.receive_data(json.dumps(whole).encode(), 3)
    scene.relay.receive_eof(None, 4)
    assert kinds(scene.sink.take()) == ["start"]
    judged.free = 1
    scene.relay.tick(5)
    events: list[Any] = scene.sink.take()
    assert kinds(events) == ["ab", "finish", "done"]
    assert events[-2]["usage"]["input_tokens"] == 90


@pytest.mark.parametrize("end", ["cancel", "drain", "stop"])
def test_whatever_ends_a_stream_whose_end_waits_drops_what_is_held(end: str) -> None:
    judged = Judged()
    scene = scene_of(judged)
    counted = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}
    scene.say(chunk("a"), calling(), chunk(finish="stop", usage=counted), "[DONE]")
    scene.sink.take()
    if end == "cancel":
        scene.relay.stop("cancelled")
    elif end == "drain":
        scene.relay.fail(Error("overloaded", "draining"))
    else:
        judged.problem = stop()
        scene.relay.tick(5)
    events: list[Any] = scene.sink.take()
    assert kinds(events) == ["error" if end == "drain" else "finish", "done"]
    assert events[0]["usage"]["output_tokens"] == 7, "the provider has counted"
    assert "source" not in events[0]["usage"]
    judged.free = 2
    scene.relay.tick(6)
    assert scene.sink.take() == []


def test_an_upstream_that_breaks_drops_what_is_held() -> None:
    scene = scene_of(Judged())
    scene.say(chunk("a"))
    scene.relay.receive_eof(CUT)
    assert kinds(legal(scene)) == ["start", "error", "done"]


def test_a_reset_voids_what_is_held() -> None:
    judged = Judged()
    scene = scene_of(judged, retries=1)
    scene.say(chunk("void"))
    scene.relay.receive_eof(CUT)
    scene.again()
    scene.say(chunk("new"), chunk(finish="stop"), "[DONE]")
    judged.free = 1
    scene.relay.tick(1)
    assert kinds(scene.sink.take()) == ["start", "stream.reset", "start", "new", "finish", "done"]


def test_a_verdict_that_fails_ends_the_stream_whose_end_waits() -> None:
    judged = Judged()
    scene = scene_of(judged)
    scene.say(chunk("a"), chunk(finish="stop"), "[DONE]")
    judged.problem = failed()
    scene.relay.tick(5)
    events = legal(scene)
    assert kinds(events) == ["start", "error", "done"]
    assert events[-2]["error"]["guard"] == "policy"


def test_a_client_that_leaves_while_the_end_waits_is_charged_what_was_counted() -> None:
    scene = scene_of(Judged())
    counted = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91}
    scene.say(chunk("a"), chunk(finish="stop", usage=counted), "[DONE]")
    scene.leave()
    assert scene.costs == {"1": 100}
