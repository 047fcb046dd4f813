"""Rule 7 of `core/relay.py`: whatever a part raises, in whatever call, the stream has exactly one legal end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from gai_fast.core.legal_stream import State
from gai_fast.core.relay import Relay
from gai_fast.core.transcript import Transcript
from gai_fast.formats import StreamContext, get_format
from gai_fast.formats._base import StreamEncoder
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.processors import Chain, Processor, StreamInfo, make_chain, read_processor
from gai_fast.providers import get_provider
from tests.legal import check_legal, sse
from tests.limits import LIMITS
from tests.unit.core.test_relay import HELLO, STOP, FakeAdapter, FakeAPI, Frames, chunk

CALL = {"call_id": "c1", "index": 0}
CALLING = sse(
    chunk(events=[{"type": "tool.call.start", **CALL, "tool_call": {"name": "f"}}]),
    chunk(args="{}", keys=CALL),
    chunk(complete={"type": "tool.call", "call_id": "c1", "tool_call": {"name": "f", "input": {}}}),
)
RESET = Error("network", "reset", reason="reset")


pytestmark = pytest.mark.interpreted  # a compiled part cannot be replaced by a raising one


class Bug(Exception):
    """An unexpected exception of a part."""


class Broken:
    """A part whose method of one name raises, from a certain call on for a number of calls."""

    def __init__(self, part: Any, name: str, first: int, times: int) -> None:
        self._part = part
        self._name = name
        self._calls = range(first, first + times)
        self._seen = 0
        self.raised = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._name:
            return found
        if not callable(found):
            self._count()
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._count()
            return found(*arguments, **named)

        return call

    def _count(self) -> None:
        self._seen += 1
        if self._seen in self._calls:
            self.raised += 1
            raise Bug


class Holding(Processor):
    """Holds each delta until the next event, or until `flush`."""

    def __init__(self) -> None:
        self._held: list[Event] = []

    @property
    def due_ms(self) -> int | None:
        return 5 if self._held else None

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        yield from self.flush()
        if event["type"] == "text.delta":
            self._held.append(event)
        else:
            yield event

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        held, self._held = self._held, []
        yield from held


class Particular(Frames):
    """Takes frames and events, and knows how to fail at one type of event."""

    def event(self, event: Event) -> None:
        getattr(self, event["type"].replace(".", "_"), lambda: None)()
        super().event(event)


class Run:
    """A relay whose parts are all there, one of them broken."""

    def __init__(self, part: str, name: str, first: int, times: int) -> None:
        self.sink = Particular()
        self.asked: list[Error] = []
        self.attempts = 2
        self.could_break_at_done = part in ("sink", "chain")
        parts: dict[str, Any] = {
            "adapter": FakeAdapter(FakeAPI()),
            "chain": Chain([Holding()]),
            "sink": self.sink,
            "transcript": Transcript(),
            "session": self,
        }
        self.broken = parts[part] = Broken(parts[part], name, first, times)
        self.parts = parts
        self.relay = Relay(
            parts["adapter"],
            parts["sink"],
            frames=parts["sink"],
            chain=parts["chain"],
            transcript=parts["transcript"],
            failed=parts["session"].failed,
            redact=parts["session"].redact,
            prompt_characters=9,
        )

    def failed(self, error: Error) -> bool:
        self.asked.append(error)
        return len(self.asked) < self.attempts

    def redact(self, error: Error, raw: bytes) -> Error:
        return error

    def again(self, continued: Any) -> None:
        """The attempt that was promised."""
        adapter = FakeAdapter(FakeAPI())
        self.relay.begin(adapter, self.parts["sink"], frames=self.parts["sink"], continued=continued)
        self.relay.receive_head(200, {})
        self.relay.receive_data(sse(HELLO, STOP, "[END]"))


def answer(run: Run) -> None:
    run.relay.receive_head(200, {"content-type": "text/event-stream"})
    run.relay.receive_data(sse(HELLO, CALLING), 10)
    run.relay.tick(20)
    run.relay.settle()
    run.relay.receive_data(sse(b": ping\n\n", chunk(text="\ud83d"), chunk(text="\ude00"), "{", STOP))
    run.relay.receive_eof()


def whole(run: Run) -> None:
    run.relay.receive_data(json.dumps({"answer": {**HELLO, **STOP}}).encode())
    run.relay.receive_eof()


def refused(run: Run) -> None:
    run.attempts = 1
    run.relay.receive_head(500, {})
    run.relay.receive_data(b"no")
    run.relay.receive_eof()


def cut_short(run: Run) -> None:
    run.attempts = 1
    run.relay.receive_data(sse(HELLO, CALLING))
    run.relay.receive_eof(RESET)


def sent_error(run: Run) -> None:
    run.attempts = 1
    run.relay.receive_data(sse(HELLO, CALLING, chunk(error="no")))


def cancelled(run: Run) -> None:
    run.relay.receive_data(sse(HELLO, CALLING))
    run.relay.stop("cancelled")


def failed(run: Run) -> None:
    run.relay.receive_data(sse(HELLO, CALLING))
    run.relay.fail(Error("overloaded", "this server is being stopped"))


def given_up(run: Run) -> None:
    run.relay.receive_data(sse(HELLO, CALLING))
    run.relay.fail_attempt(RESET)
    run.relay.give_up(Error("internal"))


def healed(continued: Any) -> Callable[[Run], None]:
    def drive(run: Run) -> None:
        run.relay.receive_data(sse(HELLO))
        run.relay.receive_eof(RESET)
        run.again(continued)
        run.relay.receive_eof()

    drive.__name__ = f"healed_{continued}"
    return drive


DRIVES = [
    answer, whole, refused, cut_short, sent_error, cancelled, failed, given_up,
    healed(None), healed("verified"), healed("prefill"),
]  # fmt: skip
CALLS = [
    *(("adapter", name) for name in ("start", "receive", "receive_whole", "finish", "abort", "end", "usage")),
    *(("chain", name) for name in ("process", "flush")),
    *(("sink", name) for name in ("event", "frame")),
    *(("transcript", name) for name in ("take", "named", "repeat", "go_on", "forget")),
    *(("session", name) for name in ("failed", "redact")),
]


@pytest.mark.parametrize("drive", DRIVES, ids=lambda drive: drive.__name__)
@pytest.mark.parametrize(("part", "name"), CALLS, ids=lambda value: value)
def test_rule_7_whatever_a_part_raises_ends_the_stream_once_and_legally(
    part: str, name: str, drive: Callable[[Run], None]
) -> None:
    for first in range(1, 9):
        for times in (1, 2, 99):
            run = Run(part, name, first, times)
            drive(run)
            if run.broken.raised:
                check_end(run)


def check_end(run: Run) -> None:
    relay, events = run.relay, run.sink.events
    assert relay.state in (State.CLOSED, State.CUT)
    assert relay.is_over
    assert isinstance(relay.fault, Bug)
    asked = len(run.asked)
    if relay.is_cut:
        assert relay.error is not None
        assert "done" not in [event["type"] for event in events]
    else:
        kinds = [event["type"] for event in events]
        begin = len(kinds) - kinds[::-1].index("stream.reset") if "stream.reset" in kinds else 0
        check_legal(events[begin:])
        result = events[-2].get("error")
        if result is not None and not run.could_break_at_done:
            assert result["code"] == "internal"
            assert "phase" not in result
            assert relay.error is not None
            assert relay.error.code == "internal"
    # What comes afterwards changes nothing.
    said = len(events)
    relay.receive_data(sse(HELLO, STOP))
    relay.receive_eof(RESET)
    relay.stop("cancelled")
    relay.tick(99)
    relay.fail(RESET)
    assert (len(events), len(run.asked)) == (said, asked)


def test_the_calls_above_are_all_made() -> None:
    """Streams call each of the parts' methods: the test would prove nothing for an unused method."""
    reached = set()
    for part, name in CALLS:
        for drive in DRIVES:
            run = Run(part, name, 1, 1)
            drive(run)
            if run.broken.raised:
                reached.add((part, name))
    assert reached == set(CALLS)


@pytest.mark.parametrize("kind", ["start", "text_delta", "finish", "error", "done"])
@pytest.mark.parametrize("times", [1, 99])
def test_rule_7_a_sink_that_cannot_write_an_event_gets_an_end_if_it_can_write_that(kind: str, times: int) -> None:
    left = [times]

    def refuse() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise Bug

    sink = Particular()
    setattr(sink, kind, refuse)
    relay = Relay(FakeAdapter(FakeAPI()), sink)
    relay.receive_data(sse(HELLO, STOP if kind != "error" else chunk(error="no")))
    relay.receive_eof()
    assert relay.state in (State.CLOSED, State.CUT)
    assert relay.is_cut == (times > 1 and kind in ("error", "done"))
    if not relay.is_cut:
        check_legal(sink.events)


def test_rule_7_a_sink_that_is_full_says_so_also_where_a_call_is_complete() -> None:
    def refuse() -> None:
        raise Error("provider_unavailable", "too large", reason="answer_too_large")

    sink = Particular()
    sink.text_delta = sink.tool_call = refuse
    relay = Relay(FakeAdapter(FakeAPI()), sink)
    relay.receive_data(CALLING + sse(HELLO, STOP))
    assert (relay.fault, relay.is_cut) == (None, False)
    check_legal(sink.events)
    assert sink.events[-2]["error"]["reason"] == "answer_too_large"


def test_rule_7_a_processors_own_error_ends_the_stream_when_it_comes_from_a_timer() -> None:
    settings = [
        read_processor({"use": "batch", "milliseconds": 10}),
        read_processor({"use": "json_stream", "on_invalid": "error"}),
    ]
    chain = make_chain(settings, StreamInfo(wants_json=True))
    sink = Frames()
    relay = Relay(FakeAdapter(FakeAPI()), sink, chain=chain)
    relay.receive_data(sse(chunk(text="{")), 1000)
    relay.receive_data(sse(chunk(text="no")), 1001)
    relay.tick(1020)
    check_legal(sink.events)
    assert relay.fault is None
    assert (sink.events[-2]["error"]["code"], sink.events[-2]["error"]["reason"]) == (
        "provider_unavailable",
        "invalid_json",
    )


@pytest.mark.parametrize("snapshots_ms", [0, 60_000])
@pytest.mark.parametrize("levels", [250, 254, 255, 256, 257, 300])
def test_a_deeply_nested_answer_with_snapshots_ends_whatever_can_be_written_of_it(
    levels: int, snapshots_ms: int
) -> None:
    encoder: StreamEncoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", clock=lambda: 7))
    chain = make_chain([], StreamInfo(wants_json=True, json_snapshots=snapshots_ms))
    relay = Relay(get_provider("openai").adapter(), encoder, chain=chain)
    for text in ("[0,", "[" * (levels - 1)):
        relay.receive_data(sse({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}), 5)
    relay.receive_data(sse({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, "[DONE]"), 6)
    relay.receive_eof()
    result = [line.partition(b'"type":"')[2].partition(b'"')[0] for line in encoder.take().splitlines()]
    assert relay.fault is None
    assert result[-2:] == [b"finish", b"done"]
    assert b"json.snapshot" in result
    assert result.count(b"warning") == (levels > LIMITS.json_levels), "it is too deep to be followed"


def test_rule_7_copied_deltas_are_no_exception() -> None:
    encoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", clock=lambda: 7))
    adapter = get_provider("openai").adapter()
    broken = Broken(encoder, "append_frames", 1, 1)
    relay = Relay(adapter, encoder, deltas=broken)
    delta = sse({"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}]})
    for _ in range(4):
        relay.receive_data(delta)
    relay.receive_data(sse({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]"))
    kinds = [json.loads(line)["type"] for line in encoder.take().splitlines()]
    assert kinds[-2:] == (["error", "done"] if broken.raised else ["finish", "done"])
