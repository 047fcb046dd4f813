"""The limits of keys in Redis: how long its keys live, and what becomes of a server that forgets or goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.ledger import SharedLedger, SpendEntry, SpendRow, redis
from gai_fast.ledger._base import SPEND, STREAMS, Demand
from gai_fast.ledger.home import Report
from gai_fast.ledger.redis import PREFIX, RedisHome
from gai_fast.ledger.state import GRANTED
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings
from gai_fast.server.admission.reads import Reads
from gai_fast.stores.backend import StoreError
from gai_fast.stores.redis_client import Script
from tests.conftest import ChangeLimits
from tests.integration.stores.servers import FAULTS, RedisServer
from tests.key_limits import REQUESTS, TOKENS, caps_of
from tests.limits import LIMITS
from tests.waiting import until

ENTRY = SpendEntry("ann", "m", "up", "2026-11-22", "USD", 5)
KEY = KeySettings("ann", (), limits=KeyLimits(requests_per_minute=10))


async def taken(ledger: SharedLedger, stream_id: str) -> str:
    try:
        await ledger.take(KEY, stream_id)
    except Error as error:
        return str(error.reason)
    return ""


async def test_every_key_in_redis_has_a_time_to_live(redis_server: RedisServer) -> None:
    homes = [RedisHome(redis_server.url) for _ in range(2)]
    for home in homes:
        await home.open()
    asking = Report("ann", caps_of(None, None, 1, None, ""), 0, 0, 0.0, 0, 0, [Demand()])
    for home in homes:
        await home.exchange(1, [ENTRY], [asking])
    found = [line for line in redis_server.command("KEYS", "*").decode().split("\r\n") if line.startswith("gai:")]
    ours = [name for name in found if name.startswith(PREFIX)]
    assert len(ours) >= 10
    for name in ours:
        assert int(redis_server.command("TTL", name).decode().strip(":\r\n")) > 0, name
    for home in homes:
        await home.close()


async def test_limits_of_another_release_are_neither_used_nor_touched(make_server: Callable[..., RedisServer]) -> None:
    server = make_server()
    running, starting = RedisHome(server.url), RedisHome(server.url)
    await running.open()
    assert server.command("GET", f"{PREFIX}layout") == b"$1\r\n2\r\n"
    server.command("SET", f"{PREFIX}layout", "3")
    before = server.command("DBSIZE")
    for refused in (starting.open(), running.exchange(1, [ENTRY], [])):
        with pytest.raises(StoreError, match="has the limits of keys of another release") as raised:
            await refused
        assert raised.value.fault == "unsuitable"
    assert server.command("DBSIZE") == before
    server.command("DEL", f"{PREFIX}layout")
    assert await running.exchange(1, [ENTRY], []) == []
    assert server.command("GET", f"{PREFIX}layout") == b"$1\r\n2\r\n"
    await running.close()


async def test_a_server_that_has_lost_its_data_hears_of_all_streams_again(
    make_server: Callable[..., RedisServer],
) -> None:
    server = make_server()
    ledgers = [SharedLedger(RedisHome(server.url), fails_open=False) for _ in range(2)]
    key = KeySettings("ann", (), limits=KeyLimits(streams=2))
    for ledger in ledgers:
        await ledger.open()
        await ledger.take(key, "a")
        await ledger.report()
    server.command("FLUSHALL")
    for ledger in ledgers:
        await ledger.report()  # tells nothing, and finds out
        await ledger.report()
    for ledger in ledgers:
        with pytest.raises(Error, match="streams = 2"):
            await ledger.take(key, "b")
    for ledger in ledgers:
        await ledger.close()


async def test_a_rate_that_is_overdrawn_for_long_is_kept_for_so_long(redis_server: RedisServer) -> None:
    home = RedisHome(redis_server.url)
    await home.open()
    overdrawn = Report("dan", caps_of(None, 1, None, None, ""), 0, 100, 0.0, 0, 0, [])
    await home.exchange(1, [], [overdrawn])
    assert int(redis_server.command("TTL", f"{PREFIX}key:dan").decode().strip(":\r\n")) > 5990
    await home.close()


async def test_an_exchange_that_is_sent_again_after_hours_counts_once(
    make_server: Callable[..., RedisServer], change_limits: ChangeLimits
) -> None:
    """Its answer was lost, and the worker was cut off for longer than Redis keeps what a key has used."""
    change_limits(ledger_kept=1.0)
    server = make_server()
    home = RedisHome(server.url)
    await home.open()
    using = Report("ann", caps_of(10, None, None, None, ""), 1, 0, 0.0, 0, 0, [])
    for _ in range(2):
        await home.exchange(1, [ENTRY], [using])
        await until(lambda: server.command("EXISTS", f"{PREFIX}key:ann") == b":0\r\n")
    assert await home.spend("key", None, None) == [SpendRow("ann", "USD", 5, 1)]
    await home.close()


async def test_spend_is_kept_for_its_days_and_a_day_has_a_bounded_number_of_rows(
    make_server: Callable[..., RedisServer], change_limits: ChangeLimits
) -> None:
    change_limits(spend_days=2, spend_entries=3)
    home = RedisHome(make_server().url)
    await home.open()
    days = ["2026-11-20", "2026-11-21", "2026-11-22"]
    entries = [ENTRY._replace(day=day, model=f"m{number}") for day in days for number in range(5)]
    await home.exchange(1, entries, [])
    assert await home.spend("day", None, None) == [SpendRow(day, "USD", 25, 5) for day in days[1:]]
    rows = await home.spend("model", None, None)
    assert [row.value for row in rows] == ["m0", "m1", "m2", "other"]
    assert sum(row.amount for row in rows) == 50
    await home.close()


async def test_a_list_of_keys_takes_few_connections(redis_server: RedisServer) -> None:
    """Each key of the admin's list took one: with more than redis-py makes, a hundred, the list had no spend."""
    home = RedisHome(redis_server.url)
    await home.open()
    before = redis_server.command("CLIENT", "LIST").count(b"id=")
    await home.exchange(1, [ENTRY], [])
    spent = await asyncio.gather(*(home.spent(key, "t USD") for key in ["ann"] * 100))
    assert spent == [ENTRY.amount] * 100
    assert redis_server.command("CLIENT", "LIST").count(b"id=") <= before + LIMITS.store_connections
    await home.close()


async def test_a_sum_of_spend_that_is_full_is_reported_once(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    home = RedisHome(redis_server.url)
    await home.open()
    most = 2**63 - 1
    for number in (1, 2, 3):
        await home.exchange(number, [ENTRY._replace(key="rich", amount=most)], [])
    assert await home.spent("rich", "t USD") == most
    assert [record.message for record in caplog.records].count(
        "a sum of spend in Redis is full: what is more than 9.2 million of a currency is not added"
    ) == 1
    await home.close()


async def test_a_sum_that_is_full_keeps_its_key_from_spending(redis_server: RedisServer) -> None:
    """The charge that a sum did not hold was left out of it, and so the sum stayed below the limit."""
    home = RedisHome(redis_server.url)
    await home.open()
    asking = Report("rich", caps_of(None, None, None, 10**12, "t USD"), 0, 0, 0.0, 0, 0, [Demand()])
    (answer,) = await home.exchange(1, [ENTRY._replace(key="rich", amount=2**70)], [asking]) or ()
    assert answer.verdicts[0][0] == SPEND
    assert await home.exchange(2, [ENTRY._replace(key="rich")], []) == []
    assert await home.spent("rich", "t USD") == 2**63 - 1
    assert await home.spend("key", None, None) == [SpendRow("rich", "USD", 2**63 - 1, 2)]
    await home.close()


@pytest.mark.parametrize("value", [("SET", "x"), ("LPUSH", "5")])
async def test_a_damaged_sum_counts_from_zero_again_and_keeps_no_other_key_from_its_limits(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, value: tuple[str, str]
) -> None:
    """It failed each exchange that charged its key, of whatever keys."""
    home = RedisHome(redis_server.url)
    await home.open()
    spent = caps_of(None, None, None, 100, "t USD")
    asking = [Report(key, spent, 0, 0, 0.0, 0, 0, [Demand()]) for key in ("ann", "bob")]
    for number, entries in ((1, [ENTRY, ENTRY._replace(key="bob")]), (2, [])):  # charged, and only looked at
        caplog.clear()
        redis_server.command("DEL", f"{PREFIX}spent:t USD:ann")
        redis_server.command(value[0], f"{PREFIX}spent:t USD:ann", value[1])
        ann, bob = await home.exchange(number, entries, asking) or ()
        assert ann is None
        assert bob is not None
        assert (bob.verdicts[0].place, bob.used.spent) == (GRANTED, 5)
        assert "what key ann has used of its limits is damaged in the store" in caplog.text
    (ann, _) = await home.exchange(3, [ENTRY], asking) or ()
    assert ann is not None
    assert (ann.verdicts[0].place, ann.used.spent) == (GRANTED, 5)
    await home.close()


async def test_a_damaged_sum_of_a_day_is_left_out_of_reports_and_counted_anew(
    make_server: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    home = RedisHome(server.url)
    await home.open()
    bob = ENTRY._replace(key="bob")
    await home.exchange(1, [ENTRY, bob], [])
    day, field = f"{PREFIX}spend:2026-11-22", '["ann","m","up","USD"]'
    for name, what in (("a" + field, "x"), ("r" + field, "1.5"), ("r[", "1")):
        server.command("HSET", day, name, what)
    assert await home.spend("key", None, None) == [SpendRow("bob", "USD", 5, 1)]
    assert "2 sums of spend in the store are damaged, and are not in the report" in caplog.text
    await home.exchange(2, [ENTRY, bob], [])
    assert "the spend of ann on 2026-11-22 is damaged in the store: it is counted from zero again" in caplog.text
    assert await home.spend("key", None, None) == [SpendRow("ann", "USD", 5, 1), SpendRow("bob", "USD", 10, 2)]
    server.command("SET", day, "x")
    await home.exchange(3, [bob], [])
    assert await home.spend("key", None, None) == [SpendRow("bob", "USD", 5, 1)]
    assert "the spend of all keys on 2026-11-22 is damaged" in caplog.text
    server.command("SET", f"{PREFIX}spent:t USD:ann", "x")
    assert await home.spent("ann", "t USD") == 0
    await home.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", b"\xc1"), ("state", b"\x07"), ("state", b"\x90"), ("state", b"\x92\x92\x01\xa1x\x92\x01\x01"),
        ("hw", b""), ("hw", b"\x91\x01"), (None, b"x"),
    ],
)  # fmt: skip
async def test_a_damaged_state_concerns_its_key_alone_and_is_written_anew(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, field: str | None, value: bytes
) -> None:
    """It failed each exchange of each key, for good."""
    home = RedisHome(redis_server.url)
    await home.open()
    two = caps_of(2, None, None, None, "")
    asking = [Report(key, two, 0, 0, 0.0, 0, 0, [Demand()] * 3) for key in ("ann", "bob")]
    await home.exchange(1, [], asking)
    if field is None:
        redis_server.command("SET", f"{PREFIX}key:ann", value)
    else:
        redis_server.command("HSET", f"{PREFIX}key:ann", field, value)
    ann, bob = await home.exchange(2, [], asking) or ()
    assert ann is None
    assert bob is not None
    assert [verdict.place for verdict in bob.verdicts] == [REQUESTS] * 3
    assert "what key ann has used of its limits is damaged in the store" in caplog.text
    ann, _ = await home.exchange(3, [], asking) or ()
    assert ann is not None
    assert [verdict.place for verdict in ann.verdicts] == [GRANTED, GRANTED, REQUESTS]
    await home.close()


@pytest.mark.parametrize("name", ["worker:{me}", "worker:other", "number:{me}", "days"])
@pytest.mark.parametrize("value", [("SET", "x"), ("RPUSH", "x")])
async def test_a_damaged_record_of_a_worker_or_of_the_days_ends_no_exchange(
    make_server: Callable[..., RedisServer], name: str, value: tuple[str, str]
) -> None:
    """Each failed the exchanges of all keys, for as long as it was there."""
    server = make_server()
    home = RedisHome(server.url)
    await home.open()
    two = caps_of(2, None, None, 100, "t USD")
    asking = [Report("ann", two, 0, 0, 0.0, 0, 0, [Demand()])]
    await home.exchange(1, [ENTRY], asking)
    server.command("HSET", f"{PREFIX}key:ann", "hother", b"\x92\x01\x01")
    at = PREFIX + name.format(me=home.worker)
    server.command("DEL", at)
    server.command(value[0], at, value[1])
    (answer,) = await home.exchange(2, [ENTRY], asking) or ()
    assert answer is not None
    assert (answer.verdicts[0].place, answer.used.spent) == (GRANTED, 10)
    assert await home.spend("key", None, None) == [SpendRow("ann", "USD", 10, 2)]
    await home.close()


HOUR = 3600


async def test_after_the_clock_of_the_server_was_set_back_what_counted_counts_and_no_longer(
    make_server: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key waited for the hour that came again."""
    server = make_server()
    homes = [RedisHome(server.url) for _ in range(2)]
    for home in homes:
        await home.open()
    caps = caps_of(2, 10, 2, None, "")
    asking = Report("ann", caps, 0, 0, 0.0, 0, 0, [Demand(2)] * 3)
    text = redis._SCRIPT.text
    ahead = Script(text.replace("tonumber(time[1]) +", f"tonumber(time[1]) + {HOUR} +"))
    monkeypatch.setattr(redis, "_SCRIPT", ahead)
    (answer,) = await homes[0].exchange(1, [], [asking]) or ()
    assert answer is not None
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, GRANTED, REQUESTS]
    monkeypatch.undo()
    (answer,) = await homes[1].exchange(1, [], [asking]) or ()
    assert answer is not None
    assert [verdict.place for verdict in answer.verdicts] == [REQUESTS] * 3
    assert 0 < answer.verdicts[0].wait <= 30
    assert answer.used.rates[REQUESTS] == pytest.approx(2, abs=0.5)
    assert answer.used.rates[TOKENS] == pytest.approx(4, abs=0.5)
    # The worker that has not been heard since has no stream; it finds out, and reports those that it has again.
    streams = Report("ann", caps_of(None, None, 2, None, ""), 0, 0, 0.0, 0, 0, [Demand()] * 3)
    (answer,) = await homes[1].exchange(2, [], [streams]) or ()
    assert answer is not None
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, GRANTED, STREAMS]
    await homes[0].exchange(2, [], [])
    assert homes[0].has_forgotten
    for home in homes:
        await home.close()


async def test_a_script_that_the_server_has_lost_is_sent_again(redis_server: RedisServer) -> None:
    home = RedisHome(redis_server.url)
    await home.open()
    for number in (1, 2):
        redis_server.command("SCRIPT", "FLUSH")
        assert await home.exchange(number, [], []) == []
    await home.close()


async def test_an_exchange_with_a_server_that_hangs_ends_and_its_reply_is_not_taken_for_the_next(
    make_server: Callable[..., RedisServer], change_limits: ChangeLimits
) -> None:
    change_limits(store_timeout=2.0)
    server = make_server()
    home = RedisHome(server.url)
    await home.open()
    asking = Report("ann", caps_of(9, None, None, None, ""), 0, 0, 0.0, 0, 0, [Demand()])
    assert await home.exchange(1, [], []) == []
    server.pause()
    try:
        with pytest.raises(StoreError, match="does not answer in time"):
            await home.exchange(2, [], [])
    finally:
        server.resume()
    (answer,) = await home.exchange(3, [], [asking]) or ()
    assert answer.verdicts[0][0] == GRANTED
    await home.close()


ALL_FAULTS = {**FAULTS, "hangs": (RedisServer.pause, RedisServer.resume)}


@pytest.mark.parametrize("fault", ALL_FAULTS)
async def test_a_server_that_fails_for_a_while_is_used_again(
    make_server: Callable[..., RedisServer], fault: str
) -> None:
    server = make_server()
    begin, end = ALL_FAULTS[fault]
    ledger = SharedLedger(RedisHome(server.url), fails_open=False)
    await ledger.open()
    assert await taken(ledger, "a") == ""
    begin(server)
    assert await taken(ledger, "b") == "store"
    assert ledger.problem is not None
    ledger.charge(ENTRY)
    end(server)
    await until(lambda: ledger.problem is None)
    assert await taken(ledger, "c") == ""
    assert await ledger.spend("key") == [SpendRow("ann", "USD", 5, 1)]
    await ledger.close()


@pytest.mark.parametrize("fails_open", [True, False])
async def test_without_the_server_a_read_is_admitted_or_refused_as_a_request(
    make_server: Callable[..., RedisServer], fails_open: bool
) -> None:
    server = make_server()
    ledger = SharedLedger(RedisHome(server.url), fails_open=fails_open)
    await ledger.open()
    reads = Reads(ledger, {"reads": 0})

    async def read() -> str:
        try:
            assert await reads.take(KEY, lambda: 5) == 5
        except Error as error:
            return str(error.reason)
        return ""

    assert [await read() for _ in range(101)] == [""] * 100 + ["reads"]
    server.kill()
    for number in range(2):  # it has not failed before; it has
        assert await read() == await taken(ledger, str(number)) == ("" if fails_open else "store")
    assert await reads.take(KeySettings("root", ()), lambda: 5) == 5, "it has no limits"
    await ledger.close()


async def test_spend_is_read_in_parts_and_only_of_the_days_that_are_asked_for(
    make_server: Callable[..., RedisServer], change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_limits(spend_read=10)
    home = RedisHome(make_server().url)
    await home.open()
    days = ["2026-11-20", "2026-11-21", "2026-11-22"]
    await home.exchange(1, [ENTRY._replace(day=day, model=f"m{number}") for day in days for number in range(400)], [])
    commands: list[tuple[Any, Any]] = []
    sent = home._backend.client.command

    async def command(*words: Any) -> Any:
        reply = await sent(*words)
        commands.append((words, reply))
        return reply

    monkeypatch.setattr(home._backend.client, "command", command)
    assert await home.spend("key", days[1], days[1]) == [SpendRow("ann", "USD", 400 * ENTRY.amount, 400)]
    (first, found), *parts = commands
    assert (first[0], found) == ("ZRANGE", [days[1].encode()])
    assert {(words[0], words[1]) for words, _ in parts} == {("HSCAN", f"{PREFIX}spend:{days[1]}")}
    assert max(len(fields) for _, (_, fields) in parts) < 50 < len(parts)  # of 800 fields; Redis returns some more
    assert [row.value for row in await home.spend("day", days[1], None)] == days[1:]
    assert [row.value for row in await home.spend("day", None, days[1])] == days[:2]
    await home.close()
