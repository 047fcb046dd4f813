"""A stream of events that a program pushes: `Stream`.

Owns how texts and events from any task or thread become one legal stream for one consumer, and which side waits. Must
not know models, gateways or HTTP.

1. The stream is legal for every input. It begins with one `start`, unless it fails before, and has another one after
   each `stream.reset`. Its events are numbered from 1. Deltas have a text. It ends once, with `finish` or `error`, and
   then `done`. The first end counts. A `finish` without usage gets an estimate by length, as in the relay.
2. At most `limits.pushed` bytes wait for the consumer; one larger event may wait alone. Senders without room wait, and
   continue in their order of arrival.
3. `send` is all or nothing: if a sender is cancelled or its time is up, the event was not sent.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from gai_fast.core.collector import Collector
from gai_fast.core.requests.reading import estimated_usage
from gai_fast.kernels import encode_json, encode_sse
from gai_fast.library.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, FINISH_REASONS, SCHEMA, TYPES, Event, done, in_order
from gai_fast.model.halves import Halves, joined
from gai_fast.model.limits import SHARED
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_request_id, new_stream_id


class _State(enum.Enum):
    OPEN = "more may be sent"
    ENDED = "the end has been sent"
    CLOSED = "the consumer has left before the end"


class Stream:
    """Events that tasks and threads push, and one consumer reads: an async iterator.

    Make it on the event loop of its consumer. Iterate over it, or pass it to a response of `gai_fast.integrations`. If
    the consumer leaves its loop or calls `aclose`, `send` raises from then on.

    Attributes:
        id: The stream's id.

    Example:
        >>> stream = gai_fast.Stream()
        >>> await stream.send("Hello")
        >>> await stream.finish()
        >>> [event["type"] async for event in stream]
        ['start', 'text.delta', 'finish', 'done']
    """

    def __init__(self) -> None:
        self.id = new_stream_id()
        self._request_id = new_request_id()
        self._state = _State.OPEN
        self._has_start = False  # since the first event or the last reset
        self._seq = 0
        self._characters = 0
        self._halves: Halves = {}
        self._ready: deque[tuple[Event, int]] = deque()
        self._held = 0
        self._senders: deque[_Sender] = deque()
        self._news: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = _running_loop()

    # -- senders --

    async def send(self, item: str | Mapping[str, Any]) -> None:
        """Sends a piece of the text, or any event. Waits until the consumer makes room.

        Args:
            item: A text, or an event: a mapping with its `type`. The stream replaces its number. `finish` and `error`
                end the stream. A `done` after them is left out: the stream adds its own. A delta without text, and a
                `start` in the middle (as of a second answer), are left out too.

        Raises:
            Network: The consumer has left (reason `consumer_left`).
            RuntimeError: The stream has ended, or belongs to another event loop.
            TypeError: The item is neither a text nor a mapping.
            ValueError: The item has no usable `type`, a member required by its type is missing or has another type, it
                cannot be expressed in JSON, or it has more than `limits.event` bytes.
        """
        await self._push(*_event_of(item))

    async def finish(self, finish_reason: str = "stop", *, usage: Mapping[str, Any] | None = None) -> None:
        """Ends the stream. Does nothing if it has ended or the consumer has left.

        Args:
            finish_reason: One of the reasons of docs/events.md.
            usage: The token counts; by default an estimate of the output by its length.

        Raises:
            RuntimeError: The stream belongs to another event loop.
            ValueError: The reason is unknown.
        """
        if finish_reason not in FINISH_REASONS:
            raise ValueError(f"`finish_reason` must be one of {', '.join(sorted(FINISH_REASONS))}")
        await self._end({"type": "finish", "usage": usage, "finish_reason": finish_reason})

    async def fail(self, error: BaseException) -> None:
        """Ends the stream with an `error` event. Does nothing if it has ended or the consumer has left.

        Args:
            error: An `Error` is sent unchanged. Any other exception becomes `internal`, without its text, which may be
                confidential.

        Raises:
            RuntimeError: The stream belongs to another event loop.
            TypeError: `error` is not an exception.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"a stream fails with an exception; this is {type(error).__name__}")
        sent = error if isinstance(error, Error) else Error("internal", "the source of this stream failed")
        await self._end({"type": "error", "error": dict(sent.payload())})

    def send_threadsafe(self, item: str | Mapping[str, Any], timeout: float | None = None) -> None:
        """Sends from a plain thread and blocks the thread while it waits; otherwise as `send`.

        Args:
            item: As for `send`.
            timeout: Seconds to wait at most. `None` if there is no limit.

        Raises:
            TimeoutError: The time is up; nothing was sent.
            RuntimeError: As `send`; or the stream was not made on an event loop, or this is the loop's thread.
        """
        loop = self._loop
        if loop is None:
            raise RuntimeError("the stream has no event loop yet: make it in a coroutine")
        if _running_loop() is loop:
            raise RuntimeError("this thread runs the event loop, which must not be blocked: use `await stream.send(…)`")
        push = _ThreadPush(self, *_event_of(item))
        _call(loop, push.begin)
        due = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = LIMITS.pusher_check if due is None else min(LIMITS.pusher_check, due - time.monotonic())
            try:
                return push.result.result(max(wait, 0))
            except TimeoutError:
                is_late = due is not None and time.monotonic() >= due
                if not (is_late or loop.is_closed()) or not push.result.cancel():
                    continue  # too late to cancel: the event is being sent
            if loop.is_closed():
                raise _consumer_left()
            _call(loop, push.withdraw)
            raise TimeoutError(f"the consumer made no room within {timeout} s: the event was not sent")

    async def _push(self, event: dict[str, Any], cost: int, claim: Callable[[], bool] | None = None) -> None:
        """Queues an event after the waiting senders.

        Args:
            event: The event.
            cost: The bytes that the event counts as.
            claim: Called once there is room. If it returns false, the event is not sent.
        """
        self._check_loop()
        if event["type"] == "done":
            if self._state is not _State.ENDED:
                raise ValueError("a stream ends with `finish` or `error`; it writes its own `done`")
            return
        self._check_open()
        if _is_empty_delta(event):
            return
        if not self._senders and self._has_room(cost):
            if claim is None or claim():
                self._put(event, cost)
            return
        sender = _Sender(cost)
        self._senders.append(sender)
        try:
            await sender.turn
            self._check_open()
            if claim is None or claim():
                self._put(event, cost)
        finally:
            self._senders.remove(sender)
            self._wake_sender()

    async def _end(self, event: dict[str, Any]) -> None:
        self._check_loop()
        if self._state is not _State.OPEN:
            return
        try:
            await self._push(*_event_of(event))
        except (Error, RuntimeError):
            if self._state is _State.OPEN:
                raise

    def _put(self, event: dict[str, Any], cost: int) -> None:
        """Joins a delta with the one before if a surrogate pair is split between them, and makes events ready."""
        event.pop("seq", None)  # the stream has numbers of its own
        for each in joined(self._halves, event):
            self._number(each, cost if each["type"] == event["type"] else 0)

    def _number(self, event: dict[str, Any], cost: int) -> None:
        """Numbers an event and makes it ready: rule 1."""
        kind = event["type"]
        if kind == "start":
            if self._has_start:
                return
            event = {**event, "stream_id": self.id}
        elif not self._has_start and kind != "error":
            self._number({"type": "start"}, 0)
        self._has_start = kind != "stream.reset"
        self._seq += 1
        event = {**event, "seq": self._seq}
        event.pop("from_seq", None)
        if kind in DELTAS:
            self._characters += len(event[DELTAS[kind]])
        elif kind == "stream.reset":
            self._characters = 0
        elif kind == "finish" and not event.get("usage"):
            event["usage"] = estimated_usage(0, self._characters, "estimated")  # as the relay does
        elif kind == "stream.gap":
            event["from"] = event["to"] = self._seq
        if self._seq == 1:
            event |= {"schema": SCHEMA, "ts": now_ms(), "request_id": self._request_id}
        self._held += cost
        self._ready.append((in_order(event), cost))
        if kind in ("finish", "error"):
            self._ready.append((done(kind == "finish"), 0))
            self._state = _State.ENDED
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _has_room(self, cost: int) -> bool:
        return not self._held or self._held + cost <= LIMITS.pushed

    def _wake_sender(self) -> None:
        """Wakes the first sender if it can continue. That sender wakes the next one."""
        if self._senders and (self._state is not _State.OPEN or self._has_room(self._senders[0].cost)):
            turn = self._senders[0].turn
            if not turn.done():
                turn.set_result(None)

    def _check_open(self) -> None:
        if self._state is _State.CLOSED:
            raise _consumer_left()
        if self._state is _State.ENDED:
            raise RuntimeError("the stream has ended: nothing can be sent after its end")

    def _check_loop(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise RuntimeError("the stream belongs to another event loop: use `send_threadsafe` from its thread")

    # -- the consumer --

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while (event := await self._next()) is not None:
                yield event
        finally:
            await self.aclose()

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Closes the stream for the consumer. Waiting and later senders get an error. Idempotent."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
        self._ready.clear()
        self._held = 0
        self._wake_sender()
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _next(self) -> Event | None:
        """Returns the next event. `None` after the last event and after `aclose`."""
        self._check_loop()
        while not self._ready:
            if self._state is not _State.OPEN:
                return None
            if self._news is not None:
                raise RuntimeError("another task waits for the next event of this stream: read it in one place")
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        event, cost = self._ready.popleft()
        self._held -= cost
        self._wake_sender()
        return event


class _Sender:
    """A sender that waits for room.

    Args:
        cost: The bytes that it needs.

    Attributes:
        turn: Done when the sender may check for room again.
    """

    __slots__ = ("cost", "turn")

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _ThreadPush:
    """One event sent by a plain thread.

    Attributes:
        result: The future that the thread waits for. It is claimed on the loop before the event is queued. A thread
            whose time is up has therefore sent nothing: rule 3.
    """

    def __init__(self, stream: Stream, event: dict[str, Any], cost: int) -> None:
        self.result: Future[None] = Future()
        self._stream = stream
        self._event = event
        self._cost = cost
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Sends the event. Called on the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def withdraw(self) -> None:
        """Stops waiting. Called on the loop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        # Stays if the task is cancelled: the thread's time is up, or the loop ends.
        problem: Exception | None = _consumer_left()
        try:
            await self._stream._push(self._event, self._cost, self.result.set_running_or_notify_cancel)
            problem = None
        except (Error, RuntimeError, ValueError) as refusal:
            problem = refusal
        finally:  # always: the thread must not wait forever
            self._settle(problem)

    def _settle(self, problem: Exception | None) -> None:
        """Sets the thread's result, unless the thread has stopped waiting."""
        result = self.result
        if result.cancelled() or not (result.running() or result.set_running_or_notify_cancel()):
            return
        if problem is None:
            result.set_result(None)
        else:
            result.set_exception(problem)


def _event_of(item: str | Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns an item as an event, and the bytes that it counts as. The text of a delta may hold lone surrogates.

    Raises:
        TypeError: The item is neither a text nor a mapping.
        ValueError: The item has no usable type, lacks a member required by its type, cannot be expressed in JSON, or is
            too large.
    """
    if isinstance(item, str):
        event: dict[str, Any] = {"type": "text.delta", "text": item}
        size = len(item.encode(errors="surrogatepass"))
    elif isinstance(item, Mapping):
        event = dict(item)
        kind = event.get("type")
        if not isinstance(kind, str) or not kind:
            raise ValueError("an event needs its `type`, such as 'text.delta'")
        if kind in DELTAS:
            text = event.get(DELTAS[kind], "")
            if not isinstance(text, str):
                raise ValueError(f"`{DELTAS[kind]}` of a {kind!r} must be a text, not {type(text).__name__}")
            event[DELTAS[kind]] = text
        size = len(encode_json(event))  # first: refuses deep nesting
        if not _is_empty_delta(event):
            Collector().event(in_order(event))  # refuses an event that the consumer could not collect
        if kind not in TYPES:
            encode_sse("", event=kind)  # refuses a name that cannot be written
    else:
        raise TypeError(f"a stream is sent texts and events (mappings); this is {type(item).__name__}")
    if size > SHARED.event:
        raise ValueError(f"an event of {size} bytes is larger than the limit of {SHARED.event} (limits.event)")
    return event, size + LIMITS.pushed_event


def _is_empty_delta(event: Mapping[str, Any]) -> bool:
    """Returns whether an event is a delta without text, which is left out."""
    return event["type"] in DELTAS and not event[DELTAS[event["type"]]]


def _consumer_left() -> Error:
    text = "the consumer of this stream has left: nothing more is read"
    return Error("network", text, reason="consumer_left", temporary=False)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Calls a function on a loop, from another thread."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop is closed
        raise _consumer_left() from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
