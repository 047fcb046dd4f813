"""`Newest`: the newest response of one WebSocket, which its next turn may continue.

Owns what a socket remembers, whatever the response's `store` says, and its bound. Knows no socket: `websocket/turns.py`
has one for each, `chains.py` asks it first, and `keeping.py` tells it what has ended.

1. There is one at most: a newer one replaces it.
2. A turn that continues it and fails takes it out, as OpenAI's does: what is kept in the store stays there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.server.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.stores.responses import KeptResponse


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

    def note(self, kept: KeptResponse, conversation: list[Any]) -> None:
        """Remembers a response that has ended, in place of the one before.

        Args:
            kept: The response.
            conversation: The items of all turns up to its own, input and output. More than
                `limits.socket_conversation` bytes are not remembered.
        """
        items = encode_json(conversation)
        if len(items) > LIMITS.socket_conversation:
            self.drop()
            return
        self.identifier, self.status, self._items = kept.identifier, kept.status, items

    def find(self, identifier: str) -> list[Any] | None:
        """Returns the items of all turns up to a response, input and output. None if it is not the newest.

        Args:
            identifier: The response's id.
        """
        return cast("list[Any]", parse_exact(self._items.decode())) if self.is_(identifier) else None

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
