"""The SSE and NDJSON parsers and framers, on both implementations, however the bytes are cut."""

from __future__ import annotations

import array
from types import ModuleType
from typing import Any

import pytest

from tests.kernels import cuts, fed
from tests.limits import LIMITS


def feed_all(parser: Any, chunks: list[bytes], items: list[Any]) -> None:
    for chunk in chunks:
        items += parser.feed(chunk)


# ---- SSE -----------------------------------------------------------------------------------------------------------

STREAM = (
    b"\xef\xbb\xbf: hi\r\n"
    b"retry: 0030\n"
    b"event: a\rid: 1\rdata: x\r\r"
    b"data: y\r\n\r\n"
    b"id: \xe2\x80\xa6\ndata:  two\ndata\ndata: \xff\xe2\x82\n\n"
    b"\n\n"
    b"event: nothing\n\n"
    b"id: no\x00\nretry: 1_0\nretry: 99999999999999999999999999999999999\n"
    b"Data: no\ndata : no\nunknown\n\xef\xbb\xbfdata: no\ndata: z\n\n"
    b"event: open\nid: lost\ndata: unfinished"
)
EVENTS = [("a", "x", "1"), ("message", "y", "1"), ("message", " two\n\n\ufffd\ufffd", "…"), ("message", "z", "…")]


def test_events_do_not_depend_on_how_the_bytes_are_cut(kernels: ModuleType) -> None:
    for chunks in cuts(STREAM):
        parser = kernels.SSEParser()
        events = fed(parser, chunks)
        assert events == EVENTS
        assert all(type(event) is kernels.SSEEvent for event in events)
        assert (parser.retry, parser.last_event_id) == (30, "…")


def test_a_lenient_end_counts_the_unfinished_event(kernels: ModuleType) -> None:
    for chunks in cuts(STREAM):
        parser = kernels.SSEParser()
        assert fed(parser, chunks, lenient=True) == [*EVENTS, ("open", "unfinished", "lost")]
        assert parser.last_event_id == "lost"
    for rest in (b"", b"\n", b": c\n", b"event: x"):
        parser = kernels.SSEParser()
        assert fed(parser, [b"data: 1\n\n", rest], lenient=True) == [("message", "1", "")]


def test_a_closed_parser_reads_the_next_connection(kernels: ModuleType) -> None:
    parser = kernels.SSEParser()
    parser.feed(b"retry: 5\nid: 1\ndata: a\n\nid: 2\ndata: cut")
    assert parser.close() == []
    assert (parser.retry, parser.last_event_id) == (5, "1")
    assert parser.feed(b"\xef\xbb\xbfdata: b\n\n") == [("message", "b", "1")]


def test_an_event_is_there_with_the_cr_of_its_blank_line(kernels: ModuleType) -> None:
    parser = kernels.SSEParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\r") == [("message", "a", "")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: b\r\n\r") == [("message", "b", "")]
    assert parser.feed(b"\ndata: c\n\n") == [("message", "c", "")]


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer", "NDJSONParser", "LineFramer"])
def test_any_bytes_like_object_is_taken(kernels: ModuleType, kind: str) -> None:
    data = b'data: {"a":1}\n\n' if kind.startswith("SSE") else b'{"a": 1}    \n\n'
    assert len(data) % 5 in (0, 4)
    expected = fed(getattr(kernels, kind)(), [data])
    for chunk in (bytearray(data), memoryview(data), memoryview(bytearray(data)), array.array("B", data)):
        assert fed(getattr(kernels, kind)(), [chunk]) == expected
    for wrong in ("data", None, 5, [100]):
        with pytest.raises(TypeError, match=f"a contiguous bytes-like object is needed, not {type(wrong).__name__}"):
            getattr(kernels, kind)().feed(wrong)
    with pytest.raises(TypeError, match="a contiguous bytes-like object is needed, not memoryview"):
        getattr(kernels, kind)().feed(memoryview(data)[::2])


def test_what_was_fed_may_change_afterwards(kernels: ModuleType) -> None:
    parser = kernels.SSEParser()
    memory = bytearray(b"data: abc")
    parser.feed(memory)
    memory[:] = b"#" * 20
    assert parser.feed(b"\n\n") == [("message", "abc", "")]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: 12345678901234567890",
        b"data: 123456789\ndata: 123456789\n\n",
        b"123456789012345678901\n",
        b"unknown\nunknown\nunknown\n",
        b"id: 1\nid: 12345678901234567\n",
        b"data: 1\r\n\r\ndata: 12345678901234567890\r\n",
        b":890123456789012345678901\n",
    ],
)
@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer"])
def test_one_line_and_one_event_are_bounded_however_cut(kernels: ModuleType, kind: str, stream: bytes) -> None:
    for chunks in cuts(stream):
        parser = getattr(kernels, kind)(limit=20)
        seen: list[Any] = []
        with pytest.raises(ValueError, match=r"longer than 20 bytes \(limits\.event\)") as raised:
            feed_all(parser, chunks, seen)
        seen += raised.value.before
        assert [item.data for item in seen] == (["1"] if stream.startswith(b"data: 1\r") else [])
        with pytest.raises(ValueError, match=r"limits\.event"):
            parser.feed(b"\n\n")
        assert parser.close() == []
        assert [item.data for item in parser.feed(b"data: 1\n\n")] == ["1"]


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer"])
@pytest.mark.parametrize(
    "block", [b"data: 34567890123456\n\n", b"data: 9\rdata: 789012\r\r", b"data: 34567890123456\r\n\r\n"]
)
def test_what_just_fits_is_taken(kernels: ModuleType, kind: str, block: bytes) -> None:
    for chunks in cuts(block * 3):
        items = fed(getattr(kernels, kind)(limit=20), chunks)
        assert len([item for item in items if item.data is not None]) == 3


def test_comments_between_events_do_not_add_up_for_a_parser(kernels: ModuleType) -> None:
    parser = kernels.SSEParser(limit=20)
    for _ in range(100):
        parser.feed(b": still here\n")
    assert parser.feed(b"data: 1\n\n") == [("message", "1", "")]
    framer = kernels.SSEFramer(limit=20)
    with pytest.raises(ValueError, match=r"limits\.event"):
        feed_all(framer, [b": still here\n"] * 100, [])


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer", "NDJSONParser", "LineFramer"])
def test_the_limit_is_eight_mebibytes(kernels: ModuleType, kind: str) -> None:
    parser = getattr(kernels, kind)()
    assert parser.feed(b'"' + b"x" * (LIMITS.event - 1)) == []
    with pytest.raises(ValueError, match=rf"longer than {LIMITS.event} bytes \(limits\.event\)"):
        parser.feed(b"x")


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer", "NDJSONParser", "LineFramer"])
def test_a_long_line_in_small_reads_is_searched_once(kernels: ModuleType, kind: str) -> None:
    """Quadratic work over 200,000 reads would run into the time limit of the test."""
    parser = getattr(kernels, kind)()
    for octet in (b'"', *[b"x"] * 200_000, b'"'):
        assert parser.feed(octet) == []
    assert len(parser.feed(b"\n\n")) == {"SSEParser": 0, "NDJSONParser": 1, "SSEFramer": 1, "LineFramer": 2}[kind]


def test_fields_of_a_stream_name_the_event(kernels: ModuleType) -> None:
    names = ["a", "a", "aa", "é", "é", "", "b"]
    stream = "".join(f"event: {name}\ndata: x\n\n" for name in names).encode()
    for chunks in cuts(stream):
        assert [event.type for event in fed(kernels.SSEParser(), chunks)] == [name or "message" for name in names]


# ---- SSEFramer -----------------------------------------------------------------------------------------------------

BLOCKS: list[tuple[bytes, str, str | None, str | None]] = [
    (b"\xef\xbb\xbf: ping\n\n", "", None, None),
    (b"event: a\r\nid: 1\r\nretry: 5\r\ndata: x\r\ndata: \xff\r\n\r\n", "a", "x\n\ufffd", None),
    (b"\n", "", None, None),
    (b": c\ndata\n: d\n\n", "", "", None),
    (b'error: {"message":\n "no"}\n\n', "", None, 'error: {"message":\n "no"}'),
    (b'data: y\r{"a":1}\r\r', "", "y", '{"a":1}'),
    (b"event: only\n\n", "only", None, None),
]


def test_frames_carry_their_blocks_bytes(kernels: ModuleType) -> None:
    stream = b"".join(raw for raw, *_ in BLOCKS)
    assert fed(kernels.SSEFramer(), [stream]) == BLOCKS
    assert all(type(frame) is kernels.Frame for frame in fed(kernels.SSEFramer(), [stream]))
    for chunks in cuts(stream):
        frames = fed(kernels.SSEFramer(), chunks)
        assert b"".join(frame.raw for frame in frames) == stream
        assert [tuple(frame[1:]) for frame in frames] == [block[1:] for block in BLOCKS]


@pytest.mark.parametrize(
    "rest", [b"data: z", b"data: z\n", b"event: q\ndata: z\r", b": c", b'{"error": 1}', b"\xef\xbb\xbf"]
)
def test_the_unfinished_rest_is_the_last_frame(kernels: ModuleType, rest: bytes) -> None:
    for chunks in cuts(rest):
        framer = kernels.SSEFramer()
        for chunk in chunks:
            assert framer.feed(chunk) == []
        (frame,) = framer.close()
        assert frame.raw == rest
        assert frame.data == ("z" if b"z" in rest else None)
        assert frame.name == ("q" if b"q" in rest else "")
        assert frame.stray == ('{"error": 1}' if b"{" in rest else None)
        assert framer.close() == []


def test_a_late_lf_begins_the_next_frame(kernels: ModuleType) -> None:
    framer = kernels.SSEFramer()
    assert framer.feed(b"data: a\r\n\r") == [(b"data: a\r\n\r", "", "a", None)]
    assert framer.feed(b"\n") == []
    assert framer.feed(b"data: b\n\n") == [(b"\ndata: b\n\n", "", "b", None)]
    assert framer.feed(b"\r") == [(b"\r", "", None, None)]
    assert framer.feed(b"\n") == []
    assert framer.close() == [(b"\n", "", None, None)]


# ---- NDJSON --------------------------------------------------------------------------------------------------------


def test_lines_become_values(kernels: ModuleType) -> None:
    stream = (
        b'\xef\xbb\xbf{"a":12345678901234567890123}\r\n\n  \t\r\n"a\\u2028"\n'
        + '"\u2028\u0085"\n[1,\t2]\r\n"\\ud83d"\n null \n1.5'.encode()
    )
    for chunks in cuts(stream):
        assert fed(kernels.NDJSONParser(), chunks) == [
            {"a": 12345678901234567890123}, "a\u2028", "\u2028\u0085", [1, 2], "\ud83d", None, 1.5,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{x}", "not JSON: .* at character 2"),
        (b"1 2", "not JSON: Extra data at character 3"),
        (b'"\xff"', "not UTF-8 at byte 2"),
        (b"NaN", "not JSON: NaN is no JSON value"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b"[" * 300 + b"]" * 300, "nested deeper than 256 levels"),
        (b"1" * 5000, "more than 4300 digits"),
        (b"1\r2", "not JSON: Extra data"),
    ],
)
def test_a_bad_line_is_named_and_left_out(kernels: ModuleType, line: bytes, problem: str) -> None:
    for chunks in cuts(b"1\n\n" + line + b"\n2\n" + line):
        parser = kernels.NDJSONParser()
        seen: list[Any] = []
        faults: list[str] = []
        for chunk in [*chunks, None]:
            try:
                seen += parser.close() if chunk is None else parser.feed(chunk)
            except ValueError as error:
                faults.append(str(error))
                seen += error.before
                seen += parser.feed(b"")
        assert seen == [1, 2]
        assert len(faults) == 2
        assert faults[0].startswith("line 3 is ")
        assert faults[1].startswith("line 5 is ")
        with pytest.raises(ValueError, match=problem):
            raise ValueError(faults[0])


def test_a_line_is_bounded(kernels: ModuleType) -> None:
    for kind in ("NDJSONParser", "LineFramer"):
        for chunks in cuts(b'1\n"456789"\r\n"4567890"\r'):
            parser = getattr(kernels, kind)(limit=9)
            with pytest.raises(ValueError, match=r"line 3 is longer than 9 bytes \(limits\.event\)"):
                feed_all(parser, chunks, [])
            with pytest.raises(ValueError, match=r"line 3 is longer than 9 bytes"):
                parser.feed(b"\n")


def test_line_frames_carry_their_bytes(kernels: ModuleType) -> None:
    stream = b'\xef\xbb\xbf{"a":1}\r\n\n \r\nnot json \xff\n{"cut"'
    for chunks in cuts(stream):
        assert fed(kernels.LineFramer(), chunks) == [
            (b'\xef\xbb\xbf{"a":1}\r\n', "", '{"a":1}', None),
            (b"\n", "", None, None),
            (b" \r\n", "", None, None),
            (b"not json \xff\n", "", "not json \ufffd", None),
            (b'{"cut"', "", '{"cut"', None),
        ]


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer", "NDJSONParser", "LineFramer", "ArrayFramer"])
@pytest.mark.parametrize("limit", [-1, 2**70, 1.5, "x", None, True])
def test_a_limit_that_is_no_number_of_bytes_is_refused(kernels: ModuleType, kind: str, limit: Any) -> None:
    with pytest.raises(ValueError, match="limit must be an int of bytes, 0 or more"):
        getattr(kernels, kind)(limit)
