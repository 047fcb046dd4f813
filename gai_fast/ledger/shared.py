"""`SharedLedger`: the ledger of a worker whose keys are used by others as well.

Owns when a request is decided here, when the shared state is asked, and what becomes of requests while that fails.

1. A worker keeps a part of each limit (`state.py`, rule 2) and decides by it at once. It reports what it has used
   `limits.ledger_flush` later, all keys in one exchange, and may then keep as much again.
2. Where what it keeps is too little, the shared state decides. The request waits for one exchange, or for a second one
   where other workers must be heard first.
3. One exchange is under way at a time, so the shared state hears of everything in order. One whose answer is lost is
   sent again with its number, and counts once.
4. Where a stream has used more tokens or spend than its worker keeps, other workers would admit too much. Such a stream
   ends for its client when the shared state has been told, and others have given back what they keep too much: its
   client may ask another worker next. It waits for others for `limits.ledger_recall` at most, for the state as long as
   requests do, and not at all while that cannot be reached.
5. While the shared state cannot be reached requests are admitted or refused, as configured; what they use is reported
   later. It is tried again every `limits.ledger_retry`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from gai_fast.ledger._base import (
    MINUTE,
    REQUESTS,
    SPEND,
    STREAMS,
    TOKENS,
    By,
    Caps,
    Left,
    Period,
    RateLeft,
    SpendEntry,
    SpendRow,
    label_of,
)
from gai_fast.ledger.book import SpendBook
from gai_fast.ledger.home import Answer, Ask, Report
from gai_fast.ledger.ledger import Ledger, Ticket, date_of, refusal
from gai_fast.ledger.limits import LIMITS
from gai_fast.ledger.state import GRANTED, UNCLEAR
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Amount
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import Health, out_of_reach

_BEAT: Final = LIMITS.ledger_gone / 4
"""Seconds between two signs of life of a worker that keeps anything."""
_PLACES: Final = (REQUESTS, TOKENS, STREAMS, SPEND)


class SharedHome(ABC):
    """The state that workers share, as one of them reaches it. `StoreError`: it cannot be reached now.

    Attributes:
        has_forgotten: The last exchange has found a state that does not know this worker any more.
    """

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
    ) -> Sequence[Answer] | None:
        """Reports, as `Home.exchange`; raises `StoreError`."""

    @abstractmethod
    async def recall(self, key: str, holders: Sequence[str], waited: float) -> None:
        """Sees to it that other workers report a key; returns when the state is worth asking again.

        Args:
            key: The key's name.
            holders: The workers.
            waited: Seconds since the request came that needs it.
        """

    @abstractmethod
    async def recalled(self) -> Sequence[str]:
        """Waits until others want keys reported; returns their names. Raises `StoreError`."""

    @abstractmethod
    async def spend(self, by: By, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend, as `Ledger.spend`; raises `StoreError`."""

    @abstractmethod
    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key in a period, as `label_of` names it; raises `StoreError`."""


class _Waiting:
    """A request that waits for its verdict."""

    __slots__ = ("asked", "future", "tokens")

    def __init__(self, tokens: int, asked: float) -> None:
        self.tokens = tokens
        self.asked = asked
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def refuse(self) -> None:
        """Answers that the limits are out of reach."""
        if not self.future.done():
            self.future.set_exception(out_of_reach("the limits"))


class _End:
    """The end of streams, which the shared state must learn: rule 4."""

    __slots__ = ("future", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def told(self) -> None:
        """Lets the streams end."""
        if not self.future.done():
            self.future.set_result(None)


class _Key:
    """This worker's part in a key: what it keeps of the limits, has used and has not reported yet.

    Attributes:
        caps: Its limits.
        spare: What the worker may use at once of each limit.
        most: The most that it was allowed to keep of each limit at a time, lately.
        requests: Requests that are not reported yet.
        tokens: Tokens that are not reported yet.
        used_at: When the last of these requests came.
        live: The worker's streams.
        is_dirty: There is something to report.
        asks: Requests that the next exchange decides on.
        ends: Ends of streams that the next exchange tells of.
        unclear: Requests that the last exchange did not decide on.
        unheard: The number of requests and ends that wait for other workers to be heard.
        used: The requests and tokens that counted for all workers at `told_at`.
        told_at: When the shared state was heard last.
    """

    def __init__(self, name: str, caps: Caps) -> None:
        self.name = name
        self.caps = caps
        self.spare = [0, 0, 0, 0]
        self.most = [0, 0, 0, 0]
        self.requests = self.tokens = self.live = 0
        self.used_at = 0.0
        self.is_dirty = False
        self.asks: list[_Waiting] = []
        self.ends: list[_End] = []
        self.unclear: list[_Waiting] = []
        self.unheard = 0
        self.used = (0.0, 0.0)
        self.told_at = 0.0

    def is_idle(self, now: float) -> bool:
        """Whether nothing of it would be missed: answers tell what counts (`Ledger.left`) until it counts no more."""
        passed = (now - self.told_at) / MINUTE
        return not (
            self.live
            or self.is_dirty
            or self.asks
            or self.ends
            or self.unheard
            or any(self.spare)
            or any(used > passed * limit for used, limit in zip(self.used, self.caps[:2], strict=True) if limit)
        )

    def give_back(self) -> None:
        """Keeps nothing any more, from the next report on, which also tells the streams again."""
        if self.live or any(self.spare):
            self.is_dirty = True
            self.spare = [0, 0, 0, 0]
        self.most = [0, 0, 0, 0]


class _Reported(NamedTuple):
    """One key in an exchange.

    Attributes:
        key: The key.
        asks: The requests that wait for a verdict.
        ends: The ends that wait for the answer.
    """

    key: _Key
    asks: Sequence[_Waiting]
    ends: Sequence[_End]


class _Batch(NamedTuple):
    """One exchange."""

    number: int
    entries: Sequence[SpendEntry]
    reports: Sequence[Report]
    keys: Sequence[_Reported]


class SharedLedger(Ledger):
    """Decides by what this worker keeps, and by the shared state.

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
        self._unseen: list[str] = []  # the keys that `_look` comes to next, the first one last
        self._book = SpendBook()  # spend that is not reported yet
        self._wake: asyncio.Event = asyncio.Event()
        self._flush: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_closed = False
        self._number = 0
        self._unsent: _Batch | None = None  # a batch whose answer was lost
        self._flight: asyncio.Task[None] | None = None  # the exchange under way
        self._after: list[asyncio.Future[None]] = []  # set at the end of the next exchange
        self._kept_until = 0.0  # what is kept counts until then, if the shared state is not heard
        self._rest: asyncio.TimerHandle | None = None  # until the shared state is tried again

    @property
    def problem(self) -> str | None:
        """Why the shared state cannot be used now; as `Ledger.problem`."""
        return None if self._health.problem is None else str(self._health.problem)

    async def open(self) -> None:
        """Begins; as `Ledger.open`."""
        await self._home.open()
        self._begin(self._run())
        self._begin(self._listen())

    async def close(self) -> None:
        """Reports what is left, for at most `limits.ledger_wait`, and ends."""
        for key in self._keys.values():
            key.give_back()
        try:
            async with asyncio.timeout(LIMITS.ledger_wait):
                while self._has_news and self._tasks and self._health.problem is None:
                    await self._exchanged()
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
            for waiting in each.asks:
                waiting.refuse()
        await self._home.close()

    async def recall(self, names: Sequence[str]) -> None:
        """Reports keys, and keeps nothing of them any more.

        Args:
            names: The keys' names.
        """
        self._give_back(names)
        await self._exchanged()

    def _give_back(self, names: Sequence[str]) -> None:
        for name in names:
            key = self._keys.get(name)
            if key is not None:
                key.give_back()
                key.is_dirty = True

    # -- limits --

    def _try(self, key: str, caps: Caps, tokens: int) -> bool:
        mine = self._key(key, caps)
        if self._health.problem is not None:
            if not self._fails_open:
                raise out_of_reach("the limits")
            self._use(mine, tokens)
            return True
        spare = mine.spare
        if (
            (caps.requests is not None and spare[REQUESTS] < 1)
            or (caps.tokens is not None and (spare[TOKENS] < tokens or not spare[TOKENS]))
            or (caps.streams is not None and spare[STREAMS] < 1)
            or (caps.spend is not None and spare[SPEND] <= 0)
            or self._clock() > self._kept_until
        ):
            return False
        is_low = False
        if caps.requests is not None:
            spare[REQUESTS] -= 1
            is_low = spare[REQUESTS] * 2 < mine.most[REQUESTS]
        if caps.tokens is not None:
            spare[TOKENS] -= tokens
            is_low = is_low or spare[TOKENS] * 2 < mine.most[TOKENS]
        if caps.streams is not None:
            spare[STREAMS] -= 1
        self._use(mine, tokens)
        if is_low:
            self._wake.set()
        return True

    def _key(self, name: str, caps: Caps) -> _Key:
        """Returns this worker's part in a key, whose limits are these from now on."""
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _Key(name, caps)
        elif key.caps is not caps:
            if key.caps[:SPEND] != caps[:SPEND] or key.caps.spend != caps.spend or key.caps.label != caps.label:
                key.give_back()  # what it keeps is part of the former limits
            key.caps = caps
        return key

    def _use(self, key: _Key, tokens: int) -> None:
        key.requests += 1
        key.tokens += tokens
        key.live += 1
        key.used_at = self._clock()
        self._note(key)

    async def _ask(self, key: str, caps: Caps, tokens: int) -> None:
        if self._has_closed:
            raise out_of_reach("the limits")
        mine = self._keys[key]
        waiting = _Waiting(tokens, self._clock())
        mine.asks.append(waiting)
        mine.is_dirty = True
        self._wake.set()
        try:
            await waiting.future
        except asyncio.CancelledError:
            future = waiting.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo(mine, tokens)  # admitted, for a client that has left
            raise

    def _undo(self, key: _Key, tokens: int) -> None:
        key.requests -= 1
        key.tokens -= tokens
        key.live -= 1
        self._note(key)

    def _return(self, ticket: Ticket) -> None:
        self._undo(self._keys[ticket.key], ticket.tokens)

    def _settle(self, ticket: Ticket, tokens: int) -> None:
        key = self._keys[ticket.key]
        key.live -= 1
        if key.spare[STREAMS] < key.most[STREAMS]:
            key.spare[STREAMS] += 1
        more = tokens - ticket.tokens
        key.tokens += more
        self._note(key)
        if more > 0:
            self._use_kept(key, TOKENS, more)
        elif more < 0 and key.caps.tokens is not None and not key.spare[TOKENS]:
            self._hold_ends(key)  # so little is left that others may refuse what this gives back

    def _left(self, key: str, caps: Caps) -> Left:
        mine = self._key(key, caps)
        requests, tokens = mine.used
        since = self._clock() - mine.told_at
        if since > LIMITS.ledger_flush:  # others may have used some: the next answer tells that
            self._note(mine)
        passed = since / MINUTE
        return Left(
            None if caps.requests is None else _left(caps.requests, requests, passed, mine.requests),
            None if caps.tokens is None else _left(caps.tokens, tokens, passed, mine.tokens),
        )

    # -- spend --

    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend; as `Ledger.charge`."""
        self._book.add(entry)
        self._flush_soon()
        key = self._keys.get(entry.key)
        if key is not None and entry.amount and entry.currency == self.currency:
            self._use_kept(key, SPEND, entry.amount)

    def reported(self, key: str) -> asyncio.Future[None] | None:
        """Returns what ends of streams wait for; as `Ledger.reported`."""
        mine = self._keys.get(key)
        return mine.ends[-1].future if mine is not None and mine.ends else None

    def _use_kept(self, key: _Key, place: int, count: int) -> None:
        """Counts what a stream has used of what this worker keeps; if that is too little, rule 4 holds."""
        if key.caps[place] is None:
            return
        left = key.spare[place] - count
        key.spare[place] = max(0, left)
        if left < 0:
            self._hold_ends(key)
        elif left * 2 < key.most[place]:
            key.is_dirty = True
            self._wake.set()

    def _hold_ends(self, key: _Key) -> None:
        """Holds the ends of streams until the shared state has been told: rule 4."""
        if self._health.problem is not None or self._has_closed:
            return
        if not key.ends:
            key.ends.append(_End(self._clock()))
        key.is_dirty = True
        self._wake.set()

    def _let_end(self) -> None:
        """Lets all streams end that are held."""
        if self._unsent is not None:
            for reported in self._unsent.keys:
                for end in reported.ends:
                    end.told()
            self._unsent = self._unsent._replace(keys=[each._replace(ends=()) for each in self._unsent.keys])
        for key in self._keys.values():
            ends, key.ends = key.ends, []
            for end in ends:
                end.told()

    async def spend(self, by: By, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend; as `Ledger.spend`."""
        await self._report_spend()
        return await self._home.spend(by, since, until)

    async def spent(self, key: str, period: Period) -> Amount:
        """Returns the spend of a key; as `Ledger.spent`."""
        await self._report_spend()
        return await self._home.spent(key, label_of(period, date_of(self._wall()), self.currency))

    async def _report_spend(self) -> None:
        """Reports what this worker has spent.

        Raises:
            StoreError: It cannot be.
        """
        if len(self._book) or self._unsent is not None:
            await self._exchanged()
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

    def _note(self, key: _Key) -> None:
        key.is_dirty = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(LIMITS.ledger_flush, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self._wake.set()

    async def _exchanged(self) -> None:
        """Waits for the end of an exchange that begins after now, whether it succeeds or not.

        After `close` there is none, and nothing to wait for.
        """
        if self._has_closed:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._after.append(done)
        self._wake.set()
        await done

    async def _run(self) -> None:
        """Exchanges whenever there is news, and now and then while anything is kept."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + _BEAT
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT):
                    await self._wake.wait()
            self._wake.clear()
            after, self._after = self._after, []
            try:
                if loop.time() >= look_at:  # also where there is news all the time
                    look_at = loop.time() + _BEAT
                    self._look()
                if self._rest is None:
                    await self._exchange()
            except Exception as bug:  # noqa: BLE001  # requests that wait for a verdict would wait for ever
                self._health.broke("the limits of keys could not be shared", bug)
                self._fail()
            finally:
                _set(after)
            if self._has_news and self._health.problem is None:
                self._flush_soon()

    def _look(self) -> None:
        """Gives back what nobody uses, and forgets keys that have nothing; of many keys some each time, in turn."""
        now = self._clock()
        if not self._unseen:
            self._unseen = [*self._keys]
        some = self._unseen[-LIMITS.ledger_batch :]
        del self._unseen[-LIMITS.ledger_batch :]
        for name in some:
            key = self._keys.get(name)
            if key is None:
                pass
            elif key.is_idle(now) and self._unsent is None:  # the answer to that may let the key keep something
                del self._keys[name]
            elif now - key.told_at > LIMITS.ledger_idle:
                if now - key.used_at > LIMITS.ledger_idle:
                    key.give_back()
                key.is_dirty = True  # Redis forgets a key that is not heard of for long

    async def _exchange(self) -> None:
        """Waits for an exchange: the one that is late, or a new one where there is news."""
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
        began = self._clock()
        answers = await self._home.exchange(batch.number, batch.entries, batch.reports)
        self._health.worked()
        self._kept_until = began + LIMITS.ledger_gone / 2
        if answers is not None:
            self._take(batch, answers)
        else:  # it was taken before, and what the answer let this worker keep is not known: the next report tells
            for key, asks, ends in batch.keys:
                key.asks += asks
                key.ends += ends
                key.is_dirty = True
        if self._home.has_forgotten:
            for key in self._keys.values():
                key.give_back()
        self._unsent = None  # not before: where `_take` fails, `_fail` finds in it those that wait
        if self._rest is not None:  # the answer was late
            self._rest.cancel()
            self._try_again()
        elif any(key.asks for key in self._keys.values()):
            self._wake.set()

    def _next_batch(self) -> _Batch | None:
        now = self._clock()
        if now > self._kept_until:
            for key in self._keys.values():
                key.give_back()
        dirty = [key for key in self._keys.values() if key.is_dirty][: LIMITS.ledger_batch]
        entries = self._book.take(LIMITS.ledger_batch)
        if not entries and not self._keys and self._health.problem is None:
            return None
        self._number += 1
        reports: list[Report] = []
        keys: list[_Reported] = []
        for key in dirty:
            waiting = [each for each in key.asks if not each.future.done()]
            if waiting:
                key.spare = [0, 0, 0, 0]
            requests, tokens, streams, spend = (max(0, each) for each in key.spare)
            age = now - key.used_at if key.requests > 0 else 0.0
            questions = [
                Ask(each.tokens, now - each.asked, now - each.asked >= SHARED.ledger_recall) for each in waiting
            ]
            kept = (requests, tokens, streams, spend)
            wants_more = bool(waiting or key.requests > 0 or key.spare[SPEND] < key.most[SPEND])
            reports.append(
                Report(key.name, key.caps, kept, key.requests, key.tokens, age, key.live, questions, wants_more)
            )
            ends, key.ends = key.ends, []
            if len(self._book):  # perhaps with entries of this key
                ends, key.ends = key.ends, ends
            keys.append(_Reported(key, waiting, ends))
            key.requests = key.tokens = 0
            key.asks = []
            key.is_dirty = bool(key.ends)
        return _Batch(self._number, entries, reports, keys)

    def _take(self, batch: _Batch, answers: Sequence[Answer]) -> None:
        now = self._clock()
        for (key, asks, ends), report, answer in zip(batch.keys, batch.reports, answers, strict=True):
            key.used = answer.used
            key.told_at = now
            for place in _PLACES:
                if answer.more[place]:
                    key.spare[place] += answer.more[place]
                    key.most[place] = key.spare[place]
            # Streams have used too much since the report, or may have: no end waits while answers are late. What the
            # answer lets the worker keep may be that.
            if key.ends or self._rest is not None:
                key.give_back()
            for waiting, (verdict, wait) in zip(asks, answer.verdicts, strict=True):
                self._tell(key, waiting, verdict, wait, report.caps)
            held = [end for end in ends if answer.holders and now - end.since < SHARED.ledger_recall]
            for end in ends:
                if end not in held:
                    end.told()
            if key.unclear or held:
                unclear, key.unclear = key.unclear, []
                key.unheard += len(unclear) + len(held)
                self._begin(self._hear(key, unclear, held, answer.holders))

    def _tell(self, key: _Key, waiting: _Waiting, verdict: int, wait: float, caps: Caps) -> None:
        future = waiting.future
        if verdict == GRANTED:
            key.live += 1
            if future.done():  # its client has left
                self._undo(key, waiting.tokens)
            else:
                future.set_result(None)
        elif future.done():
            pass
        elif verdict == UNCLEAR:
            key.unclear.append(waiting)
        else:
            future.set_exception(refusal(verdict, wait, caps))

    async def _hear(self, key: _Key, unclear: Sequence[_Waiting], ends: Sequence[_End], holders: Sequence[str]) -> None:
        """Has other workers report a key, and asks again for the requests and ends that wait for that."""
        since = min([*[each.asked for each in unclear], *[each.since for each in ends]])
        try:
            await self._home.recall(key.name, holders, self._clock() - since)
        except StoreError as problem:
            self._health.failed(problem)
        finally:
            key.unheard -= len(unclear) + len(ends)
            key.asks += unclear
            key.ends += ends
            key.is_dirty = True
            self._wake.set()
            if self._health.problem is not None:
                self._let_end()

    def _fail(self) -> None:
        """Decides on the requests that wait as configured: rule 4."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(LIMITS.ledger_retry, self._try_again)
        self._let_end()
        if self._unsent is not None:
            for key, asks, _ in self._unsent.keys:
                key.asks += [each for each in asks if not each.future.done()]
            if self._flight is None:  # else an answer may yet come, whose verdicts must be taken back
                self._unsent = _without_asks(self._unsent)
        for key in self._keys.values():
            key.give_back()
            asks, key.asks = key.asks, []
            for waiting in asks:
                if waiting.future.done():
                    continue
                if self._fails_open:
                    self._use(key, waiting.tokens)
                    waiting.future.set_result(None)
                else:
                    waiting.refuse()

    def _try_again(self) -> None:
        self._rest = None
        self._wake.set()

    async def _listen(self) -> None:
        """Reports the keys that other workers ask about."""
        while True:
            try:
                self._give_back(await self._home.recalled())
            except StoreError:
                await asyncio.sleep(LIMITS.ledger_retry)
            except Exception as bug:  # noqa: BLE001  # other workers would not be heard any more
                self._health.broke("the keys that other workers ask about could not be reported", bug)
                self._wake.set()  # the next exchange tells whether the state can be reached
                await asyncio.sleep(LIMITS.ledger_retry)
            else:
                self._wake.set()


def _set(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _without_asks(batch: _Batch) -> _Batch:
    reports = [report._replace(asks=()) for report in batch.reports]
    return _Batch(batch.number, batch.entries, reports, [_Reported(each.key, (), ()) for each in batch.keys])


def _left(limit: int, used: float, passed: float, new: int) -> RateLeft:
    """Returns the rest of a limit.

    Args:
        limit: Uses a minute.
        used: Uses that counted when the shared state was heard last.
        passed: Minutes since then.
        new: Uses since then; below zero: they were given back.
    """
    now = max(0.0, max(0.0, used - passed * limit) + new)
    return RateLeft(limit, max(0, int(limit - now + 1e-5)), now * MINUTE / limit if limit else 0.0)
