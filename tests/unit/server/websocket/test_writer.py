"""The writing side of a WebSocket: what it writes, counts, and no longer writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.http.write_watch import WriteWatch
from gai_fast.server.websocket.writer import FrameWriter
from tests.unit.fake_loop import FakeLoop

TEXT = b"\x81\x02ok"
DESCRIPTOR = 7


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closing = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> object:
        return SimpleNamespace(fileno=lambda: DESCRIPTOR) if name == "socket" else None


class Writer:
    """Borrows the socket."""

    ended = 0

    def end_writing(self) -> None:
        self.ended += 1


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
    writer.close()
    writer.write(TEXT)
    assert writer.lend(Writer()) == -1
    assert (transport.written, watch.written) == (b"", 0)
    writer, transport, watch = made()
    transport.closing = True
    writer.write(TEXT)
    assert writer.lend(Writer()) == -1
    assert (transport.written, watch.written) == (b"", 0)


def test_a_socket_is_lent_until_anything_else_is_written() -> None:
    writer, transport, _ = made()
    for take_back in (lambda: writer.write(TEXT), writer.take_back, writer.close):
        borrower = Writer()
        assert writer.lend(borrower) == DESCRIPTOR
        take_back()
        take_back()
        assert borrower.ended == 1
    assert transport.written == TEXT * 2


def test_a_socket_with_unsent_bytes_is_not_lent() -> None:
    writer, transport, _ = made()
    transport.unsent = 1
    assert writer.lend(Writer()) == -1
