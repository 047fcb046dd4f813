"""`gai_fast/library/decoding.py`: the library's way in."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

import gai_fast
from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import NDJSONEncoder, SSEEncoder
from gai_fast.library.decoding import OrderedEvents, adecode, decode, read_events
from gai_fast.model.events import Event, JSONText
from tests.kernels import cuts
from tests.legal import check_legal, sse
from tests.limits import LIMITS


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "c1", "model": "gpt-x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(arguments: str, **function: str) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": 0, "id": "k1", "function": {"arguments": arguments, **function}}]})


HELLO, STOP, DONE = chunk({"content": "Hello"}), chunk({}, "stop"), "[DONE]"
ANSWER = sse(HELLO, STOP, DONE)


class Interrupted(Exception):
    """An exception of the caller's own code."""


def broken(*chunks: bytes, by: BaseException) -> Iterator[bytes]:
    yield from chunks
    raise by


async def awaited(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for one in chunks:
        await asyncio.sleep(0)
        yield one


def in_a_loop(*args: Any, **keys: Any) -> list[Event]:
    """`adecode`, driven to its end."""
    provider, chunks = args

    async def run() -> list[Event]:
        return [event async for event in adecode(provider, awaited(chunks), **keys)]

    return asyncio.run(run())


def at_once(*args: Any, **keys: Any) -> list[Event]:
    return list(decode(*args, **keys))


CALLS: list[Callable[..., Any]] = [decode, adecode]


@pytest.fixture(params=[at_once, in_a_loop], ids=["decode", "adecode"])
def decoded(request: pytest.FixtureRequest) -> Callable[..., list[Event]]:
    """Returns all rules hold for both."""
    found: Callable[..., list[Event]] = request.param
    return found


# ---- decode and adecode ----------------------------------------------------------------------------------------------


def test_an_answer_becomes_plain_events_with_their_keys_in_order(decoded: Callable[..., list[Event]]) -> None:
    before = time.time_ns() // 1_000_000
    events = decoded("openai", [ANSWER])
    check_legal(events, numbered=True)
    start = events[0]
    assert list(start) == ["schema", "type", "ts", "seq", "request_id", "provider", "model", "provider_metadata"]
    assert before <= start["ts"] <= time.time_ns() // 1_000_000
    assert uuid.UUID(start["request_id"]).version == 7
    assert events[1:] == [
        {"type": "text.delta", "seq": 2, "text": "Hello"},
        {"type": "finish", "seq": 3, "provider": "openai", "model": "gpt-x", "finish_reason": "stop",
         "finish_reason_raw": "stop"},
        {"type": "done", "finished": True},
    ]  # fmt: skip
    assert all(type(event) is dict for event in events)


def test_the_full_envelope_stands_on_every_event_but_done(decoded: Callable[..., list[Event]]) -> None:
    events = decoded("openai", [ANSWER], envelope="full")
    assert len({event["request_id"] for event in events[:-1]}) == 1
    for event in events[:-1]:
        assert list(event)[:5] == ["schema", "type", "ts", "seq", "request_id"]
    assert events[-1] == {"type": "done", "finished": True}


def test_events_keep_the_numbers_that_they_have() -> None:
    sink = OrderedEvents("compact")
    delta: Event = {"type": "text.delta", "text": "ab"}
    for event in ({"type": "start"}, {**delta, "from_seq": 2, "seq": 3}, delta, {"type": "done", "finished": True}):
        sink.event(event)
    assert [(event.get("from_seq"), event.get("seq")) for event in sink.take()] == [
        (None, 1), (2, 3), (None, 4), (None, None)
    ]  # fmt: skip


def test_two_streams_have_two_request_ids() -> None:
    assert at_once("openai", [ANSWER])[0]["request_id"] != at_once("openai", [ANSWER])[0]["request_id"]


@pytest.mark.parametrize(
    ("provider", "text"), [("openia", "did you mean 'openai'"), ("nonsense:api", "unknown"), ("openai:x", "no API 'x'")]
)
def test_an_unknown_provider_is_a_value_error_at_the_call(provider: str, text: str) -> None:
    for function in CALLS:
        with pytest.raises(ValueError, match=text):
            function(provider, [])


def test_so_is_an_unknown_envelope() -> None:
    for function in CALLS:
        with pytest.raises(ValueError, match="unknown envelope 'half'; known: 'compact', 'full'"):
            function("openai", [], envelope="half")


@pytest.mark.parametrize(("status", "kind"), [("401", "str"), (None, "NoneType"), (200.0, "float")])
def test_a_status_of_another_type_is_named_at_the_call(status: Any, kind: str) -> None:
    for function in CALLS:
        with pytest.raises(TypeError, match=f"^status must be a whole number, such as 200, not {kind}$"):
            function("openai", [], status=status)


def test_events_come_with_the_chunk_that_completes_them() -> None:
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number, one in enumerate((sse(HELLO), sse(STOP)[:10], sse(STOP)[10:])):
            taken.append(number)
            yield one

    events = decode("openai", chunks())
    assert [next(events)["type"], next(events)["type"]] == ["start", "text.delta"]
    assert taken == [0]


def test_nothing_is_asked_of_the_source_after_the_end(decoded: Callable[..., list[Event]]) -> None:
    assert decoded("openai", broken(ANSWER, by=Interrupted()))[-2]["type"] == "finish"


@pytest.mark.parametrize("problem", [OSError("disk"), ConnectionResetError(), EOFError(), BrokenPipeError()])
def test_a_source_that_breaks_is_a_network_error(decoded: Callable[..., list[Event]], problem: BaseException) -> None:
    events = decoded("openai", broken(sse(HELLO), by=problem))
    check_legal(events, numbered=True)
    error = events[-2]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("network", "truncated", "mid_stream")
    assert type(problem).__name__ in error["message"]
    assert "disk" not in error["message"]


@pytest.mark.parametrize("problem", [TimeoutError(), TimeoutError("after 5 s")])
def test_a_source_that_is_too_slow_is_a_timeout(decoded: Callable[..., list[Event]], problem: BaseException) -> None:
    error = decoded("openai", broken(sse(HELLO), by=problem))[-2]["error"]
    assert (error["code"], error["temporary"]) == ("timeout", True)


def test_a_source_that_breaks_after_the_reason_was_said_is_a_finish(decoded: Callable[..., list[Event]]) -> None:
    assert decoded("openai", broken(sse(HELLO, STOP), by=OSError()))[-2]["type"] == "finish"


def test_what_the_callers_own_code_raises_passes_through(decoded: Callable[..., list[Event]]) -> None:
    with pytest.raises(Interrupted):
        decoded("openai", broken(sse(HELLO), by=Interrupted()))


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (404, {}, "not_found"),
        (500, {"Content-Type": "text/html"}, "internal"),
        (302, {"Location": "http://other/"}, "provider_unavailable"),
        (200, {"Content-Type": "text/html"}, "provider_unavailable"),
    ],
)
@pytest.mark.parametrize("chunks", [[], [b""], [b"body"]])
def test_a_head_that_is_no_stream_is_one_error(
    decoded: Callable[..., list[Event]], status: int, headers: dict[str, str], code: str, chunks: list[bytes]
) -> None:
    events = decoded("openai", chunks, status=status, headers=headers)
    check_legal(events, numbered=True)
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["error"]["code"] == code


def test_header_names_are_of_any_case(decoded: Callable[..., list[Event]]) -> None:
    events = decoded("openai", [b"{}"], status=429, headers={"Retry-After": "7"})
    assert events[0]["error"]["retry_after_ms"] == 7000


def test_what_the_provider_said_keeps_its_meaning(decoded: Callable[..., list[Event]]) -> None:
    """Only the server speaks of `upstream_credentials`."""
    body = b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}'
    assert decoded("openai", [body], status=401)[0]["error"]["code"] == "unauthorized"
    assert decoded("openai", [b"{}"], status=402)[0]["error"]["code"] == "forbidden"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_chunks_are_bytes_of_any_kind(decoded: Callable[..., list[Event]], kind: Callable[[bytes], Any]) -> None:
    for pieces in itertools.islice(cuts(ANSWER), 3):
        assert [event["type"] for event in decoded("openai", list(map(kind, pieces)))][-2:] == ["finish", "done"]


@pytest.mark.parametrize("chunks", [ANSWER, [ANSWER.decode()], [None], [5]])
def test_anything_else_is_the_callers_mistake(decoded: Callable[..., list[Event]], chunks: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        decoded("openai", chunks)


def test_a_chunk_of_text_is_named_as_one(decoded: Callable[..., list[Event]]) -> None:
    with pytest.raises(TypeError, match=r"^a chunk must be bytes-like, not str$"):
        decoded("openai", ["data: {}"])


def test_input_is_the_parsed_value_with_its_integers_exact(decoded: Callable[..., list[Event]]) -> None:
    events = decoded("openai", [sse(call('{"n": 1234567890', name="f"), call('1234567890, "x": 1.10}'), STOP, DONE)])
    whole = next(event for event in events if event["type"] == "tool.call")
    assert whole["tool_call"] == {"name": "f", "input": {"n": 12345678901234567890, "x": 1.1}}
    assert type(whole["tool_call"]["input"]) is dict


def test_the_message_of_an_answer_can_be_sent_back() -> None:
    body = sse(chunk({"reasoning_content": "Hm"}), HELLO, call('{"n": 12345678901234567890}', name="f"), STOP, DONE)
    result = gai_fast.collect(decode("deepseek", [body])).raise_for_error()
    assert result.finish_reason == "tool_calls"
    request = parse_request(json.dumps({"messages": [result.message], "query": "?"}).encode())
    assert b"12345678901234567890" in bytes(request.messages[0].content[2].input)


def test_a_failed_answer_raises_only_when_asked_to() -> None:
    result = gai_fast.collect(decode("openai", [sse(HELLO)]))
    assert result.text == "Hello"
    with pytest.raises(gai_fast.Network):
        result.raise_for_error()


def test_an_unfinished_generator_can_be_left() -> None:
    events = decode("openai", [ANSWER])
    next(events)
    events.close()
    assert list(events) == []


# ---- how events are ordered ------------------------------------------------------------------------------------------


def test_events_are_as_an_encoder_writes_them() -> None:
    event: Event = {
        "index": 0, "text": "", "citations": [], "type": "tool.call.start", "call_id": "c", "tool_call": {"name": "f"},
    }  # fmt: skip
    sink = OrderedEvents("compact")
    sink.event({"type": "start", "model": "m", "provider": "p"})
    sink.event(event)
    sink.event({"type": "done", "finished": False})
    first, second, last = sink.take()
    assert sink.take() == []
    encoder = NDJSONEncoder("compact", request_id=first["request_id"], clock=lambda: first["ts"])
    for one in ({"type": "start", "model": "m", "provider": "p"}, event):
        encoder.event(dict(one))
    written = encoder.take().decode().splitlines()
    assert [json.dumps(one, separators=(",", ":")) for one in (first, second)] == written
    assert last == {"type": "done", "finished": False}


def test_inside_the_package_input_may_stay_json_text() -> None:
    value = JSONText('{"a":1.10}', {"a": 1.1})
    for plain, kept in ((True, value.value), (False, value)):
        sink = OrderedEvents("compact", plain=plain)
        sink.event({"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": value}})
        assert sink.take()[0]["tool_call"]["input"] == kept


# ---- read_events -----------------------------------------------------------------------------------------------------

TOLD: list[dict[str, Any]] = [
    {"type": "start", "provider": "p", "model": "m", "stream_id": "s" * 22},
    {"type": "text.delta", "text": "line\r\n\u2028 ä€😀\0 data: x\n\nevent: done"},
    {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": {"n": 12345678901234567890}}},
    {"type": "text.delta", "seq": 9, "ts": 7, "text": "!"},
    {"type": "of.a.later.version", "new": [None]},
    {"type": "finish", "finish_reason": "stop"},
    {"type": "done", "finished": True},
]


def written(kind: Any, envelope: str, **options: Any) -> bytes:
    encoder = kind(envelope, request_id="r", clock=lambda: 5, **options)
    for event in TOLD:
        encoder.comment("ping")
        encoder.event(event)
    encoder.comment("ping")
    taken: bytes = encoder.take()
    return taken


async def read(pieces: Iterable[bytes]) -> list[Event]:
    return [event async for event in read_events(awaited(pieces))]


@pytest.mark.parametrize("envelope", ["compact", "full"])
@pytest.mark.parametrize("kind", [SSEEncoder, NDJSONEncoder])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n\r\n", b"\xef\xbb\xbf\n"])
async def test_what_an_encoder_wrote_is_read_back(kind: Any, envelope: str, before: bytes) -> None:
    body = before + written(kind, envelope)
    first = (await read([body]))[0]
    assert first == {"schema": "gai.events.v1", "ts": 5, "seq": 1, "request_id": "r", **TOLD[0]}
    for pieces in cuts(body):
        events = await read(pieces)
        assert [event["type"] for event in events] == [event["type"] for event in TOLD]
        assert [event["seq"] for event in events[:-1]] == [1, 2, 3, 9, 10, 11]
        for result, event in zip(TOLD, events, strict=True):
            assert {**event, **result} == event
        assert ("schema" in events[1]) == (envelope == "full")


async def test_ids_and_retries_are_not_part_of_events() -> None:
    body = b"retry: 5\n" + written(SSEEncoder, "compact", stream_id="s" * 22)
    assert (await read([body]))[-1] == {"type": "done", "finished": True}


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf", b": ping\n", b"event: x"])
async def test_a_source_without_events_has_none(body: bytes) -> None:
    for pieces in cuts(body):
        assert await read(pieces) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"type":"start"}\nnot json\n', "line 2 is not JSON"),
        (b'{"type":"start"}\n[1]\n', "not an event: a JSON list"),
        (b'{"type":"start"}\n"data"', "not an event: a JSON str"),
        (b'data: {"type":"start"}\n\ndata: [DONE]\n\n', "not JSON"),
        (b'data: {"type":"start"}\n\ndata: 1\n\n', "not an event: a JSON int"),
    ],
)
async def test_what_is_no_event_is_a_value_error_after_the_events_before_it(body: bytes, text: str) -> None:
    for pieces in cuts(body):
        seen = []
        with pytest.raises(ValueError, match=text):
            async for event in read_events(awaited(pieces)):
                seen.append(event)  # noqa: PERF401  # what came before the fault counts
        assert seen == [{"type": "start"}]


async def test_data_of_several_lines_is_one_event() -> None:
    assert await read([b'data: {"type":\ndata: "start"}\n\n']) == [{"type": "start"}]


async def test_what_the_source_raises_passes_through() -> None:
    with pytest.raises(Interrupted):
        await read(broken(b'{"type":"start"}\n', by=Interrupted()))


@pytest.mark.timeout(100)
async def test_blanks_before_the_first_event_are_bounded() -> None:
    """A source may never begin: all that it sent was kept, and looked through with every chunk."""
    start = b'{"type":"start"}\n'
    for pieces in cuts(b" " * (LIMITS.leading_blanks - 1) + start):
        assert await read(pieces) == [{"type": "start"}]
    for pieces in cuts(b"\n" * LIMITS.leading_blanks + b"data: " + start + b"\n"):
        assert await read(pieces) == [{"type": "start"}]
    with pytest.raises(ValueError, match=str(LIMITS.event)):
        await read([b" "] * LIMITS.leading_blanks + [b" " * LIMITS.feed_slice] * (LIMITS.event // LIMITS.feed_slice))


class Pieces:
    """An object with `read`."""

    def __init__(self, body: bytes) -> None:
        self.left = body

    async def read(self, size: int) -> bytes:
        piece, self.left = self.left[:7], self.left[7:]
        assert len(piece) <= size
        return piece


class Whole(Pieces):
    async def read(self) -> bytes:
        return await super().read(7)


class Response:
    """A holder of a body, as the responses of aiohttp and of httpx are."""

    def __init__(self, body: bytes) -> None:
        self.content = Pieces(body)


class HTTPXResponse:
    def __init__(self, body: bytes) -> None:
        self.body = body

    @property
    def content(self) -> bytes:
        raise RuntimeError("the body has not been read")

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield self.body


BODY = b'{"type":"text.delta","seq":1,"text":"Hi"}\n{"type":"done","finished":true}\n'


@pytest.mark.parametrize("source", [Pieces, Whole, Response, HTTPXResponse, io.BytesIO])
async def test_whatever_has_read_is_a_source(source: Callable[[bytes], Any]) -> None:
    assert [event["type"] async for event in read_events(source(BODY))] == ["text.delta", "done"]


async def test_a_line_of_a_stream_reader_may_be_longer_than_its_buffer() -> None:
    reader = asyncio.StreamReader(limit=16)
    reader.feed_data(BODY)
    reader.feed_eof()
    assert [event["type"] async for event in read_events(reader)] == ["text.delta", "done"]


def test_what_is_no_source_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="this is list"):
        read_events([BODY])


async def test_a_source_of_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"opened with 'rb'.*gave str"):
        await anext(read_events(io.StringIO(BODY.decode())))
