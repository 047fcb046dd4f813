"""Stream sockets that cost less to make: the class of the interpreter, without what the standard library adds to it.

That is an interpreted `__init__`, and an enum of the family and of the type whenever it is asked for them. Both took a
tenth of all instructions of a new client.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

NOT_BLOCKING: Final[int] = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
"""The type of a socket that does not block from the first, where the system can make one (Linux)."""

if TYPE_CHECKING:
    StreamSocket = socket.socket
else:
    StreamSocket = socket.SocketType
"""A socket whose `family` and `type` are the numbers of the constants; it has no `accept`, `dup` and `with`."""


class ListeningSocket(socket.socket):
    """A listening socket that accepts such sockets."""

    __slots__ = ()

    if not TYPE_CHECKING:
        family = socket.SocketType.family
        type = socket.SocketType.type

    def accept(self) -> tuple[socket.socket, Any]:
        """Accepts a connection; as the standard library's.

        Raises:
            OSError: As that.
        """
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # all that the standard library adds is below
        return StreamSocket(self.family, self.type, self.proto, descriptor), address
