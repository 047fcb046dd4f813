"""Chunked bodies, one rule a test; that the native class equals this one is `tests/parity/test_chunked.py`."""

from __future__ import annotations

import pytest

from gai_fast.kernels._pure.chunked import ChunkedBody


def read(*pieces: bytes) -> tuple[ChunkedBody, bytes]:
    body = ChunkedBody()
    return body, b"".join(body.feed(piece) for piece in pieces)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


WHOLE = b"5\r\nhello\r\n1;ext=1\r\n,\r\nA\r\n 0123456\r\n\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("pieces", [[WHOLE], one_by_one(WHOLE)])
def test_the_data_of_the_chunks_is_returned_and_the_end_is_seen(pieces: list[bytes]) -> None:
    body, data = read(*pieces)
    assert data == b"hello, 0123456\r\n"
    assert body.complete
    assert body.rest == 0


def test_a_long_line_is_the_same_in_one_read_and_in_many() -> None:
    for line in (b"1" + b";" + b"x" * 99, b"000000000000001 " + b"y" * 99 + b"\t"):
        for end, complete in ((b"\r\na\r\n0\r\nT: " + b"z" * 99 + b"\r\n\r\n", True), (b"\rx", False), (b"\0", False)):
            for pieces in ([line + end], one_by_one(line + end)):
                body = ChunkedBody()
                data = b""
                for piece in pieces:
                    data += b"" if body.broken else body.feed(piece)
                assert (data, body.complete, body.broken) == (b"a" * complete, complete, not complete)


def test_bytes_behind_the_end_are_counted_and_not_taken() -> None:
    body, data = read(b"1\r\na\r\n0\r\n\r\nHTTP/1.1")
    assert data == b"a"
    assert body.rest == len(b"HTTP/1.1")


def test_overhead_is_what_came_since_the_last_byte_of_data() -> None:
    assert read(b"5\r\nhello")[0].overhead == 0
    assert read(b"5\r\nhello\r\n1;")[0].overhead == len(b"\r\n1;")


@pytest.mark.parametrize(
    "broken",
    [
        b"\r\n",
        b"x",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1\n",
        b"1;\n",
        b"1;\0\r\n",
        b"1\rx",
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\rx",
        b"0\r\n\n",
        b"0\r\nA: b\n",
        b"0\r\n\rx",
        b"0\r\nA\0\r\n",
        b"0" * 16,
    ],
)
def test_anything_else_is_broken_and_what_came_before_is_returned(broken: bytes) -> None:
    for pieces in ([b"2\r\nok\r\n" + broken], one_by_one(b"2\r\nok\r\n" + broken)):
        body = ChunkedBody()
        data = b""
        for piece in pieces:
            data += body.feed(piece)
            if body.broken:
                break
        assert body.broken
        assert not body.complete
        assert data.startswith(b"ok")
