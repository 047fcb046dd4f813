"""Native and pure give the same bytes, values and errors for anything at all."""

from __future__ import annotations

import json
from itertools import pairwise
from types import ModuleType
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.events import KEYS, JSONText
from tests.kernels import fed, is_set, outcome

Both = tuple[ModuleType, ModuleType]

# Plain text seldom meets what matters here: line ends, quotes, controls, surrogates and the borders of UTF-8's lengths.
TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=[]),
        st.sampled_from(
            '\n\r"\\\x00\x1f\x7f\x80\u0085\u07ff\u0800\u2028\ud800\udbff\udc00\udfff\ufeff\uffff\U00010000\U0010ffff a'
        ),
    ),
    max_size=40,
)
INTEGER = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400]))
JSON_TEXT = st.builds(
    JSONText, st.sampled_from(['{"a":1.10}', "12345678901234567890", '"\ud800é"', "[1,\n2]"]), st.none()
)
LEAF = st.one_of(st.none(), st.booleans(), INTEGER, st.floats(), TEXT, JSON_TEXT)
CONTENTS: list[Any] = [b'{ "a": null }', '"é\n"', b"\xff", 1]
FRAGMENT = st.sampled_from([orjson.Fragment(each) for each in CONTENTS])
VALUE = st.recursive(
    st.one_of(LEAF, LEAF, LEAF, st.just(b"bytes"), FRAGMENT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(TEXT, inner, max_size=4),
        st.dictionaries(st.one_of(TEXT, st.integers()), inner, max_size=2),
    ),
    max_leaves=12,
)
TYPE = st.one_of(st.sampled_from(["text.delta", "start", "done", "x y", "", "é", "a\n"]), TEXT, st.integers())
EVENT = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    TYPE,
    st.dictionaries(st.one_of(st.sampled_from([*KEYS, "finished"]), TEXT), VALUE, max_size=6),
)
SSE_BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            b"\n|\r|\r\n|:|data|data:|data: |event: |event: a|id: |id: 1|id: \x00|retry: 5|retry: 99|retry:|"
            b"{}|\xef\xbb\xbf|\xff|\xe2\x82|\xf0\x9f\x98\x80|x| ".split(b"|")
        ),
        st.binary(max_size=6),
    ),
    max_size=30,
).map(b"".join)
NDJSON_BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            b'\n|\r\n|{"a":1}|[1,2]|12345678901234567890|1e400|NaN|"\\ud800"|"\xff"|\xef\xbb\xbf| |\t|{|"'.split(b"|")
        ),
        st.binary(max_size=4),
    ),
    max_size=24,
).map(b"".join)
EDGES = st.lists(st.integers(0, 200), max_size=6)


def cut(data: bytes, edges: list[int]) -> list[bytes]:
    at = [0, *sorted(min(edge, len(data)) for edge in edges), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


@given(TEXT)
def test_escape(both: Both, text: str) -> None:
    native, pure = both
    assert native.escape(text) == pure.escape(text)
    assert native.join_json([b"[", text, b"]"]) == pure.join_json([b"[", text, b"]"])
    assert json.loads(pure.escape(text)) == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(VALUE)
def test_encode_json(both: Both, value: Any) -> None:
    native, pure = both
    assert outcome(lambda: native.encode_json(value)) == outcome(lambda: pure.encode_json(value))
    assert outcome(lambda: native.encode_ndjson(value)) == outcome(lambda: pure.encode_ndjson(value))


@given(st.one_of(TEXT, st.binary(max_size=30), VALUE), *[st.one_of(st.none(), TEXT, st.integers())] * 3)
def test_encode_sse(both: Both, data: Any, event: Any, id: Any, retry: Any) -> None:
    native, pure = both
    assert outcome(lambda: native.encode_sse(data, event=event, id=id, retry=retry)) == outcome(
        lambda: pure.encode_sse(data, event=event, id=id, retry=retry)
    )


@given(st.one_of(TEXT, st.binary(max_size=20)))
def test_sse_data_comes_back_with_every_line_end_as_lf(both: Both, data: str | bytes) -> None:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    for kernels in both:
        (event,) = kernels.SSEParser().feed(kernels.encode_sse(data, event="e", id="i"))
        assert event == ("e", expected, "i")


STEP = st.one_of(
    st.tuples(st.sampled_from(["text_delta", "reasoning_delta", "comment"]), st.tuples(st.one_of(TEXT, st.integers()))),
    st.tuples(st.just("event"), st.tuples(EVENT)),
    st.tuples(st.sampled_from(["take", "__len__"]), st.just(())),
)


@given(
    st.sampled_from(["SSEEncoder", "NDJSONEncoder"]),
    st.sampled_from(["compact", "full"]),
    st.sampled_from([None, "stream-1"]),
    st.one_of(st.none(), TEXT),
    st.one_of(st.none(), TEXT),
    st.sampled_from([None, lambda: 7, lambda: -1]),
    st.booleans(),
    st.lists(STEP, max_size=6),
)
def test_encoders(
    both: Both, kind: str, envelope: str, stream: Any, request: Any, trace: Any, clock: Any, stamps: bool, steps: Any
) -> None:
    native, pure = (
        getattr(kernels, kind)(envelope, stream, request, trace, clock, 16, timestamps=stamps) for kernels in both
    )
    for method, arguments in steps:
        ours, theirs = (outcome(lambda: getattr(encoder, method)(*arguments)) for encoder in (native, pure))  # noqa: B023  # used at once
        assert ours == theirs
        assert native.seq == pure.seq
    with native.view() as ours, pure.view() as theirs:
        assert bytes(ours) == bytes(theirs)


@given(EVENT, st.integers(-1, 300), st.integers(-1, 20))
def test_events_into_memory(both: Both, event: dict[str, Any], size: int, offset: int) -> None:
    results = []
    for kernels in both:
        memory = bytearray(b"#" * max(size, 0)) if size >= 0 else b"#" * 300
        encoder = kernels.SSEEncoder(request_id="r")
        results.append((outcome(lambda: encoder.event_into(memory, offset, event)), bytes(memory), encoder.seq))  # noqa: B023  # used at once
    assert results[0] == results[1]


@given(SSE_BYTES, EDGES, st.booleans(), st.sampled_from([12, 1 << 20]))
def test_sse(both: Both, data: bytes, edges: list[int], lenient: bool, limit: int) -> None:
    chunks = cut(data, edges)
    results = []
    for kernels in both:
        parser, framer = kernels.SSEParser(limit), kernels.SSEFramer(limit)
        steps = [outcome(lambda: (parser.feed(chunk), framer.feed(chunk))) for chunk in chunks]  # noqa: B023  # used at once
        states = (parser.retry, parser.last_event_id)
        results.append((steps, states, parser.close(lenient), framer.close(), parser.last_event_id))
    assert results[0] == results[1]


@given(SSE_BYTES, EDGES)
def test_what_sse_says_does_not_depend_on_the_cuts(both: Both, data: bytes, edges: list[int]) -> None:
    for kernels in both:
        whole = fed(kernels.SSEParser(), [data], lenient=True)
        assert fed(kernels.SSEParser(), cut(data, edges), lenient=True) == whole
        frames = fed(kernels.SSEFramer(), cut(data, edges))
        assert b"".join(frame.raw for frame in frames) == data
        dispatched = [(frame.name or "message", frame.data) for frame in frames if frame.data is not None]
        assert dispatched == [(event.type, event.data) for event in whole]


@given(NDJSON_BYTES, EDGES, st.sampled_from([12, 1 << 20]))
def test_ndjson(both: Both, data: bytes, edges: list[int], limit: int) -> None:
    chunks = cut(data, edges)
    results = []
    for kernels in both:
        parser, framer = kernels.NDJSONParser(limit), kernels.LineFramer(limit)
        values = [outcome(lambda: parser.feed(chunk)) for chunk in [*chunks, b"", b""]]  # noqa: B023  # used at once
        frames = [outcome(lambda: framer.feed(chunk)) for chunk in chunks]  # noqa: B023  # used at once
        results.append((values, frames, outcome(parser.close), outcome(framer.close)))
    assert results[0] == results[1]


@given(st.one_of(TEXT, NDJSON_BYTES.map(lambda octets: octets.decode("utf-8", "replace"))))
def test_json_that_is_read(both: Both, text: str) -> None:
    native, pure = both
    compact = outcome(lambda: native.compact_json(text))
    assert compact == outcome(lambda: pure.compact_json(text))
    if compact is not None:
        assert native.parse_exact(compact) == pure.parse_exact(text)


STREAMS = {
    "data lines, comments and CRLF": (
        b"\xef\xbb\xbf: hello\r\nretry: 3000\r\n\r\n"
        + "".join(
            f'event: delta\r\nid: {n}\r\ndata: {{"t":"é豆😀{n}"}}\r\ndata: more\r\n\r\n: ping\r\n' for n in range(60)
        ).encode()
    ),
    "one field a line, LF, stray errors": b"".join(
        b'data: {"i":%d}\n\nerror: {"n":%d}\n\n{"bare":\n%d}\n\n' % (n, n, n) for n in range(90)
    ),
    "CR only and broken UTF-8": b"event: x\rdata: \xe2\x82\rdata: \xff\r\r" * 120,
}


def test_every_split_of_a_stream(both: Both) -> None:
    """Each stream is cut in two at every edge of its first 4 KiB (pure: every eighth edge in a quick run)."""
    for name, stream in STREAMS.items():
        stream = stream[:4096]
        for kernels, step in zip(both, (1, 1 if is_set("GAI_FAST_EXHAUSTIVE") else 8), strict=True):
            events = fed(kernels.SSEParser(), [stream], lenient=True)
            frames = [frame[1:] for frame in fed(kernels.SSEFramer(), [stream])]
            assert len(events) > 50, name
            for edge in range(0, len(stream) + 1, step):
                chunks = [stream[:edge], stream[edge:]]
                assert fed(kernels.SSEParser(), chunks, lenient=True) == events, (name, edge)
                cut_frames = fed(kernels.SSEFramer(), chunks)
                assert [frame[1:] for frame in cut_frames] == frames, (name, edge)
                assert b"".join(frame.raw for frame in cut_frames) == stream, (name, edge)


def test_frames_and_events_are_whole_tuples(both: Both) -> None:
    """Equal to plain ones, with their hash: they are made as `tuple.__new__` makes them."""
    for kernels in both:
        (event,) = kernels.SSEParser().feed(b"data: x\n\n")
        (frame,) = kernels.SSEFramer().feed(b"data: x\n\n")
        (line,) = kernels.LineFramer().feed(b"1\n")
        for made, kind in ((event, kernels.SSEEvent), (frame, kernels.Frame), (line, kernels.Frame)):
            assert type(made) is kind
            assert {made: 1}[tuple(made)] == {kind(*made): 1}[made] == 1
            assert made._replace() == made
