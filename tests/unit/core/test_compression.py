"""Content codings: what each write holds can be read at once, and the end is seen."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from gai_fast.core import compression
from gai_fast.core.compression import CODINGS, compressor, is_available

EVENTS = [b'event: text.delta\ndata: {"type":"text.delta","seq":%d,"text":"w"}\n\n' % number for number in range(300)]
every_coding = pytest.mark.parametrize("coding", CODINGS)


def reader(coding: str) -> Callable[[bytes], bytes]:
    """Reads what a client has got so far."""
    if coding == "gzip":
        return zlib.decompressobj(zlib.MAX_WBITS + 16).decompress
    if coding == "zstd":
        zstd: Any = import_module(compression._ZSTD)
        decompress: Callable[[bytes], bytes] = zstd.ZstdDecompressor().decompress
        return decompress
    brotli: Any = import_module("brotli")
    process: Callable[[bytes], bytes] = brotli.Decompressor().process
    return process


@every_coding
def test_every_write_can_be_read_at_once(coding: str) -> None:
    writer, read = compressor(coding), reader(coding)
    sizes = []
    for event in EVENTS:
        written = writer.write([event[:20], memoryview(event)[20:]])
        sizes.append(len(written))
        assert read(written) == event
    assert read(writer.end([b"la", b"st"])) == b"last"
    assert sum(sizes) < sum(map(len, EVENTS)) / 2


@every_coding
def test_an_end_alone_is_a_whole_body(coding: str) -> None:
    assert reader(coding)(compressor(coding).end([])) == b""


@every_coding
def test_what_has_no_end_is_seen_to_be_cut_off(coding: str) -> None:
    cut = compressor(coding).write([b"data: 1\n\n"])
    whole = compressor(coding).end([b"data: 1\n\n"])
    if coding == "gzip":
        assert not _ended(zlib.decompressobj(zlib.MAX_WBITS + 16), cut)
        assert _ended(zlib.decompressobj(zlib.MAX_WBITS + 16), whole)
    elif coding == "zstd":
        zstd: Any = import_module(compression._ZSTD)
        assert not _ended(zstd.ZstdDecompressor(), cut)
        assert _ended(zstd.ZstdDecompressor(), whole)
    else:
        brotli: Any = import_module("brotli")
        for body, is_finished in ((cut, False), (whole, True)):
            decompressor = brotli.Decompressor()
            decompressor.process(body)
            assert decompressor.is_finished() is is_finished


def _ended(decompressor: Any, body: bytes) -> bool:
    decompressor.decompress(body)
    ended: bool = decompressor.eof
    return ended


def test_a_coding_without_its_library_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(map(is_available, CODINGS))
    monkeypatch.setitem(compression._LIBRARIES, "br", "gai_fast.no_such_library")
    assert not is_available("br")
