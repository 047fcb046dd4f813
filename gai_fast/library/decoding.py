"""Decodes a provider's recorded or live bytes into events, without a server: `decode`, `adecode`, `read_events`.

Owns how the library drives a relay, and the events that its callers get: plain dicts with ordered keys. Provides the
clock and the ids of a decoded stream.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from inspect import isawaitable, signature
from typing import Any, Final, Literal, Protocol

from gai_fast.core.relay import Relay
from gai_fast.kernels import NDJSONParser, SSEParser, parse_exact
from gai_fast.library.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.events import KEY_RANK, SCHEMA, Event, JSONText, is_empty
from gai_fast.providers import get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_request_id

_log: Final = logging.getLogger("gai_fast.library.decoding")

Envelope = Literal["compact", "full"]

# A source that raises one of these has broken off. Any other exception is a bug of the caller and propagates.
_BROKEN = (OSError, EOFError, TimeoutError)


def decode(
    provider: str,
    chunks: Iterable[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    envelope: Envelope = "compact",
) -> Iterator[Event]:
    """Decodes one upstream response.

    Args:
        provider: A provider's name, `name` or `name:api`.
        chunks: The body, split anywhere.
        status: The HTTP status of the response.
        headers: The response headers; names in any case.
        envelope: `compact` (schema, ts and request_id on the first event) or `full` (on every event).

    Yields:
        Events of `gai.events.v1`, `done` last. A failure of the provider, a broken body, and an `OSError`, `EOFError`
        or `TimeoutError` of `chunks` become an `error` event.

    Raises:
        ValueError: At the call: the provider or the envelope is unknown.
        TypeError: At the call: `chunks` is one body instead of its pieces, or `status` is no whole number.
    """
    if isinstance(chunks, bytes | bytearray | memoryview | str):
        kind = type(chunks).__name__
        raise TypeError(f"chunks must be an iterable of bytes-like objects, such as [body], not {kind}")
    return _decoded(_Decoding(provider, status, headers, envelope), chunks)


def _decoded(decoding: _Decoding, chunks: Iterable[bytes]) -> Iterator[Event]:
    yield from decoding.events()
    source = iter(chunks)
    while not decoding.is_over:
        try:
            chunk = next(source)
        except StopIteration:
            decoding.end(None)
        except _BROKEN as problem:
            decoding.end(problem)
        else:
            decoding.feed(chunk)
        yield from decoding.events()


def adecode(
    provider: str,
    chunks: AsyncIterable[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    envelope: Envelope = "compact",
) -> AsyncIterator[Event]:
    """Works as `decode`, for asynchronous chunks."""
    return _adecoded(_Decoding(provider, status, headers, envelope), chunks)


async def _adecoded(decoding: _Decoding, chunks: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    for event in decoding.events():
        yield event
    source = aiter(chunks)
    while not decoding.is_over:
        try:
            chunk = await anext(source)
        except StopAsyncIteration:
            decoding.end(None)
        except _BROKEN as problem:
            decoding.end(problem)
        else:
            decoding.feed(chunk)
        for event in decoding.events():
            yield event


class OrderedEvents:
    """A relay's sink that numbers events without `seq`, and orders their keys as an encoder does.

    Args:
        envelope: `compact` or `full`.
        plain: Whether `tool_call.input` is a parsed value instead of JSON text.
    """

    def __init__(self, envelope: Envelope, *, plain: bool = True) -> None:
        if envelope not in ("compact", "full"):
            raise ValueError(f"unknown envelope {envelope!r}; known: 'compact', 'full'")
        self._full = envelope == "full"
        self._plain = plain
        self._seq = 0
        self.request_id = new_request_id()
        self._events: list[Event] = []

    def event(self, event: Event) -> None:
        """Adds one event."""
        kind, text = event["type"], event.get("text")
        if text and len(event) == 2 and self._seq and not self._full:  # most events
            self._seq += 1
            self._events.append({"type": kind, "seq": self._seq, "text": text})
            return
        if kind == "done":
            self._events.append(event)
            return
        seq = event.get("seq", self._seq + 1)
        whole: dict[str, Any] = {**event, "seq": seq}
        if self._full or seq == 1:
            whole |= {"schema": SCHEMA, "ts": now_ms(), "request_id": self.request_id}
        if self._plain and event["type"] == "tool.call":
            call = event["tool_call"]
            if isinstance(call["input"], JSONText):
                whole["tool_call"] = {**call, "input": call["input"].value}
        ordered = {key: whole[key] for key in sorted(whole, key=KEY_RANK.__getitem__) if not is_empty(whole[key])}
        self._events.append(ordered)  # type: ignore[arg-type]  # the keys are those of an event
        self._seq = seq  # only now: an event that cannot be ordered gets no number

    def take(self) -> list[Event]:
        """Returns the events since the last call."""
        events, self._events = self._events, []
        return events


class _Decoding:
    """One relay that a caller drives with chunks."""

    def __init__(self, provider: str, status: int, headers: Mapping[str, str] | None, envelope: Envelope) -> None:
        self._sink = OrderedEvents(envelope)
        if not isinstance(status, int):
            raise TypeError(f"status must be a whole number, such as 200, not {type(status).__name__}")
        self._relay = Relay(get_provider(provider).adapter(), self._sink)
        self._relay.receive_head(status, {name.lower(): value for name, value in (headers or {}).items()})

    @property
    def is_over(self) -> bool:
        return self._relay.is_over

    def feed(self, chunk: bytes) -> None:
        self._relay.receive_data(chunk if type(chunk) is bytes else _copied(chunk), now_ms())

    def end(self, problem: BaseException | None) -> None:
        error = None
        if isinstance(problem, TimeoutError):
            error = Error("timeout", "the answer stopped coming", reason="idle")
        elif problem is not None:
            error = Error("network", f"the answer broke off: {type(problem).__name__}", reason="truncated")
        self._relay.receive_eof(error, now_ms())

    def events(self) -> list[Event]:
        fault, self._relay.fault = self._relay.fault, None
        if fault is not None:
            _log.error("an answer could not be decoded: a bug of the decoder", exc_info=fault)
        if self._relay.is_cut and fault is not None:
            raise fault
        return self._sink.take()


def _copied(chunk: bytes) -> bytes:
    """Copies a bytes-like object. `bytes()` alone would accept an integer as a size."""
    try:
        return bytes(memoryview(chunk))
    except TypeError:
        raise TypeError(f"a chunk must be bytes-like, not {type(chunk).__name__}") from None


class Readable(Protocol):
    """A byte source with `read`: the body of an aiohttp response, an `asyncio.StreamReader`, an open file."""

    def read(self, size: int, /) -> Awaitable[bytes] | bytes:
        """Returns the next bytes, at most `size`; `b""` at the end."""


def read_events(source: AsyncIterable[bytes] | Readable) -> AsyncIterator[Event]:
    """Reads events of format `gai` from a byte source, as SSE or NDJSON. The first byte decides which.

    Args:
        source: The body of a response, split anywhere: an async iterable of bytes (httpx: `response.aiter_bytes()`), or
            an object with `read` (aiohttp: `response.content`). The response itself works too.

    Yields:
        The events.

    Raises:
        TypeError: At the call: `source` is neither. Later: it returned something other than bytes.
        ValueError: Data is not a JSON object, or exceeds a limit.
    """
    return _events_in(_chunks_of(source))


def _chunks_of(source: Any) -> AsyncIterable[bytes]:
    """Returns the bytes of a source as an async iterable."""
    if hasattr(source, "aiter_bytes"):  # a response of httpx
        return source.aiter_bytes()  # type: ignore[no-any-return]  # bytes, as httpx documents
    if hasattr(source, "content") and hasattr(source.content, "read"):  # a response of aiohttp
        source = source.content
    # `read` before the iterator: a `StreamReader` iterates by lines, and raises if a line is longer than 64 KiB.
    if hasattr(source, "read"):
        return _read_chunks(source)
    if not hasattr(source, "__aiter__"):
        text = "read_events takes an async iterable of bytes, or an object with `read`"
        raise TypeError(f"{text}; this is {type(source).__name__}")
    return source  # type: ignore[no-any-return]  # it has `__aiter__`


async def _read_chunks(source: Any) -> AsyncIterator[bytes]:
    size = () if _takes_nothing(source.read) else (LIMITS.feed_slice,)
    while True:
        chunk = source.read(*size)
        if isawaitable(chunk):
            chunk = await chunk
        if not chunk:
            return
        yield chunk


def _takes_nothing(read: Callable[..., object]) -> bool:
    """Returns whether `read` has no parameter for the size."""
    try:
        signature(read).bind(1)
    except TypeError:
        return True
    except ValueError:  # some functions in C have no signature
        return False
    return False


async def _events_in(source: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    parser: SSEParser | NDJSONParser | None = None
    held = b""
    async for chunk in source:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(
                f"read_events reads bytes (a file: opened with 'rb'); its source gave {type(chunk).__name__}"
            )
        if parser is None:
            held += chunk
            begin = held.removeprefix(_BOM)[: LIMITS.leading_blanks]
            first = begin.lstrip(b" \t\r\n")[:1]
            if (not first and len(begin) < LIMITS.leading_blanks) or _BOM.startswith(held):
                continue
            parser, chunk = NDJSONParser() if first == b"{" else SSEParser(), held
        try:
            items: list[Any] = parser.feed(chunk)
        except ValueError as problem:
            # Yields the items before the fault: the result must not depend on how the source splits its bytes.
            for item in getattr(problem, "before", ()):
                yield _event_in(item)
            raise
        for item in items:
            yield _event_in(item)
    if parser is not None:
        for item in parser.close():
            yield _event_in(item)


def _event_in(item: Any) -> Event:
    if isinstance(item, tuple):  # an `SSEEvent`; a line of NDJSON is already parsed
        _, data, _ = item
        item = parse_exact(data)
    if not isinstance(item, dict):
        raise ValueError(f"not an event: a JSON {type(item).__name__}")
    return item  # type: ignore[return-value]  # an event by the contract of the source


_BOM = b"\xef\xbb\xbf"
