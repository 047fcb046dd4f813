"""Compressed messages: what a client inflates is what was written."""

from __future__ import annotations

import zlib

import pytest

from gai_fast.kernels import frame_messages, head_of
from gai_fast.server.websocket.deflate import Deflate
from tests.unit.kernels._pure.test_messages import messages

PING = b"\x89\x00"
EVENTS = [b'{"type":"text.delta","seq":%d,"text":"w"}' % number for number in range(100)]
LONG = b'{"text":"%b"}' % bytes(range(97, 123)) * 5000


def inflated(frames: bytes, window: int, *, has_context: bool = True) -> list[bytes]:
    """Returns the messages in compressed frames."""
    stream = zlib.decompressobj(-window)
    found = []
    at = 0
    while at < len(frames):
        assert frames[at] in (0xC1, 0x89)
        size, begin = frames[at + 1], at + 2
        if size >= 126:
            begin += 2 if size == 126 else 8
            size = int.from_bytes(frames[at + 2 : begin], "big")
        if frames[at] == 0xC1:
            found.append(stream.decompress(frames[begin : begin + size] + b"\0\0\xff\xff"))
            if not has_context:
                stream = zlib.decompressobj(-window)
        at = begin + size
    assert at == len(frames)
    return found


@pytest.mark.parametrize("window", [9, 10, 12, 15])
@pytest.mark.parametrize("has_context", [True, False])
def test_each_message_is_compressed_and_control_frames_are_not(window: int, has_context: bool) -> None:
    deflate = Deflate(window, has_context=has_context)
    texts = [*EVENTS, LONG, LONG[:200]]
    framed = [head_of(len(text)) + text for text in texts]
    written = deflate.compress(b"".join(framed[:3]) + PING + framed[3]) + deflate.compress(PING)
    written += b"".join(map(deflate.compress, framed[4:]))
    assert written.count(PING) >= 2
    assert inflated(written, window, has_context=has_context) == texts


def test_messages_of_the_kernels_are_compressed_as_they_are() -> None:
    frames = b"".join(b"event: x\ndata: %b\n\n" % event for event in EVENTS)
    plain = frame_messages(frames, b'{"stream":"a",')
    written = Deflate(15, has_context=True).compress(plain)
    assert inflated(written, 15) == messages(plain)
    assert len(written) < len(plain) / 2


def test_without_messages_nothing_is_compressed() -> None:
    deflate = Deflate(15, has_context=True)
    assert deflate.compress(b"") == b""
    assert deflate.compress(PING) == PING
