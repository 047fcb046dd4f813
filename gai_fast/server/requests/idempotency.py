"""Idempotency keys: a repeated request is answered by the stream of the first request.

Owns how a client sends a key, which requests count as equal, and the response if a key is already claimed. The store
decides which request gets a key; `stream_passage.py` starts and follows streams.

1. A key belongs to a caller and a route. The store keeps it with a digest of the request's body: the key with another
   body is refused.
2. The request that claims the key starts the stream. A repeated request gets that stream from its start, or the whole
   response, with `idempotent-replayed: true`.
3. A stream that ends unfinished and without content frees its key. It does so at its end, and also when a request finds
   the key, because its worker may have died in between. An exception before the stream starts frees the key too, such
   as a refusal by a limit of the caller. A run that may have made calls keeps its key.
4. Nothing is generated twice for a key: if the response is no longer kept, the request is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.net.logs.view import NATIVE
from gai_fast.runtime.clock import now_ms
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.fingerprint import Fingerprints
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Answered, Gate, Passage
from gai_fast.stores import Claim, Store, StreamLog
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

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
    return encode_json([incoming.http.caller, incoming.path, key]).decode()


class IdempotencyKeys:
    """The gate of requests with a key.

    Args:
        store: Keeps the keys.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fingerprints = Fingerprints()

    async def claim(self, passage: Passage, gate: Gate) -> Answered | None:
        """Claims the key of a request; or finds its stream, and answers.

        Args:
            passage: The request.
            gate: Held by a request that has claimed its key.

        Raises:
            Error: The key belongs to another request, or its answer is no longer kept.
        """
        store, incoming = self._store, passage.incoming
        fingerprint = await self._fingerprints.of(passage.body, is_native=incoming.format.name == NATIVE)
        passage.body = b""  # releases the memory while the stream runs
        key, caller = _scoped_key(passage), incoming.http.caller
        claim = Claim(passage.stream_id, fingerprint, now_ms())
        for tries in range(1, _TRIES + 1):
            standing = await store.claim(key, claim, caller)
            if standing is None:
                passage.hold(gate)
                return None
            if standing.fingerprint != claim.fingerprint:
                text = "this idempotency key belongs to another request: use a new one"
                raise Error("invalid_request", text, reason="idempotency_mismatch", status=422)
            log = await self._find(standing.stream_id)
            if not _ended_without_content(log) or tries == _TRIES or await self._may_have_called(log):
                break
            await store.release(key, standing.stream_id, caller)
        response = passage.response()
        response.headers = _REPLAYED
        response.stream_id = log.header.stream_id
        return Answered(passage.follow(log))

    async def _may_have_called(self, log: StreamLog) -> bool:
        """Returns whether a stream is a run whose calls must not be made again: the log of a lost worker may lack them.

        Raises:
            Error: The store is out of reach.
        """
        from gai_fast.net.runs.records.records import may_have_called  # most requests find no such stream

        try:
            return await may_have_called(self._store.records, log.header.stream_id)
        except StoreError:
            raise out_of_reach() from None

    def started(self, passage: Passage) -> None:
        """Frees the key of a request whose stream has not started, or once that ends without content: rule 3.

        Args:
            passage: The request, which has claimed its key.
        """
        key, log = _scoped_key(passage), passage.log
        if log is None:
            self._store.abandon(key, passage.stream_id, passage.incoming.http.caller)
            return
        end = _ClaimRelease(self._store, key, log)
        log.watch(end)
        if log.is_over:
            end.ended()

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


def _scoped_key(passage: Passage) -> str:
    assert passage.key is not None
    return scoped(passage.incoming, passage.key)


class _ClaimRelease:
    """Releases a key at the end of its stream: rule 3; a `LogWatcher`."""

    def __init__(self, store: Store, key: str, log: StreamLog) -> None:
        self._store = store
        self._key = key
        self._log = log

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing."""

    def ended(self) -> None:
        """Releases the key if the stream ended unfinished and without content, and in this worker."""
        if not self._log.is_left and _ended_without_content(self._log):
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
    text = "the answer for this idempotency key is no longer kept: use a new key"
    return Error("invalid_request", text, reason="idempotency_expired", status=409)
