"""Requests that want shared answers: `x-gai-cache`, and `[[model]] cache`.

Owns which requests want a shared answer, and the `x-gai-cache` header of their responses. `net/sharing/answers.py`
decides which answers are shared.

1. The header overrides the model's setting. On a WebSocket, the header of the handshake applies to every request.
2. Some requests always have a stream of their own: requests with an idempotency key, in the background or of a chat,
   and `POST /api/v1/streams`. If such a request wants a shared answer, its response has `x-gai-cache: miss`.
"""

from __future__ import annotations

from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings
from gai_fast.net.attempts.spec import Sharing
from gai_fast.net.engine.engine import Engine
from gai_fast.net.sharing.answers import SharedAnswer
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.http.replies import Headers
from gai_fast.server.requests.incoming import Incoming

HEADER: Final = "x-gai-cache"
VALUES: Final = {"on": True, "off": False}
"""The values of the header."""


def wants_shared_answer(incoming: Incoming, model: ModelSettings) -> bool:
    """Returns whether a request wants a shared answer.

    Args:
        incoming: The request.
        model: The model of the request.

    Raises:
        InvalidRequest: The header is neither `on` nor `off`.
    """
    value = incoming.key_headers.get(HEADER)
    if value is None:
        return model.cache
    if value not in VALUES:
        text = f"the header {HEADER} must be one of: {', '.join(VALUES)}"
        raise Error("invalid_request", text, reason="cache")
    return VALUES[value]


def shared_answer(engine: Engine, caller: str) -> SharedAnswer | None:
    """Creates the shared answer of a stream; None if the engine shares no answers.

    Args:
        engine: The engine with the shared answers.
        caller: The name of the caller's key.
    """
    answers = engine.shared_answers(now_ms)
    return None if answers is None else SharedAnswer(answers, caller, new_stream_id)


def cache_header(engine: Engine, sharing: Sharing | None) -> Headers:
    """Returns the `x-gai-cache` header of a response, and counts the request.

    Args:
        engine: Counts the request.
        sharing: The sharing of its running stream, or None if the stream shares nothing.
    """
    role = "miss" if sharing is None else sharing.role
    engine.tallies.cache_requests[role] += 1
    return ((HEADER, role),)
