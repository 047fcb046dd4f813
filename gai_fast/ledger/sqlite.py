"""`sqlite:///…`: the limits and the spend of keys in a file, for the workers of one machine.

Owns the tables, which are beside those of streams. An exchange is one transaction; it reads the states of its keys,
changes them by the rules of `state.py`, and writes them back.

Time is the monotonic one, which the processes of a machine share. After a restart of the machine it is behind the times
in the file: what counted then counts from now on.
"""

from __future__ import annotations

import math
import re
import secrets
import sqlite3
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gai_fast.ledger._base import DAY, GroupBy, SpendEntry, SpendRow, labels_of
from gai_fast.ledger.book import Sums, days_between, oldest_day
from gai_fast.ledger.home import Report, ReportAnswer, answer
from gai_fast.ledger.limits import LIMITS
from gai_fast.ledger.shared import FIRST, SharedHome, log_damaged, log_damaged_sum
from gai_fast.ledger.state import Holder, KeyState, Rate
from gai_fast.model.limits import OTHER
from gai_fast.model.money import Amount
from gai_fast.model.settings import RATE_LIMITS, StoreSettings, figure_label
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import logger
from gai_fast.stores.sqlite import SQLiteBackend

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS limit_keys (key TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS limit_workers"
    " (worker TEXT PRIMARY KEY, heard REAL NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID",
    # Amounts are texts: a sum may need more than 64 bits.
    "CREATE TABLE IF NOT EXISTS spend (day TEXT, key TEXT, model TEXT, upstream TEXT, currency TEXT,"
    " amount TEXT NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (day, key, model, upstream, currency))"
    " WITHOUT ROWID",
)
_Written = tuple[
    float,
    tuple[tuple[float, int], ...],
    dict[str, tuple[int, Amount]],
    dict[str, Amount],
]
"""A row of `limit_keys`: when it was written, the rates, the holders and the spend of a `KeyState`."""
_PREFIX: Final = "sqlite:///"
_COUNTED: Final = 64
"""One part in so many of a day's free rows is used before they are counted again: other processes use some, too."""
_FULL: Final = -1
"""The room of a day that gets no other row."""
_AMOUNT: Final = re.compile("-?[0-9]{1,40}")
"""An amount as it is written: a sum of 100 million of a currency has 20 digits."""


class SQLiteHome(SharedHome):
    """The state of keys in a file.

    Args:
        path: The file of the store.
    """

    def __init__(self, path: Path) -> None:
        self._backend = SQLiteBackend(path)
        self.worker = secrets.token_hex(8)
        self._swept = ""  # the day for which old spend was dropped
        self._room = ("", 0)  # a day, and the rows that it may get before they are counted
        self._looked_at = ""  # the last key by `_drop_idle`

    async def open(self) -> None:
        """Opens the file, and makes the tables; as `SQLiteBackend.open`."""
        await self._backend.open()
        await self._backend.transact(_make_tables)

    async def close(self) -> None:
        """Returns this worker's reservations, and closes the file."""
        try:
            await self._backend.transact(lambda connection: _forget(connection, self.worker))
        except StoreError:
            pass  # it counts as gone `limits.ledger_gone` from now
        finally:
            await self._backend.close()

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer | None] | None:
        """Reports; as `SharedHome.exchange`."""
        return await self._backend.transact(lambda connection: self._exchange(connection, number, entries, reports))

    async def spend(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend; as `SharedHome.spend`."""
        return await self._backend.look(lambda connection: _spend(connection, by, since, until))

    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key; as `SharedHome.spent`."""
        now = time.monotonic()
        state, _ = await self._backend.look(lambda connection: _state(connection, key, now))
        return state.spent.get(label, 0)

    async def reset(self, key: str, labels: Sequence[str]) -> None:
        """Counts from zero again; as `SharedHome.reset`."""
        now = time.monotonic()

        def reset(connection: sqlite3.Connection) -> None:
            state, _ = _state(connection, key, now)
            state.reset(labels)
            _save(connection, key, state, now)

        await self._backend.transact(reset)

    # -- in the threads of the file --

    def _exchange(
        self, connection: sqlite3.Connection, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer | None] | None:
        now = time.monotonic()
        me = self.worker
        find = "SELECT number, heard FROM limit_workers WHERE worker = ?"
        last, heard = connection.execute(find, (me,)).fetchone() or (0, -math.inf)
        last = last if isinstance(last, int) else 0  # else its row is damaged
        is_heard = isinstance(heard, float) and now - LIMITS.ledger_gone <= heard <= now
        self.has_forgotten = number > FIRST and not is_heard
        connection.execute("INSERT OR REPLACE INTO limit_workers VALUES (?, ?, ?)", (me, now, max(last, number)))
        if last >= number:
            return None
        living = _living(connection, now)
        states: dict[str, KeyState] = {}
        damaged: set[str] = set()

        def state_of(key: str) -> KeyState:
            state = states.get(key)
            if state is None:
                state, is_damaged = _state(connection, key, now)
                if is_damaged:
                    log_damaged(key)
                    damaged.add(key)
                states[key] = state
                for worker in [worker for worker in state.holders if worker not in living]:
                    state.forget(worker)
            return state

        for entry in entries:
            state_of(entry.key).charge(entry.day, entry.currency, entry.amount)
            self._add(connection, entry)
        answers = [self._answer(state_of(report.key), report, damaged, now) for report in reports]
        for key, state in states.items():
            _save(connection, key, state, now)
        self._drop_idle(connection, len(states) + 1, living, now)
        return answers

    def _drop_idle(self, connection: sqlite3.Connection, count: int, living: set[str], now: float) -> None:
        """Looks at the next keys, more than were written, and drops those that have nothing: callers come and go."""
        find = "SELECT key FROM limit_keys WHERE key > ? ORDER BY key LIMIT ?"
        keys = [key for (key,) in connection.execute(find, (self._looked_at, count))]
        self._looked_at = keys[-1] if len(keys) == count else ""
        for key in keys:
            state = _load(connection, key, now)
            if state is not None:
                for worker in state.holders.keys() - living:
                    state.forget(worker)
                if state.is_idle(now):
                    connection.execute("DELETE FROM limit_keys WHERE key = ?", (key,))

    def _answer(self, state: KeyState, report: Report, damaged: Container[str], now: float) -> ReportAnswer | None:
        if report.key not in damaged:
            return answer(state, self.worker, report, now)
        answer(state, self.worker, report._replace(demands=()), now)
        return None

    def _add(self, connection: sqlite3.Connection, entry: SpendEntry) -> None:
        if entry.day != self._swept:
            self._swept = entry.day
            _drop_old(connection, entry.day)
        place = (entry.day, entry.key, entry.model, entry.upstream, entry.currency)
        known = _sums(connection, place)
        if known is None and not self._has_room(connection, entry.day):
            place = (entry.day, figure_label(entry.key), OTHER, OTHER, entry.currency)
            known = _sums(connection, place)
        amount, requests = known or (0, 0)
        values = (*place, str(amount + entry.amount), requests + entry.requests)
        connection.execute("INSERT OR REPLACE INTO spend VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def _has_room(self, connection: sqlite3.Connection, day: str) -> bool:
        """Returns whether a day may have another row; if so, counts the row.

        Counting the rows of a full day takes some 20 ms, so it is done after each `_COUNTED` part of the free ones.
        """
        counted, room = self._room
        if counted != day or room == 0:
            (count,) = connection.execute("SELECT COUNT(*) FROM spend WHERE day = ?", (day,)).fetchone()
            left = LIMITS.spend_entries - count
            room = -(-left // _COUNTED) if left > 0 else _FULL
        self._room = day, room if room == _FULL else room - 1
        return room != _FULL


def open_home(settings: StoreSettings) -> SQLiteHome:
    """Makes the home of a configuration."""
    return SQLiteHome(Path(settings.url.removeprefix(_PREFIX)))


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


def _living(connection: sqlite3.Connection, now: float) -> set[str]:
    """Returns the workers that are not gone. Forgets those from before the machine was started again.

    The number of a worker that is gone is kept as long as the spend that it has counted: it may only have stood still,
    and sends its last exchange again.
    """
    kept = now - LIMITS.spend_days * DAY
    connection.execute("DELETE FROM limit_workers WHERE NOT heard BETWEEN ? AND ?", (kept, now))
    living = "SELECT worker FROM limit_workers WHERE heard >= ?"
    return {worker for (worker,) in connection.execute(living, (now - LIMITS.ledger_gone,))}


def _forget(connection: sqlite3.Connection, worker: str) -> None:
    connection.execute("DELETE FROM limit_workers WHERE worker = ?", (worker,))


def _drop_old(connection: sqlite3.Connection, day: str) -> None:
    """Drops the spend of days that are too old, by the last day before this one: a clock that was set years ahead, as
    at the start of a machine, would else drop all of it.
    """
    (last,) = connection.execute("SELECT MAX(day) FROM spend WHERE day < ?", (day,)).fetchone()
    if last is not None:
        connection.execute("DELETE FROM spend WHERE day < ?", (oldest_day(last),))


def _figures(amount: object, requests: object) -> tuple[Amount, int] | None:
    """Returns the figures of a row. None if it is damaged: SQLite may find a value of any type in it."""
    if isinstance(amount, str) and _AMOUNT.fullmatch(amount) and isinstance(requests, int):
        return int(amount), requests
    return None


def _sums(connection: sqlite3.Connection, place: tuple[str, ...]) -> tuple[Amount, int] | None:
    """Returns the figures of a sum. None if it is not there yet, or is damaged."""
    find = (
        "SELECT amount, requests FROM spend WHERE day = ? AND key = ? AND model = ? AND upstream = ? AND currency = ?"
    )
    row = connection.execute(find, place).fetchone()
    if row is None:
        return None
    figures = _figures(*row)
    if figures is None:
        log_damaged_sum(place[1], place[0])
    return figures


def _spend(connection: sqlite3.Connection, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
    """Adds up in the thread of the file: 210,000 rows take half a second, in which the loop serves.

    A damaged row is left out, so that the others are reported.
    """
    find = "SELECT key, model, upstream, day, currency, amount, requests FROM spend WHERE day BETWEEN ? AND ?"
    found = connection.execute(find, days_between(since, until))
    damaged = 0

    def entries() -> Iterator[SpendEntry]:
        nonlocal damaged
        for key, model, upstream, day, currency, amount, requests in found:
            figures = _figures(amount, requests)
            if figures is None:
                damaged += 1
            else:
                yield SpendEntry(key, model, upstream, day, currency, *figures)

    sums = Sums(by)
    sums.add(entries())
    if damaged:
        logger.error("%d sums of spend in the store are damaged, and are not in the report", damaged)
    return sums.rows()


def _written(state: KeyState, now: float) -> bytes:
    rates = [(rate.tat, rate.limit) for rate in state.rates]
    holders = {name: (holder.live, str(holder.reserved)) for name, holder in state.holders.items()}
    spent = {label: str(amount) for label, amount in state.spent.items()}
    return msgspec.json.encode((now, rates, holders, spent))


def _save(connection: sqlite3.Connection, key: str, state: KeyState, now: float) -> None:
    connection.execute("INSERT OR REPLACE INTO limit_keys VALUES (?, ?)", (key, _written(state, now)))


def _state(connection: sqlite3.Connection, key: str, now: float) -> tuple[KeyState, bool]:
    """Returns the state of a key, and whether its record is damaged: then all but its spend is counted from zero."""
    state = _load(connection, key, now)
    if state is not None:
        return state, False
    state = KeyState()
    state.spent = _summed_up(connection, key)
    return state, True


def _summed_up(connection: sqlite3.Connection, key: str) -> dict[str, Amount]:
    """Returns the spend of a key by period, from the sums of its days: its own record is damaged."""
    spent: dict[str, Amount] = {}
    find = "SELECT day, currency, amount, requests FROM spend WHERE key = ?"
    for day, currency, amount, requests in connection.execute(find, (key,)):
        figures = _figures(amount, requests)
        if figures is not None:
            for label in labels_of(day, currency).values():
                spent[label] = spent.get(label, 0) + figures[0]
    return spent


def _load(connection: sqlite3.Connection, key: str, now: float) -> KeyState | None:
    """Returns the state of a key. None if its record is damaged."""
    state = KeyState()
    row = connection.execute("SELECT state FROM limit_keys WHERE key = ?", (key,)).fetchone()
    if row is None:
        return state
    try:
        written, rates, holders, spent = msgspec.json.decode(row[0], type=_Written, strict=False)  # amounts are texts
    except (msgspec.DecodeError, ValueError, TypeError):  # SQLite may find a value of any type in a damaged row
        return None
    back = max(0.0, written - now)  # above 0 if the machine was started again
    # A release that had fewer limits, or more, has written fewer rates, or more.
    for place, (kind, (tat, limit)) in enumerate(zip(RATE_LIMITS, rates, strict=False)):
        state.rates[place] = Rate(kind, tat - back, limit)
    if not back:
        state.holders = {name: Holder(*held) for name, held in holders.items()}
    state.spent = spent
    return state
