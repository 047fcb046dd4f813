"""`gai_fast/guards/stages/output.py`: guards of a configuration as the first stage of a stream."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.output import output_stage
from gai_fast.guards.verdicts import JudgeVerdict
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event, JSONText
from tests.conftest import ChangeLimits
from tests.guarding import Answering, Counts, judging, matching
from tests.unit.core.test_relay_money import Scene, chunk
from tests.unit.formats.streams import call, call_delta, call_start, finish, reasoning, text
from tests.unit.guards.stages.test_stage import DONE, SIGNATURE, START, USAGE, said, through

STREAM = StreamInfo("s1", model="m", caller="anna")
FINE = JudgeVerdict(flagged=False)


def stage(*guards: Any, placeholders: Placeholders | None = None, counts: Counts | None = None) -> Any:
    return output_stage(guards, STREAM, placeholders, counts or Counts())


def own() -> Placeholders:
    """Returns `<EMAIL_1>`, which stands for a text with a quotation mark."""
    placeholders = Placeholders()
    placeholders.issue("email", '"a"@x.com')
    return placeholders


@pytest.fixture
def costly() -> ActiveGuard:
    """Returns a guard with a state of its own, of hundreds of places, for each character of `LETTERS`."""
    return matching("patterns", patterns=("a.{0,99}b.{0,99}c",))


LETTERS = "".join(random.Random(5).choices("ab", k=500))


def turns(made: Any, guard: ActiveGuard, *events: Any) -> tuple[list[list[Any]], int]:
    """Returns what leaves in each turn of the loop, and the most steps that one of them took."""
    automaton = guard.automaton
    assert automaton is not None
    left: list[list[Any]] = []
    most, now, waiting = 0, 1, [*events]
    while waiting or made.due_ms is not None:
        before = automaton.steps
        given = made.process(waiting.pop(0), now) if waiting else made.flush(now)
        left.append([*given])
        most = max(most, automaton.steps - before)
        now += 1
    return left, most


@pytest.mark.parametrize("kind", ["text", "call", "block", "restored"])
def test_a_long_text_is_searched_in_turns(kind: str, costly: ActiveGuard) -> None:
    """Whatever a search costs: one stream does not keep the others from the loop."""
    made = stage(costly, placeholders=own() if kind == "restored" else None)
    arguments = json.dumps({"k": LETTERS, "b": [LETTERS[:9]] * 99})
    event = {
        "call": call_delta(arguments),
        "block": {"type": "provider.block", "provider": "p", "block": JSONText(arguments, None, json.loads)},
    }.get(kind, text(LETTERS))
    behind = [call(arguments=arguments)] if kind == "call" else []
    left, most = turns(made, costly, event, *behind, text("!"))
    assert len(left) > 3
    assert most < LIMITS.output_steps + 2 * LIMITS.wait
    given = [each for turn in left for each in turn] + [*made.process(finish(), 10**6)]
    if kind == "block":
        assert said(given) == ["provider.block", "!", "finish"]
    else:
        whole = "".join([each[DELTAS[each["type"]]] for each in given if each["type"] in DELTAS])
        assert whole == (arguments if kind == "call" else LETTERS) + "!"
    assert (made.holds, made.waiting, made.due_ms) == (False, 0, None)


@pytest.mark.parametrize("kind", ["text", "call", "block"])
def test_what_another_guard_has_held_is_searched_in_turns_too(kind: str, costly: ActiveGuard) -> None:
    """Its text comes at the end, all at once."""
    automaton = costly.automaton
    assert automaton is not None
    holding = matching("patterns", name="long", patterns=("[ab]{1,1000}d",))
    made = stage(holding, costly)
    arguments = json.dumps({"k": LETTERS})
    first, *behind = {
        "call": (call_delta(arguments), call(arguments=arguments)),
        "block": ({"type": "provider.block", "provider": "p", "block": JSONText(arguments, None, json.loads)},),
    }.get(kind, (text(LETTERS), SIGNATURE))
    left, most = turns(made, costly, first, *behind)
    given = [each for turn in left for each in turn]
    while made.holds:
        before = automaton.steps
        given += [*made.release(), *made.flush(10**5)]
        most = max(most, automaton.steps - before)
    given += made.process(finish(), 10**6)
    assert most < LIMITS.output_steps + 2 * LIMITS.wait
    if kind == "block":
        assert said(given) == ["provider.block", "finish"]
    else:
        whole = "".join([each[DELTAS[each["type"]]] for each in given if each["type"] in DELTAS])
        assert whole == (arguments if kind == "call" else LETTERS)
        assert given[-2]["type"] == ("tool.call" if kind == "call" else "reasoning.signature")


@pytest.mark.parametrize("kind", ["text", "call", "block"])
@pytest.mark.parametrize("action", ["mask", "stop", "flag"])
def test_guards_whose_searches_take_too_much_have_failed(
    action: Any, kind: str, costly: ActiveGuard, change_limits: ChangeLimits
) -> None:
    """A flag is open then: the text passes, with one warning. Others end the stream, and nothing unsearched is out."""
    change_limits(request_steps=3000)
    counts = Counts()
    guard = replace(costly, settings=replace(costly.settings, action=action))
    made = stage(guard, counts=counts)
    arguments = json.dumps({"k": LETTERS})
    events = {
        "call": [call_delta(arguments), call(arguments=arguments)],
        "block": [{"type": "provider.block", "provider": "p", "block": JSONText(arguments, None, json.loads)}],
    }.get(kind, [text(LETTERS), text(LETTERS)])
    if action != "flag":
        with pytest.raises(Error) as caught:
            turns(made, guard, *events)
        assert (caught.value.code, caught.value.reason, caught.value.guard) == (
            "provider_unavailable",
            "guard_failed",
            "names",
        )
        assert [*made.process(text("more"), 10**6)] == []
    else:
        left, _ = turns(made, guard, *events)
        given = [each for turn in left for each in turn]
        assert [each["reason"] for each in given if each["type"] == "warning"] == ["guard_failed"]
        whole = "".join([each[DELTAS[each["type"]]] for each in given if each["type"] in DELTAS])
        assert whole == {"call": arguments, "block": ""}.get(kind, LETTERS * 2)
    assert counts.all == [("failed", "names")]


def test_what_waits_for_a_turn_is_counted_and_holds_the_end(costly: ActiveGuard) -> None:
    made = stage(costly)
    [*made.process(text(LETTERS), 1)]
    [*made.process(text("x" * 5000), 1)]
    [*made.process({"type": "image", "image": {"data": "y" * 7000}}, 1)]
    assert made.waiting > 12_000
    assert made.holds
    assert [*made.release(1)] == []


@pytest.mark.parametrize("end", [finish("cancelled"), {"type": "error", "error": {}}])
def test_an_end_that_does_not_wait_has_one_turn_more(end: Event, costly: ActiveGuard) -> None:
    made = stage(costly)
    given = [*made.process(text(LETTERS), 1), *made.process(text("b"), 1), *made.process(end, 1)]
    out = "".join([each["text"] for each in given if each["type"] == "text.delta"])
    assert given[-1] is end
    assert LETTERS.startswith(out)
    assert len(out) < len(LETTERS)
    assert not made.holds


def test_turns_are_no_way_past_a_guard(costly: ActiveGuard) -> None:
    word = matching()
    made = stage(costly, word)
    left, _ = turns(made, costly, text(LETTERS + " a kes"), USAGE, text("trel b"), SIGNATURE)
    given = said([each for turn in left for each in turn] + [*made.process(finish(), 10**6)])
    assert "".join(given).startswith(LETTERS + " a [words]")
    assert given[-5:] == ["mask", "usage", " b", "reasoning.signature", "finish"]


def test_a_stream_that_no_guard_looks_at_has_no_stage() -> None:
    assert stage() is None
    assert stage(matching(on=("input",)), judging(Answering()).__class__(matching(on=("input",)).settings)) is None
    assert isinstance(stage(matching()), Processor)


def test_a_mask_is_counted_and_told() -> None:
    counts = Counts()
    given = through(stage(matching(category="bird"), counts=counts), START, text("a kes"), text("trel."), finish())
    assert said(given) == ["start", "a ", "[bird]", "mask", ".", "finish"]
    assert given[3]["safety"] == {"category": "bird", "action": "mask", "guard": "names", "on": "output"}
    assert counts.all == [("mask", "names", "output")]


def test_the_kind_of_personal_data_is_its_category() -> None:
    given = through(stage(matching("pii", kinds=("email", "ip"))), text("to a@x.com from 10.0.0.1."), finish())
    assert said(given) == ["to [email]", "mask", " from ", "[ip]", "mask", ".", "finish"]
    assert [each["safety"]["category"] for each in given if each["type"] == "safety"] == ["email", "ip"]


def test_a_flag_holds_nothing_and_is_counted_once_in_a_call() -> None:
    counts = Counts()
    made = stage(matching(action="flag"), counts=counts)
    given = through(made, text("kes"), text("trel "), call_start(), call_delta('{"a":"kes'), call_delta('trel"}'))
    assert said(given) == ["kes", "trel ", "flag", "tool.call.start", '{"a":"kes', 'trel"}', "flag"]
    assert said(through(made, call(arguments='{"a":"kestrel"}'))) == ["tool.call"]
    assert counts.all == [("flag", "names", "output")] * 2


def test_a_masked_call_is_counted_once() -> None:
    counts = Counts()
    made = stage(matching(), counts=counts)
    through(made, call_start(), call_delta('{"a":"kestrel"}'), call(arguments='{"a":"kestrel"}'))
    assert counts.all == [("mask", "names", "output")]
    through(made, call(arguments='{"a":"kestrel"}'))
    assert len(counts.all) == 2


def test_a_mask_that_grows_holds_what_comes_behind_it_and_the_end() -> None:
    """Its text is held no more, but its replacement was not sent: a judge behind it must see that."""
    answering = Answering()
    guard = matching("patterns", patterns=("sk-[a-z]{4,}",))
    chain = Chain([stage(guard, judging(answering, "mask"))])
    given = [*chain.process(text("the sk-abcd")), *chain.process({"type": "citations", "citations": [{"uri": "u"}]})]
    assert (given, chain.holds) == ([], True)
    given += chain.release()
    assert answering.texts == ["the [patterns]"]
    answering.answer(FINE)
    given += [*chain.flush(0), *chain.process(finish())]
    assert said(given) == ["the ", "[patterns]", "mask", "citations", "finish"]


@pytest.mark.parametrize(
    ("verdict", "action", "is_kept"),
    [
        (FINE, "mask", True),
        (JudgeVerdict(flagged=True, spans=((3, 5),)), "mask", False),
        (JudgeVerdict(flagged=True), "mask", False),
        (JudgeVerdict(flagged=True), "flag", True),
        (JudgeVerdict(flagged=True), "stop", False),
    ],
)
@pytest.mark.parametrize("replacement", ["", "[x]"])
@pytest.mark.parametrize("exposure", [0, 1000])
def test_a_judge_sees_what_stands_beside_finish(
    verdict: JudgeVerdict, action: Any, is_kept: bool, replacement: str, exposure: int
) -> None:
    answering = Answering()
    judge = judging(answering, action, max_exposure=exposure)
    judge = ActiveGuard(replace(judge.settings, replacement=replacement), judge=answering)
    chain = Chain([stage(matching(), judge)])
    scene = Scene(chain=chain, provider="perplexity")
    scene.say(chunk("Hi"), chunk(finish="stop", related_questions=["A kestrel?"]), "[DONE]")
    assert not [each for each in scene.sink.take() if each["type"] == "finish"]
    assert answering.texts == ["Hi", '{"related_questions":["A [words]?"]}']
    answering.answer(FINE)
    answering.answer(verdict)
    scene.relay.tick(0)
    events: list[Any] = scene.sink.take()
    assert [each["type"] for each in events][-2:] == ["finish", "done"]
    assert "finish.beside" not in [each["type"] for each in events]
    assert ("A [words]?" in repr(events)) is is_kept
    assert "kestrel" not in repr(events)
    assert events[-2]["finish_reason"] == ("content_filter" if action == "stop" else "stop")


def test_held_text_leaves_before_a_stop_beside_finish() -> None:
    answering = Answering()
    chain = Chain([stage(matching(), judging(answering, "stop", max_exposure=1000))])
    scene = Scene(chain=chain, provider="perplexity")
    scene.say(chunk("Hi, kes"), chunk(finish="stop", related_questions=["A bird?"]), "[DONE]")
    (beside,) = [at for at, each in enumerate(answering.texts) if "bird" in each]
    answering.answer(JudgeVerdict(flagged=True), beside)
    while answering.asked:
        answering.answer(FINE)
    scene.relay.tick(0)
    events: list[Any] = scene.sink.take()
    assert "".join([each["text"] for each in events if each["type"] == "text.delta"]) == "Hi, kes"
    assert events[-2]["finish_reason"] == "content_filter"


def test_a_flag_that_grows_holds_nothing() -> None:
    chain = Chain([stage(matching("patterns", patterns=("sk-[a-z]{4,}",), action="flag"))])
    given = [*chain.process(text("the sk-abcd")), *chain.process({"type": "citations", "citations": [{"uri": "u"}]})]
    assert (said(given), chain.holds) == (["the sk-abcd", "citations"], False)


@pytest.mark.parametrize("is_call", [False, True])
def test_a_stop_is_certain_before_its_match_ends(is_call: bool) -> None:
    counts = Counts()
    made = stage(matching("patterns", patterns=("sk-[a-z]{4,}",), action="stop"), counts=counts)
    events = [call_start(), call_delta('{"a":"sk-a'), call_delta("bcd")] if is_call else [text("the sk-a"), text("bcd")]
    given = through(made, *events, finish(), DONE)
    before = ["tool.call.start", '{"a":"'] if is_call else ["the "]
    assert said(given) == [*before, "stop", "(stop)", "finish", "done"]
    assert counts.all == [("stop", "names", "output"), ("stopped", "names", "output", "s1", "anna")]


# ---- own words -------------------------------------------------------------------------------------------------------


def test_own_words_come_back_in_every_channel_behind_all_guards() -> None:
    made = stage(matching("pii", kinds=("email",)), placeholders=own())
    arguments = '{"to":"<EMAIL_1>"}'
    given = through(
        made,
        reasoning("<EMA"),
        reasoning("IL_1>"),
        SIGNATURE,
        text("To <EMAIL_1>, b@x.com."),
        {"type": "refusal.delta", "text": "not <EMAIL_1>"},
        call_start(),
        call_delta(arguments),
        call(arguments=arguments, signature="s"),
        finish(),
    )
    assert said(given) == [
        '"a"@x.com', "reasoning.signature", 'To "a"@x.com, ', "[email]", "mask", ".", 'not "a"@x.com',
        "tool.call.start", '{"to":"\\"a\\"@x.com"}', "tool.call", "finish",
    ]  # fmt: skip
    (complete,) = [each for each in given if each["type"] == "tool.call"]
    assert complete["tool_call"]["input"].value == {"to": '"a"@x.com'}
    assert complete["signature"] == "s", "it is of the upstream's arguments, which come back as they were"


def test_a_call_without_deltas_has_its_own_words_too() -> None:
    (given,) = through(stage(placeholders=own()), call(arguments='{"to":"<EMAIL_1>"}', signature="s"))
    assert given["tool_call"]["input"].value == {"to": '"a"@x.com'}
    assert given["signature"] == "s"


def test_what_replaces_a_match_is_escaped_in_json_alone() -> None:
    for arguments, restored in (('{"a":"<EMAIL_1>"}', '{"a":"\\"a\\"@x.com"}'), ("+ <EMAIL_1>", '+ "a"@x.com')):
        made = stage(placeholders=own())
        given = through(made, call_start(), call_delta(arguments), finish())
        assert "".join(each["arguments"] for each in given if each["type"] == "tool.call.delta") == restored


@pytest.mark.parametrize("with_deltas", [True, False])
@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        (r'{"n": NaN, "bird": "\u006bestrel"}', '{"n": NaN, "bird": "[words]"}'),
        (r'grep "\u006bestrel" kestrel', r'grep "\u006bestrel" [words]'),
        ("", ""),
    ],
    ids=["no JSON but read as such", "a text", "nothing"],
)
def test_arguments_that_are_a_text_are_searched_as_their_deltas_are(
    arguments: str, masked: str, with_deltas: bool
) -> None:
    complete: Any = {"type": "tool.call", "call_id": "call_1", "tool_call": {"name": "weather", "input": arguments}}
    deltas = [call_start(), call_delta(arguments)] if with_deltas else []
    given = through(stage(matching()), *deltas, complete)
    assert [each["tool_call"]["input"] for each in given if each["type"] == "tool.call"] == [masked]
    if with_deltas:
        assert "".join(each["arguments"] for each in given if each["type"] == "tool.call.delta") == masked
    assert said(given).count("mask") == (masked != arguments)


def test_a_block_of_the_provider_and_an_address_stay_as_they_are() -> None:
    block: Event = {"type": "provider.block", "provider": "demo", "block": {"a": ["<EMAIL_1>"]}}
    citing: Event = {"type": "citations", "citations": [{"uri": "x:<EMAIL_1>", "title": "<EMAIL_1>"}]}
    given = through(stage(placeholders=own()), block, citing)
    assert given[0] is block
    assert given[1]["citations"] == [{"uri": "x:<EMAIL_1>", "title": '"a"@x.com'}]


def test_citations_of_text_with_own_words_have_no_places() -> None:
    citing: Event = {"type": "citations", "citations": [{"uri": "u", "start": 0, "end": 3}]}
    assert through(stage(placeholders=own()), text("<EMAIL_1>"), citing)[1]["citations"] == [{"uri": "u"}]


# ---- with judges -----------------------------------------------------------------------------------------------------


def relayed(judge: Answering, *guards: Any) -> tuple[Scene, Any]:
    made = stage(*guards, judging(judge), placeholders=own())
    scene = Scene(chain=Chain([made]))
    return scene, made


def test_a_judge_sees_what_is_masked_and_no_own_words() -> None:
    judge = Answering()
    scene, made = relayed(judge, matching())
    scene.say(chunk("the kes"), chunk("trel of <EMA"), chunk("IL_1>"), chunk(finish="stop"), "[DONE]")
    assert said(scene.sink.take()) == ["start"]
    assert judge.texts == ["the [words] of <EMAIL_1>"]
    assert made.waiting >= 24, "the text, and the event behind it"
    judge.answer(FINE)
    scene.relay.tick(9)
    events: list[Any] = scene.sink.take()
    assert said(events) == ["the ", "[words]", "mask", " of ", '"a"@x.com', "finish", "done"]
    assert not made.holds


def test_a_placeholder_over_two_pieces_comes_back() -> None:
    judge = Answering()
    scene, made = relayed(judge)
    scene.say(chunk("x" * 28 + "<EMA"), chunk("IL_1> and <EMA"), chunk(finish="stop"), "[DONE]")
    assert judge.texts == ["x" * 28 + "<EMA", "x" * 28 + "<EMAIL_1> and <EMA"]
    judge.answer(FINE)
    scene.relay.tick(1)
    assert said(scene.sink.take()) == ["start", "x" * 28]
    assert made.holds
    judge.answer(FINE)
    scene.relay.tick(2)
    assert said(scene.sink.take()) == ['"a"@x.com and ', "<EMA", "finish", "done"]


def test_a_stop_of_a_pattern_drops_what_has_no_verdict() -> None:
    judge = Answering()
    scene, _ = relayed(judge, matching(action="stop"))
    scene.say(chunk("x" * 32 + " "), chunk("kestrel "), chunk("more"))
    events: list[Any] = scene.sink.take()
    assert said(events) == ["start", "stop", "finish", "done"]
    assert events[-2]["reason"] == "guard"
    assert judge.texts == [], "the question is given up"


def test_the_stages_are_connected_and_end_with_their_stream() -> None:
    judge = Answering()
    made = stage(matching(), judging(judge))
    woken: list[int] = []
    made.connect(lambda: woken.append(1))
    assert said(through(made, text("x" * 32 + " "))) == []
    judge.answer(FINE)
    assert (woken, made.due_ms) == ([1], 0)
    assert said([*made.flush(5)]) == ["x" * 32 + " "]
    through(made, text("y" * 64))
    made.connect(None)
    assert judge.texts == []
