"""`gai_fast/net/logs/closing.py`: the end of a log whose owner is gone, and what each client makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.formats import StreamContext, get_format
from gai_fast.model.errors import Error
from gai_fast.model.settings import StoreSettings
from gai_fast.net.logs.closing import closing_of
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores._base import EndsInstead, data_lines, frames_after
from gai_fast.stores.memory import LogMemory

ID = "AbCdEfGhIjKlMnOpQrStUv"
START = {"type": "start", "model": "m", "provider": "p", "stream_id": ID}
TEXTS = [{"type": "text.delta", "text": text} for text in ("Hel", "lo ", "ü😀")]
STEP = 1 << 20
CHAT = [("gai", "sse"), ("gai", "ndjson"), ("openai", "sse"), ("anthropic", "sse"), ("vercel", "sse"), ("agui", "sse")]


@pytest.fixture
def memory(timers: TimerWheel) -> LogMemory:
    return LogMemory(StoreSettings(max_stream_bytes=64 * 1024), timers)


def logged(memory: LogMemory, *events: dict[str, Any], form: str = "gai", framing: Any = "sse") -> StreamLog:
    log = memory.create(LogHeader(ID, "", "m", form, framing))
    encoder = get_format(form).encoder(framing, StreamContext(ID, "req", None, "m", lambda: 1, "compact", ids=True))
    for seq, event in enumerate(events, 1):
        encoder.event(event)
        log.append(encoder.take(), seq)
    return log


def events_of(piece: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in data_lines(piece)]


def test_a_client_learns_what_is_void_and_gets_one_error_and_the_end(memory: LogMemory) -> None:
    log = logged(memory, START, *TEXTS)
    piece, last_seq, ending, kept = closing_of(log, 4 + STEP, EndsInstead())
    assert kept == len("Hello ü😀")
    gap, error, done = events_of(piece)
    said = {"text": "Hello ü😀", "reason": "taken_over", "from": 5, "to": 4 + STEP}
    assert gap == {"type": "stream.gap", "seq": 4 + STEP, **said}
    assert [*gap] == ["type", "seq", "text", "reason", "from", "to"], "the order of the contract"
    assert (error["type"], error["seq"], error["error"]["code"]) == ("error", last_seq, "network")
    assert (error["error"]["reason"], error["error"]["temporary"]) == ("worker_lost", True)
    assert done == {"type": "done", "finished": False}
    assert last_seq == 5 + STEP
    assert (ending.state, ending.error, ending.has_content, ending.is_lost) == ("failed", error["error"], True, True)
    assert frames_after(piece, log.header, 4 + STEP).startswith(b"event: error\nid: %b.%d\n" % (ID.encode(), last_seq))


def test_where_no_client_has_more_than_is_stored_the_error_is_the_next_event(memory: LogMemory) -> None:
    piece, last_seq, *_ = closing_of(logged(memory, START, *TEXTS), 0, EndsInstead())
    assert [(each["type"], each.get("seq")) for each in events_of(piece)] == [("error", 5), ("done", None)]
    assert last_seq == 5


def test_an_empty_text_is_said_too_and_nothing_was_generated(memory: LogMemory) -> None:
    log = logged(memory, START)
    piece, _, ending, *_ = closing_of(log, 1 + STEP, EndsInstead())
    view = view_of(log.header, Representation(get_format("gai"), "ndjson", "compact"), 0, lambda: 1)
    view.feed(b"".join(log.read(0, 10**9).pieces) + piece)
    events = events_of(b"".join(view.take_pieces()))
    assert events_of(piece) == events[1:]
    assert events[1]["text"] == ""
    assert not ending.has_content


def test_a_text_that_is_lost_is_not_called_empty(memory: LogMemory) -> None:
    log = memory.create(LogHeader(ID, "", "m", "gai", "sse"))
    log.skip(7, None)
    assert "text" not in events_of(closing_of(log, 7 + STEP, EndsInstead())[0])[0]
    other = memory.create(LogHeader(ID, "", "m", "gai", "sse"))
    other.skip(7, "dropped")
    assert events_of(closing_of(other, 7 + STEP, EndsInstead())[0])[0]["text"] == "dropped"


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        ({"type": "finish", "finish_reason": "stop"}, Ending("finished", "stop")),
        ({"type": "error", "error": {"code": "network"}}, Ending("failed", error={"code": "network"})),
    ],
)
def test_a_log_that_has_its_end_is_closed_with_it(memory: LogMemory, end: dict[str, Any], ending: Ending) -> None:
    log = logged(memory, START, *TEXTS, end)
    assert closing_of(log, 5 + STEP, EndsInstead()) == (b"", 5, ending, None)


def test_a_cancel_ends_it_as_cancelled(memory: LogMemory) -> None:
    piece, last_seq, ending, *_ = closing_of(logged(memory, START, *TEXTS), 4 + STEP, EndsInstead(is_cancelled=True))
    assert [(each["type"], each.get("finish_reason")) for each in events_of(piece)] == [
        ("stream.gap", None),
        ("finish", "cancelled"),
        ("done", None),
    ]
    assert (last_seq, ending.state, ending.finish_reason, ending.is_lost) == (5 + STEP, "cancelled", "cancelled", False)


@pytest.mark.parametrize("form", ["gai", "openai"])
def test_an_end_says_what_is_told_of_a_run(memory: LogMemory, form: str) -> None:
    """Other formats than `gai` have no place for it here: their streams are logged in that."""
    told = {"usage": {"total_tokens": 3}, "steps": [{"step": 1}]}
    for end, kind, names in (
        (EndsInstead(is_cancelled=True, told=told), "finish", {"usage", "steps"}),
        (EndsInstead(told=told), "error", {"usage"}),
    ):
        log = logged(memory, START, *TEXTS, form=form)
        piece, _, ending, *_ = closing_of(log, 0, end)
        if form == "gai":
            [last] = [event for event in events_of(piece) if event["type"] == kind]
            assert {name: each for name, each in told.items() if name in last} == {name: told[name] for name in names}
        assert ending.usage == (told["usage"] if form == "gai" else None)
        memory.forget(log)


def test_a_whole_answer_has_no_frames_for_its_end(memory: LogMemory) -> None:
    log = memory.create(LogHeader(ID, "", "m", "openai", "json"))
    piece, last_seq, ending, *_ = closing_of(log, STEP, EndsInstead())
    assert (piece, last_seq, ending.is_lost, ending.has_content) == (b"", 0, True, False)


@pytest.mark.parametrize(("form", "framing"), CHAT)
def test_each_format_of_a_log_has_one_error_with_a_number_that_no_client_has(
    memory: LogMemory, form: str, framing: Any
) -> None:
    log = logged(memory, START, *TEXTS, form=form, framing=framing)
    piece, last_seq, ending, *_ = closing_of(log, log.last_seq + STEP, EndsInstead())
    assert ending.is_lost
    assert last_seq == 5 + STEP
    assert piece.count(b"the worker that ran this stream is gone") == 1
    if framing == "sse":
        assert piece.count(b"\nid: %b.%d\n" % (ID.encode(), last_seq)) + piece.startswith(b"id: ") == 1
    assert b"[DONE]" not in piece


@pytest.mark.parametrize(("form", "framing"), CHAT[2:])
def test_followers_in_other_formats_skip_the_gap_unless_they_have_what_is_void(
    memory: LogMemory, form: str, framing: Any
) -> None:
    log = logged(memory, START, *TEXTS)
    piece, last_seq, *_ = closing_of(log, 4 + STEP, EndsInstead())
    wanted = Representation(get_format(form), framing)
    stored = b"".join(log.read(0, 10**9).pieces)
    for after in (0, 4, 4 + STEP):
        view = view_of(log.header, wanted, after, lambda: 1)
        view.feed(stored + piece)
        sent = b"".join(view.take_pieces())
        assert b"id: %b.%d\n" % (ID.encode(), last_seq) in sent
        assert b"Hello" not in sent
    more = logged(memory, START, *TEXTS, TEXTS[0])
    for after, frames in ((0, b"".join(more.read(0, 10**9).pieces)), (5, stored), (2 + STEP, stored)):
        view = view_of(log.header, wanted, after, lambda: 1)
        view.feed(frames)
        with pytest.raises(Error) as behind:
            view.feed(piece)
        assert (behind.value.code, behind.value.reason) == ("network", "log_behind")


def test_what_a_log_drops_behind_a_gap_leaves_the_text_of_the_gap(memory: LogMemory) -> None:
    log = logged(memory, START, *TEXTS)
    piece, last_seq, *_ = closing_of(log, 4 + STEP, EndsInstead())
    log.void(2)
    log.append(piece, last_seq)
    for seq in range(last_seq + 1, last_seq + 2000):
        log.append(
            b'event: text.delta\nid: %b.%d\ndata: {"type":"text.delta","text":"."}\n\n' % (ID.encode(), seq), seq
        )
    backlog = log.read(0, 10**9)
    assert backlog.lost > last_seq
    assert backlog.text == "Hello ü😀" + "." * (backlog.lost - last_seq)


@pytest.mark.parametrize("last", [b"{bad", b"[1]", b'"\xff"', b"1"])
def test_a_log_whose_last_event_is_none_is_damaged(memory: LogMemory, last: bytes) -> None:
    log = memory.create(LogHeader(ID, "", "m", "gai", "sse"))
    log.append(b"data: " + last + b"\n\n", 1)
    with pytest.raises(Error) as caught:
        closing_of(log, STEP, EndsInstead())
    assert caught.value.reason == "log_damaged"


def test_a_log_of_an_unknown_format_is_damaged(memory: LogMemory) -> None:
    with pytest.raises(Error) as caught:
        closing_of(memory.create(LogHeader(ID, "", "m", "newer", "sse")), STEP, EndsInstead())
    assert caught.value.reason == "log_damaged"
