"""`net/stream/guarding.py`: what a reload keeps of guards, what they count, and which stage a stream has."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from msgspec import structs

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.settings import FunctionSettings, GuardSettings, JudgeSettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.net.stream.guarding import GuardError, StreamGuards
from gai_fast.runtime.timers import TimerWheel

WORDS = GuardSettings("names", "words", words=("kestrel",))
PEOPLE = GuardSettings("people", "pii", kinds=("email",), restore=True)
FINE = FunctionSettings("tests.unit.net.stream.test_guarding:fine", "")
JUDGE = GuardSettings("own", "python", action="flag", judge=JudgeSettings(function=FINE))
INFO = StreamInfo("s", model="m", caller="ann")


def fine(asked: dict[str, Any]) -> dict[str, Any]:
    return {"flagged": "bad" in asked["text"], "category": "rude"}


def using(*guards: GuardSettings) -> StreamGuards:
    loop = asyncio.get_running_loop()
    made = StreamGuards(TimerWheel(loop), loop)
    made.use(Settings(guards=guards))
    return made


async def test_equal_lists_keep_their_automaton_and_others_are_built() -> None:
    made = using(WORDS, PEOPLE)
    assert made.guards is not None
    before = {each.name: each.automaton for each in made.guards.active}
    renamed = dataclasses.replace(WORDS, name="other", action="flag", keys=("ann",))
    changed = dataclasses.replace(PEOPLE, kinds=("email", "ip"))
    assert not made.must_build(Settings(guards=(renamed, PEOPLE)))
    assert made.must_build(Settings(guards=(renamed, changed)))
    settings = Settings(guards=(renamed, changed))
    built = made.build(settings)
    assert [each.name for each, _ in built] == ["people"]
    made.use(settings, built)
    after = {each.name: each.automaton for each in made.guards.active}
    assert after["other"] is before["names"]
    assert after["people"] is built[0][1] is not before["people"]


async def test_a_running_stream_keeps_its_guards() -> None:
    made = using(WORDS)
    stage = made.processor(INFO)
    assert stage is not None
    made.use(Settings(guards=(dataclasses.replace(WORDS, words=("owl",)),)))
    events = [
        event for text in ("a kestrel, ", "an owl.") for event in stage.process({"type": "text.delta", "text": text})
    ]
    events += stage.release()
    assert "".join(event.get("text", "") for event in events) == "a [words], an owl."
    assert made.tallies.actions["names", "output", "mask"] == 1


async def test_a_guard_that_cannot_be_used_changes_nothing() -> None:
    made = using(WORDS)
    known = made.guards
    for bad in (
        GuardSettings("bad", "patterns", patterns=("a[^c]*d",)),
        GuardSettings("bad", "http", judge=JudgeSettings(url="https://a.example", ca_file="/nowhere.pem")),
    ):
        with pytest.raises(GuardError, match="guard 'bad'"):
            made.use(Settings(guards=(WORDS, bad)))
        assert made.guards is known
    made.use(Settings())
    assert made.guards is None
    await made.close()


async def test_what_is_counted_begins_at_zero() -> None:
    made = using(WORDS, JUDGE)
    assert made.tallies.actions == {
        **dict.fromkeys((("names", side, "mask") for side in ("input", "output")), 0),
        **dict.fromkeys((("own", side, "flag") for side in ("input", "output")), 0),
    }
    assert made.tallies.failures == {"own": 0}
    made.tallies.delayed("own", 1.0)
    made.tallies.stopped("own", "input", "s", "ann")
    heard: list[object] = []
    made.tallies.note_delay = lambda *given: heard.append(given)
    made.tallies.audit = lambda *given: heard.append(given)
    made.tallies.delayed("own", 1.0)
    made.tallies.stopped("own", "input", "s", "ann")
    assert heard == [("own", 1.0), ("own", "input", "s", "ann")]
    await made.close()


async def test_a_stream_has_a_stage_if_a_guard_looks_at_its_output_or_own_words_come_back() -> None:
    made = using(dataclasses.replace(WORDS, on=("input",), models=("m",)), dataclasses.replace(PEOPLE, on=("input",)))
    assert made.processor(INFO) is None
    request = parse_request(b'{"query": "a kestrel to a@b.example"}')
    through, let = await made.let_through(request, INFO)
    assert through.query == "a [words] to <EMAIL_1>"
    assert let is not None
    assert len(let.said) == 2
    assert made.processor(structs.replace(INFO, placeholders=let.placeholders)) is not None
    same, nothing = await made.let_through(request, StreamInfo(model="other", caller="ann"))
    assert same.query == "a kestrel to <EMAIL_1>"
    assert nothing is not None
    same, nothing = await using(WORDS).let_through(parse_request(b'{"query": "a"}'), INFO)
    assert (same.query, nothing) == ("a", None)
    assert using(WORDS).processor(INFO) is not None


async def test_judges_see_what_searches_let_through() -> None:
    made = using(WORDS, JUDGE)
    request = parse_request(b'{"query": "a bad kestrel"}')
    through, let = await made.let_through(request, INFO)
    assert through.query == "a bad [words]"
    assert let is not None
    assert [(each["safety"]["guard"], each["safety"]["category"]) for each in let.said] == [
        ("names", "words"),
        ("own", "rude"),
    ]
    assert made.tallies.actions["own", "input", "flag"] == 1
    await made.close()


async def test_an_engine_builds_its_guards_before_its_first_stream_and_lets_the_loop_go_on() -> None:
    engine = Engine(Settings(guards=(WORDS,)), asyncio.get_running_loop())
    was_guarded = engine.has_processors, engine.guards
    await engine.begin()
    assert (was_guarded, engine.has_processors) == ((False, None), True)
    many = dataclasses.replace(WORDS, words=tuple(f"word{number}" for number in range(5000)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    built = await engine.build_guards(Settings(guards=(many,)))
    counting.cancel()
    assert turns > 3
    engine.use(Settings(guards=(many,)), built)
    assert engine.guards is not None
    assert engine.guards.active[0].automaton is built[0][1]
    engine.use(Settings())
    assert (engine.has_processors, engine.guards) == (False, None)
    await engine.close()
