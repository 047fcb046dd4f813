"""The handlers of running streams: follow, state, cancel.

Owns how a client names a stream and its position in it, who may see a stream, and the response if there is nothing
left to send. Knows nothing about the content of a stream.

1. A stream of another caller is unknown: the response equals the response for an unknown id, byte for byte.
2. If a log is not in this process, a task looks for it. The search ends if the client disconnects.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.resting import RestingView
from gai_fast.net.logs.view import NATIVE, Representation, View, view_of
from gai_fast.net.runs.records.records import RunRecords, kept_for
from gai_fast.net.runs.records.state import approvals_of_state, waits
from gai_fast.net.stream.session import Session
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import EVENT_ID
from gai_fast.server.admission.negotiation import asks_for_state, for_program, form_of
from gai_fast.server.http.replies import Reply, StreamHead, id_headers
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Answered, Passage
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores.backend import StoreError

Answer = Callable[[StreamLog, StreamResponse | None], Reply | None]
"""Answers a request about a stream; returns None if the stream is followed. The response is set after a search."""


End = Callable[[StreamLog], Coroutine[Any, Any, None]]
"""Ends a stream that runs elsewhere; returns once its log in this process is over."""


Learn = Callable[[StreamLog], Coroutine[Any, Any, None]]
"""Learns what the log of a stream does not say."""


class StreamPlace(NamedTuple):
    """A position in a stream: `<stream id>.<number>`."""

    stream_id: str
    seq: int


class RunningStream(NamedTuple):
    """A running stream: the name of its model, and whether it has a log."""

    model: str
    is_durable: bool


class OwningWorkers(Protocol):
    """The other workers of the server."""

    def owner_of(self, stream_id: str) -> int | None:
        """Returns the number of the other worker that owns or owned a stream; None if no other worker did."""

    async def cancel(self, stream_id: str, caller: str) -> dict[str, Any] | None:
        """Cancels a stream of another worker; returns its state, or None if this caller may see no such stream there.

        Raises:
            Error: The worker is gone.
        """

    async def running(self, stream_id: str, caller: str) -> RunningStream | None:
        """Returns a stream that runs in another worker; None if this caller may see no such stream.

        Raises:
            Error: The worker is gone.
        """


class DurableRoutes:
    """Handlers over one engine.

    Attributes:
        others: The other workers; None if there are none.
    """

    def __init__(self, engine: Engine) -> None:
        self.others: OwningWorkers | None = None
        self._engine = engine
        self._pending = PendingAnswers()

    # -- routes --

    def follow(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /api/v1/streams/{id}`: sends the stream from a position on, or its state."""
        return self._follow(incoming, incoming.tail, _position(incoming))

    def resume(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /api/v1/stream?q=…` from an `EventSource` that reconnects."""
        place = place_of(incoming)
        if place is None:
            raise _bad_place("it is missing")
        return self._follow(incoming, place.stream_id, place.seq)

    def head(self, incoming: Incoming) -> Reply | None:
        """Handles `HEAD /api/v1/streams/{id}`: sends the headers of the response to a GET. Ends no log."""
        after = _position(incoming)

        def answer(log: StreamLog, response: StreamResponse | None) -> Reply | None:
            reply = self._whole_answer(incoming, log, after)
            if reply is not None:
                return reply
            form = self.form(incoming, log)
            view_of(log.header, form, after, now_ms)
            media_type = form.format.media_type(form.framing)
            more = [*incoming.answer_headers, *form.format.headers]
            head = StreamHead(media_type, incoming.http.request_id, incoming.tail, more)
            return Reply(200, headers=head.headers, has_length=False)

        return self.with_log(incoming, incoming.tail, answer)

    def cancel(self, incoming: Incoming) -> Reply | None:
        """Handles `DELETE /api/v1/streams/{id}`: cancels a running stream; sends the state of an ended stream."""
        stream_id = incoming.tail
        session = self._engine.streams.get(stream_id)
        if session is not None and session.caller == incoming.http.caller:
            session.cancel()
            return incoming.json_reply(cancelled(stream_id), status=202)
        others = self.others
        if others is not None and _may_be_an_id(stream_id) and others.owner_of(stream_id) is not None:
            self._search(incoming, stream_id, lambda _: self._cancel_there(incoming, others))
            return None

        is_cancelled_now = False

        async def cancel(log: StreamLog) -> None:
            nonlocal is_cancelled_now
            is_cancelled_now = await self.cancel_found(log)

        def answer(log: StreamLog, response: StreamResponse | None) -> Reply | None:
            if is_cancelled_now:
                return incoming.json_reply(cancelled(stream_id), status=202)
            return incoming.json_reply(state_of(log))

        return self.with_log(incoming, stream_id, answer, cancel)

    async def go_on(self, passage: Passage) -> Answered:
        """Decides what a request has decided about calls of a run that waits, and answers with the rest of its stream.

        Args:
            passage: The request.

        Raises:
            Error: As `decide_given`; or the form of the response does not end where a run waits.
        """
        from gai_fast.server.admission.given_decisions import decide_given, refused  # most requests have none

        incoming, response = passage.incoming, passage.response()
        name = incoming.format.name
        if not incoming.negotiate(incoming.http.headers.get("accept"), name).format.rests:
            raise refused("it is answered by a request with `ui=6` or later")
        log = await decide_given(self._engine, incoming.http.caller, passage.given)
        response.stream_id = log.header.stream_id
        view = view_of(log.header, self.form(incoming, log, name), 0, now_ms)
        if isinstance(view, RestingView):
            view.go_on_with([each.approval_id for each in passage.given])
        self.begin(incoming, log, 0, response, name, view)
        return Answered(None)

    # -- own --

    async def _cancel_there(self, incoming: Incoming, others: OwningWorkers) -> Reply:
        try:
            state = await others.cancel(incoming.tail, incoming.http.caller)
        except Error:  # the worker is gone; a store may know how the stream ended, or who goes on with it
            log = await self._engine.store.find(incoming.tail, canceller=incoming.http.caller)
            if log is not None and not _seen_by(incoming, log).is_over and await self.cancel_found(log):
                return incoming.json_reply(cancelled(incoming.tail), status=202)
            if log is None or log.ending is None:
                raise
            state = state_of(log)
        if state is None:
            raise stream_error()
        return incoming.json_reply(state, status=202 if state == cancelled(incoming.tail) else 200)

    async def cancel_found(self, log: StreamLog) -> bool:
        """Cancels a stream that was found, here or where it runs; returns whether it ends as cancelled.

        This process may have gone on with it during the search.

        Args:
            log: The stream's log.

        Raises:
            Error: As `Store.cancel`.
        """
        if self._engine.cancel(log.header.stream_id):
            return True
        await self._engine.store.cancel(log)
        return log.ending is not None and log.ending.state == "cancelled"

    def _follow(self, incoming: Incoming, stream_id: str, after: int) -> Reply | None:
        waits_elsewhere = False

        async def learn(log: StreamLog) -> None:
            nonlocal waits_elsewhere
            waits_elsewhere = self._is_elsewhere(log) and await self._waits_elsewhere(stream_id)

        def answer(log: StreamLog, response: StreamResponse | None) -> Reply | None:
            reply = self._whole_answer(incoming, log, after, waits_elsewhere=waits_elsewhere)
            if reply is None:
                self.begin(incoming, log, after, response)
            return reply

        is_of_state = asks_for_state(incoming.query, incoming.http.headers.get("accept"))
        return self.with_log(incoming, stream_id, answer, learn=learn if is_of_state else None)

    def _whole_answer(
        self, incoming: Incoming, log: StreamLog, after: int, *, waits_elsewhere: bool = False
    ) -> Reply | None:
        """Returns the response if it is not a stream: the state if requested; 204 if the client has the last event.

        Raises:
            Error: The requested form is unknown; checked even if the response would not have it.
        """
        incoming.negotiate(None, log.header.client_format)
        if asks_for_state(incoming.query, incoming.http.headers.get("accept")):
            return incoming.json_reply(state_of(log, is_waiting=waits_elsewhere or self._waits(log)))
        if log.ending is not None and after >= log.last_seq > 0 and not (log.ending.is_lost and after > log.last_seq):
            return Reply(204, headers=[*incoming.answer_headers, *id_headers(incoming.http.request_id)])
        return None

    def _waits(self, log: StreamLog) -> bool:
        """Returns whether a whole answer waits here for approvals alone: its log does not say so."""
        if log.header.framing != "json":
            return False
        stream_id = log.header.stream_id
        session = self._engine.streams.get(stream_id)
        return stream_id in self._engine.waiting or (session is not None and not session.seconds_since_wait())

    def _is_elsewhere(self, log: StreamLog) -> bool:
        """Returns whether a whole answer may be a run that waits in another process."""
        engine, stream_id = self._engine, log.header.stream_id
        is_here = stream_id in engine.streams or stream_id in engine.waiting
        return log.header.framing == "json" and not log.is_over and not is_here

    async def _waits_elsewhere(self, stream_id: str) -> bool:
        """Returns whether a run waits for approvals alone, as the store has it. False if the store does not answer."""
        records = RunRecords(self._engine.store.records, kept_for(self._engine.settings))
        try:
            asked = approvals_of_state(await records.state_of(stream_id))
            return bool(asked) and asked.issubset(await records.listed_of(stream_id))  # a decided one is under way
        except StoreError:
            return False

    def begin(
        self,
        incoming: Incoming,
        log: StreamLog,
        after: int,
        response: StreamResponse | None,
        default_format: str | None = None,
        view: View | None = None,
    ) -> None:
        """Starts to follow a log that the caller may see.

        Args:
            incoming: The request.
            log: The stream's log.
            after: The number of the last event that the client has.
            response: The response, if the log was searched for; else None.
            default_format: The format if the client names none; None for the format of the log.
            view: The part of the log to send; None for all events after `after`, in the requested form.

        Raises:
            RateLimited: As `Engine.follow`.
        """
        form = self.form(incoming, log, default_format)
        view = view or view_of(log.header, form, after, now_ms)
        media_type = form.format.media_type(form.framing)
        stream = self._stream_settings(log.header.model)
        if response is None:
            response = StreamResponse(incoming, log.header.stream_id, media_type, stream, whole=False)
        else:
            response.media_type = media_type
            response.use(stream)
        response.format_headers = form.format.headers
        if after and incoming.http.trace is not None:
            incoming.http.trace.note("resume", {"gai.stream_id": log.header.stream_id, "gai.after": after})
        follower = self._engine.durable.follow(log, response, view, after, stream)
        response.attach(follower)
        follower.begin()

    def form(self, incoming: Incoming, log: StreamLog, default_format: str | None = None) -> Representation:
        """Returns the form that the client asks for; the default is the format of the log."""
        accept = incoming.http.headers.get("accept")
        negotiated = incoming.negotiate(accept, default_format or log.header.client_format)
        if negotiated.format.tells_programs_apart:
            negotiated = for_program(negotiated, incoming.http.headers.get("user-agent"))
        stream = self._stream_settings(log.header.model)
        return form_of(negotiated, stream)

    def _stream_settings(self, name: str) -> StreamSettings:
        """Returns the response settings for a model's streams, or the defaults if the model no longer exists."""
        model = self._engine.settings.model(name)
        return self._engine.settings.stream if model is None else model.stream

    def with_log(
        self,
        incoming: Incoming,
        stream_id: str,
        answer: Answer,
        end: End | None = None,
        learn: Learn | None = None,
    ) -> Reply | None:
        """Finds a stream's log, ends the stream if `end` is given, and answers: rules 1 and 2.

        Args:
            incoming: The client's request.
            stream_id: The stream.
            answer: Answers the request.
            end: Ends the stream if it runs; None to leave the stream as it is.
            learn: Awaited before a whole answer of another process is answered about. None if the log says all.

        Raises:
            Error: The stream is unknown, belongs to another caller or has no log.
        """
        log = self._engine.store.find_here(stream_id)
        if log is not None:
            _seen_by(incoming, log)
            if log.is_over or (end is None and (learn is None or not self._is_elsewhere(log))):
                return answer(log, None)
        session = self._engine.streams.get(stream_id)
        if log is None and session is not None:
            return self._plain(incoming, session)
        if not _may_be_an_id(stream_id):
            raise stream_error()
        self._search(incoming, stream_id, lambda response: self.find(incoming, stream_id, answer, end, response, learn))
        return None

    def _search(self, incoming: Incoming, stream_id: str, work: Callable[[StreamResponse], Work]) -> None:
        """Answers once a search outside this process has finished."""
        response = StreamResponse(incoming, stream_id, "", self._engine.settings.stream, whole=False)
        self._pending.add(incoming, response, work(response))

    async def find(
        self,
        incoming: Incoming,
        stream_id: str,
        answer: Answer,
        end: End | None,
        response: StreamResponse,
        learn: Learn | None = None,
    ) -> Reply | None:
        """Answers about a stream whose log may be in another process, or that must be ended elsewhere.

        Args:
            incoming: As for `with_log`.
            stream_id: As for `with_log`.
            answer: As for `with_log`.
            end: As for `with_log`.
            response: The response.
            learn: As for `with_log`.

        Raises:
            Error: As `with_log`.
        """
        try:
            caller, asks = incoming.http.caller, incoming.http.method != "HEAD"
            canceller = None if end is None else caller
            log = await self._engine.store.find(stream_id, asks=asks, caller=caller, canceller=canceller)
            if log is None and self.others is not None:
                running = await self.others.running(stream_id, incoming.http.caller)
                if running is not None and not running.is_durable:
                    return self._plain_answer(incoming, stream_id, running.model)
                if running is not None:  # the stream has just started
                    log = await self._engine.store.find(stream_id, is_running=True)
        except Error as error:
            if error.reason != "worker_lost":
                raise
            # The error is sent as an event of the stream: an EventSource cannot read an error response.
            place = place_of(incoming)
            header = LogHeader(stream_id, incoming.http.caller, "", "gai", "sse")
            log = self._engine.store.lost(header, 0 if place is None else place.seq, error)
        if log is None:
            raise stream_error()
        _seen_by(incoming, log)
        if end is not None and not log.is_over:
            await end(log)
        if learn is not None:
            await learn(log)
        return answer(log, response)

    async def is_running(self, stream_id: str, caller: str) -> bool:
        """Returns whether a stream of a caller runs, in this process or in another one. One ends with its worker.

        Args:
            stream_id: The stream.
            caller: The caller's name.

        Raises:
            Error: The store is out of reach.
        """
        session = self._engine.streams.get(stream_id)
        if session is not None:
            return session.caller == caller
        try:
            log = self._engine.store.find_here(stream_id) or await self._engine.store.find(stream_id, caller=caller)
            if log is not None:
                return not log.is_over and log.header.caller == caller
            return self.others is not None and await self.others.running(stream_id, caller) is not None
        except Error as error:
            if error.reason != "worker_lost":
                raise
            return False

    def _plain(self, incoming: Incoming, session: Session) -> Reply:
        """Returns the response about a running stream without a log."""
        if session.caller != incoming.http.caller:
            raise stream_error()
        return self._plain_answer(incoming, session.stream_id, session.spec.model.name)

    def _plain_answer(self, incoming: Incoming, stream_id: str, model: str) -> Reply:
        # A client of another format may accept JSON too, but does not know this object.
        if incoming.format.name == NATIVE and asks_for_state(incoming.query, incoming.http.headers.get("accept")):
            return incoming.json_reply(_state(stream_id, "running", model))
        raise Error(
            "unsupported", "only durable streams can be followed by their id (see `resumable`)", reason="resumable"
        )


def place_of(incoming: Incoming) -> StreamPlace | None:
    """Returns the client's position: `Last-Event-ID`, or else `?after=`; None if it gives neither.

    Args:
        incoming: The request.

    Raises:
        InvalidRequest: One of them is not the id of an event.
    """
    given = (incoming.http.headers.get("last-event-id"), incoming.query.get("after"))
    places = [_place(text) for text in given if text is not None]
    return places[0] if places else None


def _place(text: str) -> StreamPlace:
    found = EVENT_ID.fullmatch(text) if len(text) <= SHARED.identifier else None
    if found is None:
        raise _bad_place("it must be the `id:` of an event, <stream id>.<number>")
    return StreamPlace(found[1], int(found[2]))


def _position(incoming: Incoming) -> int:
    """Returns the client's position in the stream of its path; 0 if it gives none."""
    place = place_of(incoming)
    if place is not None and place.stream_id != incoming.tail:
        raise _bad_place("it is of another stream")
    return 0 if place is None else place.seq


def state_of(log: StreamLog, *, is_waiting: bool = False) -> dict[str, Any]:
    """Returns the state of a durable stream, as its JSON object.

    Args:
        log: The stream's log.
        is_waiting: Whether it is a run that waits for approvals alone. Logs of streams say so, too.

    Raises:
        Error: The log cannot be read.
    """
    check_readable(log)
    header, ending = log.header, log.ending
    state = _state(header.stream_id, "running", header.model)
    if is_waiting or waits(log):
        state["state"] = "waiting"
    if log.last_seq:
        state["last_event_id"] = f"{header.stream_id}.{log.last_seq}"
    if ending is not None:
        state["state"] = ending.state
        state["finish_reason"], state["usage"], state["error"] = ending.finish_reason, ending.usage, ending.error
    elif log.broken is not None:
        state["state"], state["error"] = "failed", log.broken.payload()
    if log.takeovers:
        state["takeovers"] = log.takeovers
    if log.is_degraded:
        state["durability"] = "degraded"
    return state


def check_readable(log: StreamLog) -> None:
    """Checks that the log of a stream that is not known to run is there to its end, or that its worker is gone.

    Raises:
        Error: The rest of the log cannot be read: how the stream ended is not known.
    """
    if log.broken is not None and log.broken.is_of_log:
        raise log.broken


def _state(stream_id: str, state: str, model: str) -> dict[str, Any]:
    rest = dict.fromkeys(("last_event_id", "finish_reason", "usage", "error"))
    return {"id": stream_id, "state": state, "model": model, **rest}


def cancelled(stream_id: str) -> dict[str, Any]:
    """Returns the JSON object for a stream that has just been cancelled.

    Args:
        stream_id: The stream's id.
    """
    return {"id": stream_id, "state": "cancelled"}


def _seen_by(incoming: Incoming, log: StreamLog) -> StreamLog:
    if log.header.caller != incoming.http.caller:
        raise stream_error()
    return log


def _may_be_an_id(stream_id: str) -> bool:
    """Returns whether a client's text has the form of a stream id; only such a text is looked up elsewhere."""
    return EVENT_ID.fullmatch(f"{stream_id}.0") is not None


def stream_error() -> Error:
    """Returns the error for a stream that is unknown or belongs to another caller."""
    return Error("not_found", "there is no such stream: it has ended, or the gateway restarted", reason="stream")


def _bad_place(problem: str) -> Error:
    return Error("invalid_request", f"the id of the last event is not valid: {problem}", reason="last_event_id")
