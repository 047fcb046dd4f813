"""Pair by pair: what each format's client makes of each provider's answer is what the events of the answer hold.

The relay drives the encoder as in a server, so most deltas are copied frames and not events.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import FORMATS, Format, get_format
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from tests.corpus.recordings import name_of, recordings
from tests.corpus.test_fixtures import CASES, provider_of
from tests.kernels import IS_REPEATED
from tests.readers import APART, COUNTS_FAILED, LACKS, READERS, TOO_LONG, ClientState, frames
from tests.whole_readers import WHOLE_READERS
from tools.answer_specimens import answers
from tools.client_table import LEFT_OUT, context, in_stream, passes

EVERY: Final = [name for name in FORMATS if not get_format(name).copies_upstream]
ANSWERS: Final = sorted({provider_of(case) for case in CASES})

Source = tuple[str, int, dict[str, str], bytes]
"""An API's name, and the status, headers and body of one of its answers."""


class Events:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def event(self, event: Event) -> None:
        self.all.append(event)


def relayed(source: Source, sink: Any, **sinks: Any) -> None:
    """Passes an answer through a relay, in pieces."""
    name, status, headers, body = source
    relay = Relay(get_provider(name).adapter("asked"), sink, **sinks)
    relay.receive_head(status, headers)
    for begin in range(0, len(body), 4096):
        relay.receive_data(body[begin : begin + 4096])
    relay.receive_eof()
    assert relay.fault is None
    assert not relay.is_cut


def passing(name: str, api: str) -> bool:
    """Returns whether an API's answers pass as they are."""
    return passes(get_format(name), get_provider(api)) and api != "demo"


def passed_on(form: Format, source: Source) -> bytes:
    """Returns the bytes for a client of the format, from an upstream of its own dialect."""
    encoder = form.passthrough("sse", context(), whole=False)
    relayed(source, encoder, deltas=encoder, frames=encoder)
    assert encoder is not None
    return encoder.take()


def events_of(source: Source) -> list[Event]:
    sink = Events()
    relayed(source, sink)
    return sink.all


def body_of(form: Format, source: Source) -> bytes:
    """Returns the bytes for a client of the format."""
    encoder = form.encoder("sse", context())
    relayed(source, encoder, deltas=encoder)
    return encoder.take()


def state_after(events: list[Event], name: str) -> ClientState:
    """Returns the state that a client of a format must reach, from the events."""
    state, failed = ClientState(), False
    for event in events:
        kind = event["type"]
        if event.get("choice"):
            continue
        if kind == "refusal.delta" and name not in APART:
            state.text += event["text"]
        else:
            state.take(event)
        if kind in ("finish", "error"):
            failed = kind == "error"
            state.finish_reason = event.get("finish_reason")
            state.error = Error.from_payload(event["error"]).message if failed else None
            if state.error is not None and name == "anthropic":
                state.error = state.error.removeprefix(TOO_LONG)
        if "usage" in event:
            state.count(**event["usage"])
    if failed and name not in COUNTS_FAILED:
        state.usage = {}
    for lacking in LACKS.get(name, ()):
        setattr(state, lacking, getattr(ClientState(), lacking))
    return with_values(state)


def arguments_of(text: str) -> Any:
    """Returns the arguments of a call as a value; text that is no JSON stays text."""
    try:
        return json.loads(text) if text.strip() else {}
    except ValueError:
        return text


def with_values(state: ClientState) -> ClientState:
    """Returns the same, with the arguments of its calls as values."""
    state.calls = {call_id: [called, arguments_of(text)] for call_id, (called, text) in state.calls.items()}
    return state


def read(name: str, body: bytes) -> ClientState:
    """Returns the state that a client of a format reaches."""
    return with_values(READERS[name](body))


def complete_calls(events: list[Event]) -> set[str]:
    """Returns the ids of the calls that were not cut off."""
    return {event["call_id"] for event in events if event["type"] == "tool.call" and not event.get("choice")}


def expected_of(events: list[Event], name: str) -> ClientState:
    """Returns the state that a format's client must reach."""
    expected = state_after(events, name)
    if name == "anthropic":
        complete = complete_calls(events)
        for call_id, call in expected.calls.items():
            call[1] = as_object(call[1], is_complete=call_id in complete)
        # The dialect counts what was read from a cache beside the rest: Mistral counts more of it than of the whole.
        cached = sum(expected.usage.get(key, 0) for key in ("cached_input_tokens", "cache_write_input_tokens"))
        expected.usage |= {"input_tokens": max(cached, expected.usage["input_tokens"])} if cached else {}
    return expected


def check(form: Format, source: Source) -> None:
    """Asserts that the format's client knows what it must know."""
    assert read(form.name, body_of(form, source)) == expected_of(events_of(source), form.name)


def as_object(given: Any, *, is_complete: bool) -> Any:
    """The input of a call for Anthropic's clients: an object, or the beginning of one if the call was cut off."""
    if is_complete:
        return given if isinstance(given, dict) else {"arguments": given}
    return given if isinstance(given, dict) or (isinstance(given, str) and given.lstrip().startswith("{")) else {}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("api", ANSWERS)
def test_a_client_knows_what_the_events_hold(api: str, name: str) -> None:
    for case in CASES:
        if provider_of(case) == api:
            check(get_format(name), (api, 200, {}, case.read_bytes()))


@pytest.mark.parametrize("version", ["6", "7"])
def test_a_newer_client_of_vercels_knows_the_same(version: str) -> None:
    for case in CASES:
        check(get_format("vercel").version(version), (provider_of(case), 200, {}, case.read_bytes()))


def check_whole(form: Format, source: Source) -> None:
    """Asserts that a whole answer holds what the events of the stream do; of a call that was cut off nothing."""
    events, whole = events_of(source), form.whole(context())
    relayed(source, whole)
    answer = whole.take()
    if events[-2]["type"] == "error":
        assert answer == b""  # the response is the error's
        return
    state, expected = with_values(WHOLE_READERS[form.name](json.loads(answer))), expected_of(events, form.name)
    complete = complete_calls(events)
    expected.calls = {call_id: call for call_id, call in expected.calls.items() if call_id in complete}
    assert state == expected


@pytest.mark.parametrize("name", EVERY)
def test_a_whole_answer_holds_the_same(name: str) -> None:
    for case in CASES:
        check_whole(get_format(name), (provider_of(case), 200, {}, case.read_bytes()))


@pytest.mark.parametrize(("name", "api"), [(name, api) for name in EVERY for api in ANSWERS if passing(name, api)])
def test_an_answer_of_the_same_dialect_passes_as_it_came(name: str, api: str) -> None:
    for case in CASES:
        if provider_of(case) == api and case.suffix == ".sse":
            source = api, 200, {}, case.read_bytes()
            check_passed(passed_on(get_format(name), source), source)


def check_passed(passed: bytes, source: Source) -> None:
    """Asserts that an answer passed byte for byte; after a failure there is an error, and no mark of the end."""
    body, end = source[3], events_of(source)[-2]
    if end["type"] == "finish":
        # A client that asked for usage gets a chunk of ours if the upstream has not measured it.
        own = [frame for frame in passed.split(b"\n\n") if b'"usage_source":' in frame and b'"choices":[]' in frame]
        assert len(own) <= 1
        for frame in own:
            passed = passed.replace(frame + b"\n\n", b"")
        assert passed in (body, body + b"data: [DONE]\n\n")
        return
    state = frames(passed)
    assert any("error" in data for _, data in state[-2:])
    assert b"[DONE]" not in passed
    # What no frame of the upstream's tells, an error of ours tells, and in Responses the failed response.
    upstream = frames(body)
    assert any(state[: len(state) - own] == upstream[: len(state) - own] for own in range(3))


@pytest.mark.parametrize("name", EVERY)
def test_what_a_client_lacks_is_what_the_page_says(name: str) -> None:
    """`LACKS` takes nothing out of the comparison that the matrix does not show as left out."""
    places = {what: in_stream(get_format(name), one).fate for what, one in answers("groq").items()}
    shown = {
        "text": ["text"],
        "reasoning": ["reasoning"],
        "calls": ["tool call"],
        "finish_reason": [what for what in places if what.startswith("finish reason") and "tool_calls" not in what],
        "usage": ["usage: counts"],
        "error": ["error"],
    }
    for member, whats in shown.items():
        lacking = [what for what in whats if places[what] == LEFT_OUT]
        assert lacking == (whats if member in LACKS.get(name, ()) else []), member
    assert (places["usage of a failure"] != LEFT_OUT) == (name in COUNTS_FAILED)


def source_of(recording: Any) -> Source:
    headers = {name.lower(): value for name, value in recording.headers.items()}
    return name_of(recording), recording.status, headers, recording.body


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("name", EVERY)
def test_a_whole_answer_of_each_recording_holds_the_same(name: str) -> None:
    """As streams, they are compared behind a running gateway: `test_clients.py`."""
    answered = [recording for recording in recordings() if recording.status < 400]
    assert answered
    for recording in answered[:: 4 if IS_REPEATED else 1]:
        check_whole(get_format(name), source_of(recording))


@pytest.mark.parametrize("name", EVERY)
def test_a_reader_knows_a_missing_and_a_second_end(name: str) -> None:
    [case] = [case for case in CASES if (case.parent.name, case.stem) == ("openai", "text")]
    body = body_of(get_format(name), ("openai", 200, {}, case.read_bytes()))
    *before, last, _ = body.split(b"\n\n")
    for wrong in (b"\n\n".join([*before, b""]), body + last + b"\n\n"):
        with pytest.raises(AssertionError):
            read(name, wrong)
