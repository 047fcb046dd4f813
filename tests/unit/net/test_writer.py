"""The client's leg: framing, ends, and clients that take nothing."""

from __future__ import annotations

from gai_fast.net.writer import ResponseWriter
from tests.unit.net.fakes import FakeTime, FakeTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Fixture:
    def __init__(self, *, chunked: bool = True) -> None:
        self.transport = FakeTransport()
        self.timers = FakeTime()
        self.ends = 0
        self.writer = ResponseWriter(
            self.transport,
            timers=self.timers,
            clock=self.timers.clock,
            write_timeout=30,
            chunked=chunked,
            on_end=self._ended,
        )

    def _ended(self) -> None:
        self.ends += 1

    @property
    def bytes(self) -> bytes:
        return b"".join(self.transport.written)


def test_the_head_goes_out_with_the_first_bytes_in_one_write() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    assert stream.transport.written == []
    stream.writer.write(b"data: 1\n\n")
    assert stream.transport.written == [HEAD + b"9\r\ndata: 1\n\n\r\n"]


def test_the_head_can_go_out_alone_and_only_once() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.flush_head()
    stream.writer.flush_head()
    stream.writer.write(b"x")
    assert stream.transport.written == [HEAD, b"1\r\nx\r\n"]


def test_last_bytes_and_last_chunk_are_one_write() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.end(b"bye")
    assert stream.transport.written == [HEAD + b"3\r\nbye\r\n0\r\n\r\n"]
    assert stream.ends == 1


def test_an_end_without_bytes_is_the_last_chunk_alone() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.write(b"x")
    stream.writer.end(b"")
    assert stream.bytes == HEAD + b"1\r\nx\r\n0\r\n\r\n"


def test_without_chunks_the_bytes_stand_alone() -> None:
    stream = Fixture(chunked=False)
    stream.writer.start(HEAD)
    stream.writer.write(b"x")
    stream.writer.end(b"y")
    assert stream.bytes == HEAD + b"xy"


def test_a_response_ends_once() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.end(b"")
    stream.writer.end(b"more")
    stream.writer.send_whole(HEAD, b"more")
    stream.writer.lost()
    assert stream.bytes == HEAD + b"0\r\n\r\n"
    assert stream.ends == 1


def test_nothing_is_written_to_a_connection_that_closes() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.transport.aborted = True
    stream.writer.write(b"x")
    assert stream.transport.written == []


def test_a_client_that_takes_nothing_is_cut_off_after_the_write_timeout() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.write(b"x")
    stream.timers.advance(30)
    assert not stream.transport.aborted, "the first look only notes how far the client is"
    stream.timers.advance(30)
    assert stream.transport.aborted
    assert stream.ends == 1


def test_a_client_that_takes_one_byte_is_kept() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.write(b"x" * 100)
    for _ in range(5):
        stream.timers.advance(30)
        stream.transport.unsent -= 1
    assert not stream.transport.aborted


def test_a_silent_stream_is_no_slow_client() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.write(b"x")
    stream.transport.unsent = 0
    for _ in range(5):
        stream.timers.advance(30)
    assert not stream.transport.aborted


def test_an_ended_response_is_watched_until_it_is_sent() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.end(b"x")
    stream.timers.advance(30)
    stream.timers.advance(30)
    assert stream.transport.aborted, "a client that never reads would hold its connection for ever"


def test_a_lost_connection_is_watched_no_more() -> None:
    stream = Fixture()
    stream.writer.start(HEAD)
    stream.writer.write(b"x")
    stream.writer.lost()
    stream.timers.advance(90)
    assert not stream.transport.aborted
    assert stream.ends == 1
