"""Whether what a reader got is one of the ends that are promised, by what happened to its stream.

Promised are: the whole answer; an error, where the upstream failed; the end by a cancel; after the kill of
a worker a plain response that is cut off without a false end, and a durable one that ends with `worker_lost` behind
everything that was stored; where nothing was, another worker asks once more. Everything else is unexplained.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from tests.limits import LIMITS
from tests.soak.checker import NOT_LOGGED, UNNAMED, Ending, Ledger
from tests.soak.gateway import BRIEF
from tests.soak.upstream import Call, Upstream

RETRIES: Final = 2
"""The retries that the gateway's upstreams allow: the documented default."""
RETRY_AFTER: Final = LIMITS.retry_first * (1 - LIMITS.retry_jitter) - 0.05
"""Seconds that pass before a retry, but for those by which a timer may fire early."""
MADE_WITHIN: Final = 5.0
"""Seconds within which a connection is made in place of a dead one: the documented default of `connect_timeout`."""
BREAKER_MARGIN: Final = 30.0
"""Seconds after an outage in which a breaker may still be open; each probe that fails opens it again."""


STARVED_MARGIN: Final = 10.0
"""Seconds after somebody waited for a processor in which a worker may be taken for gone, or the upstream for silent."""

UNREAD: Final = 0.5
"""Seconds for which a request that a worker has sent before it was killed may wait for the upstream to read it; longer
where the upstream finds its connection left."""

UNSEEN: Final = 0.5
"""Seconds in which a worker may not have seen yet that the last reader has left, and counts nothing if it is killed."""


@dataclass(slots=True, eq=False)
class Reading:
    """One reader of a stream.

    Attributes:
        number: The stream's.
        ledger: What the reader has.
        manner: What it does.
        is_durable: Whether the stream is.
        model: The model that was asked.
        stream_id: Empty until it is known.
        began: When its present connection was made.
        first: When its first one was.
        has_stalled: It did not read for longer than `write_timeout`.
        outcome: How it ended.
        ended_at: When.
    """

    number: int
    ledger: Ledger
    manner: str
    is_durable: bool
    model: str
    stream_id: str
    began: float = 0.0
    first: float = 0.0
    has_stalled: bool = False
    outcome: str = ""
    ended_at: float = 0.0

    def connected(self, now: float) -> None:
        """A new connection is made."""
        self.began = now
        self.first = self.first or now

    @property
    def owner(self) -> int:
        """The number of the worker that runs the stream, from the end of the stream's id."""
        return int(self.stream_id[26:], 16)


@dataclass(slots=True)
class Kill:
    """A worker was killed: its process, when it got the signal, and when it was gone."""

    pid: int
    began: float
    gone: float = float("inf")


class _Lost(NamedTuple):
    """A follower got `worker_lost`; judged at the end.

    Attributes:
        owner: The worker's number.
        at: When.
        line: The complaint, if the worker lived; or, with `missing`, if it had been killed.
        missing: Deltas of the killed worker that are stored and were not sent.
    """

    owner: int
    at: float
    line: str
    missing: int = 0


class _Asked(NamedTuple):
    """A stream that has ended: how often its upstream was called, and from when to when it may have run.

    Attributes:
        calls: How often.
        began: When the first request was read.
        ended: When its last reader had ended.
        was_left: A request was read behind its sender's end.
    """

    calls: int
    began: float
    ended: float
    was_left: bool


@dataclass(slots=True)
class Tally:
    """The outcomes, for the table."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    events: int = 0
    repeated: int = 0
    """Requests to the upstream for a stream that it had been asked for before."""
    counted: int = 0
    """Retries by the gateway's metrics, those included that reached no upstream."""
    unexplained: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """The kinds of what is unexplained, counted."""


class Judge:
    """Judges every reader, and counts.

    Args:
        upstream: Knows what it was asked, and how it failed.
        starved_until: Returns when a worker last waited long for a processor.
        outlives_workers: The store keeps what a killed worker had stored. With `memory://` its log is gone; another
            worker may still have a copy of it for followers of its own, so that answers differ by the worker.

    Attributes:
        tally: The counts.
        kills: Of workers; the chaos's.
        killed: The processes of the killed workers by number, as the server's log names them.
    """

    def __init__(
        self, upstream: Upstream, starved_until: Callable[[], float], *, outlives_workers: bool = True
    ) -> None:
        self.starved_until = starved_until
        self._outlives_workers = outlives_workers
        self.tally = Tally()
        self.kills: list[Kill] = []
        self.killed: dict[int, int] = {}
        self._upstream = upstream
        self._cancelled: set[int] = set()
        self._lost: list[_Lost] = []
        self._asked: dict[int, _Asked] = {}  # by stream

    # -- outcomes --

    def ended(self, reading: Reading) -> None:
        """A response has ended properly."""
        ledger = reading.ledger
        ledger.ended()
        ending = ledger.ending
        if ending is None:
            self._close(reading, "a false end", explained=False)
        elif ending.type == "finish":
            is_cancelled = ending.reason == "cancelled"
            self._close(
                reading,
                "cancelled" if is_cancelled else "whole",
                explained=not is_cancelled or self._may_cancel(reading),
            )
        elif ending.reason in NOT_LOGGED or self._may_be_lost(reading, ending):
            self._close(reading, "worker_lost", explained=reading.is_durable)
            if not self._was_starved(reading):
                line = self._describe(reading, "worker_lost of a worker that lives")
                self._lost.append(_Lost(reading.owner, time.monotonic(), line))
        else:
            is_late = ending.code == "timeout" and self._was_starved(reading)
            self._close(reading, "error told", explained=is_late or self._has_failed(reading))

    def nothing_left(self, reading: Reading) -> None:
        """A resume was answered by 204."""
        ledger = reading.ledger
        has_all = ledger.ending is not None or ledger.place == ledger.answer.deltas + 2
        self._close(reading, "whole" if ledger.is_whole else "ended before", explained=has_all)

    def refused(self, reading: Reading, status: int, body: bytes) -> None:
        """A request was refused."""
        try:
            error = json.loads(body)["error"]
            result = f"{status} {error.get('code')} {error.get('reason') or ''}".strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            result, explained = f"{status} {body[:200]!r}", False
        else:
            # A stream that has begun is followed, whatever its upstream does. A store has two seconds to answer.
            explained = not reading.stream_id and status >= 500 and self._has_failed(reading)
            explained = explained or (error.get("reason") == "store" and self._was_starved(reading))
        self._close(reading, "refused", explained=explained, detail=result)

    def cut_before_head(self, reading: Reading, why: str) -> None:
        """The request that starts the stream got no answer."""
        self._close(reading, "cut by a kill", explained=self._was_killed(reading), detail=why)

    def cut(self, reading: Reading, why: str) -> bool:
        """The server has cut a response off; true if that may be."""
        ledger = reading.ledger
        by_kill = self._was_killed(reading)
        # On a busy machine a slow reader may take nothing for as long.
        explained = by_kill or reading.has_stalled or (reading.manner == "slow" and self._was_starved(reading))
        if ledger.is_done:
            ledger.wrong = ledger.wrong or "cut after its end mark"
        if not explained or not reading.is_durable or not reading.stream_id:
            self._close(
                reading, "cut by a kill" if by_kill else "cut as it did not read", explained=explained, detail=why
            )
            return False
        return True

    def abandoned(self, reading: Reading, state: str) -> None:
        """A durable stream without readers has this state after a long time."""
        if state not in ("finished", "cancelled", "failed"):
            self.note(self._describe(reading, f"it has no follower, and is {state}"))

    def left(self, reading: Reading) -> None:
        """The reader has gone for good."""
        self._close(reading, "left", explained=True)

    def silent(self, reading: Reading, why: str) -> None:
        """Nothing came, not even a keep-alive."""
        self._close(reading, "silent", explained=False, detail=why)

    def broke(self, error: BaseException) -> None:
        """A reader could not read what it got."""
        self.note("".join(traceback.format_exception(error)).strip().replace("\n", " | ")[-800:])

    def cancelled(self, number: int) -> None:
        """A stream is cancelled from now on."""
        self._cancelled.add(number)

    def compare(self, former: Reading, replay: Reading) -> None:
        """Compares what a reader had of a killed worker's stream with all that is stored of it."""
        if former.ledger.form.format != "gai" and replay.ledger.is_whole:
            return  # another worker went on: only `gai` can tell a client that it had more than was stored
        missing = replay.ledger.pieces - former.ledger.pieces
        if missing > 0 and self._outlives_workers and not self._was_starved(former):
            line = self._describe(former, f"{missing} stored deltas were not sent")
            self._lost.append(_Lost(former.owner, former.ended_at, line, missing))

    # -- at the end --

    def stream_ended(self, number: int) -> None:
        """All readers of a stream have ended: its upstream must have been called as documented."""
        self._cancelled.discard(number)
        calls = self._upstream.calls.pop(number, [])
        if not calls:
            return
        self.tally.repeated += len(calls) - 1
        self._asked[number] = _Asked(len(calls), calls[0].at, time.monotonic(), any(call.was_left for call in calls))
        if not all(map(self._may_be_called, self._by_workers(calls))):
            self.note(f"stream {number}: the upstream was called {len(calls)} times: {calls}")

    def finish(self, retries: Mapping[int, int]) -> None:
        """Judges losses that a kill may explain, and late requests, once everything has ended.

        Args:
            retries: By stream, as the gateway's metrics count them. They tell nothing of a worker that was killed.
        """
        self.tally.counted = sum(retries.values())
        for number, asked in self._asked.items():
            counted = retries.get(number)
            was_killed = any(
                kill.began <= asked.ended + UNSEEN and (asked.began <= kill.gone + UNREAD or asked.was_left)
                for kill in self.kills
            )
            if counted is None:
                if not was_killed:
                    self.note(f"stream {number}: the gateway's metrics have nothing of it")
            elif asked.calls > (1 + counted) + 2 * (1 + RETRIES) * was_killed:  # each may be sent again, too
                self.note(
                    f"stream {number}: the upstream was called {asked.calls} times, the metrics: {counted} retries"
                )
        began = {kill.pid: kill.began for kill in self.kills}
        for each in self._lost:
            # The log names a killed worker some time after its followers know.
            was_killed = began.get(self.killed.get(each.owner, 0), float("inf")) <= each.at
            if was_killed == (each.missing > 0):
                self.tally.lost += each.missing
                self.note(each.line, "deltas that were not sent" if each.missing else "a worker that lives")
        for number in self._upstream.late if not self.kills else ():
            self.note(f"stream {number}: the upstream was called after its end")

    def note(self, line: str, kind: str = "other") -> None:
        """Notes something that is not promised."""
        self.tally.unexplained.append(line)
        self.tally.kinds[kind] += 1

    def _close(self, reading: Reading, outcome: str, *, explained: bool, detail: str = "") -> None:
        reading.outcome, reading.ended_at = outcome, time.monotonic()
        ledger, tally = reading.ledger, self.tally
        tally.outcomes[outcome] += 1
        tally.events += ledger.pieces
        tally.lost += ledger.lost
        tally.doubled += ledger.doubled
        if not explained or ledger.faults:
            kind = f"{outcome} {detail if outcome == 'refused' else ''}".strip()
            self.note(self._describe(reading, f"{outcome} {detail}".strip()), kind)

    def _describe(self, reading: Reading, outcome: str) -> str:
        ledger = reading.ledger
        age = time.monotonic() - reading.first
        calls: list[Call] = self._upstream.calls.get(reading.number, [])
        return (
            f"stream {reading.number} ({reading.stream_id or 'no id'}, {reading.model}, "
            f"{'durable' if reading.is_durable else 'plain'}, {ledger.form.format}/{ledger.form.framing}, "
            f"{reading.manner}) after {age:.1f} s: {outcome}; {ledger.faults or 'nothing lost or doubled'}; "
            f"at {ledger.place}, {ledger.pieces} of {ledger.answer.deltas} deltas, {ledger.ending}; {calls}"
        )

    # -- what happened --

    def _may_be_called(self, calls: Sequence[Call]) -> bool:
        """Returns whether these calls of one stream's upstream are documented.

        Each but the last failed before its first content. Retries come after a while. A request whose pooled connection
        ended without a byte is sent once more, as soon as a fresh one is made. The first of these may be on one that
        has carried none, too: the gateway keeps those that are made when another has come free.
        """
        if not all(call.allows_retry for call in calls[:-1]):
            return False
        if _fewest_attempts(calls) <= 1 + RETRIES:
            return True
        # On a busy machine a request that is sent at once may come late.
        return len(calls) <= 2 * (1 + RETRIES) and self._was_starved_since(calls[0].at)

    def _by_workers(self, calls: Sequence[Call]) -> list[list[Call]]:
        """Returns the calls of each worker that may have asked: the next one asks behind the kill of the one before."""
        # On a busy machine the request of a killed worker may be read behind that of the next one.
        unread = math.inf if self._was_starved_since(calls[0].at) else UNREAD
        parts = [[*calls[:1]]]
        for before, call in pairwise(calls):
            late = math.inf if before.was_left else unread
            if any(kill.began <= call.at and before.at <= kill.gone + late for kill in self.kills):
                parts.append([])
            parts[-1].append(call)
        return parts

    def _may_cancel(self, reading: Reading) -> bool:
        # A further reader of a stream that was abandoned may find it cancelled, after `detach_ttl`.
        return reading.number in self._cancelled or reading.model == BRIEF

    def _was_killed(self, reading: Reading) -> bool:
        """Whether a worker was killed while the reader's present connection was open, or its stream's worker ever."""
        if reading.stream_id and reading.owner in self.killed:
            return True
        return any(kill.gone >= reading.began for kill in self.kills)

    def _may_be_lost(self, reading: Reading, ending: Ending) -> bool:
        """Returns whether an error without a reason is a killed worker's."""
        return not ending.reason and ending.code in ("network", UNNAMED) and not self._has_failed(reading)

    def _was_starved(self, reading: Reading) -> bool:
        """Returns whether a worker, or the upstream, waited for a processor for so long that others took it for gone.

        A lease, and another worker's patience, last for two seconds.
        """
        return self._was_starved_since(reading.first)

    def _was_starved_since(self, time: float) -> bool:
        return self.starved_until() >= time - STARVED_MARGIN

    def _has_failed(self, reading: Reading) -> bool:
        """Returns whether the upstream failed this stream, or was not asked because of failures."""
        calls = self._upstream.calls.get(reading.number)
        if calls:
            return bool(calls[-1].failure)
        return self._upstream.was_failing(reading.first, BREAKER_MARGIN)


def _fewest_attempts(calls: Sequence[Call]) -> float:
    """Returns the least number of attempts that may have made these calls, of one or two each; infinite: none may.

    A retry that was reset looks like a request that is sent again where its connection is new: of these only more than
    six are found.
    """
    fewest = [0.0] + [math.inf] * len(calls)
    for at, call in enumerate(calls):
        if at and call.at - calls[at - 1].at < RETRY_AFTER:
            continue  # it is no retry
        fewest[at + 1] = min(fewest[at + 1], fewest[at] + 1)
        if at + 1 < len(calls) and _is_sent_again(call, calls[at + 1]):
            fewest[at + 2] = min(fewest[at + 2], fewest[at] + 1)
    return fewest[-1]


def _is_sent_again(first: Call, second: Call) -> bool:
    """Returns whether these calls are a request on a dead connection, and the one in its place."""
    made = max(first.at, second.accepted)
    if made == first.at:  # it was there before
        made = second.at
    return first.failure == "reset" and not second.is_reused and made - first.at < MADE_WITHIN
