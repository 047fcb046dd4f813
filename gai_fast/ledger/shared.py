"""`SharedLedger`: the ledger of a worker whose keys are used by others as well.

Owns when the shared state is asked, and what becomes of requests while that fails.

1. The shared state decides on each request of a key with limits, and on each larger reservation. All that wait share
   one exchange: 0.2 ms on one machine while requests follow each other, 0.8 ms after a pause.
2. One exchange is under way at a time, so reports arrive in order. If its answer is lost, it is sent again with its
   number, and counts once.
3. A stream of a key that limits tokens, streams or spend ends for its client once its use is reported: the client may
   ask another worker next. The end waits as long as requests do, and not at all while the shared state cannot be
   reached.
4. While the shared state cannot be reached, or if what it has of a key is damaged, requests are admitted or refused, as
   configured, and streams under way go on; what they use is reported later. It is tried again every
   `limits.ledger_retry`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from gai_fast.ledger._base import (
    GRANTED,
    NO_USES,
    REFUSED,
    Caps,
    Demand,
    GroupBy,
    LimitUsage,
    Period,
    SpendEntry,
    SpendRow,
    Verdict,
    labels_of,
)
from gai_fast.ledger.book import SpendBook, Sums
from gai_fast.ledger.home import Report, ReportAnswer
from gai_fast.ledger.ledger import Grown, Ledger, Ticket, date_of
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.money import Amount, decimal_text
from gai_fast.model.settings import RATE_LIMITS
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import Health, logger, out_of_reach

_BEAT: Final = LIMITS.ledger_gone / 4
"""Seconds between two signs of life of a worker that has streams."""

FIRST: Final = 1
"""The number of a worker's first exchange."""


class SharedHome(ABC):
    """The state that workers share, as one of them reaches it. `StoreError`: it cannot be reached now.

    Attributes:
        worker: The name of this worker in the state.
        has_forgotten: The last exchange has found a state that had taken this worker for gone.
    """

    worker: str = ""
    has_forgotten: bool = False

    @abstractmethod
    async def open(self) -> None:
        """Begins; raises `StoreError`."""

    @abstractmethod
    async def close(self) -> None:
        """Ends; nothing of this worker is left."""

    @abstractmethod
    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer | None] | None:
        """Reports, as `Home.exchange`; raises `StoreError`. A damaged key fails no exchange; see `ReportAnswer`."""

    @abstractmethod
    async def spend(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend, as `Ledger.spend`; raises `StoreError`."""

    @abstractmethod
    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key in a period, as `labels_of` names it; raises `StoreError`."""

    @abstractmethod
    async def reset(self, key: str, labels: Sequence[str]) -> None:
        """Resets a key's use to zero, as `KeyState.reset`; raises `StoreError`."""


Homes = Callable[[str], SharedHome]
"""Makes the home of the keys (`OF_KEYS`), or of the server (`OF_SERVER`), as a worker reaches it."""


class _Waiting:
    """A `Demand` that waits for its verdict; the future is done with what was reserved."""

    __slots__ = ("demand", "future")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.future: asyncio.Future[Amount] = asyncio.get_running_loop().create_future()

    def refuse(self) -> None:
        """Answers that the limits are out of reach."""
        if not self.future.done():
            self.future.set_exception(out_of_reach("the limits"))


class _Key:
    """This worker's part in a key.

    Attributes:
        name: The key's name.
        caps: Its limits.
        requests: Requests that are not reported yet.
        tokens: Tokens that are not reported yet.
        used_at: When the last of these requests came.
        live: The worker's streams.
        reserved: The spend that is reserved for them.
        is_dirty: There is use to report.
        demands: Those that the next exchange decides.
        report_done: Done when the next exchange has reported the ends of streams: rule 3. None if no end waits.
        used: The counts of all workers at `answered_at`.
        answered_at: When the shared state answered last.
    """

    def __init__(self, name: str, caps: Caps) -> None:
        self.name = name
        self.caps = caps
        self.requests = self.tokens = self.live = 0
        self.reserved: Amount = 0
        self.used_at = 0.0
        self.is_dirty = False
        self.demands: list[_Waiting] = []
        self.report_done: asyncio.Future[None] | None = None
        self.used = LimitUsage()
        self.answered_at = 0.0

    def is_idle(self, now: float) -> bool:
        """Returns whether the key may be forgotten: `Ledger.limit_status` has nothing to show of it."""
        passed = now - self.answered_at
        return not (
            self.live
            or self.is_dirty
            or self.demands
            or self.report_done
            or (self.caps.spend is not None and self.used.spent > 0)
            or any(
                self.used.rates[place] > _refilled(place, limit, passed) for place, limit in self.caps.rates if limit
            )
        )


class _Reported(NamedTuple):
    """One key in an exchange: its report, and the demands that wait for the answer."""

    key: _Key
    report: Report
    demands: Sequence[_Waiting]
    report_done: asyncio.Future[None] | None


class _Batch(NamedTuple):
    """One exchange."""

    number: int
    entries: Sequence[SpendEntry]
    keys: Sequence[_Reported]


class SharedLedger(Ledger):
    """Decides by the shared state.

    Args:
        home: The shared state.
        fails_open: Whether requests are admitted while it cannot be reached.
        clock: Monotonic seconds.
        wall: As for `Ledger`.
    """

    def __init__(
        self,
        home: SharedHome,
        *,
        fails_open: bool,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(wall)
        self._home = home
        self._fails_open = fails_open
        self._clock = clock
        self._health = Health(clock)
        self._keys: dict[str, _Key] = {}
        self._unseen: list[str] = []  # the keys that `_look` has not seen in this round; it takes them from the end
        self._book = SpendBook()  # spend that is not reported yet
        self._wake: asyncio.Event = asyncio.Event()
        self._flush: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_closed = False
        self._number = 0
        self._unsent: _Batch | None = None  # a batch whose answer was lost
        self._flight: asyncio.Task[None] | None = None  # the exchange under way
        self._after: list[asyncio.Future[None]] = []  # set at the end of the next exchange
        self._rest: asyncio.TimerHandle | None = None  # until the shared state is tried again

    def name(self, worker: str) -> None:
        """Names this worker; as `Ledger.name`."""
        self._home.worker = worker

    @property
    def problem(self) -> str | None:
        """Why the shared state cannot be used now; as `Ledger.problem`."""
        return None if self._health.problem is None else str(self._health.problem)

    async def open(self) -> None:
        """Begins; as `Ledger.open`."""
        await self._home.open()
        self._begin(self._run())

    async def close(self) -> None:
        """Sends the last reports, for at most `limits.ledger_wait`, and ends."""
        try:
            async with asyncio.timeout(LIMITS.ledger_wait):
                while self._has_news and self._tasks and self._health.problem is None:
                    await self.report()
        except TimeoutError:
            pass
        self._has_closed = True
        for timer in (self._flush, self._rest):
            if timer is not None:
                timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _set(self._after)
        self._let_end()
        asking: list[_Key | _Reported] = [*self._keys.values(), *(self._unsent.keys if self._unsent else ())]
        for each in asking:
            for waiting in each.demands:
                waiting.refuse()
        self._log_unreported()
        await self._home.close()

    def _log_unreported(self) -> None:
        """Logs the spend that only this worker knows, and that ends with it."""
        unreported = Sums("day")
        unsent, self._unsent = self._unsent, None
        unreported.add(() if unsent is None else unsent.entries)
        unreported.add(self._book.take(len(self._book)))
        for day, currency, amount, requests in unreported.rows():
            text = "the store may lack spend of %s: %s %s of %d requests could not be reported before the end"
            logger.error(text, day, decimal_text(amount), currency, requests)

    async def report(self) -> None:
        """Waits for the end of an exchange that begins after now, whether it succeeds or not; as `Ledger.report`.

        After `close` there is none, and nothing to wait for.
        """
        if self._has_closed:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._after.append(done)
        self._wake.set()
        await done

    # -- limits --

    def _try(self, key: str, caps: Caps, demand: Demand) -> Amount | None:
        mine = self._key(key, caps)
        if self._health.problem is None:
            return None  # other workers may have returned part of the last answer's counts
        if not self._fails_open:
            raise out_of_reach("the limits")
        return self._use(mine, demand)

    def _key(self, name: str, caps: Caps) -> _Key:
        """Returns this worker's part in a key, whose limits are these from now on."""
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _Key(name, caps)
        key.caps = caps
        return key

    def _use(self, key: _Key, demand: Demand) -> Amount:
        """Admits a request without the shared state, which cannot be reached."""
        if not demand.is_counted:
            return 0
        reserved = demand.reservation.amount
        key.reserved += reserved
        key.tokens += demand.tokens
        if demand.is_new:
            key.requests += demand.taken_from is None
            key.live += 1
            key.used_at = self._clock()
        self._report_soon(key)
        return reserved

    async def _ask(self, key: str, caps: Caps, demand: Demand) -> Amount:
        if self._has_closed:
            raise out_of_reach("the limits")
        mine = self._key(key, caps)
        waiting = self._wait_for(mine, demand)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            future = waiting.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo(mine, demand, future.result())  # admitted, for a client that has left
            raise

    def _wait_for(self, key: _Key, demand: Demand) -> _Waiting:
        waiting = _Waiting(demand)
        key.demands.append(waiting)
        self._report_now(key)
        return waiting

    def _grow(self, key: str, caps: Caps, demand: Demand, then: Grown) -> None:
        mine = self._key(key, caps)
        if self._health.problem is not None or self._has_closed:
            then(self._use(mine, demand))  # rule 4
            return
        waiting = self._wait_for(mine, demand)
        waiting.future.add_done_callback(lambda done: then(REFUSED if done.exception() else done.result()))

    def _give_back(self, ticket: Ticket, more: Amount, tokens: int = 0) -> None:
        key = self._keys[ticket.key.name]
        key.reserved -= more
        key.tokens -= tokens
        self._report_now(key)

    def _undo(self, key: _Key, demand: Demand, reserved: Amount) -> None:
        """Takes back an admission."""
        if not demand.is_counted:
            return
        key.reserved -= reserved
        key.tokens -= demand.tokens
        if demand.is_new:
            key.requests -= demand.taken_from is None
            key.live -= 1
        self._report_now(key)

    def _return(self, ticket: Ticket) -> None:
        self._undo(self._keys[ticket.key.name], ticket.demand, ticket.reserved)

    def _settle(self, ticket: Ticket, tokens: int) -> None:
        key, caps = self._keys[ticket.key.name], ticket.caps
        key.live -= 1
        key.reserved -= ticket.reserved
        if caps.tokens is not None:
            key.tokens += tokens - ticket.demand.tokens
        if caps.tokens is None and caps.streams is None and caps.spend is None:
            self._report_soon(key)
            return
        self._report_now(key)
        if key.report_done is None and self._health.problem is None and not self._has_closed:
            key.report_done = asyncio.get_running_loop().create_future()

    def _used(self, key: str, caps: Caps) -> LimitUsage:
        mine = self._key(key, caps)
        since = self._clock() - mine.answered_at
        if since > LIMITS.ledger_flush:  # other workers may have used some: the next answer has the number
            self._report_soon(mine)
        used = mine.used
        rates = [*NO_USES]
        for place, limit in caps.rates:
            unreported = mine.tokens if RATE_LIMITS[place].counts == "tokens" else mine.requests
            rates[place] = max(0.0, max(0.0, used.rates[place] - _refilled(place, limit, since)) + unreported)
        return used._replace(rates=tuple(rates))

    # -- spend --

    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend; as `Ledger.charge`."""
        self._book.add(entry)
        self._flush_soon()

    def reported(self, key: str) -> asyncio.Future[None] | None:
        """Returns the future that ends of streams await; as `Ledger.reported`."""
        mine = self._keys.get(key)
        return None if mine is None else mine.report_done

    def _let_end(self) -> None:
        """Lets all streams end that are held."""
        if self._unsent is not None:
            _set([each.report_done for each in self._unsent.keys])
            self._unsent = self._unsent._replace(keys=[each._replace(report_done=None) for each in self._unsent.keys])
        for key in self._keys.values():
            report_done, key.report_done = key.report_done, None
            _set([report_done])

    async def spend(self, by: GroupBy, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend; as `Ledger.spend`."""
        await self._report_spend()
        return await self._home.spend(by, since, until)

    async def spent(self, key: str, period: Period) -> Amount:
        """Returns the spend of a key; as `Ledger.spent`."""
        await self._report_spend()
        return await self._home.spent(key, labels_of(date_of(self._wall()), self.currency)[period])

    async def _reset(self, key: str, labels: Sequence[str]) -> None:
        await self._report_spend()
        await self._home.reset(key, labels)
        mine = self._keys.get(key)
        if mine is not None:
            mine.used = LimitUsage(reserved=mine.used.reserved)

    async def _report_spend(self) -> None:
        """Reports this worker's spend.

        Raises:
            StoreError: It cannot be.
        """
        if len(self._book) or self._unsent is not None:
            await self.report()
        if self._health.problem is not None:
            raise self._health.problem

    # -- exchanges --

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def _has_news(self) -> bool:
        return self._unsent is not None or len(self._book) > 0 or any(key.is_dirty for key in self._keys.values())

    def _report_now(self, key: _Key) -> None:
        key.is_dirty = True
        self._wake.set()

    def _report_soon(self, key: _Key) -> None:
        key.is_dirty = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(LIMITS.ledger_flush, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self._wake.set()

    async def _run(self) -> None:
        """Runs exchanges: one for each piece of news, and one every `_BEAT` seconds while there are streams."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + _BEAT
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT):
                    await self._wake.wait()
            self._wake.clear()
            after, self._after = self._after, []
            try:
                if loop.time() >= look_at:  # also if there is news all the time
                    look_at = loop.time() + _BEAT
                    self._look()
                if self._rest is None:
                    await self._exchange()
            except Exception as bug:  # noqa: BLE001  # requests that wait for a verdict would wait forever
                self._health.broke("the limits of keys could not be shared", bug)
                self._fail()
            finally:
                _set(after)
            if self._has_news and self._health.problem is None:
                self._flush_soon()

    def _look(self) -> None:
        """Tells the streams of keys again, and forgets keys that have nothing; of many keys some each time, in turn."""
        now = self._clock()
        if not self._unseen:
            self._unseen = [*self._keys]
        some = self._unseen[-LIMITS.ledger_batch :]
        del self._unseen[-LIMITS.ledger_batch :]
        for name in some:
            key = self._keys.get(name)
            if key is None:
                pass
            elif key.is_idle(now) and self._unsent is None:  # the answer to that may admit a request
                del self._keys[name]
            elif now - key.answered_at > LIMITS.ledger_idle:
                key.is_dirty = True

    async def _exchange(self) -> None:
        """Waits for an exchange: the late one, or a new one if there is news."""
        if self._flight is None:
            self._unsent = self._unsent or self._next_batch()
            if self._unsent is None:
                return
            self._flight = self._begin(self._fly(self._unsent))
        try:
            done, _ = await asyncio.wait((self._flight,), timeout=LIMITS.ledger_wait)
            if not done:
                raise StoreError("unreachable", "the shared limits of keys do not answer in time")
            flight, self._flight = self._flight, None
            flight.result()
        except StoreError as problem:
            self._health.failed(problem)
            self._fail()

    async def _fly(self, batch: _Batch) -> None:
        """Makes an exchange, and takes the answers at once: to hand them to `_run` takes two more turns of the loop."""
        answers = await self._home.exchange(batch.number, batch.entries, [each.report for each in batch.keys])
        self._health.worked()
        if answers is not None:
            self._take(batch, answers)
        else:  # it was taken before, and what the answer admitted is unknown until the next report
            for key, _, demands, report_done in batch.keys:
                key.demands += demands
                key.report_done = key.report_done or report_done
                if report_done is not None and key.report_done is not report_done:
                    _set([report_done])
                key.is_dirty = True
        if self._home.has_forgotten:
            for key in self._keys.values():
                key.is_dirty = key.is_dirty or key.live > 0
        self._unsent = None  # not earlier: if `_take` fails, `_fail` finds the waiting demands in it
        if self._rest is not None:  # the answer was late
            self._rest.cancel()
            self._try_again()
        elif any(key.demands for key in self._keys.values()):
            self._wake.set()

    def _next_batch(self) -> _Batch | None:
        now = self._clock()
        dirty = [key for key in self._keys.values() if key.is_dirty][: LIMITS.ledger_batch]
        entries = self._book.take(LIMITS.ledger_batch)
        if not entries and not self._keys and self._health.problem is None:
            return None
        self._number += 1
        keys: list[_Reported] = []
        uncharged = self._book.by_key(self.currency)  # stays reserved until it is charged
        for key in dirty:
            waiting = [each for each in key.demands if not each.future.done()]
            age = now - key.used_at if key.requests > 0 else 0.0
            demands = [each.demand for each in waiting]
            report_done, key.report_done = key.report_done, None
            if report_done is not None and len(self._book):  # perhaps with entries of this key
                report_done, key.report_done = None, report_done
            reserved = key.reserved + uncharged.get(key.name, 0)
            reserved = min(reserved, (key.caps.spend or 0) + 1)  # fits if limits fit, also after a failure
            report = Report(key.name, key.caps, key.requests, key.tokens, age, key.live, reserved, demands)
            keys.append(_Reported(key, report, waiting, report_done))
            key.requests = key.tokens = 0
            key.demands = []
            key.is_dirty = key.report_done is not None or key.name in uncharged
        return _Batch(self._number, entries, keys)

    def _take(self, batch: _Batch, answers: Sequence[ReportAnswer | None]) -> None:
        now = self._clock()
        for (key, report, demands, report_done), answer in zip(batch.keys, answers, strict=True):
            if answer is None:
                self._decide_alone(key, demands)
                _set([report_done])
                continue
            key.used = answer.used
            key.answered_at = now
            for waiting, verdict in zip(demands, answer.verdicts, strict=True):
                self._tell(key, waiting, verdict, report.caps)
            _set([report_done])

    def _tell(self, key: _Key, waiting: _Waiting, verdict: Verdict, caps: Caps) -> None:
        future, demand = waiting.future, waiting.demand
        if verdict.place == GRANTED:
            key.live += demand.is_new and demand.is_counted
            key.reserved += verdict.reserved
            if future.done():  # its client has left
                self._undo(key, demand, verdict.reserved)
            else:
                future.set_result(verdict.reserved)
        elif future.done():
            pass
        elif demand.is_new:
            future.set_exception(self._refusal(key.name, verdict, caps))
        else:
            future.set_result(REFUSED)

    def _fail(self) -> None:
        """Decides on the requests that wait as configured: rule 4."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(LIMITS.ledger_retry, self._try_again)
        self._let_end()
        if self._unsent is not None:
            for key, _, demands, _ in self._unsent.keys:
                key.demands += [each for each in demands if not each.future.done()]
            if self._flight is None:  # otherwise a late answer may arrive, whose verdicts must be undone
                keys = [_Reported(key, sent._replace(demands=()), (), None) for key, sent, _, _ in self._unsent.keys]
                self._unsent = self._unsent._replace(keys=keys)
        for key in self._keys.values():
            key.is_dirty = key.is_dirty or key.live > 0  # the next report returns what a lost answer had admitted
            demands, key.demands = key.demands, []
            self._decide_alone(key, demands)

    def _decide_alone(self, key: _Key, demands: Sequence[_Waiting]) -> None:
        """Decides on a key's requests as configured, because the shared state is unavailable."""
        for waiting in demands:
            if waiting.future.done():
                continue
            if self._fails_open or not waiting.demand.is_new:
                waiting.future.set_result(self._use(key, waiting.demand))
            else:
                key.is_dirty = True
                waiting.refuse()

    def _try_again(self) -> None:
        self._rest = None
        self._wake.set()


def log_damaged(key: str) -> None:
    """Tells the operator that the state of a key was damaged."""
    logger.error("what key %s has used of its limits is damaged in the store: it is counted from zero again", key)


def log_damaged_sum(key: str, day: str) -> None:
    """Tells the operator that a sum of spend was damaged."""
    logger.error("the spend of %s on %s is damaged in the store: it is counted from zero again", key, day)


def _refilled(place: int, limit: int, seconds: float) -> float:
    """Returns the part of a limit over a time that is free again."""
    return seconds * limit / RATE_LIMITS[place].window


def _set(futures: Sequence[asyncio.Future[None] | None]) -> None:
    for future in futures:
        if future is not None and not future.done():
            future.set_result(None)
