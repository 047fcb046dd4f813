"""The writing side of a WebSocket: what it writes, counts, and no longer writes."""

from __future__ import annotations

import zlib
from typing import Any, cast

from gai_fast.server.websocket.deflate import Deflate
from gai_fast.server.websocket.writer import FrameWriter
from gai_fast.server.write_watch import WriteWatch
from gai_fast.timers import TimerWheel
from tests.unit.fake_loop import FakeLoop

TEXT = b"\x81\x02ok"


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing


def made() -> tuple[FrameWriter, Transport, WriteWatch]:
    transport = Transport()
    watch = WriteWatch(cast(Any, transport), TimerWheel(cast(Any, FakeLoop())), 1.0)
    return FrameWriter(cast(Any, transport), watch), transport, watch


def test_frames_are_written_as_they_are_and_counted() -> None:
    writer, transport, watch = made()
    writer.write(TEXT)
    writer.write(TEXT)
    assert (transport.written, watch.written) == (TEXT * 2, len(TEXT) * 2)


def test_nothing_is_written_behind_the_close_nor_to_a_connection_that_ends() -> None:
    writer, transport, watch = made()
    writer.is_closed = True
    writer.write(TEXT)
    writer.is_closed = False
    transport.closing = True
    writer.write(TEXT)
    assert (transport.written, watch.written) == (b"", 0)


def test_compressed_messages_are_counted_as_they_are_sent() -> None:
    writer, transport, watch = made()
    writer.deflate = Deflate(15, has_context=True)
    writer.write(TEXT)
    head, payload = transport.written[:2], transport.written[2:]
    assert head == bytes((0xC1, len(payload)))
    assert zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff") == b"ok"
    assert watch.written == len(transport.written)
