"""`gai_fast/core/relay.py`: whatever an upstream does, a client sees a legal stream with one end.

The upstream is `Adapter` below: chunks are JSON objects whose members say what they become.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, ClassVar, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.json.chunks import parse_chunk
from gai_fast.core.legal_stream import State
from gai_fast.core.relay import Relay
from gai_fast.core.sinks import Inexpressible
from gai_fast.library.decoding import OrderedEvents
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.model.request import Request
from gai_fast.model.upstream_errors import for_client
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.target import Target
from tests.conftest import ChangeLimits
from tests.kernels import cuts
from tests.legal import check_any_cut, check_legal, relaying, sse
from tests.limits import LIMITS

DELTAS = {"text": "text.delta", "think": "reasoning.delta", "refuse": "refusal.delta", "args": "tool.call.delta"}
END = "[END]"


class FakeAPI(API):
    """An API that is never asked."""

    provider = "fake"

    def __init__(self, framing: Literal["sse", "ndjson"] = "sse") -> None:
        self.framing = framing

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        raise NotImplementedError

    def adapter(self, model: str | None = None) -> FakeAdapter:
        return FakeAdapter(self, model)


class FakeAdapter(ProviderAdapter):
    """`{"text": …}` and its like are deltas, `{"events": […]}` is passed on, `{"end": word}` says why it finished."""

    content_members = frozenset({"text", "answer"})

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self.reason = ""
        self.complete: list[Event] = []
        self.aborted = 0

    def receive(self, name: str, data: str) -> list[Event]:
        if data == END:
            self.ended = True
            return []
        return self._read(self.checked(parse_chunk(data)))

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        if "answer" not in answer:
            raise Malformed("an answer without an answer")
        self.whole_text = text
        return self._read(answer["answer"])

    def _read(self, chunk: dict[str, Any]) -> list[Event]:
        events = self.start(chunk.get("id"), chunk.get("model"))
        for member, kind in DELTAS.items():
            if member in chunk:
                event = {"type": kind, "arguments" if member == "args" else "text": chunk[member] + ""}
                events.append(cast(Event, {**event, **chunk.get("keys", {})}))
        events += chunk.get("events", [])
        if "complete" in chunk:
            self.complete.append(chunk["complete"])
        self.usage = chunk.get("usage", self.usage)
        self.reason = chunk.get("end", self.reason)
        return events

    def finish(self) -> list[Event]:
        if self.reason == "broken":
            raise Error("internal", "fake failed", reason="broken")
        if not self.reason and not self.ended:
            raise self.truncated()
        return [*self.start(None, None), *self.complete, self.end(self.reason or "other", self.reason)]

    def word(self) -> str:
        return self.reason

    def abort(self) -> list[Event]:
        self.aborted += 1
        return self.complete


class Recorder:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)


class Frames(Recorder):
    """A sink of the upstream's dialect; `calls` are what it got, in order."""

    opens_parts = False
    commits = False

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.copies_body = False
        self.calls: list[tuple[str, Any]] = []

    def event(self, event: Event) -> None:
        super().event(event)
        self.calls.append(("event", event["type"]))

    def frame(self, raw: bytes, last: bool) -> None:
        self.calls.append(("last" if last else "frame", raw))

    @property
    def raw(self) -> bytes:
        return b"".join(raw for kind, raw in self.calls if kind != "event")


def chunk(**members: Any) -> dict[str, Any]:
    return members


HELLO = chunk(id="m1", model="big", text="Hello")
STOP = chunk(end="stop")


class Stream:
    """One relay and everything that comes out of it."""

    def __init__(
        self, framing: Literal["sse", "ndjson"] = "sse", *, frames: Frames | None = None, **options: Any
    ) -> None:
        self.adapter = FakeAdapter(FakeAPI(framing))
        self.sink = frames or Recorder()
        self.relay = Relay(self.adapter, self.sink, frames=frames, **options)

    @property
    def events(self) -> list[Event]:
        return self.sink.events

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def error(self) -> dict[str, Any]:
        return self.events[-2]["error"]

    def send(self, *pieces: Any) -> Stream:
        for piece in pieces:
            self.relay.receive_data(sse(piece))
        return self

    def end(self, error: Error | None = None) -> Stream:
        self.relay.receive_eof(error)
        check_legal(self.events)
        return self


def relayed(*pieces: Any, **options: Any) -> Stream:
    """Returns the stream of these chunks (bytes are taken as they are), to the clean end of its body."""
    return Stream(**options).send(*pieces).end()


# ---- how a stream begins and ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_chunks_without_framing_are_read_like_a_body(framing: Literal["sse", "ndjson"]) -> None:
    chunks = [
        '{"text":"a"}',
        '{"strange":7}',
        '{"text":"b\\ud83d"}',
        '{"text":"\\ude00"}',
        '{"end":"stop"}',
        END,
        '{"text":"c"}',
    ]
    sinks = OrderedEvents("compact"), OrderedEvents("compact")
    relays = [Relay(FakeAdapter(FakeAPI(framing)), sink) for sink in sinks]
    head, tail = ("data: ", "\n\n") if framing == "sse" else ("", "\n")
    for chunk in chunks:
        relays[0].receive_data(f"{head}{chunk}{tail}".encode())
        relays[1].receive_chunk(chunk)
    for relay in relays:
        relay.receive_eof()
    result, read = ([{**event, "ts": 0, "request_id": ""} for event in sink.take()] for sink in sinks)
    assert result == read
    assert [event.get("text") for event in read if "text" in event] == ["a", "b", "😀"]


class TextAdapter(FakeAdapter):
    """Reads texts without chunks once `start` has come."""

    def receive_text(self, index: int | None, text: str) -> Event | None:
        if text == "bug":
            raise KeyError(index)
        return {"type": "text.delta", "text": text} if self.started else None


def test_a_text_is_read_without_its_chunk_once_the_adapter_can() -> None:
    sink = OrderedEvents("compact")
    relay = Relay(TextAdapter(FakeAPI()), sink)
    assert not relay.receive_text(0, "early")  # before the first chunk
    relay.receive_chunk("{}")
    assert relay.receive_text(0, "a\ud83d")
    assert relay.receive_text(0, "\ude00")
    relay.receive_chunk('{"end":"stop"}')
    relay.receive_eof()
    assert not relay.receive_text(0, "late")
    assert [event.get("text") for event in sink.take() if event["type"] == "text.delta"] == ["a", "😀"]
    assert not FakeAdapter(FakeAPI()).receive_text(0, "a")


def test_a_text_ends_a_run_of_malformed_chunks_and_a_fault_ends_the_stream() -> None:
    sink = OrderedEvents("compact")
    relay = Relay(TextAdapter(FakeAPI()), sink)
    relay.receive_chunk("{}")
    for _ in range(4):
        relay.receive_chunk("[]")
        assert relay.receive_text(0, "a")
    assert not relay.is_over
    assert relay.receive_text(0, "bug")
    assert isinstance(relay.fault, KeyError)
    assert relay.error is not None
    assert relay.error.code == "internal"


def test_an_answer_is_a_start_its_deltas_one_finish_and_done() -> None:
    stream = relayed(HELLO, chunk(text=" world"), STOP, END, stream_id="s1", upstream="main")
    assert stream.events == [
        {
            "type": "start",
            "provider": "fake",
            "model": "big",
            "stream_id": "s1",
            "provider_metadata": {"id": "m1", "upstream": "main"},
        },
        {"type": "text.delta", "text": "Hello"},
        {"type": "text.delta", "text": " world"},
        {"type": "finish", "provider": "fake", "model": "big", "finish_reason": "stop", "finish_reason_raw": "stop"},
        {"type": "done", "finished": True},
    ]


def test_rule_3_finish_is_held_until_the_end_mark() -> None:
    stream = Stream().send(HELLO, STOP, chunk(usage={"input_tokens": 1}))
    assert stream.kinds == ["start", "text.delta"]
    assert not stream.relay.is_over
    stream.send(END)
    assert stream.kinds[-2:] == ["finish", "done"]
    assert stream.events[-2]["usage"] == {"input_tokens": 1}


def test_rule_3_or_until_the_end_of_the_body() -> None:
    assert relayed(HELLO, STOP).kinds[-2:] == ["finish", "done"]


def test_an_end_mark_without_a_reason_is_finish_other() -> None:
    assert relayed(HELLO, END).events[-2]["finish_reason"] == "other"


ROLE = '{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}'


@pytest.mark.parametrize("body", [(END,), (ROLE, END)], ids=["nothing", "role"])
def test_an_end_mark_after_nothing_is_an_error(body: tuple[str, ...]) -> None:
    stream = relayed(*body)
    assert stream.kinds[-2:] == ["error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "empty_answer")


def test_a_finish_reason_or_usage_alone_is_an_answer() -> None:
    usage = '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0}}'
    assert relayed(STOP, END).kinds[-2:] == ["finish", "done"]
    assert relayed(usage, END).kinds[-2:] == ["finish", "done"]


def test_rule_4_a_body_that_ends_before_the_reason_is_truncated() -> None:
    stream = relayed(HELLO)
    assert stream.error["code"] == "network"
    assert stream.error["reason"] == "truncated"
    assert stream.error["phase"] == "mid_stream"
    assert stream.error["temporary"]


@pytest.mark.parametrize("body", [[], [b""], [b"\n\n"], [b": ping\n\n"], [b"\xef\xbb"], [b"data"]])
def test_rule_4_a_body_without_an_event_is_an_error_without_a_start(body: list[bytes]) -> None:
    stream = relayed(*body)
    assert stream.kinds == ["error", "done"]
    assert (stream.error["reason"], stream.error["phase"]) == ("truncated", "first_event")


def test_rule_4_a_body_that_breaks_before_the_reason_is_what_broke_it() -> None:
    stream = Stream().send(HELLO).end(Error("timeout", "idle", reason="idle"))
    assert (stream.error["code"], stream.error["reason"], stream.error["phase"]) == ("timeout", "idle", "mid_stream")


def test_rule_4_a_body_that_breaks_after_the_reason_is_a_finish() -> None:
    stream = Stream().send(HELLO, STOP).end(Error("network", "reset", reason="reset"))
    assert stream.kinds[-2:] == ["finish", "done"]


def test_a_reason_that_is_a_failure_is_an_error_however_the_body_ends() -> None:
    for broke in (None, Error("network", "reset", reason="reset")):
        stream = Stream().send(HELLO, chunk(end="broken")).end(broke)
        assert (stream.error["code"], stream.error["reason"]) == ("internal", "broken")
    assert relayed(HELLO, chunk(end="broken"), END).error["reason"] == "broken"


def test_nothing_counts_after_the_end() -> None:
    stream = relayed(HELLO, STOP, END)
    seen = list(stream.events)
    stream.send(HELLO, b"garbage", END)
    stream.relay.receive_head(500, {})
    stream.relay.receive_eof(Error("network"))
    stream.relay.fail(Error("internal"))
    stream.relay.stop("cancelled")
    assert stream.events == seen


def test_what_follows_the_end_mark_in_one_read_is_not_looked_at() -> None:
    assert relayed(sse(HELLO, STOP, END, HELLO, chunk(error={"message": "late"}))).kinds[-2:] == ["finish", "done"]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_in_the_stream_ends_it() -> None:
    stream = relayed(HELLO, chunk(error={"message": "Overloaded", "type": "overloaded_error"}), HELLO)
    assert stream.kinds == ["start", "text.delta", "error", "done"]
    assert stream.error == {
        "code": "overloaded",
        "message": "Overloaded",
        "temporary": True,
        "phase": "mid_stream",
        "reason": "overloaded_error",
    }
    assert isinstance(stream.relay.error, Error)


def test_before_the_first_delta_the_phase_is_first_event() -> None:
    assert relayed(chunk(error="no")).error["phase"] == "first_event"
    assert relayed(chunk(id="m1"), chunk(usage={}), chunk(error="no")).error["phase"] == "first_event"


@pytest.mark.parametrize("delta", [*DELTAS, "audio"])
def test_after_a_delta_of_any_kind_the_phase_is_mid_stream(delta: str) -> None:
    audio = chunk(events=[{"type": "audio.delta", "audio": {"chunk": "aGk="}}])
    call = chunk(events=[{"type": "tool.call.start", "call_id": "c", "index": 0}])
    first = audio if delta == "audio" else chunk(**{delta: "x"}, keys={"call_id": "c", "index": 0})
    assert relayed(call, first, chunk(error="no")).error["phase"] == "mid_stream"


@pytest.mark.parametrize("phase", [None, "first_event", "mid_stream"])
def test_how_far_an_answer_was_is_decided_here_whatever_was_said_of_it(phase: Any) -> None:
    before = Stream().send(chunk(id="m1")).end(Error("network", "reset", reason="reset", phase=phase))
    assert before.error["phase"] == "first_event"
    after = Stream().send(HELLO).end(Error("network", "reset", reason="reset", phase=phase))
    assert after.error["phase"] == "mid_stream"


def test_that_there_was_no_connection_stays() -> None:
    stream = Stream()
    stream.relay.fail(Error("network", "refused", phase="connect"))
    assert stream.error["phase"] == "connect"


def test_calls_that_are_complete_are_reported_before_the_error() -> None:
    start = {"type": "tool.call.start", "call_id": "c", "index": 0}
    call = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": {}}}
    stream = relayed(HELLO, chunk(events=[start], complete=call), chunk(error="no"))
    assert stream.kinds[-3:] == ["tool.call", "error", "done"]
    assert stream.adapter.aborted == 1


def test_an_error_is_translated_before_it_is_reported() -> None:
    stream = relayed(
        HELLO, chunk(error={"message": "Incorrect API key sk-1", "code": "invalid_api_key"}),
        redact=lambda error, _: for_client(error, "main"),
    )  # fmt: skip
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "upstream_credentials")
    assert stream.error["phase"] == "mid_stream"
    assert "sk-1" not in json.dumps(stream.events)
    assert stream.relay.error is not None
    assert stream.relay.error.status == 502


@pytest.mark.parametrize(
    "line",
    [b'{"error": {"message": "Overloaded"}}', b'error: {"error": "Overloaded"}', b'error:[{"error":"Overloaded"}]'],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_a_bare_error_amid_the_stream_is_heard(line: bytes, end: bytes) -> None:
    stream = relayed(HELLO, line + end)
    assert (stream.error["code"], stream.error["message"]) == ("overloaded", "Overloaded")


@pytest.mark.parametrize("line", [b"garbage", b"error: sorry", b'{"fine": true}', b"foo: bar", b"[]"])
def test_other_lines_that_are_no_sse_mean_nothing(line: bytes) -> None:
    assert relayed(HELLO, line + b"\n\n", STOP).kinds == ["start", "text.delta", "finish", "done"]


# ---- the head --------------------------------------------------------------------------------------------------------


def answered(status: int, *pieces: bytes, content_type: str = "", **headers: str) -> Stream:
    stream = Stream()
    stream.relay.receive_head(status, {"content-type": content_type, **headers})
    return stream.send(*pieces).end()


@pytest.mark.parametrize(
    "content_type",
    ["", "text/event-stream", "Text/Event-Stream; charset=utf-8", "application/json", "application/x-ndjson",
     "application/problem+json"],
)  # fmt: skip
def test_a_stream_may_call_itself_so(content_type: str) -> None:
    assert answered(200, sse(HELLO, STOP), content_type=content_type).kinds[-2:] == ["finish", "done"]


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain", "application/octet-stream", "image/png", "garbage"]
)
def test_another_content_type_is_unavailable_and_its_body_is_not_reported(content_type: str) -> None:
    stream = answered(200, sse(HELLO, STOP), content_type=content_type)
    assert stream.kinds == ["error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "content_type")
    assert "Hello" not in stream.error["message"]


@pytest.mark.parametrize("body", [b"<html>secret", b"\n <!DOCTYPE html>secret", b"\xef\xbb\xbf<?xml?>secret"])
def test_markup_is_unavailable_whatever_it_calls_itself(body: bytes) -> None:
    for pieces in cuts(body):
        stream = answered(200, *pieces, content_type="text/event-stream")
        assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "content_type")
        assert "secret" not in stream.error["message"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_a_redirect_is_not_followed(status: int) -> None:
    stream = answered(status, location="http://169.254.169.254/")
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "redirect")
    assert "169.254" not in stream.error["message"]


@pytest.mark.parametrize("cut", [0, 5, None])
def test_the_body_of_an_error_is_read_as_far_as_it_comes(cut: int | None) -> None:
    body = b'{"error": {"message": "Slow down", "type": "rate_limit_error"}}'[:cut]
    for pieces in cuts(body):
        stream = Stream()
        stream.relay.receive_head(429, {"retry-after": "7", "content-type": "text/html"})
        stream.send(*pieces).end(None if cut is None else Error("network", "reset"))
        assert (stream.error["code"], stream.error["retry_after_ms"]) == ("rate_limited", 7000)
        assert stream.error["phase"] == "first_event"
        assert cut is not None or stream.error["message"] == "Slow down"


def test_of_an_oversized_error_body_the_limit_is_read_and_no_more_is_waited_for() -> None:
    stream = Stream()
    stream.relay.receive_head(500, {})
    stream.send(b"x" * (LIMITS.error_body - 1))
    assert stream.events == []
    stream.send(b"x" * 10**6)
    assert stream.relay.is_over
    check_legal(stream.events)
    assert len(stream.error["message"]) == LIMITS.error_message
    assert len(stream.relay._answer.body.collected) == LIMITS.error_body


def test_a_date_of_retry_after_counts_from_the_time_of_the_call() -> None:
    stream = Stream()
    stream.relay.receive_head(503, {"retry-after": "Fri, 15 Jan 2027 08:00:07 GMT"})
    stream.relay.receive_eof(None, 1_800_000_000_000)
    assert stream.error["retry_after_ms"] == 7000


# ---- whole answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", b"\n\n \t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_whole_json_answer_is_a_legal_stream(before: bytes) -> None:
    body = before + json.dumps({"answer": {**HELLO, **STOP}}, indent=1, ensure_ascii=False).encode() + b"\n\n"
    for pieces in cuts(body):
        stream = relayed(*pieces)
        assert stream.kinds == ["start", "text.delta", "finish", "done"]


def test_the_text_of_a_whole_answer_comes_with_it_so_that_digits_survive() -> None:
    stream = relayed(b'\xef\xbb\xbf {"answer": {"end": "stop"}, "n": 1.10}\n')
    assert stream.adapter.whole_text == '{"answer": {"end": "stop"}, "n": 1.10}'


@pytest.mark.parametrize("body", [{"error": {"message": "Overloaded"}}, [{"error": {"message": "Overloaded"}}]])
def test_a_json_error_under_200_is_that_error(body: Any) -> None:
    stream = relayed(json.dumps(body).encode())
    assert stream.kinds == ["error", "done"]
    assert (stream.error["code"], stream.error["phase"]) == ("overloaded", "first_event")


@pytest.mark.parametrize(
    "body", [b'{"strange": true}', b"[]", b"[1, 2]", b'{"answer": 5}', b'{"answer": {}} {}', b"{]"]
)
def test_json_that_is_no_answer_is_unavailable(body: bytes) -> None:
    assert (relayed(body).error["code"], relayed(body).error["reason"]) == ("provider_unavailable", "malformed_chunk")


def test_a_whole_answer_that_is_cut_is_truncated_wherever_the_cut_is() -> None:
    body = json.dumps({"answer": {**HELLO, "x": ['a"]}', {}], **STOP}}).encode()
    for cut in range(1, len(body)):
        assert relayed(body[:cut]).error["reason"] == "truncated"
        broke = Stream().send(body[:cut]).end(Error("network", "reset", reason="reset"))
        assert broke.error["reason"] == "reset"


def test_a_whole_answer_that_breaks_after_its_last_byte_is_an_answer() -> None:
    body = json.dumps({"answer": {**HELLO, **STOP}}).encode()
    assert Stream().send(body).end(Error("network", "reset")).kinds[-2:] == ["finish", "done"]


def test_a_whole_answer_without_an_end_of_size_is_refused() -> None:
    stream = Stream().send(b"[")
    blanks = b" " * (1 << 20)
    for _ in range(LIMITS.whole_answer >> 20):
        stream.send(blanks)
    assert stream.relay.is_over
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "answer_too_large")


def test_lines_of_ndjson_are_no_whole_answer() -> None:
    body = b"".join(json.dumps(one).encode() + b"\n" for one in (HELLO, chunk(text="!"), STOP))
    for pieces in cuts(b"\n\xef" + body):
        assert relayed(*pieces, framing="ndjson").error["reason"] == "malformed_chunk"
    assert relayed(body, framing="ndjson").kinds == ["start", "text.delta", "text.delta", "finish", "done"]
    assert relayed(body.rstrip(), framing="ndjson").kinds[-2:] == ["finish", "done"]
    assert relayed(body[:-5], framing="ndjson").error["reason"] == "truncated"


# ---- framing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before", [b"", b"\n\n\r\n", b"\xef\xbb\xbf", b": OPENROUTER PROCESSING\n\n", b"event: ping\n\n"]
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_what_stands_before_the_first_event_does_not_matter(before: bytes, newline: bytes) -> None:
    for pieces in cuts(before + sse(HELLO, STOP, END).replace(b"\n", newline)):
        assert relayed(*pieces).kinds == ["start", "text.delta", "finish", "done"]


def test_the_last_event_may_lack_its_blank_line() -> None:
    assert relayed(sse(HELLO), b"data: " + json.dumps(STOP).encode()).kinds[-2:] == ["finish", "done"]
    assert relayed(sse(HELLO, STOP), b"data: " + END.encode()).kinds[-2:] == ["finish", "done"]
    assert relayed(sse(HELLO), b'data: {"error": "Overloaded"}\n').error["code"] == "overloaded"


def test_a_half_event_is_never_shown_and_is_no_malformed_chunk() -> None:
    last = b"data: " + json.dumps(chunk(text="lost", end="stop")).encode()
    for cut in range(len(last)):
        stream = relayed(sse(HELLO), last[:cut])
        assert stream.kinds == ["start", "text.delta", "error", "done"]
        assert stream.error["reason"] == "truncated"


def test_an_oversized_event_ends_the_stream_after_what_came_before_it() -> None:
    body = sse(HELLO) + b"data: " + b"x" * (LIMITS.event + 1)
    edges = [0, 5, len(sse(HELLO)), len(sse(HELLO)) + 10, len(body)]
    for pieces in ([body], [body[begin:end] for begin, end in itertools.pairwise(edges)]):
        stream = Stream().send(*pieces)
        check_legal(stream.events)
        assert stream.kinds == ["start", "text.delta", "error", "done"]
        assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "event_too_large")


@pytest.mark.timeout(100)
def test_blanks_before_the_first_event_are_bounded_and_cost_linear_time() -> None:
    stream = Stream()
    for _ in range(200_000):
        stream.relay.receive_data(b"\n")
    assert stream.events == []
    for _ in range(LIMITS.event >> 20):
        stream.relay.receive_data(b" " * (1 << 20))
    check_legal(stream.events)
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "event_too_large")


# ---- what cannot be read ---------------------------------------------------------------------------------------------

ODD = '{"events": 5}'
"""A chunk that cannot be read, and surely holds no text."""
TEXTLESS = ["[]", "5", "null", ODD, '{"text": null}', '{"text": "", "events": 5}']
LOST = [
    *("not json", "{", '"text"', "{}x", '["text"]', '{"text": 5}', '{"text": ["x"]}', '{"text": "x", "keys": 5}'),
    *("[" * 100_000, '{"n": ' + "9" * 5000 + "}"),
]
WRONG = [*TEXTLESS, *LOST]


@pytest.mark.parametrize("wrong", LOST, ids=range(len(LOST)))
def test_rule_5_a_chunk_that_may_have_held_text_is_a_failure_of_the_attempt(wrong: str) -> None:
    stream = relayed(HELLO, wrong, chunk(text="!"), STOP)
    assert stream.kinds == ["start", "text.delta", "error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "malformed_chunk")
    assert (stream.error["temporary"], stream.error["phase"]) == (True, "mid_stream")


@pytest.mark.parametrize("wrong", LOST, ids=range(len(LOST)))
def test_rule_5_behind_the_finish_reason_no_chunk_holds_text(wrong: str) -> None:
    assert relayed(HELLO, chunk(end="stop"), wrong, END).kinds == ["start", "text.delta", "warning", "finish", "done"]


def test_rule_5_a_chunk_outside_of_sse_may_have_held_text() -> None:
    stream = relayed(HELLO, b'{"text": "!"}\n\n', STOP)
    assert stream.error["reason"] == "malformed_chunk"


@pytest.mark.parametrize("wrong", TEXTLESS, ids=range(len(TEXTLESS)))
def test_rule_5_a_chunk_without_text_that_cannot_be_read_is_left_out_and_reported(wrong: str) -> None:
    stream = relayed(HELLO, wrong, chunk(text="!"), STOP)
    assert stream.kinds == ["start", "text.delta", "warning", "text.delta", "finish", "done"]
    assert stream.events[2] == {"type": "warning", "reason": "malformed_chunk"}


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_rule_5_or_it_ends_the_stream(wrong: str) -> None:
    stream = relayed(HELLO, wrong, chunk(text="!"), STOP, on_malformed="error")
    assert stream.kinds == ["start", "text.delta", "error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "malformed_chunk")


def test_rule_5_a_chunk_of_which_a_part_was_left_out_ends_the_stream_as_well() -> None:
    partly = chunk(text="!", events=[{"type": "warning", "reason": "malformed_chunk"}])
    assert relayed(HELLO, partly, STOP).kinds == ["start", "text.delta", "text.delta", "warning", "finish", "done"]
    stream = relayed(HELLO, partly, STOP, on_malformed="error")
    assert stream.kinds == ["start", "text.delta", "error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "malformed_chunk")
    whole = b'{"answer": {"text": "Hi", "end": "stop", "events": [{"type": "warning", "reason": "malformed_chunk"}]}}'
    assert relayed(whole).kinds == ["start", "text.delta", "warning", "finish", "done"]
    assert relayed(whole, on_malformed="error").kinds == ["error", "done"]


def test_rule_5_the_third_in_a_row_is_an_error() -> None:
    stream = relayed(HELLO, ODD, ODD, b": a comment\n\n", b"a stray line\n\n", ODD, HELLO)
    assert stream.kinds == ["start", "text.delta", "warning", "warning", "error", "done"]
    assert (stream.error["code"], stream.error["reason"]) == ("provider_unavailable", "malformed_chunk")


def test_rule_5_a_good_chunk_begins_the_count_anew() -> None:
    stream = relayed(HELLO, ODD, ODD, chunk(usage={}), ODD, ODD, STOP)
    assert stream.kinds.count("warning") == 4
    assert stream.kinds[-2:] == ["finish", "done"]


def test_a_warning_before_the_start_is_reported_right_after_it() -> None:
    stream = relayed(ODD, ODD, HELLO, STOP)
    assert stream.kinds == ["start", "warning", "warning", "text.delta", "finish", "done"]
    assert relayed(ODD, STOP, END).kinds == ["start", "warning", "finish", "done"]


def test_a_stream_that_never_starts_tells_no_warning() -> None:
    assert relayed(ODD, chunk(error="no")).kinds == ["error", "done"]
    assert relayed("x", "x", "x").kinds == ["error", "done"]


def test_of_the_warnings_before_a_start_no_more_are_kept_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    change_limits(early_warnings=2)
    stream = Stream()

    def receive(name: str, data: str) -> list[Event]:
        if data == "{}":
            return []
        return FakeAdapter.receive(stream.adapter, name, data)

    monkeypatch.setattr(stream.adapter, "receive", receive)
    for _ in range(5):
        stream.send(ODD, {})
    stream.send(HELLO, STOP).end()
    assert stream.kinds == ["start", "warning", "warning", "text.delta", "finish", "done"]


def test_a_start_that_was_lost_with_a_malformed_chunk_comes_with_the_next() -> None:
    assert relayed({"id": "m1", "events": 5}, chunk(text="Hi"), STOP).kinds == [
        "start", "warning", "text.delta", "finish", "done",
    ]  # fmt: skip


def test_a_message_about_a_malformed_chunk_does_not_quote_it() -> None:
    for wrong in ("my private words", '{"text": ["my private words"]}', '["my private words"]'):
        assert "private" not in relayed(HELLO, wrong, on_malformed="error").error["message"]


class Particular(Recorder):
    """A sink that cannot write everything, as an encoder cannot write infinity."""

    def event(self, event: Event) -> None:
        if event["type"] in self.refuses:
            raise ValueError("cannot be written")
        super().event(event)

    refuses: ClassVar[set[str]] = {"server_tool"}


def test_what_the_sink_cannot_write_is_a_malformed_chunk() -> None:
    sink = Particular()
    relay = Relay(FakeAdapter(FakeAPI()), sink)
    relay.receive_data(sse(HELLO, chunk(events=[{"type": "server_tool", "server_tool": {}}]), STOP))
    relay.receive_eof()
    check_legal(sink.events)
    assert [event["type"] for event in sink.events] == ["start", "text.delta", "warning", "finish", "done"]


COMMENTS = ["", " ", ":", ": OPENROUTER PROCESSING", ": keepalive", "ping"]


@pytest.mark.parametrize("comment", COMMENTS)
def test_data_that_is_a_comment_is_ignored(comment: str) -> None:
    """Proxies of Vertex and OpenRouter send a comment of SSE as data."""
    few = [comment] * 4
    stream = relayed(*few, HELLO, *few, chunk(text="!"), *few, STOP, *few, END, on_malformed="error")
    assert stream.kinds == ["start", "text.delta", "text.delta", "finish", "done"]
    assert relayed(*few, on_malformed="error").kinds == relayed().kinds


# ---- passthrough -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comment", COMMENTS)
def test_data_that_is_a_comment_reaches_only_clients_that_get_the_body_as_it_came(comment: str) -> None:
    """The official clients parse all data, and fail with it."""
    body = sse(comment, HELLO, comment, STOP, comment, END)
    for pieces in cuts(body):
        assert passed(*pieces).raw == sse(HELLO, STOP, END)
        assert passed(*pieces, copies_body=True).raw == body


def passed(
    *pieces: bytes, eof: Error | None = None, whole: bool = False, copies_body: bool = False, **options: Any
) -> Frames:
    sink = Frames(whole=whole)
    sink.copies_body = copies_body
    Stream(frames=sink, **options).send(*pieces).end(eof)
    return sink


CLEAN = (
    b"\xef\xbb\xbf\n: hi\n\nevent: ping\n\n" + sse(HELLO) + b": keep\r\n\r\n" + b"odd: line\n\n"
    + sse(chunk(text="ä€😀")).replace(b"\n", b"\r\n") + b"id: 5\nretry: 10\nevent: x\n" + sse(STOP) + sse(END)
)  # fmt: skip


def test_the_frames_of_a_clean_stream_are_its_bytes_however_they_are_cut() -> None:
    for pieces in cuts(CLEAN):
        assert passed(*pieces).raw == CLEAN


def test_a_frame_comes_before_its_events() -> None:
    calls = passed(sse(HELLO, STOP, END)).calls
    assert calls == [
        ("frame", sse(HELLO)),
        ("event", "start"),
        ("event", "text.delta"),
        ("frame", sse(STOP)),
        ("last", sse(END)),
        ("event", "finish"),
        ("event", "done"),
    ]


def test_the_frame_that_tells_the_failure_is_the_last() -> None:
    failure = sse(chunk(error={"message": "Overloaded"}))
    assert passed(sse(HELLO), failure, sse(HELLO, END)).calls[3:] == [
        ("last", failure), ("event", "error"), ("event", "done"),
    ]  # fmt: skip


def test_a_failure_that_is_kept_from_the_client_is_not_passed_on_either() -> None:
    secret = sse(chunk(error={"message": "Incorrect API key sk-1", "code": "invalid_api_key"}))
    for failure in (secret, b'error: {"error": "invalid api key sk-1"}\n\n'):
        sink = passed(sse(HELLO), failure, redact=lambda error, _: for_client(error, "main"))
        assert b"sk-1" not in sink.raw
        assert sink.calls[-2:] == [("event", "error"), ("event", "done")]


def test_a_failure_whose_frame_quotes_a_secret_is_reported_without_the_frame() -> None:
    failure = sse({"error": {"message": "odd"}, "sent": {"authorization": "Bearer sk-live-1234"}})
    hidden = (b"sk-live-1234",)
    sink = passed(sse(HELLO), failure, redact=lambda error, raw: for_client(error, "main", secrets=hidden, raw=raw))
    assert b"sk-live" not in sink.raw
    assert sink.events[-2]["error"]["message"] == "odd"


def test_a_malformed_frame_is_left_out_and_reported() -> None:
    sink = passed(sse(HELLO, ODD, STOP, END))
    assert sink.raw == sse(HELLO, STOP, END)
    assert ("event", "warning") in sink.calls


def test_a_cut_frame_is_left_out() -> None:
    sink = passed(sse(HELLO) + sse(STOP)[:-5])
    assert sink.raw == sse(HELLO)
    assert sink.calls[-2:] == [("event", "error"), ("event", "done")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_a_last_frame_gets_the_blank_line_it_lacks(end: bytes) -> None:
    sink = passed(sse(HELLO) + sse(STOP)[:-2] + end)
    assert sink.raw == sse(HELLO, STOP)
    assert sink.calls[-2:] == [("event", "finish"), ("event", "done")]


def test_a_whole_answer_is_one_last_frame_where_the_client_wants_it_whole() -> None:
    body = b' {"answer": {"text": "Hi", "end": "stop"}}\n'
    assert passed(body, whole=True).calls == [
        ("last", body), ("event", "start"), ("event", "text.delta"), ("event", "finish"), ("event", "done"),
    ]  # fmt: skip
    assert passed(body, whole=False).raw == b""


def test_a_whole_answer_that_is_an_error_is_not_passed_on() -> None:
    assert passed(b'{"error": "no"}', whole=True).calls == [("event", "error"), ("event", "done")]


# ---- cancel, fail, usage ---------------------------------------------------------------------------------------------

MOMENTS: list[list[Any]] = [
    [],
    [ODD],
    [HELLO],
    [HELLO, ODD],
    [HELLO, chunk(text="\ud83d")],
    [HELLO, STOP],
    [b"data: {"],
    [b"{"],
]


@pytest.mark.parametrize("pieces", MOMENTS, ids=range(len(MOMENTS)))
def test_a_cancelled_stream_finishes_at_any_moment(pieces: list[Any]) -> None:
    stream = Stream().send(*pieces)
    stream.relay.stop("cancelled")
    stream.send(HELLO, END).end()
    assert stream.events[-2]["finish_reason"] == "cancelled"
    assert stream.events[-2].get("finish_reason_raw") == ("stop" if STOP in pieces else None)
    assert stream.events[-1]["finished"]
    assert stream.relay.error is None


@pytest.mark.parametrize("pieces", MOMENTS, ids=range(len(MOMENTS)))
def test_a_stream_that_a_limit_stops_finishes_with_the_limits_name(pieces: list[Any]) -> None:
    stream = Stream(prompt_characters=10).send(*pieces)
    stream.relay.stop("length", "spend")
    stream.send(HELLO, END).end()
    assert (stream.events[-2]["finish_reason"], stream.events[-2]["reason"]) == ("length", "spend")
    assert stream.events[-2]["usage"]["source"] == "partial"
    assert stream.events[-1]["finished"]
    assert stream.relay.error is None


@pytest.mark.parametrize("pieces", MOMENTS, ids=range(len(MOMENTS)))
def test_a_stream_fails_at_any_moment(pieces: list[Any]) -> None:
    stream = Stream().send(*pieces)
    stream.relay.fail(Error("overloaded", "draining"))
    stream.send(HELLO, END).end()
    assert stream.error["code"] == "overloaded"
    assert stream.relay.error is not None


def test_what_was_used_up_to_a_cancel_is_the_providers_last_word() -> None:
    stream = Stream(prompt_characters=100).send(HELLO, chunk(usage={"input_tokens": 7, "output_tokens": 1}))
    stream.relay.stop("cancelled")
    assert stream.events[-2]["usage"] == {
        "input_tokens": 7,
        "output_tokens": 2,  # what was delivered is more than what was said so far
        "total_tokens": 9,
        "source": "partial",
    }


def test_a_provider_that_counts_more_than_the_estimate_is_right() -> None:
    counted = {"input_tokens": 7, "output_tokens": 9, "cached_input_tokens": 5}
    stream = Stream(prompt_characters=100).send(HELLO, chunk(usage=counted))
    stream.relay.stop("cancelled")
    assert stream.events[-2]["usage"] == {**counted, "total_tokens": 16, "source": "partial"}


def test_or_an_estimate_of_four_characters_a_token() -> None:
    stream = Stream(prompt_characters=10).send(HELLO, chunk(think="think"))
    stream.relay.fail(Error("timeout"))
    assert stream.events[-2]["usage"] == {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6, "source": "partial"}


def test_nothing_was_used_where_nothing_began_and_nothing_is_estimated_unasked() -> None:
    stream = Stream(prompt_characters=10)
    stream.relay.fail(Error("timeout"))
    assert "usage" not in stream.events[0]
    stream = Stream().send(HELLO)
    stream.relay.stop("cancelled")
    assert "usage" not in stream.events[-2]


def test_usage_that_the_provider_never_reported_is_estimated_at_the_finish() -> None:
    stream = relayed(HELLO, STOP, prompt_characters=10)
    assert stream.events[-2]["usage"] == {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "source": "estimated",
    }
    assert "usage" not in relayed(HELLO, STOP).events[-2]
    result = relayed(HELLO, chunk(usage={"input_tokens": 1}), STOP, prompt_characters=10)
    assert result.events[-2]["usage"] == {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "source": "estimated",
    }


# ---- any stream ------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from('a"\\\n é€😀\ud83d\ude00'), max_size=4)
FAKE = st.one_of(
    TEXTS.map(lambda text: chunk(text=text or "-")),
    TEXTS.map(lambda text: chunk(text=text or "-", keys={"choice": 1})),
    TEXTS.map(lambda text: chunk(think=text or "-")),
    st.sampled_from(["malformed", "{", '{"text": 5}', b": ping\n\n", b"event: ping\n\n", b"stray\n\n", b"\n", STOP]),
    st.sampled_from([chunk(usage={"input_tokens": 3}), chunk(id="m2", model="other")]),
    st.sampled_from(
        [{"type": "usage", "usage": {"input_tokens": 1}}, {"type": "citations", "citations": [{"uri": "u"}]}]
    ).map(lambda event: chunk(events=[event])),
)
FAKE_ENDS = st.sampled_from(
    [[], [STOP], [STOP, END], [END], [chunk(error="Overloaded")], [chunk(end="broken")], [b'{"error":"x"}']]
)


@given(st.lists(FAKE, max_size=12), FAKE_ENDS, st.integers(0), st.lists(st.integers(0), max_size=6))
def test_any_stream_cut_anywhere_is_legal_and_a_prefix_of_what_was_produced(
    chunks: list[Any], end: list[Any], cut: int, edges: list[int]
) -> None:
    body = sse(*chunks, *end)
    check_any_cut(relaying(lambda: FakeAdapter(FakeAPI())), body, cut, edges)


@given(st.lists(FAKE, max_size=8), FAKE_ENDS, st.integers(0), st.sampled_from(["cancel", "fail"]))
def test_any_stream_can_be_ended_at_any_byte(chunks: list[Any], end: list[Any], cut: int, how: str) -> None:
    body = sse(*chunks, *end)
    stream = Stream()
    at = cut % (len(body) + 1)
    stream.relay.receive_data(body[:at])
    if how == "cancel":
        stream.relay.stop("cancelled")
    else:
        stream.relay.fail(Error("internal"))
    stream.relay.receive_data(body[at:])
    stream.end()


@given(st.lists(st.binary(max_size=20), max_size=6), st.sampled_from([200, 204, 302, 404, 503]), st.text(max_size=20))
def test_any_bytes_are_a_legal_stream(pieces: list[bytes], status: int, content_type: str) -> None:
    for framing in ("sse", "ndjson"):
        stream = Stream(framing)
        stream.relay.receive_head(status, {"content-type": content_type})
        stream.send(*pieces).end()


# ---- ends without a word ---------------------------------------------------------------------------------------------


class Speechless(Frames):
    """Has no word for a failure."""

    def event(self, event: Event) -> None:
        if event["type"] == "error":
            raise Inexpressible
        super().event(event)


@pytest.mark.parametrize("how", ["eof", "fail", "break_off"])
def test_an_end_that_a_sink_has_no_word_for_cuts_the_stream_and_is_no_fault(how: str) -> None:
    sink = Speechless()
    relay = Relay(FakeAdapter(FakeAPI()), sink, frames=sink)
    relay.receive_data(sse(HELLO))
    if how == "eof":
        relay.receive_eof(Error("network", "reset", reason="reset"))
    elif how == "fail":
        relay.fail(Error("overloaded", "draining", reason="draining"))
    else:
        relay.break_off(Error("provider_unavailable", "too large", reason="answer_too_large"))
    assert (relay.is_cut, relay.fault, relay.state) == (True, None, State.CUT)
    assert relay.error is not None
    relay.receive_data(sse(HELLO))
    relay.stop("cancelled")
    assert relay.fault is None
