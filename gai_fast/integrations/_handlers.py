"""Shared by the handlers of all web frameworks: turns a request and `prepare` into the source of a response.

Knows no web framework.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from gai_fast.core.callbacks import check_callable
from gai_fast.formats._base import Framing
from gai_fast.integrations._body import Items, Source, checked, checked_source
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings, StreamSettings
from gai_fast.runtime.ids import EVENT_ID, request_id
from gai_fast.server.http.replies import Reply, error_reply

Prepared = Mapping[str, Any] | Any
"""A native request, or a response of the framework that is sent as it is."""

Prepare = Callable[[Any], Prepared | Awaitable[Prepared]]
"""The program's function that reads a request of the framework."""


class GatewayLike(Protocol):
    """The part of a gateway that handlers use; `Gateway` and the client of `connect` implement it."""

    @property
    def is_open(self) -> bool:
        """Whether the gateway accepts requests."""

    async def __aenter__(self) -> Any:
        """Opens the gateway."""

    def stream(self, request: Mapping[str, Any]) -> AsyncIterable[Any]:
        """Requests one answer."""

    def follow(self, stream_id: str, after: str | int | None = None) -> AsyncIterable[Any]:
        """Follows a durable stream."""


@runtime_checkable
class AnswerLike(Protocol):
    """The part of a gateway's stream that responses use; both kinds of gateway make such streams."""

    gateway: GatewayLike
    request: Mapping[str, Any]

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterates over the events."""

    def resumed(self, stream_id: str, after: int) -> AsyncIterable[Any]:
        """Returns the rest of an earlier stream, with the gateway and the headers of this one."""


_opening: Final[WeakKeyDictionary[GatewayLike, asyncio.Lock]] = WeakKeyDictionary()


async def open_once(gateway: GatewayLike) -> None:
    """Opens the gateway if it is not open; of several concurrent requests, one opens it."""
    if not gateway.is_open:
        async with _opening.setdefault(gateway, asyncio.Lock()):
            if not gateway.is_open:
                await gateway.__aenter__()


def refusal(error: Error, headers: Mapping[str, str]) -> Reply:
    """Returns the whole response for an error.

    Args:
        error: The error.
        headers: The headers of the request; empty if the request is not known.
    """
    return error_reply(error, request_id(headers.get("x-request-id")))


def check_prepare(prepare: Prepare) -> None:
    """Checks the function of a handler.

    Args:
        prepare: The program's function.

    Raises:
        TypeError: It cannot be called.
    """
    check_callable("prepare", prepare, "a function of a request")


async def call(prepare: Prepare, request: Any) -> Prepared:
    """Calls the program's function, and awaits its result if it is async.

    Args:
        prepare: The program's function, sync or async.
        request: The framework's request.
    """
    prepared = prepare(request)
    return await prepared if inspect.isawaitable(prepared) else prepared


def source_of(
    gateway: GatewayLike, request: object, headers: Mapping[str, str], framing: Framing, options: Mapping[str, Any]
) -> Source:
    """Returns the source of the response to a request.

    Args:
        gateway: The gateway that answers.
        request: A native request.
        headers: The headers of the framework's request.
        framing: The framing of the response.
        options: Checked keyword arguments; the `[stream]` of the model has the defaults.

    Raises:
        InvalidRequest: `Last-Event-ID` is not the id of an event, or the native request is not JSON.
        TypeError: `prepare` returned neither a native request nor a response.
    """
    if not isinstance(request, Mapping):
        text = "`prepare` must give a native request (a mapping) or a response"
        raise TypeError(f"{text}; this is {type(request).__name__}")
    stream = replace(_settings_of(gateway, request.get("model")), **options)
    place = _place(headers)
    if place is None:
        try:  # Python's `json` accepts more than JSON: NaN, and any depth
            encode_json(dict(request))
        except ValueError as problem:
            raise Error("invalid_request", f"the request is not JSON: {problem}", reason="json") from None
        given = request.get("request_id", headers.get("x-request-id"))
        if "request_id" in request and not isinstance(given, str):
            return Source(gateway.stream(request), framing, stream)  # the gateway refuses the request
        identifier = request_id(given)
        return Source(gateway.stream({**request, "request_id": identifier}), framing, stream, request_id=identifier)
    stream_id, after = place
    return Source(gateway.follow(stream_id, after=after), framing, stream, is_resumed=True)


def response_source(
    events: Items, headers: Mapping[str, str] | None, framing: Framing, options: Mapping[str, Any]
) -> Source:
    """Returns the source of a program's response.

    Args:
        events: The items; with `headers`, a stream of a gateway that was not entered.
        headers: The headers of the request whose response it is. None if the program has not given the request.
        framing: The framing of the response.
        options: The keyword arguments of the response.

    Raises:
        InvalidRequest: `Last-Event-ID` is not the id of an event.
        TypeError: `events` cannot be the source, or a keyword is unknown.
        ValueError: A value is out of range.
    """
    if headers is None:
        return checked_source(events, framing, options)
    if not isinstance(events, AnswerLike):
        text = "`request` is for `gateway.stream(…)`, which can be resumed"
        raise TypeError(f"{text}; this is {type(events).__name__}: leave it out")
    asked = events.request
    stream = replace(_settings_of(events.gateway, asked.get("model")), **checked(options))
    place = _place(headers)
    if place is not None:
        return Source(events.resumed(*place), framing, stream, is_resumed=True)
    given = asked.get("request_id", headers.get("x-request-id"))
    if "request_id" in asked and not isinstance(given, str):
        return Source(events, framing, stream)  # the gateway refuses the request
    identifier = request_id(given)
    events.request = {**asked, "request_id": identifier}
    return Source(events, framing, stream, request_id=identifier)


def _place(headers: Mapping[str, str]) -> tuple[str, int] | None:
    """Returns the stream and the number of the last event that a client has; None if it resumes nothing.

    Raises:
        InvalidRequest: `Last-Event-ID` is not the id of an event.
    """
    last_event_id = headers.get("last-event-id")
    if last_event_id is None:
        return None
    matched = EVENT_ID.fullmatch(last_event_id)
    if matched is None:
        text = "the id of the last event is not valid: it must be the `id:` of an event, <stream id>.<number>"
        raise Error("invalid_request", text, reason="last_event_id")
    return matched[1], int(matched[2])


def _settings_of(gateway: GatewayLike, name: object) -> StreamSettings:
    """Returns `[stream]` of a model of the gateway, or the defaults if the gateway is a server's client."""
    settings = getattr(gateway, "settings", None)
    if not isinstance(settings, Settings):
        return StreamSettings()
    model = settings.model(name if isinstance(name, str) else None)
    return settings.stream if model is None else model.stream
