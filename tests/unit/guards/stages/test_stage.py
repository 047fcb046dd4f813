"""`gai_fast/guards/stages/stage.py`: what the guards of a stream let through, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Stop
from gai_fast.guards.stages.stage import GuardStage
from gai_fast.model.events import DELTAS, Event, JSONText
from tests.unit.core.test_relay_money import CUT, Scene, chunk
from tests.unit.formats.streams import call, call_delta, call_start, finish, reasoning, text
from tests.unit.guards.stages.literal import WordGuard

START: Event = {"type": "start", "provider": "p", "model": "m"}
DONE: Event = {"type": "done", "finished": True}
WORD = "kestrel"
SIGNATURE: Event = {"type": "reasoning.signature", "signature": "signed"}
USAGE: Event = {"type": "usage", "usage": {"input_tokens": 1}}


def stage(action: Any = "mask", *more: WordGuard) -> GuardStage:
    return GuardStage([WordGuard([WORD], action), *more])


def through(made: GuardStage, *events: Any) -> list[Any]:
    """Returns what the stage lets through; a `Stop` comes last."""
    out: list[Any] = []
    for event in events:
        try:
            out.extend(made.process(event))
        except Stop as stop:
            out.append(stop)
    return out


def said(events: list[Any]) -> list[Any]:
    return [
        "(stop)"
        if isinstance(each, Stop)
        else each[DELTAS[each["type"]]]
        if each["type"] in DELTAS
        else each["safety"]["action"]
        if each["type"] == "safety"
        else each["type"]
        for each in events
    ]


def test_events_without_a_match_are_the_same_objects() -> None:
    events = [START, reasoning("hm"), SIGNATURE, text("Hi"), USAGE, call_start(), call_delta('{"a":1}'), finish(), DONE]
    assert all(one is other for one, other in zip(through(stage(), *events), events, strict=True))


def test_a_match_over_deltas_is_masked() -> None:
    given = through(stage(), START, text("the kes"), text("trel is"), finish(), DONE)
    assert said(given) == ["start", "the ", "[words]", "mask", " is", "finish", "done"]
    assert given[3]["safety"] == {"category": "words", "action": "mask", "guard": "names", "on": "output"}


def test_choices_and_channels_are_texts_of_their_own() -> None:
    given = through(stage(), START, text("kes"), text("trel", choice=1), reasoning("trel"), finish(), DONE)
    assert said(given) == ["start", "trel", "kes", "trel", "finish", "done"]
    given = through(stage(), START, text("kes"), text("kes", choice=1), text("trel"), text("trel", choice=1), finish())
    assert said(given) == ["start", "[words]", "mask", "[words]", "mask", "finish"]
    assert [each.get("choice", 0) for each in given[1:5]] == [0, 0, 1, 1]


def test_other_events_wait_behind_the_held_text_of_their_choice_and_end_nothing() -> None:
    other: Event = {"type": "image", "image": {"data": "x"}, "choice": 1}
    given = through(stage(), text("a kes"), USAGE, other, text("trel b"), finish())
    assert said(given) == ["a ", "image", "[words]", "mask", "usage", " b", "finish"]


def test_changed_reasoning_loses_its_signature_and_other_reasoning_keeps_it() -> None:
    given = through(stage(), reasoning("kestrel"), SIGNATURE, reasoning("fine"), SIGNATURE, text("x"), finish())
    assert said(given) == ["[words]", "mask", "fine", "reasoning.signature", "x", "finish"]
    redacted: Event = {"type": "reasoning.signature", "signature": "opaque", "redacted": True}
    assert said(through(stage(), reasoning("kestrel"), redacted)) == ["[words]", "mask", "reasoning.signature"]
    assert said(through(stage("flag"), reasoning("kestrel"), SIGNATURE))[-1] == "reasoning.signature"
    held = through(stage(), reasoning("fine kes"), SIGNATURE, text("x"))
    assert said(held) == ["fine ", "kes", "reasoning.signature", "x"]


def test_own_words_that_come_back_leave_the_signature() -> None:
    made = GuardStage([WordGuard(["<NAME_1>"], "restore")])
    assert said(through(made, reasoning("I am <NAME_1>"), SIGNATURE)) == ['I am A "kestrel"', "reasoning.signature"]


def test_deltas_have_no_probabilities() -> None:
    (given,) = through(stage(), text("Hi", logprobs=[{"token": "Hi"}], index=3))
    assert given == {"type": "text.delta", "text": "Hi", "index": 3}


def test_arguments_are_masked_in_deltas_and_in_the_call() -> None:
    made = stage()
    complete = call(arguments='{"bird":"kestrel"}', signature="s")
    given = through(made, call_start(), call_delta('{"bird":"kes'), call_delta('trel"}'), complete, finish())
    assert said(given) == ["tool.call.start", '{"bird":"', "[words]", "mask", '"}', "tool.call", "finish"]
    (masked,) = [each for each in given if each["type"] == "tool.call"]
    assert masked["tool_call"]["input"] == JSONText('{"bird":"[words]"}', None)
    assert masked["tool_call"]["input"].value == {"bird": "[words]"}
    assert "signature" not in masked


def test_calls_take_turns() -> None:
    given = through(
        stage(),
        call_delta('{"a":"kes', "one"),
        call_delta('{"b":"kes', "two", 1),
        call_delta('trel"}', "one"),
        call_delta('trel"}', "two", 1),
        finish(),
    )
    assert said(given) == ['{"a":"', '{"b":"', "[words]", "mask", '"}', "[words]", "mask", '"}', "finish"]
    assert [each["call_id"] for each in given if each["type"] == "tool.call.delta"] == [
        "one", "two", "one", "one", "two", "two",
    ]  # fmt: skip


def test_a_call_without_deltas_is_seen_too() -> None:
    given = through(stage(), text("kes"), call(arguments='{"bird":"kestrel"}'), finish())
    assert said(given) == ["kes", "tool.call", "mask", "finish"]
    assert given[1]["tool_call"]["input"].text == '{"bird":"[words]"}'
    untouched = call()
    assert through(stage(), untouched)[0]["tool_call"]["input"] is untouched["tool_call"]["input"]


@pytest.mark.parametrize("with_deltas", [True, False])
def test_a_stopped_call_is_no_call(with_deltas: bool) -> None:
    deltas = [call_start(), call_delta('{"bird":"kestrel'), call_delta('"}')] if with_deltas else []
    given = through(stage("stop"), text("Hi"), *deltas, call(arguments='{"bird":"kestrel"}'), USAGE, finish(), DONE)
    start = ["Hi", "tool.call.start", '{"bird":"'] if with_deltas else ["Hi"]
    assert said(given) == [*start, "stop", "(stop)", "finish", "done"]


def test_a_stop_lets_through_what_stands_before_it_and_then_the_end_alone() -> None:
    made = stage("stop", WordGuard(["seven"], name="second"))
    given = through(made, START, text("one se"), text("kestrel two"), text("more"), USAGE, call(), finish(), DONE)
    assert said(given) == ["start", "one ", "se", "stop", "(stop)", "finish", "done"]
    assert not made.holds


def test_a_flag_says_so_and_changes_nothing() -> None:
    events = [START, text("kes"), text("trel"), call(arguments='{"a":"kestrel"}'), finish()]
    assert said(through(stage("flag"), *events)) == ["start", "kes", "trel", "flag", "tool.call", "flag", "finish"]


def test_a_reset_voids_what_is_held() -> None:
    made = stage()
    given = through(made, START, text("a kes"), USAGE, {"type": "stream.reset", "reason": "x"}, START, text("trel"))
    assert said(given) == ["start", "a ", "stream.reset", "start", "trel"]


def test_all_that_is_held_is_released_before_the_end() -> None:
    made = stage()
    assert said(through(made, text("a kes"), text("kes", choice=1), USAGE)) == ["a "]
    before = made.holds
    assert said([*made.release()]) == ["kes", "usage", "kes"]
    assert (before, made.holds) == (True, False)
    assert said(through(made, finish())) == ["finish"]


# ---- events whose text comes at once ---------------------------------------------------------------------------------


def citing(*citations: dict[str, Any]) -> Event:
    return {"type": "citations", "citations": [*citations]}


def test_citations_lose_what_does_not_fit_any_more() -> None:
    place = {"uri": "https://a.example", "title": "A", "start": 0, "end": 2}
    given = through(stage(), text("Hi"), citing(place), text(" kestrel"), citing(place), finish())
    whole, without = [each["citations"] for each in given if each["type"] == "citations"]
    assert whole == [place]
    assert without == [{"uri": "https://a.example", "title": "A"}]


def test_names_of_an_events_members_are_no_texts() -> None:
    made = GuardStage([WordGuard(["title", "cited_text", "input", "content"], "mask")])
    citation = {"uri": "https://u", "title": "a title", "cited_text": "b"}
    tool = {"id": "1", "name": "web_search", "input": {"input": "x"}}
    result = {"content": [{"type": "text", "text": "the content"}]}
    given = through(
        made,
        {"type": "citations", "citations": [citation]},
        {"type": "server_tool", "server_tool": tool},
        {"type": "tool.result", "call_id": "c", "tool_result": result},
    )
    members = [each for each in given if each["type"] != "safety"]
    assert members[0]["citations"] == [{**citation, "title": "a [words]"}]
    assert members[1]["server_tool"] == {**tool, "input": {"[words]": "x"}}
    assert members[2]["tool_result"] == {"content": [{"type": "text", "text": "the [words]"}]}


def test_a_citation_is_masked_in_its_words_and_left_out_for_its_address() -> None:
    given = through(stage(), citing({"uri": "https://kestrel.example", "title": "A"}, {"title": "a kestrel"}))
    assert given[0]["citations"] == [{"title": "a [words]"}]
    assert said(given[1:]) == ["mask", "mask"]
    assert said(through(stage(), citing({"uri": "https://kestrel.example"}))) == ["mask"]


def test_a_block_of_the_provider_with_a_match_is_left_out() -> None:
    block: Event = {"type": "provider.block", "provider": "demo", "block": {"a": ["kestrel"]}}
    assert said(through(stage(), block)) == ["mask"]
    assert said(through(stage("flag"), block)) == ["provider.block", "flag"]
    assert said(through(stage("stop"), block)) == ["stop", "(stop)"]
    clean: Event = {"type": "provider.block", "provider": "demo", "block": {"a": ["x"]}}
    assert through(stage(), clean)[0] is clean


@pytest.mark.parametrize("key", ["server_tool", "tool_result"])
def test_strings_of_tools_are_masked(key: str) -> None:
    kind = key.replace("_", ".") if key == "tool_result" else key
    event: Any = {"type": kind, key: {"input": {"q": "a kestrel"}, "n": 10**20}}
    given = through(stage(), event)
    assert given[0][key] == {"input": {"q": "a [words]"}, "n": 10**20}
    assert said(given) == [kind, "mask"]
    assert event[key]["input"]["q"] == "a kestrel", "an event is not changed"
    assert said(through(stage("stop"), text("kes"), event)) == ["kes", "stop", "(stop)"]


def test_a_number_with_a_match_becomes_a_string() -> None:
    number: Event = {"type": "tool.result", "tool_result": 4111}
    assert through(stage(), number)[0]["tool_result"] == 4111
    made = GuardStage([WordGuard(["411"])])
    assert through(made, number)[0]["tool_result"] == "[words]1"
    result: Event = {"type": "tool.result", "tool_result": JSONText("4111", 4111)}
    assert through(made, result)[0]["tool_result"] == "[words]1"


def test_what_the_provider_says_beside_its_end_is_seen() -> None:
    end: Any = {**finish(), "provider_metadata": {"related_questions": ["a kestrel"], "n": 1}}
    given = through(stage(), text("kes"), end, DONE)
    assert said(given) == ["kes", "mask", "finish", "done"]
    assert given[2]["provider_metadata"] == {"related_questions": ["a [words]"], "n": 1}
    assert said(through(stage("stop"), end)) == ["stop", "(stop)"]
    members = {"kestrel": {"kestrel": [1]}}
    assert through(stage(), {**finish(), "provider_metadata": members})[1]["provider_metadata"] == {
        "kestrel": {"[words]": [1]}
    }, "the names of its members are no texts"
    clean: Any = {**finish(), "provider_metadata": {"stop_sequence": "kes"}}
    assert through(stage(), clean)[0] is clean


def test_ends_of_choices_are_no_texts() -> None:
    """Their words are the gateway's; what is more than that is the provider's."""
    ends: list[Any] = [{"choice": 1, "finish_reason": "stop", "finish_reason_raw": "stop"}]
    end: Any = {**finish(), "provider_metadata": {"choices": ends, "asked": ["a stop"]}}
    made = GuardStage([WordGuard(["stop"])])
    assert made.announce(end)["provider_metadata"] == {"asked": ["a [words]"], "choices": ends}
    assert through(made, end)[-1]["provider_metadata"] == {"asked": ["a [words]"], "choices": ends}
    alone: Any = {**finish(), "provider_metadata": {"choices": ends}}
    assert through(GuardStage([WordGuard(["stop"])]), alone) == [alone]
    assert made.announce(alone) is alone
    for other in (
        [*ends, "stop"],
        [{**ends[0], "text": "stop"}],
        [{"choice": 1, "finish_reason": "a stop"}],
        [{**ends[0], "finish_reason_raw": "a stop"}],
        [{**ends[0], "finish_reason_raw": {"text": "stop"}}],
    ):
        told: Any = {**finish(), "provider_metadata": {"choices": other}}
        given = through(GuardStage([WordGuard(["stop"])]), told)[-1]
        assert "[words]" in repr(given["provider_metadata"])


# ---- in a stream -----------------------------------------------------------------------------------------------------


def test_a_stream_with_a_stop_is_legal_and_its_complete_call_does_not_come_behind() -> None:
    scene = Scene(chain=Chain([stage("stop")]))
    arguments = {"name": "f", "arguments": "{}"}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": arguments}]
    calling = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
    scene.say(chunk("a kes"), calling, chunk("kestrel"), chunk("more"))
    events = scene.sink.take()
    assert said(events) == ["start", "a ", "kes", "tool.call.start", "stop", "finish", "done"]
    finish: Any = events[-2]
    assert (finish["finish_reason"], finish["reason"]) == ("content_filter", "guard")


def test_held_text_is_decided_at_a_cancel_and_at_an_error() -> None:
    for end in ("cancel", "error"):
        scene = Scene(chain=Chain([stage()]))
        scene.say(chunk("a kes"))
        if end == "cancel":
            scene.relay.stop("cancelled")
        else:
            scene.relay.receive_eof(CUT)
        assert said(scene.sink.take()) == ["start", "a ", "kes", "finish" if end == "cancel" else "error", "done"]


def test_a_continuation_compares_the_upstreams_own_text() -> None:
    scene = Scene(retries=1, transcript=True, chain=Chain([stage()]))
    scene.say(chunk("the kestrel is"))
    scene.relay.receive_eof(CUT)
    scene.again("verified")
    scene.say(chunk("the kestrel is"), chunk(" red"), chunk(finish="stop"), "[DONE]")
    assert said(scene.sink.take()) == ["start", "the [words]", "mask", " is", " red", "finish", "done"]


def test_a_stop_beside_the_end_is_the_end_of_a_legal_stream() -> None:
    scene = Scene(chain=Chain([stage("stop")]))
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "kestrel"}
    scene.say(chunk("a"), {"id": "c", "model": "m", "choices": [choice]})
    scene.relay.receive_data(b"data: [DONE]\n\n", 0)
    events = scene.sink.take()
    assert said(events) == ["start", "a", "stop", "finish", "done"]
    end: Any = events[-2]
    assert (end["finish_reason"], end["reason"], "provider_metadata" in end) == ("content_filter", "guard", False)


def test_sounds_and_images_do_not_wait_behind_a_held_text() -> None:
    """A text may end in the beginning of a word for minutes: its sound goes on, and nothing piles up."""
    sound: Event = {"type": "audio.delta", "audio": {"data": "x" * 1000}}
    image: Event = {"type": "image", "image": {"data": "x"}}
    made = stage()
    assert said(through(made, text("a kes"), sound, image, sound)) == ["a ", "audio.delta", "image", "audio.delta"]
    assert said(through(made, text("trel"), finish())) == ["[words]", "mask", "finish"]


def test_events_behind_a_held_text_are_bounded_and_the_text_stays_held() -> None:
    made = stage()
    block: Event = {"type": "provider.block", "provider": "p", "block": {"b": "x" * 30_000}}
    assert said(through(made, text("a kes"), USAGE, block, block)) == ["a "]
    assert said(through(made, block)) == ["usage", *["provider.block"] * 3]
    assert said(through(made, USAGE, text("trel"), text(" b"), finish())) == [
        "[words]",
        "mask",
        "usage",
        " b",
        "finish",
    ]
