"""What the handlers of all web frameworks share: the way from a request and `prepare` to the source of a response.

Knows no web framework.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Protocol

from gai_fast.errors import Error
from gai_fast.ids import EVENT_ID
from gai_fast.integrations._body import settings_of
from gai_fast.settings import Settings, StreamSettings

Prepared = Mapping[str, Any] | Any
"""A native request, or a response of the framework that is the answer."""

Prepare = Callable[[Any], Prepared | Awaitable[Prepared]]
"""Reads a request of the framework."""


class GatewayLike(Protocol):
    """What a handler needs of a gateway: `Gateway`, or what `connect` gives."""

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""

    async def __aenter__(self) -> Any:
        """Opens it."""

    def stream(self, request: Mapping[str, Any]) -> AsyncIterable[Any]:
        """Asks for one answer."""

    def follow(self, stream_id: str, after: str | int | None = None) -> AsyncIterable[Any]:
        """Follows a durable stream."""


def settings_for(gateway: GatewayLike, options: Mapping[str, Any]) -> StreamSettings:
    """The settings of a handler's responses: its options, and for all else the gateway's own.

    Args:
        gateway: Answers.
        options: Keyword arguments; errors as `settings_of`.
    """
    settings = getattr(gateway, "settings", None)
    return settings_of(options, settings.stream if isinstance(settings, Settings) else None)


async def call(prepare: Prepare, request: Any) -> Prepared:
    """What the program makes of a request.

    Args:
        prepare: The program's function, sync or async.
        request: The framework's request.
    """
    prepared = prepare(request)
    return await prepared if inspect.isawaitable(prepared) else prepared


def source_of(gateway: GatewayLike, request: object, last_event_id: str | None) -> tuple[AsyncIterable[Any], bool]:
    """The source of the response to a request, and whether it goes on with a stream that has begun.

    Args:
        gateway: Answers.
        request: A native request.
        last_event_id: The header `Last-Event-ID`, where there is one.

    Raises:
        InvalidRequest: It is no id of an event.
        TypeError: `prepare` gave neither a native request nor a response.
    """
    if not isinstance(request, Mapping):
        text = "`prepare` must give a native request (a mapping) or a response"
        raise TypeError(f"{text}; this is {type(request).__name__}")
    if last_event_id is None:
        return gateway.stream(request), False
    place = EVENT_ID.fullmatch(last_event_id)
    if place is None:
        text = "the id of the last event is not valid: it must be the `id:` of an event, <stream id>.<number>"
        raise Error("invalid_request", text, reason="last_event_id")
    return gateway.follow(place[1], after=int(place[2])), True
