"""Runs a case in process: the upstream's bytes through a relay with guards, into a client's format, to its reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.relay import Relay
from gai_fast.core.transcript import Transcript
from gai_fast.formats import get_format
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.output import output_stage
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.errors import Error
from gai_fast.model.settings import GuardSettings, JudgeSettings
from gai_fast.providers import get_provider
from tests.guarding import Answering, Counts
from tests.leaks.cases import Case
from tests.leaks.oracle import MARK, Seen, Wanted, restored, seen
from tests.leaks.upstreams import CALLS, DIALECTS
from tests.readers import LACKS, READERS, ClientState
from tests.unit.formats.streams import context
from tests.whole_readers import WHOLE_READERS

CUT = Error("network", "the upstream broke", reason="truncated")
_BUILT: dict[Wanted, ActiveGuard] = {}


def active(wanted: Wanted) -> ActiveGuard:
    """Returns a guard ready to use. Its automaton is shared by all cases, as by all streams of a gateway."""
    made = _BUILT.get(wanted)
    if made is None:
        settings = GuardSettings(
            "g",
            wanted.use,
            action=wanted.action,
            patterns=wanted.patterns,
            words=wanted.words,
            kinds=wanted.kinds,
            normalize=wanted.normalize,
        )
        made = _BUILT[wanted] = ActiveGuard(settings, build(settings))
    return made


def issued(case: Case) -> Placeholders | None:
    """Returns the placeholders that the upstream of a case has got. None if it has got none."""
    if not case.own:
        return None
    made = Placeholders([case.said])
    for kind, value in case.own:
        made.issue(kind, value)
    assert {name: made.value(name) for name in case.placeholders} == case.placeholders
    return made


class Judging:
    """The judge of a case, and the clock: it answers late, in the order of the questions or in another one.

    Args:
        case: The case.
    """

    def __init__(self, case: Case) -> None:
        self.now = 0
        self.asked = Answering()
        self.has_failed = False
        self._judged = case.judged
        self._random = Random(case.seed)

    def guards(self) -> list[ActiveGuard]:
        """Returns the guard with the judge, if there is one."""
        if self._judged is None:
            return []
        judge = JudgeSettings(url="http://x", fails_open=self._judged.action == "flag")
        settings = GuardSettings("p", "http", action=self._judged.action, category="policy", judge=judge)
        return [ActiveGuard(settings, judge=self.asked)]

    def pause(self, relay: Relay) -> None:
        """Lets time pass, and some answers come."""
        if self._judged is None:
            return
        self.now += self._random.choice((0, 1, 60, 200))
        for _ in range(self._random.choice((0, 0, 1, 2))):
            self.answer(relay)
        relay.tick(self.now)

    def finish(self, relay: Relay) -> None:
        """Lets all answers come, and those to what is asked then."""
        while self.asked.asked or relay.due_ms == 0:
            self.answer(relay)
            self.now += 1
            relay.tick(self.now)

    def answer(self, relay: Relay) -> None:
        """Gives one answer."""
        waiting = self.asked.asked
        judged = self._judged
        if not waiting or judged is None:
            return
        asked = waiting.pop(0 if judged.is_patient else self._random.randrange(len(waiting)))
        if asked.is_cancelled:
            return
        if judged.fails and self._random.random() < 0.3:
            self.has_failed = True
            asked.answered(Failed("late", "no verdict in time"))
        else:
            asked.answered(_verdict(asked.question))
        relay.tick(self.now)


def _next_turns(relay: Relay) -> None:
    """Lets the searches go on for which a turn had no room."""
    while relay.due_ms == 0:
        relay.tick(0)


def _verdict(question: Question) -> JudgeVerdict:
    text = question.text
    spans = tuple((at, at + 1) for at, each in enumerate(text) if each == MARK)
    return JudgeVerdict(bool(spans), spans=spans)


def body_of(case: Case, guards: Sequence[Wanted], judging: Judging | None = None) -> bytes:
    """Returns what the client of a case receives.

    Args:
        case: The case.
        guards: The guards that find matches.
        judging: The judge, which makes own words come back too. None: neither of them is there.
    """
    active_guards = [active(each) for each in guards]
    if judging is not None:
        active_guards += judging.guards()
    own = None if judging is None else issued(case)
    stage = output_stage(active_guards, StreamInfo("s"), own, Counts())
    form = get_format(case.form)
    sink: Any = form.whole(context()) if case.route == "whole" else form.encoder("sse", context())
    attempts = [1] if case.route in ("restarted", "continued") else []
    relay = Relay(
        get_provider(case.dialect).adapter("m"),
        sink,
        chain=None if stage is None else Chain([stage]),
        failed=lambda error: bool(attempts) and bool(attempts.pop()),
        transcript=Transcript() if case.route == "continued" else None,
    )
    pause = _next_turns if judging is None else judging.pause
    frames = DIALECTS[case.dialect][0](case.pieces)
    body = bytearray()
    relay.receive_head(200, {"content-type": "text/event-stream"})
    if attempts:
        for frame in frames[: len(frames) // 2]:
            relay.receive_data(frame, 0 if judging is None else judging.now)
            pause(relay)
            body += sink.take()
        relay.receive_eof(CUT)
        if not relay.is_over and not attempts:  # a whole answer may wait for a verdict
            relay.begin(
                get_provider(case.dialect).adapter("m"),
                sink,
                continued="verified" if case.route == "continued" else None,
            )
            relay.receive_head(200, {"content-type": "text/event-stream"})
    data = b"".join(frames)
    at = number = 0
    while at < len(data):
        size = case.reads[number % len(case.reads)]
        relay.receive_data(data[at : at + size], 0 if judging is None else judging.now)
        pause(relay)
        body += sink.take()
        at += size
        number += 1
    relay.receive_eof()
    _next_turns(relay)
    if judging is not None:
        judging.finish(relay)
    body += sink.take()
    assert relay.fault is None, relay.fault
    if judging is not None and judging.has_failed and relay.error is not None:
        assert relay.error.reason == "guard_failed"
    else:
        assert relay.error is None, relay.error
    return bytes(body)


def read(case: Case, body: bytes) -> ClientState:
    """Returns what the client makes of it."""
    if case.route == "whole":
        return WHOLE_READERS[case.form](json.loads(body))
    if case.form == "gai" and case.route == "restarted":
        body = body.rpartition(b'"type":"stream.reset"')[2].partition(b"\n\n")[2] if b"stream.reset" in body else body
    return READERS[case.form](body)


def faults(case: Case) -> list[str]:
    """Returns what is wrong with what the client of a case has got: nothing, if all is right."""
    judging = Judging(case)
    body = body_of(case, case.guards, judging)
    if judging.has_failed and case.judged is not None and case.judged.action != "flag":
        return _faults_of_failed(case, body)
    # At a new beginning, text without a verdict is dropped; a failure that is open has a warning.
    is_same = case.judged is None or (case.route != "restarted" and not judging.has_failed)
    if case.is_plain and is_same and body != (unguarded := body_of(case, ())):
        return [f"{frames_in(body)} frames in place of {frames_in(unguarded)}, or others"]
    state = read(case, body)
    lacks = LACKS.get(case.form, frozenset())
    found: list[str] = []
    stopped = False
    for channel, text in case.texts.items():
        if channel in CALLS:
            given = [arguments for _, arguments in state.calls.values()]
            expected = _masked(json.loads(text), case)
            calls = [each for each in CALLS if each in case.texts]
            if len(given) != len(calls) or json.loads(given[calls.index(channel)]) != expected:
                found.append(f"{channel}: {given} for {expected}")
            continue
        wanted = _seen(text, case)
        stopped = stopped or wanted.stopped
        given_text = _text_of(case, state, channel)
        # What stands before a stop and has no verdict is dropped.
        is_right = given_text == wanted.text
        if wanted.stopped and case.judged is not None:
            is_right = _begins(text, case, given_text)
        if not is_right:
            found.append(f"{channel}: {given_text!r} for {wanted.text!r}")
    if case.form == "gai" and case.route == "streamed" and not stopped:
        cited = [_seen(each, case).text for each in case.titles]
        if cited != (given_titles := titles_in(body)):
            found.append(f"citations: {given_titles} for {cited}")
    if "finish_reason" not in lacks and (state.finish_reason == "content_filter") is not stopped:
        found.append(f"finish_reason: {state.finish_reason}")
    return found


def _begins(text: str, case: Case, given: str) -> bool:
    """Returns whether a client has got a beginning of what guards let through of a text."""
    through = seen(text, case.guards, case.judged).text
    return any(restored(through[:size], case.placeholders) == given for size in range(len(through) + 1))


def _faults_of_failed(case: Case, body: bytes) -> list[str]:
    """Returns what is wrong with an answer whose judge has failed: a mark, or what a guard does not let through."""
    texts = [text for channel, text in case.texts.items() if channel in ("text", "refusal")]
    try:
        state = read(case, body)
    except (AssertionError, KeyError, ValueError):  # one object is an error then
        return [f"a mark in {body!r}"] if MARK in body.decode() and case.judged is not None else []
    given = state.text
    # Some formats join a text and a refusal.
    is_right = not given or len(texts) > 1 or any(_begins(each, case, given) for each in texts)
    return [] if is_right and MARK not in given else [f"after a failure: {given!r} for {texts!r}"]


def _seen(text: str, case: Case) -> Seen:
    return seen(text, case.guards, case.judged, case.placeholders)


def titles_in(body: bytes) -> list[str]:
    """Returns the titles of all citations in events of `gai.events.v1`."""
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: {")]
    return [each["title"] for line in lines for each in json.loads(line).get("citations", ())]


def frames_in(body: bytes) -> int:
    """Returns the number of frames of a body."""
    return body.count(b"\n\n")


def matches_in(case: Case) -> int:
    """Returns the number of matches in the texts of a case."""
    return sum(_seen(text, case).matches for channel, text in case.texts.items() if channel not in CALLS)


def _text_of(case: Case, state: ClientState, channel: str) -> str:
    if channel == "reasoning":
        return state.reasoning
    if channel == "refusal" and case.form in ("gai", "openai", "responses"):
        return state.refusal
    if {"text", "refusal"} <= case.texts.keys() and case.form not in ("gai", "openai", "responses"):
        both = [_seen(case.texts[each], case).text for each in ("text", "refusal")]
        if state.text == "".join(both):
            return both[0] if channel == "text" else both[1]
    return state.text


def _masked(value: Any, case: Case) -> Any:
    """Returns a JSON value in which each string and each key is a text of its own."""
    if isinstance(value, str):
        return _seen(value, case).text
    if isinstance(value, list):
        return [_masked(each, case) for each in value]
    if isinstance(value, dict):
        return {_masked(key, case): _masked(each, case) for key, each in value.items()}
    return value
