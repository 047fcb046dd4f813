"""`Newest`: the newest response of one WebSocket, which its next turn may continue.

Owns what a socket remembers, whatever the response's `store` says, and its bound. Knows no socket: `websocket/turns.py`
has one for each, `chains.py` asks it first, and `keeping.py` tells it what has ended.

1. There is one at most: a newer one replaces it.
2. A turn that continues it and fails takes it out, as OpenAI's does: what is kept in the store stays there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gai_fast.server.limits import LIMITS
from gai_fast.stores.responses import size_of_items

if TYPE_CHECKING:
    from gai_fast.stores.responses import KeptResponse


class Newest:
    """The newest response of one socket, with the turns before it.

    Attributes:
        identifier: Its id; empty if there is none.
    """

    __slots__ = ("_size", "_turns", "identifier")

    def __init__(self) -> None:
        self.identifier = ""
        self._turns: Sequence[KeptResponse] = ()
        self._size = 0

    def note(self, kept: KeptResponse, before: Sequence[KeptResponse]) -> None:
        """Remembers a response that has ended, in place of the one before.

        Args:
            kept: The response.
            before: The turns before, from the first on. With more than `limits.socket_conversation` bytes of items, or
                `limits.socket_chain` turns, none is remembered.
        """
        size = size_of_items(kept)
        if before and before[-1].identifier == self.identifier:
            size += self._size  # nearly always: they were measured
        else:
            size += sum(map(size_of_items, before))
        if size > LIMITS.socket_conversation or len(before) >= LIMITS.socket_chain:
            self.drop()
            return
        self.identifier, self._turns, self._size = kept.identifier, (*before, kept), size

    def find(self, identifier: str) -> Sequence[KeptResponse] | None:
        """Returns the turns up to a response, from the first on. None if it is not the newest.

        Args:
            identifier: The response's id.
        """
        return self._turns if self.is_(identifier) else None

    def is_(self, identifier: str) -> bool:
        """Returns whether a response is the newest.

        Args:
            identifier: The response's id; empty if there is none.
        """
        return bool(identifier) and identifier == self.identifier

    def drop(self) -> None:
        """Forgets the response: rule 2."""
        self.identifier, self._turns, self._size = "", (), 0
