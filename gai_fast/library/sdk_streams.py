"""Reads the streams of other libraries: `from_sdk` yields their answers as events.

Owns the ends of such a stream. `providers/sdk/objects.py` writes an object of an SDK as the JSON of its API, which
that API's adapter reads as it reads the provider's own bytes.

1. An object whose dump is a chunk of a known API goes through that API's adapter. The first object decides which; an
   object of another API ends the stream as `malformed_chunk`.
2. A message of LangChain, or a chunk of one, becomes a chunk of the chat dialect. Texts and events of `gai.events.v1`
   may be mixed.
3. Only texts, events and whole messages of LangChain are complete without a finish reason: the stream ends with `stop`,
   or `tool_calls`.
4. An exception with a status or an error body is the provider's error; a broken connection is `network`. Any other
   exception passes through. Whatever ends the stream, the library's stream is closed.
5. What only leads to a stream is opened at the first event, so that a refusal is the answer's `error` too: an awaitable
   is awaited, a function called, a context manager entered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final

from gai_fast.core.adapter import Adapter
from gai_fast.core.relay import Relay
from gai_fast.kernels import encode_json
from gai_fast.library.decoding import OrderedEvents
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.providers import PROVIDERS, get_provider
from gai_fast.providers.requests.api import API
from gai_fast.providers.sdk.objects import (
    CHAT,
    EVENTS,
    ObjectShape,
    SDKMessages,
    chunk_of,
    library_of,
    provider_of,
    shape_of,
    wire_of,
)
from gai_fast.providers.sdk.texts import Text
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.threads import ThreadIterator


def from_sdk(stream: Any, *, provider: str | None = None) -> SDKEvents:
    """Returns the events of an answer that another library streams.

    Args:
        stream: The library's result of a streaming request: an iterator or an async iterator of the chunks of
            `openai` (chat, Responses), `anthropic`, `google-genai`, `mistralai`, `cohere`, `groq`, `ollama` or LiteLLM,
            of LangChain's messages, whole or in chunks, of the APIs' chunks as mappings, or of texts and events. Or
            what leads to one, so that a refused request is an `error` event: an async client's call, not awaited; a
            stream manager, not entered; a function without arguments that calls a plain client.
        provider: The provider's name, `name` or `name:api`, in the events; its API reads the chunks if they are of its
            dialect. If it is None, it is inferred from the objects.

    Raises:
        TypeError: `stream` is none of these, such as a whole answer. If only the awaitable, the manager or the function
            shows it, the first event raises it.
        ValueError: The provider is unknown.
    """
    if isinstance(stream, SDKEvents):
        return stream
    if provider is not None:
        get_provider(provider)
    return SDKEvents(stream, provider, is_async=_is_async(stream))


def _is_async(stream: Any) -> bool:
    """Returns whether a stream, or what leads to one, is iterated with `async for`.

    Raises:
        TypeError: It is neither.
    """
    if _is_whole(stream):
        raise _not_streamed(stream)
    is_async, is_plain = hasattr(stream, "__aiter__"), hasattr(stream, "__iter__")
    if is_async and is_plain:  # LiteLLM's wrapper is both; it holds the provider's stream
        inner = getattr(stream, "completion_stream", None)
        return inner is None or hasattr(inner, "__aiter__")
    if is_async or isawaitable(stream):  # a future has `__iter__` too
        return True
    if not is_plain and hasattr(stream, "__aenter__"):
        return True
    if is_plain or hasattr(stream, "__enter__") or _is_function(stream):
        return False
    raise _not_streamed(stream)


def _is_whole(stream: object) -> bool:
    return isinstance(stream, str | bytes | Mapping) or hasattr(stream, "model_dump")  # a model iterates its members


def _is_function(stream: object) -> bool:
    return callable(stream) and not isinstance(stream, type) and not iscoroutinefunction(stream)


def _not_streamed(stream: object) -> TypeError:
    kind = type(stream).__name__
    if iscoroutinefunction(stream):
        return TypeError(f"from_sdk takes an async function's call: call the {kind} first")
    if isinstance(stream, Coroutine):
        stream.close()  # otherwise Python warns that it is never awaited
        return TypeError("from_sdk takes the call of an async client itself, not a function that makes it")
    text = "from_sdk takes an iterator or an async iterator of an answer's chunks"
    return TypeError(f"{text}; this is {kind} (was it streamed?)")


class SDKEvents:
    """The events of `gai.events.v1` of another library's stream, `done` last.

    Iterate it as the stream itself: with `for` if that is a plain iterator, with `async for` if it is an async one.

    Attributes:
        is_async: Whether the stream is an async iterator.
    """

    def __init__(self, stream: Any, provider: str | None, *, is_async: bool) -> None:
        self.is_async = is_async
        self._source = _Source(stream)
        self._reading = _Reading(provider)
        self._plain: Generator[Event] | None = None
        self._async: AsyncGenerator[Event] | None = None

    def __iter__(self) -> Iterator[Event]:
        """Returns the events of a plain iterator.

        Raises:
            TypeError: The stream is an async iterator.
        """
        if self.is_async:
            raise TypeError("this stream is asynchronous: iterate it with `async for`")
        if self._plain is None:
            self._plain = _events(self._source, self._reading)
        return self._plain

    def __next__(self) -> Event:
        return next(iter(self))

    def __aiter__(self) -> AsyncIterator[Event]:
        """Returns the events of an async iterator.

        Raises:
            TypeError: The stream is a plain iterator.
        """
        if not self.is_async:
            raise TypeError("this stream is a plain iterator: iterate it with `for`")
        if self._async is None:
            self._async = _aevents(self._source, self._reading)
        return self._async

    def __anext__(self) -> Any:
        return anext(aiter(self))

    def close(self) -> None:
        """Closes the stream of a plain iterator, also while another thread waits for its next event; idempotent.

        Raises:
            TypeError: The stream is an async iterator.
            ValueError: It is a generator, and another thread waits for its next event; or another thread opens it.
        """
        if self.is_async:
            raise TypeError("this stream is asynchronous: close it with `aclose`")
        self._close_plain()
        self._source.close()

    async def aclose(self) -> None:
        """Closes the stream, also while another task waits for its next event; idempotent.

        Raises:
            RuntimeError: It is an async generator, and another task waits for its next event, or another task opens it:
                cancel that task.
            ValueError: Another thread opens it.
        """
        self._close_plain()
        if self._async is not None and not self._async.ag_running:  # type: ignore[attr-defined]  # typeshed lacks it
            await self._async.aclose()
        await self._source.aclose()

    def _close_plain(self) -> None:
        if self._plain is not None and not self._plain.gi_running:  # type: ignore[attr-defined]  # typeshed lacks it
            self._plain.close()


# Functions, not methods of `SDKEvents`, which holds their generators: a cycle would keep the stream of a loop that was
# left open until the garbage collector runs.
def _events(source: _Source, reading: _Reading) -> Generator[Event]:
    with ExitStack() as opened:
        opened.callback(source.close)
        try:
            items = source.open(opened)
        except Exception as problem:  # noqa: BLE001  # rule 4: raised again if it is none of these
            yield from reading.fail(problem)
            return
        while not reading.is_over:
            try:
                item = next(items)
            except StopIteration:
                events = reading.end()
            except Exception as problem:  # noqa: BLE001  # rule 4: raised again if it is none of these
                events = reading.fail(problem)
            else:
                events = reading.read(item)
            yield from events


async def _aevents(source: _Source, reading: _Reading) -> AsyncGenerator[Event]:
    async with AsyncExitStack() as opened:
        opened.push_async_callback(source.aclose)
        try:
            items = await source.aopen(opened)
        except Exception as problem:  # noqa: BLE001  # rule 4: raised again if it is none of these
            for event in reading.fail(problem):
                yield event
            return
        while not reading.is_over:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                events = reading.end()
            except Exception as problem:  # noqa: BLE001  # rule 4: raised again if it is none of these
                events = reading.fail(problem)
            else:
                events = reading.read(item)
            for event in events:
                yield event


class _Source:
    """Opens and closes another library's stream: rule 5.

    Args:
        given: The stream, or what leads to it.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self._is_opening = False

    def open(self, opened: ExitStack) -> Iterator[Any]:
        """Returns the stream's iterator.

        Args:
            opened: Gets the cleanup of the stream's end.
        """
        stream = self._given
        if not hasattr(stream, "__iter__"):
            self._is_opening = True
            try:
                if _is_function(stream) and not hasattr(stream, "__enter__"):
                    stream = stream()
                if not hasattr(stream, "__iter__") and hasattr(stream, "__enter__"):
                    stream = opened.enter_context(stream)
            finally:
                self._is_opening = False
            if _is_whole(stream) or not hasattr(stream, "__iter__"):
                raise _not_streamed(stream)
            self._given = stream
        return iter(stream)

    async def aopen(self, opened: AsyncExitStack) -> AsyncIterator[Any]:
        """Returns the stream's async iterator; a plain iterator that was awaited is iterated in a thread.

        Args:
            opened: Gets the cleanup of the stream's end.
        """
        stream = self._given
        if not hasattr(stream, "__aiter__"):
            self._is_opening = True
            try:
                if isawaitable(stream):
                    stream = await stream
                if not hasattr(stream, "__aiter__") and hasattr(stream, "__aenter__"):
                    stream = await opened.enter_async_context(stream)
            finally:
                self._is_opening = False
            if _is_whole(stream) or not (hasattr(stream, "__aiter__") or hasattr(stream, "__iter__")):
                raise _not_streamed(stream)
            self._given = stream = stream if hasattr(stream, "__aiter__") else ThreadIterator(iter(stream))
        return aiter(stream)

    def close(self) -> None:
        """Closes the stream; idempotent.

        Raises:
            ValueError: Another thread opens it.
        """
        if self._is_opening:
            raise ValueError("another thread opens this stream")
        close = getattr(self._given, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Closes the stream, or cancels the call that would open it; idempotent.

        Raises:
            RuntimeError: Another task opens it.
        """
        if self._is_opening:
            raise RuntimeError("another task opens this stream: cancel that task")
        given = self._given
        close = getattr(given, "aclose", None) or getattr(given, "close", None) or getattr(given, "cancel", None)
        if close is not None:
            closed = close()
            if isawaitable(closed):
                await closed


def events_of_failure(problem: BaseException) -> list[Event]:
    """Returns the events of an answer that has failed before it began: rule 4.

    Raises:
        BaseException: `problem`, if it is not a failure of the provider or the connection.
    """
    return _Reading(None).fail(problem)


class _Reading:
    """One answer: objects in, events out.

    Args:
        provider: As `from_sdk`.
    """

    def __init__(self, provider: str | None) -> None:
        self._provider = provider
        self._sink = OrderedEvents("compact")
        self._relay: Relay | None = None
        self._adapter: Adapter | None = None
        self._api = ""
        self._name = ""  # the provider of the events, if it is not the adapter's
        self._shapes: dict[type, ObjectShape] = {}
        self._texts: dict[type, Callable[[Any], Text | None]] = {}
        """For each class that has it the `text` of its last shape."""
        self._messages = SDKMessages()
        self._has_read = False
        self._usage: Any = None
        """The usage beside the last text that came without JSON."""
        self.is_over = False
        """Whether the last event has been returned."""

    def read(self, item: Any) -> list[Event]:
        """Reads one object.

        Raises:
            TypeError: It is of no known kind.
        """
        text_of, relay = self._texts.get(type(item)), self._relay
        if text_of is not None and relay is not None:  # most objects
            text = text_of(item)
            if text is not None and relay.receive_text(text[0], text[1]):
                self._has_read = True
                if text[2] is not None:
                    self._usage = text[2]
                return self._taken() if relay.is_over else self._sink.take()
        shape = self._shapes.get(type(item))
        if shape is None or relay is None:
            item = chunk_of(item)
            shape = self._shapes.get(type(item)) or shape_of(item, self._api, self._messages)
            relay = self._begun(shape.api, item)
            if shape.api != self._api:
                what = f"a chunk of {shape.api!r} in a stream of {self._api!r}"
                self._count()
                relay.fail(Error("provider_unavailable", what, reason="malformed_chunk"))
                return self._taken()
            if not shape.varies:
                self._shapes[type(item)] = shape
            if shape.text is not None and type(item) not in self._texts:
                self._texts[type(item)] = shape.text
                return self.read(item)  # objects of another class may have begun the answer
        wire = shape.wire(item)
        if wire is not None:
            self._has_read = True
            self._count()
            relay.receive_chunk(wire)
        return self._taken()

    def end(self) -> list[Event]:
        """Reads the end of the library's stream."""
        relay = self._begun(self._api or self._provider or EVENTS, None)
        if self._api == EVENTS and self._has_read:
            relay.receive_chunk(_END)
        elif self._messages.is_whole and self._adapter is not None and not self._adapter.word():
            relay.receive_chunk(_STOP)
        self._count()
        relay.receive_eof(None, now_ms())
        return self._taken()

    def fail(self, problem: BaseException) -> list[Event]:
        """Reads an exception of the library: rule 4.

        Raises:
            BaseException: `problem`, if it is not a failure of the provider or the connection.
        """
        has_begun = self._relay is not None
        relay = self._begun(self._api or library_of(problem, PROVIDERS) or self._provider or CHAT, problem)
        adapter = self._adapter
        assert adapter is not None
        error = _error_of(problem, adapter, has_begun=has_begun)
        if error is None:
            raise problem
        self._count()
        relay.receive_eof(error, now_ms())
        return self._taken()

    def _taken(self) -> list[Event]:
        """Returns the new events."""
        relay = self._relay
        if relay is not None:
            self.is_over = relay.is_over
            if relay.fault is not None:
                fault, relay.fault = relay.fault, None
                raise fault
        events = self._sink.take()
        if self._name:
            for event in events:
                if event["type"] in ("start", "finish"):
                    event["provider"] = self._name
        return events

    def _count(self) -> None:
        """Reads the usage beside the last text."""
        adapter, usage = self._adapter, self._usage
        if usage is not None and adapter is not None:
            self._usage = None
            for name in adapter.kept_members:
                adapter.kept(name, wire_of(usage))

    def _begun(self, api: str, item: object) -> Relay:
        relay = self._relay
        if relay is None:
            self._api = api
            self._adapter = self._reader(api, item).adapter()
            relay = self._relay = Relay(self._adapter, self._sink)
            if self._provider is not None and api == EVENTS and item is not None:
                start = {"type": "start", "provider": self._provider.partition(":")[0]}
                relay.receive_chunk(encode_json(start).decode())
        return relay

    def _reader(self, api: str, item: object) -> API:
        """Returns the API that reads the objects: the named provider's if its chunks have the same dialect."""
        own = get_provider(provider_of(api, item, PROVIDERS))
        if self._provider is None or api == EVENTS:
            return own
        named = get_provider(self._provider)
        is_same = named.dialect == own.dialect if own.dialect else named.provider == own.provider
        if not is_same:  # another provider's SDK or LangChain asked it
            self._name = named.provider
        return named if is_same else own


_END: Final = '{"type":"done","finished":true}'
_STOP: Final = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'

_BROKEN: Final = frozenset(
    ("TransportError", "NetworkError", "APIConnectionError", "ClientConnectionError", "ClientPayloadError")
)
_LATE: Final = frozenset(("TimeoutException", "APITimeoutError", "ConnectTimeout", "ReadTimeout"))
"""Names of base classes of the libraries' exceptions (httpx, aiohttp, openai, anthropic, groq)."""


def _error_of(problem: BaseException, adapter: Adapter, *, has_begun: bool) -> Error | None:
    """Returns the error for a library's exception. None if it is not a failure of the provider or the connection."""
    if isinstance(problem, Error):
        return problem
    names = {kind.__name__ for kind in type(problem).__mro__}
    if isinstance(problem, TimeoutError) or names & _LATE:
        what, reason = ("the answer stopped coming", "idle") if has_begun else ("no answer has come", "first_event")
        return Error("timeout", f"{what}: {type(problem).__name__}", reason=reason)
    status = getattr(problem, "status_code", None)
    if status is None and hasattr(problem, "details"):  # google-genai
        status = getattr(problem, "code", None)
    body = getattr(problem, "body", None)
    if body is None:
        body = getattr(problem, "details", None)
    text = getattr(problem, "error", None)
    if body is None and status is not None and isinstance(text, str):  # ollama; within a stream its status is -1
        body = {"error": text}
    if isinstance(status, int) and status >= 400:
        headers = getattr(problem, "headers", None) or getattr(getattr(problem, "response", None), "headers", None)
        named: Any = headers if hasattr(headers, "items") else {}
        lower = {str(name).lower(): str(value) for name, value in named.items()}
        return adapter.api.decode_error(status, lower, _error_body(body), now_ms())
    if isinstance(problem, OSError | EOFError) or names & _BROKEN:
        what, reason = ("the answer broke off", "truncated") if has_begun else ("no connection", "connect")
        return Error("network", f"{what}: {type(problem).__name__}", reason=reason)
    if isinstance(body, Mapping):
        failure = adapter.api.read_failure(body) or adapter.api.read_failure({"error": body})
        return None if failure is None else adapter.error(failure)
    return None


def _error_body(body: Any) -> bytes:
    """Returns the body of a provider's error. `openai` and `groq` give the object in its member `error`.

    It is empty if the exception has none: the exception's own text may hold an address or a key.
    """
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    if isinstance(body, Mapping):
        whole = body if "error" in body or body.get("type") == "error" else {"error": body}
        with suppress(ValueError):  # a value that is not JSON
            return encode_json(dict(whole))
    return b""
