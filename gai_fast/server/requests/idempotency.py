"""Idempotency keys: a repeated request is answered by the stream of the first request.

Owns how a client sends a key, which requests count as equal, and the response if a key is already claimed. The store
decides which request gets a key; `streams.py` starts and follows streams.

1. A key belongs to a caller and a route. The store keeps it with a digest of the request's body: the key with another
   body is refused.
2. The request that claims the key starts the stream. A repeated request gets that stream from its start, or the whole
   response, with `idempotent-replayed: true`.
3. A stream that ends unfinished and without content frees its key. It does so at its end, and also when a request finds
   the key, because its worker may have died in between. An exception before the stream starts frees the key too, such
   as a refusal by a limit of the caller.
4. Nothing is generated twice for a key: if the response is no longer kept, the request is refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.net.logs.publication import Publication
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.clock import now_ms
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.fingerprint import Fingerprints
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import Claim, Store, StreamLog

KEY_HEADERS: Final = ("idempotency-key", "x-idempotency-key")
TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~:/-]+")
"""The characters of a token in structured fields (RFC 9651, 3.3.4)."""
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
"""A string in structured fields (RFC 9651, 3.3.3), the syntax in the draft of the header."""
_ESCAPED: Final = re.compile(r"\\(.)")
PRINTABLE: Final = re.compile(r"[ -~]+")
"""The characters of a key, in a header or in the body."""
_TRIES: Final = 3
"""The number of times that a request looks for a key; after the last it gets that stream's response, even if empty."""
_REPLAYED: Final = (("idempotent-replayed", "true"),)

Admit = Callable[[], Awaitable[None]]
"""Counts a request against its caller's limits; raises an `Error` if a limit refuses it."""

Start = Callable[[], Publication]
"""Starts the stream of a request."""

Follow = Callable[[StreamLog, StreamResponse, bool], "Reply | None"]
"""Answers with a stream; the flag is set for the request that started the stream. Returns None if it is followed."""


class KeyedRequest(NamedTuple):
    """A request with a key.

    Args:
        key: The key, made unique to this caller and route.
        caller: The name of the caller's key.
        stream_id: The id of the stream that the request starts if it gets the key.
        body: The request's body.
        is_native: Whether the request is native.
        admit: Counts the request if it starts the stream.
        start: Starts that stream.
        follow: Answers with a stream.
    """

    key: str
    caller: str
    stream_id: str
    body: bytes
    is_native: bool
    admit: Admit
    start: Start
    follow: Follow


def key_of(headers: Mapping[str, str], member: str | None = None) -> str | None:
    """Returns the idempotency key of a request; None if it has none.

    Args:
        headers: The request's headers, by lower-case name; repeated ones joined with ", ", which no valid key contains.
        member: `idempotency_key` of a native request; a header overrides it.

    Raises:
        InvalidRequest: The key is not valid, or the two headers differ.
    """
    keys = {_unquoted(headers[name]) for name in KEY_HEADERS if name in headers}
    if len(keys) > 1:
        raise _bad_key("both headers are there, and differ")
    key = keys.pop() if keys else member
    if key is not None and (len(key) > LIMITS.idempotency_key or not PRINTABLE.fullmatch(key)):
        raise _bad_key(f"it must have 1 to {LIMITS.idempotency_key} printable ASCII characters")
    return key


def _unquoted(value: str) -> str:
    """Returns the key in a header's value."""
    if TOKEN.fullmatch(value):
        return value
    string = _STRING.fullmatch(value)
    if string is None:
        raise _bad_key('the header must be one token, or one string in quotes, as "8e03978e-40d5"')
    return _ESCAPED.sub(r"\1", string[1])


def _bad_key(problem: str) -> Error:
    return Error("invalid_request", f"the idempotency key is not valid: {problem}", reason="idempotency_key")


def scoped(incoming: Incoming, key: str) -> str:
    """Returns a key, made unique to the caller and route of a request.

    Args:
        incoming: The request.
        key: The result of `key_of`.
    """
    return encode_json([incoming.caller, incoming.path, key]).decode()


def keyed(
    incoming: Incoming,
    key: str,
    body: bytes,
    stream_id: str,
    admit: Admit,
    start: Start,
    follow: Follow,
    *,
    is_native: bool,
) -> KeyedRequest:
    """Creates a request with a key.

    Args:
        incoming: The request.
        key: The result of `key_of`.
        body: The request's body.
        stream_id: The id of the stream that the request would start.
        admit: Counts the request if it starts that stream.
        start: Starts that stream.
        follow: Answers with a stream.
        is_native: Whether the request is native.
    """
    return KeyedRequest(scoped(incoming, key), incoming.caller, stream_id, body, is_native, admit, start, follow)


class KeyedRequests:
    """Answers requests with a key.

    Args:
        engine: The engine with the store.
    """

    def __init__(self, engine: Engine) -> None:
        self._store = engine.store
        self._pending = PendingAnswers()
        self._fingerprints = Fingerprints()

    def answer(self, incoming: Incoming, response: StreamResponse, request: KeyedRequest) -> None:
        """Claims the key of a request, or finds its stream, and answers.

        Args:
            incoming: The request.
            response: The response.
            request: The request with its key.
        """
        self._pending.add(incoming, response, self._answer(response, request))

    async def _answer(self, response: StreamResponse, request: KeyedRequest) -> Reply | None:
        store = self._store
        fingerprint = await self._fingerprints.of(request.body, is_native=request.is_native)
        request = request._replace(body=b"")  # releases the memory while the stream runs
        claim = Claim(request.stream_id, fingerprint, now_ms())
        for tries in range(1, _TRIES + 1):
            standing = await store.claim(request.key, claim, request.caller)
            if standing is None:
                return request.follow(await self._start(request), response, True)
            if standing.fingerprint != claim.fingerprint:
                text = "this idempotency key belongs to another request: use a new one"
                raise Error("invalid_request", text, reason="idempotency_mismatch", status=422)
            log = await self._find(standing.stream_id)
            if not _ended_without_content(log) or tries == _TRIES:
                break
            await store.release(request.key, standing.stream_id, request.caller)
        response.headers = _REPLAYED
        response.stream_id = log.header.stream_id
        return request.follow(log, response, False)

    async def _start(self, request: KeyedRequest) -> StreamLog:
        """Starts the stream of a request that has claimed its key: rule 3."""
        log: StreamLog | None = None
        try:
            await request.admit()
            log = request.start().log
        finally:
            if log is None:
                self._store.abandon(request.key, request.stream_id, request.caller)
        end = _ClaimRelease(self._store, request.key, log)
        log.watch(end)
        if log.is_over:
            end.ended()
        return log

    async def _find(self, stream_id: str) -> StreamLog:
        """Returns the log of the stream that has claimed a key.

        Raises:
            Error: The log is no longer kept: rule 4.
        """
        try:
            log = await self._store.find(stream_id)
        except Error as error:
            if error.reason != "worker_lost":
                raise
            text = "the worker that answered this idempotency key is gone, and its answer with it: use a new key"
            raise Error("network", text, reason="worker_lost", temporary=False) from None
        if log is None:
            raise expired()
        return log


class _ClaimRelease:
    """Releases a key at the end of its stream: rule 3; a `LogWatcher`."""

    def __init__(self, store: Store, key: str, log: StreamLog) -> None:
        self._store = store
        self._key = key
        self._log = log

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing."""

    def ended(self) -> None:
        """Releases the key if the stream ended unfinished and without content."""
        if _ended_without_content(self._log):
            header = self._log.header
            self._store.abandon(self._key, header.stream_id, header.caller)


def _ended_without_content(log: StreamLog) -> bool:
    """Returns whether a stream has ended unfinished and without content: rule 3."""
    if log.broken is not None:
        # The stream's worker is gone. If the store fails or its copy is damaged, the content is unknown: keep the key.
        before_content = 0 if log.header.framing == "json" else 1  # a stream's first event is `start`
        return log.last_seq <= before_content and not log.broken.is_of_log
    return log.ending is not None and log.ending.state != "finished" and not log.ending.has_content


def expired() -> Error:
    """Returns the error for a key whose stream is no longer kept."""
    text = "what this idempotency key was answered is no longer kept: use a new key"
    return Error("invalid_request", text, reason="idempotency_expired", status=409)
