"""`Newest`: the newest response of one WebSocket, which its next turn may continue.

Owns what a socket remembers, whatever the response's `store` says, and its bound. Knows no socket: `websocket/turns.py`
has one for each, `chains.py` asks it first, and `keeping.py` tells it what has ended.

1. There is one at most: a newer one replaces it.
2. A turn that continues it and fails takes it out, as OpenAI's does: what is kept in the store stays there.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gai_fast.kernels import parse_exact
from gai_fast.server.limits import LIMITS
from gai_fast.stores.responses import KeptResponse


class _Response(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw(b"[]")


_RESPONSE: Final = msgspec.json.Decoder(_Response)


class Newest:
    """The newest response of one socket.

    Attributes:
        identifier: Its id; empty if there is none.
        status: Its status.
    """

    __slots__ = ("_items", "identifier", "status")

    def __init__(self) -> None:
        self.identifier = ""
        self.status = ""
        self._items = b""  # as JSON: its size is known, and who reads it cannot change it

    def note(self, kept: KeptResponse, conversation: bytes) -> None:
        """Remembers a response that has ended, in place of the one before. One with its conversation of more than
        `limits.socket_conversation` bytes is not remembered.

        Args:
            kept: The response.
            conversation: The items of all turns up to its own input, as a JSON array.
        """
        self.drop()
        if len(conversation) > LIMITS.socket_conversation:
            return
        said = bytes(_RESPONSE.decode(kept.response).output)
        items = b"[%b]" % b",".join([part for part in (conversation[1:-1].strip(), said[1:-1].strip()) if part])
        if len(items) <= LIMITS.socket_conversation:
            self.identifier, self.status, self._items = kept.identifier, kept.status, items

    def find(self, identifier: str) -> list[Any] | None:
        """Returns the items of all turns up to a response, input and output. None if it is not the newest.

        Args:
            identifier: The response's id.
        """
        return list(parse_exact(self._items.decode())) if self.is_(identifier) else None

    def is_(self, identifier: str) -> bool:
        """Returns whether a response is the newest.

        Args:
            identifier: The response's id; empty if there is none.
        """
        return bool(identifier) and identifier == self.identifier

    def drop(self) -> None:
        """Forgets the response: rule 2."""
        self.identifier = self.status = ""
        self._items = b""
