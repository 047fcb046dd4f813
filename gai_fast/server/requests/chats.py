"""Chats: a page resumes the stream of its chat by the id that it chose for the chat.

Owns the ids of chats, and the stream of each chat. The store keeps the mapping as a claim, as for idempotency keys, so
that every worker and every process with this store finds it. `kinds/` starts streams; `durable.py` follows them.

1. A chat belongs to a caller. Its stream is the stream of its newest request. An older stream runs on, but the chat's
   id no longer finds it, unless the newest request could not start.
2. The store remembers the stream until the stream ends. If no stream runs, the response is 204: pages ask after every
   load and expect this status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.clock import now_ms
from gai_fast.server.http.replies import Reply, id_headers
from gai_fast.server.requests.durable import DurableRoutes, check_readable
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Gate, Passage
from gai_fast.server.requests.pending import PendingAnswers
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import Claim, Store, StreamLog

_PATH: Final = "/api/v1/chat"
_STREAM: Final = "/stream"
_TRIES: Final = 5
"""The number of times that a request takes over a chat from other requests; afterwards it is refused."""


def chat_id_of(body: Mapping[str, Any]) -> str:
    """Returns the id of the chat that a request belongs to.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: The id is missing or not valid.
    """
    chat_id = body.get("id")
    if not isinstance(chat_id, str) or not _is_id(chat_id):
        text = f"`id` must be the chat's id, a string of 1 to {SHARED.chat_id} characters - at `$.id`"
        raise Error("invalid_request", text, reason="validation")
    return chat_id


def _is_id(chat_id: str) -> bool:
    return 0 < len(chat_id) <= SHARED.chat_id


class ChatClaims:
    """The gate of requests that start the stream of a chat.

    Args:
        store: Remembers the streams of chats.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._former: dict[str, Claim] = {}  # whose chat a request has taken, by the stream that it starts
        self._restoring: set[asyncio.Task[None]] = set()

    async def take(self, passage: Passage, gate: Gate) -> None:
        """Makes the stream of a request the stream of its chat: rule 1.

        Args:
            passage: The request.
            gate: Held by a request that has its chat.

        Raises:
            Error: Other requests take the chat at the same time.
        """
        store, key, caller = self._store, _key(passage.incoming, passage.chat), passage.incoming.http.caller
        claim, former, is_taken = Claim(passage.stream_id, "", now_ms()), None, False
        try:
            for _ in range(_TRIES):
                standing = await store.claim(key, claim, caller)  # if it fails, the store itself releases the key
                if standing is None:
                    is_taken = True
                    passage.hold(gate)
                    if former is not None:
                        self._former[passage.stream_id] = former
                    return
                former = standing
                await store.release(key, standing.stream_id, caller)
        finally:
            if former is not None and not is_taken:
                self._restore(key, passage.stream_id, former, caller)
        raise Error("overloaded", "other requests of this chat begin at the same time: send it again", reason="chat")

    def started(self, passage: Passage) -> None:
        """Frees the chat of a request whose stream has not started, or once the stream has ended: rules 1 and 2.

        Args:
            passage: The request, which has its chat.
        """
        store, log, key = self._store, passage.log, _key(passage.incoming, passage.chat)
        former = self._former.pop(passage.stream_id, None)
        if log is None:
            caller = passage.incoming.http.caller
            if former is None:
                store.abandon(key, passage.stream_id, caller)
            else:
                self._restore(key, passage.stream_id, former, caller)
            return
        end = _ClaimRelease(store, key, log)
        log.watch(end)
        if log.is_over:
            end.ended()

    def _restore(self, key: str, stream_id: str, former: Claim, caller: str) -> None:
        """Frees a chat, and gives it back to the former stream if that still runs; does not wait."""
        restoring = asyncio.ensure_future(_restored(self._store, key, stream_id, former, caller))
        self._restoring.add(restoring)
        restoring.add_done_callback(self._restoring.discard)


class ChatRoutes:
    """Handlers over one engine.

    Args:
        engine: The engine with the store.
        durable: Follows streams.
    """

    def __init__(self, engine: Engine, durable: DurableRoutes) -> None:
        self._engine = engine
        self._durable = durable
        self._pending = PendingAnswers()

    def follow(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /api/v1/chat/{chat id}/stream`: follows the chat's stream from its start, or answers 204."""
        name, found, rest = incoming.tail.rpartition(_STREAM)
        chat_id = unquote(name, errors="replace")
        if not found or rest or not _is_id(chat_id):
            raise Error("not_found", "there is no such route", reason="route")
        incoming.negotiate(None, incoming.format.name)  # refuses an unknown form even if no stream runs
        response = StreamResponse(incoming, "", "", self._engine.settings.stream, whole=False)
        self._pending.add(incoming, response, self._follow(incoming, response, _key(incoming, chat_id)))
        return None

    async def _follow(self, incoming: Incoming, response: StreamResponse, key: str) -> Reply | None:
        store = self._engine.store
        standing = await store.find_claim(key, incoming.http.caller)
        log = None if standing is None else await _running(store, standing)
        if log is None or log.header.caller != incoming.http.caller:
            return Reply(204, headers=[*incoming.answer_headers, *id_headers(incoming.http.request_id)])
        response.stream_id = log.header.stream_id
        self._durable.begin(incoming, log, 0, response, incoming.format.name)
        return None


async def _restored(store: Store, key: str, stream_id: str, former: Claim, caller: str) -> None:
    """Does the work of `ChatClaims._restore`."""
    await store.release(key, stream_id, caller)
    with suppress(Error):  # the store is out of reach: the chat has no stream
        if await _running(store, former) is not None:
            await store.claim(key, former, caller)


async def _running(store: Store, standing: Claim) -> StreamLog | None:
    """Returns the log of a running stream; None if the stream is over or its worker is gone."""
    is_young = now_ms() - standing.at_ms < SHARED.claim_settling * 1e3
    try:
        log = await store.find(standing.stream_id, is_running=is_young)
    except Error as error:
        if error.reason != "worker_lost":
            raise
        return None
    if log is not None:
        check_readable(log)
    return None if log is None or log.is_over else log


def _key(incoming: Incoming, chat_id: str) -> str:
    return encode_json([incoming.http.caller, _PATH, chat_id]).decode()


class _ClaimRelease:
    """Releases a chat's claim at the end of its stream; a `LogWatcher`."""

    def __init__(self, store: Store, key: str, log: StreamLog) -> None:
        self._store = store
        self._key = key
        self._log = log

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing."""

    def ended(self) -> None:
        """Releases the claim: rule 2."""
        header = self._log.header
        self._store.abandon(self._key, header.stream_id, header.caller)
