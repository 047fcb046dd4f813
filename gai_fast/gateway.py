"""The gateway in this process, without a server: `Gateway`.

Owns how a program asks a model and follows the answer: as events, as text, as one `Result`. The streams themselves are
the engine's, as the server's are.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gai_fast._impl import encode_json
from gai_fast.clock import now_ms
from gai_fast.decoding import OrderedEvents
from gai_fast.errors import Error
from gai_fast.events import Event
from gai_fast.ids import new_stream_id
from gai_fast.limits import LIMITS
from gai_fast.net.engine import Engine
from gai_fast.net.session import Call, Clock, Session
from gai_fast.request import Request, parse_request
from gai_fast.result import Collector, Result
from gai_fast.server.config import find, load
from gai_fast.settings import ModelSettings, Settings

NativeRequest = Mapping[str, Any]
"""A native request (CONTRACT §4), as the server takes it in JSON."""


class Gateway:
    """Asks the models of a configuration. Open it with `async with`.

    Args:
        settings: What is configured; by default what `gai-fast serve` would find: `gai-fast.toml` in the working
            directory, else the providers whose usual keys are in the environment, and the model `demo`.

    Raises:
        ConfigError: The configuration cannot be used.

    Example:
        >>> async with gai_fast.Gateway() as gateway:
        ...     async for text in gateway.ask("Why is the sky blue?"):
        ...         print(text, end="", flush=True)
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = load(find(None)) if settings is None else settings
        self._engine: Engine | None = None

    @classmethod
    def from_config(cls, path: str | os.PathLike[str]) -> Self:
        """The gateway of a configuration file.

        Raises:
            ConfigError: The file cannot be used; the text names file, line and key.
        """
        return cls(load(Path(path)))

    async def __aenter__(self) -> Self:
        self._engine = Engine(self.settings, asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def stream(self, request: NativeRequest) -> GatewayStream:
        """One answer as events; nothing is asked before its `async with`.

        Args:
            request: A native request.
        """
        return GatewayStream(self._opened, request)

    def ask(self, request: str | NativeRequest, **fields: Any) -> Answer:
        """One answer as text: iterate it for the pieces, or await it for the whole `Result`.

        Args:
            request: The prompt, or a native request.
            fields: More fields of the request: `model`, `temperature`, …
        """
        whole = {"query": request} if isinstance(request, str) else dict(request)
        return Answer(self.stream({**whole, **fields}))

    def task(self) -> Task:
        """A request that is put together step by step."""
        return Task(self, {})

    def _opened(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the gateway is not open: use `async with gateway:`")
        return self._engine


class GatewayStream:
    """One answer, followed as it comes. Made by `Gateway.stream`.

    Iterating gives the events of `gai.events.v1` in the compact envelope, `done` last; what fails once the answer was
    asked for is an `error` event. Leaving the `async with` before the end cancels the upstream. A program that reads
    slowly slows the upstream down.

    Attributes:
        id: The stream's id.
    """

    def __init__(self, engine: Callable[[], Engine], request: NativeRequest) -> None:
        self.id = new_stream_id()
        self._find_engine = engine
        self._request = request
        self._sink = OrderedEvents("compact")
        self._collector = Collector()
        self._ready: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._session: Session | None = None
        self._is_over = False
        self._is_paused = False

    async def __aenter__(self) -> Self:
        """Asks the model.

        Raises:
            Error: The request is not valid, or there is no such model, or it cannot be asked for this.
        """
        if self._session is not None or self._is_over:
            raise RuntimeError("a stream is followed once: ask again for another answer")
        engine = self._find_engine()
        request = parse_request(encode_json(dict(self._request)))
        call = Call(
            _model(engine.settings, request.model if isinstance(request.model, str) else None),
            request,
            self,
            announces=True,
            prompt_characters=request.characters,
            chain=engine.chain(request, stream_id=self.id, request_id=self._sink.request_id),
            request_id=self._sink.request_id,
            transport="library",
        )
        self._session = engine.start(call, self, self.id, Clock(now_ms))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None and not self._is_over:
            self._is_over = True
            self._session.client_lost()
        self._wake()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            if self._session is None:
                raise RuntimeError("the stream is not open: use `async with gateway.stream(…) as stream:`")
            if self._waiting is not None:
                raise RuntimeError("somebody else waits for the next event of this stream")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        event = self._ready.popleft()
        if self._is_paused and len(self._ready) <= LIMITS.waiting_events // 2 and self._session is not None:
            self._is_paused = False
            self._session.resume()
        return event

    async def result(self) -> Result:
        """The whole answer; reads what has not been read yet.

        Raises:
            Error: The stream failed.
        """
        async for _ in self:
            pass
        return self._collector.result().raise_for_error()

    async def cancel(self) -> None:
        """Stops the upstream; the stream then ends with `finish {cancelled}` and what was used so far."""
        if self._session is not None and not self._is_over:
            self._session.cancel()

    # -- the session's output and client (`net.session`) --

    def event(self, event: Event) -> None:
        """Takes one event of the relay."""
        self._collector.event(event)
        self._sink.event(event)

    def heartbeat(self) -> None:
        """Nothing: nobody waits at the end of a connection."""

    def take(self) -> bytes:
        """No bytes; what was said is ready to be read."""
        self._ready.extend(self._sink.take())
        if len(self._ready) > LIMITS.waiting_events and not self._is_paused and self._session is not None:
            self._is_paused = True
            self._session.pause()
        self._wake()
        return b""

    def commit(self) -> None:
        """Nothing: there is no head."""

    def flush(self) -> None:
        """Nothing, as `commit`."""

    def write(self, data: bytes) -> None:
        """Nothing: there are no bytes."""

    def end(self, data: bytes) -> None:
        """All has been said."""
        self._is_over = True
        self._wake()

    def fail(self, error: Error) -> None:
        """The stream failed early: its error has been said as any other."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Answer:
    """One answer as text. Made by `Gateway.ask` and `Task.stream`.

    `async for` gives the pieces of its text; `await` gives the `Result`. Either asks the model, once.

    Raises:
        Error: The request cannot be made, or the answer failed; while iterating after the text that came before.
    """

    def __init__(self, stream: GatewayStream) -> None:
        self._stream = stream

    def __await__(self) -> Generator[Any, None, Result]:
        return self._whole().__await__()

    async def _whole(self) -> Result:
        async with self._stream as stream:
            return await stream.result()

    async def __aiter__(self) -> AsyncIterator[str]:
        async with self._stream as stream:
            async for event in stream:
                if event["type"] == "text.delta" and not event.get("choice"):
                    yield event.get("text", "")
            await stream.result()


_SETTABLE: Final = frozenset(Request.__struct_fields__)


class Task:
    """A request under construction; every step gives a new one, so that a beginning can be shared. Made by
    `Gateway.task`.

    Example:
        >>> brief = gateway.task().system("Be brief.").model("fast")
        >>> result = await brief.prompt("Explain recursion").ask()
    """

    def __init__(self, gateway: Gateway, request: dict[str, Any]) -> None:
        self._gateway = gateway
        self._request = request

    def system(self, text: str) -> Task:
        """What the model is told before all else."""
        return self.set(system=text)

    def prompt(self, text: str) -> Task:
        """What is asked."""
        return self.set(query=text)

    def messages(self, messages: list[dict[str, Any]]) -> Task:
        """What was said before the prompt."""
        return self.set(messages=messages)

    def model(self, name: str) -> Task:
        """Whom to ask."""
        return self.set(model=name)

    def temperature(self, value: float) -> Task:
        """From 0 to 2."""
        return self.set(temperature=value)

    def max_tokens(self, count: int) -> Task:
        """How long the answer may be, in tokens."""
        return self.set(max_tokens=count)

    def set(self, **fields: Any) -> Task:
        """Sets any fields of the native request.

        Raises:
            TypeError: There is no such field.
        """
        unknown = fields.keys() - _SETTABLE
        if unknown:
            raise TypeError(f"a native request has no field {min(unknown)!r}")
        # What was given stays the caller's, to be changed without an effect here.
        return Task(self._gateway, {**self._request, **copy.deepcopy(fields)})

    def stream(self) -> Answer:
        """The answer's text as it comes."""
        return self._gateway.ask(self._request)

    def events(self) -> GatewayStream:
        """The answer as events."""
        return self._gateway.stream(self._request)

    async def ask(self) -> Result:
        """The whole answer.

        Raises:
            Error: The request cannot be made, or the answer failed.
        """
        return await self._gateway.ask(self._request)


def _model(settings: Settings, name: str | None) -> ModelSettings:
    model = settings.model(name)
    if model is None:
        known = ", ".join(settings.models) or "none"
        raise Error("not_found", f"there is no model {name!r}; known: {known}", reason="model")
    return model
