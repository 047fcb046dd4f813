"""`redis://…`, `rediss://…`: the limits and the spend of keys, for the workers of several machines.

Owns the keys. All begin with `gai:{limits}:`, so that a cluster has them on one node, and each has a time to live.

| key | holds |
|---|---|
| `layout` | the version of all that these keys hold; workers of a release that has another one are refused |
| `worker:<worker>` | when a worker was heard; gone `limits.ledger_gone` after that, with all that it has |
| `number:<worker>` | the number of its last exchange, which it may send again after any time: kept as long as spend |
| `key:<key>` | a hash, `state`: the rates of a key, and when they were written; `h<worker>`: a worker's streams and |
| | their reservations |
| `spent:<period> <currency>:<key>` | the spend of a key in a period |
| `spend:<day>` | a hash: `a` (amount) and `r` (requests) with key, model, upstream and currency as JSON |
| `days` | a sorted set: the days that have spend |

An exchange is one script (`redis.lua`), and so one round trip, which the server carries out at once or not at all. Time
is the server's. If its clock is set back, what counted then counts from now on, as in a file.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from gai_fast.ledger._base import Caps, GroupBy, SpendEntry, SpendRow
from gai_fast.ledger.book import Sums, days_between
from gai_fast.ledger.home import Report, ReportAnswer
from gai_fast.ledger.limits import LIMITS
from gai_fast.ledger.shared import FIRST, SharedHome, log_damaged, log_damaged_sum
from gai_fast.model.limits import OTHER, SHARED
from gai_fast.model.money import Amount
from gai_fast.model.settings import RATE_LIMITS, StoreSettings
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import logger
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.redis_client import Script

PREFIX: Final = "gai:{limits}:"
_SCRIPT: Final = Script(files("gai_fast.ledger").joinpath("redis.lua").read_text())
_AMOUNT: Final = SpendEntry._fields.index("amount")
_SPEND: Final = Caps._fields.index("spend")
"""The places of amounts, which are sent as text: Lua's numbers have 53 bits."""
_NUMBER: Final = re.compile(rb"-?[0-9]{1,19}")
"""A number in the form in which Redis counts."""
_MOST: Final = 2**63 - 1
"""The largest sum in Redis."""
_NOTHING: Final = 0
"""The number of an empty exchange, whose answer is empty too."""


class RedisHome(SharedHome):
    """The state of keys in a Redis server, or a cluster.

    Args:
        url: As for `RedisBackend`.
    """

    def __init__(self, url: str) -> None:
        self._backend = RedisBackend(url)
        self.worker = secrets.token_hex(8)
        self._silent_until = -math.inf
        self._limits = msgspec.msgpack.encode(
            (
                LIMITS.ledger_gone,
                LIMITS.ledger_kept,
                LIMITS.spend_days,
                LIMITS.spend_entries,
                OTHER,
                [(each.counts == "tokens", each.window) for each in RATE_LIMITS],
            )
        )

    async def open(self) -> None:
        """Connects; as `RedisBackend.open`, and if the keys are those of another release."""
        await self._backend.open()
        try:
            await self.exchange(_NOTHING, (), ())
        except StoreError:
            await self._backend.close()
            raise

    async def close(self) -> None:
        """Returns this worker's reservations, and disconnects."""
        try:
            await self._backend.client.command("UNLINK", self._own("worker"), self._own("number"))
        except StoreError:
            pass  # it is gone `limits.ledger_gone` from now
        finally:
            await self._backend.close()

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer | None] | None:
        """Reports; as `SharedHome.exchange`."""
        charges = [_as_text(entry._replace(amount=min(entry.amount, _MOST)), _AMOUNT) for entry in entries]
        sent = (number, charges, [_plain(report) for report in reports])
        arguments = (PREFIX, self.worker, msgspec.msgpack.encode(sent), self._limits)
        reply = await self._backend.client.run_script(_SCRIPT, self._own("worker"), *arguments)
        answers, was_alive, full, damaged_keys, damaged_sums = reply
        self.has_forgotten = number > FIRST and not was_alive
        if answers is None:
            return None
        if full:
            self._warn()
        damaged = {key.decode() for key in damaged_keys}
        for key in damaged:
            log_damaged(key)
        for key, day in damaged_sums:
            log_damaged_sum(key.decode(), day.decode())
        found = msgspec.msgpack.decode(answers, type=list[ReportAnswer], strict=False)  # amounts are texts
        return [None if report.key in damaged else answer for report, answer in zip(reports, found, strict=True)]

    def _warn(self) -> None:
        """Tells the operator that spend was not added, at most once in `limits.warning_interval`."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            logger.error("a sum of spend in Redis is full: what is more than 9.2 million of a currency is not added")

    async def spend(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend; as `SharedHome.spend`."""
        sums = Sums(by)
        first, last = days_between(since, until)
        for day in await self._backend.client.command("ZRANGE", f"{PREFIX}days", f"[{first}", f"[{last}", "BYLEX"):
            fields = await self._fields(f"{PREFIX}spend:{day.decode()}")
            await asyncio.to_thread(sums.add, _entries(day.decode(), fields))  # 100,000 rows take 0.3 s
        return sums.rows()

    async def _fields(self, key: str) -> dict[bytes, bytes]:
        """Returns a hash, read in parts, between which neither the server nor the loop waits."""
        fields: dict[bytes, bytes] = {}  # the server may return one twice
        cursor = 0
        while True:
            cursor, some = await self._backend.client.command("HSCAN", key, cursor, "COUNT", LIMITS.spend_read)
            fields.update(some)
            if not cursor:
                return fields

    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key; as `SharedHome.spent`. A list of keys asks for each at once."""
        async with self._backend.client.turn():
            sum_ = await self._backend.client.command("GET", f"{PREFIX}spent:{label}:{key}") or b"0"
        return int(sum_) if _NUMBER.fullmatch(sum_) else 0  # a damaged one is counted from zero with the next exchange

    async def reset(self, key: str, labels: Sequence[str]) -> None:
        """Counts from zero again; as `SharedHome.reset`."""
        await self._backend.client.command("HDEL", f"{PREFIX}key:{key}", "state")
        await self._backend.client.command("UNLINK", *[f"{PREFIX}spent:{label}:{key}" for label in labels])

    def _own(self, kind: str) -> str:
        return f"{PREFIX}{kind}:{self.worker}"


def open_home(settings: StoreSettings) -> RedisHome:
    """Makes the home of a configuration."""
    return RedisHome(settings.url)


def _as_text(values: tuple[Any, ...], place: int) -> list[Any]:
    """Returns the values, with the number at this place as text."""
    sent = list(values)
    if sent[place] is not None:
        sent[place] = str(sent[place])
    return sent


def _plain(report: Report) -> list[Any]:
    demands = [(each.tokens, [str(amount) for amount in each.reservation], *each[2:]) for each in report.demands]
    return [report.key, _as_text(report.caps, _SPEND), *report[2:6], str(report.reserved), demands]


def _entries(day: str, fields: Mapping[bytes, bytes]) -> Iterator[SpendEntry]:
    """Yields the entries of a day. A damaged one is left out, so that the others are reported."""
    damaged = 0
    for field, requests in fields.items():
        if field.startswith(b"r"):
            amount = fields.get(b"a" + field[1:], b"0")
            try:
                key, model, upstream, currency = msgspec.json.decode(field[1:], type=tuple[str, str, str, str])
            except msgspec.DecodeError:
                damaged += 1
                continue
            if _NUMBER.fullmatch(amount) and _NUMBER.fullmatch(requests):
                yield SpendEntry(key, model, upstream, day, currency, int(amount), int(requests))
            else:
                damaged += 1
    if damaged:
        logger.error("%d sums of spend in the store are damaged, and are not in the report", damaged)
