"""The limits of the whole server (`[limits]`), and the refusals above them.

Owns the totals and the errors. The server and each of its callers are callers of the ledger, with a limit of streams:

1. With one worker a limit is a number that the worker compares.
2. Several workers divide half of a limit. A stream within a worker's part starts at once: a question to the supervisor
   takes 0.2 ms and more, which every request would pay.
3. A stream beyond that part asks the ledger, whose state is in the supervisor, for a place in the other half, and
   returns the place at its end. So the sum over all workers is the limit, and no worker refuses a stream while the
   others leave room in that half.
4. Without keys everybody is one caller, so callers have no limit.
5. The end of a stream with such a place waits until the ledger has the place back, as for keys.
6. Each upstream is a caller, too: its connections are limited in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

from gai_fast.ledger import Ledger
from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, KeyLimits, KeySettings, LimitSettings
from gai_fast.net.engine.engine import StreamLimits, when_both_done
from gai_fast.net.upstream.connection_pool import ConnectionShare
from gai_fast.runtime.refusal_log import RefusalLog
from gai_fast.server.admission.asking import AdmissionPlace, borrow, take_places

_SERVER: Final = "[limits]"
"""The name of the server among the callers of the ledger. Names of keys have no brackets."""


class _Limit:
    """One limit of streams, or of connections to an upstream.

    Attributes:
        part: The streams that this worker starts without asking.
        common: The limit of the streams that all workers ask for.
    """

    def __init__(self, streams: int, workers: int = 1) -> None:
        self.part = streams if workers == 1 else streams // (2 * workers)
        self.common = KeyLimits(streams=streams - self.part * workers)


_UNLIMITED: Final = _Limit(sys.maxsize)


class _Caller:
    """The server, or one of its callers: its streams in this worker.

    Attributes:
        name: Its name in the ledger.
        starting: The number of streams that are admitted and have not started.
        asked: The streams that have asked the ledger for a place and have not returned it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.starting = 0
        self.asked: set[str] = set()

    def is_full(self, limit: _Limit, running: int) -> bool:
        """Returns whether the worker's part of the limit is used up.

        Args:
            limit: The limit.
            running: The number of streams that have started and not ended.
        """
        return running + self.starting - len(self.asked) >= limit.part


class _Connections(ConnectionShare):
    """A worker's share of the connections to an upstream."""

    def __init__(self, ledger: Ledger, upstream: str, limit: _Limit) -> None:
        streams = limit.common.streams or 0
        super().__init__(limit.part, limit.part + streams)
        self._ledger = ledger
        self._named = KeySettings(f"[[upstream]] {upstream}", (), limits=limit.common)
        self._places: list[str] = []
        self._asking: set[asyncio.Task[None]] = set()

    def borrow(self, then: Callable[[bool], object]) -> None:
        """Asks for a place; as `ConnectionShare.borrow`."""
        task = asyncio.get_running_loop().create_task(borrow(self._ledger, self._named, self._places, then))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def give_back(self) -> None:
        """Returns a place; as `ConnectionShare.give_back`."""
        self._ledger.settle(self._places.pop(), 0)


class ServerLimits(StreamLimits):
    """The totals of one server.

    Args:
        limits: `[limits]`.
        ledger: The ledger that the workers of the server share. None if there is one worker.
        workers: The number of workers that share it.

    Attributes:
        is_short_of_memory: Whether the process uses more than `memory_high_water`; set by the memory watch.
        uploading: The received bytes of incomplete request bodies.
        passed_body: The most bytes of a body that is passed on unread.
        refused: How often each limit has refused a stream or a connection.
    """

    def __init__(self, limits: LimitSettings, ledger: Ledger | None = None, workers: int = 1) -> None:
        super().__init__(ledger)
        self._workers = workers
        self._share = "" if workers == 1 else ", this worker's share"
        self._server = _Caller(_SERVER)
        self._callers: dict[str, _Caller] = {}  # with streams that are starting, or have asked
        self._starting: dict[str, str] = {}  # the callers of streams that are admitted and have not started
        self.is_short_of_memory = False
        self.uploading = 0
        self._uploads: dict[str, int] = {}  # those of each caller with a name
        self._passing = 0  # those of bodies that are passed on unread
        self.refused = {"streams": 0, "streams_per_caller": 0, "connections": 0, "memory": 0, "upload": 0, "reads": 0}
        self._log = RefusalLog(logging.getLogger("gai_fast.limits"))
        self.use(limits)

    def use(self, limits: LimitSettings) -> None:
        """Checks by other limits from now on.

        Args:
            limits: `[limits]`.
        """
        self._limits = limits
        self._of_server = _Limit(limits.streams, self._workers)
        self._of_caller = _Limit(limits.streams_per_caller, self._workers)
        self.passed_body = limits.lane_body

    def share(self, upstream: str, most: int) -> ConnectionShare | None:
        """Returns a worker's share of the connections to an upstream; as `StreamLimits.share`."""
        return None if self.ledger is None else _Connections(self.ledger, upstream, _Limit(most, self._workers))

    def must_ask(self, caller: str, running: int, of_caller: int) -> bool:
        """Returns whether a stream must be admitted by `admit`; as `StreamLimits.must_ask`."""
        return self.ledger is not None and (
            self._server.is_full(self._of_server, running) or self._is_full(caller, of_caller)
        )

    def admit(
        self, stream_id: str, caller: str, running: int, of_caller: int
    ) -> Coroutine[object, object, None] | None:
        """Admits a stream; as `StreamLimits.admit`."""
        ledger = self.ledger
        if ledger is None:
            self.check(stream_id, caller, running, of_caller)
        else:
            self._ask_memory(caller)
        mine = self._callers.get(caller)
        if mine is None:
            mine = self._callers[caller] = _Caller(f"{_SERVER} {caller}")
        places: list[AdmissionPlace] = []
        limit_of_caller = self._limit_of(caller)
        # The caller first: its refusal takes no place of the server, which other workers would lack until it is back.
        for each, limit, count in ((mine, limit_of_caller, of_caller), (self._server, self._of_server, running)):
            if ledger is not None and each.is_full(limit, count):
                each.asked.add(stream_id)
                named = KeySettings(each.name, (), limits=limit.common)
                places.append(AdmissionPlace(named, _place_id(each, stream_id), partial(self._too_many, each, caller)))
            each.starting += 1
        self._starting[stream_id] = caller
        if ledger is None or not places:
            return None
        return take_places(ledger, places, partial(self.ended, stream_id, caller))

    def check(self, stream_id: str, caller: str, running: int, of_caller: int) -> None:
        """Checks whether a stream may start; as `StreamLimits.check`."""
        if self._starting and stream_id in self._starting:
            self._starts(stream_id)
            return
        if self._server.is_full(self._of_server, running):
            raise self._too_many(self._server, caller)
        if self._is_full(caller, of_caller):
            raise self._too_many(None, caller)
        self._ask_memory(caller)

    def has_room(self, running: int) -> bool:
        """Returns whether another stream may be admitted; as `StreamLimits.has_room`."""
        if self.is_short_of_memory:
            return False
        return self.ledger is not None or not self._server.is_full(self._of_server, running)

    def _ask_memory(self, caller: str) -> None:
        if self.is_short_of_memory:
            most = self._limits.memory_high_water
            setting = "by default 80 % of the machine's memory" if most is None else f"{most}"
            text = f"the server has too little memory for another stream (memory_high_water: {setting}{self._share})"
            raise self._refusal("overloaded", "memory", text, caller)

    def begin_upload(self, size: int, caller: str = "", counted: int = 0) -> None:
        """Counts received bytes of an incomplete request body; `end_upload` must follow.

        A caller has at most half of the bytes. A single body may have more: `max_body` is its limit.

        Args:
            size: The number of bytes that were received since the last call.
            caller: The caller, as `Routes.uploader` returns it; empty if it may have all bytes.
            counted: The bytes of this body that were counted before.

        Raises:
            Overloaded: The bodies under way have more than `upload_bytes`, or the caller's more than half of it. These
                bytes are not counted.
        """
        most = self._limits.upload_bytes
        if self.uploading + size > most:
            text = f"the server receives as many bytes of request bodies as it may (upload_bytes = {most}{self._share})"
            raise self._refusal("overloaded", "upload", text)
        if caller and size:
            held = self._uploads.get(caller, 0)
            if held > counted and held + size > most // 2:
                setting = f"half of upload_bytes = {most}{self._share}"
                text = f"the caller {caller} sends as many bytes of request bodies as it may ({setting})"
                raise self._refusal("overloaded", "upload", text, caller)
            self._uploads[caller] = held + size
        self.uploading += size

    def begin_passing(self, size: int, held: int, caller: str = "", counted: int = 0) -> None:
        """Counts received bytes of a body that is passed on unread; `end_passing` must follow.

        Args:
            size: As for `begin_upload`.
            held: Those of them that are in memory until the request is sent.
            caller: As for `begin_upload`.
            counted: As for `begin_upload`: the bytes of this body in memory.

        Raises:
            Overloaded: Those under way have more than `lane_body`, or those in memory more than `begin_upload` allows.
        """
        if self._passing + size > self.passed_body:
            text = "the server passes on as many bytes of request bodies as it may (see lane_body)"
            raise self._refusal("overloaded", "upload", text)
        self.begin_upload(held, caller, counted)
        self._passing += size

    def end_passing(self, size: int, held: int, caller: str = "") -> None:
        """Takes such a body off the count; as `end_upload`."""
        self._passing -= size
        self.end_upload(held, caller)

    def end_upload(self, size: int, caller: str = "") -> None:
        """Takes a body that is complete or lost off the count.

        Args:
            size: All its bytes that were counted.
            caller: The caller that they were counted for.
        """
        self.uploading -= size
        if caller and size:
            left = self._uploads[caller] - size
            if left:
                self._uploads[caller] = left
            else:
                del self._uploads[caller]

    def ended(self, stream_id: str, caller: str) -> asyncio.Future[None] | None:
        """Returns the places of a stream; as `StreamLimits.ended`."""
        if self._starting and stream_id in self._starting:
            self._starts(stream_id)
        returned = self._give_back(self._server, stream_id) if self._server.asked else None
        mine = self._callers.get(caller) if self._callers else None
        if mine is not None:
            returned = when_both_done(returned, self._give_back(mine, stream_id))
            if not mine.starting and not mine.asked:
                del self._callers[caller]
        return returned

    def _give_back(self, asked: _Caller, stream_id: str) -> asyncio.Future[None] | None:
        if self.ledger is None or stream_id not in asked.asked:
            return None
        asked.asked.discard(stream_id)
        self.ledger.settle(_place_id(asked, stream_id), 0)
        return self.ledger.reported(asked.name)

    def _is_full(self, caller: str, of_caller: int) -> bool:
        limit, mine = self._limit_of(caller), self._callers.get(caller) if self._callers else None
        return of_caller >= limit.part if mine is None else mine.is_full(limit, of_caller)

    def _limit_of(self, caller: str) -> _Limit:
        return _UNLIMITED if caller == ANONYMOUS else self._of_caller

    def _starts(self, stream_id: str) -> None:
        self._callers[self._starting.pop(stream_id)].starting -= 1
        self._server.starting -= 1

    def no_place(self) -> Error:
        """Counts a refused connection; returns the error that its client gets."""
        most = f"connections = {self._limits.connections}{self._share}, or fewer by `ulimit -n`"
        text = f"the server has no place for another connection ({most})"
        return self._refusal("overloaded", "connections", text)

    def _too_many(self, refused: _Caller | None, caller: str) -> Error:
        if refused is self._server:
            text = f"the server has as many streams under way as it may (streams = {self._limits.streams})"
            return self._refusal("overloaded", "streams", text, caller)
        most = self._limits.streams_per_caller
        text = f"the caller {caller} has as many streams under way as it may (streams_per_caller = {most})"
        return self._refusal("rate_limited", "streams_per_caller", text, caller)

    def _refusal(self, code: Code, limit: str, text: str, caller: str = "") -> Error:
        self.refused[limit] += 1
        self._log.note(limit, text, caller)
        return Error(code, text, reason=limit, retry_after_ms=SHARED.overloaded_ms)


def _place_id(caller: _Caller, stream_id: str) -> str:
    """Returns the id of a stream's place among those of a caller."""
    return f"{caller.name} {stream_id}"
