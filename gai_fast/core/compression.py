"""Content codings of streams (RFC 9110, 8.4.1): what is written is compressed, and can be read at once.

Owns which codings there are, whether their library is installed, and the memory that each takes for a stream. Knows no
header and no transport.

A compressor remembers what it has written last, and most of an event is the same as in the one before. The figures of
memory and size are those of 400 events of `gai.events.v1` in SSE, with a word each and written one by one.
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
        """Returns bytes from which a client can read all of the pieces, and all before them."""

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """Returns the last bytes, those of the pieces among them."""


_WINDOW: Final = 12
"""4 KiB, in bits."""


def _zlib(window: int) -> Any:
    """36 KiB a stream, 24 % of the size: a window of 4 KiB, and level 1, since higher ones save one more percent."""
    return zlib.compressobj(1, zlib.DEFLATED, window, 5)


def raw_deflate(window: int) -> Any:
    """Returns a compressor of zlib without its own header, which takes as much memory as `gzip`.

    Args:
        window: The largest window, in bits, that the reader has: 9 to 15.
    """
    return _zlib(-min(window, _WINDOW))


class _Gzip:
    """zlib's compression in gzip's header."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = _zlib(_WINDOW + 16)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.write`."""
        compressed: bytes = self._stream.compress(b"".join(pieces)) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return compressed

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.end`."""
        compressed: bytes = self._stream.compress(b"".join(pieces)) + self._stream.flush(zlib.Z_FINISH)
        return compressed


class _Zstd:
    """67 KiB a stream, 31 % of the size; its defaults take 800 KiB."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        zstd: Any = import_module(_ZSTD)
        names = zstd.CompressionParameter
        options = {names.compression_level: 1, names.window_log: 14, names.hash_log: 12}
        self._stream = zstd.ZstdCompressor(options=options)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.write`."""
        return self._compress(pieces, self._stream.FLUSH_BLOCK)

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.end`."""
        return self._compress(pieces, self._stream.FLUSH_FRAME)

    def _compress(self, pieces: Sequence[Piece], mode: int) -> bytes:
        compressed: bytes = self._stream.compress(b"".join(pieces), mode)
        return compressed


class _Brotli:
    """292 KiB a stream, 35 % of the size; quality 2 and below hardly compress what is flushed so often."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream: Any = import_module(_BROTLI).Compressor(quality=3, lgwin=14)

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.write`."""
        compressed: bytes = self._stream.process(b"".join(pieces)) + self._stream.flush()
        return compressed

    def end(self, pieces: Sequence[Piece]) -> bytes:
        """As `Compressor.end`."""
        compressed: bytes = self._stream.process(b"".join(pieces)) + self._stream.finish()
        return compressed


_COMPRESSORS: Final[Mapping[str, Callable[[], Compressor]]] = {"zstd": _Zstd, "gzip": _Gzip, "br": _Brotli}
_LIBRARIES: Final = {"zstd": _ZSTD, "br": _BROTLI}

CODINGS: Final = tuple(_COMPRESSORS)
"""The names of the codings, as in `Accept-Encoding`."""


def compressor(coding: str) -> Compressor:
    """Makes the compressor of one response.

    Args:
        coding: One of `CODINGS`, whose library is installed.
    """
    return _COMPRESSORS[coding]()


def is_available(coding: str) -> bool:
    """Whether the library of a coding is installed.

    Args:
        coding: One of `CODINGS`.
    """
    try:
        import_module(_LIBRARIES.get(coding, "zlib"))
    except ImportError:
        return False
    return True
