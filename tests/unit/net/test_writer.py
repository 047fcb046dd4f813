"""The client's leg: framing and ends."""

from __future__ import annotations

from gai_fast.net.writer import ResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Fixture:
    def __init__(self, *, chunked: bool = True) -> None:
        self.written: list[bytes] = []
        self.writer = ResponseWriter(self, chunked=chunked)
        self.writer.start(HEAD)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def lend(self, borrower: object) -> int:
        return -1


def test_the_head_goes_out_with_the_first_bytes_in_one_write() -> None:
    stream = Fixture()
    assert stream.written == []
    stream.writer.write([b"data: ", b"1\n\n"])
    assert stream.written == [HEAD + b"9\r\ndata: 1\n\n\r\n"]


def test_the_head_can_go_out_alone_and_only_once() -> None:
    stream = Fixture()
    stream.writer.flush()
    stream.writer.flush()
    stream.writer.write([b"x"])
    assert stream.written == [HEAD, b"1\r\nx\r\n"]


def test_last_bytes_and_last_chunk_are_one_write() -> None:
    stream = Fixture()
    stream.writer.end([b"b", b"ye"])
    assert stream.written == [HEAD + b"3\r\nbye\r\n0\r\n\r\n"]


def test_an_end_without_bytes_is_the_last_chunk_alone() -> None:
    stream = Fixture()
    stream.writer.write([b"x"])
    stream.writer.end([])
    assert stream.written == [HEAD + b"1\r\nx\r\n", b"0\r\n\r\n"]


def test_an_end_with_nothing_but_empty_pieces_is_no_empty_chunk() -> None:
    stream = Fixture()
    stream.writer.end([b"", b""])
    assert stream.written == [HEAD + b"0\r\n\r\n"]


def test_an_end_at_once_has_its_head() -> None:
    for chunked, last in ((True, b"0\r\n\r\n"), (False, b"")):
        stream = Fixture(chunked=chunked)
        stream.writer.end([])
        assert stream.written == [HEAD + last]


def test_without_chunks_the_bytes_stand_alone() -> None:
    stream = Fixture(chunked=False)
    stream.writer.write([b"x"])
    stream.writer.end([b"y"])
    assert b"".join(stream.written) == HEAD + b"xy"


def test_the_framing_is_told_in_a_header() -> None:
    assert Fixture().writer.framing == [("transfer-encoding", "chunked")]
    assert Fixture(chunked=False).writer.framing == []
