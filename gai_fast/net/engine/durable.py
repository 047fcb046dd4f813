"""The durable streams of a process: their logs, and the clients that follow them.

Owns the publications of running streams, their followers, and the number of streams that go on without one. Must not
know how a stream is started: it is given `Engine.start`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from random import randrange
from typing import Final, cast

from gai_fast.ledger import Ledger
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.settings import ANONYMOUS, StreamSettings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.follower import Follower, Followers
from gai_fast.net.logs.publication import Generation, Numbered, Publication
from gai_fast.net.logs.resting import Resting, RestingView
from gai_fast.net.logs.view import View
from gai_fast.net.logs.whole_follower import WholeFollower
from gai_fast.net.logs.writer import Client
from gai_fast.net.runs.records.records import any_decided
from gai_fast.runtime.timers import Timers
from gai_fast.stores import LogHeader, Store, StreamLog

_log: Final = logging.getLogger("gai_fast.engine")

Start = Callable[[StreamSpec, Client, str, Clock, Sequence[Event] | None], Generation]
"""Starts a stream; as `Engine.start`."""
RecordOf = Callable[[StreamSpec], bytes | None]
"""Returns what another worker needs to go on with a stream. None if none can."""


class DurableStreams:
    """The durable streams of one process.

    Args:
        start: Starts a stream.
        store: The logs.
        ledger: Limits the followers of a caller.
        timers: The loop's timers.
        loop: The loop.
        drains: How many streams may go on without a follower.
    """

    def __init__(
        self,
        start: Start,
        store: Store,
        ledger: Ledger,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        drains: int,
    ) -> None:
        self.timers = timers
        self.followers = Followers()
        """The clients of durable streams."""
        self.record_of: RecordOf | None = None
        """Set if other workers may go on with streams of this one."""
        self._start = start
        self._store = store
        self._ledger = ledger
        self._loop = loop
        self._most_drains = drains
        self._drains: Counter[str] = Counter()  # by caller
        self._publications: dict[str, Publication] = {}
        self._left: set[str] = set()  # streams of `part_from`
        self._looks: set[asyncio.Task[float]] = set()  # look-ups of followers in other processes

    def use(self, drains: int) -> None:
        """Sets how many streams may go on without a follower."""
        self._most_drains = drains

    def publish(self, spec: StreamSpec, clock: Clock) -> Publication:
        """Starts a durable stream, without a follower yet.

        Args:
            spec: The first attempt. It has a log header, and its output is an encoder.
            clock: As for `Engine.start`.

        Raises:
            Error: As `Engine.start`, or there is no room for another log.
        """
        header = cast("LogHeader", spec.log_header)
        stream_id = header.stream_id
        record = None if self.record_of is None else self.record_of(spec)
        log = self._store.create(header, record)
        if log.request is not None:
            spec.begun = partial(self._store.when_begun, log)
        publication = Publication(
            _Runner(self, header.caller), log, cast("Numbered", spec.output), spec.model.stream, spec.keeping
        )
        try:
            self._publications[stream_id] = publication
            publication.begin(self._start(spec, publication, stream_id, clock, None))
        except Exception as problem:  # any exception: a log without an end would count as running forever
            publication.refused(
                problem if isinstance(problem, Error) else Error("internal", "the gateway failed to start this stream")
            )
            self._publications.pop(stream_id, None)
            raise
        return publication

    def go_on(
        self, spec: StreamSpec, clock: Clock, log: StreamLog, said: Sequence[Event], piece: bytes, number: int
    ) -> Publication:
        """Goes on with the stream of a worker that is gone. Its followers in this process stay.

        Args:
            spec: The attempt. Its output has written `piece`.
            clock: As for `Engine.start`.
            log: The stream's log, which this process writes now.
            said: As for `Session`.
            piece: The frames that say so. Empty for a whole answer.
            number: The number of the log's event, if it is a whole answer.

        Raises:
            Error: As `Engine.start`. Nothing was written.
        """
        stream_id = log.header.stream_id
        encoder = _OneNumber(number) if spec.hold else cast("Numbered", spec.output)
        publication = Publication(_Runner(self, log.header.caller), log, encoder, spec.model.stream, spec.keeping)
        self._publications[stream_id] = publication
        try:
            session = self._start(spec, publication, stream_id, clock, said)
        except Exception as problem:  # as in `publish`
            self._publications.pop(stream_id, None)
            if isinstance(problem, Error):
                raise
            _log.error("stream %s does not go on: a bug", stream_id, exc_info=problem)
            raise Error("internal", "the gateway failed to go on with this stream") from None
        if piece:
            log.append(piece, encoder.seq)
            if spec.keeping is not None:
                spec.keeping.logged(piece)
        publication.begin(session)
        for follower in self.followers:
            if follower.log is log:
                follower.meet(publication)
        for watcher in log.watched_by:
            if isinstance(watcher, WholeFollower):
                watcher.meet(publication)
        if not publication.followers:
            publication.await_follower()
        return publication

    def publication(self, stream_id: str) -> Publication | None:
        """Returns a durable stream that runs in this process. `None` if there is none with this id."""
        return self._publications.get(stream_id)

    def follow(
        self,
        log: StreamLog,
        client: Client,
        view: View,
        after: int,
        stream: StreamSettings,
        *,
        is_first: bool = False,
        is_answer: bool = False,
    ) -> Follower:
        """Makes a follower of a durable stream. Give the follower to its response before the response's `begin`.

        Args:
            log: The stream's log.
            client: The follower's response.
            view: The form of the frames that it gets.
            after: The number of the last event that the client has.
            stream: The settings of the response.
            is_first: Whether the client has started the stream.
            is_answer: Whether the client's request asks for the stream, for the first time or repeatedly.

        Raises:
            RateLimited: Its caller has the maximum number of followers, and this follower answers no request for the
                stream.
        """
        places = self._ledger.streams_of(log.header.caller)
        if places is not None and not is_answer:
            try:
                self.followers.check(log.header, places)
            except Error:
                self._ledger.refused["streams"] += 1
                raise
        publication = self.publication(log.header.stream_id)
        follower = Follower(
            log,
            client,
            view,
            after,
            stream,
            publication,
            is_first=is_first,
            is_answer=is_answer,
            places=places,
            home=self.followers,
            timers=self.timers,
            loop=self._loop,
        )
        if isinstance(view, RestingView):
            follower.resting = Resting(view, self._look_for_decisions, follower.end_here)
        if publication is None and log.header.stream_id in self._left and not log.is_over:
            _part(follower, self._loop.time() + LIMITS.parting)
        return follower

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a stream was last followed in another process; as `PublicationRunner.look_elsewhere`."""
        self.look_in(self._store, log, found)

    def look_in(self, store: Store, log: StreamLog, found: Callable[[float], None]) -> None:
        """Works as `look_elsewhere`, for a log of any store."""
        if not store.is_shared:
            found(math.inf)
            return

        look = self._loop.create_task(store.followed_ago(log))
        self._looks.add(look)
        look.add_done_callback(partial(self._looked, log, found))

    def _looked(self, log: StreamLog, found: Callable[[float], None], look: asyncio.Task[float]) -> None:
        self._looks.discard(look)
        if look.cancelled():
            return
        bug = look.exception()
        if bug is not None:  # without this, the stream would never end
            _log.error("stream %s: its followers are not known: a bug", log.header.stream_id, exc_info=bug)
        found(math.inf if bug is not None else look.result())

    def _look_for_decisions(self, approval_ids: Sequence[str], found: Callable[[bool], None]) -> asyncio.Task[bool]:
        """Finds out whether one of some approvals is decided; as `resting.Look`."""
        look = self._loop.create_task(any_decided(self._store.records, approval_ids))
        look.add_done_callback(partial(_found_decisions, found))
        return look

    def await_answer(self, log: StreamLog, client: Client, *, is_first: bool) -> WholeFollower:
        """Makes the follower of a durable answer that is one JSON object; as `follow`.

        Args:
            log: The answer's log.
            client: The follower's response.
            is_first: Whether the client has started the stream.
        """
        return WholeFollower(log, client, self._publications.get(log.header.stream_id), is_first=is_first)

    def may_drain(self, caller: str = ANONYMOUS) -> bool:
        """Returns whether one more stream may continue to its end without a follower. If so, counts it.

        A caller with a name gets at most half of `[limits] drains`, so that it takes the room of no other.

        Args:
            caller: The stream's caller.
        """
        most, drains = self._most_drains, self._drains
        own = most if caller == ANONYMOUS else -(-most // 2)
        may = drains.total() < most and drains[caller] < own
        if may:
            drains[caller] += 1
        return may

    def drained(self, caller: str = ANONYMOUS) -> None:
        """Counts one such stream of a caller less: it has ended, or is followed again."""
        self._drains[caller] -= 1
        if not self._drains[caller]:
            del self._drains[caller]

    def ended(self, stream_id: str) -> None:
        """Removes a stream that has ended. Does nothing for one that is not durable."""
        if stream_id in self._publications:  # half of the instructions of `pop`
            del self._publications[stream_id]

    def disconnect_followers(self, until: float) -> None:
        """Disconnects the followers of all streams that go on, who may reconnect; as `Engine.disconnect_clients`."""
        for follower in self.followers:
            if not follower.log.is_over:
                _part(follower, until)

    def refuse_whole(self, log: StreamLog, error: Error) -> None:
        """Responds with an error to those who wait for a whole answer that goes on elsewhere: they cannot follow it.

        Args:
            log: The answer's log.
            error: The error.
        """
        for watcher in log.watched_by:
            if isinstance(watcher, WholeFollower):
                watcher.fail(error)

    def part_from(self, logs: Collection[StreamLog]) -> None:
        """Disconnects the followers of streams that go on elsewhere, where they may reconnect: at once, as no frame
        will come. Those that come later get what the log has.

        Args:
            logs: The streams' logs.
        """
        self._left.update(log.header.stream_id for log in logs)
        for follower in self.followers:
            if follower.log in logs:
                _part(follower, self._loop.time())


def _found_decisions(found: Callable[[bool], None], look: asyncio.Task[bool]) -> None:
    if look.cancelled():
        return
    bug = look.exception()
    if bug is not None:
        _log.error("it is not known whether an approval is decided: a bug", exc_info=bug)
    found(bug is None and look.result())


def _part(follower: Follower, until: float) -> None:
    follower.part(LIMITS.parting_retry_ms + randrange(LIMITS.parting_retry_spread_ms), until)


class _OneNumber:
    """The number of a whole answer, in place of that which its encoder gives to each."""

    def __init__(self, seq: int) -> None:
        self.seq = seq


class _Runner:
    """The runner of one caller's publications: a `PublicationRunner`.

    Args:
        streams: The durable streams.
        caller: The caller.
    """

    def __init__(self, streams: DurableStreams, caller: str) -> None:
        self._streams = streams
        self._caller = caller

    @property
    def timers(self) -> Timers:
        """The loop's timers."""
        return self._streams.timers

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Works as `PublicationRunner.look_elsewhere`."""
        self._streams.look_elsewhere(log, found)

    def may_drain(self) -> bool:
        """Works as `PublicationRunner.may_drain`."""
        return self._streams.may_drain(self._caller)

    def drained(self) -> None:
        """Works as `PublicationRunner.drained`."""
        self._streams.drained(self._caller)
