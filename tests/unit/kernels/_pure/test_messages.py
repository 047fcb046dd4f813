"""WebSocket messages, on both implementations."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from gai_fast.kernels._pure.messages import head_of
from tests.integration.websocket import frame

LEAD = b'{"stream":"a",'


def messages(data: bytes) -> list[bytes]:
    """Returns the payloads of whole text frames."""
    found = []
    while data:
        assert data[0] == 0x81
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
            assert size > 125
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
            assert size > 65535
        found.append(data[at : at + size])
        assert len(found[-1]) == size
        data = data[at + size :]
    return found


def test_each_event_is_one_message_that_begins_with_its_stream(kernels: ModuleType) -> None:
    frames = b'event: start\ndata: {"type":"start"}\n\nevent: done\ndata: {"type":"done","finished":true}\n\n'
    assert messages(kernels.frame_messages(frames, LEAD)) == [
        b'{"stream":"a","type":"start"}',
        b'{"stream":"a","type":"done","finished":true}',
    ]


def test_the_id_of_an_event_is_a_member_behind_its_stream(kernels: ModuleType) -> None:
    frames = b'event: start\nid: s.1\nretry: 5\ndata: {"type":"start"}\n\nevent: done\ndata: {"type":"done"}\n\n'
    assert messages(kernels.frame_messages(frames, LEAD)) == [
        b'{"stream":"a","id":"s.1","type":"start"}',
        b'{"stream":"a","type":"done"}',
    ]


@pytest.mark.parametrize("frames", [b"", b": ping\n", b": ping\n\n", b"id: s.1\n\n", b"data: \n\n", b"\n"])
def test_frames_without_an_event_have_no_message(kernels: ModuleType, frames: bytes) -> None:
    assert kernels.frame_messages(frames, LEAD) == b""


@pytest.mark.parametrize("size", [0, 1, 80, 90, 125, 126, 127, 60_000, 65_535, 65_536, 70_000])
def test_a_message_of_any_length_has_the_right_head(kernels: ModuleType, size: int) -> None:
    data = b'event: text.delta\ndata: {"text":"%b"}\n\n' % (b"x" * size)
    (message,) = messages(kernels.frame_messages(data, LEAD))
    assert json.loads(message) == {"stream": "a", "text": "x" * size}


NAME = b"event: response."
CREATED = b'event: response.created\ndata: {"type":"response.created"}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'


@pytest.mark.parametrize("frames", [CREATED, DELTA * 3, CREATED + DELTA * 2 + CREATED + DELTA])
def test_events_with_names_are_messages(kernels: ModuleType, frames: bytes) -> None:
    expected = [line[6:] for line in frames.split(b"\n") if line.startswith(b"data: ")]
    assert messages(kernels.event_messages(frames, NAME)) == expected
    assert kernels.event_messages(frames, NAME) == kernels.frame_messages(frames, b"{")


@pytest.mark.parametrize("size", [0, 100, 117, 118, 65_527, 65_528, 70_000])
def test_an_event_of_any_length_is_a_message(kernels: ModuleType, size: int) -> None:
    frames = b'event: \ndata: {"a":"%b"}\n\n' % (b"x" * size) * 3
    assert messages(kernels.event_messages(frames, b"event: ")) == [b'{"a":"%b"}' % (b"x" * size)] * 3


@pytest.mark.parametrize(
    "frames",
    [
        *(b"", b"\n", b"\n\n\n", b": ping\n\n", DELTA + b": ping\n\n", b": ping\n" + DELTA, b"id: a.1\n" + DELTA),
        *(DELTA + b"id: a.1\n" + DELTA, DELTA[:-1], DELTA[:-2], DELTA + b"\n", DELTA + DELTA[:-1], DELTA + DELTA[:20]),
        *(DELTA + b"event: error\ndata: {}\n\n", b'data: {"a":1}\n\n', DELTA.replace(b"\n", b"\r\n")),
        *(DELTA.replace(b": {", b":{"), DELTA.replace(b"data", b"dat"), DELTA.replace(b'"a"', b'"a\r"')),
        *(DELTA.replace(b'{"delta":"a"}', b"[DONE]"), DELTA.replace(b':"', b':\ndata: "'), b"event: response.x\n\n"),
        DELTA + DELTA.replace(b'"}', b'"\ndata: }'),
    ],
)
def test_frames_of_another_form_are_left(kernels: ModuleType, frames: bytes) -> None:
    assert kernels.event_messages(frames, NAME) is None


def test_the_beginning_of_a_frame_is_that_of_its_name(kernels: ModuleType) -> None:
    assert kernels.event_messages(DELTA, b"event") is None
    assert kernels.event_messages(DELTA, b"data: {") is None
    assert kernels.event_messages(DELTA, b"event: response.output_text.delta") is not None


def test_a_head_names_the_kind_of_its_frame() -> None:
    assert head_of(2, 0x88) == b"\x88\x02"
    assert head_of(300) == b"\x81\x7e\x01\x2c"


def delta(seq: int) -> bytes:
    return b'event: text.delta\ndata: {"type":"text.delta","seq":%d,"text":"x"}\n\n' % seq


DONE = b'event: done\ndata: {"type":"done","finished":true}\n\n'


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (b"", 0),
        (b": ping\n", 0),
        (DONE, 0),
        (delta(7), 7),
        (delta(7) + delta(8) + DONE, 8),
        (delta(7)[:-2], 7),
        (b'event: tool.call\ndata: {"type":"tool.call","seq":3,"tool_call":{"input":{"seq":9,"data: {":1}}}\n\n', 3),
        (delta(2) + b'event: x\ndata: {"type":"x","text":"data: { \\"seq\\":5"}\n\n', 2),
    ],
)
def test_the_last_number_in_frames_is_found(kernels: ModuleType, frames: bytes, expected: int) -> None:
    assert kernels.last_seq(frames) == expected


@pytest.mark.parametrize("payload", [b"", b"x", b"four", b"\x00\xff" * 40_000])
def test_a_payload_loses_its_mask(kernels: ModuleType, payload: bytes) -> None:
    data = frame(payload)
    assert kernels.unmasked(data, len(data) - len(payload)) == payload


@pytest.mark.parametrize("at", [-1, 0, 3, 8])
def test_a_payload_without_a_mask_is_an_error(kernels: ModuleType, at: int) -> None:
    with pytest.raises(ValueError, match="there is no mask"):
        kernels.unmasked(b"1234567", at)
