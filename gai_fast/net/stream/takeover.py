"""Takes over durable streams whose workers are gone: this worker goes on with them.

Owns the record of a stream's request, which the store keeps beside its log, and which of these streams go on.
`stores/mirror.py` decides when a worker is gone and who takes a stream over, `attempts.py` how an answer goes on, and
`logs/closing.py` has the end of streams that do not.

1. A worker that is gone is a failed attempt, reason `worker_lost`. Without content the request is asked again. With
   content, `on_midstream_failure` decides.
2. The stream goes on with `stream.gap`, whose text is that of the whole log: it voids what clients have and the log
   has not. No other owner uses its number (`stores.store.owners_number`).
3. The record has the request as it left the gates, which it does not pass again, and no credential. Streams that need
   more have none: guards, a caller's own credential and limits of its key belong to the worker that began them, and so
   does the body of a dialect's route. What a client wrote for its provider alone is recorded if it names no secret.
4. The settings are those of this worker. A model that it does not have ends the stream.
5. A worker that stops lets such streams go. They do not count for `limits.takeovers`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from gai_fast.core.requests.reading import characters, parse_request
from gai_fast.formats import StreamContext, StreamEncoder, get_format
from gai_fast.model.errors import Error
from gai_fast.model.events import ENVELOPE_KEYS, NO_CONTENT, Event
from gai_fast.model.limits import OTHER
from gai_fast.model.metrics import Outcome
from gai_fast.model.request import Request
from gai_fast.model.settings import ModelSettings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.closing import closing_of, gap_after
from gai_fast.net.logs.view import NATIVE, read_event
from gai_fast.net.stream.durable import DurableStreams
from gai_fast.net.stream.session import TAKEN_OVER, Session
from gai_fast.net.stream.targets import Targets
from gai_fast.otel.trace import Trace
from gai_fast.processors import Chain
from gai_fast.runtime.clock import now_ms
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores._base import TakeOver, damaged, data_lines
from gai_fast.stores.mirror import Begin

_log: Final = logging.getLogger("gai_fast.engine")
_ENDS: Final = ("finish", "error", "done")
_Outcome = Literal["continued", "restarted", "retried", "closed", "differed", "refused"]
"""What becomes of a stream of a worker that is gone, as it is counted."""
_FUNCTIONS: Final = "python"
"""The provider whose answers come from functions of the process itself."""


class MakeChain(Protocol):
    """Makes the processors of a stream; as `Engine.chain`."""

    def __call__(
        self,
        request: Request,
        stream_id: str,
        request_id: str,
        trace_id: str | None = None,
        model: str = "",
        caller: str = "",
    ) -> Chain | None:
        """Makes the processors of a stream."""


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """The record of a stream's request in the store.

    Args:
        request: The native request.
        dialect: As `StreamSpec` has it, like the members below.
        can_reset: As above.
        is_agent: As above.
        unsupported: As above.
        left_out: As above.
        endpoint: As above.
        transport: As above.
        home: As above.
        span: `Trace.context` of its request. Empty if it is not traced.
    """

    request: msgspec.Raw
    dialect: str
    can_reset: bool
    is_agent: bool
    unsupported: Any
    left_out: list[str]
    endpoint: str
    transport: str
    home: str
    span: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Record).decode


class TakeOvers:
    """The streams that this worker takes over.

    Args:
        targets: The models' targets, and the settings.
        durable: The durable streams of this process.
        make_chain: Makes the processors of a stream.
        make_trace: Begins the trace of a stream that goes on here, as `Telemetry.go_on`. Returns None if nothing is
            traced.
        may_move: Returns whether another worker could go on with a stream that begins here: rule 3. Its arguments are
            the spec and the stream's id.
    """

    def __init__(
        self,
        targets: Targets,
        durable: DurableStreams,
        make_chain: MakeChain,
        make_trace: Callable[[str], Trace | None],
        may_move: Callable[[StreamSpec, str], bool],
    ) -> None:
        self._targets = targets
        self._durable = durable
        self._make_chain = make_chain
        self._make_trace = make_trace
        self._may_move = may_move
        self.continued: dict[str, _Continued] = {}
        """Streams that go on from their content, by id, until their outcome is known."""
        self.is_closing = False
        """Whether this process stops, so that it begins with no more streams."""
        self._beginning: list[Session] = []

    def lets_go(self, session: Session, log: StreamLog) -> bool:
        """Returns whether other workers would go on with a stream that runs here: rule 5.

        Args:
            session: The stream.
            log: Its log.
        """
        model = self._targets.settings.model(log.header.model)
        if log.request is None or log.lost or model is None or session.relay.is_over:
            return False
        return not session.has_content or _is_mended(replace(session.spec, model=model))

    def has_room(self, taking: int) -> bool:
        """Returns whether one more stream may be taken over now: `limits.takeovers_at_once`.

        Args:
            taking: The streams whose take-over is under way.
        """
        self._beginning = [each for each in self._beginning if each.metrics is None and not each.relay.has_content]
        return not self.is_closing and len(self._beginning) + taking < LIMITS.takeovers_at_once

    def record_of(self, spec: StreamSpec) -> bytes | None:
        """Returns the record of a stream that begins here. None if no other worker could go on with it."""
        header, request = spec.log_header, spec.request
        if header is None or not isinstance(request, Request) or header.format != NATIVE or spec.hold:
            return None
        if spec.credential is not None or not self._may_move(spec, header.stream_id):
            return None
        if spec.other is not None or spec.translated is not None or spec.keeping is not None or spec.is_kept:
            return None  # of a dialect's route
        if _has_secret(request):
            return None
        if spec.model.upstream.provider.partition(":")[0] == _FUNCTIONS:
            return None
        try:
            record = _encode(
                _Record(
                    msgspec.Raw(_encode(request)),
                    spec.dialect,
                    spec.can_reset,
                    spec.is_agent,
                    spec.unsupported,
                    [*spec.left_out],
                    spec.endpoint,
                    spec.transport,
                    spec.home,
                    "" if spec.trace is None else spec.trace.context,
                )
            )
        except (TypeError, ValueError):  # a lone surrogate
            return None
        return record if len(record) <= LIMITS.takeover_request else None

    def going_on(self, log: StreamLog, begun: int, number: int, record: bytes) -> Begin | None:
        """Goes on with a stream; as `stores.store.GoingOn`.

        Args:
            log: The log, with all that is stored.
            begun: How often the stream has begun, without handovers.
            number: The number of the log's `stream.gap`.
            record: The output of `record_of`.

        Returns:
            What begins to go on, once this worker owns the log. None if the log is closed instead.

        Raises:
            Error: `internal`, reason `log_damaged`: an event of the log is none.
        """
        header = log.header
        model = self._targets.settings.model(header.model)
        if begun > LIMITS.takeovers or model is None or log.lost or header.format != NATIVE or header.framing == "json":
            return None
        said = _events_of(log, all_of_them=model.stream.on_midstream_failure != "error" or _has_reset(log))
        if any(event["type"] in _ENDS for event in said):
            return None
        try:
            kept = _decode(record)
            spec, encoder, clock = self._spec(header, model, kept, is_numbered=bool(said))
            if _has_content(said) and not _is_mended(spec):
                return None
            gap = gap_after(log, number)
            encoder.event(gap)
        except (Error, ValueError):
            return None
        outcome: _Outcome = "retried" if not _has_content(said) else "restarted"
        if outcome == "restarted" and spec.model.stream.on_midstream_failure == "continue":
            encoder.event({"type": "warning", "reason": TAKEN_OVER})
            outcome = "continued"
        begin = partial(self._begin, spec, clock, log, said, number, encoder.take())
        return partial(self._begin_as, begin, outcome, log, _kept(gap))

    def _begin(
        self, spec: StreamSpec, clock: Clock, log: StreamLog, said: list[Event], number: int, piece: bytes
    ) -> Session | None:
        """Goes on with a stream that this worker owns, or ends it with the error for which it cannot."""
        try:
            return cast("Session", self._durable.go_on(spec, clock, log, said, piece))
        except Error as error:
            end = closing_of(log, number, False, error)
            log.append(end.piece, end.last_seq)
            log.end(end.ending)
            return None

    # -- sight --

    def _begin_as(
        self, begin: Callable[[], Session | None], outcome: _Outcome, log: StreamLog, kept: int, taken: TakeOver
    ) -> None:
        """Goes on with a stream, and counts its outcome as soon as it is known.

        Args:
            begin: Goes on, or returns None for a stream that it has ended.
            outcome: What will be counted if it goes on.
            log: The stream's log.
            kept: Characters of the text that the log has.
            taken: The change of the owner.
        """
        session = begin()
        if session is None:
            outcome = "refused"
        else:
            self._beginning.append(session)
        _tell(log, outcome, kept, taken)
        if session is None or outcome != "continued":
            self._count(log, outcome)
        elif session.metrics is None:
            self.continued[session.stream_id] = continued = _Continued(session, log, self._went_on)
            log.watch(continued)

    def closed(self, log: StreamLog, taken: TakeOver) -> None:
        """Counts a stream of a worker that is gone, which was closed; as `stores.Store.closed`."""
        _tell(log, "closed", _kept(gap_after(log, 0)) if log.header.format == NATIVE else 0, taken)
        self._count(log, "closed")

    def ended(self, session: Session, outcome: Outcome) -> None:
        """Counts a stream that ends before more of its content has come. Does nothing for any other stream.

        Args:
            session: The stream.
            outcome: How it ends. Nothing is counted for one that another worker goes on with.
        """
        continued = self.continued.pop(session.stream_id, None)
        if continued is None:
            return
        continued.log.unwatch(continued)
        if outcome != "disconnected":
            has_differed = session.relay.error is not None and session.relay.error.reason == "worker_lost"
            self._count(continued.log, "differed" if has_differed else "continued")

    def _went_on(self, continued: _Continued) -> None:
        del self.continued[continued.log.header.stream_id]
        self._count(continued.log, "continued")

    def _count(self, log: StreamLog, outcome: _Outcome) -> None:
        counts, model = self._targets.tallies.takeovers, log.header.model
        name = model if model in self._targets.settings.models else OTHER
        counts[name, outcome] = counts.get((name, outcome), 0) + 1

    def _spec(
        self, header: LogHeader, model: ModelSettings, kept: _Record, *, is_numbered: bool
    ) -> tuple[StreamSpec, StreamEncoder, Clock]:
        """Returns the attempt, its output, and the clock of both.

        Args:
            header: Describes the stream.
            model: Its model.
            kept: Its request.
            is_numbered: Whether the log has events: the first one has the envelope.

        Raises:
            Error: The request cannot be served here.
        """
        request = parse_request(bytes(kept.request))
        stream_id, caller = header.stream_id, header.caller
        if model.stream.on_disconnect == "cancel":  # nobody who started it is there
            model = replace(model, stream=replace(model.stream, on_disconnect="detach"))
        clock = Clock(now_ms)
        context = StreamContext(
            stream_id,
            header.request_id,
            header.trace_id,
            header.model,
            clock,
            header.envelope,
            timestamps=model.stream.timestamps,
            ids=True,
        )
        encoder = get_format(NATIVE).encoder("ndjson" if header.framing == "ndjson" else "sse", context)
        if is_numbered:
            encoder.event({"type": "start", "seq": 1})
            encoder.take()
        spec = StreamSpec(
            self._targets.with_target(model, kept.home),
            request,
            encoder,
            encoder,
            can_reset=kept.can_reset,
            dialect=kept.dialect,
            left_out=kept.left_out,
            unsupported=kept.unsupported,
            is_agent=kept.is_agent,
            prompt_characters=characters(request),
            caller=caller,
            log_header=header,
            chain=self._make_chain(request, stream_id, header.request_id, header.trace_id, header.model, caller),
            request_id=header.request_id,
            trace=self._make_trace(kept.span),
            trace_id=header.trace_id,
            endpoint=kept.endpoint,
            transport=kept.transport,
            home=kept.home,
        )
        return spec, encoder, clock


class _Continued:
    """A stream that goes on from its content, until more of its content comes. A `LogWatcher`.

    Args:
        session: The stream.
        log: Its log.
        went_on: Called as more of it comes.
    """

    __slots__ = ("_after", "_session", "_went_on", "log")

    def __init__(self, session: Session, log: StreamLog, went_on: Callable[[_Continued], None]) -> None:
        self.log = log
        self._session = session
        self._after = cast("StreamEncoder", session.spec.output).seq
        self._went_on = went_on

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Notes that more has come."""
        if last_seq > self._after and not self._session.relay.is_over:
            self.log.unwatch(self)
            self._went_on(self)

    def ended(self) -> None:
        """Does nothing: the session has ended before."""


def _kept(gap: Event) -> int:
    """Returns the characters of a log's text, from its gap."""
    text: Any = gap.get("text")
    return len(text) if isinstance(text, str) else 0


def _tell(log: StreamLog, outcome: _Outcome, kept: int, taken: TakeOver) -> None:
    """Writes the log line of a take-over."""
    if taken.former:
        level, former = logging.WARNING, f"worker {taken.former} is gone"
    else:
        level, former = logging.INFO, "its worker has let it go"
    text = "stream %s: %s, after %.1f s worker %s has epoch %d: %s, %d characters kept"
    _log.log(level, text, log.header.stream_id, former, taken.waited, taken.worker, taken.epoch, outcome, kept)


def _has_secret(request: Request) -> bool:
    """Returns whether what a client wrote for its provider alone has a member that may be a credential, or is long."""
    options = [getattr(tool, "options", None) for tool in request.tools]
    given = [each for each in (request.extra, request.provider_options, *options) if each]
    text = _encode(given) if given else b""
    return len(text) > LIMITS.takeover_options or _SECRET.search(text) is not None


_SECRET: Final = re.compile(
    rb'"[^"]*(?:api[_-]?key|authorization|token|secret|password|credentials?|subscription[_-]key)"\s*:', re.IGNORECASE
)
"""A member of JSON whose name says that its value is a credential."""


def _events_of(log: StreamLog, *, all_of_them: bool) -> list[Event]:
    """Returns the events of a log that belong to its answer, without numbers and envelopes.

    Args:
        log: The log.
        all_of_them: Whether those behind the first content are needed too.

    Raises:
        Error: `internal`, reason `log_damaged`: an event is none.
    """
    events: list[Event] = []
    for piece in log.read(0, sys.maxsize).pieces:
        for data in data_lines(piece):
            try:
                event: Any = read_event(data)
                kind = event["type"]
            except (ValueError, TypeError, KeyError):
                raise damaged() from None
            if kind != "stream.gap":
                for key in _OF_THE_LOG:
                    event.pop(key, None)
                events.append(event)
                if not all_of_them and kind not in NO_CONTENT:
                    return events
    return events


def _has_reset(log: StreamLog) -> bool:
    return any(_RESET in piece for piece in log.read(0, sys.maxsize).pieces)


_RESET: Final = b'"type":"stream.reset"'
_OF_THE_LOG: Final = frozenset({"seq", *ENVELOPE_KEYS})


def _has_content(said: list[Event]) -> bool:
    """Returns whether events have content that is not void."""
    has_content = False
    for event in said:
        has_content = event["type"] != "stream.reset" and (has_content or event["type"] not in NO_CONTENT)
    return has_content


def _is_mended(spec: StreamSpec) -> bool:
    """Returns whether content that clients have may be continued, or made void.

    A transcript compares what upstreams send, and a log has what processors made of it.
    """
    wish = spec.model.stream.on_midstream_failure
    return (wish == "continue" and spec.chain is None) or (wish == "restart" and spec.can_reset)
