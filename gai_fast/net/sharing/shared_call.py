"""One call to an upstream that several streams read, and its log: single flight, and kept answers.

Owns how a call's response is logged, how a stream reads it, and when a call ends. `answers.py` decides which streams
share a call. A call is the receiver of the upstream's exchange. A reader of the call is the exchange of a stream.

1. A call's log has one line of JSON for each event of its exchange, with its number and the seconds since the start.
   The first line has the upstream and the model: a reader in any process needs only the log.
2. Every stream reads the log, including the stream that started the call. A reader that keeps up gets each line when it
   is logged. A reader with a slow client holds at most one part of the log.
3. `publication.py` ends the call when its last reader leaves, and pauses it while all readers are slow and a reader
   would lose lines, as for the followers of a durable stream. If no other process may read the call, it also pauses
   while all readers are slow, as every upstream does for its one client. While a reader catches up with a long answer
   and its client reads, the call pauses if the reader would lose lines. Pauses of this client, which many lines at once
   may cause, do not count up to `limits.shared_patience` seconds in total.
4. An answer is kept if the call ended well, and a stream that read all of it finished. A call without readers is
   abandoned, unless its answer is known to be complete.
5. If a reader's log ends without the end of the response (its process is gone, or the call was abandoned), the reader
   ends with a network failure, and its stream may make another attempt. A reader that needs dropped lines ends with
   that failure too, or with `timeout` if its client has paused: the client was too slow.
"""

from __future__ import annotations

import asyncio
import math
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, Protocol

import msgspec
import orjson

from gai_fast.model.errors import Error
from gai_fast.model.events import NO_EVENT, Event
from gai_fast.model.metrics import AnswerSource, Outcome, StreamMetrics
from gai_fast.model.settings import StreamSettings
from gai_fast.net.attempts.retry import SHARED_CALL, SLOW_CLIENT
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.cursor import LogCursor
from gai_fast.net.logs.publication import Publication, PublicationRunner
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.stores import Backlog, StreamLog

_BAD_STATUS: Final = 400
_FOLLOWED: Final = StreamSettings(on_disconnect="cancel")
"""The call ends with its last reader. A stream that goes on without a client is still a reader."""


class CallRunner(PublicationRunner, Protocol):
    """The part of the answers that a call and its publication use."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes may read the call."""

    def failed(self, call: SharedCall) -> None:
        """Removes a failed or abandoned call: no further stream may join it."""

    def kept(self, call: SharedCall) -> None:
        """Keeps the complete answer of a call."""

    def ended(self, call: SharedCall) -> None:
        """Removes a call whose log has ended."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a call's log.

    Args:
        seq: The line's number, from 1.
        at: Seconds since the start of the call.
        provider: The adapter's name. Only the first line has this field and the next three.
        upstream: The name of the upstream.
        id: The upstream's id of the model.
        began_ms: The start of the call, in milliseconds since the epoch.
        status: The status of the response. 0 if the line has none.
        headers: The response headers, with `status`.
        data: Bytes of the body, if they are text.
        base64: Bytes of the body, if they are not text.
        ends: Whether the response has ended.
        error: The failure that ended the response, with `ends`. None if it ended well.
    """

    seq: int
    at: float
    provider: str = ""
    upstream: str = ""
    id: str = ""
    began_ms: int = 0
    status: int = 0
    headers: dict[str, str] = {}
    data: str | None = None
    base64: bytes | None = None
    ends: bool = False
    error: dict[str, Any] | None = None


_read_line: Final = msgspec.json.Decoder(Line).decode


def is_whole(log: StreamLog) -> bool:
    """Returns whether a call's log has a complete answer: its end was logged, or is its last line."""
    if log.ending is not None or not log.last_seq:
        return log.ending is not None and log.ending.state == "finished"
    try:
        last = last_line(log)
    except ValueError:  # a damaged copy
        return False
    return last.ends and last.error is None


def first_line(log: StreamLog) -> Line:
    """Returns the first line of a call's log, which has the upstream. The log must not be empty.

    Raises:
        ValueError: The line cannot be read.
    """
    return _lines(log, 0)[0]


def last_line(log: StreamLog) -> Line:
    """Returns the last line of a call's log. The log must not be empty.

    Raises:
        ValueError: The line cannot be read.
    """
    return _lines(log, log.last_seq - 1)[-1]


def _lines(log: StreamLog, after: int) -> list[Line]:
    # No `LogCursor`: this reads one line, which the log has.
    return read_lines(b"".join(log.read(after, 1).pieces), after)


def read_lines(data: bytes, after: int) -> list[Line]:
    """Reads complete lines of a call's log.

    Args:
        data: The lines.
        after: The number of the line before them.

    Raises:
        ValueError: The data has no lines, or their numbers do not follow.
    """
    try:
        lines = [_read_line(text) for text in data.splitlines()]
    except RecursionError:
        raise ValueError("a line of a call is nested too deep") from None
    if not lines:
        raise ValueError("a line of a call is missing")
    for line in lines:
        if line.seq <= after:
            raise ValueError("the lines of a call are out of order")
        after = line.seq
    return lines


class CallPhase(Enum):
    """The phases of a call, in order. A call may skip `COMPLETE`."""

    RECEIVING = auto()
    COMPLETE = auto()
    """The response has ended, but its log has not."""
    OVER = auto()
    """The log has ended."""


class SharedCall(Receiver):
    """A running call: the receiver of its exchange, which logs the response. Made by `answers.py`.

    Args:
        runner: The answers.
        key: The key of its request.
        log: Its log.
        loop: The loop.

    Attributes:
        key: The key of its request.
        log: Its log.
        publication: Its readers.
        seq: The number of the last line.
    """

    metrics: StreamMetrics | None = None
    """Always None: the streams that read the call have the metrics."""
    has_content = True

    def __init__(self, runner: CallRunner, key: str, log: StreamLog, loop: asyncio.AbstractEventLoop) -> None:
        self.key = key
        self.log = log
        self.publication = Publication(runner, log, self, _FOLLOWED)
        self.seq = 0
        self.error: Error | None = None
        """The failure that ended the response. None if there is none."""
        self._runner = runner
        self._loop = loop
        self._started_at = loop.time()
        self._exchange: OpenExchange | None = None
        self._last_exchange: OpenExchange | None = None  # `_exchange`, kept after its end
        self._is_held_back = False
        self._catching_up: dict[SharedReader, None] = {}
        self._is_good = False
        self._phase = CallPhase.RECEIVING

    def open(self, about: Mapping[str, Any], ask: Callable[[Receiver], OpenExchange]) -> None:
        """Sends the request.

        Args:
            about: The first line: the upstream and the model.
            ask: Sends the request.

        Raises:
            Error: The request cannot be sent.
        """
        self._log(about)
        is_open = False
        try:
            self._exchange = self._last_exchange = ask(self)
            is_open = True
        finally:
            if not is_open:  # a log without an end would count as running forever
                self.publication.refused(Error("internal", "the request could not be made"))
        self.publication.begin(self)

    @property
    def is_waiting(self) -> bool:
        """Whether the call still waits for a connection."""
        return self._exchange is not None and self._exchange.is_waiting

    def seconds_since_wait(self) -> float:
        """Works as `Generation.seconds_since_wait`: it waits for nobody."""
        return math.inf

    @property
    def is_complete(self) -> bool:
        """Whether the response has ended or was abandoned."""
        return self._phase is not CallPhase.RECEIVING

    @property
    def goes_on(self) -> bool:
        """Whether other streams may read the rest without the stream that started the call."""
        return self._phase is not CallPhase.OVER and self.error is None and not self.log.lost

    @property
    def resent(self) -> bool:
        """Whether the request was written twice."""
        return self._last_exchange is not None and self._last_exchange.resent

    @property
    def sent(self) -> bool:
        """Whether the request was handed to a connection."""
        return self._last_exchange is not None and self._last_exchange.sent

    def approve(self) -> None:
        """Marks the answer as good: a stream has finished with it (rule 4)."""
        self._is_good = True
        if self.is_complete:
            self._end()

    # -- the exchange (`upstream.Receiver`) --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Logs the status and the headers, without cookies."""
        if status >= _BAD_STATUS:
            self._runner.failed(self)
        headers.pop("set-cookie", None)
        self._log({"status": status, "headers": headers})

    def body_received(self, data: bytes) -> None:
        """Logs the bytes of one read."""
        try:
            self._log({"data": data.decode()})
        except UnicodeDecodeError:  # two reads split a character
            self._log({"base64": b64encode(data).decode()})

    def exchange_ended(self, error: Error | None) -> None:
        """Logs the end of the response."""
        self._exchange = None
        self._phase = CallPhase.COMPLETE
        self.error = error
        if error is not None:
            self._runner.failed(self)
        self._log({"ends": True, "error": None if error is None else error.payload()})

    def _log(self, fields: Mapping[str, Any]) -> None:
        self.seq += 1
        line = {"seq": self.seq, "at": round(self._loop.time() - self._started_at, 4), **fields}
        self.publication.log_frames(orjson.dumps(line) + b"\n", self.seq)
        if self._catching_up:
            self.balance()

    # -- its readers --

    def reader_changed(self, reader: SharedReader) -> None:
        """Pauses or resumes reading the upstream, after a reader has paused, resumed, caught up, read or left."""
        if reader.is_catching_up:
            self._catching_up[reader] = None
        else:
            self._catching_up.pop(reader, None)
        self.publication.balance()
        self.balance()

    def _would_lose(self) -> bool:
        """Returns whether further lines would drop lines that a catching-up reader has not read: rule 3."""
        if not self._catching_up:
            return False
        dropped = self.log.dropped_by(LIMITS.log_headroom)
        return any(dropped > reader.position for reader in self._catching_up)

    # -- the publication (`publication.Generation`, `Numbered`) --

    @property
    def last_event(self) -> Event:
        """The `finish` of the log if the answer is kept. Empty if it is not."""
        return {"type": "finish", "finish_reason": "stop"} if self._is_good and self.error is None else NO_EVENT

    @property
    def answered_by(self) -> AnswerSource | None:
        """Always None: each of the answers that share the call has its own request."""
        return None

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """Returns empty metrics; see `metrics`."""
        return StreamMetrics(duration=0.0, outcome=outcome)

    def pause(self) -> None:
        """Pauses reading the upstream: the log is full."""
        self._is_held_back = True
        self.balance()

    def resume(self) -> None:
        """Resumes reading the upstream."""
        self._is_held_back = False
        self.balance()

    def balance(self) -> None:
        """Pauses or resumes reading the upstream: rule 3."""
        if self._exchange is None:
            return
        are_slow = self.publication.are_slow and not self._runner.is_shared
        if self._is_held_back or are_slow or self._would_lose():
            self._exchange.pause_reading()
        else:
            self._exchange.resume_reading()

    def cancel(self) -> None:
        """Ends the call, which has no reader any more: rule 4."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
        if self._is_good and not self.is_complete:  # the answer is complete, but the upstream keeps the response open
            self._phase = CallPhase.COMPLETE
            self._log({"ends": True})
        self._end()

    def _end(self) -> None:
        """Ends the log."""
        if self._phase is CallPhase.OVER:
            return
        self._phase = CallPhase.OVER
        self._runner.ended(self)
        if self._is_good and self.error is None and not self.log.lost:
            self._runner.kept(self)
        else:
            self._runner.failed(self)
        self.publication.end(())


class SharedReader(LogCursor):
    """A stream's exchange with a call that other streams may read too: a cursor of the call's log.

    Args:
        log: The call's log.
        receiver: The stream.
        call: The call. None if it does not run in this process.
        loop: The loop.
        is_paced: Whether the lines are passed on with their recorded gaps.
        is_stale: Whether the answer was kept. Its rate-limit headers are then outdated, and removed.
        counts: Whether the reader keeps the call alive and may pause it.
        is_first: Whether the reader's stream has started the call.
    """

    def __init__(
        self,
        log: StreamLog,
        receiver: Receiver,
        call: SharedCall | None,
        loop: asyncio.AbstractEventLoop,
        *,
        is_paced: bool = False,
        is_stale: bool = False,
        counts: bool = True,
        is_first: bool = False,
    ) -> None:
        self.call = call
        self._kept_alive = call if counts else None
        publication = None if self._kept_alive is None else self._kept_alive.publication
        super().__init__(log, 0, 0, publication, loop, takes_metrics=False)
        self._receiver = receiver
        self._is_paced = is_paced
        self._is_stale = is_stale
        self._is_first = is_first
        self._at = 0.0  # time of the last line, in seconds since the start of the call
        self._lines: deque[Line] = deque()  # lines that were read and not passed on yet
        self._was_paused = False
        self._patience = LIMITS.shared_patience  # remaining seconds
        self._paused_at = 0.0
        self._patience_end: asyncio.TimerHandle | None = None
        self._join()
        self._handle = loop.call_soon(self._go_on)  # in the next turn: the stream has no exchange before this returns
        self._balance()

    # -- the call --

    @property
    def is_slow(self) -> bool:
        """Whether the stream's client reads too slowly. For a reader that catches up the call waits itself: rule 3."""
        return self.is_paused

    @property
    def is_catching_up(self) -> bool:
        """Whether the reader gets the log in parts, in this turn and the next ones, and the call waits for it."""
        return not self.is_over and (self._patience > 0.0 if self.is_paused else self._is_behind)

    def _balance(self) -> None:
        """Makes the call pause or continue."""
        if self._kept_alive is not None:
            self._kept_alive.reader_changed(self)

    # -- OpenExchange --

    @property
    def is_complete(self) -> bool:
        """Whether the response has ended, or was abandoned."""
        return self.log.ending is not None or (self.call is not None and self.call.is_complete)

    @property
    def is_waiting(self) -> bool:
        """Whether the call still waits for a connection."""
        return self.call is not None and self.call.is_waiting

    @property
    def sent(self) -> bool:
        """Whether the call's request was handed to a connection. True for a kept answer."""
        return self.call is None or self.call.sent

    @property
    def resent(self) -> bool:
        """Whether the stream's own request was sent twice."""
        return self._is_first and self.call is not None and self.call.resent

    def limit_silence(self, seconds: float) -> None:
        """Does nothing: other streams may read the call, and each has patience of its own."""

    def pause_reading(self) -> None:
        """Pauses: new lines stay in the log."""
        if self.is_paused or self.is_over:
            return
        self._was_paused = True
        self._paused_at = self._loop.time()
        if self._patience > 0.0 and self._kept_alive is not None:
            self._patience_end = self._loop.call_later(self._patience, self._lose_patience)
        self.pause()

    def resume_reading(self) -> None:
        """Resumes reading in the next turn: the stream must not get lines during this call."""
        if not self.is_paused or self.is_over:
            return
        self.is_paused = False
        self._patience -= self._loop.time() - self._paused_at
        self._stop_patience()
        if self._is_behind and self._handle is None:
            self._handle = self._loop.call_soon(self._go_on)
        self._balance()

    def close(self) -> None:
        """Leaves the call. Idempotent."""
        self._stop_patience()
        self._lines.clear()
        self.leave()
        self._balance()

    # -- LogCursor --

    def _read(self) -> Backlog:
        """Returns the next part of the log, or an empty part while lines of the previous part wait."""
        return Backlog([], self.position) if self._lines else super()._read()

    def _take(self, backlog: Backlog) -> None:
        """Passes the next part of the log to the stream."""
        if backlog.lost and self._was_paused:
            text = "this client is too slow: the rest of the answer that it shares is no longer kept for it"
            raise Error("timeout", text, reason=SLOW_CLIENT, status=408)
        if backlog.lost:
            raise _given_up("the answer that this stream shares is no longer kept")
        if backlog.last_seq > self.position:
            self._add(b"".join(backlog.pieces))
        self._pass_on()

    def _take_piece(self, piece: bytes, last_seq: int) -> None:
        """Passes new lines to the stream."""
        self._add(piece)
        self._pass_on()
        if self._lines:  # the stream has paused before the last line
            self._is_behind = True

    def _end(self) -> None:
        """Ends the exchange of a response whose log has ended without its end."""
        self._finish(_given_up("the call that this stream shares was given up"))

    def _finish(self, error: Error | None) -> None:
        """Reports the end to the stream, and then leaves the call: the stream may finish, and approve it, before."""
        if self.is_over:
            return
        self._is_behind = True  # so that `ended` does nothing if this call ends the log
        try:
            self._receiver.exchange_ended(error)
        finally:
            self.close()

    # -- own --

    def _add(self, lines: bytes) -> None:
        try:
            self._lines += read_lines(lines, self.position)
        except ValueError:
            raise _given_up("the answer that this stream shares cannot be read") from None

    def _pass_on(self) -> None:
        while self._lines and not self.is_paused and not self.is_over:
            line = self._lines[0]
            gap = line.at - self._at
            self._at = line.at
            if self._is_paced and gap > 0.0:
                self._handle = self._loop.call_later(min(gap, LIMITS.replay_gap), self._go_on)
                return
            self._lines.popleft()
            self.position = line.seq
            self._report(line)

    def _report(self, line: Line) -> None:
        if line.data is not None:
            self._receiver.body_received(line.data.encode())
        elif line.base64 is not None:
            self._receiver.body_received(line.base64)
        elif line.status:
            headers = line.headers
            if self._is_stale:
                headers = {name: value for name, value in headers.items() if "ratelimit" not in name}
            self._receiver.head_received(line.status, headers)
        elif line.ends:
            error = None
            if line.error is not None:  # the call of this process has the original error, with its cause
                error = Error.from_payload(line.error) if self.call is None else self.call.error
            self._finish(error)

    def _lose_patience(self) -> None:
        """Stops pausing the call: rule 3."""
        self._patience_end, self._patience = None, 0.0
        self._balance()

    def _stop_patience(self) -> None:
        if self._patience_end is not None:
            self._patience_end.cancel()
            self._patience_end = None


def _given_up(text: str) -> Error:
    return Error("network", text, reason=SHARED_CALL)
