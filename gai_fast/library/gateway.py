"""The gateway in this process, without a server: `Gateway`.

Owns how a program asks a model and follows the answer: as events, as text, as a `Result`. The engine runs the streams,
as it does for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from msgspec import UNSET

from gai_fast.config import load
from gai_fast.core.callbacks import EventManager
from gai_fast.core.collector import ReadCollector
from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import characters, has_run_members, parse_request
from gai_fast.core.result import Result
from gai_fast.core.session import name_in_request, named_session
from gai_fast.formats import StreamContext, get_format
from gai_fast.guards.input import LetThrough
from gai_fast.kernels import Piece
from gai_fast.ledger import new_ledger
from gai_fast.library.asking import (
    Asking,
    NativeRequest,
    check_decision,
    checked_events,
    checked_request,
    event_number,
    request_body,
)
from gai_fast.library.decoding import OrderedEvents
from gai_fast.library.following import FollowedStream
from gai_fast.library.limits import LIMITS
from gai_fast.library.own_models import call_function
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.metrics import MetricsSink, StreamMetrics
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Settings
from gai_fast.model.tool_functions import noted_of
from gai_fast.model.tool_rules import as_plain_request
from gai_fast.net.attempts.spec import LIBRARY, Clock, StreamSpec
from gai_fast.net.engine.deciding import decide, unknown_approval
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.view import NATIVE
from gai_fast.net.logs.writer import Client
from gai_fast.net.runs.records.records import ApprovalDecision
from gai_fast.net.sharing.answers import SharedAnswer
from gai_fast.net.stream.callbacks import CallbackRunner
from gai_fast.net.stream.session import Session
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_stream_id, request_id
from gai_fast.stores import LogHeader

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunOffer


class Gateway(Asking):
    """Asks the models of a configuration. Open it with `async with`.

    Args:
        settings: The configuration. By default it comes from the environment alone: the providers whose usual keys are
            set, with their usual models, and the model `demo`. For a file use `Gateway.from_config`.
        sinks: Get the figures of every stream when it ends.
        tools: Functions that models may call, plain or async; see `gai_fast.tool`.

    Raises:
        ConfigError: The configuration cannot be used.
        TypeError: `settings` is not a `Settings`, a sink has no `stream_ended`, or a tool cannot be called.

    Example:
        >>> async with gai_fast.Gateway() as gateway:
        ...     async for text in gateway.ask("Why is the sky blue?"):
        ...         print(text, end="", flush=True)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sinks: Iterable[MetricsSink] = (),
        tools: Iterable[Callable[..., Any]] = (),
    ) -> None:
        self._tools = tuple(tools)
        for tool in self._tools:
            if not callable(tool):
                raise TypeError(f"tools are functions; this is {type(tool).__name__}")
        self.settings = load(None) if settings is None else settings
        _check_type(self.settings, Settings, "a gateway takes Settings; Gateway.from_config(path) reads a file")
        self._sinks = list(sinks)
        for sink in self._sinks:
            if not callable(getattr(sink, "stream_ended", None)):
                raise TypeError(f"a sink is a MetricsSink, with `stream_ended(metrics)`; this is {type(sink).__name__}")
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str],
        *,
        sinks: Iterable[MetricsSink] = (),
        tools: Iterable[Callable[..., Any]] = (),
    ) -> Self:
        """Returns the gateway of a configuration file.

        Args:
            path: The file.
            sinks: As for the class.
            tools: As for the class.

        Raises:
            ConfigError: The file cannot be used; the text names file, line and key.
        """
        given = tuple(tools)
        names = [noted_of(each).name or getattr(each, "__name__", "") for each in given]
        return cls(load(Path(path), functions=names), sinks=sinks, tools=given)

    @property
    def is_open(self) -> bool:
        """Whether the gateway is open."""
        return self._engine is not None

    async def __aenter__(self) -> Self:
        """Opens the gateway on the running loop. A closed gateway may be opened again.

        Raises:
            RuntimeError: The gateway is open already.
            StoreError: The store of the configuration cannot be used.
            ValueError: A tool cannot be used.
        """
        if self._engine is not None:
            raise RuntimeError("the gateway is open already")
        self._loop = asyncio.get_running_loop()
        ledger = new_ledger(self.settings.store) if self.settings.keys else None
        engine = Engine(self.settings, self._loop, ledger=ledger, functions=self._tools)
        engine.sinks += self._sinks
        engine.upstreams.call_function = call_function
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(engine.close)
            await engine.begin()
            stack.pop_all()
        self._engine = engine
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def stream(self, request: str | NativeRequest, events: EventManager | None = None) -> GatewayStream:
        """Returns one answer as events. Entering its `async with` sends the request.

        Args:
            request: The prompt, or a native request.
            events: Callbacks; they get the events whether or not the program iterates.

        Raises:
            TypeError: The request is neither text nor a mapping, or `events` is no `EventManager`.
        """
        return GatewayStream(self, checked_request(request), checked_events(events))

    def follow(self, stream_id: str, after: str | int | None = None) -> FollowedStream:
        """Follows a durable stream: kept by this gateway (`resumable`), or any other in its store (`[store]`).

        Args:
            stream_id: The stream's id.
            after: The last event that the program has: its `seq`, or its id, `<stream id>.<seq>`. `None` if the stream
                is followed from its first event.

        Raises:
            ValueError: `after` is not an event of this stream.
        """
        return FollowedStream(self.engine, stream_id, event_number(stream_id, after))

    def engine(self) -> Engine:
        """Returns the engine that runs the streams, for other modules of this package.

        Raises:
            RuntimeError: The gateway is not open, or was opened on another loop.
        """
        if self._engine is None:
            raise RuntimeError("the gateway is not open: use `async with gateway:`")
        _check_loop(self._loop)
        return self._engine


class _Reading(enum.Enum):
    """Whether the program iterates over a stream."""

    NOT_BEGUN = "not begun"
    BEGUN = "begun"
    DROPPED = "dropped"  # too many events were unread; only the callbacks got them


class GatewayStream(Client):
    """One answer, followed as it streams. Made by `Gateway.stream`.

    A request with `resumable` makes a durable stream. It is kept (`[store]`), may go on after the program has left it
    (`on_disconnect`), and can be followed again with `Gateway.follow`.

    Iterating yields the events of `gai.events.v1` in the compact envelope, `done` last. A failure after the request was
    sent is an `error` event. Leaving the `async with` before the end cancels the upstream; leaving it after the end
    waits for async callbacks. A slow program or slow callbacks slow the upstream down.

    A stream with callbacks need not be iterated. If `limits.waiting_events` events are unread before the program begins
    to iterate, they are dropped: callbacks go on, `result` still returns the complete answer, and iterating raises
    `RuntimeError`.

    Attributes:
        id: The stream's id.
        gateway: The gateway that answers.
        request: The native request; it may be replaced until it is sent.
        limit_wait: The seconds that it waits for limits of its upstream (`wait_for_limit`), so far.
    """

    def __init__(self, gateway: Gateway, request: NativeRequest, manager: EventManager | None = None) -> None:
        self.id = new_stream_id()
        self.gateway = gateway
        self.request = request
        self.limit_wait = 0.0
        self._manager = manager
        self._callbacks: CallbackRunner | None = None
        self._sink = OrderedEvents("compact")
        self._collector = ReadCollector()
        self._ready: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._session: Session | None = None
        self._followed: FollowedStream | None = None
        self._metrics: StreamMetrics | None = None
        self._failure: Error | None = None
        self._reading = _Reading.NOT_BEGUN
        self._has_done = False
        self._is_over = False
        self._is_paused = False
        self._pauses = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Sends the request to the model.

        Raises:
            Error: The request is invalid, the model does not exist, a guard does not let the request through, or the
                model's provider cannot serve it.
            RuntimeError: The gateway is not open or was opened on another loop, or the stream was followed before.
        """
        if self._session is not None or self._followed is not None or self._is_over:
            raise RuntimeError("a stream is followed once: ask again for another answer")
        engine = self.gateway.engine()
        loop = self._loop = asyncio.get_running_loop()
        request = parse_request(request_body(self.request))
        if request.idempotency_key is not UNSET:
            raise Error("unsupported", "`idempotency_key` is for requests that a server gets", reason="idempotency_key")
        if isinstance(request.request_id, str):
            self._sink.request_id = request_id(request.request_id)
        if request.resumable:
            await self._publish(engine, request)
            return self
        model = engine.settings.chosen(request.model if isinstance(request.model, str) else None)
        request, let = await self._guarded(engine, request, model.name)
        request, offer = await _offered(engine, request, model)
        named = named_session(name_in_request(request), ANONYMOUS)
        home = engine.targets.home(model, named, request, ANONYMOUS)
        spec = StreamSpec(
            engine.targets.with_target(model, home),
            request,
            self,
            can_reset=True,
            prompt_characters=characters(request),
            chain=engine.chain(request, self.id, self._sink.request_id, model=model.name, let=let),
            request_id=self._sink.request_id,
            transport=LIBRARY,
            session=named,
            home=home,
            let=let,
        )
        if offer is not None:
            offer.attach(spec, self.id, None, asks=request.approvals != "deny")
        if self._manager is not None:
            self._callbacks = CallbackRunner(self._manager, loop, pause=self._pause, resume=self._resume)
        sharing = await _shared(engine, spec)
        try:
            session = engine.start(spec, self, self.id, Clock(now_ms))
        finally:
            if sharing is not None:
                sharing.release()
        if session.metrics is None:
            self._session = session
        else:  # the stream has already ended
            self._metrics = session.metrics
        return self

    async def _publish(self, engine: Engine, request: Request) -> None:
        """Starts a durable stream and follows it."""
        if self._manager is not None:
            text = "`resumable`: a stream that is kept has no callbacks; follow it twice instead"
            raise Error("unsupported", text, reason="resumable")
        model = engine.settings.chosen(request.model if isinstance(request.model, str) else None)
        request, let = await self._guarded(engine, request, model.name)
        request, offer = await _offered(engine, request, model)
        clock = Clock(now_ms)
        asked_by = self._sink.request_id
        context = StreamContext(
            self.id, asked_by, None, model.name, clock, "compact", ids=True, retry_ms=model.stream.retry
        )
        encoder = get_format(NATIVE).encoder("sse", context)
        named = named_session(name_in_request(request), ANONYMOUS)
        home = engine.targets.home(model, named, request, ANONYMOUS)
        spec = StreamSpec(
            engine.targets.with_target(model, home),
            request,
            encoder,
            encoder,
            can_reset=True,
            prompt_characters=characters(request),
            chain=engine.chain(request, self.id, asked_by, model=model.name, let=let),
            log_header=LogHeader(self.id, ANONYMOUS, model.name, NATIVE, "sse", "compact", asked_by),
            request_id=asked_by,
            transport=LIBRARY,
            session=named,
            home=home,
            let=let,
        )
        if offer is not None:
            offer.attach(spec, self.id, None, asks=request.approvals != "deny")
        sharing = await _shared(engine, spec)
        try:
            engine.durable.publish(spec, clock)
        finally:
            if sharing is not None:
                sharing.release()
        self._followed = await FollowedStream(lambda: engine, self.id, put_off=self.put_off).__aenter__()

    async def _guarded(self, engine: Engine, request: Request, model: str) -> tuple[Request, LetThrough | None]:
        """Returns what guards let through of a request; as `StreamGuards.let_through`."""
        return await engine.guarding.let_through(request, StreamInfo(self.id, model=model, caller=ANONYMOUS))

    def put_off(self, seconds: float) -> None:
        """Notes a wait: a response that the stream is for holds its headers for longer."""
        self.limit_wait += seconds

    def resumed(self, stream_id: str, after: int) -> FollowedStream:
        """Returns the rest of an earlier stream of the gateway, which is followed in place of this one.

        Args:
            stream_id: The earlier stream's id.
            after: The number of its last event that the client has.
        """
        return self.gateway.follow(stream_id, after)

    @property
    def resume_id(self) -> str | None:
        """The id to follow the stream again. `None` if it is not durable."""
        return self.id if self._followed is not None else None

    @property
    def position(self) -> int | None:
        """The number of the last event read from the stream's log. `None` if the stream is not durable."""
        return self._followed.position if self._followed is not None else None

    async def decide(
        self, approval_id: str, decision: Literal["approve", "deny"], digest: str, reason: str | None = None
    ) -> None:
        """Decides about a call of the run that waits for an approval.

        Args:
            approval_id: The id in `approval.required`.
            decision: Whether the call is made.
            digest: The digest there: the decision is for this call alone.
            reason: Why; the model reads it.

        Raises:
            Error: A value is not valid (reason `validation`), there is no such approval (`not_found`), the digest is of
                another call, or the call is decided already (409, reason `digest` or `decided`); or the store is out of
                reach.
        """
        check_decision(approval_id, decision, digest, reason)
        engine = self.gateway.engine()
        if engine.run_tools is None:
            raise unknown_approval()
        made = ApprovalDecision(decision, ANONYMOUS, reason or "")
        records = engine.run_tools.desk.records
        await decide(engine, records, self.id, approval_id, digest, made, lambda asked: asked.caller == ANONYMOUS)

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._followed is not None:
            self._followed.leave()
        is_early = self._session is not None
        if self._session is not None:
            self._session.client_lost()
            self._finish()
        callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            await callbacks.leave(kind, is_early=is_early)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._reading is _Reading.DROPPED:
            raise RuntimeError(
                f"more than {LIMITS.waiting_events} events of this stream were not read, and went to its callbacks "
                "alone: iterate from the beginning, or use callbacks and `result` without iterating"
            )
        self._reading = _Reading.BEGUN
        return await self._next()

    async def _next(self) -> Event:
        if self._followed is not None:
            kept = await self._followed.next_event()
            if kept is None:
                self._followed.leave()
                self._metrics = self._followed.metrics
                raise StopAsyncIteration
            self._collector.event(kept)
            return kept
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            if self._session is None:
                raise RuntimeError("the stream is not open: use `async with gateway.stream(…) as stream:`")
            if self._waiting is not None:
                raise RuntimeError("another task waits for the next event of this stream: read it in one place")
            self._waiting = _check_loop(self._loop).create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        event = self._ready.popleft()
        if self._is_paused and len(self._ready) <= LIMITS.waiting_events // 2:
            self._is_paused = False
            self._resume()
        return event

    async def result(self) -> Result:
        """Returns the complete answer. Reads all remaining events.

        Raises:
            Error: The stream failed, or its answer is too large for a result (`answer_too_large`).
        """
        if self._reading is _Reading.NOT_BEGUN:
            self._reading = _Reading.BEGUN
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self._next()
        if self._failure is not None:
            raise self._failure
        result = self._collector.result()
        if self._metrics is not None:
            result.metrics = self._metrics.as_dict()
        return result

    async def cancel(self) -> None:
        """Stops the upstream. The stream then ends with `finish {cancelled}` and the usage so far."""
        if self._followed is not None:
            await self._followed.cancel()
        if self._session is not None:
            _check_loop(self._loop)
            self._session.cancel()

    # -- the session's output (`net.spec.Output`) and client (`net.logs.writer.Client`) --

    def event(self, event: Event) -> None:
        """Receives one event from the relay."""
        self._collector.event(event)
        self._sink.event(event)

    def heartbeat(self) -> None:
        """Does nothing: there is no connection to keep alive."""

    def take_pieces(self) -> Sequence[Piece]:
        """Makes the events since the last call available to the program. Returns no bytes."""
        events = self._sink.take()
        self._has_done = self._has_done or bool(events and events[-1]["type"] == "done")
        if self._reading is not _Reading.DROPPED:
            self._ready.extend(events)
        if len(self._ready) > LIMITS.waiting_events and not self._is_paused:
            if self._callbacks is not None and self._reading is _Reading.NOT_BEGUN:
                self._reading = _Reading.DROPPED
                self._ready.clear()
            else:
                self._is_paused = True
                self._pause()
        self._wake()
        if self._callbacks is not None:
            self._callbacks.dispatch(map(self._measured, events))
        return []

    def _measured(self, event: Event) -> Event:
        """Returns the event for callbacks: with the figures if it is `finish` or `error`."""
        if event["type"] not in ("finish", "error") or self._session is None:
            return event
        measured: Any = {**event, "metrics": self._session.measured().as_dict()}
        return cast("Event", measured)

    # The iterating program and the callbacks pause the upstream independently.

    def _pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and self._session is not None:
            self._session.pause()

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and self._session is not None:
            self._session.resume()

    direct = None

    def commit(self) -> None:
        """Does nothing: there is no response to start."""

    def flush(self) -> None:
        """Does nothing: there is no response to start."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Does nothing: there are no bytes."""

    def end(self, pieces: Sequence[Piece]) -> None:
        """Ends the stream: all events are available."""
        self._finish()

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        """Ends a stream that failed early. Adds an `error` event unless the relay has emitted it."""
        if self._has_done:
            self._finish()
        else:
            self.abort(error)

    def abort(self, error: Error) -> None:
        """Ends a stream that broke off without an `error` event. Adds the event."""
        self._failure = error
        event: Event = {"type": "error", "error": error.payload()}
        self._ready += [event, {"type": "done", "finished": False}]
        if self._callbacks is not None:
            self._callbacks.dispatch([self._measured(event)])
        self._finish()

    def _finish(self) -> None:
        session, self._session = self._session, None
        self._metrics = None if session is None else session.metrics
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def _check_type(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what}; this is {type(value).__name__}")


def _check_loop(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """Returns the running loop.

    Args:
        loop: The gateway's loop.

    Raises:
        RuntimeError: The running loop is another loop.
    """
    running = asyncio.get_running_loop()
    if running is not loop:
        raise RuntimeError("the gateway was opened on another event loop: each loop needs a gateway of its own")
    return running


async def _offered(engine: Engine, request: Request, model: ModelSettings) -> tuple[Request, RunOffer | None]:
    """Returns a request, and what it offers of the gateway's tools; None if it is no run.

    Raises:
        Error: It names tools that it may not use.
    """
    tools = engine.run_tools
    offer = None if tools is None else await tools.offer_for(request, model)
    if offer is None and has_run_members(request):
        request = as_plain_request(request)
    return request, offer


async def _shared(engine: Engine, spec: StreamSpec) -> SharedAnswer | None:
    """Lets a stream share its answer if its model allows it (`[[model]] cache`), and looks for a stored answer.

    Args:
        engine: Owns the answers.
        spec: The stream's specification.

    Returns:
        The stream's access to shared answers; release it once the stream has started. `None` if the stream shares no
        answers.
    """
    answers = engine.shared_answers(now_ms) if spec.model.cache and spec.run is None else None
    if answers is None:
        return None
    spec.sharing = sharing = SharedAnswer(answers, ANONYMOUS, new_stream_id)
    if sharing.must_claim(spec):
        await sharing.claim(spec)
    return sharing
