"""The figures of streams are added up by who answered."""

from __future__ import annotations

import pytest

from gai_fast.model.figures import FIRST_TOKEN_BOUNDS, GAP_BOUNDS, SERIES
from gai_fast.model.limits import OTHER
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Charge
from gai_fast.server.observe.counts import StreamCounts
from tests.limits import LIMITS


def stream(**about: object) -> StreamMetrics:
    return StreamMetrics(**{"duration": 1.0, "model": "m", "provider": "p", **about})


def test_the_counts_of_expected_models_begin_at_zero() -> None:
    counts = StreamCounts(["m"])
    counts.request_ended("/r", 200, stream())
    counts.expect([("p", "m"), ("q", "n")], ["/r", "/s"])
    assert counts.requests == {
        (endpoint, provider, model, 200, "finished", ""): int((endpoint, model) == ("/r", "m"))
        for endpoint in ("/r", "/s")
        for provider, model in (("p", "m"), ("q", "n"))
    }
    assert set(counts.models) == {("p", "m"), ("q", "n")}
    assert set(counts.models["q", "n"].numbers.values()) == {0}


def test_the_cost_of_a_stream_is_counted_by_who_asked_and_who_was_asked() -> None:
    """Every attempt has its own charge, whichever answered at last."""
    counts = StreamCounts(["m"])
    counts.add_cost(("alice", "m", "p", "USD"), 0)
    charges = (Charge("p", "up", 3, "USD"), Charge("q", "other", 4, "EUR"), Charge("p", "up", 1, "USD"))
    counts.stream_ended(stream(key="alice", charges=charges))
    counts.stream_ended(stream(key="bob", model="made-up", charges=charges[:1]))
    assert counts.costs == {
        ("alice", "m", "p", "USD"): 4,
        ("alice", "m", "q", "EUR"): 4,
        ("bob", OTHER, "p", "USD"): 3,
    }


def test_streams_are_told_apart_by_provider_and_model() -> None:
    counts = StreamCounts(["m", "n"])
    for each in (stream(), stream(), stream(model="n"), stream(provider="q"), stream(model="made-up")):
        counts.stream_ended(each)
    assert list(counts.models) == [("p", "m"), ("p", "n"), ("q", "m"), ("p", OTHER)]
    assert [counted.histograms["duration"].sum for counted in counts.models.values()] == [2.0, 1.0, 1.0, 1.0]


def test_a_request_is_counted_by_its_status_its_outcome_and_its_code() -> None:
    counts = StreamCounts(["m"])
    counts.request_ended("/r", 200, stream())
    counts.request_ended("/r", 200, stream())
    counts.request_ended("/r", 200, stream(outcome="failed", code="network", upstream="up"))
    counts.request_ended("/r", 503, stream(outcome="failed", code="overloaded", model="made-up"))
    counts.request_ended("/r", 200, stream(outcome="cancelled"))
    counts.request_ended("/r", 499, stream(outcome="disconnected"))
    counts.request_refused("/r", 400, "invalid_request")
    counts.request_refused("/r", 500, "internal")
    assert counts.requests == {
        ("/r", "p", "m", 200, "finished", ""): 2,
        ("/r", "p", "m", 200, "failed", "network"): 1,
        ("/r", "p", OTHER, 503, "failed", "overloaded"): 1,
        ("/r", "p", "m", 200, "cancelled", ""): 1,
        ("/r", "p", "m", 499, "cancelled", ""): 1,
        ("/r", "", "", 400, "refused", "invalid_request"): 1,
        ("/r", "", "", 500, "failed", "internal"): 1,
    }
    assert counts.errors == {
        ("network", "p", "up"): 1,
        ("overloaded", "p", ""): 1,
        ("invalid_request", "", ""): 1,
        ("internal", "", ""): 1,
    }


def test_a_refused_stream_has_no_figures() -> None:
    counts = StreamCounts(["m"])
    counts.stream_ended(stream(outcome="refused", code="unsupported"))
    assert not counts.models


def test_all_figures_of_a_model_are_added_up() -> None:
    counts = StreamCounts(["m"])
    gaps = (4, *(0,) * (len(GAP_BOUNDS) - 1), 1)
    usage = {"input_tokens": 3, "output_tokens": 5, "reasoning_tokens": 0, "source": "provider"}
    result = {"gaps": gaps, "gap_sum": 99.0, "usage": usage, "deltas": 6, "events": 9, "bytes_in": 70, "bytes_out": 80}
    counts.stream_ended(stream(time_to_first_token=0.0005, retries=1, **result))
    counts.stream_ended(stream(backpressure=2.0, outcome="disconnected", fallbacks=2, **result))
    model = counts.models["p", "m"]
    assert model.histograms["gaps"].counts == [2 * count for count in gaps]
    assert model.histograms["gaps"].sum == 198.0
    assert model.histograms["time_to_first_token"].counts == [1] + [0] * len(FIRST_TOKEN_BOUNDS)
    assert sum(model.histograms["paused"].counts) == 1
    assert model.histograms["paused"].sum == 2.0
    expected = {
        "input_tokens": 6,
        "output_tokens": 10,
        "cached_input_tokens": 0,
        "cache_write_input_tokens": 0,
        "reasoning_tokens": 0,
        "deltas": 12,
        "other_events": 6,
        "bytes_in": 140,
        "bytes_out": 160,
        "is_disconnected": 1,
        "retries": 1,
        "fallbacks": 2,
    }
    assert expected.items() <= model.numbers.items()


@pytest.mark.parametrize("cache", [None, "miss", "hit"])
def test_each_series_of_the_table_is_counted(cache: str | None) -> None:
    """Of a shared answer, only what is no work of the upstream."""
    usage = {each.source: at for at, each in enumerate(SERIES, 100) if each.field == "usage"}
    gaps = (0, 2, *[0] * (len(GAP_BOUNDS) - 1))
    metrics = stream(
        time_to_first_token=0.5,
        upstream_time_to_first_token=0.125,
        gaps=gaps,
        gap_sum=0.004,
        duration=1.5,
        gateway_overhead=0.25,
        backpressure=0.75,
        usage=usage,
        deltas=3,
        events=8,
        bytes_in=70,
        bytes_out=90,
        outcome="disconnected",
        retries=11,
        fallbacks=13,
        cache=cache,
    )
    counts = StreamCounts(["m"])
    counts.stream_ended(metrics)
    counted = counts.models["p", "m"]
    for each in SERIES:
        is_counted = not (each.is_work and cache == "hit")
        if each.metric.bounds:
            value = metrics.gap_sum if each.field == "gaps" else getattr(metrics, each.source)
            assert counted.histograms[each.source].sum == is_counted * value
        else:
            value = usage[each.source] if each.field == "usage" else getattr(metrics, each.source)
            assert counted.numbers[each.source] == is_counted * value


def test_a_shared_answer_is_no_work_of_the_upstream() -> None:
    counts = StreamCounts(["m"])
    about = {"upstream_time_to_first_token": 0.5, "gaps": (1,) * (len(GAP_BOUNDS) + 1), "gap_sum": 1.0, "bytes_in": 9}
    for cache in (None, "miss", "joined", "hit"):
        counts.stream_ended(
            stream(cache=cache, usage={"input_tokens": 7}, time_to_first_token=0.5, bytes_out=4, **about)
        )
    counted = counts.models["p", "m"]
    assert [counted.numbers[name] for name in ("input_tokens", "bytes_in", "bytes_out")] == [14, 18, 16]
    assert counted.histograms["gaps"].sum == 2.0
    assert sum(counted.histograms["upstream_time_to_first_token"].counts) == 2
    assert sum(counted.histograms["time_to_first_token"].counts) == 4


def test_a_number_of_tokens_that_is_none_is_not_counted() -> None:
    """A processor may write anything into the usage."""
    counts = StreamCounts(["m"])
    counts.stream_ended(stream(usage={"input_tokens": 2.5, "output_tokens": "3", "reasoning_tokens": None, "x": 1}))
    counts.stream_ended(stream(usage={"input_tokens": 1, "cached_input_tokens": 2, "cache_write_input_tokens": 3}))
    numbers = counts.models["p", "m"].numbers
    tokens = {name: number for name, number in numbers.items() if name.endswith("_tokens") and number}
    assert tokens == {"input_tokens": 1, "cached_input_tokens": 2, "cache_write_input_tokens": 3}


def test_an_absurd_number_of_tokens_leaves_counts_that_workers_can_tell() -> None:
    counts = StreamCounts(["m"])
    counts.stream_ended(stream(usage={"input_tokens": 2**80, "output_tokens": 3}))
    numbers = counts.models["p", "m"].numbers
    assert (numbers["input_tokens"], numbers["output_tokens"]) == (LIMITS.priced_tokens, 3)
