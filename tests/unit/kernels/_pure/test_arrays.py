"""`ArrayFramer`: one JSON array in pieces becomes its elements, however it is cut."""

from __future__ import annotations

import json

import pytest

from gai_fast.kernels._pure.arrays import ArrayFramer
from gai_fast.kernels._pure.faults import FeedError
from gai_fast.kernels._pure.parsers import Frame
from tests.kernels import cuts, fed

VALUES = [{"a": '}]"\\', "b": [[], {"c": ["é😀"]}]}, [], {}, [1, [2]], {"text": "[{,"}]


def texts(frames: list[Frame]) -> list[str]:
    return [frame.data for frame in frames if frame.data is not None]


@pytest.mark.parametrize("indent", [None, 2])
def test_elements_are_the_same_at_every_split(indent: int | None) -> None:
    for body in (json.dumps(VALUES, indent=indent).encode(), json.dumps(VALUES, ensure_ascii=False).encode()):
        for chunks in cuts(b"\xef\xbb\xbf \r\n" + body + b"\n"):
            frames = fed(ArrayFramer(), chunks)
            assert [json.loads(text) for text in texts(frames)] == VALUES


def test_all_raw_bytes_joined_are_the_input() -> None:
    for body in (json.dumps(VALUES, indent=1).encode() + b"\n what follows ]", b'[{"a":1}, {"b"', b"[", b"", b"[1,]"):
        for chunks in cuts(body):
            assert b"".join(frame.raw for frame in fed(ArrayFramer(), chunks)) == body


def test_an_element_is_there_with_its_last_bracket() -> None:
    framer = ArrayFramer()
    assert framer.feed(b'[{"a":') == []
    assert texts(framer.feed(b"{}}")) == ['{"a":{}}']
    assert texts(framer.feed(b"\n,\r\n[1")) == []
    assert texts(framer.feed(b"]")) == ["[1]"]


def test_what_is_no_object_or_array_ends_at_the_comma_or_the_bracket() -> None:
    for chunks in cuts(b'[1, "a,]" ,null,true]'):
        assert texts(fed(ArrayFramer(), chunks)) == ["1", '"a,]"', "null", "true"]


def test_elements_need_no_comma_and_commas_need_no_element() -> None:
    for chunks in cuts(b'[{"a":1}{"b":2} ,, {"c":3},]'):
        assert texts(fed(ArrayFramer(), chunks)) == ['{"a":1}', '{"b":2}', '{"c":3}']


def test_nothing_behind_the_array_is_an_element_or_is_kept() -> None:
    framer = ArrayFramer(limit=16)
    assert texts(framer.feed(b'[{"a":1}]')) == ['{"a":1}']
    for _ in range(3):
        assert texts(framer.feed(b'{"b":2},{"c":3}')) == []
    assert framer.close() == []


def test_an_unfinished_element_is_the_last_frame() -> None:
    for chunks in cuts(b'[{"a":1},{"b":"'):
        assert texts(fed(ArrayFramer(), chunks)) == ['{"a":1}', '{"b":"']


def test_after_its_end_a_framer_reads_another_array() -> None:
    framer = ArrayFramer()
    assert texts(fed(framer, [b'[{"a":"\\'])) == ['{"a":"\\']
    assert texts(fed(framer, [b"[{}]"])) == ["{}"]


def test_a_passed_limit_is_the_same_fault_at_every_split() -> None:
    body = b'[{"a":1},{"b":"' + b"x" * 40 + b'"},{"c":3}]'
    for chunks in cuts(body):
        framer = ArrayFramer(limit=32)
        seen: list[Frame] = []
        with pytest.raises(FeedError, match=r"longer than 32 bytes \(limits.event\)") as caught:
            for chunk in chunks:
                seen += framer.feed(chunk)
        assert texts([*seen, *caught.value.before]) == ['{"a":1}']
        with pytest.raises(FeedError):
            framer.feed(b"{}")


def test_an_element_of_just_the_limit_passes() -> None:
    body = b'[{"a":1}]'
    for chunks in cuts(body):
        assert texts(fed(ArrayFramer(limit=len(body) - 1), chunks)) == ['{"a":1}']
