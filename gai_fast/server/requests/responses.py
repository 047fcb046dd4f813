"""The handlers of responses by their ids: GET, cancel, DELETE and the items of the request.

Owns how a client of OpenAI's Responses API names a response of the gateway, and its position in its stream.
`stores/responses.py` has those that are kept, `durable.py` finds the streams of those that run, or that have a log.
Responses that only an upstream stores are unknown here.

1. A response that is unknown, another caller's, expired, dropped or deleted is one and the same error.
2. While a response runs, its log says what it is; from its end on, what is kept of it does. A log says so itself if
   nothing is kept besides: then it is the only source. Thus a log that outlives a deletion in another process tells
   nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from gai_fast.formats import StreamContext, get_format
from gai_fast.formats.responses.log import final_response, frames_after, has_ended, last_response
from gai_fast.formats.responses.pages import items_page
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.closing import end_in
from gai_fast.net.logs.view import (
    NATIVE,
    FramesAfter,
    LogFrames,
    Reencoded,
    Representation,
    View,
    pieces_in,
    read_event,
    view_of,
)
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_NUMBER
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.durable import DurableRoutes, End, check_readable, stream_error
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores._base import damaged, data_lines
from gai_fast.stores._base import frames_after as events_after
from gai_fast.stores.responses import KEPT_ID, KeptResponse

_FORMAT: Final = "responses"
_OWN_ID: Final = re.compile(r"resp_([A-Za-z0-9_-]{22,100})")
_LIMIT: Final = re.compile(r"[1-9][0-9]?|100")
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
        self._kept = engine.store.responses
        self._pending = PendingAnswers()

    def retrieve(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /v1/responses/{id}`: sends the response so far, or with `?stream=true` its stream."""
        identifier = _identifier(incoming)
        is_stream = _BOOLEANS.get(incoming.query.get("stream", "false"))
        if is_stream is None:
            raise Error("invalid_request", "the query parameter `stream` must be true or false", reason="query")
        after = _starting_after(incoming)
        if is_stream:
            return self._stream(incoming, identifier, after)
        return self._answer(incoming, identifier, None)

    def cancel(self, incoming: Incoming) -> Reply | None:
        """Handles `POST /v1/responses/{id}/cancel`: ends the response if it runs, and sends it."""
        identifier = _identifier(incoming)
        stream_id = _stream_id(identifier)

        async def end(log: StreamLog) -> None:
            _of_format(log)
            session, others = self._engine.streams.get(stream_id), self._durable.others
            if session is not None:
                session.cancel()
            elif others is not None and others.owner_of(stream_id) is not None:
                await others.cancel(stream_id, incoming.http.caller)
            else:
                await self._durable.cancel_found(log)

        return self._answer(incoming, identifier, end)

    def input_items(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /v1/responses/{id}/input_items`: sends the items of the request itself."""
        identifier = _identifier(incoming)
        page = _page(incoming)

        async def find() -> Reply:
            kept = await self._kept.find(incoming.http.caller, identifier)
            if kept is None:
                raise _not_found()
            work = partial(items_page, kept, *page)
            is_long = len(kept.input) > LIMITS.turn_bytes
            found = await self._engine.targets.beside.do(work, incoming.http.caller) if is_long else work()
            if found is None:
                raise Error("not_found", "the query parameter `after` is no item of this response", reason="query")
            return incoming.json_reply(found)

        return self._wait(incoming, lambda _: find())

    def delete(self, incoming: Incoming) -> Reply | None:
        """Handles `DELETE /v1/responses/{id}`: what is kept of the response goes, and its log."""
        identifier = _identifier(incoming)
        return self._wait(incoming, lambda _: self._delete(incoming, identifier))

    async def _delete(self, incoming: Incoming, identifier: str) -> Reply:
        caller, stream_id = incoming.http.caller, _stream_id(identifier)
        log = await self._log(caller, stream_id) if stream_id else None
        if log is not None and not log.is_over:
            raise _running()
        is_deleted = await self._kept.delete(caller, identifier)
        if log is not None:
            is_deleted = is_deleted or not _is_said_to_be_kept(log)
            await self._engine.store.drop(log)
        if not is_deleted:
            raise _not_found()
        return incoming.json_reply({"id": identifier, "object": "response", "deleted": True})

    async def _log(self, caller: str, stream_id: str) -> StreamLog | None:
        """Returns the log of a caller's response that is to be deleted. None if there is none.

        Raises:
            Error: It runs and has no log, or the store is out of reach.
        """
        session, others = self._engine.streams.get(stream_id), self._durable.others
        log = self._engine.store.find_here(stream_id)
        if log is None and session is not None and session.caller == caller:
            raise _running()
        try:
            log = await self._engine.store.find(stream_id, caller=caller, canceller=caller)
            if log is None and others is not None:
                running = await others.running(stream_id, caller)
                if running is not None and not running.is_durable:
                    raise _running()
                if running is not None:
                    log = await self._engine.store.find(stream_id, is_running=True)
        except Error as error:
            if error.reason != "worker_lost":  # the log is lost with its worker
                raise
        is_theirs = log is not None and log.header.caller == caller and log.header.client_format == _FORMAT
        return log if is_theirs else None

    # -- what is kept, and logs --

    def _answer(self, incoming: Incoming, identifier: str, end: End | None) -> Reply | None:
        """Answers about a response: while it runs by its log, then by what is kept, and by its log if that is not.

        Args:
            incoming: The client's request.
            identifier: The response's id.
            end: As for `DurableRoutes.with_log`.
        """
        caller, stream_id = incoming.http.caller, _stream_id(identifier)
        # The process that runs the stream may not have logged the end yet.
        pending_status = None if end is None else "cancelled"
        found: list[StreamLog] = []

        def answer(log: StreamLog, _: StreamResponse | None) -> Reply | None:
            _of_format(log)
            if _is_said_to_be_kept(log):
                raise stream_error()  # `find` then looks for what is kept again: the response may have ended just now
            found.append(log)
            return None

        async def find(response: StreamResponse) -> Reply | None:
            kept = await self._kept.find(caller, identifier)
            if kept is None and stream_id:
                try:
                    reply = await self._durable.find(incoming, stream_id, answer, end, response)
                    return await self._reply(incoming, found[0], pending_status) if found else reply
                except Error as error:
                    if error.code != "not_found":
                        raise
                kept = await self._kept.find(caller, identifier)
            if kept is None:
                raise _not_found()
            return _object(incoming, kept)

        is_plain = stream_id in self._engine.streams and self._engine.store.find_here(stream_id) is None
        if (end is None or is_plain) and self._runs_here(caller, stream_id):
            of_log = partial(_reply_of, incoming)
            return self._durable.with_log(incoming, stream_id, lambda log, _: of_log(_of_format(log)), end)
        return self._wait(incoming, find)

    def _stream(self, incoming: Incoming, identifier: str, after: int) -> Reply | None:
        """Answers with the stream of a response, as long as its log is there."""
        caller, stream_id = incoming.http.caller, _stream_id(identifier)

        def follow(log: StreamLog, response: StreamResponse | None) -> Reply | None:
            form = self._durable.form(incoming, _of_format(log))
            view = _view(log.header, form, after)
            self._durable.begin(incoming, log, 0 if view.start == 0 else after, response, view=view)
            return None

        async def find(response: StreamResponse) -> Reply | None:
            kept = await self._kept.find(caller, identifier)

            def answer(log: StreamLog, response: StreamResponse | None) -> Reply | None:
                if kept is None and _is_said_to_be_kept(_of_format(log)):
                    raise stream_error()  # it is deleted
                return follow(log, response)

            try:
                if stream_id:
                    return await self._durable.find(incoming, stream_id, answer, None, response)
            except Error as error:
                if error.code != "not_found":
                    raise
            if kept is None:
                raise _not_found()
            what = "the events of this response are not kept, only the response: ask without `stream`"
            raise Error("invalid_request", what, reason="stream")

        if self._runs_here(caller, stream_id):
            return self._durable.with_log(incoming, stream_id, follow)
        return self._wait(incoming, find)

    def _runs_here(self, caller: str, stream_id: str) -> bool:
        """Returns whether a caller's stream runs in this process."""
        if not stream_id:
            return False
        log = self._engine.store.find_here(stream_id)
        if log is not None:
            return log.header.caller == caller and log.header.client_format == _FORMAT and not log.is_over
        session = self._engine.streams.get(stream_id)
        return session is not None and session.caller == caller

    def _wait(self, incoming: Incoming, work: Callable[[StreamResponse], Work]) -> Reply | None:
        """Answers once the store has answered; returns None."""
        response = StreamResponse(incoming, "", "", self._engine.settings.stream, whole=False)
        self._pending.add(incoming, response, work(response))
        return None

    async def _reply(self, incoming: Incoming, log: StreamLog, pending_status: str | None) -> Reply:
        """Returns the response with the current response of a stream. A long log is read beside the loop."""
        if not log.is_over or log.size <= LIMITS.turn_bytes:
            return _reply_of(incoming, log, pending_status)
        work = partial(response_of, log, pending_status)
        return incoming.json_reply(await self._engine.targets.beside.do(work, incoming.http.caller))


def _reply_of(incoming: Incoming, log: StreamLog, pending_status: str | None = None) -> Reply:
    return incoming.json_reply(response_of(log, pending_status))


def _object(incoming: Incoming, kept: KeptResponse) -> Reply:
    """Returns the response with the kept object, as its client got it."""
    reply = incoming.json_reply({})
    reply.body = kept.response
    return reply


def _is_said_to_be_kept(log: StreamLog) -> bool:
    """Returns whether the last object of a response that has ended says that it is kept.

    Raises:
        Error: As `response_of`.
    """
    ending = log.ending
    if (
        ending is None
        or log.broken is not None
        or ending.is_lost
        or (ending.error is not None and log.header.framing == "json")
    ):
        return False
    if log.header.format == NATIVE:
        return _is_said_in(log)
    response = response_of(log)
    return has_ended(response) and response.get("store") is True


def _is_said_in(log: StreamLog) -> bool:
    """Does the work of `_is_said_to_be_kept` for a log of format `gai`. True if the log has lost its beginning."""
    backlog = log.read(0, 1)
    if backlog.lost:
        return True
    for piece in backlog.pieces:
        for data in data_lines(piece):
            first: Any = _event_in(data)
            last: Any = end_in(log)
            echo = first.get("echo")
            return isinstance(echo, dict) and echo.get("store") is True and last.get("store") is not False
    return False


def _event_in(data: bytes) -> Event:
    try:
        return read_event(data)
    except (ValueError, TypeError, KeyError):
        raise damaged() from None


def _page(incoming: Incoming) -> tuple[str, str | None, int]:
    """Returns the order, the item before it, and the size of the page of items that a client asks for.

    Raises:
        Error: One of them is not valid.
    """
    query = incoming.query
    order, limit = query.get("order", "desc"), query.get("limit", "20")
    if order not in ("asc", "desc"):
        raise Error("invalid_request", "the query parameter `order` must be `asc` or `desc`", reason="query")
    if _LIMIT.fullmatch(limit) is None:
        raise Error("invalid_request", "the query parameter `limit` must be 1 to 100", reason="query")
    return order, query.get("after"), int(limit)


def _not_found() -> Error:
    """Returns the error for a response that is unknown, another caller's, or no longer kept."""
    return Error("not_found", "there is no such response here: it is unknown, or no longer kept")


def _running() -> Error:
    text = "this response still runs: cancel it first, or wait for its end"
    return Error("invalid_request", text, reason="running", status=409)


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
    lost = Error.from_payload(ending.error or {}) if ending is not None and ending.is_lost else log.broken
    if ending is not None and ending.error is not None and lost is None and log.header.framing == "json":
        raise Error.from_payload(ending.error)
    is_native = log.header.format == NATIVE
    # Not by a `LogCursor`: later pieces do not matter.
    backlog = log.read(0, (sys.maxsize if log.is_over else 1) if is_native else SHARED.held_answer)
    pieces: Sequence[bytes] = backlog.pieces
    if is_native:
        form = Representation(get_format(_FORMAT), "sse")
        pieces = () if backlog.lost else pieces_in(log.header, form, now_ms, pieces)
    elif lost is not None and log.broken is None:
        pieces = _without_closing(log, pieces)
    response = last_response(pieces, whole=log.header.framing == "json")
    if response is None:
        if backlog.lost:
            raise lost or Error("not_found", "the log no longer has this response", reason="gap")
        response = _queued(log.header)
    if not has_ended(response):
        check_readable(log)
    if lost is not None:
        return final_response(response, "failed", lost)
    is_cancelled = ending is not None and ending.state == "cancelled" and not is_native
    if is_cancelled and log.header.is_numbered and not response.get("output"):
        response = _as_it_began(log, response)
    return response if pending_status is None else final_response(response, pending_status)


def _as_it_began(log: StreamLog, response: dict[str, Any]) -> dict[str, Any]:
    """Returns a cancelled response without output with the members of its start: another worker may have closed it."""
    pieces = _without_closing(log, log.read(0, SHARED.held_answer).pieces)
    begun = last_response(pieces) or _queued(log.header)
    own: dict[str, Any] = {
        name: response[name] for name in ("status", "output", "usage", "store", "x_gai") if name in response
    }
    return {**response, **begun, **own}


def _without_closing(log: StreamLog, pieces: Sequence[bytes]) -> list[bytes]:
    """Returns the pieces of a log without its last event, with which another worker closed it.

    Its frames have a response that knows nothing of the one before it.
    """
    data = b"".join(pieces)
    closing = events_after(data, log.header, log.last_seq - 1)
    return [data.removesuffix(closing)]


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
    if after >= 0 and header.format == NATIVE and form.format.name == _FORMAT and form.framing == "sse":
        view = Reencoded(header, form, 0, now_ms)
        view.behind = FramesAfter(after)
        return view
    if after >= 0 and form.is_of(header) and header.is_numbered:
        return _FramesAfter(header, form, after)
    return view_of(header, form, max(after, 0), now_ms)


def _of_format(log: StreamLog) -> StreamLog:
    """Returns the log if it is in the format of responses.

    Raises:
        Error: The log has another format; the error equals the error for an unknown stream.
    """
    if log.header.client_format != _FORMAT:
        raise stream_error()
    return log


def _identifier(incoming: Incoming) -> str:
    """Returns the id in the path.

    Raises:
        Error: No response has such an id.
    """
    if KEPT_ID.fullmatch(incoming.tail) is None:
        raise _not_found()
    return incoming.tail


def _stream_id(identifier: str) -> str:
    """Returns the id of the stream of a response that the gateway has written. Empty for any other id."""
    found = _OWN_ID.fullmatch(identifier)
    return "" if found is None else found[1]


def _starting_after(incoming: Incoming) -> int:
    """Returns the number of the last frame that the client has; -1 if it gives none."""
    text = incoming.query.get("starting_after")
    if text is None:
        return -1
    if EVENT_NUMBER.fullmatch(text) is None:
        what = "the query parameter `starting_after` must be the `sequence_number` of an event"
        raise Error("invalid_request", what, reason="query")
    return int(text)
