"""Shared by the handlers of all web frameworks: turns a request and `prepare` into the source of a response.

Knows no web framework.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from gai_fast.formats._base import Framing
from gai_fast.integrations._body import Source
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings, StreamSettings
from gai_fast.runtime.ids import EVENT_ID, request_id

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
    last_event_id = headers.get("last-event-id")
    if last_event_id is None:
        try:  # Python's `json` accepts more than JSON: NaN, and any depth
            encode_json(dict(request))
        except ValueError as problem:
            raise Error("invalid_request", f"the request is not JSON: {problem}", reason="json") from None
        given = request.get("request_id", headers.get("x-request-id"))
        if "request_id" in request and not isinstance(given, str):
            return Source(gateway.stream(request), framing, stream)  # the gateway refuses the request
        identifier = request_id(given)
        return Source(gateway.stream({**request, "request_id": identifier}), framing, stream, request_id=identifier)
    matched = EVENT_ID.fullmatch(last_event_id)
    if matched is None:
        text = "the id of the last event is not valid: it must be the `id:` of an event, <stream id>.<number>"
        raise Error("invalid_request", text, reason="last_event_id")
    return Source(gateway.follow(matched[1], after=int(matched[2])), framing, stream, is_resumed=True)


def _settings_of(gateway: GatewayLike, name: object) -> StreamSettings:
    """Returns `[stream]` of a model of the gateway, or the defaults if the gateway is a server's client."""
    settings = getattr(gateway, "settings", None)
    if not isinstance(settings, Settings):
        return StreamSettings()
    model = settings.model(name if isinstance(name, str) else None)
    return settings.stream if model is None else model.stream
