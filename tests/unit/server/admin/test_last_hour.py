"""The figures of the last hour, of one process and of several."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gai_fast.model.figures import FIRST_TOKEN_BOUNDS
from gai_fast.model.metrics import StreamMetrics
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.last_hour import LastHour, together
from gai_fast.server.admin.running_streams import RunningSums
from gai_fast.server.observe.metrics import PrometheusSink
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.waiting import until


class Loop:
    """Runs what is due when a test says so."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.call: Any = None
        self.is_cancelled = False

    def call_later(self, wait: float, call: Any, *arguments: Any) -> Any:
        self.waits.append(wait)
        self.call = lambda: call(*arguments)
        return self

    def cancel(self) -> None:
        self.is_cancelled = True


class Server:
    """Counts of one process, its running streams and a clock."""

    def __init__(self) -> None:
        self.sink = PrometheusSink(["m"])
        self.running = RunningSums(0, 0, 0)
        self.now = 3_000_010.0
        self.loop = Loop()
        self.hour = LastHour(self.sink, lambda: self.running, lambda: self.now)
        self.hour.begin(cast("Any", self.loop))

    def count(self, **about: Any) -> None:
        usage = {"input_tokens": 3, "output_tokens": 8}
        figures: dict[str, Any] = {"duration": 1.0, "model": "m", "provider": "p", "upstream": "up", "usage": usage}
        one = StreamMetrics(**{**figures, **about})
        self.sink.stream_ended(one)
        self.sink.request_ended("/r", 200, one)

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.loop.call()


def test_a_slot_has_what_has_ended_in_it_and_the_last_one_is_not_over() -> None:
    server = Server()
    server.count()
    server.running = RunningSums(2, 40, 400)
    assert server.loop.waits == [20.0]
    server.pass_(20.0)
    assert server.loop.waits == [20.0, 30.0]
    server.count(time_to_first_token=0.003, outcome="failed", code="timeout")
    server.count(outcome="failed", code="invalid_request")
    server.sink.request_refused("/r", 401, "unauthorized")
    server.running = RunningSums(1, 45, 450)
    first, second = plain(together([server.hour.slots()]))
    assert (first["at"], second["at"]) == ("1970-02-04T17:20:00.000Z", "1970-02-04T17:20:30.000Z")
    assert (first["requests"], first["errors"], first["deltas"], first["active"]) == (1, 0, 40, 2)
    assert (second["requests"], second["errors"], second["client_errors"]) == (3, 3, 2)
    assert (second["deltas"], second["active"], second["output_tokens"]) == (5, 1, 16)
    counts = dict(zip(FIRST_TOKEN_BOUNDS, second["first_token_seconds"], strict=False))
    assert (counts[0.005], sum(counts.values())) == (1, 1)
    kinds = {(each["code"], each["side"]): each["count"] for each in second["kinds"]}
    assert kinds == {("timeout", "upstream"): 1, ("invalid_request", "client"): 1, ("unauthorized", "client"): 1}
    assert plain(together([server.hour.slots()])) == [first, second], "asking changes nothing"


def test_an_hour_is_kept_however_long_the_server_runs() -> None:
    server = Server()
    server.now = 3_000_000.0
    for _ in range(3 * LIMITS.history_slots):
        server.pass_(LIMITS.history_slot)
    assert len(server.hour.slots()) == LIMITS.history_slots + 1
    for number in range(LIMITS.errors_sampled + 1):
        server.count(outcome="failed", code=f"c{number}")
    [*_, last] = plain(together([server.hour.slots(), server.hour.slots()]))
    assert len(last["kinds"]) == LIMITS.errors_sampled
    server.hour.close()
    assert server.loop.is_cancelled


def test_processes_are_added_slot_by_slot_and_one_that_started_late_has_fewer() -> None:
    one, two = Server(), Server()
    one.count()
    one.pass_(20.0)
    one.count(outcome="failed", code="timeout")
    two.now = one.now
    two.hour = LastHour(two.sink, lambda: two.running, lambda: two.now)
    two.count(outcome="failed", code="timeout")
    two.running = RunningSums(3, 9, 90)
    rows = plain(together([one.hour.slots(), two.hour.slots()]))
    assert [row["requests"] for row in rows] == [1, 2]
    assert [row["active"] for row in rows] == [0, 3]
    assert rows[1]["kinds"] == [
        {"code": "timeout", "provider": "p", "upstream": "up", "side": "upstream", "count": 2},
    ]


def test_a_clock_that_is_set_back_or_stood_still_makes_no_slot_twice() -> None:
    server = Server()
    for seconds in (20.0, -100.0, 500.0, 0.0):
        server.pass_(seconds)
    numbers = [slot["number"] for slot in server.hour.slots()]
    assert numbers == sorted(set(numbers))


def test_sums_that_fall_are_no_negative_figures() -> None:
    server = Server()
    server.running = RunningSums(1, 50, 500)
    server.pass_(20.0)
    server.running = RunningSums(0, 0, 0)
    assert server.hour.slots()[-1]["deltas"] == 0


async def test_the_timer_of_a_loop_takes_slots(change_limits: ChangeLimits) -> None:
    change_limits(history_slot=0.01)
    hour = LastHour(PrometheusSink([]), lambda: RunningSums(0, 0, 0))
    hour.begin(asyncio.get_running_loop())
    await until(lambda: len(hour.slots()) > 2)
    hour.close()
    hour.close()


@pytest.mark.parametrize("parts", [[], [[]]])
def test_of_nobody_there_is_nothing(parts: Any) -> None:
    assert together(parts) == []
