"""A client of a running server with the interface of `Gateway`: `connect`.

Owns how a stream survives the loss of its connection. Must not know models: a server answers.

1. Every stream is asked for as a durable one, with an idempotency key: a request that is sent again, because its
   response was lost, joins the answer of the first one. A program that leaves early cancels such a stream, unless it
   asked for `resumable` itself; if it leaves before the head of the response has come, the gateway waits for the
   head in its place, since the head names the stream.
2. A connection that ends before `done` is made again, with pauses that grow until the next event. Between two events a
   stream may be without a connection for `limits.reconnecting` seconds in all. The time of a connection that brings
   keep-alives alone does not count, since a model may think for longer; but only an event sets pauses and time back, so
   that a server whose connections bring no event is given up. The stream continues after the last event
   (`Last-Event-ID`), so that each is given once.
   A request with `"resumable": False` asks for a plain stream in place of it, of which the server keeps nothing: the
   loss of its connection is its end.
3. A failure before the first response is raised; later it is the stream's `error` event, and `result` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from gai_fast.core.callbacks import EventManager
from gai_fast.core.collector import ReadCollector
from gai_fast.core.result import Result
from gai_fast.kernels import SSEParser, encode_json, parse_exact
from gai_fast.library.asking import (
    Asking,
    NativeRequest,
    check_decision,
    checked_events,
    checked_request,
    event_number,
    request_body,
)
from gai_fast.library.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, done
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.net.stream.callbacks import CallbackRunner
from gai_fast.net.upstream.dialing import reason_of
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_ID, new_request_id

_LOST: Final = (aiohttp.ClientError, OSError, TimeoutError)
"""The exceptions of a lost connection."""
_DOUBLED: Final = ("/v1/v1/", "/v1/api/v1/")
"""In a request's path if the server's URL has the `/v1` of an SDK's `base_url`."""
_WAITS: Final = ("retry-after", "retry-after-ms")

Headers = Mapping[str, str]
"""Headers of a program's own for the requests of one stream, by lower-case name."""
_NONE: Final[Headers] = {}


def connect(base_url: str, key: str | None = None) -> RemoteGateway:
    """Returns a client of a running server. Open it with `async with`.

    Args:
        base_url: The server's URL, with the prefix under which it is mounted, such as `http://127.0.0.1:8080`.
        key: The caller's key. `None` if the server needs none.

    Raises:
        TypeError: `base_url` or the key is not text.
        ValueError: `base_url` is not an HTTP URL, or the key cannot be sent.

    Example:
        >>> async with gai_fast.connect("http://127.0.0.1:8080") as gateway:
        ...     async for text in gateway.ask("Why is the sky blue?"):
        ...         print(text, end="", flush=True)
    """
    return RemoteGateway(base_url, key)


class RemoteGateway(Asking):
    """Asks the models of a server. Made by `connect`; open it with `async with`.

    Args:
        base_url: As for `connect`.
        key: As for `connect`.

    Raises:
        TypeError: As for `connect`.
        ValueError: As for `connect`.
    """

    def __init__(self, base_url: str, key: str | None = None) -> None:
        if not isinstance(base_url, str | URL):
            raise TypeError(f"the server's URL must be str, not {type(base_url).__name__}")
        if key is not None and not isinstance(key, str):
            raise TypeError(f"the key must be str, not {type(key).__name__}")
        url = URL(base_url)
        if url.scheme not in ("http", "https") or not url.host or url.user is not None:
            raise ValueError("the server's URL must begin with http:// or https://, name a host, and hold no password")
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise ValueError("the key must be printable ASCII characters")
        self._url = url.with_query(None).with_fragment(None)
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the gateway is open."""
        return self._session is not None

    async def __aenter__(self) -> Self:
        """Opens the gateway on the running loop. Requests open the connections.

        Raises:
            RuntimeError: The gateway is open already.
        """
        if self._session is not None:
            raise RuntimeError("the gateway is open already")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=LIMITS.server_connect),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._leaving:
                await asyncio.wait(self._leaving)
        finally:
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    @property
    def may_wait(self) -> bool:
        """Whether the gateway may wait for the headers of another abandoned stream."""
        return len(self._leaving) < LIMITS.abandoned

    def run_detached(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs the rest of a stream whose program has left. Closing the gateway waits for it.

        Args:
            work: The rest. It ends by itself and raises nothing.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def stream(
        self, request: str | NativeRequest, events: EventManager | None = None, *, headers: Headers = _NONE
    ) -> RemoteStream:
        """Returns one answer as events. Entering its `async with` sends the request.

        Args:
            request: The prompt, or a native request.
            events: Callbacks; they get the events as the program reads them.
            headers: More headers of its requests, such as `traceparent`, or `authorization` in place of the key.

        Raises:
            TypeError: The request is neither text nor a mapping, or `events` is no `EventManager`.
        """
        return RemoteStream(self, dict(checked_request(request)), checked_events(events), headers=headers)

    def follow(
        self, stream_id: str, after: str | int | None = None, *, headers: Headers = _NONE
    ) -> FollowedRemoteStream:
        """Follows a durable stream of the server.

        Args:
            stream_id: The stream's id.
            after: The last event that the program has: its `seq`, or its id, `<stream id>.<seq>`. `None` if the stream
                is followed from its first event.
            headers: As for `stream`.

        Raises:
            ValueError: `after` is not an event of this stream.
        """
        return FollowedRemoteStream(self, stream_id, event_number(stream_id, after), headers=headers)

    async def cancel(self, stream_id: str, *, headers: Headers = _NONE) -> str:
        """Stops a stream of the server for all its followers.

        Args:
            stream_id: The stream's id.
            headers: As for `stream`.

        Returns:
            Its state: `cancelled`; `finished` or `failed` if it had ended so before.

        Raises:
            Error: There is no such stream (`not_found`), or the server is unreachable or refuses.
        """
        state = (await self._ask("DELETE", stream_path(stream_id), (200, 202), headers)).get("state")
        if not isinstance(state, str):
            raise _not_ours("state of the stream")
        return state

    async def models(self, *, headers: Headers = _NONE) -> list[dict[str, Any]]:
        """Returns the models that the caller may name, as the objects of `GET /v1/models`.

        Args:
            headers: As for `stream`.

        Raises:
            Error: The server is unreachable or refuses.
        """
        listed = (await self._ask("GET", "v1/models", (200,), headers)).get("data")
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise _not_ours("list of models")
        return listed

    async def decide(
        self,
        stream_id: str,
        approval_id: str,
        decision: Literal["approve", "deny"],
        digest: str,
        reason: str | None = None,
        *,
        headers: Headers = _NONE,
    ) -> None:
        """Decides about a call of a stream's run that waits for an approval.

        Args:
            stream_id: The stream's id.
            approval_id: The id in `approval.required`.
            decision: Whether the call is made.
            digest: The digest there: the decision is for this call alone.
            reason: Why; the model reads it.
            headers: As for `stream`.

        Raises:
            Error: A value is not valid (reason `validation`), there is no such approval (`not_found`), the digest is of
                another call, or the call is decided already (409, reason `digest` or `decided`); or the server is
                unreachable or refuses.
        """
        check_decision(approval_id, decision, digest, reason)
        given = {"decision": decision, "digest": digest, "reason": reason}
        path = f"{stream_path(stream_id)}/approvals/{quote(approval_id, safe='')}"
        await self._ask("POST", path, (200,), headers, encode_json(given))

    async def _ask(
        self, method: str, path: str, statuses: tuple[int, ...], headers: Headers, body: bytes | None = None
    ) -> dict[str, Any]:
        """Sends a request that is answered with one JSON object, and returns it.

        Args:
            method: GET, DELETE or POST.
            path: The path below the server's URL.
            statuses: Of a success.
            headers: As for `stream`.
            body: The body, JSON. None if there is none.

        Raises:
            Error: The server is unreachable or refuses, or its answer is not valid.
        """
        try:
            async with asyncio.timeout(LIMITS.server_connect):
                response = await self.send(method, path, body, headers={"accept": "application/json", **headers})
                if response.status not in statuses:
                    raise await error_of(response)
                data = await _body(response, LIMITS.server_object)
        except _LOST as problem:
            raise self.unreachable(problem) from None
        try:
            found = parse_exact(data.decode())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _foreign(response)
        return found

    def unreachable(self, problem: BaseException) -> Error:
        """Returns the error of a connection that was lost or could not be opened.

        Args:
            problem: The exception.
        """
        cause = problem
        if isinstance(problem, aiohttp.ClientConnectorCertificateError):
            cause = problem.certificate_error
        elif isinstance(problem, aiohttp.ClientConnectorError):
            cause = problem.os_error
        why = reason_of(cause) if isinstance(cause, OSError) else type(cause).__name__
        text = f"the server at {self._url} cannot be reached ({why}): check the URL, and that the server runs"
        return Error("network", text, reason="connect")

    async def send(
        self, method: str, path: str, body: bytes | None = None, after: str | None = None, headers: Headers = _NONE
    ) -> aiohttp.ClientResponse:
        """Sends a request.

        Args:
            method: GET, POST or DELETE.
            path: The path below the server's URL.
            body: JSON.
            after: The id of the last event that the program has.
            headers: More headers; they replace those of the same name.

        Raises:
            Network: The response is not HTTP.
            RuntimeError: The gateway is not open.
        """
        if self._session is None:
            raise RuntimeError("the gateway is not open: use `async with gai_fast.connect(…) as gateway:`")
        headers = {"accept": "text/event-stream", **headers}
        if body is not None:
            headers["content-type"] = "application/json"
        if after is not None:
            headers["last-event-id"] = after
        url = (self._url / path).with_query(envelope="compact")
        # Redirects are not followed: the key is for this server.
        try:
            return await self._session.request(method, url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ClientResponseError:  # not a lost connection: another try would not help
            text = "the server's answer is not HTTP, or its head is too large"
            raise Error("network", text, reason="protocol", temporary=False) from None


class RemoteStream:
    """One answer of a server, followed as it streams, over as many connections as needed. Made by `stream`.

    Iterating yields the events of `gai.events.v1` in the compact envelope, `done` last. Leaving the `async with` before
    the end cancels the answer. If it was requested with `resumable`, `on_disconnect` decides whether it goes on.

    Attributes:
        id: The stream's id; empty before the server has responded.
        gateway: The gateway that asks.
        request: The native request; it may be replaced until it is sent.
        position: The number of the last event received from the stream's log.
    """

    def __init__(
        self,
        gateway: RemoteGateway,
        request: dict[str, Any],
        manager: EventManager | None = None,
        *,
        headers: Headers = _NONE,
    ) -> None:
        self.id = ""
        self.position = 0
        self.gateway = gateway
        self.request = request
        self._manager = manager
        self._callbacks: CallbackRunner | None = None
        self._headers = headers
        has_key = "idempotency_key" in request or "idempotency-key" in headers
        self._is_own = not request.get("resumable") and not has_key
        self._is_plain = self._is_own and request.get("resumable") is False
        self._key = new_request_id()
        self._seq = 0
        self._response: aiohttp.ClientResponse | None = None
        self._parser = SSEParser()
        self._ready: deque[Event] = deque()
        self._collector = ReadCollector(can_void=not self._is_plain)
        self._end: Event | None = None
        self._is_entered = False
        self._is_over = False
        self._is_read = False
        # The state of rule 2 since the last event:
        self._tries = 0
        self._disconnected = 0.0
        self._lost_at = 0.0
        self._hint = 0.0

    def resumed(self, stream_id: str, after: int) -> FollowedRemoteStream:
        """Returns the rest of an earlier stream of the server, which is followed in place of this one.

        Args:
            stream_id: The earlier stream's id.
            after: The number of its last event that the client has.
        """
        return self.gateway.follow(stream_id, after, headers=self._headers)

    @property
    def resume_id(self) -> str | None:
        """The id to follow the stream again. `None` if the stream ends with its program."""
        return None if self._is_own else self.id

    async def __aenter__(self) -> Self:
        """Sends the request to the server.

        Raises:
            Error: The request has a value that JSON cannot express, or the server refuses it or is unreachable.
            RuntimeError: The gateway is not open, or the stream was entered before.
        """
        if self._is_entered:
            raise RuntimeError("a stream is entered once: ask again for another answer")
        self._is_entered = True
        if self._manager is not None:
            loop = asyncio.get_running_loop()
            self._callbacks = CallbackRunner(self._manager, loop, pause=_nothing, resume=_nothing)
        entering = asyncio.get_running_loop().create_task(self._enter())
        try:
            await asyncio.wait([entering])
        except asyncio.CancelledError:
            self.gateway.run_detached(self._abandon(entering, ends=self._is_own and self.gateway.may_wait))
            raise
        entering.result()
        return self

    async def _enter(self) -> None:
        """Sends the request until there is a response. Raises as `__aenter__`."""
        try:
            await self._open()
        except Error as error:
            if error.phase is None:
                raise
            self._fail(error)  # an upstream error becomes an event, as in this process
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as problem:
            raise self.gateway.unreachable(problem) from None
        except _LOST as problem:
            if self._is_plain:
                raise self.gateway.unreachable(problem) from None
            self._lose()  # the server may have started the stream: rule 1
            while self._response is None and not self._is_over:
                await self._reopen()

    async def _abandon(self, entering: asyncio.Task[None], *, ends: bool) -> None:
        """Closes a stream whose program has left `__aenter__`.

        Args:
            entering: The task that the program waited for.
            ends: Whether to cancel the stream: rule 1.
        """
        if ends:
            await asyncio.wait([entering], timeout=LIMITS.server_connect)
        entering.cancel()
        await asyncio.wait([entering])
        if not entering.cancelled():
            entering.exception()  # retrieved, so asyncio does not log it
        if ends:
            await self._cancel_own()
        self._leave()

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        callbacks, self._callbacks = self._callbacks, None
        is_early = not self._is_over
        self._leave()
        if callbacks is not None:
            await callbacks.leave(kind, is_early=is_early)
        await self._cancel_own()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def result(self) -> Result:
        """Returns the complete answer. Reads all remaining events.

        Raises:
            Error: The stream failed, or its answer is too large for a result (`answer_too_large`).
        """
        while await self._next() is not None:
            pass
        return self._collector.result()

    async def cancel(self) -> None:
        """Stops the upstream. The stream then ends with `finish {cancelled}` and the usage so far.

        Raises:
            Error: The server is unreachable, refuses, or has not named the stream yet.
        """
        if self._end is None and not self._is_over:
            await self._delete()

    async def decide(
        self, approval_id: str, decision: Literal["approve", "deny"], digest: str, reason: str | None = None
    ) -> None:
        """Decides about a call of the run that waits for an approval; as `RemoteGateway.decide`.

        Args:
            approval_id: As there.
            decision: As there.
            digest: As there.
            reason: As there.
        """
        await self.gateway.decide(self.id, approval_id, decision, digest, reason, headers=self._headers)

    async def _cancel_own(self) -> None:
        """Cancels a stream that cannot be followed again, unless its end is known."""
        if self._is_plain:  # its connection, which is closed, was its only reader
            return
        if self._end is None and self._is_own and self.id and self.gateway.is_open:
            with contextlib.suppress(Error):  # the program has left; if this fails, the server follows `on_disconnect`
                await self._delete()

    # -- reading --

    async def _next(self) -> Event | None:
        """Returns the next event. `None` after the last event."""
        if not self._is_entered:
            raise RuntimeError("the stream is not open: use `async with gateway.stream(…) as stream:`")
        if self._is_read:
            raise RuntimeError("another task waits for the next event of this stream: read it in one place")
        self._is_read = True
        try:
            while not self._ready:
                if self._is_over:
                    return None
                await self._read_more()
        finally:
            self._is_read = False
        event = self._ready.popleft()
        if self._callbacks is not None:
            self._callbacks.dispatch([event])
        return event

    async def _read_more(self) -> None:
        """Reads the next bytes, or tries once to reconnect."""
        await (self._reopen() if self._response is None else self._read(self._response))

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        """Reads the next bytes. If the connection has ended, it is lost: rule 2."""
        data = b""
        # aiohttp raises `RuntimeError` if the gateway has closed the connection.
        with contextlib.suppress(*_LOST, RuntimeError):
            async with asyncio.timeout(LIMITS.server_silence):
                data = await response.content.readany()
        if data:
            self._receive(data)
        else:
            self._lose()

    def _receive(self, data: bytes) -> None:
        """Handles the received bytes; anything but an event ends the stream."""
        try:
            self._feed(data)
        except ValueError:
            self._fail(Error("network", "the server sent data that is not an event", reason="protocol"))

    def _feed(self, data: bytes) -> None:
        """Parses the events of a read.

        Raises:
            ValueError: Something in it is not an event.
        """
        for piece in [data] if self._seq else data.splitlines(keepends=True):
            is_begun = self._seq > 0
            for _, text, event_id in self._parser.feed(piece):
                self._take(text, event_id)
            if not is_begun and self._seq:
                self._parser = SSEParser()  # the first frame's `retry:` is for clients without backoff
        if self._parser.retry is not None:
            self._hint = self._parser.retry / 1000  # sent by a server that shuts down

    def _take(self, text: str, event_id: str) -> None:
        """Adds one event, unless the program has it.

        Args:
            text: The event as JSON.
            event_id: The last `id:` so far: the event's own id, unless the server made the event for this client alone.

        Raises:
            ValueError: It is none.
        """
        event: Any = parse_exact(text)
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise ValueError("not an event")
        seq = event.get("seq", 0)
        if type(seq) is not int:
            raise ValueError("not an event: its number is no whole one")
        if self._is_over:
            return
        if "seq" in event:
            if seq <= self._seq:
                return
            self._seq = seq
            # An event without a number is no progress: a connection that is made again brings it again.
            self._tries = 0
            self._disconnected = 0.0
            if event_id and event_id == f"{self.id}.{seq}":  # a plain stream's events have no numbers
                self.position = seq
        self._keep(event, text)  # type: ignore[arg-type]  # an event by the server's contract
        if event["type"] in ("finish", "error"):
            self._end = event  # type: ignore[assignment]  # an event by the server's contract
        if event["type"] == "done":
            self._leave()

    def _keep(self, event: Event, text: str) -> None:
        """Keeps an event until the program reads it.

        Args:
            event: The event.
            text: The event as JSON, as the server has sent it.
        """
        self._collector.event(event)
        self._ready.append(event)

    def _keep_own(self, event: Event) -> None:
        """Keeps an event that this client has made."""
        self._keep(event, encode_json(event).decode())

    # -- connections --

    @property
    def _path(self) -> str:
        """The stream's path below the server's URL.

        Raises:
            NotFound: The id is not a valid stream id. Programs may pass ids from their own clients.
        """
        return stream_path(self.id)

    async def _open(self) -> None:
        """Sends the request and receives the response headers.

        Raises:
            Error: The server refuses.
        """
        kept = {} if self._is_plain else {"idempotency_key": self._key}
        body = request_body({**kept, **self.request, "stream": True, "resumable": not self._is_plain})
        async with asyncio.timeout(LIMITS.server_head):
            response = await self.gateway.send("POST", "api/v1/stream", body, headers=self._headers)
        await self._begin(response)

    async def _resume(self) -> None:
        """Requests the rest of the stream. Raises as `_open`."""
        after = f"{self.id}.{self._seq}" if self._seq else None
        async with asyncio.timeout(LIMITS.server_connect):
            response = await self.gateway.send("GET", self._path, after=after, headers=self._headers)
        await self._begin(response)

    async def _begin(self, response: aiohttp.ClientResponse) -> None:
        """Starts to read a response.

        Raises:
            Error: The response is an error.
        """
        if response.status == 204 and self.id:  # the program has everything but `done`
            response.release()
            self._finish()
        elif response.status == 200 and response.content_type == "text/event-stream":
            self.id = self.id or _checked_id(response.headers.get("x-gai-stream-id", ""))
            if not self.id:  # without an id it cannot be resumed: a second request would be a second answer
                response.close()
                raise _foreign(response)
            self._response = response
            if self._tries:
                self._disconnected += asyncio.get_running_loop().time() - self._lost_at
            self._parser = SSEParser()
            # Read at once: aiohttp discards buffered data when the connection breaks.
            if data := response.content.read_nowait():
                self._receive(data)
        else:
            raise await error_of(response)

    async def _reopen(self) -> None:
        """Tries once to reconnect: rule 2."""
        if self._end is not None:
            self._finish()
            return
        if self._is_plain:
            text = "the connection to the server was lost, and nothing is kept of a stream that is not `resumable`"
            self._fail(Error("network", text, reason="closed"))
            return
        wait = max(min(self._hint, LIMITS.reconnect_longest), _pause(self._tries))
        self._hint = 0.0
        lost_for = asyncio.get_running_loop().time() - self._lost_at
        if self._disconnected + lost_for + wait > LIMITS.reconnecting:
            text = f"the connection to the server was lost, and not made again within {LIMITS.reconnecting:g} s"
            self._fail(Error("network", text, reason="closed"))
            return
        if wait:
            await asyncio.sleep(wait)
        if not self.gateway.is_open:
            self._fail(Error("network", "the gateway of this stream was closed", reason="closed"))
            return
        self._tries += 1
        try:
            await (self._resume() if self.id else self._open())
        except _LOST:
            return
        except Error as error:
            if not error.temporary:
                self._fail(error)
            elif error.retry_after_ms is not None:
                self._hint = error.retry_after_ms / 1000

    async def _delete(self) -> None:
        """Cancels the stream on the server. Does nothing if the stream has ended.

        Raises:
            Error: As `cancel`.
        """
        try:
            async with asyncio.timeout(LIMITS.server_connect):
                response = await self.gateway.send("DELETE", self._path, headers=self._headers)
                if response.status not in (200, 202, 404):
                    raise await error_of(response)
                response.release()
        except _LOST as problem:
            raise self.gateway.unreachable(problem) from None

    def _lose(self) -> None:
        """Closes the response of a lost connection."""
        response, self._response = self._response, None
        self._lost_at = asyncio.get_running_loop().time()
        if response is not None:
            response.close()

    def _leave(self) -> None:
        """Stops reading. Idempotent."""
        self._is_over = True
        self._lose()

    def _finish(self) -> None:
        """Ends a stream whose `done` was lost."""
        if self._end is not None:
            self._keep_own(done(self._end["type"] == "finish"))
        self._leave()

    def _fail(self, error: Error) -> None:
        """Ends the stream with an error of the client."""
        event: Event = {"type": "error", "seq": self._seq + 1, "error": error.payload()}
        self._keep_own(event)
        self._keep_own(done(False))
        self._leave()


class FollowedRemoteStream(RemoteStream):
    """A durable stream of a server, followed from a given event. Made by `follow`.

    Iterating yields the events after that event, `done` last. If the program already has the end, there are none. Use
    it in `async with`, or iterate over it directly. Leaving it early does not end the stream.
    """

    def __init__(self, gateway: RemoteGateway, stream_id: str, after: int, *, headers: Headers = _NONE) -> None:
        super().__init__(gateway, {"resumable": True}, headers=headers)
        self.id = stream_id
        self._seq = self.position = after

    async def __aiter__(self) -> AsyncIterator[Event]:
        if not self._is_entered:
            await self.__aenter__()
        try:
            while (event := await self._next()) is not None:
                yield event
        finally:
            self._leave()

    async def _open(self) -> None:
        await self._resume()


def _checked_id(text: str) -> str:
    """Returns a stream's id; empty if the text is not a valid id."""
    return text if EVENT_ID.fullmatch(f"{text}.0") else ""


def stream_path(stream_id: str) -> str:
    """Returns the path of a stream below the server's URL.

    Raises:
        NotFound: The id is not a valid stream id. Programs may pass ids from their own clients.
    """
    if not _checked_id(stream_id):
        raise Error("not_found", "there is no such stream: this is no stream's id", reason="stream")
    return f"api/v1/streams/{stream_id}"


def _pause(tries: int) -> float:
    """Returns the seconds to wait before a try; half of them random. 0 before the first try."""
    if not tries:
        return 0.0
    whole = min(LIMITS.reconnect_first * 2.0 ** (tries - 1), LIMITS.reconnect_longest)
    return whole * random.uniform(0.5, 1)


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Returns a response's body, or the beginning of a longer one."""
    data = b""
    while more := await response.content.read(most - len(data)):
        data += more
    response.release()
    return data


async def error_of(response: aiohttp.ClientResponse) -> Error:
    """Returns the error in a response."""
    error = await _error_in(response)
    is_no_route = response.status == 404 and error.reason in (None, "protocol")
    if is_no_route and any(each in response.url.path for each in _DOUBLED):
        text = f"{error.message}; give `connect` the server's URL without /v1"
        return Error(error.code, text, reason=error.reason, temporary=False, status=error.status)
    return error


async def _error_in(response: aiohttp.ClientResponse) -> Error:
    try:
        async with asyncio.timeout(LIMITS.server_connect):
            data = await _body(response, LIMITS.server_error)
        payload = parse_exact(data.decode())["error"]
        error = Error.from_payload(payload)
    except (*_LOST, ValueError, TypeError, KeyError, AttributeError):
        return _foreign(response)
    finally:
        response.close()
    error.status = response.status
    if error.retry_after_ms is None:  # the body of a `/v1` route has no such member
        error.retry_after_ms = _retry_after(response)
    return error


def _foreign(response: aiohttp.ClientResponse) -> Error:
    """Returns the error for a response that is not from our server: from a proxy, or from another server."""
    text = f"the server answered {response.status}, and not as a gai-fast server does"
    if response.status not in (429, 502, 503, 504):
        return Error("network", text, reason="protocol", temporary=False)
    return Error("network", text, reason="protocol", retry_after_ms=_retry_after(response))


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    """Returns the milliseconds that a response asks to wait, or None. The time until a limit is full again does
    not count: successful responses state it too."""
    headers = {name: response.headers.get(name, "") for name in _WAITS}
    return retry_after_ms(headers, "", now_ms())


def _not_ours(what: str) -> Error:
    """Returns the error for an answer without the member that was requested."""
    text = f"the server's answer has no {what}, as a gai-fast server's has"
    return Error("network", text, reason="protocol", temporary=False)


def _nothing() -> None: ...
