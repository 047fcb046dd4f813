"""One call to an upstream that several streams read, and its log: single flight, and the answers that are kept.

Owns how a call's response is logged, how a stream reads it, and when a call ends. `answers.py` decides which streams
share a call. To the upstream's exchange a call is its receiver; to a stream a reader of it is the exchange.

1. A call's log has a line of JSON for each thing that its exchange told: numbered, with the seconds since it began. The
   first line says who was asked, so that a reader needs nothing but the log, in whatever process it is.
2. Every stream reads the log, that of the first request too. A reader that keeps up is given each line as it is logged;
   one whose client is slow holds no more than one part of the log.
3. That the call ends when the last reader leaves, and is paused while all readers are slow and one would lose what it
   has not been given, is the decision of `publication.py`, as for the followers of a durable stream. Where no other
   process may read it, it is paused while all readers are slow, as every upstream is for its one client. A reader that
   catches up with a long answer loses nothing either: the call is paused while it would, as long as its client takes
   what it is given. Pauses of that client, which all that comes at once may fill up, count for nothing until they are
   `limits.shared_patience` seconds in all.
4. An answer is kept if the call ended well and a stream that read all of it finished. A call that nobody follows any
   more is given up, unless its answer is known to be whole.
5. A reader whose log ends without the end of the response (its process is gone, the call was given up) ends with a
   failure of the network, after which its stream may ask again. So does one that needs what the log has dropped, unless
   its client has paused: then it ends with `timeout`, as the fault is its client's.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, Protocol

import msgspec
import orjson

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.settings import StreamSettings
from gai_fast.net.attempts.retry import SHARED_CALL, SLOW_CLIENT
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.publication import Publication
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.runtime.timers import Timers
from gai_fast.stores import StreamLog

_BAD_STATUS: Final = 400
_FOLLOWED: Final = StreamSettings(on_disconnect="cancel")
"""A call lives for its readers: a stream that goes on without a client goes on reading."""


class CallRunner(Protocol):
    """The part of the answers that a call and its publication use; the first four as `PublicationRunner`."""

    @property
    def timers(self) -> Timers:
        """The loop's timers."""

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when the call was read in another process last."""

    def may_drain(self) -> bool:
        """Never: a call lives for its readers."""

    def drained(self) -> None:
        """None is."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes may read the call."""

    def failed(self, call: SharedCall) -> None:
        """No other stream may join the call: it has failed, or is given up."""

    def kept(self, call: SharedCall) -> None:
        """The call's answer is whole."""

    def ended(self, call: SharedCall) -> None:
        """The call's log ends."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a call's log.

    Args:
        seq: Its number, from 1.
        at: Seconds since the call began.
        provider: Of the first line, as the next three: the adapter's name.
        upstream: The name of the upstream.
        id: What it was asked for.
        began_ms: When the call began, in milliseconds since the epoch.
        status: The status of the response; 0 if the line has none.
        headers: With `status`.
        data: Bytes of the body, if they are text.
        base64: Bytes of the body, if they are not text.
        ends: The response has ended.
        error: With `ends`: the failure that ended it.
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
    """Whether a call's log has all of an answer: its end was logged, or is its last line."""
    if log.ending is not None or not log.last_seq:
        return log.ending is not None and log.ending.state == "finished"
    try:
        last = last_line(log)
    except ValueError:  # a damaged copy
        return False
    return last.ends and last.error is None


def first_line(log: StreamLog) -> Line:
    """Returns the first line of a call's log, which has one; it says who was asked.

    Raises:
        ValueError: It cannot be read.
    """
    return _lines(log, 0)[0]


def last_line(log: StreamLog) -> Line:
    """Returns the last line of a call's log, which has one.

    Raises:
        ValueError: It cannot be read.
    """
    return _lines(log, log.last_seq - 1)[-1]


def _lines(log: StreamLog, after: int) -> list[Line]:
    lines = read_lines(b"".join(log.read(after, 1).pieces), after)
    if not lines:
        raise ValueError("a line of a call is missing")
    return lines


def read_lines(data: bytes, after: int) -> list[Line]:
    """Reads whole lines of a call's log.

    Args:
        data: The lines.
        after: The number of the line before them.

    Raises:
        ValueError: They are none, or do not follow it.
    """
    try:
        lines = [_read_line(text) for text in data.splitlines()]
    except RecursionError:
        raise ValueError("a line of a call is nested too deep") from None
    for line in lines:
        if line.seq <= after:
            raise ValueError("the lines of a call are out of order")
        after = line.seq
    return lines


class CallPhase(Enum):
    """How far a call is; a phase follows the one before it, and `COMPLETE` may be left out."""

    RECEIVING = auto()
    COMPLETE = auto()
    """The response has ended; its log has not."""
    OVER = auto()
    """The log has ended."""


class SharedCall(Receiver):
    """A call under way: the receiver of its exchange, which logs what comes. Made by `answers.py`.

    Args:
        runner: The answers' cache.
        key: The key of its request.
        log: Its log.
        loop: The loop.

    Attributes:
        key: The key of its request.
        log: Its log.
        publication: Has its readers.
        seq: The number of the last line.
    """

    metrics: StreamMetrics | None = None
    """None: the streams that read it have figures."""
    has_content = True

    def __init__(self, runner: CallRunner, key: str, log: StreamLog, loop: asyncio.AbstractEventLoop) -> None:
        self.key = key
        self.log = log
        self.publication = Publication(runner, log, self, _FOLLOWED)
        self.seq = 0
        self.error: Error | None = None
        """The failure that ended the response."""
        self._runner = runner
        self._loop = loop
        self._began = loop.time()
        self._exchange: OpenExchange | None = None
        self._asked: OpenExchange | None = None  # the same, also after its end
        self._is_held_back = False
        self._catching_up: dict[SharedReader, None] = {}
        self._is_good = False
        self._phase = CallPhase.RECEIVING

    def open(self, about: Mapping[str, Any], ask: Callable[[Receiver], OpenExchange]) -> None:
        """Sends the request.

        Args:
            about: The first line: who is asked.
            ask: Sends it.

        Raises:
            Error: It cannot be sent.
        """
        self._log(about)
        is_open = False
        try:
            self._exchange = self._asked = ask(self)
            is_open = True
        finally:
            if not is_open:  # a log without an end would count as running for ever
                self.publication.refused(Error("internal", "the request could not be made"))
        self.publication.begin(self)

    @property
    def is_waiting(self) -> bool:
        """Whether it still waits for a connection."""
        return self._exchange is not None and self._exchange.is_waiting

    @property
    def is_complete(self) -> bool:
        """Whether the response has ended, or is given up."""
        return self._phase is not CallPhase.RECEIVING

    @property
    def goes_on(self) -> bool:
        """Whether the call, or another stream with its answer, may go on without the one that began it."""
        return self._phase is not CallPhase.OVER and self.error is None and not self.log.lost

    @property
    def resent(self) -> bool:
        """Whether the request was written twice."""
        return self._asked is not None and self._asked.resent

    @property
    def sent(self) -> bool:
        """Whether the request was handed to a connection."""
        return self._asked is not None and self._asked.sent

    def approve(self) -> None:
        """A stream has finished with this answer: rule 4."""
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
        except UnicodeDecodeError:  # a character cut in two
            self._log({"base64": b64encode(data).decode()})

    def exchange_ended(self, error: Error | None) -> None:
        """Logs the end of the response."""
        self._exchange = None
        self._phase = CallPhase.COMPLETE
        self.error = error
        if error is not None:
            self._runner.failed(self)
        self._log({"ends": True, "error": None if error is None else error.payload()})

    def _log(self, told: Mapping[str, Any]) -> None:
        self.seq += 1
        line = {"seq": self.seq, "at": round(self._loop.time() - self._began, 4), **told}
        self.publication.log_frames(orjson.dumps(line) + b"\n", self.seq)
        if self._catching_up:
            self.balance()

    # -- its readers --

    def catches_up(self, reader: SharedReader) -> None:
        """A reader is given the log part by part, not what comes; its client has not paused for long."""
        self._catching_up[reader] = None

    def caught_up(self, reader: SharedReader) -> None:
        """A reader has all of the log, its client is slow, or it has left."""
        self._catching_up.pop(reader, None)

    def _would_lose(self) -> bool:
        """Whether going on would drop what a reader that catches up has not been given: rule 3."""
        if not self._catching_up:
            return False
        dropped = self.log.dropped_by(LIMITS.log_headroom)
        return any(dropped > reader.position for reader in self._catching_up)

    # -- the publication (`publication.Generation`, `Numbered`) --

    @property
    def last_event(self) -> Event:
        """The end of the log: a `finish` if the answer is kept."""
        return {"type": "finish", "finish_reason": "stop"} if self._is_good and self.error is None else {}

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """No figures, as `metrics`."""
        return StreamMetrics(duration=0.0, outcome=outcome)

    def pause(self) -> None:
        """Stops reading the upstream: the log is full."""
        self._is_held_back = True
        self.balance()

    def resume(self) -> None:
        """Goes on reading."""
        self._is_held_back = False
        self.balance()

    def balance(self) -> None:
        """Reads the upstream, or not: rule 3."""
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
        if self._is_good and not self.is_complete:  # its end is known, although the upstream holds the response open
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


class SharedReader:
    """One stream's exchange with a call that others may read, too: a `LogWatcher`, and a follower of its publication.

    Args:
        log: The call's log.
        receiver: The stream.
        call: The call, if it runs in this process.
        loop: The loop.
        is_paced: Whether the lines come with the gaps with which they were logged.
        is_stale: The answer was kept: its rate limits are of the past, and left out.
        counts: It keeps the call alive, and may hold it back.
        is_first: Its stream has begun the call.
    """

    is_answer = False

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
        self.position = 0
        """The number of the last line that the stream has been given."""
        self.is_paused = False
        self.log = log
        self.call = call
        self._publication = call.publication if call is not None and counts else None
        self._receiver = receiver
        self._loop = loop
        self._is_paced = is_paced
        self._is_stale = is_stale
        self._is_first = is_first
        self._at = 0.0  # of the last line, in the time of the call
        self._lines: deque[Line] = deque()  # read, and not given yet
        self._is_behind = True  # what is logged is to be read, rather than given at once
        self._was_paused = False
        self._patience = LIMITS.shared_patience  # what is left of it
        self._paused_at = 0.0
        self._patience_end: asyncio.TimerHandle | None = None
        self.is_closed = False
        """Whether it has left the call."""
        self._handle: asyncio.Handle | None = loop.call_soon(self._go_on)
        if self._publication is not None:
            self._publication.joined(self)
            self._balance(catches_up=True)
        log.watch(self)

    # -- the publication --

    @property
    def is_slow(self) -> bool:
        """Whether its client takes its bytes too slowly; for one that catches up the call itself waits: rule 3."""
        return self.is_paused

    def fail(self, error: Error) -> None:
        """Does nothing: an early failure is a line of the log."""

    # -- OpenExchange --

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has arrived."""
        return self.log.ending is not None or (self.call is not None and self.call.is_complete)

    @property
    def is_waiting(self) -> bool:
        """Whether the call still waits for a connection."""
        return self.call is not None and self.call.is_waiting

    @property
    def sent(self) -> bool:
        """Whether the call's request was handed to a connection; that of a kept answer was."""
        return self.call is None or self.call.sent

    @property
    def resent(self) -> bool:
        """Whether the stream's own request was written twice."""
        return self._is_first and self.call is not None and self.call.resent

    def pause_reading(self) -> None:
        """Leaves what comes in the log."""
        if self.is_paused or self.is_closed:
            return
        self.is_paused = self._is_behind = self._was_paused = True
        self._stop_waiting()
        self._paused_at = self._loop.time()
        if self._patience > 0.0 and self._publication is not None:
            self._patience_end = self._loop.call_later(self._patience, self._lose_patience)
        self._balance(catches_up=self._patience > 0.0)

    def resume_reading(self) -> None:
        """Goes on reading."""
        if not self.is_paused or self.is_closed:
            return
        self.is_paused = False
        self._patience -= self._loop.time() - self._paused_at
        self._stop_patience()
        self._handle = self._loop.call_soon(self._go_on)
        self._balance(catches_up=True)

    def close(self) -> None:
        """Leaves the call."""
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_waiting()
        self._stop_patience()
        self._lines.clear()
        self.log.unwatch(self)
        if self._publication is not None:
            self._publication.left(self)
            self._balance()

    # -- LogWatcher --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Gives the stream the next lines, or leaves them in the log."""
        if not self._is_behind and not self.is_closed:
            self._read(piece)
            self._give()

    def ended(self) -> None:
        """The log has ended, perhaps while other readers get its last line."""
        if self._is_behind or self.is_closed:
            return
        if self.position < self.log.last_seq:
            self._is_behind = True
            self._go_on()
        else:
            self._give_up("the call that this stream shares was given up")

    # -- own --

    def _go_on(self) -> None:
        """Gives the stream the next part of the log, and whatever follows in later turns."""
        self._handle = None
        log = self.log
        if not self._lines:
            backlog = log.read(self.position, SHARED.follower_read)
            if backlog.lost and self._was_paused:
                text = "this client is too slow: the rest of the answer that it shares is no longer kept for it"
                self._end(Error("timeout", text, reason=SLOW_CLIENT, status=408))
                return
            if backlog.lost:
                self._give_up("the answer that this stream shares is no longer kept")
                return
            self._read(b"".join(backlog.pieces))
            if not self._lines and self.position < log.last_seq:  # of a damaged copy
                self._give_up("the answer that this stream shares cannot be read")
        self._give()
        if self.is_closed or self.is_paused or self._handle is not None:
            return
        if self.position < log.last_seq:
            self._handle = self._loop.call_soon(self._go_on)
            self._balance(catches_up=True)
            return
        self._is_behind = False
        self._balance()
        if log.is_over:
            self.ended()

    def _read(self, piece: bytes) -> None:
        try:
            self._lines += read_lines(piece, self.position)
        except ValueError:
            self._give_up("the answer that this stream shares cannot be read")

    def _give(self) -> None:
        while self._lines and not self.is_paused and not self.is_closed:
            line = self._lines[0]
            gap = line.at - self._at
            self._at = line.at
            if self._is_paced and gap > 0.0:
                self._is_behind = True
                self._handle = self._loop.call_later(min(gap, LIMITS.replay_gap), self._go_on)
                return
            self._lines.popleft()
            self.position = line.seq
            self._tell(line)

    def _tell(self, line: Line) -> None:
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
            if line.error is not None:  # in this process it has its cause
                error = Error.from_payload(line.error) if self.call is None else self.call.error
            self._end(error)

    def _give_up(self, text: str) -> None:
        self._end(Error("network", text, reason=SHARED_CALL))

    def _end(self, error: Error | None) -> None:
        """Reports the end to the stream, and leaves the call after it: the stream may have finished by then."""
        if self.is_closed:
            return
        self._is_behind = True
        try:
            self._receiver.exchange_ended(error)
        finally:
            self.close()

    def _balance(self, *, catches_up: bool = False) -> None:
        """Has the call paused, or read on.

        Args:
            catches_up: It is given the log part by part, in this turn and the next ones.
        """
        if self._publication is not None and self.call is not None:
            if catches_up:
                self.call.catches_up(self)
            else:
                self.call.caught_up(self)
            self._publication.balance()
            self.call.balance()

    def _lose_patience(self) -> None:
        """Holds the call back no more: rule 3."""
        self._patience_end, self._patience = None, 0.0
        self._balance()

    def _stop_patience(self) -> None:
        if self._patience_end is not None:
            self._patience_end.cancel()
            self._patience_end = None

    def _stop_waiting(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
