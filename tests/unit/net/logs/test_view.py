"""`gai_fast/net/logs/view.py`: what a follower is sent of a log, in the log's own form and in any other."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gai_fast.formats import Framing, StreamContext, get_format
from gai_fast.formats.responses.log import last_response
from gai_fast.model.errors import Error
from gai_fast.model.events import JSONText
from gai_fast.net.logs.view import (
    FramesAfter,
    LogFrames,
    Reencoded,
    Representation,
    View,
    keep_alive,
    pieces_in,
    read_event,
    view_of,
    written,
)
from gai_fast.stores import LogHeader
from tests.unit.formats.run_events import RUN_EVENTS

ID = "AbCdEfGhIjKlMnOpQrStUv"
EVENTS: list[dict[str, Any]] = [
    {"type": "start", "model": "m", "provider": "p", "stream_id": ID},
    {"type": "text.delta", "text": 'a "quoted"\nwörd'},
    {"type": "text.delta", "text": "b"},
    {"type": "tool.call.start", "call_id": "c", "index": 0, "tool_call": {"name": "f"}},
    {
        "type": "tool.call",
        "call_id": "c",
        "tool_call": {"name": "f", "input": JSONText('{"n":12345678901234567890,"x":1.10}', {})},
    },
    {"type": "finish", "finish_reason": "tool_calls"},
    {"type": "done", "finished": True},
]
FORMS = [
    Representation(get_format("gai"), "sse"),
    Representation(get_format("gai"), "sse", "full"),
    Representation(get_format("gai"), "ndjson"),
    Representation(get_format("gai"), "ndjson", "compact"),
    Representation(get_format("openai"), "sse"),
    Representation(get_format("openai"), "ndjson"),
    Representation(get_format("simple"), "sse"),
]


def header(form: Representation) -> LogHeader:
    return LogHeader(ID, "anonymous", "m", form.format.name, form.framing, form.envelope, "req")


def pieces(form: Representation, retry_ms: int | None = None) -> list[bytes]:
    """Returns the stream as its encoder writes it for a log, a piece for each event."""
    context = StreamContext(ID, "req", None, "m", lambda: 5000, form.envelope, ids=True, retry_ms=retry_ms)
    encoder = form.format.encoder(form.framing, context)
    made = []
    for event in EVENTS:
        encoder.event(event)
        made.append(encoder.take())
    made[-2:] = [made[-2] + made[-1]]
    return made


def fed(view: View, *given: bytes) -> bytes:
    for piece in given:
        view.feed(piece)
    return b"".join(view.take_pieces())


def view(made: Representation, wanted: Representation, after: int = 0) -> View:
    return view_of(header(made), wanted, after, lambda: 5000)


@pytest.mark.parametrize("form", FORMS)
def test_the_logs_own_form_is_sent_as_the_objects_that_it_has(form: Representation) -> None:
    own = view(form, form)
    assert isinstance(own, LogFrames)
    for piece in pieces(form):
        own.feed(piece)
        assert own.take_pieces()[0] is piece


RESET = {"type": "stream.reset", "seq": 2, "reason": "network"}
ANEW = {"type": "start", "seq": 3, "model": "other", "provider": "p"}


def logged(event: dict[str, Any]) -> bytes:
    """Returns a piece of a log in the format `gai`."""
    return b"data: " + json.dumps(event).encode() + b"\n\n"


@pytest.mark.parametrize("name", ["openai", "anthropic", "responses", "completions", "simple", "vercel", "agui"])
def test_an_attempt_that_failed_before_content_is_followed_by_the_next_in_every_form(name: str) -> None:
    own = view(Representation(get_format("gai"), "sse"), Representation(get_format(name), "sse"))
    begin = {"type": "start", "seq": 1, "model": "m", "provider": "p"}
    said = {"type": "text.delta", "seq": 4, "text": "Hello"}
    result = fed(own, *map(logged, (begin, RESET, ANEW, said)))
    assert b"Hello" in result
    with pytest.raises(Error, match="began again"):
        own.feed(logged({**RESET, "seq": 5}))


def test_the_last_object_of_an_answer_that_began_again_has_nothing_void() -> None:
    made, wanted = Representation(get_format("gai"), "sse"), Representation(get_format("responses"), "sse")
    void = {"type": "text.delta", "seq": 2, "text": "void"}
    turn = {"type": "step.start", "seq": 5, "step": 1}
    lost = {"type": "text.delta", "seq": 6, "text": "lost"}
    said = {"type": "text.delta", "seq": 8, "text": "Hello"}
    end = {"type": "finish", "seq": 9, "finish_reason": "stop"}
    begin, reset, anew = {**ANEW, "seq": 1}, {**RESET, "seq": 3}, {**ANEW, "seq": 4}
    log = [begin, void, reset, anew, turn, lost, {"type": "step.reset", "seq": 7}, said, end]
    response = last_response(pieces_in(header(made), wanted, lambda: 5000, [*map(logged, log)]))
    assert response is not None
    assert response["status"] == "completed"
    assert [each["content"][0]["text"] for each in response["output"]] == ["Hello"]


def run_log() -> list[bytes]:
    """Returns a log of a run, a piece for each event."""
    context = StreamContext(ID, "req", None, "m", lambda: 5000, ids=True)
    encoder, made = get_format("gai").encoder("sse", context), []
    for event in RUN_EVENTS:
        encoder.event(event)
        made.append(encoder.take())
    return made


@pytest.mark.parametrize("name", ["openai", "anthropic", "responses", "completions", "simple", "vercel", "agui"])
def test_a_run_that_is_followed_anew_after_any_event_goes_on_as_it_was(name: str) -> None:
    made, wanted, log = Representation(get_format("gai"), "sse"), Representation(get_format(name), "sse"), run_log()
    whole = fed(view(made, wanted), *log)
    for after in range(len(RUN_EVENTS)):
        rest = fed(view(made, wanted, after), *log)
        assert whole.endswith(rest), after
        assert len(rest) <= len(whole)
    seen = fed(view(made, wanted), *log[:20])
    assert seen + fed(view(made, wanted, 20), *log) == whole


@pytest.mark.parametrize("name", ["gai", "openai", "anthropic", "responses", "completions", "simple", "vercel", "agui"])
def test_a_step_that_is_void_ends_a_form_that_cannot_say_so(name: str) -> None:
    form = get_format(name)
    own = view(Representation(get_format("gai"), "sse"), Representation(form, "sse", "full"))
    begin = {"type": "start", "seq": 1, "model": "m", "provider": "p"}
    log = [begin, {"type": "step.start", "seq": 2, "step": 1}, {"type": "step.reset", "seq": 3, "step": 1}]
    log += [{"type": "step.start", "seq": 4, "step": 1}, {"type": "text.delta", "seq": 5, "text": "Hello"}]
    assert b"Hello" in fed(own, *map(logged, log)), "nothing of the first attempt was sent"
    reset = logged({"type": "step.reset", "seq": 6, "step": 1})
    if form.can_reset_step:
        own.feed(reset)
        return
    with pytest.raises(Error) as raised:
        own.feed(reset)
    assert (raised.value.code, raised.value.reason, raised.value.temporary) == ("network", "step_void", True)


@pytest.mark.parametrize("name", ["openai", "anthropic", "responses", "completions", "simple", "vercel", "agui"])
def test_a_delta_that_a_processor_joined_of_several_keeps_its_number_in_every_form(name: str) -> None:
    """Else a client that comes back behind it would get its text again."""
    made, wanted = Representation(get_format("gai"), "sse"), Representation(get_format(name), "sse")
    begin = {"type": "start", "seq": 1, "model": "m", "provider": "p"}
    said = [{"type": "text.delta", "seq": seq, "from_seq": seq - 3, "text": f"<{seq}>"} for seq in (5, 9, 13)]
    log = [*map(logged, (begin, *said))]
    ids = re.findall(rb"^id: \S+\.([0-9]+)$", fed(view(made, wanted), *log), re.M)
    assert ids[-3:] == [b"5", b"9", b"13"]
    assert re.findall(rb"<[0-9]+>", fed(view(made, wanted, 5), *log)) == [b"<9>", b"<13>"]


def test_the_default_envelope_is_the_framings_own() -> None:
    for framing, envelope in (("sse", "compact"), ("ndjson", "full")):
        made = header(Representation(get_format("gai"), framing))
        assert Representation(get_format("gai"), framing, envelope).is_of(made)


@pytest.mark.parametrize("wanted", FORMS)
@pytest.mark.parametrize("made", FORMS[:4])
def test_any_other_form_is_what_it_would_be_had_the_stream_been_made_in_it(
    made: Representation, wanted: Representation
) -> None:
    expected = pieces(wanted)
    assert fed(view(made, wanted), *pieces(made)) == b"".join(expected)
    one_by_one = view(made, wanted)
    assert [fed(one_by_one, piece) for piece in pieces(made)] == expected


OTHERS = [(made, wanted) for made in FORMS[:4] for wanted in FORMS if made is not wanted]


@pytest.mark.parametrize(("made", "wanted"), OTHERS)
def test_a_follower_in_another_form_gets_what_comes_after_its_place(
    made: Representation, wanted: Representation
) -> None:
    for after in range(1, len(EVENTS) - 1):
        other = view(made, wanted, after)
        assert other.start == 0
        assert fed(other, *pieces(made)) == b"".join(pieces(wanted)[after:])


def test_only_the_first_frame_of_another_form_tells_when_to_reconnect() -> None:
    made, wanted = FORMS[2], Representation(get_format("openai"), "sse", retry_ms=1234)
    assert fed(view(made, wanted), *pieces(made)) == b"".join(pieces(wanted, 1234))
    assert b"retry" not in fed(view(made, wanted, 1), *pieces(made))


@pytest.mark.parametrize(
    ("made", "wanted", "after"),
    [
        (FORMS[4], FORMS[0], 0),
        (FORMS[4], FORMS[5], 0),
        (FORMS[6], FORMS[4], 0),
        (FORMS[5], FORMS[5], 1),  # its frames have no numbers
        (FORMS[0], Representation(get_format("raw"), "sse"), 0),
    ],
)
def test_a_form_that_the_log_cannot_be_sent_in_is_not_acceptable(
    made: Representation, wanted: Representation, after: int
) -> None:
    with pytest.raises(Error) as refused:
        view(made, wanted, after)
    assert (refused.value.status, refused.value.reason) == (406, "not_acceptable")


def test_a_whole_answer_is_no_stream() -> None:
    with pytest.raises(Error, match="kept in format 'gai' as json"):
        view_of(LogHeader(ID, "", "m", "gai", "json"), FORMS[0], 0, lambda: 0)


# ---- what the log no longer has --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", FORMS[:4])
@pytest.mark.parametrize("made", FORMS[:4])
def test_a_gap_is_reported_with_the_text_and_the_rest_goes_on(made: Representation, wanted: Representation) -> None:
    other = view(made, wanted, 1)
    assert other.go_on_after(other.start, 3, "the text")
    gap = b"".join(other.take_pieces())
    if wanted.framing == "sse":
        assert gap.startswith(b"event: stream.gap\nid: %b.3\ndata: {" % ID.encode())
    event = json.loads(gap.partition(b"data: ")[2] if wanted.framing == "sse" else gap)
    assert {name: event[name] for name in ("type", "seq", "from", "to", "text")} == {
        "type": "stream.gap",
        "seq": 3,
        "from": 2,
        "to": 3,
        "text": "the text",
    }
    assert ("schema" in event) is not wanted.is_compact
    rest = fed(other, *pieces(made)[3:])
    assert rest == b"".join(pieces(wanted)[3:])


def test_a_text_that_nobody_has_is_left_out() -> None:
    for made in (FORMS[0], FORMS[2]):
        other = view(made, FORMS[0], 1)
        assert other.go_on_after(other.start, 3, None)
        assert b"text" not in b"".join(other.take_pieces()).partition(b"data: ")[2].replace(b"text/", b"")


@pytest.mark.parametrize("wanted", FORMS[4:])
def test_another_format_cannot_tell_a_gap(wanted: Representation) -> None:
    other = view(FORMS[0], wanted, 1)
    assert not other.go_on_after(other.start, 3, "the text")
    assert b"".join(other.take_pieces()) == b""
    assert not view(FORMS[4], FORMS[4], 1).go_on_after(1, 3, None)


def test_a_format_whose_end_repeats_the_answer_cannot_do_without_its_beginning() -> None:
    other = view(FORMS[0], Representation(get_format("responses"), "sse"), 3)
    assert not other.go_on_after(other.start, 2, "the text")
    assert b"".join(other.take_pieces()) == b""


@pytest.mark.parametrize("wanted", [*FORMS[1:4], FORMS[6]])
def test_what_is_lost_before_the_clients_place_is_no_gap(wanted: Representation) -> None:
    other = view(FORMS[0], wanted, 3)
    assert isinstance(other, Reencoded)
    assert other.go_on_after(other.start, 2, "the text")
    assert fed(other, *pieces(FORMS[0])[2:]) == b"".join(pieces(wanted)[3:])


# ---- events of the follower's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", FORMS)
@pytest.mark.parametrize("made", FORMS[:2])
def test_an_end_of_the_followers_own_has_no_id(made: Representation, wanted: Representation) -> None:
    other = view(made, wanted, 2)
    other.event({"type": "error", "seq": 3, "error": Error("network", "gone", reason="worker_lost").payload()})
    other.event({"type": "done", "finished": False})
    result = b"".join(other.take_pieces())
    assert b"id: " not in result
    assert b"[DONE]" not in result
    assert b"gone" in result
    if wanted.format.name == "gai":
        assert result.endswith(b'{"type":"done","finished":false}' + (b"\n\n" if wanted.framing == "sse" else b"\n"))
        assert (b'"schema"' in result) is not wanted.is_compact


def test_an_error_that_is_the_first_event_of_its_stream_has_the_envelope() -> None:
    error: Any = {"type": "error", "seq": 1, "error": {"code": "network", "message": "m"}}
    assert b'"schema"' in written(header(FORMS[0]), FORMS[0], lambda: 1, error)
    assert b'"schema"' not in written(header(FORMS[0]), FORMS[0], lambda: 1, {**error, "seq": 2})


@pytest.mark.parametrize(
    ("name", "framing", "said"), [("gai", "sse", b": ping\n"), ("gai", "ndjson", b"\n"), ("openai", "sse", b": ping\n")]
)
def test_a_keep_alive_is_the_formats_own(name: str, framing: Framing, said: bytes) -> None:
    assert keep_alive(get_format(name), framing) == said
    form = Representation(get_format(name), framing)
    for made in (form, FORMS[1]):
        other = view(made, form)
        other.heartbeat()
        assert list(other.take_pieces()) == [said]


@pytest.mark.parametrize("value", ['{"a":1.10}', '"text"', "[1,2]", "12345678901234567890", "null"])
def test_the_arguments_of_a_call_are_read_verbatim(value: str) -> None:
    call = f'{{"type":"tool.call","seq":4,"call_id":"c","tool_call":{{"name":"f","input":{value}}}}}'
    event = read_event(call.encode())
    given = event["tool_call"]["input"]
    assert given == "text" if value == '"text"' else given.text == value


def test_a_call_without_arguments_has_none() -> None:
    event = read_event(b'{"type":"tool.call","seq":4,"call_id":"c","tool_call":{"name":"f"}}')
    assert event["tool_call"] == {"name": "f"}


def test_times_of_a_full_log_are_kept_in_a_full_view() -> None:
    made, wanted = FORMS[2], FORMS[1]
    result = fed(view_of(header(made), wanted, 0, lambda: 9999), *pieces(made))
    assert result.count(b'"ts":5000') == len(EVENTS) - 1


# ---- for a client that is late ---------------------------------------------------------------------------------------


def texts(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if b'"type":"text.delta"' in line]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("openai", b'"created":5,'),
        ("responses", b'"created_at":5,'),
        ("anthropic", b""),
        ("vercel", b""),
        ("agui", b""),
    ],
)
@pytest.mark.parametrize("made", FORMS[:4])
def test_a_dialect_is_written_alike_however_late_a_client_follows(made: Representation, name: str, time: bytes) -> None:
    form = Representation(get_format(name), "sse")
    early = fed(view_of(header(made), form, 0, lambda: 6_000), *pieces(made))
    late = fed(view_of(header(made), form, 0, lambda: 60_000_000), *pieces(made))
    assert early == late
    assert time in early


@pytest.mark.parametrize("wanted", FORMS[:4])
@pytest.mark.parametrize("made", FORMS[:4])
def test_neighbouring_deltas_of_the_text_are_joined_and_the_rest_is_as_it_was(
    made: Representation, wanted: Representation
) -> None:
    other = view(made, wanted)
    other.feed_joined(pieces(made))
    result = b"".join(other.take_pieces())
    (joined,) = texts(result)
    assert (joined["seq"], joined["from_seq"]) == (3, 2)
    assert joined["text"] == "".join(event["text"] for event in EVENTS[1:3])
    whole = pieces(wanted)
    begin, end = result.split(b'"from_seq":2}')
    assert begin.startswith(whole[0])
    assert end.lstrip(b"\n") == b"".join(whole[3:])
    if wanted.framing == "sse":
        assert b"id: %b.3\ndata" % ID.encode() in result
    assert ("schema" in joined) is not wanted.is_compact


def test_a_joined_delta_is_one_frame_of_another_format() -> None:
    other = view(FORMS[0], FORMS[4])
    other.feed_joined(pieces(FORMS[0]))
    result = b"".join(other.take_pieces())
    assert result.count(b'"content":') == 2  # one beside the role
    assert b"id: %b.3\n" % ID.encode() in result
    assert b"id: %b.2\n" % ID.encode() not in result


@pytest.mark.parametrize("wanted", FORMS[1:4])
def test_what_the_client_has_is_not_joined_to_what_it_lacks(wanted: Representation) -> None:
    other = view(FORMS[0], wanted, 2)
    other.feed_joined(pieces(FORMS[0]))
    assert b"".join(other.take_pieces()) == b"".join(pieces(wanted)[2:])


def test_a_lone_delta_and_one_with_more_than_text_stay_as_they_are() -> None:
    lines = [
        b'{"type":"text.delta","seq":2,"text":"a"}\n',
        b'{"type":"text.delta","seq":3,"text":"b","choice":1}\n',
        b'{"type":"text.delta","seq":4,"text":"c"}\n',
        b'{"type":"reasoning.delta","seq":5,"text":"\\"type\\":\\"text.delta\\""}\n',
    ]
    other = view(FORMS[3], FORMS[3])
    other.feed_joined(lines)
    assert b"".join(other.take_pieces()) == b"".join(lines)


def test_frames_of_another_dialect_are_not_read() -> None:
    other = view(FORMS[4], FORMS[4])
    given = pieces(FORMS[4])
    other.feed_joined(given)
    assert list(other.take_pieces()) == given


@pytest.mark.parametrize("made", FORMS[:4])
def test_every_event_that_a_view_writes_has_its_time_where_the_stream_has(made: Representation) -> None:
    """A joined delta, a gap, an error of a follower's own, and all events of another form."""
    form = Representation(get_format("gai"), "sse", retry_ms=None, timestamps=True)
    context = StreamContext(ID, "req", None, "m", lambda: 4000, made.envelope, ids=True, timestamps=True)
    encoder = made.format.encoder(made.framing, context)
    for event in EVENTS:
        encoder.event(event)
    view = view_of(header(made), form, 0, lambda: 5000)
    assert view.go_on_after(0, 1, "so far")
    view.feed_joined([encoder.take()])
    view.event({"type": "error", "seq": 9, "error": {"code": "network"}})
    events = [json.loads(line[6:]) for line in b"".join(view.take_pieces()).splitlines() if line.startswith(b"data: ")]
    assert len(events) >= len(EVENTS)
    assert {event["type"] for event in events if "ts" not in event} == {"done"}
    assert {event["ts"] for event in events if event["type"] == "finish"} == {4000}


def test_codex_gets_keep_alives_with_the_number_of_the_last_event_it_has() -> None:
    form = Representation(get_format("responses").for_program("codex_exec/1"), "sse")
    kept = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":%d}\n\n'
    own = view(form, form)
    own.heartbeat()
    own.number = 7  # the follower's position
    own.heartbeat()
    assert b"".join(own.take_pieces()) == kept % 0 + kept % 7
    other = view(FORMS[0], form)
    other.heartbeat()
    assert b"".join(other.take_pieces()) == kept % 0
    sent = fed(other, *pieces(FORMS[0])[:2])
    other.heartbeat()
    last = max(map(int, re.findall(rb'"sequence_number":(\d+)', sent)))
    assert b"".join(other.take_pieces()) == kept % last


def of_response(*events: dict[str, Any], **changes: Any) -> tuple[LogHeader, bytes]:
    """Returns the log of a stream of the Responses route."""
    form = Representation(get_format("gai"), "sse", "compact")
    header_ = LogHeader(ID, "anonymous", "m", "gai", "sse", "compact", "req", dialect="responses", **changes)
    context = StreamContext(ID, "req", None, "m", lambda: 5000, "compact", ids=True, echo={"metadata": {"a": "b"}})
    encoder = form.format.encoder("sse", context)
    for event in events:
        encoder.event(event)  # type: ignore[arg-type]  # an event
    return header_, encoder.take()


def sent(header_: LogHeader, body: bytes, number: int | None) -> list[dict[str, Any]]:
    view = Reencoded(header_, Representation(get_format("responses"), "sse"), 0, lambda: 0)
    view.behind = None if number is None else FramesAfter(number)
    view.feed(body)
    found = re.findall(rb"^data: (.*)$", b"".join(view.take_pieces()), re.M)
    return [json.loads(each) for each in found]


def test_the_first_event_of_a_log_has_what_answers_of_its_dialect_repeat() -> None:
    header_, body = of_response(*EVENTS)
    first, *_, last = sent(header_, body, None)
    assert first["response"]["metadata"] == last["response"]["metadata"] == {"a": "b"}
    assert not last["response"]["store"]
    other = header_._replace(dialect="")
    assert sent(other, body, None)[0]["response"]["metadata"] == {}


GAP = {"type": "stream.gap", "seq": 1003, "from": 4, "to": 1003, "reason": "taken_over", "text": "a"}


def test_numbers_of_a_worker_that_is_gone_are_used_no_more() -> None:
    before, after = EVENTS[:3], [{**EVENTS[5], "finish_reason": "stop"}, EVENTS[6]]
    header_, body = of_response(*before, GAP, *after)
    numbers = [each["sequence_number"] for each in sent(header_, body, None)]
    last_before = next(at for at, number in enumerate(numbers) if number >= 900) - 1
    assert numbers[: last_before + 1] == list(range(last_before + 1))
    assert numbers[last_before + 1] == last_before + 1 + 999
    for have in (-1, 0, last_before, numbers[last_before + 1], numbers[-1]):
        assert [each["sequence_number"] for each in sent(header_, body, have)] == [n for n in numbers if n > have]
    for lost in (last_before + 1, last_before + 999):
        with pytest.raises(Error) as caught:
            sent(header_, body, lost)
        assert caught.value.reason == "log_behind"


def test_a_number_beyond_the_end_is_refused_and_an_error_is_told_again() -> None:
    header_, body = of_response(*EVENTS)
    with pytest.raises(Error) as caught:
        sent(header_, body, 1000)
    assert caught.value.reason == "log_behind"
    lost = {"type": "error", "error": {"code": "network", "message": "gone", "reason": "worker_lost"}}
    header_, body = of_response(EVENTS[0], EVENTS[1], lost, {"type": "done", "finished": False})
    numbers = [each["sequence_number"] for each in sent(header_, body, None)]
    assert [each["type"] for each in sent(header_, body, numbers[-1])][-1] == "response.failed"
    view = Reencoded(header_, Representation(get_format("responses"), "sse"), 0, lambda: 0)
    view.behind = FramesAfter(numbers[-1] + 1)
    with pytest.raises(Error) as caught:
        view.feed(body)
    assert caught.value.reason == "log_behind"
    assert not b"".join(view.take_pieces()), "that error is the only end"


@pytest.mark.parametrize("usage", [True, False])
def test_clients_of_chat_completions_get_the_usage_that_they_have_asked_for(usage: bool) -> None:
    header_, body = of_response(
        *EVENTS[:2], {**EVENTS[5], "usage": {"input_tokens": 1, "output_tokens": 2}}, usage=usage
    )
    header_ = header_._replace(dialect="openai")
    written_ = fed(view_of(header_, Representation(get_format("openai"), "sse"), 0, lambda: 0), body)
    assert (b'"usage":{' in written_) == usage
    other = fed(view_of(header_, Representation(get_format("completions"), "sse"), 0, lambda: 0), body)
    assert b'"usage":{' in other
