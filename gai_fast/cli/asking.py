"""Asks a model without a server: the client's leg of a stream, in this process.

Owns what `chat` and `check --probe` share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from gai_fast.clock import now_ms
from gai_fast.errors import Error
from gai_fast.events import Event
from gai_fast.ids import new_stream_id
from gai_fast.net.engine import Call, Engine
from gai_fast.net.session import Clock, Session
from gai_fast.request import Request
from gai_fast.settings import ModelSettings

_OVER: Final = "done"


class _Leg:
    """Both ends of a session at once: what the relay says is the answer, and there are no bytes to write."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def event(self, event: Event) -> None:
        self.events.put_nowait(event)

    def heartbeat(self) -> None: ...

    def take(self) -> bytes:
        return b""

    def commit(self) -> None: ...

    def flush(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def end(self, data: bytes) -> None: ...

    def fail(self, error: Error) -> None: ...


async def ask(
    engine: Engine, model: ModelSettings, request: Request, started: Callable[[Session], None] | None = None
) -> AsyncGenerator[Event, None]:
    """The events of one answer, `done` included.

    Args:
        engine: Runs the stream.
        model: Whom to ask.
        request: What to ask.
        started: Called with the session, which can cancel it.

    Raises:
        Error: The request cannot be made of this upstream.
    """
    leg = _Leg()
    call = Call(
        model=model,
        build=lambda api, target: api.build_request(request, target),
        output=leg,
        prompt_characters=request.characters,
    )
    session = engine.start(call, leg, new_stream_id(), Clock(now_ms))
    if started is not None:
        started(session)
    try:
        while True:
            event = await leg.events.get()
            yield event
            if event["type"] == _OVER:
                return
    finally:
        session.client_lost()
