"""The ledger of one worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gai_fast.ledger import REFUSED, Demand, LocalLedger, Period, Reservation, SpendEntry, SpendRow
from gai_fast.model.errors import Error
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from tests.conftest import ChangeLimits
from tests.key_limits import REQUESTS, TOKENS
from tests.limits import LIMITS

MIDNIGHT = 1_795_305_600.0  # 2026-11-22T00:00:00Z


class Time:
    """Both clocks, which only a test moves."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.wall = MIDNIGHT


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ledger(time: Time) -> LocalLedger:
    return LocalLedger(lambda: time.clock, lambda: time.wall)


def key(**limits: object) -> KeySettings:
    return KeySettings("ann", (), limits=KeyLimits(**limits))


def refused(ledger: LocalLedger, caller: KeySettings, tokens: int = 0) -> Error:
    with pytest.raises(Error) as caught:
        ledger.try_take(caller, "x", Demand(tokens))
    return caught.value


def end(ledger: LocalLedger, stream_id: str, tokens: int = 0, outcome: Outcome = "finished") -> None:
    usage = {"input_tokens": tokens // 2, "output_tokens": tokens - tokens // 2, "total_tokens": tokens}
    ledger.stream_ended(StreamMetrics(duration=1.0, outcome=outcome, usage=usage, stream_id=stream_id))


def test_a_key_without_limits_is_never_refused(ledger: LocalLedger) -> None:
    assert all(ledger.try_take(key(), str(number), Demand(10**9)) for number in range(1000))
    assert ledger.limit_status(key()) is None


def test_a_refusal_tells_which_limit_and_when_to_come_back(ledger: LocalLedger) -> None:
    caller = key(requests_per_minute=20)
    for number in range(20):
        assert ledger.try_take(caller, str(number))
    error = refused(ledger, caller)
    assert (error.code, error.status, error.reason, error.temporary) == (
        "rate_limited", 429, "requests_per_minute", True,
    )  # fmt: skip
    assert error.retry_after_ms == 3000
    assert "requests_per_minute = 20" in error.message


def test_the_wait_is_the_true_one_however_long(ledger: LocalLedger) -> None:
    caller = key(tokens_per_minute=60)
    ledger.try_take(caller, "1", Demand(10))
    end(ledger, "1", 6000)
    assert refused(ledger, caller, 10).retry_after_ms == (6000 + 10 - 60) * 1000


def test_a_stream_whose_counts_are_no_counts_is_settled(ledger: LocalLedger) -> None:
    caller = key(streams=1)
    ledger.try_take(caller, "1")
    ledger.stream_ended(StreamMetrics(duration=1.0, usage={"input_tokens": 4, "output_tokens": None}, stream_id="1"))
    assert ledger.try_take(caller, "2")


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute", "streams"])
def test_nothing_mends_a_limit_of_zero(ledger: LocalLedger, limit: str) -> None:
    error = refused(ledger, key(**{limit: 0}))
    assert (error.reason, error.temporary, error.retry_after_ms) == (limit, False, None)


def test_only_money_mends_a_spend_limit(ledger: LocalLedger, time: Time) -> None:
    caller = key(spend=SpendLimit(10, "day"))
    assert ledger.try_take(caller, "1")
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 10))
    error = refused(ledger, caller)
    assert (error.reason, error.temporary, error.retry_after_ms) == ("spend", False, None)
    time.wall += 86_399
    refused(ledger, caller)
    time.wall += 1
    assert ledger.try_take(caller, "2")
    time.wall -= 1
    refused(ledger, caller)


@pytest.mark.parametrize(("period", "is_over"), [("day", True), ("month", False), ("total", False)])
def test_a_period_of_spend_is_a_utc_day_a_month_or_for_ever(
    ledger: LocalLedger, time: Time, period: Period, is_over: bool
) -> None:
    caller = key(spend=SpendLimit(10, period))
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 10))
    time.wall += 86_400
    assert asyncio.run(ledger.spent("ann", period)) == (0 if is_over else 10)
    if is_over:
        assert ledger.try_take(caller, "1")
    else:
        refused(ledger, caller)


def test_a_stream_is_released_once_however_it_ends(ledger: LocalLedger) -> None:
    caller = key(streams=1)
    outcomes: tuple[Outcome, ...] = ("finished", "failed", "cancelled", "disconnected", "refused")
    for outcome in outcomes:
        assert ledger.try_take(caller, outcome)
        assert refused(ledger, caller).reason == "streams"
        end(ledger, outcome, outcome=outcome)
        end(ledger, outcome, outcome=outcome)
    assert ledger.try_take(caller, "1")
    assert refused(ledger, caller).retry_after_ms is not None
    ledger.cancel("1")
    ledger.cancel("1")
    assert ledger.try_take(caller, "2")
    refused(ledger, caller)


def test_a_stream_that_never_began_counts_for_nothing(ledger: LocalLedger) -> None:
    caller = key(requests_per_minute=10, tokens_per_minute=100)
    for take_back in (ledger.cancel, lambda stream_id: end(ledger, stream_id, outcome="refused")):
        ledger.try_take(caller, "1", Demand(60))
        take_back("1")
        assert ledger.limit_status(caller) == ([(REQUESTS, 10, 10, 0.0), (TOKENS, 100, 100, 0.0)], None)


def test_streams_without_a_ticket_are_no_matter(ledger: LocalLedger) -> None:
    end(ledger, "another", 5)
    ledger.cancel("another")
    ledger.settle("another", 5)


def test_tokens_are_settled_by_usage(ledger: LocalLedger) -> None:
    caller = key(tokens_per_minute=100)
    ledger.try_take(caller, "1", Demand(80))
    status = ledger.limit_status(caller)
    assert status is not None
    assert [(each.place, each.remaining) for each in status.rates] == [(TOKENS, 20)]
    end(ledger, "1", 30)
    status = ledger.limit_status(caller)
    assert status is not None
    assert [(each.place, each.remaining) for each in status.rates] == [(TOKENS, 70)]


def test_an_upstream_that_counts_absurdly_harms_no_count(ledger: LocalLedger) -> None:
    caller = key(tokens_per_minute=10**6, streams=1)
    ledger.try_take(caller, "1", Demand(10))
    end(ledger, "1", 10**400)
    wait = refused(ledger, caller, 10).retry_after_ms
    assert wait is not None
    assert wait <= LIMITS.priced_tokens / 10**6 * 60_000
    ledger.use([])
    assert ledger.try_take(key(streams=1), "2")


def test_limits_change_with_the_configuration_and_keys_come_back(ledger: LocalLedger) -> None:
    for number in range(10):
        ledger.try_take(key(requests_per_minute=10), str(number))
    ledger.use([key(requests_per_minute=5)])
    assert refused(ledger, key(requests_per_minute=5)).retry_after_ms == 72_000
    ledger.use([])
    ledger.use([key(requests_per_minute=11)])
    assert ledger.try_take(key(requests_per_minute=11), "again")
    refused(ledger, key(requests_per_minute=11))


def test_spend_is_reported(ledger: LocalLedger) -> None:
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 10, 2))
    assert asyncio.run(ledger.spend("model")) == [SpendRow("fast", "USD", 10, 2)]
    assert asyncio.run(ledger.spend("key", since="2026-11-23")) == []
    assert asyncio.run(ledger.spent("bob", "day")) == 0


def test_a_key_is_decided_on_at_once(ledger: LocalLedger) -> None:
    async def take() -> None:
        await ledger.open()
        await ledger.take(key(streams=1), "1")
        with pytest.raises(Error, match="streams = 1"):
            await ledger.take(key(streams=1), "2")
        await ledger.close()

    asyncio.run(take())
    assert ledger.problem is None


def test_spend_in_another_currency_than_the_prices_counts_for_no_limit(ledger: LocalLedger) -> None:
    caller = key(spend=SpendLimit(10, "day"))
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "EUR", 10))
    assert ledger.try_take(caller, "1")
    ledger.use([caller], "EUR")
    refused(ledger, caller)
    assert asyncio.run(ledger.spent("ann", "day")) == 10


# ---- spend that is reserved ------------------------------------------------------------------------------------------


def ended(ledger: LocalLedger, stream_id: str, output: int, model: str = "fast") -> None:
    usage = {"input_tokens": 1, "output_tokens": output}
    ledger.stream_ended(StreamMetrics(duration=1.0, usage=usage, stream_id=stream_id, model=model))


def test_spend_is_reserved_until_the_stream_ends(ledger: LocalLedger) -> None:
    caller = key(spend=SpendLimit(100, "day"))
    for number in range(2):
        assert ledger.try_take(caller, str(number), Demand(0, Reservation(1, 50)))
    with pytest.raises(Error, match="does not cover this request beside those under way"):
        ledger.try_take(caller, "x", Demand(0, Reservation(1, 50)))
    assert ledger.reservations == {"0": 50, "1": 50}
    status = ledger.limit_status(caller)
    assert status is not None
    assert status.spend == (100, 0, 86_400.0)
    ledger.cancel("0")
    ended(ledger, "1", 5)
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 30))
    assert not ledger.reservations
    assert ledger.try_take(caller, "3", Demand(0, Reservation(1, 70)))


def test_a_stream_over_midnight_grows_by_what_the_new_day_leaves(ledger: LocalLedger, time: Time) -> None:
    caller = key(spend=SpendLimit(100, "day"))
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 60))
    assert ledger.try_take(caller, "a", Demand(0, Reservation(1, 40)))
    time.wall += 24 * 60 * 60
    got: list[int] = []
    ledger.grow("a", Reservation(1, 30), got.append)
    assert got == [30]
    ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-23", "USD", 100))
    ledger.grow("a", Reservation(1, 30), got.append)
    assert got == [30, 0]


def test_another_turn_asks_for_its_tokens_and_is_counted_by_what_its_run_has_used(ledger: LocalLedger) -> None:
    caller, got = key(tokens_per_minute=100), list[int]()
    assert ledger.try_take(caller, "a", Demand(20, expected=10))
    assert ledger.lacks_tokens("a", 15, Demand(5)).tokens == 0, "the first estimate covers it"
    wanted = ledger.lacks_tokens("a", 15, Demand(45, expected=30))
    assert wanted == Demand(40, expected=30)
    ledger.reserve_turn("a", wanted, got.append)
    status = ledger.limit_status(caller)
    assert status is not None
    assert (got, [each.remaining for each in status.rates]) == ([0], [40])
    assert ledger.try_take(caller, "b", Demand(30))
    ledger.reserve_turn("a", ledger.lacks_tokens("a", 50, Demand(41)), got.append)  # 31 more
    assert got == [0, REFUSED]
    end(ledger, "b", 5)
    ledger.reserve_turn("a", ledger.lacks_tokens("a", 50, Demand(41)), got.append)
    assert got == [0, REFUSED, 0]
    end(ledger, "a", 95)
    assert refused(ledger, caller, 1).reason == "tokens_per_minute"


def test_the_usual_output_of_a_turn_needs_no_room_where_no_other_stream_is_under_way(ledger: LocalLedger) -> None:
    caller, got = key(tokens_per_minute=100), list[int]()
    assert ledger.try_take(caller, "a", Demand(60))
    ledger.reserve_turn("a", Demand(80, expected=60), got.append)
    assert got == [0]


def test_a_stream_whose_limit_of_spend_a_reload_takes_away_or_raises_is_not_ended_by_it(ledger: LocalLedger) -> None:
    got: list[int] = []
    for limits, more in ((KeyLimits(), 30), (KeyLimits(streams=9), 30), (KeyLimits(spend=SpendLimit(150, "day")), 10)):
        caller = key(spend=SpendLimit(40, "day"))
        assert ledger.try_take(caller, "a", Demand(0, Reservation(1, 40)))
        ledger.use([KeySettings("ann", (), limits=limits)])
        ledger.charge(SpendEntry("ann", "fast", "up", "2026-11-22", "USD", 100 if limits.spend else 0))
        ledger.grow("a", Reservation(1, 30), got.append)
        assert got.pop() == more
        end(ledger, "a")
        assert ledger._home.state("ann").reserved == 0
        ledger.use([])


def test_a_stream_grows_while_there_is_room_and_then_no_more(ledger: LocalLedger) -> None:
    caller = key(spend=SpendLimit(100, "day"))
    ledger.try_take(caller, "a", Demand(0, Reservation(1, 50)))
    got: list[int] = []
    for _ in range(3):
        ledger.grow("a", Reservation(1, 30), got.append)
    assert got == [30, 20, 0]
    ended(ledger, "a", 5)
    ledger.grow("a", Reservation(1, 30), got.append)
    assert len(got) == 3
    assert ledger.try_take(caller, "b", Demand(0, Reservation(1, 100)))


@pytest.mark.parametrize("limits", [{"spend": SpendLimit(100, "day")}, {"tokens_per_minute": 100}])
def test_a_models_usual_output_is_the_mean_of_its_last_answers(ledger: LocalLedger, limits: dict[str, object]) -> None:
    assert ledger.usual_output("fast") == LIMITS.usual_output
    ended(ledger, "a", 10)
    assert ledger.usual_output("fast") == LIMITS.usual_output  # no key has a limit of spend or tokens
    ledger.use([key(**limits)])
    for _ in range(LIMITS.usual_answers):
        ended(ledger, "a", 9999)
    for number in range(LIMITS.usual_answers):
        ended(ledger, "a", 10 + number % 2)
    assert ledger.usual_output("fast") == 11
    assert ledger.usual_output("other") == LIMITS.usual_output


def test_what_one_key_uses_takes_nothing_from_another(ledger: LocalLedger) -> None:
    limits = {"requests_per_minute": 2, "tokens_per_minute": 100, "streams": 1, "spend": SpendLimit(100, "day")}
    hostile, other = (replace(key(**limits), name=name) for name in ("hostile", "other"))
    ledger.use([hostile, other])
    assert ledger.try_take(hostile, "a", Demand(100, Reservation(1, 100)))
    for number in range(100):
        with pytest.raises(Error):
            ledger.try_take(hostile, f"x{number}", Demand(100, Reservation(1, 100)))
    assert ledger.try_take(other, "b", Demand(100, Reservation(1, 100)))


def test_long_answers_to_one_key_make_no_other_keys_requests_larger(ledger: LocalLedger) -> None:
    ledger.use([key(spend=SpendLimit(100, "day"))])

    def answered(caller: str, output: int, model: str = "fast") -> None:
        usage = {"input_tokens": 1, "output_tokens": output}
        ledger.stream_ended(StreamMetrics(duration=1.0, usage=usage, stream_id="x", model=model, key=caller))

    answered("other", 10)
    for _ in range(LIMITS.usual_answers):
        answered("hostile", 100_000)
    for number in range(2 * LIMITS.usual_models):
        answered("hostile", 1, f"up/{number}")
    answered("hostile", 100_000)
    usual = [ledger.usual_output("fast", caller) for caller in ("hostile", "other", "new")]
    assert usual == [100_000, 10, LIMITS.usual_output]


def test_the_keys_whose_answers_are_remembered_are_bounded(ledger: LocalLedger, change_limits: ChangeLimits) -> None:
    change_limits(usual_keys=2)
    ledger.use([key(spend=SpendLimit(100, "day"))])
    for caller in ("a", "b", "c"):
        usage = {"input_tokens": 1, "output_tokens": 2000}
        ledger.stream_ended(StreamMetrics(duration=1.0, usage=usage, stream_id="x", model="fast", key=caller))
    assert [ledger.usual_output("fast", caller) for caller in "abc"] == [LIMITS.usual_output, 2000, 2000]


def test_the_usual_output_of_an_estimate_above_the_limit_is_what_the_request_leaves(ledger: LocalLedger) -> None:
    caller = key(tokens_per_minute=100)
    assert ledger.try_take(caller, "a", Demand(1034, expected=1024))
    assert refused(ledger, caller, 1).reason == "tokens_per_minute"
    ledger.settle("a", 90)
    assert ledger.try_take(caller, "b", Demand(1034, expected=1024))
    ledger.settle("b", 5)
    assert refused(ledger, caller, 10).reason == "tokens_per_minute"


def test_the_models_that_are_remembered_are_bounded(ledger: LocalLedger, change_limits: ChangeLimits) -> None:
    change_limits(usual_models=2)
    ledger.use([key(spend=SpendLimit(100, "day"))])
    for model in ("a", "b", "c"):
        ended(ledger, "x", 10, model)
    assert [ledger.usual_output(model) for model in ("a", "c")] == [LIMITS.usual_output, 10]


def test_what_the_provider_counts_beyond_the_reservation_is_logged(
    ledger: LocalLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gai_fast.spend")
    for reserved in (50, 49):
        ledger.try_take(key(spend=SpendLimit(100, "day")), "a", Demand(0, Reservation(1, reserved)))
        ledger.stream_ended(StreamMetrics(duration=1.0, stream_id="a", key="ann", cost=50, currency="USD"))
    assert len(caplog.records) == 1
    assert "stream a of key 'ann' costs 0.00000000005" in caplog.text


async def test_a_stream_under_way_at_a_reset_still_counts_what_it_uses(ledger: LocalLedger) -> None:
    caller = key(tokens_per_minute=100)
    ledger.use([caller])
    ledger.try_take(caller, "1", Demand(10))
    await ledger.reset(caller.name)
    end(ledger, "1", 50)
    status = ledger.limit_status(caller)
    assert status is not None
    assert [each.remaining for each in status.rates] == [60]
