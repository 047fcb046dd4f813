"""Streamable HTTP: each message to the server is a POST of its own, over a pool of connections.

Owns requests, the two forms of their responses, and streams that are resumed. It must not know the meaning of methods.

1. A request that is not repeatable is never sent again by a connection; `tools/call` is none.
2. A response is one JSON message, or a stream of events that ends with it (2025-11-25, "Sending Messages", 5 and 6).
3. A stream of a session that ends without the answer is resumed by a GET with `Last-Event-ID`, if an event had an id,
   after the time that the server has named. Without sessions a stream cannot be resumed.
4. A cancelled request closes its connection; with sessions, where that means nothing, the server is told as well.
5. 404 to a request with a session's id means that the session has ended.
6. A redirect is not followed: the server's secrets are for its own address.
7. After a response with `Retry-After` nothing is sent until then.
8. A request that is refused for its token (401) is sent again, once, with another one: the server has not handled it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from gai_fast.kernels import SSEParser
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Peer, UpstreamSettings
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.attempts.retry import NO_TOKEN, REFUSED_IDENTITY
from gai_fast.net.attempts.standing import Refusal
from gai_fast.net.identity.grant import Grant
from gai_fast.net.identity.token_source import TokenSource
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import MessageReader
from gai_fast.net.tools.pause import Pause
from gai_fast.net.tools.protocol import Agreement
from gai_fast.net.tools.rpc import (
    Fault,
    Notice,
    ServerMessage,
    ServerQuestion,
    ServerReply,
    ToolServerError,
    answer_bytes,
    notice_bytes,
    request_bytes,
)
from gai_fast.net.tools.wire import ToolRequest, Wire
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.http_request import Origin, encode_request
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.runtime.timers import Timers

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_POST: Final = (("content-type", _JSON), ("accept", f"{_JSON}, {_EVENTS}"))
_OURS: Final = frozenset({"content-type", "accept", "mcp-session-id", "mcp-protocol-version", "last-event-id"})
"""Headers that a configuration cannot set; so are those that begin with `_OF_CALLS`."""
_OF_CALLS: Final = ("mcp-method", "mcp-name", "mcp-param-")
_VISIBLE: Final = re.compile(r"[!-~]+")
_EVENT_ID: Final = re.compile(r"[ -~]+")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,60}")
_MS: Final = 1e-3


def tool_server_address(url: str) -> tuple[str, str]:
    """Splits the URL of a server.

    Returns:
        The URL of its host, and the path with its query.

    Raises:
        ValueError: It cannot be used. The text does not repeat it: it may hold a secret.
    """
    try:
        parts = urlsplit(url)
        Origin.parse(urlunsplit((parts.scheme, parts.netloc, "", "", "")))
    except ValueError:
        raise ValueError("it must begin with http:// or https://, and name a host without a password") from None
    if "#" in url:
        raise ValueError("it must not have a fragment")
    path = parts.path or "/"
    return f"{parts.scheme}://{parts.netloc}", f"{path}?{parts.query}" if parts.query else path


def _secrets_in(path: str) -> list[str]:
    """Returns the texts of a path and its query that may be secrets: the query, each of its values, and each segment
    of the path that does not look like a word."""
    segments, _, query = path.partition("?")
    unlike_words = [each for each in segments.split("/") if any(char.isdigit() or char.isupper() for char in each)]
    values = [each.partition("=")[2] or each for each in query.split("&")]
    return [
        query,
        *unlike_words,
        *map(unquote, unlike_words),
        *values,
        *map(unquote, values),
        *map(unquote_plus, values),
    ]


class HTTPWire(Wire):
    """The way to a server on HTTP.

    Args:
        peer: Its host: the URL without a path.
        path: The path, and query, of all requests.
        headers: Headers of all requests; they may hold a secret.
        credentials: As `Wire.credentials`, without tokens. None means the values of the headers.
        tokens: The source of tokens for the header `authorization`. None if there is none. The wire closes it.
        max_calls: Requests at a time that wait for an answer.
        timers: The loop's timers.
        loop: The running loop.

    Raises:
        ValueError: The peer, the path or a header is not acceptable. No text has the value of a header.
    """

    has_headers = True

    def __init__(
        self,
        peer: Peer,
        path: str,
        headers: Mapping[str, str],
        *,
        credentials: Collection[bytes] | None = None,
        tokens: TokenSource | None = None,
        max_calls: int = SHARED.tool_places,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        for name in headers:
            if name.lower() in _OURS or name.lower().startswith(_OF_CALLS):
                raise ValueError(f"the header {name!r} is set by the client itself")
        self._headers = tuple(headers.items())
        encode_request(Origin.parse(peer.url), "POST", path, self._headers, b"")  # what is refused is refused here
        self._credentials = secrets_of(None, headers) if credentials is None else frozenset(credentials)
        in_path = {text: text for text in _secrets_in(path)}
        self._secrets = secrets_of(None, {**in_path, **headers}) | self._credentials
        self._tokens = tokens
        self._as_upstream = UpstreamSettings("", "", peer.url, first_event_timeout=peer.idle_timeout)
        self._path = path
        self._loop = loop
        self._pause = Pause(timers)
        self._pool = UpstreamPool(
            peer,
            timers=timers,
            max_connections=2 * max_calls,  # as many notices beside the calls
            pool_wait=peer.connect_timeout,
            loop=loop,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- as a way to a server

    @property
    def secrets(self) -> Collection[bytes]:
        """As `Wire.secrets`."""
        return self._secrets if self._tokens is None else self._secrets | self._tokens.secrets

    @property
    def credentials(self) -> Collection[bytes]:
        """As `Wire.credentials`."""
        return self._credentials if self._tokens is None else self._credentials | self._tokens.secrets

    async def start(self) -> bool:
        """Returns False: connections are made by requests."""
        return False

    async def ask(self, request: ToolRequest, agreed: Agreement | None) -> ServerReply:
        """As `Wire.ask`: rules 1 to 8."""
        body = request_bytes(request.id, request.method, request.params)
        try:
            return await self._asked(request, agreed, body)
        except ToolServerError as problem:
            if problem.fault != "token":
                raise
        return await self._asked(request, agreed, body)

    async def _asked(self, request: ToolRequest, agreed: Agreement | None, body: bytes) -> ServerReply:
        answer = _Answer(self, request, agreed)
        self._begin(answer, "POST", self._headers_of(request, agreed), body, request.is_repeatable)
        try:
            while isinstance(outcome := await answer.outcome, _Cut):
                await asyncio.sleep(outcome.wait)
                answer = _Answer(self, request, agreed, outcome)
                self._begin(answer, "GET", self._resuming(outcome.last_id, agreed), b"", True)
            return outcome
        except asyncio.CancelledError:
            request.was_sent = answer.was_sent
            answer.give_up()
            if request.was_sent and agreed is not None and not agreed.is_stateless:
                self._later(self._cancel(request, agreed))
            raise

    async def tell(self, method: str, agreed: Agreement) -> None:
        """As `Wire.tell`."""
        await self._post(notice_bytes(method, {}), agreed)

    async def leave(self, agreed: Agreement | None) -> None:
        """As `Wire.leave`: does not wait for the server."""
        if agreed is not None and agreed.session is not None:
            self._later(self._leave(agreed))

    async def close(self, agreed: Agreement | None) -> None:
        """As `Wire.close`; a session ends by DELETE, within `limits.farewell` seconds."""
        await self.leave(agreed)
        if self._tasks:
            await asyncio.gather(*self._tasks)
        if self._tokens is not None:
            self._tokens.close()
        await self._pool.close()

    # ---- for answers

    def told_to_wait(self, status: int, headers: Mapping[str, str]) -> None:
        """Notes a refusal, perhaps with `Retry-After`: rule 7."""
        self._pause.note(status, headers)

    def end_pause(self) -> None:
        """As `Wire.end_pause`."""
        self._pause.end()

    def served(self) -> None:
        """Notes that the server has taken the token."""
        if self._tokens is not None:
            self._tokens.standing(None).serve("", is_model=True)

    def has_other_token(self, refused: Grant, caller: str) -> bool:
        """Replaces a token that the server refuses; returns whether there will be another: rule 8.

        What it refuses to one caller may be that caller's doing (`standing.py`): all others go on with the token.
        """
        if self._tokens is None:
            return False
        error, now = Error("unauthorized", "it refuses the token"), self._loop.time()
        found = self._tokens.standing(refused.secret).refuse("", caller, now, is_model=True)
        if found is Refusal.OF_THE_REQUEST:
            return self._tokens.doubted(refused.secret, error, now, "", caller) == 0.0
        return self._tokens.failed(refused.secret, error, now) == 0.0

    def reply_to(self, question: ServerQuestion, agreed: Agreement) -> None:
        """Answers a request of the server's."""
        self._later(self._post(answer_bytes(question), agreed))

    # ---- requests

    def _begin(
        self,
        answer: _Response,
        method: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        is_repeatable: bool,
    ) -> None:
        """Sends a request, with a token if there is a source of tokens.

        Raises:
            ToolServerError: The server has asked for a pause.
        """
        self._pause.check(may_have_run=method == "GET")

        def send(grant: Grant | None) -> OpenExchange:
            answer.grant = grant
            granted = [] if grant is None else grant.headers(method, self._as_upstream.base_url, self._path, body)
            whole = [*headers, *granted]
            return self._pool.open_once(method, self._path, whole, body, answer, answer.caller, None, -1, is_repeatable)

        answer.exchange = (
            send(None)
            if self._tokens is None
            else self._tokens.open(self._as_upstream, answer, send, "", answer.caller)
        )

    def _headers_of(self, request: ToolRequest, agreed: Agreement | None) -> list[tuple[str, str]]:
        return [*self._headers, *_POST, *_session_headers(agreed), *request.headers]

    def _resuming(self, last_id: str, agreed: Agreement | None) -> list[tuple[str, str]]:
        return [*self._headers, ("accept", _EVENTS), *_session_headers(agreed), ("last-event-id", last_id)]

    async def _post(self, body: bytes, agreed: Agreement, method: str = "POST") -> None:
        """Sends a message that has no answer.

        Raises:
            ToolServerError: The server has refused it, does not answer, or has asked for a pause.
        """
        done = _Accepted(self, agreed)
        headers = [*self._headers, *(_POST if body else ()), *_session_headers(agreed)]
        try:
            self._begin(done, method, headers, body, False)
            await done.outcome
        except asyncio.CancelledError:
            done.give_up()
            raise

    async def _cancel(self, request: ToolRequest, agreed: Agreement) -> None:
        await self._post(notice_bytes("notifications/cancelled", {"requestId": request.id}), agreed)

    async def _leave(self, agreed: Agreement) -> None:
        await self._post(b"", agreed, "DELETE")

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Sends something whose outcome does not matter, within `limits.farewell` seconds."""
        task = self._loop.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(LIMITS.farewell):
                await work
        except (ToolServerError, TimeoutError):
            pass


def _session_headers(agreed: Agreement | None) -> list[tuple[str, str]]:
    """Returns the headers of a session; without one, requests have their own."""
    if agreed is None or agreed.is_stateless:
        return []
    session = [] if agreed.session is None else [("mcp-session-id", agreed.session)]
    return [("mcp-protocol-version", agreed.version), *session]


class _Cut(NamedTuple):
    """A stream that has ended without its answer, and can be resumed: the id of its last event, and the seconds until
    then."""

    last_id: str
    wait: float


class _Response(Receiver):
    """One request and its response."""

    def __init__(self, wire: HTTPWire, agreed: Agreement | None, caller: str = "") -> None:
        self.caller = caller
        self.exchange: OpenExchange | None = None
        self.grant: Grant | None = None
        self._wire = wire
        self._agreed = agreed
        self._status = 0

    def give_up(self) -> None:
        """Aborts."""
        if self.exchange is not None:
            self.exchange.close()

    def refusal(self, status: int) -> ToolServerError:
        """Returns the error of a status."""
        if status == 404 and self._agreed is not None and self._agreed.session is not None:
            return ToolServerError("its session has ended", "session", status=status)
        text = f"it answers with status {status}{_HINTS.get(status, '')}"
        is_of_token = (
            status == _UNAUTHORIZED and self.grant is not None and self._wire.has_other_token(self.grant, self.caller)
        )
        fault: Fault = "token" if is_of_token else "status"
        return ToolServerError(text, fault, status=status, may_have_run=status >= 500)

    def failure(self, error: Error) -> ToolServerError:
        """Returns the error of an exchange."""
        return failure_of(error, was_sent=self.exchange is not None and self.exchange.sent)


def failure_of(error: Error, *, was_sent: bool) -> ToolServerError:
    """Returns the failure of an exchange with a server of tools.

    Args:
        error: The error of the connection, whose texts name the key of an upstream.
        was_sent: Whether the server may have got the request.
    """
    if error.reason == "redirect":  # connections refuse it themselves
        return ToolServerError("it answers with a redirect, which is not followed: check its URL", "status")
    if error.reason in (NO_TOKEN, REFUSED_IDENTITY):
        return ToolServerError("there is no token for it: check its `auth_command`", "unreachable")
    text = str(error).replace("base_url", "`url`")
    return ToolServerError(text, "lost" if was_sent else "unreachable", may_have_run=was_sent)


_UNAUTHORIZED: Final = 401
_HINTS: Final = {401: ": check its credential", 403: ": check its credential", 405: ": check its URL"}


class _Accepted(_Response):
    """The response to a message that has no answer: its status counts."""

    def __init__(self, wire: HTTPWire, agreed: Agreement) -> None:
        super().__init__(wire, agreed)
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = LIMITS.unasked_body

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self._status = status
        if 200 <= status < 300:
            self.outcome.set_result(None)
            if self.exchange is not None:
                self.exchange.limit_silence(LIMITS.stream_end)
        else:
            self._wire.told_to_wait(status, headers)
            self.give_up()
            self.outcome.set_exception(self.refusal(status))

    def body_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.give_up()

    def exchange_ended(self, error: Error | None) -> None:
        if error is not None and not self.outcome.done():
            self.outcome.set_exception(self.failure(error))


class _Answer(_Response):
    """The response to a request, or the rest of one.

    Args:
        wire: The way to the server.
        request: The request.
        agreed: The protocol.
        resumed: What is resumed. None for a request.
    """

    def __init__(
        self, wire: HTTPWire, request: ToolRequest, agreed: Agreement | None, resumed: _Cut | None = None
    ) -> None:
        super().__init__(wire, agreed, request.caller)
        self.outcome: asyncio.Future[ServerReply | _Cut] = asyncio.get_running_loop().create_future()
        self._request = request
        self._resumed = resumed
        self._session: str | None = None
        self._body = bytearray()
        self._events: SSEParser | None = None
        self._last_id = "" if resumed is None else resumed.last_id
        self._questions = LIMITS.answered_pings
        self._messages = MessageReader(wire.beside, self._take, self._pause)
        self._end: tuple[Error | None] | None = None  # the exchange has ended while large messages are read

    # -- as a receiver --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self._status = status
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        length = headers.get("content-length", "")
        if status >= 400:
            self._wire.told_to_wait(status, headers)
        elif status < 300:
            self._wire.served()
        if 200 <= status < 300 and media_type == _EVENTS:
            self._events = SSEParser(LIMITS.tool_message)
        elif media_type != _JSON or not self._has_message(status):
            self._fail(self._refused(status, media_type))
            return
        elif length.isdigit() and int(length) > LIMITS.tool_message:
            self._fail_as_too_large()
            return
        session = headers.get("mcp-session-id")
        if session is not None and len(session) <= LIMITS.session_id and _VISIBLE.fullmatch(session):
            self._session = session

    def body_received(self, data: bytes) -> None:
        if self.outcome.done():
            self.give_up()  # it goes on after its answer
        elif self._events is not None:
            self._feed(self._events, data)
        else:
            self._body += data
            if len(self._body) > LIMITS.tool_message:
                self._fail_as_too_large()

    def exchange_ended(self, error: Error | None) -> None:
        if self.outcome.done():
            return
        if self._messages.is_busy:
            self._end = (error,)
        elif self._events is not None:
            self._cut(self._events, error)
        elif error is None:
            body, self._body = bytes(self._body), bytearray()
            self._messages.read([body], self._caller_of)
        elif self._resumed is not None and not self._status:
            self.outcome.set_result(self._resumed)  # once more
        else:
            self._fail(self.failure(error))

    @property
    def was_sent(self) -> bool:
        """Whether the server may have got the request."""
        return self._resumed is not None or (self.exchange is not None and self.exchange.sent)

    def give_up(self) -> None:
        """As `_Response.give_up`."""
        self._messages.stop()
        super().give_up()

    # -- large messages --

    def _pause(self, are_read: bool) -> None:
        """Reads nothing more of the response while large messages are read."""
        if self.exchange is not None and not self.exchange.is_complete:
            (self.exchange.pause_reading if are_read else self.exchange.resume_reading)()
        if not are_read and self._end is not None:
            (error,), self._end = self._end, None
            self.exchange_ended(error)

    def _take(self, messages: Sequence[ServerMessage] | ToolServerError) -> None:
        is_alone = self._events is None
        if isinstance(messages, ToolServerError):
            messages.may_have_run = True
            self._fail(self.refusal(self._status) if is_alone and self._status >= 400 else messages)
            return
        for message in messages:
            self._handle(message, is_alone=is_alone)
        if is_alone and not self.outcome.done():
            other = ToolServerError("it answers another request", "form", may_have_run=True)
            self._fail(self.refusal(self._status) if self._status >= 400 else other)
        if self.outcome.done() and not is_alone and self.exchange is not None:
            self.exchange.limit_silence(LIMITS.stream_end)

    # -- a stream of events --

    def _feed(self, events: SSEParser, data: bytes) -> None:
        try:
            found = events.feed(data)
        except ValueError:
            self._fail_as_too_large()
            return
        texts = [each.data.encode("utf-8", "replace") for each in found if each.type == "message" and each.data]
        self._messages.read(texts, self._caller_of)

    def _caller_of(self, _: bytes) -> str:
        return self.caller

    def _cut(self, events: SSEParser, error: Error | None) -> None:
        """Ends a stream that has no answer: rule 3."""
        last_id = events.last_event_id or self._last_id
        is_usable = bool(last_id) and len(last_id) <= LIMITS.session_id and _EVENT_ID.fullmatch(last_id)
        if is_usable and self._agreed is not None and not self._agreed.is_stateless:
            before = LIMITS.resumption if self._resumed is None else self._resumed.wait
            wait = before if events.retry is None else events.retry * _MS
            self.outcome.set_result(_Cut(last_id, max(wait, LIMITS.resumption_least)))
        else:
            text = "it ends its stream without an answer" if error is None else str(error)
            self._fail(ToolServerError(text, "lost", may_have_run=True))

    # -- both --

    def _handle(self, message: ServerMessage, *, is_alone: bool) -> None:
        if isinstance(message, Notice):
            self._request.noticed(message, self._wire.secrets)
        elif isinstance(message, ServerQuestion):
            if self._agreed is not None and not self._agreed.is_stateless and self._questions:
                self._questions -= 1
                self._wire.reply_to(message, self._agreed)
        elif not self.outcome.done() and (  # the first answer counts
            message.id == self._request.id or (message.id is None and message.error is not None and is_alone)
        ):
            self.outcome.set_result(message._replace(session=self._session, status=self._status))

    def _has_message(self, status: int) -> bool:
        """Whether the body of a response with this status may be an answer; of others the status says all."""
        if status in _WITHOUT_BODY or status in _SAY_ALL:
            return False
        return self._resumed is None and self.refusal(status).fault != "session"

    def _refused(self, status: int, media_type: str) -> ToolServerError:
        if self._resumed is not None:
            text = f"its stream cannot be resumed: it answers with status {status}"
            return ToolServerError(text, "lost", status=status, may_have_run=True)
        if not 200 <= status < 300:
            return self.refusal(status)
        if status in _WITHOUT_BODY or not media_type:
            text = "it answers without a body"
        else:
            shown = media_type if _MEDIA_TYPE.fullmatch(media_type) else "another type"
            text = f"it answers with {shown}, neither JSON nor a stream of events: check its URL"
        return ToolServerError(text, "form", may_have_run=True)

    def _fail_as_too_large(self) -> None:
        text = f"it sends a message of more than {LIMITS.tool_message} bytes (limit tool_message)"
        self._fail(ToolServerError(text, "form", may_have_run=True))

    def _fail(self, problem: ToolServerError) -> None:
        if not self.outcome.done():
            self._body.clear()
            if self.exchange is not None and not self.exchange.is_complete:
                self.give_up()
            self.outcome.set_exception(problem)


_WITHOUT_BODY: Final = frozenset({202, 204, 205})
_SAY_ALL: Final = frozenset({401, 403, 407, 429})
