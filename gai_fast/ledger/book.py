"""`SpendBook`: the spend of keys, models, upstreams and days, in memory.

Owns how much of it is kept. Sums are integers, and so exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from operator import attrgetter

from gai_fast.ledger._base import By, SpendEntry, SpendRow
from gai_fast.ledger.limits import LIMITS
from gai_fast.model.limits import OTHER
from gai_fast.model.money import Amount


class SpendBook:
    """Adds up entries."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str, str], tuple[Amount, int]] = {}
        self._swept = ""  # the day for which old ones were dropped last

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, entry: SpendEntry) -> None:
        """Adds an entry. Above `limits.spend_entries` a new one counts for `OTHER`, after the oldest days are gone."""
        place = (entry.key, entry.model, entry.upstream, entry.day, entry.currency)
        if place not in self._sums and len(self._sums) >= LIMITS.spend_entries:
            if self._swept != entry.day:  # a walk over all of them, once a day
                self._swept = entry.day
                self._drop_before(entry.day)
            if len(self._sums) >= LIMITS.spend_entries:
                place = (entry.key, OTHER, OTHER, entry.day, entry.currency)
        amount, requests = self._sums.get(place, (0, 0))
        self._sums[place] = (amount + entry.amount, requests + entry.requests)

    def take(self, most: int) -> list[SpendEntry]:
        """Takes entries out of the book, the oldest ones first.

        Args:
            most: Their greatest number.
        """
        taken = list(self._sums)[:most]
        return [SpendEntry(*place, *self._sums.pop(place)) for place in taken]

    def rows(self, by: By, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the sums by one of the four, in the order of its values; as `Ledger.spend`."""
        sums = Sums(by, since, until)
        sums.add(SpendEntry(*place, *each) for place, each in self._sums.items())
        return sums.rows()

    def _drop_before(self, day: str) -> None:
        """Drops the days that are more than `limits.spend_days` before a UTC date."""
        first = (date.fromisoformat(day) - timedelta(LIMITS.spend_days)).isoformat()
        for place in [place for place in self._sums if place[3] < first]:
            del self._sums[place]


class Sums:
    """Adds up entries by one of the four, and by currency; as `Ledger.spend`.

    Args:
        by: Which one.
        since: The first UTC date. None if there is none.
        until: The last UTC date. None if there is none.
    """

    def __init__(self, by: By, since: str | None, until: str | None) -> None:
        self._value_of = attrgetter(by)
        self.since = since or ""
        self.until = until or "~"  # after every date
        self._sums: dict[tuple[str, str], tuple[Amount, int]] = {}

    def add(self, entries: Iterable[SpendEntry]) -> None:
        """Adds entries; those of other days are left out. Another thread may call it: each takes a microsecond."""
        value_of, sums = self._value_of, self._sums
        for entry in entries:
            if self.since <= entry.day <= self.until:
                row = (value_of(entry), entry.currency)
                amount, requests = sums.get(row, (0, 0))
                sums[row] = (amount + entry.amount, requests + entry.requests)

    def rows(self) -> list[SpendRow]:
        """Returns the sums, in the order of their values."""
        return [SpendRow(*row, *self._sums[row]) for row in sorted(self._sums)]
