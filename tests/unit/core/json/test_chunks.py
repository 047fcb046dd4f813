"""Chunks: their JSON, texts, counts and members verbatim."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.json.chunks import (
    closed,
    completed_frames,
    count,
    holds_text,
    is_comment,
    is_unfinished,
    label,
    member,
    members,
    mended,
    number,
    objects,
    parse_chunk,
    text_of,
    with_null,
    with_null_bytes,
)
from gai_fast.kernels import Frame
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Malformed
from tests.limits import LIMITS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7), ("12", 12), (3.0, 3), (0, 0), (None, None), (True, None), (-1, None), (1.5, None), ("1.5", None),
        ("+5", None), ("", None), ("٣", None), ("9" * 30, None), (2**60, None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_only_whole_numbers_of_sane_size_count(value: Any, expected: int | None) -> None:
    assert count(value) == expected


COMMENTS = ["", " ", "\t\n", ":", ": keepalive", ": OPENROUTER PROCESSING", ": ping - 2026-11-26 09:00:00+00:00"]
WORDS = ["ping", "PING", "pong", "heartbeat", "keep-alive", "keepalive", "KEEP_ALIVE", '"ping"', "[PING]", " ping "]


@pytest.mark.parametrize("data", COMMENTS + WORDS)
def test_data_that_only_keeps_the_connection_open_is_a_comment(data: str) -> None:
    assert is_comment(data)


@pytest.mark.parametrize(
    "data", ["{", "{}", "null", "[]", "x", "ping pong", "pin", '"', ': {"choices": [', ': "x"', ': ["x"]', '"Hi"']
)
def test_data_that_may_hold_text_is_no_comment(data: str) -> None:
    assert not is_comment(data)


@pytest.mark.parametrize("value", [0, 7, -0.5, 1e300])
def test_a_finite_number_is_a_number(value: float) -> None:
    assert number(value) == value


@pytest.mark.parametrize("value", [None, True, "1", [], {}, float("inf"), float("-inf")])
def test_anything_else_is_none(value: Any) -> None:
    assert number(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("x", "x"), ("", ""), (20260611001, "20260611001"), (-1, "-1"), (None, ""), (True, ""), (0.5, ""), ([1], ""),
     ({"x": 1}, ""), (10**30, "")],
)  # fmt: skip
def test_an_id_is_text_or_a_whole_number_and_else_missing(value: Any, expected: str) -> None:
    assert label(value) == expected


@pytest.mark.parametrize("value", [None, 5, "x", [], [{"a": {"b": 1}}], {}, {"a": 5}, {"a": None}, {"a": []}])
def test_a_member_that_is_no_object_is_empty(value: Any) -> None:
    assert member(value, "a") == {}
    assert member({"a": {"b": 1}}, "a") == {"b": 1}


@pytest.mark.parametrize("value", [None, 5, "x", {}, {"a": 1}, [], [1, None, "x", [{}]]])
def test_of_a_list_only_the_objects_are_read(value: Any) -> None:
    assert objects(value) == []
    assert objects([1, {"a": 1}, None, {}]) == [{"a": 1}, {}]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a":NaN,"b":[-Infinity,Infinity]}', '{"a":null,"b":[null,null]}'),
        ('{"NaN":"NaN \\" -Infinity","a":NaN}', '{"NaN":"NaN \\" -Infinity","a":null}'),
        ('{"a":"NaN', '{"a":"NaN'),
        ('{"a":xNaN,"b":NaNx,"c":nan}', '{"a":xNaN,"b":NaNx,"c":nan}'),
        ('{"a":1}', '{"a":1}'),
    ],
)
def test_what_python_writes_for_numbers_that_json_lacks_is_null(text: str, valid: str) -> None:
    assert with_null(text) == valid
    assert (
        with_null_bytes(b'event: "x\ndata: ' + text.encode() + b"\n\n")
        == b'event: "x\ndata: ' + valid.encode() + b"\n\n"
    )


CHUNK = '{"choices":[{"index":0,"delta":{"content":"a"}}]}'
END = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("data", "chunks"),
    [
        (f"{CHUNK}\n{END}", [CHUNK, END]),  # ggml-org/llama.cpp#14268: no blank line stands between two chunks
        (f"{CHUNK}\n\n[DONE]", [CHUNK, "[DONE]"]),
        (f"data: {CHUNK}", [CHUNK]),  # a program frames a text again that is framed already
        (f"data: {CHUNK}\ndata: \ndata:", [CHUNK]),
        ("data: [DONE]", ["[DONE]"]),
        (CHUNK, []),
        (f"{CHUNK}\nnonsense", []),
        ('{"a":\n{}}', []),
        ("data: Hello", []),
        ("", []),
        ("\n" * (LIMITS.joined_chunks + 2) + f"{CHUNK}\n{CHUNK}", []),
    ],
)
def test_chunks_that_are_framed_wrongly_are_frames_of_their_own(data: str, chunks: list[str]) -> None:
    found = mended(Frame(b"raw", "", data, None))
    assert [(frame.raw, frame.data) for frame in found] == [(f"data: {each}\n\n".encode(), each) for each in chunks]
    named = mended(Frame(b"raw", "x", data, None))
    assert [frame.raw for frame in named] == [b"event: x\n" + frame.raw for frame in found]


def test_frames_without_data_have_no_chunks() -> None:
    assert mended(Frame(b"x\n\n", "", None, "x")) == mended(Frame(b": ping\n\n", "", None, None)) == []
    assert mended(Frame(b'{"a":NaN}\n\n', "", None, '{"a":NaN}')) == [Frame(b'{"a":null}\n\n', "", None, '{"a":null}')]


@pytest.mark.parametrize(
    "body",
    [
        f"data: {CHUNK}\ndata: {CHUNK}\ndata: {END}\n\ndata: [DONE]\n\n",
        f"data: data: {CHUNK}\n\ndata: data: {CHUNK}\n\ndata: data: {END}\n\ndata: data: [DONE]\n\n",
        f"data: {CHUNK}\ndata: {CHUNK}\ndata: {END}\ndata: [DONE]\ndata: {CHUNK}\n\n",
    ],
)
def test_an_answer_that_is_framed_wrongly_is_read(body: str) -> None:
    for size in (1, len(body)):
        pieces = [body[at : at + size].encode() for at in range(0, len(body), size)]
        events = list(decode("openai-compatible", pieces))
        assert "".join(event["text"] for event in events if event["type"] == "text.delta") == "aa"
        assert events[-2]["finish_reason"] == "stop"


class TestMembers:
    TEXT = ' {"a" : [ {"b": {"c": 1.10}}, {"x": 0}, {"b": {"c":[1 , {"c": 2}]}}, 7 ], "b": {"c": "no"}} '

    def test_texts_come_verbatim_and_in_order(self) -> None:
        assert list(members(self.TEXT, "a", "b", "c")) == ["1.10", '[1 , {"c": 2}]']

    def test_nothing_is_found_where_nothing_is(self) -> None:
        assert list(members(self.TEXT, "a", "b", "z")) == []
        assert list(members("{}", "a")) == list(members('{"a":[]}', "a", "b")) == list(members("7", "a")) == []


class TestChunks:
    def test_half_a_surrogate_pair_is_read(self) -> None:
        assert parse_chunk('{"a":"\\ud83c"}') == {"a": "\ud83c"}

    @pytest.mark.parametrize("data", ["{", "nonsense", '{"a":NaN}'])
    def test_what_is_not_json_is_malformed(self, data: str) -> None:
        with pytest.raises(Malformed, match="not JSON"):
            parse_chunk(data)

    def test_a_chunk_of_countless_values_is_malformed(self) -> None:
        """Millions of empty lists hold the loop for seconds."""
        most = LIMITS.chunk_containers - 1
        assert parse_chunk("[" + "[],{}," * (most // 2) + "[]]")
        with pytest.raises(Malformed, match="more than 500000 objects and arrays"):
            parse_chunk("[" + "[],{}," * (most // 2) + "[],[]]")

    def test_a_text_is_text_or_absent(self) -> None:
        assert (text_of(None), text_of("a")) == ("", "a")
        with pytest.raises(Malformed, match="JSON int"):
            text_of(1)


@pytest.mark.parametrize(
    ("raw", "data", "completed"),
    [
        (b"data: {}", "{}", b"data: {}\n\n"),
        (b"data: {}\r\n", "{}", b"data: {}\n\n"),
        (b"data: {", "{", b""),
        (b'data: "{"', '"{"', b'data: "{"\n\n'),
        (b"data: ", "", b""),
        (b"event: x", None, b""),
        (b": ping", None, b": ping\n\n"),
        (b"\r\n", None, b"\r\n"),
    ],
)
def test_the_last_frame_is_completed_or_has_no_bytes(raw: bytes, data: str | None, completed: bytes) -> None:
    assert [frame.raw for frame in completed_frames([Frame(raw, "", data, None)])] == [completed]


@pytest.mark.parametrize(
    ("text", "expected"), [("{", True), ("[1]", False), ('"{', False), ('["]"', True), ("", False)]
)
def test_a_text_is_unfinished_whose_brackets_are_open(text: str, expected: bool) -> None:
    assert is_unfinished(text) is expected


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"choices": [{"delta": {"text": "a"}}]}, True),
        ({"output": ["", "a"]}, True),
        ({"id": "a", "model": "b", "choices": [{"delta": {"role": "assistant", "content": " "}}]}, False),
        ({"tools": [{"text": "a"}], "usage": {"text": "a"}, "text": {"format": {"text": "a"}}}, False),
        ({"text": 5, "content": None, "message": "done"}, False),
        ("a", False),
        ([{"content": "a"}], True),
        ({"messages": [{"role": "user", "content": "a"}], "system": [{"type": "text", "text": "a"}]}, False),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, True),
        ({"request": {"content": "a"}, "provider_metadata": {"text": "a"}}, False),
        ({"text": "a", "role": {}}, True),
        ({"delta": {"reasoning_steps": [{"thought": "a"}]}, "search_queries": [{"text": "a"}]}, False),
    ],
)
def test_text_of_an_answer_is_found_by_the_names_of_members(chunk: Any, expected: bool) -> None:
    assert holds_text(chunk) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "bc', {"a": "bc"}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b\\u00e', {"a": "b"}),
        ('{"a": "b\\\\', {"a": "b\\"}),
        ('{"a": "b\\"', {"a": 'b"'}),
        ('{"a": [1, {"b": "c"', {"a": [1, {"b": "c"}]}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": [1, 23', {"a": [1]}),
        ('{"a": [true', {"a": [True]}),
        ('{"a": [tru', {"a": []}),
        ('{"a": "[{,", "b": "', {"a": "[{,", "b": ""}),
        ('{"a": 1}', {"a": 1}),
        ("{", {}),
        ("", None),
        ("nothing", None),
        ("]", None),
    ],
)
def test_a_document_that_was_cut_off_is_closed_behind_what_has_come(text: str, value: Any) -> None:
    assert closed(text) == value


def test_a_number_that_may_lack_digits_is_never_read_wherever_a_document_is_cut() -> None:
    document = {"choices": [{"message": {"content": 'é "\\ \U0001f600'}}], "usage": {"in": 12345, "out": 678}}
    text = json.dumps(document)
    for size in range(len(text)):
        usage = (closed(text[:size]) or {}).get("usage", {})
        assert usage.items() <= document["usage"].items()  # type: ignore[attr-defined]  # a dict
    assert closed(text) == document


def test_a_long_document_is_not_closed() -> None:
    assert closed('{"a": "' + "b" * (LIMITS.cut_off_answer - 7)) is not None
    assert closed('{"a": "' + "b" * (LIMITS.cut_off_answer - 6)) is None
