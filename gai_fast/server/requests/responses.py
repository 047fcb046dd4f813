"""The handlers of stored responses: `GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`.

Owns how a client of OpenAI's Responses API names a durable response of the gateway and its place in it. `durable.py`
finds the stream. A response that an upstream stores itself is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from gai_fast.formats import StreamContext, get_format
from gai_fast.formats.responses.log import ended_as, frames_behind, last_response
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.logs.view import Form, OwnFrames, View, view_of
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_NUMBER
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.durable import DurableRoutes, stream_error
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import LogHeader, StreamLog

_FORMAT: Final = "responses"
_ID: Final = re.compile(r"resp_([A-Za-z0-9_-]{22,100})")
_BOOLEANS: Final = {"true": True, "false": False}


class ResponseRoutes:
    """Handlers over one engine.

    Args:
        engine: Runs the streams.
        durable: Finds them.
    """

    def __init__(self, engine: Engine, durable: DurableRoutes) -> None:
        self._engine = engine
        self._durable = durable

    def retrieve(self, incoming: Incoming) -> Reply | None:
        """`GET /v1/responses/{id}`: the response so far; with `?stream=true` its stream from `starting_after` on."""
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
        """`POST /v1/responses/{id}/cancel`: ends a response that runs; of one that has ended, the response."""
        stream_id = _stream_id(incoming)

        async def end(log: StreamLog) -> None:
            _of_format(log)
            session, others = self._engine.streams.get(stream_id), self._durable.others
            if session is not None:
                session.cancel()
            elif others is not None and others.owner_of(stream_id) is not None:
                await others.cancel(stream_id, incoming.caller)
            else:
                await self._engine.store.cancel(log)

        def answer(log: StreamLog, _: StreamResponse | None) -> Reply:
            # The process that runs the stream may not have written its end yet.
            return self._object(incoming, log, otherwise="cancelled")

        return self._durable.with_log(incoming, stream_id, answer, end)

    def _object(self, incoming: Incoming, log: StreamLog, otherwise: str | None = None) -> Reply:
        return incoming.json_reply(response_of(log, otherwise))


def response_of(log: StreamLog, otherwise: str | None = None) -> dict[str, Any]:
    """Returns the response of a durable stream, as it is now.

    Args:
        log: The stream's log.
        otherwise: The status of one whose end is not logged yet.

    Raises:
        Error: The log is of another format, or has lost what it told of the response.
    """
    _of_format(log)
    ending = log.ending
    if ending is not None and ending.error is not None and log.header.framing == "json":
        raise Error.from_payload(ending.error)
    backlog = log.read(0, SHARED.held_answer)
    response = last_response(backlog.pieces, whole=log.header.framing == "json")
    if response is None:
        if backlog.lost:
            raise log.broken or Error("not_found", "the log no longer has this response", reason="gap")
        response = _queued(log.header)
    if log.broken is not None:
        return ended_as(response, "failed", log.broken)
    return response if otherwise is None else ended_as(response, otherwise)


def _queued(header: LogHeader) -> dict[str, Any]:
    """The response of a stream that has sent nothing yet."""
    echo = {"background": True}
    context = StreamContext(header.stream_id, header.request_id, None, header.model, now_ms, echo=echo)
    return get_format(_FORMAT).begun(context)


class _Rest(OwnFrames):
    """The frames behind a sequence number, which may lie between those of one event."""

    def __init__(self, header: LogHeader, form: Form, after: int) -> None:
        super().__init__(header, form, after, now_ms)
        self._after = after

    def feed(self, piece: bytes) -> None:
        """Takes the next piece of the log."""
        rest = frames_behind(piece, self._after)
        if rest:
            super().feed(rest)

    def feed_joined(self, pieces: Sequence[bytes]) -> None:
        """Takes the next pieces; frames of this format are never joined."""
        for piece in pieces:
            self.feed(piece)


def _view(header: LogHeader, form: Form, after: int) -> View:
    if after >= 0 and form.is_of(header) and header.is_numbered:
        return _Rest(header, form, after)
    return view_of(header, form, max(after, 0), now_ms)


def _of_format(log: StreamLog) -> StreamLog:
    """Returns the log if it is of a response.

    Raises:
        Error: As for a stream that is not known.
    """
    if log.header.format != _FORMAT:
        raise stream_error()
    return log


def _stream_id(incoming: Incoming) -> str:
    """The stream's id in the path.

    Raises:
        Error: There is none.
    """
    found = _ID.fullmatch(incoming.tail)
    if found is None:
        raise stream_error()
    return found[1]


def _starting_after(incoming: Incoming) -> int:
    """The number of the last frame that the client has; -1: none."""
    text = incoming.query.get("starting_after")
    if text is None:
        return -1
    if EVENT_NUMBER.fullmatch(text) is None:
        what = "the query parameter `starting_after` must be the `sequence_number` of an event"
        raise Error("invalid_request", what, reason="query")
    return int(text)
