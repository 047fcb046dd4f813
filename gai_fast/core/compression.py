"""Content codings of streams (RFC 9110, 8.4.1): compresses what is written so that the client can read it at once.

Owns which codings exist, whether their library is installed, and the memory that each needs for a stream. Must not know
headers or transports.

A compressor remembers recent output, and most of an event repeats the event before. The figures for memory and size are
for 400 events of `gai.events.v1` in SSE, with one word each, written one by one.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

from gai_fast.kernels import Piece

_ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_BROTLI: Final = "brotli"


class Compressor(Protocol):
    """Compresses the body of one response."""

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """Returns bytes from which a client can read all pieces so far."""

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """Returns the last bytes, including the last pieces."""


_GZIP: Final = 12 + 16
"""zlib's number for a window of 12 bits (4 KiB) and gzip's header."""


class _Gzip:
    """zlib's compression with gzip's header: 36 KiB a stream, 24 % of the size. Higher levels save one more percent."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.compressobj(1, zlib.DEFLATED, _GZIP, 5)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.write`."""
        compressed: bytes = self._stream.compress(b"".join(pieces)) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return compressed

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.end`."""
        compressed: bytes = self._stream.compress(b"".join(pieces)) + self._stream.flush(zlib.Z_FINISH)
        return compressed


class _Zstd:
    """Zstandard: 67 KiB a stream, 31 % of the size. The library's defaults need 800 KiB."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        zstd: Any = import_module(_ZSTD)
        names = zstd.CompressionParameter
        options = {names.compression_level: 1, names.window_log: 14, names.hash_log: 12}
        self._stream = zstd.ZstdCompressor(options=options)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.write`."""
        return self._compress(pieces, self._stream.FLUSH_BLOCK)

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.end`."""
        return self._compress(pieces, self._stream.FLUSH_FRAME)

    def _compress(self, pieces: Sequence[Piece], mode: int) -> bytes:
        compressed: bytes = self._stream.compress(b"".join(pieces), mode)
        return compressed


class _Brotli:
    """Brotli: 292 KiB a stream, 35 % of the size. Quality 2 and below hardly compress with so many flushes."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream: Any = import_module(_BROTLI).Compressor(quality=3, lgwin=14)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.write`."""
        compressed: bytes = self._stream.process(b"".join(pieces)) + self._stream.flush()
        return compressed

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """Works as `Compressor.end`."""
        compressed: bytes = self._stream.process(b"".join(pieces)) + self._stream.finish()
        return compressed


_COMPRESSORS: Final[Mapping[str, Callable[[], Compressor]]] = {"zstd": _Zstd, "gzip": _Gzip, "br": _Brotli}
_LIBRARIES: Final = {"zstd": _ZSTD, "br": _BROTLI}

CODINGS: Final = tuple(_COMPRESSORS)
"""The names of the codings, as in `Accept-Encoding`."""


def compressor(coding: str) -> Compressor:
    """Returns the compressor of one response.

    Args:
        coding: One of `CODINGS`, whose library is installed.
    """
    return _COMPRESSORS[coding]()


def is_available(coding: str) -> bool:
    """Returns whether the library of a coding is installed.

    Args:
        coding: One of `CODINGS`.
    """
    try:
        import_module(_LIBRARIES.get(coding, "zlib"))
    except ImportError:
        return False
    return True
