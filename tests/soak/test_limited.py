"""`make soak-limits`, for some seconds; and its expectations, on requests whose verdicts are known."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.integration.stores.servers import PROGRAM
from tests.integration.test_cli import environment
from tests.soak.limited.__main__ import compare_spend, differences, unmeasured
from tests.soak.limited.callers import UNIT, Caller, Load
from tests.soak.limited.clock import WallClock, request_id
from tests.soak.limited.expected import (
    AFTERWARDS,
    PATIENCE,
    REQUESTS,
    SPEND,
    STREAMS,
    TOKENS,
    Asked,
    Verdict,
    judge_requests,
    judge_spend,
    judge_streams,
    judge_tokens,
    note_disturbances,
)
from tests.soak.limited.probes import Probes, percentile
from tests.soak.limited.upstream import Upstream

linux = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
_numbers = count(1)


def asked(sent: float, ended: float = math.inf, reason: str = "", **more: float) -> Asked:
    """Returns a request that is decided on within 10 ms, and whose stream runs until 10 ms before its end is read."""
    each = Asked(next(_numbers), sent, sent + 0.01, ended, reason=reason, finishing=ended - 0.01)
    for name, value in more.items():
        setattr(each, name, value)
    return each


@linux
async def test_a_short_run_finds_no_difference(tmp_path: Path) -> None:
    store = "redis" if PROGRAM else "sqlite"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.limited", "--minutes", "0.05", "--store", store, "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert rows["faults"] == ["faults", "0"]
    for name in (STREAMS, SPEND):
        assert rows[name][-1] == "0"
        assert int(rows[name][2].replace(",", "")) > 0
        assert int(rows[name][3].replace(",", "")) > 0


# ---- limits a minute -------------------------------------------------------------------------------------------------


def in_a_row(admitted: int, refused: int, apart: float, reason: str = REQUESTS) -> list[Asked]:
    return [
        asked(number * apart, number * apart + 0.02, "" if number < admitted else reason)
        for number in range(admitted + refused)
    ]


def test_a_minute_admits_its_number_at_once_and_then_one_after_the_other() -> None:
    verdict = judge_requests(20, in_a_row(20, 5, apart=0.001))
    assert (verdict.allowed, verdict.refused, verdict.least, verdict.most, verdict.difference) == (20, 5, 20, 20, 0)
    later = [*in_a_row(20, 5, apart=0.001), asked(3.1, 3.2), asked(3.2, 3.3, REQUESTS)]
    assert judge_requests(20, later).difference == 0


@pytest.mark.parametrize(("admitted", "off"), [(19, 1), (21, 1), (25, 5)])
def test_a_minute_that_admits_more_or_less_is_found(admitted: int, off: int) -> None:
    assert judge_requests(20, in_a_row(admitted, 25 - admitted, apart=0.001)).difference == off


def test_a_request_that_should_have_been_admitted_counts_with_what_it_would_have_used() -> None:
    refused = asked(0.0, 0.01, TOKENS, estimate=10, used=100)
    verdict = judge_tokens(100, [refused, asked(0.1, 0.2, estimate=10, used=10)], lambda _: 0.0)
    assert (verdict.least, verdict.most) == (1, 1)


def test_a_refusal_by_another_limit_does_not_count() -> None:
    requests = [*in_a_row(5, 3, apart=0.001, reason=STREAMS), *in_a_row(15, 2, apart=0.002)]
    verdict = judge_requests(20, requests)
    assert (verdict.allowed, verdict.refused, verdict.difference) == (20, 2, 0)


def test_tokens_are_counted_by_their_estimate_and_then_by_their_number() -> None:
    first = asked(0.0, 1.0, estimate=90, used=20)
    refused = asked(0.5, 0.51, TOKENS, estimate=50, used=10)
    second = asked(1.5, 1.6, estimate=70, used=500)
    third = asked(2.0, 2.1, TOKENS, estimate=1, used=1)
    fine = [first, refused, second, third]
    assert judge_tokens(100, fine, lambda _: 0.1).difference == 0
    third.reason = ""
    assert judge_tokens(100, fine, lambda _: 0.1).difference == 1


# ---- streams and spend -----------------------------------------------------------------------------------------------


def test_streams_are_judged_by_those_that_surely_run() -> None:
    running = [asked(0.0, 10.0), asked(0.1, 5.0)]
    fine = [*running, asked(1.0, 1.02, STREAMS), asked(5.1, 6.0)]
    assert judge_streams(2, fine).wrong == []
    assert judge_streams(2, fine).open == 0
    assert len(judge_streams(2, [*running, asked(1.0, 2.0)]).wrong) == 1
    assert len(judge_streams(2, [*running, asked(5.1, 5.12, STREAMS)]).wrong) == 1


def test_a_request_that_meets_an_end_may_be_decided_on_either_way() -> None:
    for reason in ("", STREAMS):
        verdict = judge_streams(1, [asked(0.0, 5.0), asked(4.985, 6.0, reason)])
        assert (verdict.open, verdict.difference) == (1, 0)


def test_a_client_that_has_left_counts_until_the_upstream_knows() -> None:
    left = asked(0.0, left=1.0, closed=1.5)
    assert judge_streams(1, [left, asked(0.5, 0.6)]).difference == 1
    assert judge_streams(1, [left, asked(1.2, 1.3, STREAMS)]).open == 1
    assert judge_streams(1, [left, asked(1.6, 1.7, STREAMS)]).difference == 1


def test_a_client_that_has_left_counts_until_the_gateway_tells_the_end_of_its_stream() -> None:
    left = asked(0.0, left=1.0, finishing=1.1)
    after = asked(1.6, 1.7, STREAMS)
    assert judge_streams(1, [left, after]).open == 1
    left.logged = 1.5
    assert judge_streams(1, [left, after]).difference == 1
    assert judge_streams(1, [left, asked(1.05, 1.2, STREAMS)]).open == 1


def test_spend_is_judged_by_what_has_surely_been_spent() -> None:
    first = asked(0.0, 1.0, least_cost=60, most_cost=60)
    second = asked(2.0, 3.0, least_cost=60, most_cost=60)
    fine = [first, second, asked(4.0, 4.1, SPEND)]
    assert judge_spend(100, fine).wrong == []
    assert (judge_spend(100, fine).allowed, judge_spend(100, fine).refused, judge_spend(100, fine).open) == (2, 1, 0)
    assert len(judge_spend(100, [first, second, asked(4.0, 4.1)]).wrong) == 1
    assert len(judge_spend(100, [first, asked(2.0, 2.1, SPEND)]).wrong) == 1
    assert judge_spend(100, [first, second, asked(2.5, 2.6, SPEND)]).open == 1, "a stream that runs has reserved more"
    broken = asked(2.0, 3.0, least_cost=10, most_cost=60)
    assert judge_spend(100, [first, broken, asked(4.0, 4.1, SPEND)]).open == 1
    short = asked(4.0, 4.1, SPEND, input_cost=41)
    assert judge_spend(100, [first, short]).open == 1, "the estimate of a prompt is approximate"
    assert judge_spend(100, [first, asked(4.0, 4.1, SPEND, input_cost=19)]).difference == 1
    cut = asked(2.0, 3.0, is_cut=True, reached=2.0, finishing=math.inf, least_cost=10, most_cost=60)
    assert judge_spend(100, [first, cut, asked(4.0, 4.1, SPEND)]).open == 1


def test_while_the_gateway_stands_still_nothing_is_judged() -> None:
    slow = asked(0.0, 3.0, answered=2.0)
    wrong = [asked(0.5, 1.0, STREAMS), asked(2.0 + AFTERWARDS - 0.1, 20.0, STREAMS)]
    late = asked(2.1 + AFTERWARDS, 20.0, STREAMS)
    requests = [slow, *wrong, late]
    assert note_disturbances(requests) == 1
    verdict = judge_streams(2, requests)
    assert verdict.open == 3
    assert verdict.difference == 1


def test_a_decision_in_time_is_judged_whoever_waits_meanwhile() -> None:
    running, slow = asked(0.0, 10.0), asked(0.5, 3.0, answered=0.6 + PATIENCE)
    in_time = asked(1.0, 2.0)
    requests = [running, slow, in_time]
    assert note_disturbances(requests) == 1
    verdict = judge_streams(1, requests)
    assert verdict.open == 1
    assert [line.partition(":")[0] for line in verdict.wrong] == [f"request {in_time.number}"]


def test_what_ends_beside_an_end_that_waited_long_may_count_later() -> None:
    slow = asked(0.0, 3.0, finishing=1.5, least_cost=10, most_cost=10)
    beside = asked(0.0, 2.9, finishing=2.8, least_cost=90, most_cost=90)
    requests = [slow, beside, asked(3.1, 3.2), asked(3.1 + AFTERWARDS, 9.0)]
    assert note_disturbances(requests) == 1
    verdict = judge_spend(100, requests)
    assert verdict.open == 1
    assert verdict.difference == 1


# ---- the gateway's clock ---------------------------------------------------------------------------------------------


def line(number: int, at: float, **more: object) -> str:
    """Returns a line of the access log, written at a moment of the monotonic clock."""
    wall = datetime.fromtimestamp(at + time.time() - time.monotonic(), UTC).isoformat(timespec="milliseconds")
    return json.dumps({"ts": wall.replace("+00:00", "Z"), "msg": "stream", "request_id": request_id(number), **more})


def test_an_answer_has_ended_when_the_log_has_its_line() -> None:
    clock = WallClock()
    ends = clock.ends(
        [
            "at most 15000 connections are accepted",
            json.dumps({"ts": "2026-11-22T00:00:00.000Z", "msg": "started"}),
            line(1, 100.0),
            line(2, 100.5, msg="request", status=429),
            line(3, 101.0, msg="request", stream_id="goes on"),
            line(4, 101.0, msg="request", stream_id="goes on"),
            line(4, 105.0),
            line(5, 106.0)[:-9],
        ]
    )
    assert ends == {
        1: pytest.approx(100.0, abs=0.01),
        2: pytest.approx(100.5, abs=0.01),
        3: math.inf,
        4: pytest.approx(105.0, abs=0.01),
    }


def test_a_wall_clock_that_is_set_makes_ends_late_and_never_early(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    clock = WallClock()
    before = line(1, 100.0)
    monkeypatch.setattr(time, "time", lambda: wall() - 5.0)
    after = line(2, 100.0)
    ends = clock.ends([before, after])
    assert min(ends.values()) >= 99.99


# ---- the exit code ---------------------------------------------------------------------------------------------------


def test_differences_of_a_rate_up_to_one_percent_are_reported_only_in_the_table() -> None:
    assert differences([Verdict(REQUESTS, 1010, 5, 1000, 1000)]) == []
    assert differences([Verdict(REQUESTS, 1011, 5, 1000, 1000)]) == [
        "requests_per_minute: 11 of 1000 requests differ, more than 1%"
    ]
    assert differences([Verdict(REQUESTS, 98, 5, 97, 97)]) == []
    assert differences([Verdict(REQUESTS, 99, 5, 97, 97)]) == [
        "requests_per_minute: 2 of 97 requests differ, more than 1%"
    ]
    assert differences([Verdict(SPEND, 5, 5, 5, 5, wrong=["request 7"])]) == ["spend: request 7"]


def test_a_run_that_has_measured_nothing_does_not_pass() -> None:
    load = Load(Upstream(), seed=1, seconds=1.0)
    verdicts: Sequence[tuple[Caller, Verdict]] = [
        (caller, Verdict(name, 0, 0, 0, 0)) for caller in load.callers for name in caller.limits
    ]
    lines = unmeasured(load, Probes(), verdicts, Namespace(workers=2, minutes=1.0))
    for words in (*(REQUESTS, TOKENS, STREAMS, SPEND), "workers have answered", "timed", "cancelled", "left", "log"):
        assert any(words in line for line in lines), words
    assert compare_spend(load.callers, {}).faults == ["no key's spend was compared"]


def test_the_report_of_spend_must_have_what_the_upstream_has_counted() -> None:
    caller = Caller("ann", {SPEND: UNIT}, [asked(0.0, 1.0, least_cost=60, most_cost=60)])
    assert compare_spend([caller], {"ann": 60})[:3] == (1, 0, 60)
    other = Caller("bob", {SPEND: UNIT}, [asked(0.0, 1.0, least_cost=9, most_cost=9)])
    assert len(compare_spend([caller, other], {"ann": 61, "bob": 9}).faults) == 1
    assert len(compare_spend([caller], {}).faults) == 2
    caller.asked.append(asked(0.0, 1.0, least_cost=10, most_cost=60))
    assert compare_spend([caller], {"ann": 90})[:3] == (0, 1, 90)


def test_percentiles_are_by_nearest_rank() -> None:
    times = [each / 100 for each in range(100, 0, -1)]
    assert [percentile(times, percent) for percent in (50, 99, 100)] == [0.5, 0.99, 1.0]
    assert math.isnan(percentile([], 99))
