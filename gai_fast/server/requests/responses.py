"""The handlers of stored responses: `GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`.

Owns how a client of OpenAI's Responses API names a durable response of the gateway and its position in it.
`durable.py` finds the stream. Responses that an upstream stores are unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from gai_fast.formats import StreamContext, get_format
from gai_fast.formats.responses.log import final_response, frames_after, has_ended, last_response
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.logs.view import LogFrames, Representation, View, view_of
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_NUMBER
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.durable import DurableRoutes, check_readable, stream_error
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import LogHeader, StreamLog

_FORMAT: Final = "responses"
_ID: Final = re.compile(r"resp_([A-Za-z0-9_-]{22,100})")
_BOOLEANS: Final = {"true": True, "false": False}


class ResponseRoutes:
    """Handlers over one engine.

    Args:
        engine: The engine that runs the streams.
        durable: Finds the streams.
    """

    def __init__(self, engine: Engine, durable: DurableRoutes) -> None:
        self._engine = engine
        self._durable = durable

    def retrieve(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /v1/responses/{id}`: sends the response so far, or with `?stream=true` its stream."""
        stream_id = _stream_id(incoming)
        is_stream = _BOOLEANS.get(incoming.query.get("stream", "false"))
        if is_stream is None:
            raise Error("invalid_request", "the query parameter `stream` must be true or false", reason="query")
        after = _starting_after(incoming)
        if not is_stream:
            return self._durable.with_log(incoming, stream_id, lambda log, _: self._object(incoming, log))

        def follow(log: StreamLog, response: StreamResponse | None) -> Reply | None:
            form = self._durable.form(incoming, _of_format(log))
            view = _view(log.header, form, after)
            self._durable.begin(incoming, log, max(after, 0), response, view=view)
            return None

        return self._durable.with_log(incoming, stream_id, follow)

    def cancel(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /v1/responses/{id}/cancel`: ends the response if it runs, and sends it."""
        stream_id = _stream_id(incoming)

        async def end(log: StreamLog) -> None:
            _of_format(log)
            session, others = self._engine.streams.get(stream_id), self._durable.others
            if session is not None:
                session.cancel()
            elif others is not None and others.owner_of(stream_id) is not None:
                await others.cancel(stream_id, incoming.http.caller)
            else:
                await self._engine.store.cancel(log)

        def answer(log: StreamLog, _: StreamResponse | None) -> Reply:
            # The process that runs the stream may not have logged the end yet.
            return self._object(incoming, log, pending_status="cancelled")

        return self._durable.with_log(incoming, stream_id, answer, end)

    def _object(self, incoming: Incoming, log: StreamLog, pending_status: str | None = None) -> Reply:
        return incoming.json_reply(response_of(log, pending_status))


def response_of(log: StreamLog, pending_status: str | None = None) -> dict[str, Any]:
    """Returns the current response of a durable stream.

    Args:
        log: The stream's log.
        pending_status: The status of a response whose end is not logged yet; None for the status in the log.

    Raises:
        Error: The log has another format, cannot be read, or no longer contains the response.
    """
    _of_format(log)
    ending = log.ending
    if ending is not None and ending.error is not None and log.header.framing == "json":
        raise Error.from_payload(ending.error)
    backlog = log.read(0, SHARED.held_answer)  # no `LogCursor`: the state at this moment, nothing that follows
    response = last_response(backlog.pieces, whole=log.header.framing == "json")
    if response is None:
        if backlog.lost:
            raise log.broken or Error("not_found", "the log no longer has this response", reason="gap")
        response = _queued(log.header)
    if not has_ended(response):
        check_readable(log)
    if log.broken is not None:
        return final_response(response, "failed", log.broken)
    return response if pending_status is None else final_response(response, pending_status)


def _queued(header: LogHeader) -> dict[str, Any]:
    """Returns the response of a stream that has sent nothing yet."""
    echo = {"background": True}
    context = StreamContext(header.stream_id, header.request_id, None, header.model, now_ms, echo=echo)
    return get_format(_FORMAT).started_response(context)


class _FramesAfter(LogFrames):
    """The frames after a sequence number; the number may lie between the frames of one event."""

    def __init__(self, header: LogHeader, form: Representation, after: int) -> None:
        super().__init__(header, form, after, now_ms)
        self._after = after

    def feed(self, piece: bytes) -> None:
        """Feeds the next piece of the log."""
        rest = frames_after(piece, self._after)
        if rest:
            super().feed(rest)

    def feed_joined(self, pieces: Sequence[bytes]) -> None:
        """Feeds the next pieces one by one: frames of this format are never joined."""
        for piece in pieces:
            self.feed(piece)


def _view(header: LogHeader, form: Representation, after: int) -> View:
    if after >= 0 and form.is_of(header) and header.is_numbered:
        return _FramesAfter(header, form, after)
    return view_of(header, form, max(after, 0), now_ms)


def _of_format(log: StreamLog) -> StreamLog:
    """Returns the log if it is in the format of responses.

    Raises:
        Error: The log has another format; the error equals the error for an unknown stream.
    """
    if log.header.format != _FORMAT:
        raise stream_error()
    return log


def _stream_id(incoming: Incoming) -> str:
    """Returns the stream id in the path.

    Raises:
        Error: The path has none.
    """
    found = _ID.fullmatch(incoming.tail)
    if found is None:
        raise stream_error()
    return found[1]


def _starting_after(incoming: Incoming) -> int:
    """Returns the number of the last frame that the client has; -1 if it gives none."""
    text = incoming.query.get("starting_after")
    if text is None:
        return -1
    if EVENT_NUMBER.fullmatch(text) is None:
        what = "the query parameter `starting_after` must be the `sequence_number` of an event"
        raise Error("invalid_request", what, reason="query")
    return int(text)
