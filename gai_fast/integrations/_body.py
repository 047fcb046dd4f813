"""The body of a response whose content comes from a program's source: `SourceBody`.

Owns the frames of items, when the headers may be sent, keep-alives, and the end of a source that fails or is cancelled.
Knows no web framework: a framework's response calls `begin`, writes the chunks, and calls `close`.

1. Items are events (mappings with a type of docs/events.md, or with `type` and `seq`), written as the server writes
   them; texts, written unchanged; and any other value that JSON can represent.
2. One task runs the source: it enters the source if that is an async context manager, iterates it, and closes it. A
   plain iterator is iterated in a thread (`runtime/threads.py`). The body buffers about `client_buffer` bytes per
   client, so a slow client slows the source down.
3. A failure before the first frame is a whole response with the error's own status. A later failure is part of the
   stream: an `error` event and `done` if events have been sent, otherwise one frame with the error. An `error` that is
   not in the log of a durable stream has no `id:`: no event follows it, and the stream may continue without it.
4. If the client disconnects, the source is cancelled once, and then closed. A source that has not started is closed
   with `aclose` if it has that method: a program that pushes into an unread `Stream` must not wait forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gai_fast.config.keys import STREAM
from gai_fast.core.compression import compressor
from gai_fast.formats import StreamContext, get_format
from gai_fast.formats._base import MEDIA_TYPES, Framing, StreamEncoder
from gai_fast.integrations.limits import LIMITS
from gai_fast.kernels import encode_ndjson, encode_sse
from gai_fast.model.errors import Error, ErrorPayload
from gai_fast.model.events import TYPES, Event, done
from gai_fast.model.halves import Halves, joined, rest
from gai_fast.model.settings import StreamSettings
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_ID, new_stream_id, request_id
from gai_fast.runtime.threads import ThreadIterator
from gai_fast.server.admission.negotiation import content_coding
from gai_fast.server.http.replies import Headers, Reply, StreamHead, error_reply, id_headers

Items = AsyncIterable[Any] | Iterator[Any]
"""The items of a response: an async iterable, or a plain iterator."""

if TYPE_CHECKING:
    from typing_extensions import TypeIs

_NONE: Final[Mapping[str, str]] = {}
_TEXT: Final = {"type": "text.delta"}
_log: Final = logging.getLogger("gai_fast.integrations")

KEYWORDS: Final = (
    "heartbeat",
    "commit_after",
    "flush_interval",
    "timestamps",
    "envelope",
    "retry",
    "write_timeout",
    "client_buffer",
    "compression",
)
"""The keys of `[stream]` for a response; the other keys are for a gateway's streams."""


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checked keyword arguments of a response or a handler.

    Args:
        options: Keys of `[stream]` with their values.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: A value is out of range; the text names the keyword.
    """
    values = {}
    for name, value in options.items():
        if name not in KEYWORDS:
            where = "; the gateway's streams have it, by [stream] of the configuration" if name in STREAM else ""
            raise TypeError(f"a response has no keyword {name!r}{where}; known: {', '.join(KEYWORDS)}")
        try:
            values[name] = STREAM[name].read(list(value) if isinstance(value, tuple) else value)
        except ValueError as problem:
            raise ValueError(f"`{name}` {problem}") from None
    return values


def settings_of(options: Mapping[str, Any]) -> StreamSettings:
    """Returns the settings of a response: its keyword arguments over the defaults of `[stream]`.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: A value is out of range; the text names the keyword.
    """
    return StreamSettings(**checked(options))


class Source(NamedTuple):
    """The inputs of a response, except its request.

    Attributes:
        items: An async iterable of items, entered first if it is an async context manager; or a plain iterator.
        framing: The framing of the response.
        stream: The settings of the response.
        is_resumed: The items continue an earlier stream: every failure is an event of the stream, and if there are no
            more items the response is 204.
        request_id: The request id in the items, if it is known before them; if None, the response has the id of its
            request.
    """

    items: Items
    framing: Framing
    stream: StreamSettings
    is_resumed: bool = False
    request_id: str | None = None

    def body(self, headers: Mapping[str, str] = _NONE) -> SourceBody:
        """Creates the body of the response to one request.

        Args:
            headers: The headers of the request, by their names in lower case.
        """
        body = SourceBody(self.items, self.framing, self.stream, headers, is_resumed=self.is_resumed)
        body.request_id = self.request_id or body.request_id
        return body


def checked_source(items: Items, framing: Framing, options: Mapping[str, Any]) -> Source:
    """Creates the source of a program's response.

    Args:
        items: As in `Source`.
        framing: As in `Source`.
        options: The keyword arguments of the response.

    Raises:
        TypeError: `items` is neither an async iterable nor an iterator, or a keyword is unknown.
        ValueError: A value is out of range; the text names the keyword.
    """
    settings = settings_of(options)
    check_source(items)
    return Source(items, framing, settings)


class BodyFrames:
    """Writes items in one framing: rule 1.

    Args:
        framing: The framing.
        stream: The settings of the response.
        source: The source of the items. If it has a `resume_id`, frames get `id:` lines. If it has a `position`, that
            is the number of the last event that it has read in the stream's log.
    """

    def __init__(self, framing: Framing, stream: StreamSettings, source: Any) -> None:
        self._framing = framing
        self._stream = stream
        self._source = source
        self._encoder: StreamEncoder | None = None
        self._halves: Halves = {}
        self._end: Event | None = None
        self._has_done = False

    def item(self, item: Any) -> bytes:
        """Returns an item's frame.

        Raises:
            ValueError: JSON cannot represent the item, or the item is not a valid event.
        """
        if _is_event(item):
            frames = [self._event(event) for event in joined(self._halves, dict(item))]
            if frames and not self._is_logged(item):
                frames[-1] = _without_id(frames[-1])
            return b"".join(frames)
        if isinstance(item, str):  # halves of a pair in neighbouring texts are joined as in events
            return b"".join([self._plain(each["text"]) for each in joined(self._halves, {**_TEXT, "text": item})])
        return self._rest() + self._plain(item)

    def heartbeat(self) -> bytes:
        """Returns a keep-alive."""
        return b": ping\n" if self._framing == "sse" else b"\n"

    def end(self) -> bytes:
        """Returns the last frames: those of halves that wait, and `done` if a stream of events lacks it."""
        if self._end is None or self._has_done:
            return self._rest()
        return self._rest() + self._event(done(self._end["type"] == "finish"))

    def fail(self, error: Error) -> bytes:
        """Returns the frames of a failure: rule 3."""
        if self._encoder is None:
            item = {"error": error.payload()}
            frame = encode_sse(item, event="error") if self._framing == "sse" else encode_ndjson(item)
            return self._rest() + frame
        if self._end is None:
            self._end = {"type": "error"}
            before = self._rest()
            frame = self._event({"type": "error", "error": error.payload()})
            return before + _without_id(frame) + self._event(done(False))
        return self.end()

    def _rest(self) -> bytes:
        """Returns the frames of halves whose other halves have not come."""
        return b"".join(
            [
                self._plain(event["text"]) if self._encoder is None else self._event(event)
                for event in rest(self._halves)
            ]
        )

    def _plain(self, item: Any) -> bytes:
        return encode_sse(item) if self._framing == "sse" else encode_ndjson(item)

    def _is_logged(self, event: Mapping[str, Any]) -> bool:
        """Returns false for an error that the source itself raised: it is not in the stream's log."""
        if event["type"] != "error":
            return True
        seq, position = event.get("seq"), getattr(self._source, "position", None)
        return not (isinstance(seq, int) and isinstance(position, int) and seq > position)

    def _event(self, event: dict[str, Any] | Event) -> bytes:
        encoder = self._encoder
        if encoder is None:
            encoder = self._encoder = self._begin(event)
        encoder.event(event)  # type: ignore[arg-type]  # an event by rule 1
        if event["type"] in ("finish", "error"):
            self._end = event  # type: ignore[assignment]  # an event by rule 1
        self._has_done = self._has_done or event["type"] == "done"
        return encoder.take()

    def _begin(self, first: Mapping[str, Any]) -> StreamEncoder:
        resume_id = getattr(self._source, "resume_id", None)
        context = StreamContext(
            resume_id or "",
            first.get("request_id") or "",
            first.get("trace_id"),
            "",
            now_ms,
            self._stream.envelope,
            timestamps=self._stream.timestamps,
            ids=resume_id is not None,
            retry_ms=self._stream.retry,
        )
        encoder = get_format("gai").encoder(self._framing, context)
        if first.get("seq", 1) != 1:  # the envelope and `retry:` are in a stream's first event only
            encoder.event({"type": "start", "seq": 1})
            encoder.take()
        return encoder


def _without_id(frame: bytes) -> bytes:
    """Returns a frame without its `id:` line, if it has one; line ends in the data are escaped."""
    head, found, rest = frame.partition(b"\nid: ")
    return head + b"\n" + rest.partition(b"\n")[2] if found else frame


def _is_event(item: Any) -> bool:
    kind = item.get("type") if isinstance(item, Mapping) else None
    return isinstance(kind, str) and (kind in TYPES or "seq" in item)


class SourceBody:
    """The body of one response; runs a source on the running loop.

    Args:
        source: The items of a `Source`.
        framing: As in `Source`.
        stream: As in `Source`.
        headers: The headers of the request, by their names in lower case.
        is_resumed: As in `Source`.

    Attributes:
        request_id: The id of the request.
        framing: The argument.

    Raises:
        TypeError: The source is neither an async iterable nor an iterator.
    """

    def __init__(
        self,
        source: Items,
        framing: Framing,
        stream: StreamSettings,
        headers: Mapping[str, str] = _NONE,
        *,
        is_resumed: bool = False,
    ) -> None:
        check_source(source)
        self.request_id = request_id(headers.get("x-request-id"))
        self._coding = content_coding(headers.get("accept-encoding"), stream.compression)
        self._source = source
        self._items = source if _is_async(source) else ThreadIterator(source)
        self.framing: Framing = framing
        self._stream = stream
        self._is_resumed = is_resumed
        self._frames = BodyFrames(framing, stream, source)
        self._task: asyncio.Task[None] | None = None
        self._early: Error | None = None
        self._pending: list[bytes] = []
        self._size = 0
        self._is_committed = False
        self._has_ended = False
        self._is_cancelled = False
        self._has_begun = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def headers(self) -> Headers:
        """The headers of a response that streams."""
        name = getattr(self._source, "id", None)
        is_id = isinstance(name, str) and EVENT_ID.fullmatch(f"{name}.0") is not None
        stream_id = name if isinstance(name, str) and is_id else new_stream_id()
        more = [("vary", "accept-encoding")] if self._stream.compression else []
        if self._coding is not None:
            more.append(("content-encoding", self._coding))
        headers = StreamHead(MEDIA_TYPES[self.framing], self.request_id, stream_id, more).headers
        # The id is empty if a remote server has not answered yet: the stream's id is unknown.
        return headers if name != "" else [header for header in headers if header[0] != "x-gai-stream-id"]

    async def begin(self, *, is_committed: bool = False) -> Reply | None:
        """Starts the source, and waits for its first frame, at most `commit_after`, which does not run while the source
        waits for a limit of its upstream.

        Args:
            is_committed: The headers have been sent: does not wait, and every failure is part of the stream.

        Returns:
            The whole response to send instead of a stream, or None to send the stream.
        """
        self._task = asyncio.get_running_loop().create_task(self._pump())
        self._is_committed = is_committed
        if is_committed:
            return None
        if not self._pending and not self._has_ended:
            await self._wait_for_first()
        self._is_committed = True
        if self._early is not None:
            return error_reply(self._early, self.request_id)
        if self._is_resumed and self._has_ended and not self._pending:
            return Reply(204, headers=id_headers(self.request_id))
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the chunks to write; closes the source after the last chunk, or when the iterator is closed."""
        coding = None if self._coding is None else compressor(self._coding)
        try:
            async for chunk in self._chunks():
                yield chunk if coding is None else coding.write([chunk])
            if coding is not None and not self._is_cancelled:
                yield coding.end([])
        finally:
            await self.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yields the chunks before compression; the caller closes the source."""
        heartbeat = self._stream.heartbeat or None
        while not self._is_cancelled:
            if not self._pending and not self._has_ended:
                await self._wait(heartbeat)
            elif self._stream.flush_interval and not self._has_ended:
                await asyncio.sleep(self._stream.flush_interval)
            if self._pending:
                chunk, self._pending, self._size = b"".join(self._pending), [], 0
                _wake(self._room)
                yield chunk
            elif self._has_ended:
                return
            else:
                yield self._frames.heartbeat()

    def cancel(self) -> None:
        """Cancels the source: the client has disconnected, or the response is not sent; idempotent."""
        if self._is_cancelled:
            return  # a second cancellation would interrupt the source's cleanup
        self._is_cancelled = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._pump())
        elif self._has_begun:
            self._task.cancel()
        _wake(self._news)

    async def close(self) -> None:
        """Ends the source and waits for its cleanup, at most `LIMITS.source_end`; idempotent."""
        if self._task is None or not self._task.done():
            self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LIMITS.source_end)

    @property
    def is_cancelled(self) -> bool:
        """Whether the source was cancelled before its end."""
        return self._is_cancelled

    async def _wait_for_first(self) -> None:
        left, counted = self._stream.commit_after, 0.0
        while left > 0 and not self._pending and not self._has_ended:
            await self._wait(left)
            limit_wait = getattr(self._source, "limit_wait", 0.0)  # of a gateway's stream
            left, counted = limit_wait - counted, limit_wait

    async def _wait(self, seconds: float | None) -> None:
        """Waits for frames or the end, at most `seconds`; without a limit if None."""
        if seconds == 0:
            return
        loop = asyncio.get_running_loop()
        news = self._news = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _wake, news)
        try:
            await news
        finally:
            self._news = None
            if timer is not None:
                timer.cancel()

    async def _pump(self) -> None:
        """Runs the source: rule 2."""
        self._has_begun = True
        try:
            if self._is_cancelled:
                if hasattr(self._items, "aclose"):
                    await self._items.aclose()
                return
            async with contextlib.AsyncExitStack() as stack:
                source: Any = self._items
                if hasattr(source, "__aenter__"):
                    source = await stack.enter_async_context(source)
                items = aiter(source)
                if hasattr(items, "aclose"):
                    stack.push_async_callback(items.aclose)
                async for item in items:
                    if self.is_cancelled:  # the source has ignored its cancellation
                        return
                    await self._take(item)
            self._write(self._frames.end())
        except asyncio.CancelledError:
            if self._is_cancelled:
                raise
            self._fail(Error("internal", "the source of this response was cancelled"))
        except GeneratorExit:
            raise
        except BaseException as problem:  # noqa: BLE001  # `sys.exit`, `KeyboardInterrupt`: they end the loop of all
            self._fail(problem)
        finally:
            self._has_ended = True
            _wake(self._news)

    async def _take(self, item: Any) -> None:
        if not self._is_committed and not self._pending and not self._is_resumed and _is_error(item):
            self._early = _error_of(item["error"])
        self._write(self._frames.item(item))
        if self._size > self._stream.client_buffer:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _write(self, data: bytes) -> None:
        if data:
            self._pending.append(data)
            self._size += len(data)
            _wake(self._news)

    def _fail(self, problem: BaseException) -> None:
        error = problem
        if not isinstance(error, Error):
            _log.error("the source of a response failed", exc_info=problem)
            error = Error("internal", "the source of this response failed")
        if self._is_committed or self._pending:
            self._write(self._frames.fail(error))
        else:
            self._early = error


def _is_async(source: Any) -> TypeIs[AsyncIterable[Any]]:
    """Returns whether a source is an async iterable. If it is an iterator too, its `is_async` decides (`from_sdk`)."""
    return hasattr(source, "__aiter__") and getattr(source, "is_async", True) is not False


def check_source(source: object) -> None:
    """Refuses an object that cannot be a source.

    Raises:
        TypeError: The object is neither an async iterable nor an iterator.
    """
    if not hasattr(source, "__aiter__") and not hasattr(source, "__next__"):
        text = "a response takes an async iterable, or an iterator, of events, texts or objects"
        raise TypeError(f"{text}; this is {type(source).__name__}")


def _error_of(payload: Mapping[str, Any]) -> Error:
    """Returns the error of an `error` event; it keeps the status that a provider has given it."""
    error = Error.from_payload(payload)
    if isinstance(payload, ErrorPayload) and payload.status is not None:
        error.status = payload.status
    return error


def _is_error(item: Any) -> bool:
    return _is_event(item) and item["type"] == "error" and isinstance(item.get("error"), Mapping)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
