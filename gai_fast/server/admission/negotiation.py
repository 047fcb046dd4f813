"""Reads framing, format, envelope and trace of a request from its headers and query parameters.

docs/http-api.md describes both. Knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal, cast

from gai_fast.formats import Format, Framing, get_format
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.view import Representation
from gai_fast.otel.trace import Parent

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1

# The framing of a stream for each media range of an `Accept` header. A stream asked for as JSON is SSE: the OpenAI SDK
# sends `Accept: application/json` for streams too.
_RANGES: Final[Mapping[str, Framing]] = {
    "text/event-stream": "sse",
    "text/*": "sse",
    "*/*": "sse",
    "application/json": "sse",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/*": "sse",
}


SOCKET: Final = "ws"
"""The transport of answers over a WebSocket, for the metrics."""


class Negotiated:
    """The form of an answer, which is not changed: many requests share it.

    Args:
        format: The wire format.
        framing: Between its frames.
        envelope: The client's choice. None if the client makes none.
        is_on_socket: Frames go over a WebSocket, as messages.

    Attributes:
        format: As above.
        framing: As above.
        envelope: As above.
        name: The name of the format. It and what follows is read once: an attribute of a class costs 130 instructions.
        can_reset: As `Format.can_reset`.
        copies_upstream: As `Format.copies_upstream`.
        headers: As `Format.headers`.
        media_type: The `content-type` of a stream.
        transport: The transport of the answer, for the metrics.
    """

    def __init__(
        self,
        format: Format,
        framing: Framing,
        envelope: Literal["compact", "full"] | None,
        *,
        is_on_socket: bool = False,
    ) -> None:
        self.format = format
        self.framing = framing
        self.envelope = envelope
        self.name = format.name
        self.can_reset = format.can_reset
        self.copies_upstream = format.copies_upstream
        self.headers = format.headers
        self.media_type = format.media_type(framing)
        self.transport = SOCKET if is_on_socket else framing


def negotiate(query: Mapping[str, str], accept: str | None, *, default_format: str) -> Negotiated:
    """Returns the format, framing and envelope of an answer.

    Args:
        query: The query parameters.
        accept: The `Accept` header, or `None`.
        default_format: The route's own format.

    Raises:
        InvalidRequest: No framing that the client accepts (406).
        Unsupported: An unknown format, framing or envelope; the text has those that there are.
    """
    if not query:  # at once: each name that is looked for costs 0.1 us
        known = _KNOWN.get(default_format)
        if known is None:
            known = _KNOWN[default_format] = {}
        negotiated = known.get(accept)
        if negotiated is None:
            if len(known) >= SHARED.known_values:
                known.clear()
            negotiated = known[accept] = _negotiate(default_format, None, None, accept, None)
        return negotiated
    name = query.get("format", default_format)
    return _negotiate(name, query.get("envelope"), query.get("framing"), accept, query.get("ui"))


_KNOWN: Final[dict[str, dict[str | None, Negotiated]]] = {}
"""The answers to requests without a query, by route's format and `Accept`: a `lru_cache` costs four times as much."""


@lru_cache(SHARED.known_values)
def _negotiate(
    name: str, envelope: str | None, parameter: str | None, accept: str | None, version: str | None
) -> Negotiated:
    try:
        wanted = get_format(name)
        if version is not None:
            wanted = wanted.version(version)
    except ValueError as problem:
        raise Error("unsupported", str(problem), reason="format") from None
    if envelope not in (None, "compact", "full"):
        raise Error("unsupported", "unknown envelope; known: compact, full", reason="envelope")
    framing = _framing(parameter, accept)
    if framing not in wanted.framings:
        raise Error(
            "invalid_request", f"format {name!r} cannot be framed as {framing}", reason="not_acceptable", status=406
        )
    return Negotiated(wanted, framing, cast('Literal["compact", "full"] | None', envelope))


def _framing(parameter: str | None, accept: str | None) -> Framing:
    if parameter is not None:
        if parameter not in ("sse", "ndjson"):
            raise Error("unsupported", "unknown framing; known: sse, ndjson", reason="framing")
        return cast("Framing", parameter)
    if not accept:
        return "sse"
    preferred = _preferred(accept)
    if preferred is None:
        raise Error(
            "invalid_request",
            "no acceptable media type; a stream is text/event-stream or application/x-ndjson",
            reason="not_acceptable",
            status=406,
        )
    return _RANGES[preferred]


def for_program(negotiated: Negotiated, user_agent: str | None) -> Negotiated:
    """Returns the form of an answer for a client's program; as `Format.for_program`."""
    form = negotiated.format.for_program(user_agent)
    if form is negotiated.format:
        return negotiated
    is_on_socket = negotiated.transport == SOCKET
    return Negotiated(form, negotiated.framing, negotiated.envelope, is_on_socket=is_on_socket)


def form_of(negotiated: Negotiated, stream: StreamSettings) -> Representation:
    """Returns the form in which a client gets a durable stream.

    Args:
        negotiated: The form that the client asks for.
        stream: The settings of the response.
    """
    envelope = negotiated.envelope or stream.envelope
    return Representation(negotiated.format, negotiated.framing, envelope, stream.retry, stream.timestamps)


def asks_for_state(query: Mapping[str, str], accept: str | None) -> bool:
    """Returns whether a client that names a stream asks for its state, one JSON object, instead of its events.

    Args:
        query: The query parameters.
        accept: The `Accept` header, or `None`.
    """
    return bool(accept) and "framing" not in query and _preferred(accept or "") == "application/json"


@lru_cache(SHARED.known_values)
def _preferred(accept: str) -> str | None:
    """Returns the first media range of the highest quality among the known ones. None if there is none."""
    best: tuple[float, str] | None = None
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = _quality(parameters)
        if media in _RANGES and quality > 0 and (best is None or quality > best[0]):
            best = quality, media
    return None if best is None else best[1]


@lru_cache(SHARED.known_values)
def content_coding(accept_encoding: str | None, offered: tuple[str, ...]) -> str | None:
    """Returns the content coding of an answer (RFC 9110, 12.5.3). None if it is sent as it is.

    The client's preference decides; between equal ones, the server's. If the client accepts none of the server's
    codings, the answer has no coding, even if the client refuses that too.

    Args:
        accept_encoding: The `Accept-Encoding` header, or `None`.
        offered: The codings that there may be, the preferred one first.
    """
    qualities: dict[str, float] = {}
    for item in (accept_encoding or "").split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        qualities.setdefault({"x-gzip": "gzip"}.get(name, name), _quality(parameters))
    rest = qualities.get("*", 0.0)
    best, quality = None, qualities.get("identity", 0.0)
    for coding in offered:
        wanted = qualities.get(coding, rest)
        if wanted > 0 and (wanted > quality or (best is None and wanted == quality)):
            best, quality = coding, wanted
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if _QUALITY.fullmatch(parameter):
            return float(parameter[2:])
    return 1.0


# More than RFC 9110's three digits are read, too: a client that writes `q=0.0000` refuses.
_QUALITY: Final = re.compile(r"q=(0(\.[0-9]*)?|1(\.0*)?)")


def trace_parent(traceparent: str) -> Parent | None:
    """Returns the caller's span of a W3C `traceparent` header. None if it is not valid.

    All-zero ids and version `ff` are invalid; of unknown higher versions the first 55 characters are read (W3C Trace
    Context, 3.2 and 4.3).
    """
    found = _TRACEPARENT.match(traceparent)
    if found is None or found[1] == "ff" or not found[2].strip("0") or not found[3].strip("0"):
        return None
    rest = traceparent[found.end() :]
    if rest and (found[1] == "00" or not rest.startswith("-")):
        return None
    return Parent(found[2], found[3], is_sampled=bool(int(found[4], 16) & _SAMPLED))
