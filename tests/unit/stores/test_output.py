"""`gai_fast/stores/output.py`: the log holds what the client gets, and says how it ended."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.events import Event
from gai_fast.formats import Framing, StreamContext, StreamEncoder, get_format
from gai_fast.settings import StoreSettings
from gai_fast.stores import Ending, LogHeader
from gai_fast.stores.memory import LogMemory, StreamLog
from gai_fast.stores.output import LoggedOutput
from gai_fast.timers import TimerWheel

ALL = 1 << 60
ID = "AbCdEfGhIjKlMnOpQrStUv"
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}


class Stream:
    """An output over an encoder of the native format, and its log."""

    def __init__(self, timers: TimerWheel, framing: Framing = "sse", name: str = "gai") -> None:
        context = StreamContext(ID, "r", None, "m", lambda: 1, ids=True, retry_ms=3000)
        self.encoder: StreamEncoder = get_format(name).encoder(framing, context)
        self.log: StreamLog = LogMemory(StoreSettings(), timers).create(LogHeader(ID, "", "m", name, framing))
        self.output = LoggedOutput(self.encoder, self.log, lambda: 1)
        self.sent = b""

    def say(self, *events: dict[str, Any]) -> bytes:
        for event in events:
            self.output.event(event)  # type: ignore[arg-type]  # a plain dict
        return self.send()

    def send(self) -> bytes:
        piece = b"".join(self.output.take_pieces())
        self.sent += piece
        return piece

    async def kept(self, after: int = 0) -> bytes:
        return b"".join(self.log.read(after, ALL).pieces)


START = {"type": "start", "model": "m", "provider": "p"}
DELTA = {"type": "text.delta", "text": "a"}
LARGE = {"type": "text.delta", "text": "a" * 10_000}
DONE = {"type": "done", "finished": True}


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
async def test_the_log_holds_exactly_what_was_sent(timers: TimerWheel, framing: Framing) -> None:
    stream = Stream(timers, framing)
    turns = [stream.say(START, DELTA), *(stream.say(DELTA) for _ in range(50)), stream.say(DELTA, DELTA, LARGE)]
    assert await stream.kept() == stream.sent
    assert await stream.kept(after=2) == b"".join(turns[1:])
    assert stream.log.last_seq == 55


@pytest.mark.parametrize("name", ["gai", "openai", "simple"])
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
async def test_a_log_that_was_trimmed_says_up_to_which_event(timers: TimerWheel, framing: Framing, name: str) -> None:
    stream = Stream(timers, framing, name)
    stream.say(START, *[DELTA] * 9)
    stream.log.trim(0)
    assert stream.log.read(0, ALL).lost == 10


async def test_what_is_kept_is_the_object_that_is_sent(timers: TimerWheel) -> None:
    stream = Stream(timers)
    piece = stream.say(LARGE)
    assert stream.log.read(0, ALL).pieces[0] is piece


async def test_deltas_that_were_written_before_are_kept_with_their_number(timers: TimerWheel) -> None:
    stream = Stream(timers)
    stream.say(START)
    stream.encoder.append_frames(b"id: %b.2\ndata: x\n\nid: %b.3\ndata: y\n\n" % ((ID.encode(),) * 2), 2)
    stream.send()
    assert await stream.kept(after=2) == b"id: %b.3\ndata: y\n\n" % ID.encode()
    assert stream.log.last_seq == 3


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
async def test_a_keep_alive_is_sent_and_not_kept(timers: TimerWheel, framing: Framing) -> None:
    stream = Stream(timers, framing)
    first = stream.say(START)
    stream.output.heartbeat()
    ping = stream.send()
    assert ping == (b": ping\n" if framing == "sse" else b"\n")
    last = stream.say(DELTA)
    assert stream.sent == first + ping + last
    assert await stream.kept() == first + last


async def test_events_that_wait_when_a_keep_alive_comes_are_kept(timers: TimerWheel) -> None:
    """With `flush_interval` they may."""
    stream = Stream(timers)
    stream.output.event(Event(type="start", model="m"))
    stream.output.heartbeat()
    stream.output.event(Event(type="text.delta", text="a"))
    sent = stream.send()
    assert sent.count(b": ping\n") == 1
    assert await stream.kept() == sent.replace(b": ping\n", b"")


async def test_a_turn_without_bytes_keeps_nothing(timers: TimerWheel) -> None:
    stream = Stream(timers)
    assert stream.send() == b""
    assert stream.log.read(0, ALL).pieces == []


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        ([{"type": "finish", "finish_reason": "stop", "usage": USAGE}, DONE], Ending("finished", "stop", USAGE)),
        ([{"type": "finish", "finish_reason": "length"}, DONE], Ending("finished", "length")),
        (
            [{"type": "finish", "finish_reason": "cancelled", "usage": USAGE}, DONE],
            Ending("cancelled", "cancelled", USAGE),
        ),
        (
            [{"type": "error", "error": {"code": "network"}, "usage": USAGE}, {"type": "done", "finished": False}],
            Ending("failed", None, USAGE, {"code": "network"}),
        ),
        ([DELTA], Ending("cancelled")),
    ],
    ids=["finish", "length", "cancel", "error", "client gone"],
)
async def test_the_log_says_how_the_stream_ended(
    timers: TimerWheel, events: list[dict[str, Any]], ending: Ending
) -> None:
    stream = Stream(timers)
    stream.say(START, DELTA)
    stream.say(*events)
    assert stream.log.ending is None
    stream.output.close()
    assert stream.log.ending == ending
