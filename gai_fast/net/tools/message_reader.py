"""What a server sends is read in its order: little of it at once, large messages beside the loop.

1. A message of more than `limits.list_turn` bytes is read and checked beside the loop, in its caller's turn; what has
   come behind it waits.
2. Of many small messages, `limits.messages_turn` are read before other work has its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from gai_fast.model.errors import Error
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ServerMessage, ToolServerError, read_messages
from gai_fast.runtime.beside import LARGE_REQUESTS

_T = TypeVar("_T")

Beside = Callable[[str, Callable[[], Any]], Awaitable[Any]]
"""Does work of a caller beside the loop, and returns its result: as `Streams.beside`."""


async def sized_work(beside: Beside | None, size: int, caller: str, work: Callable[[], _T]) -> _T:
    """Does work on what a server has sent: rule 1.

    Args:
        beside: Does it if it is much. None: it is done at once; nobody waits for this loop.
        size: The bytes that were sent.
        caller: The name of the caller that it is for. Empty if it is for none.
        work: It shares nothing that changes with the loop.

    Raises:
        ToolServerError: `wait`: too much work waits; or from `work`.
    """
    if beside is None or size <= LIMITS.list_turn:
        return work()
    try:
        found: _T = await beside(caller, work)
    except Error as problem:
        if problem.reason != LARGE_REQUESTS:
            raise
        text = "there is no room to read what it sends (limit beside_waiting)"
        raise ToolServerError(text, "wait", may_have_run=True) from None
    return found


class MessageReader:
    """Reads the messages of one stream in their order. Belongs to one loop.

    Args:
        beside: As in `sized_work`.
        taken: Called with the messages of each text, or with why it has none.
        paused: Called with whether messages wait, when that changes.
    """

    def __init__(
        self,
        beside: Beside | None,
        taken: Callable[[Sequence[ServerMessage] | ToolServerError], object],
        paused: Callable[[bool], object],
    ) -> None:
        self._beside = beside
        self._taken = taken
        self._paused = paused
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether messages wait until they are read."""
        return self._reading is not None

    def read(self, texts: Sequence[bytes], caller: Callable[[bytes], str]) -> None:
        """Reads texts, or lets them wait.

        Args:
            texts: Each is a message, or a batch.
            caller: Returns the name of the caller for which a text was sent.
        """
        is_little = len(texts) <= LIMITS.messages_turn and max(map(len, texts), default=0) <= LIMITS.list_turn
        if self._reading is None and (is_little or self._beside is None):
            for text in texts:
                self._taken(_read(text))
            return
        self._waiting += [(text, caller(text)) for text in texts]
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._go_on())
            self._paused(True)

    def stop(self) -> None:
        """Reads no more."""
        self._waiting.clear()
        if self._reading is not None:
            self._reading.cancel()

    async def _go_on(self) -> None:
        left = LIMITS.messages_turn
        try:
            while self._waiting:
                text, caller = self._waiting.popleft()
                try:
                    found = await sized_work(self._beside, len(text), caller, partial(_read, text))
                except ToolServerError as problem:
                    found = problem
                self._taken(found)
                left -= 1
                if not left:
                    left = LIMITS.messages_turn
                    await asyncio.sleep(0)
        finally:
            self._reading = None
        self._paused(False)


def _read(text: bytes) -> Sequence[ServerMessage] | ToolServerError:
    try:
        return read_messages(text)
    except ToolServerError as problem:
        return problem
