"""The client's leg on the wire: one HTTP/1.1 response, written straight to its connection.

Owns chunk framing, and that each turn is one contiguous write: the head goes out with the first bytes, the last chunk
with the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LAST_CHUNK: Final = b"0\r\n\r\n"


class ResponseWriter:
    """Frames one response.

    Args:
        write: Takes bytes for the connection.
        chunked: Frame the body in HTTP chunks; otherwise the end of the connection ends it (HTTP/1.0).
    """

    __slots__ = ("_chunked", "_head", "_write")

    def __init__(self, write: Callable[[bytes], None], *, chunked: bool) -> None:
        self._write = write
        self._chunked = chunked
        self._head = b""

    @property
    def framing(self) -> list[tuple[str, str]]:
        """The header that tells the framing."""
        return [("transfer-encoding", "chunked")] if self._chunked else []

    def start(self, head: bytes) -> None:
        """Begins the response; the head goes out with the first bytes."""
        self._head = head

    def flush_head(self) -> None:
        """Writes the head alone."""
        if self._head:
            self._send(b"")

    def write(self, data: bytes) -> None:
        """Bytes of the body, never none: an empty chunk would be the last."""
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes) -> None:
        """The last bytes of the body, and its proper end."""
        if not self._chunked:
            self._send(data)
        elif data:
            self._send(b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK))
        else:
            self._send(_LAST_CHUNK)

    def _send(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        self._write(data)
