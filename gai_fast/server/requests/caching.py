"""Requests that ask for shared answers: `x-gai-cache`, and `[[model]] cache`.

Owns which requests ask, and what their answers tell. `net/sharing/answers.py` decides which answers are shared.

1. The header wins over the model. On a WebSocket it is that of the handshake, and holds for every request of it.
2. A request with an idempotency key, one in the background, of a chat, or that only starts a stream (`POST
   /api/v1/streams`) has a stream of its own: its answer, where it asks, says `miss`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings
from gai_fast.net.attempts.spec import Role, Sharing, StreamSpec
from gai_fast.net.sharing.answers import SharedAnswer
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.http.replies import Headers
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse

HEADER: Final = "x-gai-cache"
VALUES: Final = {"on": True, "off": False}
"""The values of the header."""


def asks(incoming: Incoming, model: ModelSettings) -> bool:
    """Returns whether a request asks for a shared answer.

    Args:
        incoming: The request.
        model: The model that it asks.

    Raises:
        InvalidRequest: The header says something else than `on` or `off`.
    """
    value = incoming.key_headers.get(HEADER)
    if value is None:
        return model.cache
    if value not in VALUES:
        text = f"the header {HEADER} must be one of: {', '.join(VALUES)}"
        raise Error("invalid_request", text, reason="cache")
    return VALUES[value]


def shared_answer(engine: Engine, caller: str) -> SharedAnswer | None:
    """Returns a stream's way to shared answers; `None` where nothing is shared.

    Args:
        engine: Has the answers.
        caller: The name of the caller's key.
    """
    answers = engine.shared_answers(now_ms)
    return None if answers is None else SharedAnswer(answers, caller, new_stream_id)


async def begin_later(
    sharing: SharedAnswer, spec: StreamSpec, admit: Callable[[], Awaitable[None]], start: Callable[[], None]
) -> None:
    """Starts a stream once other processes have been asked for its answer.

    Args:
        sharing: The stream's way to it.
        spec: The stream's.
        admit: Admits the request.
        start: Starts the stream of a request that was admitted.

    Raises:
        Error: The request is refused.
    """
    try:
        await sharing.look(spec)
        await admit()
        start()
    finally:
        sharing.leave()


def alone(engine: Engine, incoming: Incoming, model: ModelSettings) -> Headers:
    """Returns the header of the answer to a request whose stream shares nothing, if the request asks: rule 2.

    Args:
        engine: Counts.
        incoming: The request.
        model: The model that it asks.

    Raises:
        InvalidRequest: As `asks`.
    """
    return _told(engine, "miss") if asks(incoming, model) else ()


def tell(engine: Engine, client: StreamResponse, sharing: Sharing | None) -> None:
    """Tells the client of a request that asks where its answer comes from, and counts it.

    Args:
        engine: Counts.
        client: The response; its head has not gone out.
        sharing: How its stream, which has been started, shares its answer; `None`: it does not.
    """
    client.headers = _told(engine, "miss" if sharing is None else sharing.role)


def _told(engine: Engine, role: Role) -> Headers:
    engine.tallies.cache_requests[role] += 1
    return ((HEADER, role),)
