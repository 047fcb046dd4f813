"""The client's leg: framing and ends."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from gai_fast.core.compression import compressor
from gai_fast.kernels import Piece
from gai_fast.net.logs.writer import HTTP_CHUNKS, PLAIN, BodyFraming, ResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Fixture:
    def __init__(self, framing: BodyFraming = HTTP_CHUNKS, head: bytes = HEAD) -> None:
        self.written: list[bytes] = []
        self.writer = ResponseWriter(self)
        self.writer.start(head, framing)

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
    for framing, last in ((HTTP_CHUNKS, b"0\r\n\r\n"), (PLAIN, b"")):
        stream = Fixture(framing)
        stream.writer.end([])
        assert stream.written == [HEAD + last]


def test_without_chunks_the_bytes_stand_alone() -> None:
    stream = Fixture(PLAIN)
    stream.writer.write([b"x"])
    stream.writer.end([b"y"])
    assert b"".join(stream.written) == HEAD + b"xy"


def test_a_framing_is_announced_in_a_header() -> None:
    assert list(HTTP_CHUNKS.headers) == [("transfer-encoding", "chunked")]
    assert list(PLAIN.headers) == []


def test_a_head_that_the_transport_sends_itself_is_not_written() -> None:
    stream = Fixture(head=b"")
    stream.writer.flush()
    stream.writer.write([b"x"])
    assert stream.written == [b"1\r\nx\r\n"]


def test_an_end_of_nothing_writes_nothing() -> None:
    stream = Fixture(PLAIN, head=b"")
    stream.writer.end([])
    assert stream.written == []


def test_a_fast_path_may_write_once_the_head_has_gone_out_and_only_chunks() -> None:
    stream = Fixture()
    assert stream.writer.direct is None
    stream.writer.flush()
    assert stream.writer.direct is stream
    assert Fixture(PLAIN, head=b"").writer.direct is None


def test_another_framing_is_a_parameter() -> None:
    class Lines(BodyFraming):
        def frame(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
            return b"".join((head, *pieces, b"\n"))

    stream = Fixture(Lines())
    stream.writer.write([b"a", b"b"])
    stream.writer.end([b"c"])
    assert stream.written == [HEAD + b"ab\n", b"c"]


def test_a_compressed_body_has_no_direct_way() -> None:
    stream = Fixture()
    stream.writer.flush()
    assert stream.writer.direct is not None
    stream.writer.start(b"", HTTP_CHUNKS, compressor("gzip"))
    assert stream.writer.direct is None


def test_each_write_of_a_compressed_body_is_one_chunk_that_can_be_read_at_once() -> None:
    stream = Fixture()
    stream.writer.start(HEAD, HTTP_CHUNKS, compressor("gzip"))
    reader = zlib.decompressobj(zlib.MAX_WBITS + 16)
    stream.writer.write([b"data: ", memoryview(b"1\n\n")])
    head, written = stream.written[0][: len(HEAD)], stream.written[0][len(HEAD) :]
    size, _, rest = written.partition(b"\r\n")
    assert head == HEAD
    assert reader.decompress(rest[: int(size, 16)]) == b"data: 1\n\n"
    stream.writer.end([])
    size, _, rest = stream.written[1].partition(b"\r\n")
    assert reader.decompress(rest[: int(size, 16)]) == b""
    assert reader.eof
    assert rest.endswith(b"\r\n0\r\n\r\n")
