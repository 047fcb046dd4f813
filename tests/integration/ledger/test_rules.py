"""The rules of counting, which `redis.lua` says a second time: each store answers as the states in memory do.

Every limit, count and moment of a trace is a sum of powers of two, which no clock rounds. So answers are equal to the
last bit: the verdict, the limit that refuses, the wait, what is reserved, and what counts; the errors and the headers
of a reply follow from these alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gai_fast.ledger import SharedHome, SpendEntry, redis, sqlite
from gai_fast.ledger._base import GRANTED, NAMES, SPEND, Caps, Demand, Reservation
from gai_fast.ledger.book import SpendBook
from gai_fast.ledger.home import Home, Report, ReportAnswer
from gai_fast.ledger.redis import RedisHome
from gai_fast.ledger.sqlite import SQLiteHome
from gai_fast.model.settings import RATE_LIMITS
from gai_fast.stores.redis_client import Script
from tests.conftest import ChangeLimits
from tests.integration.stores.servers import RedisServer
from tests.key_limits import caps_of

TOKENS = {place for place, limit in enumerate(RATE_LIMITS) if limit.counts == "tokens"}
DAYS = ("2026-11-21", "2026-11-22")
KEYS = ("ann", "bob", "cy", "dee")
LABELS = ("d2026-11-21 USD", "d2026-11-22 USD", "m2026-11 USD", "t USD")
GONE = 4096.0
"""Seconds after which a worker is gone: longer than any run, in which Redis's own clock goes on."""
TICK = 1 / 64
STEPS = (0.0, 0.0, TICK, 0.5, 2.0, 7.25, 61.0, GONE + 1)
STEPS_BACK = (TICK, 3.0, 90.0, GONE, 2 * GONE)


class Clock:
    """The clock of a store; takes the place of the module `time` in `sqlite.py`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


class Store:
    """A store whose clock the test sets.

    Attributes:
        clock: Its clock.
        first: Its first moment.
        charges_look: Whether a charge looks at the state of its key, and not only a report.
        ends_with_machine: Whether its clock goes back only if the machine is started again.
    """

    clock: Clock
    first: float
    charges_look: bool
    ends_with_machine: bool

    def home(self) -> SharedHome:
        """Returns the home of another worker."""
        raise NotImplementedError

    def set_clock(self, now: float) -> None:
        """Sets the clock."""
        self.clock.now = now


class SQLiteStore(Store):
    charges_look = True
    ends_with_machine = True

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self.first = 2.0**30
        self.clock = Clock(self.first)
        monkeypatch.setattr(sqlite, "time", self.clock)
        # While the clock is ahead, keys are idle that nobody asks about: the memory's would not know.
        monkeypatch.setattr(SQLiteHome, "_drop_idle", lambda *_: None)

    def home(self) -> SharedHome:
        return SQLiteHome(self._path)


class RedisStore(Store):
    charges_look = False
    ends_with_machine = False

    def __init__(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server = server
        self.first = 1.8e9
        self.clock = Clock(self.first)
        self.set_clock(self.first)
        asked = "redis.call('TIME')"
        assert redis._SCRIPT.text.count(asked) == 1
        script = Script(redis._SCRIPT.text.replace(asked, "{redis.call('GET', 'clock'), '0'}"))
        monkeypatch.setattr(redis, "_SCRIPT", script)

    def home(self) -> SharedHome:
        return RedisHome(self._server.url)

    def set_clock(self, now: float) -> None:
        super().set_clock(now)
        self._server.command("SET", "clock", repr(now))


class _Key:
    """A key in memory: its state, whose clock stands still while the store's comes to the same moments again."""

    def __init__(self) -> None:
        self.home = Home(lambda: self.now)
        self.now = 2.0**20
        self.seen: float | None = None


class Memory:
    """The states in memory, as they are asked beside a store.

    Its keys have a `Home` each, since a store learns that its clock was set back from each key's record.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, _Key] = {}
        self._heard: dict[str, float] = {}
        self._numbers: dict[str, int] = {}
        self.has_forgotten = False
        self.book = SpendBook()

    def exchange(
        self, worker: str, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> list[ReportAnswer] | None:
        now = self._store.clock.now
        self.has_forgotten = number > 1 and abs(now - self._heard.get(worker, now)) > GONE
        self._heard[worker] = now
        if self._numbers.get(worker, 0) >= number:
            return None
        self._numbers[worker] = number
        for entry in entries:
            self.book.add(entry)
            key = self._key(entry.key)
            if self._store.charges_look:
                self._look_at(key)
            key.home.charge(entry)
        answers = []
        for report in reports:
            key = self._key(report.key)
            self._look_at(key)
            (answer,) = key.home.exchange(worker, number, [], [report]) or ()
            answers.append(answer)
        return answers

    def spent(self, key: str, label: str) -> int:
        return self._key(key).home.state(key).spent.get(label, 0)

    def reset(self, key: str, labels: Sequence[str]) -> None:
        found = self._key(key)
        if self._store.charges_look:
            self._pass_time(found)
        found.home.state(key).reset(labels)

    def forget(self, worker: str) -> None:
        self._heard.pop(worker, None)
        for key in self._keys.values():
            key.home.forget(worker)

    def _key(self, name: str) -> _Key:
        return self._keys.setdefault(name, _Key())

    def _pass_time(self, key: _Key) -> None:
        now = self._store.clock.now
        if key.seen is not None:
            key.now += max(0.0, now - key.seen)
        key.seen = now

    def _look_at(self, key: _Key) -> None:
        self._pass_time(key)
        now = self._store.clock.now
        for worker, heard in self._heard.items():
            if abs(now - heard) > GONE:
                key.home.forget(worker)


@dataclass
class Stream:
    """A stream under way: the tokens that were counted for it, and what is reserved."""

    tokens: int
    reserved: int


@dataclass
class Part:
    """A worker's part in a key, as `SharedLedger` keeps it."""

    streams: list[Stream] = field(default_factory=list)
    requests: int = 0
    tokens: int = 0
    age: float = 0.0


class Worker:
    """A worker that takes, grows, settles and gives back at random, and tells the store."""

    def __init__(self, name: str, home: SharedHome, chance: random.Random) -> None:
        self.name = name
        self.home = home
        home.worker = name
        self.number = 0
        self._chance = chance
        self.parts: dict[str, Part] = {}

    def report(self, key: str, caps: Caps) -> Report:
        """Ends or gives back some streams, asks for some, and returns what there is to tell."""
        chance, part = self._chance, self.parts.setdefault(key, Part())
        while part.streams and chance.random() < 0.4:
            stream = part.streams.pop(chance.randrange(len(part.streams)))
            if chance.random() < 0.3:  # its client has left before it began
                part.requests -= 1
                part.tokens -= stream.tokens
            else:
                part.tokens += chance.choice([0, stream.tokens // 2, 3 * stream.tokens + 16]) - stream.tokens
        if chance.random() < 0.1:  # admitted while the store was out of reach
            part.requests += 1
            part.tokens += 8
            part.age = chance.choice([0.0, TICK, 30.0])
            part.streams.append(Stream(8, 0))
        demands = [self._demand(part) for _ in range(chance.randrange(4))]
        reserved = sum(each.reserved for each in part.streams)
        age = part.age if part.requests > 0 else 0.0
        sent = Report(key, caps, part.requests, part.tokens, age, len(part.streams), reserved, demands)
        part.requests = part.tokens = 0
        return sent

    def _demand(self, part: Part) -> Demand:
        chance = self._chance
        least = chance.choice([0, 1, 10**6, 10**10])
        wanted = Reservation(least, least + chance.choice([0, 10**10, 10**11]))
        if chance.random() < (0.3 if part.streams else 0.05):  # half of them for another turn of a run
            turn = chance.choice([0, 0, 0, 1, 60, 2048])
            return Demand(turn, wanted, is_new=False, expected=chance.choice([0, turn // 2, turn]))
        if chance.random() < 0.1:  # another worker's, which is gone, or is taken for that
            worker = f"w{chance.randrange(1, 7)}"
            if chance.random() < 0.3:
                return Demand(taken_from=worker, asks_later=True)
            return Demand(0, wanted, taken_from=worker)
        tokens = chance.choice([0, 1, 7, 60, 512, 2048])
        expected = chance.choice([0, tokens // 2, tokens])
        return Demand(tokens, wanted, expected=expected, is_counted=chance.random() < 0.85)

    def take(self, report: Report, answer: ReportAnswer) -> None:
        """Takes the verdicts on what it has asked for."""
        part = self.parts[report.key]
        for demand, verdict in zip(report.demands, answer.verdicts, strict=True):
            if verdict.place != GRANTED or not demand.is_counted:
                continue
            if demand.is_new:
                part.streams.append(Stream(min(demand.tokens, report.caps.tokens or 0), verdict.reserved))
            else:
                tokens = min(demand.tokens, report.caps.tokens or 0)
                if not part.streams:  # it has ended meanwhile
                    part.tokens -= tokens
                    continue
                part.streams[-1].tokens += tokens
                part.streams[-1].reserved += verdict.reserved


def some_caps(chance: random.Random) -> Caps:
    return caps_of(
        chance.choice([None, None, 0, 15, 30, 60]),
        chance.choice([None, None, 0, 480, 1920]),
        chance.choice([None, None, 0, 1, 3, 8]),
        *chance.choice([(None, "")] * 2 + [(0, "t USD")] + [(10**11, label) for label in LABELS]),
    )


@pytest.fixture(params=["redis", "sqlite"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> Store:
    change_limits(ledger_gone=GONE)
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "gai-fast.db", monkeypatch)
    return RedisStore(request.getfixturevalue("redis_server"), monkeypatch)


class Trace:
    """One random trace of three workers and four keys, whose limits change."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.memory = Memory(store)
        self.chance = random.Random(seed)
        self.workers: list[Worker] = []
        self.caps: dict[str, Caps] = {}
        self.begun = 0
        self.refused: set[int] = set()
        self.turns: set[int] = set()  # what was said of further turns

    async def begin(self, place: int) -> None:
        """Begins a worker in a place."""
        self.begun += 1
        worker = Worker(f"w{self.begun}", self.store.home(), self.chance)
        await worker.home.open()
        self.workers[place : place + 1] = [worker]

    async def run(self, steps: int) -> None:
        for place in range(3):
            await self.begin(place)
        for step in range(steps):
            self.store.set_clock(self.store.clock.now + self.chance.choice(STEPS))
            match self.chance.randrange(25):
                case 0:
                    await self.replace_worker()
                case 1:
                    await self.reset()
                case 2:
                    await self.set_back()
                case _:
                    await self.exchange(step)
        for worker in self.workers:
            await worker.home.close()

    async def exchange(self, step: int) -> None:
        chance, worker = self.chance, self.chance.choice(self.workers)
        reports = []
        for key in chance.sample(KEYS, chance.randrange(1, 4)):
            if key not in self.caps or chance.random() < 0.05:
                self.caps[key] = some_caps(chance)
            reports.append(worker.report(key, self.caps[key]))
        entries = []
        while chance.random() < 0.2:
            key = chance.choice(KEYS)
            entries.append(SpendEntry(key, "m", "up", chance.choice(DAYS), "USD", chance.choice([1, 10**9, 10**10])))
        worker.number += 1
        expected = self.memory.exchange(worker.name, worker.number, entries, reports)
        got = await worker.home.exchange(worker.number, entries, reports)
        assert expected is not None
        assert got is not None
        assert worker.home.has_forgotten == self.memory.has_forgotten, step
        for report, one, other in zip(reports, got, expected, strict=True):
            assert one == other, (step, report)
        for report, answer in zip(reports, expected, strict=True):
            worker.take(report, answer)
            for demand, verdict in zip(report.demands, answer.verdicts, strict=True):
                self.refused.add(verdict.place)
                if demand.tokens and not demand.is_new:
                    self.turns.add(verdict.place)
        if chance.random() < 0.1:  # as if the answer had been lost
            self.store.set_clock(self.store.clock.now + chance.choice([0.0, 1.0, GONE + 1]))
            if chance.random() < 0.5:
                await self.exchange(step)  # perhaps another worker's, which finds this one gone
            assert self.memory.exchange(worker.name, worker.number, entries, reports) is None
            assert await worker.home.exchange(worker.number, entries, reports) is None, step
            assert worker.home.has_forgotten == self.memory.has_forgotten, step

    async def replace_worker(self) -> None:
        """Ends a worker, and begins another."""
        place = self.chance.randrange(3)
        await self.workers[place].home.close()
        self.memory.forget(self.workers[place].name)
        await self.begin(place)

    async def reset(self) -> None:
        key = self.chance.choice(KEYS)
        labels = self.chance.sample(LABELS, 2)
        self.memory.reset(key, labels)
        await self.workers[0].home.reset(key, labels)

    async def set_back(self) -> None:
        """Sets the clock back, or starts the machine again, which no worker outlives."""
        if self.store.ends_with_machine:
            self.store.first -= 16 * GONE
            self.store.set_clock(self.store.first)
            for place, worker in enumerate(self.workers):
                self.memory.forget(worker.name)
                await self.begin(place)
        else:
            self.store.set_clock(self.store.clock.now - self.chance.choice(STEPS_BACK))


@pytest.mark.parametrize("seed", range(4))
async def test_a_store_answers_as_memory_does(store: Store, seed: int) -> None:
    trace = Trace(store, seed)
    await trace.run(400)
    assert trace.refused == {GRANTED, *range(len(NAMES))}, "the trace says nothing of a limit that refused nothing"
    assert {GRANTED, *TOKENS} <= trace.turns <= {GRANTED, *TOKENS, SPEND}
    home = store.home()
    await home.open()
    assert await home.spend("key", None, None) == trace.memory.book.rows("key", None, None)
    assert await home.spend("day", DAYS[1], None) == trace.memory.book.rows("day", DAYS[1], None)
    for key in trace.caps:
        for label in LABELS:
            assert await home.spent(key, label) == trace.memory.spent(key, label)
    await home.close()
