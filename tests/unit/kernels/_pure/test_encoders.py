"""`encode_sse`, `encode_ndjson` and the two encoders, on both implementations."""

from __future__ import annotations

import array
import inspect
import itertools
import json
import pydoc
import re
from pickle import PickleBuffer
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.events import KEYS, JSONText
from tests.kernels import load
from tests.limits import LIMITS
from tests.unit.model.test_halves import CASES

STREAM = "s-7_" + "x" * 18


LOOKALIKE = st.one_of(
    st.sampled_from(["8888888888888881", "8888888888888882", "\U000f6a3d\U0010c5e9", '"seq":1', "text", "ts", "seq"]),
    st.text("8812\U000f6a3d\U0010c5e9", min_size=1, max_size=20),
    st.text(min_size=1),
)
"""Values that look like parts of a frame."""


def clock() -> int:
    return 1_700_000_000_000


# ---- encode_sse, encode_ndjson -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fields", "frame"),
    [
        ("x", {}, b"data: x\n\n"),
        ("", {}, b"data: \n\n"),
        (" a", {}, b"data:  a\n\n"),
        ("a\r\nb\rc\nd", {}, b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("\n", {}, b"data: \ndata: \n\n"),
        ("a\r\r\n", {}, b"data: a\ndata: \ndata: \n\n"),
        ("a\u2028b\u0085c\x0bd\x00", {}, "data: a\u2028b\u0085c\x0bd\x00\n\n".encode()),
        ("\ud83d\ude00\ud800\n", {}, "data: 😀\ufffd\ndata: \n\n".encode()),
        (b"a\n\xff\xe2\x82", {}, "data: a\ndata: \ufffd\ufffd\n\n".encode()),
        (bytearray(b"x"), {}, b"data: x\n\n"),
        (memoryview(b"xyz")[::2], {}, b"data: xz\n\n"),
        (None, {}, b"data: null\n\n"),
        ({"a": "b\nc", "n": 10**20}, {}, b'data: {"a":"b\\nc","n":100000000000000000000}\n\n'),
        ([1, 2], {"event": "x", "id": " 5", "retry": 0}, b"event: x\nid:  5\nretry: 0\ndata: [1,2]\n\n"),
        ("x", {"id": ""}, b"id: \ndata: x\n\n"),
        ("x", {"event": "é<", "id": "豆"}, "event: é<\nid: 豆\ndata: x\n\n".encode()),
    ],
)
def test_a_frame_has_its_fields_in_order(kernels: ModuleType, data: Any, fields: dict[str, Any], frame: bytes) -> None:
    assert kernels.encode_sse(data, **fields) == frame


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize(
    "value",
    ["a\nb", "a\r", "\x00", "a\x1bb", "a\x7f", "a\x85", "a\u202eb", "\u00ad", "\ufeff", "\u2028", "\u2029", "\ud800"],
)
def test_a_field_of_one_line_takes_no_control_or_format_characters(kernels: ModuleType, field: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must not hold control or format characters \(U\+[0-9A-F]{{4}}\)$"):
        kernels.encode_sse("x", **{field: value})


@pytest.mark.parametrize(("field", "limit"), [("event", LIMITS.event_name), ("id", LIMITS.identifier)])
@pytest.mark.parametrize("character", ["a", "é"])
def test_a_field_of_one_line_is_bounded(kernels: ModuleType, field: str, limit: int, character: str) -> None:
    assert kernels.encode_sse("x", **{field: character * limit})
    with pytest.raises(ValueError, match=rf"{field} is longer than {limit} characters \(limits\."):
        kernels.encode_sse("x", **{field: character * (limit + 1)})


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", [5, b"x", True])
def test_a_field_of_one_line_is_text(kernels: ModuleType, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must be str, not {type(value).__name__}"):
        kernels.encode_sse("x", **{field: value})


@pytest.mark.parametrize("retry", ["10", True, -1, 1.5, 10**32])
def test_retry_is_an_integer_of_milliseconds(kernels: ModuleType, retry: object) -> None:
    with pytest.raises(ValueError, match="retry must be an int of milliseconds"):
        kernels.encode_sse("x", retry=retry)


def test_ndjson_is_one_line(kernels: ModuleType) -> None:
    assert kernels.encode_ndjson({"a": "b\n"}) == b'{"a":"b\\n"}\n'
    assert kernels.encode_ndjson("x") == b'"x"\n'
    with pytest.raises(ValueError, match="NaN"):
        kernels.encode_ndjson(float("nan"))
    with pytest.raises(ValueError, match="set is not a JSON type"):
        kernels.encode_sse(set())


# ---- golden lines --------------------------------------------------------------------------------------------------

EVENTS: list[dict[str, Any]] = [
    {"type": "start", "provider": "demo", "model": "tale", "stream_id": STREAM, "provider_metadata": {"id": "u1"}},
    {"type": "text.delta", "text": 'Once "upon"\n\ta tïme\x00 😀/'},
    {"type": "reasoning.delta", "text": "hm"},
    {"type": "reasoning.signature", "signature": "c2ln", "redacted": True, "block": 0},
    {"type": "refusal.delta", "text": "no"},
    {"type": "tool.call.start", "call_id": "c1", "index": 0, "tool_call": {"name": "f"}},
    {"type": "tool.call.delta", "call_id": "c1", "index": 0, "arguments": '{"n":1'},
    {
        "type": "tool.call",
        "call_id": "c1",
        "tool_call": {"name": "f", "input": JSONText('{"n":12345678901234567890}', 0)},
    },
    {"type": "tool.result", "call_id": "c1", "tool_result": {"ok": False}},
    {"type": "citations", "citations": [{"uri": "u", "title": "t", "start": 0, "end": 4}]},
    {"type": "safety", "safety": {"category": "c", "action": "a", "score": 0.5}},
    {"type": "step.end", "step": 1},
    {"type": "usage", "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}},
    {"type": "finish", "provider": "demo", "model": "tale", "finish_reason": "stop", "finish_reason_raw": "STOP"},
    {"type": "error", "error": {"code": "network", "message": "cut", "temporary": True}},
    {"type": "done", "finished": True},
]
GOLDEN = (
    (
        '{"schema":"gai.events.v1","type":"start","ts":1700000000000,"seq":1,"trace_id":"t","request_id":"r","provider":"demo",'
        '"model":"tale","stream_id":"STREAM","provider_metadata":{"id":"u1"}}\n'
        '{"schema":"gai.events.v1","type":"text.delta","ts":1700000000000,"seq":2,"trace_id":"t","request_id":"r",'
        '"text":"Once \\"upon\\"\\n\\ta tïme\\u0000 😀/"}\n'
        '{"schema":"gai.events.v1","type":"reasoning.delta","ts":1700000000000,"seq":3,"trace_id":"t","request_id":"r",'
        '"text":"hm"}\n'
        '{"schema":"gai.events.v1","type":"reasoning.signature","ts":1700000000000,"seq":4,"trace_id":"t","request_id":"r",'
        '"block":0,"signature":"c2ln","redacted":true}\n'
        '{"schema":"gai.events.v1","type":"refusal.delta","ts":1700000000000,"seq":5,"trace_id":"t","request_id":"r",'
        '"text":"no"}\n'
        '{"schema":"gai.events.v1","type":"tool.call.start","ts":1700000000000,"seq":6,"trace_id":"t","request_id":"r",'
        '"call_id":"c1","tool_call":{"name":"f"},"index":0}\n'
        '{"schema":"gai.events.v1","type":"tool.call.delta","ts":1700000000000,"seq":7,"trace_id":"t","request_id":"r",'
        '"call_id":"c1","index":0,"arguments":"{\\"n\\":1"}\n'
        '{"schema":"gai.events.v1","type":"tool.call","ts":1700000000000,"seq":8,"trace_id":"t","request_id":"r",'
        '"call_id":"c1","tool_call":{"name":"f","input":{"n":12345678901234567890}}}\n'
        '{"schema":"gai.events.v1","type":"tool.result","ts":1700000000000,"seq":9,"trace_id":"t","request_id":"r",'
        '"call_id":"c1","tool_result":{"ok":false}}\n'
        '{"schema":"gai.events.v1","type":"citations","ts":1700000000000,"seq":10,"trace_id":"t","request_id":"r",'
        '"citations":[{"uri":"u","title":"t","start":0,"end":4}]}\n'
        '{"schema":"gai.events.v1","type":"safety","ts":1700000000000,"seq":11,"trace_id":"t","request_id":"r",'
        '"safety":{"category":"c","action":"a","score":0.5}}\n'
        '{"schema":"gai.events.v1","type":"step.end","ts":1700000000000,"seq":12,"trace_id":"t","request_id":"r","step":1}\n'
        '{"schema":"gai.events.v1","type":"usage","ts":1700000000000,"seq":13,"trace_id":"t","request_id":"r",'
        '"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}\n'
        '{"schema":"gai.events.v1","type":"finish","ts":1700000000000,"seq":14,"trace_id":"t","request_id":"r",'
        '"provider":"demo","model":"tale","finish_reason":"stop","finish_reason_raw":"STOP"}\n'
        '{"schema":"gai.events.v1","type":"error","ts":1700000000000,"seq":15,"trace_id":"t","request_id":"r",'
        '"error":{"code":"network","message":"cut","temporary":true}}\n'
        '{"type":"done","finished":true}\n'
    )
    .replace("STREAM", STREAM)
    .encode()
)


def test_the_full_envelope_is_byte_exact(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder(trace_id="t", request_id="r", clock=clock)
    for event in EVENTS:
        encoder.event(event)
    assert encoder.take() == GOLDEN


def test_the_compact_envelope_tells_the_first_event_only(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder("compact", STREAM, "r", "t", clock)
    encoder.event({"type": "start", "model": "m"}, retry=3000)
    encoder.text_delta("é")
    encoder.reasoning_delta("")
    encoder.event({"type": "start", "model": "again"})
    encoder.event({"finished": False, "type": "done", "seq": 9, "text": "x"})
    assert encoder.take().decode() == (
        f"event: start\nid: {STREAM}.1\nretry: 3000\n"
        'data: {"schema":"gai.events.v1","type":"start","ts":1700000000000,"seq":1,"trace_id":"t","request_id":"r",'
        '"model":"m"}\n\n'
        f'event: text.delta\nid: {STREAM}.2\ndata: {{"type":"text.delta","seq":2,"text":"é"}}\n\n'
        f'event: reasoning.delta\nid: {STREAM}.3\ndata: {{"type":"reasoning.delta","seq":3}}\n\n'
        f'event: start\nid: {STREAM}.4\ndata: {{"type":"start","seq":4,"model":"again"}}\n\n'
        'event: done\ndata: {"type":"done","finished":false}\n\n'
    )
    assert encoder.seq == 4


def test_an_encoder_without_arguments_names_the_schema_once(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a")
    encoder.text_delta("b")
    assert encoder.take() == (
        b'event: text.delta\ndata: {"schema":"gai.events.v1","type":"text.delta","seq":1,"text":"a"}\n\n'
        b'event: text.delta\ndata: {"type":"text.delta","seq":2,"text":"b"}\n\n'
    )


def test_timestamps_stand_on_every_event_where_asked(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder("compact", request_id="r", clock=clock, timestamps=True)
    encoder.text_delta("a")
    encoder.text_delta("b")
    encoder.event({"type": "usage", "usage": {"input_tokens": 1}})
    encoder.event({"type": "done", "finished": True})
    lines = [json.loads(line) for line in encoder.take().splitlines()]
    assert [line.get("ts") for line in lines] == [clock(), clock(), clock(), None]
    assert [line.get("request_id") for line in lines] == ["r", None, None, None]


@pytest.mark.parametrize("kind", ["SSEEncoder", "NDJSONEncoder"])
@pytest.mark.parametrize("said", [{}, {"clock": clock}, {"clock": clock, "timestamps": True}, {"stream_id": STREAM}])
@pytest.mark.parametrize("envelope", ["compact", "full"])
def test_the_parts_of_a_delta_are_what_is_written_for_it(
    kernels: ModuleType, kind: str, said: dict[str, Any], envelope: str
) -> None:
    """Asked before the first event and behind it: the envelope of the first one is no part of a delta."""
    encoder = getattr(kernels, kind)(envelope=envelope, request_id="r", trace_id="t", **said)
    fresh = encoder.delta_parts({"type": "text.delta", "text": "x"}, "text")
    encoder.event({"type": "start"})
    for event in (
        {"type": "text.delta", "text": "one"},
        {"type": "tool.call.delta", "call_id": "c", "index": 0, "arguments": "{", "choice": 1},
    ):
        key = "arguments" if "arguments" in event else "text"
        parts = encoder.delta_parts(event, key)
        assert key == "arguments" or parts == fresh
        encoder.take()
        encoder.event(event)
        values = {"seq": b"%d" % encoder.seq, "ts": b"%d" % clock(), "text": str(event[key]).encode()}
        assert b"".join(part if isinstance(part, bytes) else values[part] for part in parts) == encoder.take()
        assert parts.count("text") == 1
        parts.clear()  # they belong to the caller
    assert encoder.delta_parts({"type": "text.delta", "text": "x"}, "text") == fresh
    with pytest.raises(ValueError, match="type"):
        encoder.delta_parts({"text": "x"}, "text")


@given(ids=st.lists(LOOKALIKE, min_size=3, max_size=3), value=LOOKALIKE, key=st.sampled_from(["text", "arguments"]))
def test_no_value_of_a_callers_is_taken_for_the_place_of_another(
    kernels: ModuleType, ids: list[str], value: str, key: str
) -> None:
    """A request id of sixteen digits once became the number of each event."""
    stream = re.sub("[^A-Za-z0-9]", "x", ids[0])[:100]
    event = {"type": "tool.call.delta", "call_id": value, "index": 0, f"x{value}": value, key: "said", "ts": 5}
    without_ts = {name: event[name] for name in event if name != "ts"}
    encoders = [
        kind(envelope, stream, ids[1], ids[2], clock, timestamps=True)
        for kind in (kernels.SSEEncoder, kernels.NDJSONEncoder)
        for envelope in ("compact", "full")
    ]
    for encoder in encoders:
        encoder.event({"type": "start"})
        encoder.take()
    for encoder, own in itertools.product(encoders, (event, without_ts)):
        parts = encoder.delta_parts({**own, key: ""}, key)
        assert [part for part in parts if not isinstance(part, bytes)].count("text") == 1
        encoder.event(own)
        values = {"seq": b"%d" % encoder.seq, "ts": b"%d" % clock(), "text": b"said"}
        assert b"".join(part if isinstance(part, bytes) else values[part] for part in parts) == encoder.take()


def test_what_an_event_brings_wins(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder(request_id="r", trace_id="t", clock=clock)
    own = {"request_id": "r2", "trace_id": "t2", "ts": 5, "seq": 7, "schema": "s", "type": "text.delta", "text": "x"}
    encoder.event(own)
    encoder.event({"type": "text.delta", "text": "y", "request_id": "", "ts": None, "seq": None})
    first, second = encoder.take().splitlines()
    assert first == (b'{"schema":"s","type":"text.delta","ts":5,"seq":7,"trace_id":"t2","request_id":"r2","text":"x"}')
    assert second == (
        b'{"schema":"gai.events.v1","type":"text.delta","ts":1700000000000,"seq":8,"trace_id":"t","request_id":"r",'
        b'"text":"y"}'
    )


def test_keys_come_in_the_contracts_order_whatever_the_dicts(kernels: ModuleType) -> None:
    event = {key: [key] for key in reversed(KEYS)} | {"type": "x", "seq": 1}
    event = {"zz": 1, **event, "aa": 2, "é": "\ud800", "empty": ""}
    encoder = kernels.NDJSONEncoder()
    encoder.event(event)
    assert list(json.loads(encoder.take())) == [*KEYS, "zz", "aa", "é"]


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_empty_values_are_left_out_and_zero_is_not_empty(kernels: ModuleType, empty: object) -> None:
    encoder = kernels.NDJSONEncoder("compact")
    encoder.text_delta("first")
    encoder.take()
    encoder.event({"type": "x", "text": empty, "other": empty, "step": 0, "redacted": False, "json": {"kept": empty}})
    kept = json.dumps(empty)
    assert encoder.take() == f'{{"type":"x","seq":2,"step":0,"redacted":false,"json":{{"kept":{kept}}}}}\n'.encode()


def test_values_beyond_the_fast_way_are_written_too(kernels: ModuleType) -> None:
    class Text(str):
        __slots__ = ()

    encoder = kernels.SSEEncoder("full", request_id="r", clock=clock)
    encoder.event(type("E", (dict,), {})(type=Text("x"), json={Text("k"): 10**30}, text=Text("t")))
    encoder.text_delta(Text("\ud800u"))
    assert encoder.take().decode() == (
        'event: x\ndata: {"schema":"gai.events.v1","type":"x","ts":1700000000000,"seq":1,"request_id":"r","text":"t",'
        '"json":{"k":1%s}}\n\n'
        'event: text.delta\ndata: {"schema":"gai.events.v1","type":"text.delta","ts":1700000000000,"seq":2,'
        '"request_id":"r","text":"\ufffdu"}\n\n' % ("0" * 30)
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({}, "an event needs a type"),
        ({"type": ""}, "an event needs a type"),
        ({"type": 5}, "an event needs a type"),
        ({"type": "a\nb"}, "type must not hold control or format characters"),
        ({"type": "\u202e"}, "type must not hold control or format characters"),
        ({"type": "x" * 129}, "type is longer than 128 characters"),
        (None, "an event must be a dict, not NoneType"),
        ([("type", "x")], "an event must be a dict, not list"),
        ({"type": "x", "seq": "1"}, "seq must be an int"),
        ({"type": "x", "seq": True}, "seq must be an int"),
        ({"type": "x", "seq": -1}, "seq must be an int"),
        ({"type": "x", "seq": 2**53}, "seq must be an int"),
        ({"type": "x", "json": float("nan")}, "NaN"),
        ({"type": "x", "other": [{1: 2}]}, r"\$\.other\[0\]: a key must be str"),
        ({"type": "x", 5: 1}, "a key must be str, not int"),
        ({"type": "done"}, "a done event needs finished"),
        ({"type": "done", "finished": 1}, "a done event needs finished"),
    ],
)
def test_a_bad_event_writes_nothing_and_takes_no_number(kernels: ModuleType, event: Any, text: str) -> None:
    for encoder in (kernels.SSEEncoder(), kernels.NDJSONEncoder()):
        encoder.comment("kept")
        pending = len(encoder)
        with pytest.raises(ValueError, match=text):
            encoder.event(event)
        assert (len(encoder), encoder.seq) == (pending, 0)
        encoder.text_delta("a")
        assert b'"schema":"gai.events.v1","type":"text.delta","seq":1' in encoder.take()


def test_a_bad_retry_writes_nothing(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    with pytest.raises(ValueError, match="retry must be"):
        encoder.event({"type": "x"}, retry=-1)
    encoder.event({"type": "done", "finished": True}, 5)
    assert encoder.take() == b'event: done\nretry: 5\ndata: {"type":"done","finished":true}\n\n'


@pytest.mark.parametrize("method", ["text_delta", "reasoning_delta", "comment"])
@pytest.mark.parametrize("value", [None, 5, b"x"])
def test_a_delta_is_text(kernels: ModuleType, method: str, value: object) -> None:
    for encoder in (kernels.SSEEncoder(), kernels.NDJSONEncoder()):
        with pytest.raises(ValueError, match=f"must be str, not {type(value).__name__}"):
            getattr(encoder, method)(value)
        assert (len(encoder), encoder.seq) == (0, 0)


def test_a_comment_prefixes_every_line_and_ends_no_block(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.comment("ping")
    encoder.comment("a\r\n\ndata: evil\rid: 0\u2028\ud800")
    assert encoder.take().decode() == ": ping\n: a\n: \n: data: evil\n: id: 0\u2028\ufffd\n"
    lines = kernels.NDJSONEncoder()
    lines.comment("a\nb")
    assert lines.take() == b"\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"envelope": "big"}, "envelope must be 'compact' or 'full', not 'big'"),
        ({"envelope": None}, "envelope must be"),
        ({"stream_id": ""}, "stream_id must be"),
        ({"stream_id": "a.b"}, "stream_id must be"),
        ({"stream_id": "a\n"}, "stream_id must be"),
        ({"stream_id": "x" * 101}, "stream_id must be"),
        ({"stream_id": 5}, "stream_id must be"),
        ({"request_id": 5}, "request_id must be str, not int"),
        ({"trace_id": b"x"}, "trace_id must be str, not bytes"),
        ({"capacity": 0}, "capacity must be an int"),
        ({"capacity": True}, "capacity must be an int"),
        ({"capacity": 2**70}, "capacity must be an int"),
        ({"capacity": 1.5}, "capacity must be an int"),
    ],
)
def test_bad_arguments_are_refused(kernels: ModuleType, arguments: dict[str, Any], text: str) -> None:
    for kind in (kernels.SSEEncoder, kernels.NDJSONEncoder):
        with pytest.raises(ValueError, match=text):
            kind(**arguments)


@pytest.mark.parametrize("moment", [-1, 2**53, float("nan"), float("inf")])
def test_a_clock_that_lies_is_refused(kernels: ModuleType, moment: float) -> None:
    encoder = kernels.NDJSONEncoder(clock=lambda: moment)
    with pytest.raises(ValueError, match="clock must return milliseconds"):
        encoder.text_delta("a")
    assert (len(encoder), encoder.seq) == (0, 0)


def test_a_clock_of_fractions_is_cut_to_milliseconds(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder(clock=lambda: 5.9)
    encoder.text_delta("a")
    assert b'"ts":5,' in encoder.take()


def test_the_envelopes_ids_are_escaped(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder(request_id='"\n\ud800')
    encoder.text_delta("a")
    encoder.event({"type": "x", "json": 10**30})
    for line in encoder.take().splitlines():
        assert json.loads(line)["request_id"] == '"\n\ufffd'


# ---- the buffer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 7, LIMITS.encoder_capacity])
def test_a_buffer_of_any_capacity_holds_everything(kernels: ModuleType, capacity: int) -> None:
    encoder = kernels.SSEEncoder(capacity=capacity)
    texts = ["", "a", "é" * 100, "豆" * 5000, "\n" * 5000, "😀" * 5000, "a" * 200_000, "b"]
    for _ in range(2):
        for text in texts:
            encoder.text_delta(text)
        taken = encoder.take()
        assert len(encoder) == 0
        assert encoder.take() == b""
        events = kernels.SSEParser().feed(taken)
        assert [json.loads(event.data).get("text", "") for event in events] == texts


def test_a_view_shows_what_is_pending_and_empties_on_leaving(kernels: ModuleType) -> None:
    encoder = kernels.NDJSONEncoder()
    encoder.text_delta("a")
    expected = b'{"schema":"gai.events.v1","type":"text.delta","seq":1,"text":"a"}\n'
    with encoder.view() as view:
        assert isinstance(view, memoryview)
        assert (view.readonly, view.format, view.itemsize, len(view)) == (True, "B", 1, len(expected))
        assert view == expected
        assert len(encoder) == len(expected)
    assert len(encoder) == 0
    with pytest.raises(ValueError, match="released"):
        bytes(view)
    with encoder.view() as view:
        assert bytes(view) == b""


def test_nothing_is_written_while_a_view_is_out(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a")
    with encoder.view() as view:
        before = bytes(view)
        for call in (
            lambda: encoder.text_delta("b"),
            lambda: encoder.reasoning_delta("b"),
            lambda: encoder.event({"type": "x"}),
            lambda: encoder.event({}),
            lambda: encoder.comment("c"),
            encoder.take,
            encoder.take_pieces,
            encoder.view().__enter__,
        ):
            with pytest.raises(BufferError, match="memory is exported"):
                call()
        assert (view, encoder.seq) == (before, 1)
        own = bytearray(200)
        assert encoder.text_delta_into(own, 0, "b") > 0
    encoder.text_delta("c")
    assert encoder.take() == b'event: text.delta\ndata: {"type":"text.delta","seq":3,"text":"c"}\n\n'


def test_leaving_by_an_exception_empties_too(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a")
    with pytest.raises(KeyError), encoder.view():
        raise KeyError
    assert len(encoder) == 0
    encoder.text_delta("b")


@pytest.mark.parametrize("hold", [memoryview, lambda view: view[1:5], PickleBuffer])
def test_memory_that_is_still_held_is_never_written_again(kernels: ModuleType, hold: Any) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a" * 50)
    with encoder.view() as view:
        held = hold(view)
        expected = bytes(held)
    assert len(encoder) == 0
    for _ in range(200):
        encoder.text_delta("b" * 50)
    assert bytes(held) == expected
    assert encoder.take().count(b"\n\n") == 200


def test_a_block_that_was_never_entered_changes_nothing(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a")
    pending = len(encoder)
    encoder.view().__exit__(None, None, None)
    assert len(encoder) == pending


# ---- into the caller's memory --------------------------------------------------------------------------------------

INTO = [
    ("text_delta_into", "text_delta", "hé\n"),
    ("reasoning_delta_into", "reasoning_delta", "x" * 3000),
    ("event_into", "event", {"type": "tool.call", "call_id": "c", "json": [10**30]}),
    ("event_into", "event", {"type": "done", "finished": False}),
]


@pytest.mark.parametrize(("into", "method", "value"), INTO)
@pytest.mark.parametrize("name", ["SSEEncoder", "NDJSONEncoder"])
def test_into_writes_the_bytes_that_take_would_give(
    kernels: ModuleType, name: str, into: str, method: str, value: Any
) -> None:
    twin = getattr(kernels, name)(request_id="r")
    getattr(twin, method)(value)
    expected = twin.take()
    for offset in (0, 5):
        encoder = getattr(kernels, name)(request_id="r")
        memory = bytearray(b"#" * (offset + len(expected) + 3))
        assert getattr(encoder, into)(memory, offset, value) == len(expected)
        assert memory == b"#" * offset + expected + b"###"
        assert (encoder.seq, len(encoder)) == (twin.seq, 0)


@pytest.mark.parametrize(("into", "method", "value"), INTO)
def test_a_buffer_that_is_too_small_is_left_alone(kernels: ModuleType, into: str, method: str, value: Any) -> None:
    twin = kernels.SSEEncoder()
    getattr(twin, method)(value)
    expected = twin.take()
    encoder = kernels.SSEEncoder()
    for room, offset in ((0, 0), (len(expected) - 1, 0), (len(expected) + 4, 5), (3, 10), (3, 10**30)):
        memory = bytearray(b"#" * room)
        with pytest.raises(BufferError, match=f"{len(expected)} bytes are needed") as raised:
            getattr(encoder, into)(memory, offset, value)
        assert raised.value.needed == len(expected)
        assert memory == b"#" * room
        assert encoder.seq == 0
    memory = bytearray(len(expected))
    assert getattr(encoder, into)(memory, 0, value) == len(expected)
    assert memory == expected


def test_any_writable_contiguous_memory_will_do(kernels: ModuleType) -> None:
    numbers = array.array("I", [0] * 40)
    size = kernels.NDJSONEncoder().text_delta_into(numbers, 0, "a")
    assert numbers.tobytes()[:size] == b'{"schema":"gai.events.v1","type":"text.delta","seq":1,"text":"a"}\n'
    memory = bytearray(100)
    assert kernels.NDJSONEncoder().text_delta_into(memoryview(memory)[10:], 0, "a") == size
    assert memory[10 : 10 + size] == numbers.tobytes()[:size]


@pytest.mark.parametrize(
    "buffer", [b"x" * 200, memoryview(bytes(200)), memoryview(bytearray(400))[::2], None, "x" * 200]
)
def test_memory_that_cannot_be_written_is_refused(kernels: ModuleType, buffer: Any) -> None:
    encoder = kernels.SSEEncoder()
    with pytest.raises(TypeError, match="a writable, contiguous buffer is needed"):
        encoder.text_delta_into(buffer, 0, "a")
    assert encoder.seq == 0


def test_an_offset_counts_from_the_front(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    with pytest.raises(ValueError, match="offset must be 0 or more"):
        encoder.text_delta_into(bytearray(200), -1, "a")
    with pytest.raises(TypeError):
        encoder.text_delta_into(bytearray(200), 1.5, "a")
    assert encoder.seq == 0


# ---- frames that were written elsewhere ------------------------------------------------------------------------------


def test_frames_written_elsewhere_keep_their_place_and_count(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("a")
    first = encoder.take()
    encoder.append_frames(b"<2><3>", 2)
    assert (len(encoder), encoder.seq) == (6, 3)
    assert encoder.take() == b"<2><3>"
    assert (len(encoder), encoder.take()) == (0, b"")
    encoder.append_frames(b"<4>", 1)
    encoder.text_delta("b")
    encoder.append_frames(b"", 0)
    encoder.append_frames(b"<6>", 1)
    encoder.event({"type": "text.delta", "text": "c"})
    expected = [b"<4>", kernels.encode_sse({"type": "text.delta", "seq": 5, "text": "b"}, event="text.delta"), b"<6>"]
    expected.append(kernels.encode_sse({"type": "text.delta", "seq": 7, "text": "c"}, event="text.delta"))
    with encoder.view() as view:
        assert bytes(view) == b"".join(expected)
        with pytest.raises(BufferError):
            encoder.append_frames(b"<8>", 1)
    assert first.startswith(b"event: text.delta\n")


def test_pieces_are_what_would_be_taken_in_one(kernels: ModuleType) -> None:
    encoders = kernels.SSEEncoder(), kernels.SSEEncoder()
    frames = b"<2>" * 10_000
    for encoder in encoders:
        encoder.text_delta("a")
        encoder.append_frames(frames, 1)
        encoder.text_delta("b")
    pieces = encoders[0].take_pieces()
    assert b"".join(pieces) == encoders[1].take()
    assert all(pieces)
    assert (len(encoders[0]), encoders[0].take_pieces(), encoders[0].take()) == (0, [], b"")
    for encoder in encoders:
        encoder.text_delta("c")
    assert encoders[0].take() == encoders[1].take()
    assert b"".join(pieces).count(b"<2>") == 10_000, "pieces that were taken stay as they are"


@pytest.mark.parametrize("after", ["text_delta", "event", "comment", "view"])
def test_what_follows_frames_written_elsewhere_stands_behind_them(kernels: ModuleType, after: str) -> None:
    encoder = kernels.SSEEncoder()
    encoder.append_frames(b"<1>", 1)
    if after == "view":
        with encoder.view() as view:
            assert bytes(view) == b"<1>"
        return
    getattr(encoder, after)({"type": "warning", "reason": "x"} if after == "event" else "text")
    assert encoder.take().startswith(b"<1>")


class Text(str):
    """A caller's own kind of text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"


@pytest.mark.parametrize("kind", ["SSEEncoder", "NDJSONEncoder"])
def test_ids_of_a_subclass_of_str_are_written_as_their_text(kernels: ModuleType, kind: str) -> None:
    encoder = getattr(kernels, kind)("full", request_id=Text("r"), trace_id=Text("t"))
    for event in ({"type": "usage", "usage": {"input_tokens": 1}}, {"type": "text.delta", "text": "x"}):
        encoder.event(event)
        written = json.loads(encoder.take().split(b"data: ")[-1])
        assert (written["request_id"], written["trace_id"]) == ("r", "t")
    parts = encoder.delta_parts({"type": "tool.call.delta", "index": 1}, "arguments")
    assert any(b'"request_id":"r","index":1' in part for part in parts if type(part) is bytes)


@pytest.mark.parametrize("envelope", ["compact", "full"])
@pytest.mark.parametrize("way", ["text_delta", "event", "text_delta_into"])
def test_a_clock_that_writes_with_its_encoder_is_refused(kernels: ModuleType, envelope: str, way: str) -> None:
    """The outer event had decided what it needs before the inner one became the stream's first."""
    calls: list[int] = []

    def writing() -> int:
        calls.append(1)
        if len(calls) == 1:
            encoder.text_delta("inner")
        return 5

    encoder = kernels.NDJSONEncoder(envelope, clock=writing)
    arguments: dict[str, tuple[Any, ...]] = {
        "text_delta": ("outer",),
        "event": ({"type": "usage", "usage": {"input_tokens": 1}},),
        "text_delta_into": (bytearray(999), 0, "outer"),
    }
    with pytest.raises(RuntimeError, match="clock must not write events"):
        getattr(encoder, way)(*arguments[way])
    encoder.text_delta("later")
    inner, later = map(json.loads, encoder.take().splitlines())
    assert (inner["text"], inner["seq"], inner["ts"]) == ("inner", 1, 5)
    assert (later["text"], later["seq"], later.get("ts")) == ("later", 2, 5 if envelope == "full" else None)


def test_memory_that_is_looked_at_after_the_block_is_neither_written_nor_moved(kernels: ModuleType) -> None:
    """A view's `obj` outlives its block. Natively the encoder's memory could then be freed under a second view."""
    encoder = kernels.SSEEncoder()
    encoder.text_delta("x" * 99)
    with encoder.view() as view:
        memory = view.obj
    with pytest.raises(BufferError), memoryview(memory):
        for _ in range(3):
            encoder.text_delta("y" * 99_999)
    encoder.text_delta("z")
    assert b'"text":"z"' in encoder.take()


# ---- pairs of surrogates ---------------------------------------------------------------------------------------------

ENCODED = [(events, expected) for events, expected in CASES if all(events)]


@pytest.mark.parametrize("form", ["SSEEncoder", "NDJSONEncoder"])
@pytest.mark.parametrize("envelope", ["compact", "full"])
@pytest.mark.parametrize(("events", "expected"), ENCODED)
def test_halves_of_a_pair_in_neighbouring_deltas_become_one_character(
    kernels: ModuleType, form: str, envelope: str, events: list[Any], expected: list[Any]
) -> None:
    """Each channel, choice and call for itself: docs/events.md, "Bytes"."""
    split, whole = (getattr(kernels, form)(envelope, "s" * 22, clock=clock) for _ in range(2))
    into, size = bytearray(4096), 0
    placed = getattr(kernels, form)(envelope, "s" * 22, clock=clock)
    for event in events:
        split.event(event)
        size += placed.event_into(into, size, event)
    for event in expected:
        whole.event(event)
    assert split.take() == whole.take() == bytes(into[:size])
    assert split.seq == whole.seq == placed.seq


@pytest.mark.parametrize("clocked", [None, clock])
@pytest.mark.parametrize("form", ["SSEEncoder", "NDJSONEncoder"])
def test_halves_of_a_pair_in_neighbouring_texts_become_one_character(
    kernels: ModuleType, form: str, clocked: Any
) -> None:
    split, whole = (getattr(kernels, form)("compact", clock=clocked) for _ in range(2))
    split.text_delta("\ud83d")
    assert (split.take(), split.seq) == (b"", 0)
    split.reasoning_delta("r\ud83d")
    split.text_delta("\ude00")
    split.reasoning_delta("\ude00s")
    split.text_delta("é\ud83d")
    with split.view() as view:
        assert bytes(view).count("😀".encode()) == 2
        with pytest.raises(BufferError):
            split.text_delta("\ude00")
    split.text_delta("x" * 5000)
    for text, write in (("r", whole.reasoning_delta), ("😀", whole.text_delta), ("😀s", whole.reasoning_delta)):
        write(text)
    whole.text_delta("é")
    whole.take()
    whole.text_delta("\ufffd" + "x" * 5000)
    assert split.take() == whole.take()


def test_a_half_that_could_not_be_written_still_waits(kernels: ModuleType) -> None:
    encoder, memory = kernels.SSEEncoder(), bytearray(200)
    assert encoder.text_delta_into(memory, 0, "\ud83d") == 0
    for _ in range(2):
        with pytest.raises(BufferError, match=r"buffer|bytes"):
            encoder.text_delta_into(bytearray(9), 0, "\ude00")
        with pytest.raises(ValueError, match=r"JSON|serializable|type"):
            encoder.event({"type": "text.delta", "text": "\ude00", "more": object()})
        assert encoder.seq == 0
    size = encoder.text_delta_into(memory, 0, "\ude00")
    whole = kernels.SSEEncoder()
    whole.text_delta("😀")
    assert bytes(memory[:size]) == whole.take()
    assert encoder.seq == 1


def test_an_encoder_that_is_made_anew_keeps_no_half(kernels: ModuleType) -> None:
    encoder = kernels.SSEEncoder()
    encoder.text_delta("\ud83d")
    encoder.__init__()
    encoder.text_delta("\ude00")
    assert "😀".encode() not in encoder.take()


# ---- what a program sees of them -------------------------------------------------------------------------------------


def doc_of(member: object) -> list[str]:
    """Returns the lines of a docstring without indentation, which Python 3.13 removes from a pure class's alone."""
    return [line.strip() for line in (inspect.getdoc(member) or "").strip().splitlines()]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.native
@pytest.mark.parametrize("name", ["SSEEncoder", "NDJSONEncoder"])
def test_both_implementations_have_one_signature_and_one_docstring(name: str) -> None:
    """Those of the pure one, which tell types, units and errors."""
    ours, theirs = getattr(load("native"), name), getattr(load("pure"), name)
    assert parameters(ours) == parameters(theirs)
    assert doc_of(ours) == doc_of(theirs)
    public = [each for each in dir(theirs) if not each.startswith("_")]
    for member in (*public, "__len__"):
        assert doc_of(getattr(ours, member)) == doc_of(getattr(theirs, member)), member
    for method in ("text_delta", "text_delta_into", "event", "event_into", "comment", "take", "take_pieces", "view"):
        names = [each.name for each in inspect.signature(getattr(ours, method)).parameters.values()]
        assert names == list(inspect.signature(getattr(theirs, method)).parameters), method
    result = pydoc.plain(pydoc.render_doc(ours))
    for word in ("clock (callable or None)", "milliseconds", "capacity (int)", "in bytes", "ValueError", "BufferError"):
        assert word in result, word
    assert "_pure" not in result


@pytest.mark.native
@pytest.mark.parametrize("name", ["SSEParser", "NDJSONParser"])
def test_parsers_have_one_signature_and_one_docstring(name: str) -> None:
    ours, theirs = getattr(load("native"), name), getattr(load("pure"), name)
    public = [each for each in dir(theirs) if not each.startswith("_")]
    for of_ours, of_theirs in ((ours, theirs), *((getattr(ours, each), getattr(theirs, each)) for each in public)):
        assert doc_of(of_ours) == doc_of(of_theirs)
        if callable(of_theirs):
            mine, its = ([each for each in parameters(one) if each[0] != "self"] for one in (of_ours, of_theirs))
            assert mine == its
    for implementation in (ours, theirs):
        assert inspect.signature(implementation).parameters["limit"].default == LIMITS.event
        result = pydoc.plain(pydoc.render_doc(implementation))
        for word in (f"class {name}", "limit", "8388608", "The most bytes of one line", "ValueError", "bytes-like"):
            assert word in result, word
        assert "_pure.parsers.SSEParser`" not in result


@pytest.mark.native
def test_functions_have_one_docstring_too() -> None:
    for name in ("encode_sse", "encode_ndjson"):
        ours, theirs = getattr(load("native"), name), getattr(load("pure"), name)
        assert doc_of(ours) == doc_of(theirs)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("text.detla", "text.delta"),
        ("text_delta", "text.delta"),
        ("textDelta", "text.delta"),
        ("text.delt", "text.delta"),
        ("tool.cal", "tool.call"),
        ("finsh", "finish"),
        ("citation", "citations"),
        ("Start", "start"),
    ],
)
@pytest.mark.parametrize("form", ["SSEEncoder", "NDJSONEncoder"])
def test_a_misspelt_type_is_refused_with_the_name_that_is_meant(
    kernels: ModuleType, form: str, name: str, meant: str
) -> None:
    encoder = getattr(kernels, form)()
    with pytest.raises(ValueError, match=rf"^unknown event type '{name}' - at `type`; did you mean '{meant}'\?$"):
        encoder.event({"type": name, "text": "Hi"})
    assert (encoder.seq, encoder.take()) == (0, b"")


@pytest.mark.parametrize("name", ["x", "later", "my.text.delta", "text.delta2", "star", "errors", "text", "usage.more"])
def test_a_type_of_a_program_s_own_is_written(kernels: ModuleType, name: str) -> None:
    encoder = kernels.NDJSONEncoder()
    encoder.event({"type": name})
    assert json.loads(encoder.take())["type"] == name
