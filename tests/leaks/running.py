"""Runs a case in process: the upstream's bytes through a relay with guards, into a client's format, to its reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gai_fast.core.chain import Chain, StreamInfo
from gai_fast.core.relay import Relay
from gai_fast.core.transcript import Transcript
from gai_fast.formats import get_format
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.guards.stages.output import output_stage
from gai_fast.model.errors import Error
from gai_fast.model.settings import GuardSettings
from gai_fast.providers import get_provider
from tests.guarding import Counts
from tests.leaks.cases import Case
from tests.leaks.oracle import Wanted, seen
from tests.leaks.upstreams import DIALECTS
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
            "g", wanted.use, action=wanted.action, patterns=wanted.patterns, words=wanted.words, kinds=wanted.kinds
        )
        made = _BUILT[wanted] = ActiveGuard(settings, build(settings))
    return made


def body_of(case: Case, guards: Sequence[Wanted]) -> bytes:
    """Returns what the client of a case receives."""
    stage = output_stage([active(each) for each in guards], StreamInfo("s"), None, Counts())
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
    frames = DIALECTS[case.dialect][0](case.pieces)
    body: bytes = b""
    relay.receive_head(200, {"content-type": "text/event-stream"})
    if attempts:
        for frame in frames[: len(frames) // 2]:
            relay.receive_data(frame)
            body += sink.take()
        relay.receive_eof(CUT)
        if not relay.is_over:
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
        relay.receive_data(data[at : at + size])
        body += sink.take()
        at += size
        number += 1
    relay.receive_eof()
    body += sink.take()
    assert relay.fault is None, relay.fault
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
    body = body_of(case, case.guards)
    if case.is_plain and body != (unguarded := body_of(case, ())):
        return [f"{frames_in(body)} frames in place of {frames_in(unguarded)}, or others"]
    state = read(case, body)
    lacks = LACKS.get(case.form, frozenset())
    found: list[str] = []
    stopped = False
    for channel, text in case.texts.items():
        if channel == "call":
            given = [arguments for _, arguments in state.calls.values()]
            expected = _masked(json.loads(text), case.guards)
            if len(given) != 1 or json.loads(given[0]) != expected:
                found.append(f"call: {given} for {expected}")
            continue
        wanted = seen(text, case.guards)
        stopped = stopped or wanted.stopped
        given_text = _text_of(case, state, channel)
        if given_text != wanted.text:
            found.append(f"{channel}: {given_text!r} for {wanted.text!r}")
    if "finish_reason" not in lacks and (state.finish_reason == "content_filter") is not stopped:
        found.append(f"finish_reason: {state.finish_reason}")
    return found


def frames_in(body: bytes) -> int:
    """Returns the number of frames of a body."""
    return body.count(b"\n\n")


def matches_in(case: Case) -> int:
    """Returns the number of matches in the texts of a case."""
    return sum(seen(text, case.guards).matches for channel, text in case.texts.items() if channel != "call")


def _text_of(case: Case, state: ClientState, channel: str) -> str:
    if channel == "reasoning":
        return state.reasoning
    if channel == "refusal" and case.form in ("gai", "openai", "responses"):
        return state.refusal
    if {"text", "refusal"} <= case.texts.keys() and case.form not in ("gai", "openai", "responses"):
        both = [seen(case.texts[each], case.guards).text for each in ("text", "refusal")]
        if state.text == "".join(both):
            return both[0] if channel == "text" else both[1]
    return state.text


def _masked(value: Any, guards: Sequence[Wanted]) -> Any:
    """Returns a JSON value in which each string and each key is a text of its own."""
    if isinstance(value, str):
        return seen(value, guards).text
    if isinstance(value, list):
        return [_masked(each, guards) for each in value]
    if isinstance(value, dict):
        return {_masked(key, guards): _masked(each, guards) for key, each in value.items()}
    return value
