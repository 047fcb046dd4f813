"""`Newest`: the newest response of one WebSocket, which its next turn may continue.

Owns what a socket remembers, whatever the response's `store` says, and its bound. Knows no socket: `websocket/turns.py`
has one for each, `chains.py` asks it before the store, and `keeping.py` hands it each response that has ended.

1. There is one at most: a newer one replaces it.
2. A turn that continues it and fails takes it out, as OpenAI's does: what is kept in the store stays there.
3. Of each turn only the items are held: a `response` repeats the instructions and the tools of its request, and a
   thousand turns would repeat them a thousand times. Long responses are read beside the loop.
4. All sockets of a worker together remember `limits.socket_conversations` bytes. Beyond it the caller with the most
   makes room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gai_fast.core.requests.stored_ids import response_of_item
from gai_fast.formats.responses.chain import read_members
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.beside import Beside
from gai_fast.runtime.breathing import breathe
from gai_fast.server.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.stores.responses import KeptResponse


class Remembered:
    """What all sockets of a worker remember: rule 4.

    Attributes:
        size: The bytes of it.
    """

    __slots__ = ("_newest", "size")

    def __init__(self) -> None:
        self.size = 0
        self._newest: dict[Newest, str] = {}  # those that have one, and their callers

    def note(self, newest: Newest, caller: str, added: int) -> None:
        """Notes that a socket remembers more, or less.

        Args:
            newest: The socket's.
            caller: Its caller.
            added: The bytes; below zero: it has forgotten as many.
        """
        self.size += added
        if newest.size:
            self._newest[newest] = caller
        else:
            self._newest.pop(newest, None)
        if added > 0 and self.size > LIMITS.socket_conversations:  # `forget` notes what each socket has dropped
            self.forget(self.size - LIMITS.socket_conversations)

    def forget(self, size: int) -> int:
        """Drops what sockets remember, of the caller with the most first, and of its own the largest.

        A client that continues such a response gets `previous_response_not_found`, and sends the whole conversation.

        Args:
            size: The number of bytes to free; fewer are freed if sockets do not remember as much.

        Returns:
            The number of freed bytes.
        """
        of_callers: dict[str, list[Newest]] = {}
        for newest, caller in self._newest.items():
            of_callers.setdefault(caller, []).append(newest)
        left = [(sum([each.size for each in own]), caller) for caller, own in of_callers.items()]
        for own in of_callers.values():
            own.sort(key=lambda each: each.size)
        freed = 0
        while left and freed < size:
            most = max(left)
            left.remove(most)
            own = of_callers[most[1]]
            largest = own.pop()
            freed += largest.size
            if own:
                left.append((most[0] - largest.size, most[1]))
            largest.drop()
        return freed


class Newest:
    """The newest response of one socket, with the turns before it.

    Args:
        beside: Reads long responses. None if all are read at once.
        caller: The caller that this is counted for.
        remembered: Counts the bytes of all sockets. None if they are not counted.

    Attributes:
        identifier: Its id; empty if there is none.
        size: The bytes of all items.
    """

    __slots__ = ("_beside", "_caller", "_is_closed", "_remembered", "_turns", "_waited", "identifier", "size")

    def __init__(
        self, beside: Beside | None = None, caller: str = ANONYMOUS, remembered: Remembered | None = None
    ) -> None:
        self._beside = beside
        self._caller = caller
        self._remembered = remembered
        self._is_closed = False
        self._waited = ""  # the id of a response that is being read
        self.identifier = ""
        self._turns: Sequence[KeptResponse] = ()
        self.size = 0

    def note(self, kept: KeptResponse, before: Sequence[KeptResponse]) -> asyncio.Future[Any] | None:
        """Remembers a response that has ended, in place of the one before.

        Args:
            kept: The response.
            before: The turns before, from the first on. With more than `limits.socket_conversation` bytes of items, or
                `limits.socket_chain` turns, none is remembered.

        Returns:
            None, or what is done once it is remembered.
        """
        turns: Sequence[KeptResponse] = ()
        size = 0
        new: Sequence[KeptResponse] = (*before, kept)
        if before and before[-1].identifier == self.identifier:  # nearly always
            turns, size, new = self._turns, self.size, (kept,)
        self.drop()
        if len(before) >= LIMITS.socket_chain or self._is_closed:
            return None
        read = partial(_read, turns, size, new)
        beside = self._beside
        if beside is None or sum([len(each.response) for each in new]) <= LIMITS.socket_read:
            self._use(kept.identifier, *read())
            return None
        self._waited = kept.identifier
        try:
            done = beside.do(read, self._caller)
        except Error:  # too much waits: the response is not remembered
            return None
        done.add_done_callback(partial(self._noted, kept.identifier))
        return done

    def _noted(self, identifier: str, done: asyncio.Future[tuple[Sequence[KeptResponse], int]]) -> None:
        if identifier == self._waited and not done.cancelled() and done.exception() is None:
            self._use(identifier, *done.result())

    def _use(self, identifier: str, turns: Sequence[KeptResponse], size: int) -> None:
        before = self.size
        self.identifier, self._turns, self.size = identifier if turns else "", turns, size
        if self._remembered is not None and size != before:
            self._remembered.note(self, self._caller, size - before)

    def find(self, identifier: str) -> Sequence[KeptResponse] | None:
        """Returns the turns up to a response, from the first on. None if it is not the newest.

        Args:
            identifier: The response's id.
        """
        return self._turns if self.is_(identifier) else None

    def holding(self, item_ids: Iterable[str]) -> dict[str, KeptResponse]:
        """Returns the turns with items, by the items' ids; as `KeptResponses.holding`.

        Args:
            item_ids: The ids.
        """
        if not self._turns:
            return {}
        turns = {each.identifier: each for each in self._turns}
        indexed = {item: each for each in self._turns for item in each.items}
        found = {each: indexed.get(each) or turns.get(response_of_item(each)) for each in item_ids}
        return {item: kept for item, kept in found.items() if kept is not None}

    def is_(self, identifier: str) -> bool:
        """Returns whether a response is the newest.

        Args:
            identifier: The response's id; empty if there is none.
        """
        return bool(identifier) and identifier == self.identifier

    def drop(self) -> None:
        """Forgets the response: rule 2."""
        self._waited = ""
        self._use("", (), 0)

    def close(self) -> None:
        """Forgets the response, and remembers none any more: the socket has ended."""
        self._is_closed = True
        self.drop()


def _read(turns: Sequence[KeptResponse], size: int, new: Iterable[KeptResponse]) -> tuple[Sequence[KeptResponse], int]:
    """Returns turns with further ones, with only their items, and their bytes. None if these are too many."""
    found = [*turns]
    for each in new:
        breathe()
        items = each._replace(response=read_members(each))
        size += len(items.input) + len(items.response)
        if size > LIMITS.socket_conversation:
            return (), 0
        found.append(items)
    return tuple(found), size
