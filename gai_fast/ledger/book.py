"""`SpendBook`: the spend of keys, models, upstreams and days, in memory.

Owns how much of it is kept. Sums are integers, and so exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from itertools import islice
from operator import attrgetter

from gai_fast.ledger._base import GroupBy, SpendEntry, SpendRow
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.limits import OTHER
from gai_fast.model.money import Amount
from gai_fast.model.settings import figure_label


class SpendBook:
    """Adds up entries."""

    def __init__(self) -> None:
        # By day, as most reports are of one: then by key, model, upstream and currency.
        self._days: dict[str, dict[tuple[str, str, str, str], tuple[Amount, int]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, entry: SpendEntry) -> None:
        """Adds an entry. Above `limits.spend_entries` a new one counts for `OTHER`, after the oldest days were removed.

        Then an issuer's callers count as the issuer, which has any number of callers.
        """
        sums = self._days.setdefault(entry.day, {})
        place = (entry.key, entry.model, entry.upstream, entry.currency)
        if place not in sums and self._count >= LIMITS.spend_entries:
            self._drop_before(entry.day)
            if self._count >= LIMITS.spend_entries:
                place = (figure_label(entry.key), OTHER, OTHER, entry.currency)
        if place not in sums:
            self._count += 1
        amount, requests = sums.get(place, (0, 0))
        sums[place] = (amount + entry.amount, requests + entry.requests)

    def take(self, most: int) -> list[SpendEntry]:
        """Takes entries out of the book, the oldest ones first.

        Args:
            most: Their greatest number.
        """
        taken: list[SpendEntry] = []
        for day, sums in [*self._days.items()]:
            taken += islice(_entries(day, sums), most - len(taken))
        for entry in taken:
            sums = self._days[entry.day]
            del sums[entry.key, entry.model, entry.upstream, entry.currency]
            if not sums:
                del self._days[entry.day]
        self._count -= len(taken)
        return taken

    def by_key(self, currency: str) -> dict[str, Amount]:
        """Returns the spend of each key in a currency."""
        spent: dict[str, Amount] = {}
        for sums in self._days.values():
            for (key, _, _, each), (amount, _) in sums.items():
                if each == currency:
                    spent[key] = spent.get(key, 0) + amount
        return spent

    def rows(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the sums by one of the four, in the order of its values; as `Ledger.spend`."""
        rows = Sums(by)
        first, last = days_between(since, until)
        for day, sums in self._days.items():
            if first <= day <= last:
                rows.add(_entries(day, sums))
        return rows.rows()

    def _drop_before(self, day: str) -> None:
        """Drops the days that are more than `limits.spend_days` before a UTC date."""
        first = oldest_day(day)
        for each in [each for each in self._days if each < first]:
            self._count -= len(self._days.pop(each))


class Sums:
    """Adds up entries by key, model, upstream or day, and by currency.

    Args:
        by: The field to group by.
    """

    def __init__(self, by: GroupBy) -> None:
        self._value_of = attrgetter(by)
        self._sums: dict[tuple[str, str], tuple[Amount, int]] = {}

    def add(self, entries: Iterable[SpendEntry]) -> None:
        """Adds entries. Another thread may call it: each takes a microsecond."""
        value_of, sums = self._value_of, self._sums
        for entry in entries:
            row = (value_of(entry), entry.currency)
            amount, requests = sums.get(row, (0, 0))
            sums[row] = (amount + entry.amount, requests + entry.requests)

    def rows(self) -> list[SpendRow]:
        """Returns the sums, in the order of their values."""
        return [SpendRow(*row, *self._sums[row]) for row in sorted(self._sums)]


def days_between(since: str | None, until: str | None) -> tuple[str, str]:
    """Returns the bounds of the days that a report is of: no day is less than the first, or greater than the last.

    Args:
        since: The first UTC date. None if there is none.
        until: The last UTC date. None if there is none.
    """
    return since or "", until or "~"


def oldest_day(day: str) -> str:
    """Returns the oldest day whose spend is still kept on a given day."""
    return (date.fromisoformat(day) - timedelta(LIMITS.spend_days)).isoformat()


def _entries(day: str, sums: Mapping[tuple[str, str, str, str], tuple[Amount, int]]) -> Iterator[SpendEntry]:
    for (key, model, upstream, currency), (amount, requests) in sums.items():
        yield SpendEntry(key, model, upstream, day, currency, amount, requests)
