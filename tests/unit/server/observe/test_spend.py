"""Spend goes to the ledger."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from gai_fast.ledger import LocalLedger
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import UNIT, Charge
from gai_fast.server.admin.spend_report import read_query, spend_csv, spend_report
from gai_fast.server.observe.spend import RunningSpend, SpendSink
from tests.conftest import ChangeLimits

NOON = 1_795_348_800.0  # 2026-11-22T12:00:00Z
CENT = UNIT // 100


def metrics(*charges: Charge, **more: Any) -> StreamMetrics:
    return StreamMetrics(duration=1.0, **{"key": "ann", "model": "fast", "upstream": "up", **more}, charges=charges)


def charge(amount: int = CENT, upstream: str = "up", currency: str = "USD") -> Charge:
    return Charge("openai", upstream, amount, currency)


@pytest.fixture
def ledger() -> LocalLedger:
    return LocalLedger()


@pytest.fixture
def sink(ledger: LocalLedger) -> SpendSink:
    return SpendSink(ledger, lambda: NOON)


def report(ledger: LocalLedger, **query: str) -> list[Any]:
    return [msgspec.to_builtins(row) for row in asyncio.run(spend_report(ledger, read_query(query), None)).data]


def test_spend_is_reported_by_key_model_upstream_and_day(ledger: LocalLedger, sink: SpendSink) -> None:
    sink.stream_ended(metrics(charge()))
    sink.stream_ended(metrics(charge(), key="anonymous", model="o/x"))
    sink.stream_ended(metrics())
    row = {"amount": 0.01, "currency": "USD", "requests": 1}
    assert report(ledger) == report(ledger, by="key") == [{"key": "ann", **row}, {"key": "anonymous", **row}]
    assert report(ledger, by="model") == [{"model": "fast", **row}, {"model": "o/x", **row}]
    assert report(ledger, by="upstream") == [{"upstream": "up", **row, "amount": 0.02, "requests": 2}]
    assert report(ledger, by="day") == [{"day": "2026-11-22", **row, "amount": 0.02, "requests": 2}]


def test_each_attempt_is_charged_to_its_upstream_and_the_request_counts_once(
    ledger: LocalLedger, sink: SpendSink
) -> None:
    sink.stream_ended(metrics(charge(upstream="first"), charge(2 * CENT, "second")))
    first, second = report(ledger, by="upstream")
    assert (first["upstream"], first["amount"], first["requests"]) == ("first", 0.01, 0)
    assert (second["upstream"], second["amount"], second["requests"]) == ("second", 0.02, 1)
    assert report(ledger) == [{"key": "ann", "amount": 0.03, "currency": "USD", "requests": 1}]


def test_a_cost_of_zero_counts_the_request(ledger: LocalLedger, sink: SpendSink) -> None:
    sink.stream_ended(metrics(charge(0)))
    assert report(ledger) == [{"key": "ann", "amount": 0, "currency": "USD", "requests": 1}]


class Running:
    """A session as the sink reads it."""

    def __init__(self, stream_id: str, *charges: Charge) -> None:
        self.stream_id, self.caller, self.model, self.charges = stream_id, "ann", "fast", charges


def test_a_running_stream_is_charged_as_it_goes_and_its_end_with_the_rest(ledger: LocalLedger, sink: SpendSink) -> None:
    def spent() -> list[tuple[float, int]]:
        return [(row["amount"], row["requests"]) for row in report(ledger, by="upstream")]

    sink.charge_running(Running("s"))
    assert spent() == []
    sink.charge_running(Running("s", charge(2 * CENT)))
    sink.charge_running(Running("s", charge(2 * CENT)))
    assert spent() == [(0.02, 0)]
    sink.charge_running(Running("s", charge(CENT)))  # the attempt turns out to cost less
    sink.charge_running(Running("s", charge(2 * CENT), charge(CENT, "z")))
    assert spent() == [(0.02, 0), (0.01, 0)]
    sink.stream_ended(metrics(charge(5 * CENT, "z"), stream_id="s"))
    assert spent() == [(0, 0), (0.05, 1)]
    sink.stream_ended(metrics(charge(CENT, "z"), stream_id="s"))
    assert spent() == [(0, 0), (0.06, 2)]


def test_a_running_stream_whose_end_costs_nothing_is_given_back(ledger: LocalLedger, sink: SpendSink) -> None:
    sink.charge_running(Running("s", charge()))
    sink.stream_ended(metrics(stream_id="s"))
    assert report(ledger) == [{"key": "ann", "amount": 0, "currency": "USD", "requests": 0}]


def test_what_was_charged_too_much_is_given_back_to_its_days(ledger: LocalLedger) -> None:
    now = [NOON]
    sink = SpendSink(ledger, lambda: now[0])
    sink.charge_running(Running("s", charge(3 * CENT)))
    now[0] += 86_400
    sink.charge_running(Running("s", charge(5 * CENT)))
    now[0] += 86_400
    sink.stream_ended(metrics(charge(CENT), stream_id="s"))
    amounts = [(row["day"], row["amount"], row["requests"]) for row in report(ledger, by="day")]
    assert amounts == [("2026-11-22", 0.01, 0), ("2026-11-23", 0.0, 0), ("2026-11-24", 0.0, 1)]
    result = asyncio.run(spend_csv(ledger, read_query({"by": "day"})))
    assert result.splitlines()[1:] == ["2026-11-22,0.01,USD,0", "2026-11-23,0,USD,0", "2026-11-24,0,USD,1"]


def test_every_running_stream_is_charged_within_a_beat_some_in_a_turn(
    ledger: LocalLedger, sink: SpendSink, change_limits: ChangeLimits
) -> None:
    change_limits(spend_look=2)
    loop = asyncio.new_event_loop()
    now = 0.0
    loop.time = lambda: now  # type: ignore[method-assign]  # of this one
    streams = {name: Running(name, charge(upstream=name)) for name in "abcd"}
    running = RunningSpend(loop, streams, sink)
    charged: list[tuple[float, str]] = []
    try:
        for _ in range(4):
            now = running._handle.when()
            running._look()
            charged.append((round(now, 3), "".join(row["upstream"] for row in report(ledger, by="upstream"))))
            if now == 1.0:
                del streams["b"]
                streams["e"] = Running("e", charge(upstream="e"))
    finally:
        running.close()
        loop.close()
    assert charged == [(1.0, "cd"), (1.1, "acd"), (2.0, "acde"), (2.1, "acde")], "the ended stream is left out"


def test_sums_are_exact(ledger: LocalLedger, sink: SpendSink) -> None:
    for _ in range(1000):
        sink.stream_ended(metrics(charge(UNIT // 10)))
    assert report(ledger)[0]["amount"] == 100.0
    sink.stream_ended(metrics(charge(1)))
    result = asyncio.run(spend_csv(ledger, read_query({})))
    assert result == "key,amount,currency,requests\r\nann,100.000000000001,USD,1001\r\n"


def test_currencies_have_rows_of_their_own_and_a_foreign_one_is_reported_once(
    ledger: LocalLedger, sink: SpendSink, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.use([], "EUR")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sink.stream_ended(metrics(charge(), charge(currency="EUR")))
    assert [(row["currency"], row["amount"], row["requests"]) for row in report(ledger)] == [
        ("EUR", 0.03, 3), ("USD", 0.03, 0),
    ]  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [
        "upstream 'up' costs USD, and prices are in EUR: this counts for no limit of spend; give its models a price"
    ]


def test_an_upstream_that_counts_absurdly_is_reported_once(sink: SpendSink, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sink.stream_ended(metrics(absurd_tokens=2**32 - 1))
    assert [record.getMessage() for record in caplog.records] == [
        "upstream 'up' counts more than its model has room for, 4294967295 tokens of one answer: an estimate is charged"
    ]
