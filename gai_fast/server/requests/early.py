"""Limits that are asked before a large body is read: reading it would hold the loop for nothing.

Owns which requests are refused unread. `quotas.py` counts requests.

1. A request is refused only if it would be refused whatever its body is: its caller has no request, token, spend or
   stream left.
2. A request that a stream of an idempotency key may answer counts for no limit, and so is read.
3. If other workers share the limits, the ledger is asked twice: before the body is read, and to count the request once
   it is known to be valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.idempotency import KEY_HEADERS, key_of, scoped
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers
from gai_fast.server.requests.stream_response import StreamResponse

_KEY_MEMBER: Final = b'"idempotency_key"'

Handler = Callable[[Incoming], "Reply | None"]
"""Reads the body of a request and answers it; returns None if a stream has started, which ends the response itself."""


class EarlyLimits:
    """Checks the limits of requests with large bodies.

    Args:
        engine: The engine with the limits.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending = PendingAnswers()

    def read(self, incoming: Incoming, handler: Handler) -> Reply | None:
        """Answers a request by its handler if no limit refuses it.

        Args:
            incoming: The request, with its body.
            handler: The handler.

        Raises:
            Error: A limit refuses the request.
        """
        body, headers = incoming.http.body, incoming.http.headers
        key = key_of(headers) if any(name in headers for name in KEY_HEADERS) else None
        if key is None and _KEY_MEMBER in body:
            return handler(incoming)
        try:
            is_admitted = self._check(incoming)
        except Error:
            if key is None:
                raise
            is_admitted = False
        if is_admitted:
            return handler(incoming)
        client = StreamResponse(incoming, "", "application/json", self._engine.settings.stream, whole=True)
        self._pending.add(incoming, client, self._ask_and_read(incoming, key, body, handler))
        return None

    async def _ask_and_read(self, incoming: Incoming, key: str | None, body: bytes, handler: Handler) -> Reply | None:
        """Does the work of `read` if the ledger or the store must be asked."""
        engine, limited = self._engine, incoming.key
        is_new = key is None or await engine.store.find_claim(scoped(incoming, key)) is None
        if is_new and not self._check(incoming) and limited is not None:
            place = new_stream_id()
            await engine.ledger.take(limited, place, 0)
            engine.ledger.cancel(place)
        incoming.http.body = body  # the response has dropped it
        return handler(incoming)

    def _check(self, incoming: Incoming) -> bool:
        """Refuses a request that would be refused whatever its body is.

        Returns:
            False if only the ledger that workers share can tell.

        Raises:
            Error: A limit refuses it.
        """
        engine, caller = self._engine, incoming.caller
        if engine.limits is not None and not engine.must_ask(caller):
            engine.limits.check("", caller, len(engine.streams), engine.callers.get(caller, 0))
        return incoming.key is None or engine.ledger.check(incoming.key)
