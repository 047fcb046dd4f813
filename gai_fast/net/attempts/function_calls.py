"""Exchanges with functions of the user's that answer in place of a server: `FunctionCalls`, one for each upstream.

Owns how many run at once, their time limits and their end. A call is an exchange like any other: retries, fallback,
cancelling, recordings and accounts know no difference. Must not know what a function returns: it is given lines.

1. A line is asked for when the receiver has taken the one before, and while reading is on: nothing is buffered.
2. If a call is closed, it is cancelled, and its lines are closed. Nothing waits for that, but its place stays taken
   until it has ended: a function that ignores cancellation holds the place.
   The end of the gateway waits for it for `limits.function_end`. Afterwards it no longer counts as a task of its loop,
   whose end would wait for it forever.
3. Calls above `max_connections` wait up to `pool_wait`. Callers take turns, and half of those that wait are of one
   caller. If workers share that number, the first call that waits borrows a place of the others, and it is returned as
   soon as no call needs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, FunctionSettings, UpstreamSettings
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import Receiver
from gai_fast.net.upstream.connection_pool import ConnectionShare
from gai_fast.runtime.turns import CallerTurns

_log: Final = logging.getLogger("gai_fast.functions")

CallFunction = Callable[[FunctionSettings, bytes], AsyncGenerator[bytes, None]]
"""Calls a function with the body of a request, and yields the lines of its answer."""


class FunctionCalls:
    """The calls of one upstream's function, on one loop.

    Args:
        loop: The loop.
        waited: Called with the seconds that each call has waited for its place.

    Attributes:
        most: The most calls at a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, waited: Callable[[float], None]) -> None:
        self.most = 0
        self._share: ConnectionShare | None = None
        self._borrowed: list[ConnectionShare] = []  # the shares by which places were borrowed
        self._asking = 0
        self._next_ask: asyncio.TimerHandle | None = None  # after a refusal
        self._loop = loop
        self._note_wait = waited
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: CallerTurns[FunctionExchange] = CallerTurns()

    @property
    def running(self) -> int:
        """The number of calls that have a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of calls that wait for one."""
        return self._waiting.count

    def use(self, most: int, share: ConnectionShare | None) -> None:
        """Limits the calls from now on.

        Args:
            most: The most calls at a time.
            share: This process's share of them. None if it shares them with no other process.
        """
        self.most, self._share = most, share
        self._serve()

    def open(
        self,
        upstream: UpstreamSettings,
        call: Callable[[], AsyncGenerator[bytes, None]],
        receiver: Receiver,
        caller: str = ANONYMOUS,
    ) -> FunctionExchange:
        """Begins a call in the loop's next turn, or lets it wait.

        Args:
            upstream: The upstream.
            call: Calls the function.
            receiver: Gets the answer.
            caller: The name of the request's caller.

        Raises:
            Error: Too many calls wait, or half as many of this caller.
        """
        is_full = not self._has_place()
        if is_full and not self._waiting.has_room(caller, LIMITS.pool_waiting):
            raise self.no_place(upstream, "too many calls wait for a place, or half as many of this caller")
        exchange = FunctionExchange(self, upstream, call, receiver, caller, self._loop)
        if is_full:
            self._waiting.add(caller, exchange)
            self._borrow()
        else:
            self._begin(exchange)
        return exchange

    def no_place(self, upstream: UpstreamSettings, text: str) -> Error:
        """Returns the error of a call that gets no place."""
        text = f"upstream {upstream.name!r}: {text}: all of max_connections = {self.most} are in use"
        return Error("overloaded", text, reason="upstream_pool", phase="connect", retry_after_ms=SHARED.overloaded_ms)

    def leave(self, exchange: FunctionExchange) -> None:
        """Takes a call out of the queue, if it waits."""
        if self._waiting.remove(exchange.caller, exchange):
            self._note_wait(self._loop.time() - exchange.opened_at)

    async def close(self) -> None:
        """Cancels all calls, and waits for their ends: rule 2."""
        for _ in range(self._waiting.count):
            if (exchange := self._next()) is not None:
                exchange.fail(Error("network", "the gateway is being closed", reason="closed"))
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            _, late = await asyncio.wait(running, timeout=LIMITS.function_end)
            if late:
                _log.warning(
                    "functions that have not ended %g s after they were cancelled: %d", LIMITS.function_end, len(late)
                )
            for task in late:
                asyncio._unregister_task(task)  # documented in "Extending asyncio"

    def _begin(self, exchange: FunctionExchange) -> None:
        task = exchange.begin()
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._serve()

    def _serve(self) -> None:
        """Begins the calls that wait, as far as there are places, and returns the borrowed places that are left."""
        while self._has_place() and (exchange := self._next()) is not None:
            self._begin(exchange)
        while self._borrowed and self._has_place():
            self._borrowed.pop().give_back()

    def _next(self) -> FunctionExchange | None:
        exchange = self._waiting.take()
        if exchange is not None:
            self._note_wait(self._loop.time() - exchange.opened_at)
        return exchange

    def _has_place(self) -> bool:
        part = self.most if self._share is None else self._share.part
        return len(self._running) < part + len(self._borrowed)

    def _borrow(self) -> None:
        """Asks for a place for each call that waits, unless one was refused a moment ago."""
        share = self._share
        if share is None or self._next_ask is not None:
            return
        while self._asking < self._waiting.count and share.part + len(self._borrowed) + self._asking < share.most:
            self._asking += 1
            share.borrow(partial(self._answered, share))

    def _answered(self, share: ConnectionShare, is_granted: bool) -> None:
        self._asking -= 1
        if is_granted:
            self._borrowed.append(share)
            self._serve()
        elif self._waiting.count and self._next_ask is None:
            self._next_ask = self._loop.call_later(LIMITS.pool_ask, self._ask_again)

    def _ask_again(self) -> None:
        self._next_ask = None
        self._borrow()


class FunctionExchange:
    """One call and its answer, as `OpenExchange`. Made by `FunctionCalls.open`.

    Attributes:
        caller: The name of the request's caller.
        opened_at: When it was opened, on the loop's clock.
        is_complete: Whether the whole answer has come.
    """

    resent = False
    """A call is made once."""

    def __init__(
        self,
        calls: FunctionCalls,
        upstream: UpstreamSettings,
        call: Callable[[], AsyncGenerator[bytes, None]],
        receiver: Receiver,
        caller: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.caller = caller
        self.opened_at = loop.time()
        self.is_complete = False
        self._calls = calls
        self._upstream = upstream
        self._call = call
        self._receiver: Receiver | None = receiver  # None after the end, or `close`
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._is_delivering = False
        self._line_at: float | None = None  # when the last line came, or reading began again; None before the first
        self._resumed: asyncio.Event | None = None  # while reading is off
        self._idle = upstream.peer.idle_timeout
        self._timer = loop.call_later(upstream.pool_wait, self._look)

    @property
    def is_waiting(self) -> bool:
        """Whether the call waits for its place."""
        return self._task is None and self._receiver is not None

    @property
    def sent(self) -> bool:
        """Whether the function has been called."""
        return self._task is not None

    def begin(self) -> asyncio.Task[None]:
        """Calls the function."""
        self._timer.cancel()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)
        self._look()
        return self._task

    def pause_reading(self) -> None:
        """Asks for no more lines."""
        if self._resumed is None:
            self._resumed = asyncio.Event()

    def resume_reading(self) -> None:
        """Asks for lines again."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            if self._line_at is not None:
                self._line_at = self._loop.time()
            resumed.set()

    def limit_silence(self, seconds: float) -> None:
        """Works as `OpenExchange.limit_silence`."""
        self._idle = seconds
        if self._task is not None and self._receiver is not None:
            self._timer.cancel()
            self._look()

    def close(self) -> None:
        """Cancels the call: rule 2; idempotent."""
        if self._receiver is None:
            return  # cancelled again, it could not clean up
        self._calls.leave(self)
        self._receiver = None
        self._timer.cancel()
        # A call that closes itself ends when the receiver returns; cancelled, it could not clean up.
        if self._task is not None and not self._is_delivering:
            self._task.cancel()

    def fail(self, error: Error) -> None:
        """Ends the exchange with an error."""
        receiver = self._receiver
        if receiver is not None:
            self.close()
            receiver.exchange_ended(error)

    async def _run(self) -> None:
        taken = 0
        lines = self._call()
        try:
            self._deliver(None)
            while self._receiver is not None and (line := await anext(lines, None)) is not None:
                self._line_at = self._loop.time()
                await self._reading()
                self._deliver(line)
                taken += 1
                if taken % LIMITS.function_turn == 0:
                    await asyncio.sleep(0)
            await self._reading()
        finally:
            await lines.aclose()

    async def _reading(self) -> None:
        """Waits until reading is on, or the call is closed."""
        while self._resumed is not None and self._receiver is not None:
            await self._resumed.wait()

    def _deliver(self, line: bytes | None) -> None:
        """Gives the receiver a line, or the head."""
        receiver = self._receiver
        if receiver is None:
            return
        self._is_delivering = True
        try:
            if line is None:
                receiver.head_received(200, {"content-type": "application/x-ndjson"})
            else:
                receiver.body_received(line)
        finally:
            self._is_delivering = False

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._timer.cancel()
        receiver, self._receiver = self._receiver, None
        problem = None if task.cancelled() else task.exception()
        if receiver is None:
            return
        error: Error | None = None
        if task.cancelled():
            error = Error("network", "the function that answers was cancelled", reason="truncated")
        elif problem is not None:
            error = Error("internal", "the gateway failed while it read a function's answer")
            if not isinstance(problem, Exception):  # of the function: it would end the receiver, too
                problem, cause = RuntimeError(f"the function raised {type(problem).__name__}"), problem
                problem.__cause__ = cause
            error.__cause__ = problem
        else:
            self.is_complete = True
        receiver.exchange_ended(error)

    def _look(self) -> None:
        """Ends the exchange if one of its times is up, and sets the timer for the next one."""
        upstream, now = self._upstream, self._loop.time()
        name = f"the function of upstream {upstream.name!r}"
        if self._task is None:
            error = self._calls.no_place(
                upstream, f"none of its calls has ended within {upstream.pool_wait:g} s (pool_wait)"
            )
            self.fail(error)
            return
        total = self.opened_at + upstream.total_timeout
        idle = total
        if self._line_at is not None and self._resumed is None:  # the first line has a time of its own
            idle = self._line_at + self._idle
        if now >= total:
            text = f"{name} did not end its answer within {upstream.total_timeout:g} s (total_timeout)"
            self.fail(Error("timeout", text, reason="total"))
        elif now >= idle:
            text = f"{name} gave nothing for {self._idle:g} s (idle_timeout)"
            self.fail(Error("timeout", text, reason="idle"))
        else:
            # It also looks while there is no limit: neither the first line nor `resume_reading` sets the timer.
            self._timer = self._loop.call_at(min(total, idle, now + self._idle), self._look)
