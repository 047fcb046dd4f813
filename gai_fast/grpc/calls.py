"""The calls of a server: their places, and the ends that their clients do not make.

Owns when a call ends that its client has not ended:

1. The server stops.
2. A call without a place is one whose message is not whole, or which has ended here and whose client has not taken its
   last bytes. It has a time, and there are `limits.grpc_waiting` of them: another one ends the oldest of the address
   that has the most.
3. A call has a place once the gateway is asked, which judges its key, so a stranger holds none. A caller has half of
   the places.
4. A call whose client reads nothing ends.

grpcio has no way to end a call: its own task for it waits until the client has taken all. `CallTask` knows that task;
once it is cancelled, grpcio drops the call, and its client reads that the stream was reset.

Knows no message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from gai_fast.grpc.limits import LIMITS
from gai_fast.grpc.metadata import address_of_peer
from gai_fast.grpc.shares import from_the_most
from gai_fast.model.addresses import client_network
from gai_fast.model.errors import Error


class CallTask(asyncio.Task[Any]):
    """The task in which grpcio runs a handler.

    Attributes:
        scheduler: grpcio's task that has made it, and that waits for the client.
    """

    scheduler: asyncio.Task[Any] | None = None


def make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    """Makes the tasks of a loop that runs a server (`loop.set_task_factory`)."""
    if getattr(coroutine, "__name__", "") != _HANDLING:
        return asyncio.Task(coroutine, loop=loop, **options)
    task = CallTask(coroutine, loop=loop, **options)
    maker = asyncio.current_task(loop)
    if maker is not None and getattr(maker.get_coro(), "__name__", "") == _SCHEDULING:
        task.scheduler = maker
    return task


_HANDLING: Final = "_handle_exceptions"
_SCHEDULING: Final = "_schedule_rpc_coro"
"""grpcio's coroutines. With a version that names them otherwise, calls end with their connections."""


class RemoteCall:
    """One running call.

    Args:
        task: The task that handles it.
        peer: The client, as grpcio names it.

    Attributes:
        peer: As given.
        address: The client's address, or its network; empty if it has none.
        sent: The messages that the client's connection has taken.
        waits: Whether the call waits for the client to read.
        is_stopped: Whether the call must end after the message that it writes, because the server stops.
        scheduler: As for `CallTask`; None if grpcio's task is not known.
        until: The end of its time without a place, in seconds of the loop's clock.
    """

    __slots__ = ("_sent_before", "_task", "address", "is_stopped", "peer", "scheduler", "sent", "until", "waits")

    def __init__(self, task: asyncio.Task[object], peer: str) -> None:
        self.peer = peer
        self.address = client_network(address_of_peer(peer))
        self.sent = 0
        self.waits = False
        self.is_stopped = False
        self.until = 0.0
        self.scheduler = task.scheduler if isinstance(task, CallTask) else None
        self._task = task
        self._sent_before = -1

    def stop(self) -> None:
        """Ends the call because the server stops. Its client is sent the reason, after the message that is being
        written."""
        self.is_stopped = True
        if not self.waits:
            self._task.cancel()

    def look(self) -> None:
        """Cancels the call if its client has read nothing since the last check."""
        if self.waits and self.sent == self._sent_before:
            self._task.cancel()
        self._sent_before = self.sent if self.waits else -1

    def drop(self) -> None:
        """Ends the call at once, whatever its client takes."""
        self._task.cancel()
        if self.scheduler is not None:
            self.scheduler.cancel()


class Waiting:
    """The calls without a place: rule 2."""

    def __init__(self) -> None:
        self._count = 0
        self._calls: dict[str, dict[RemoteCall, None]] = {}  # by address, the oldest first

    def __len__(self) -> int:
        return self._count

    def add(self, call: RemoteCall, seconds: float) -> None:
        """Adds a call, which is dropped after a time."""
        if self._count >= LIMITS.grpc_waiting:
            # More than need be, so that the search costs little for each call.
            self._drop(from_the_most(self._calls, 1 + self._count - LIMITS.grpc_waiting * 15 // 16))
        call.until = asyncio.get_running_loop().time() + seconds
        self._calls.setdefault(call.address, {})[call] = None
        self._count += 1

    def remove(self, call: RemoteCall) -> None:
        """Removes a call; idempotent."""
        calls = self._calls.get(call.address, {})
        if call in calls:
            del calls[call]
            self._count -= 1
            if not calls:
                del self._calls[call.address]

    def look(self, now: float) -> None:
        """Drops the calls whose time is over."""
        self._drop(call for calls in self._calls.values() for call in calls if call.until <= now)

    def _drop(self, chosen: Iterator[RemoteCall]) -> None:
        for call in list(chosen):
            self.remove(call)
            call.drop()


class Calls:
    """The calls of a server.

    Attributes:
        is_draining: Whether new calls are refused.
        waiting: Those without a place.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self.waiting = Waiting()
        self._calls: set[RemoteCall] = set()
        self._placed: dict[RemoteCall, int] = {}  # their callers
        self._callers: Counter[int] = Counter()
        self._succeeded: dict[str, None] = {}  # clients
        self._ended = asyncio.Event()

    @property
    def accepted(self) -> set[str]:
        """The clients that the gateway has accepted: of calls with a place, and of the newest calls that succeeded."""
        return {*self._succeeded, *(call.peer for call in self._placed)}

    @contextmanager
    def any(self, peer: str) -> Iterator[RemoteCall]:
        """Counts the running task as a call without a place.

        Args:
            peer: The client, as grpcio names it.
        """
        task = asyncio.current_task()
        assert task is not None, "a call is a task of grpcio"
        call = RemoteCall(task, peer)
        self.waiting.add(call, LIMITS.grpc_unread)
        try:
            yield call
        finally:
            self._leave(call)
            scheduler = call.scheduler
            if scheduler is not None and not scheduler.done() and not scheduler.cancelling():
                self.waiting.add(call, LIMITS.grpc_last)
                scheduler.add_done_callback(lambda _: self.waiting.remove(call))

    @contextmanager
    def running(self, peer: str) -> Iterator[RemoteCall]:
        """Counts the running task as a call, for whose end a drain waits.

        Args:
            peer: As for `any`.

        Raises:
            Overloaded: The server stops.
        """
        if self.is_draining:
            raise draining()
        with self.any(peer) as call:
            self._calls.add(call)
            try:
                yield call
            finally:
                self._calls.discard(call)
                self._ended.set()

    def place(self, call: RemoteCall, caller: int) -> None:
        """Gives a call a place.

        Args:
            call: The call.
            caller: Who has half of the places at most: the hash of the call's key, else of its address.

        Raises:
            Overloaded: There is none.
        """
        most = LIMITS.grpc_calls
        if len(self._placed) >= most or self._callers[caller] >= -(-most // 2):
            raise Error("overloaded", "all places of calls are taken: call again", reason="calls")
        self.waiting.remove(call)
        self._placed[call] = caller
        self._callers[caller] += 1

    def note_success(self, call: RemoteCall) -> None:
        """Notes that the gateway has answered a call."""
        self._succeeded.pop(call.peer, None)
        self._succeeded[call.peer] = None
        if len(self._succeeded) > LIMITS.grpc_calls:
            del self._succeeded[next(iter(self._succeeded))]

    def _leave(self, call: RemoteCall) -> None:
        self.waiting.remove(call)
        caller = self._placed.pop(call, None)
        if caller is not None:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def watch(self) -> None:
        """Ends calls whose time is over, and those whose clients read nothing. Runs until it is cancelled."""
        clock = asyncio.get_running_loop().time
        unread_at = clock() + LIMITS.grpc_unread
        while True:
            await asyncio.sleep(min(LIMITS.grpc_look, LIMITS.grpc_unread))
            self.waiting.look(clock())
            if clock() >= unread_at:
                unread_at = clock() + LIMITS.grpc_unread
                for call in list(self._calls):
                    call.look()

    async def drain(self) -> None:
        """Refuses new calls, and returns when the running ones have ended. After `limits.grpc_grace` seconds they are
        stopped; after `limits.grpc_stop` more it returns in any case."""
        self.is_draining = True
        await self._until_none(LIMITS.grpc_grace)
        for call in list(self._calls):
            call.stop()
        await self._until_none(LIMITS.grpc_stop)

    async def _until_none(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return


_DRAINING: Final = "this server stops: call again, which reaches another one or its successor"


def draining() -> Error:
    """Returns the error of a call to a server that stops."""
    return Error("overloaded", _DRAINING, reason="draining")
