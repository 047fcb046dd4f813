"""Stream sockets that are cheaper to create: the C base class of the standard library's `socket.socket`.

`socket.socket` adds an interpreted `__init__`, and makes an enum member for each read of `family` and `type`. Both
together took a tenth of all instructions for a new client.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

NOT_BLOCKING: Final[int] = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
"""The type of a stream socket that is created non-blocking if the system can do so (Linux)."""

if TYPE_CHECKING:
    StreamSocket = socket.socket
else:
    StreamSocket = socket.SocketType
"""A socket whose `family` and `type` are plain integers; it has no `accept`, `dup` or `with`."""


class ListeningSocket(socket.socket):
    """A listening socket whose `accept` returns a `StreamSocket`."""

    __slots__ = ()

    if not TYPE_CHECKING:
        family = socket.SocketType.family
        type = socket.SocketType.type

    def accept(self) -> tuple[socket.socket, Any]:
        """Accepts a connection; see `socket.socket.accept`.

        Raises:
            OSError: No connection could be accepted.
        """
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # all that the standard library adds is below
        return StreamSocket(self.family, self.type, self.proto, descriptor), address
