"""Tokens added up over streams, and counted if a provider sends none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, cast

import pytest

from gai_fast.core.result import Result
from gai_fast.model.events import Event
from gai_fast.model.metrics import StreamMetrics
from gai_fast.processors import StreamInfo, read_processor, usage
from gai_fast.processors.usage import UsageAggregator, UsageProcessor, load_counter
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

from .streams import FINISH, START, delta, through

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cached_input_tokens": 4, "reasoning_tokens": 2}


def stream(*usages: Any, model: str = "m", end: str = "finish") -> list[Any]:
    *snapshots, last = usages
    result = [{"type": "usage", "usage": each} for each in snapshots]
    return [{**START, "model": model}, *result, {"type": end, **({} if last is None else {"usage": last})}]


def test_streams_are_added_up_by_provider_and_model() -> None:
    totals = UsageAggregator()
    for model in ("a", "b", "a"):
        assert list(totals.watch(stream(USAGE, model=model))) == stream(USAGE, model=model)
    assert totals.by_model["p", "a"].total_tokens == 30
    assert totals.by_model["p", "b"].cached_input_tokens == 4
    assert (totals.total.streams, totals.total.input_tokens, totals.total.reasoning_tokens) == (3, 30, 6)


def test_the_last_word_of_a_stream_counts_once() -> None:
    totals = UsageAggregator()
    list(totals.watch(stream({"input_tokens": 1}, {"input_tokens": 10}, USAGE)))
    list(totals.watch(stream({"input_tokens": 7}, None)))
    assert (totals.total.streams, totals.total.input_tokens) == (2, 17)


def test_what_a_reset_made_void_is_not_counted() -> None:
    events: list[Any] = [START, {"type": "usage", "usage": USAGE}, {"type": "stream.reset"}, START, FINISH]
    totals = UsageAggregator()
    list(totals.watch(events))
    assert (totals.total.input_tokens, totals.total.without_usage) == (0, 1)


def test_a_zero_is_a_zero_and_nothing_is_nothing() -> None:
    totals = UsageAggregator()
    totals.add({"input_tokens": 3, "output_tokens": 0, "total_tokens": 3})
    totals.add(None)
    assert (totals.total.streams, totals.total.without_usage, totals.total.output_tokens) == (2, 1, 0)


def test_how_sure_it_is_stays_known() -> None:
    totals = UsageAggregator()
    for source in ("partial", "estimated", "counted", "partial", None):
        totals.add({**USAGE, **({"source": source} if source else {})})
    assert totals.total.tokens_by_source == {"partial": 30, "estimated": 15, "counted": 15}
    assert totals.total.total_tokens == 75


def test_sources_that_nobody_knows_are_in_the_totals_and_open_no_entry() -> None:
    """Programs hand in events of any origin: each new word grew the totals by an entry for ever."""
    totals = UsageAggregator()
    for number in range(1000):
        totals.add({**USAGE, "source": f"word {number}"}, provider="p", model="m")
    assert totals.total.tokens_by_source == totals.by_model["p", "m"].tokens_by_source == {}
    assert (totals.total.streams, totals.total.total_tokens) == (1000, 1000 * USAGE["total_tokens"])


def test_counts_that_are_no_counts_add_nothing() -> None:
    totals = UsageAggregator()
    totals.add({"input_tokens": 3, "output_tokens": None, "total_tokens": "3", "source": "counted"})
    assert (totals.total.input_tokens, totals.total.output_tokens, totals.total.total_tokens) == (3, 0, 0)


def test_results_and_figures_are_added_too() -> None:
    totals = UsageAggregator()
    totals.add(Result(provider="p", model="m", usage=USAGE))
    totals.stream_ended(StreamMetrics(duration=1.0, provider="p", model="alias", answered_by="m", usage=USAGE))
    assert totals.by_model["p", "m"].streams == 2
    result = totals.as_dict()
    assert result["total"]["total_tokens"] == 30
    assert result["models"][0] == {"provider": "p", "model": "m", **result["total"]}


def test_however_many_models_upstreams_name_so_many_are_counted_one_by_one(change_limits: ChangeLimits) -> None:
    change_limits(usage_models=3)
    totals = UsageAggregator()
    for n in range(10):
        totals.add(USAGE, provider="p", model=f"m{n}")
    totals.add(USAGE, provider="p", model="m1")
    assert {key: each.streams for key, each in totals.by_model.items()} == {
        ("p", "m0"): 1,
        ("p", "m1"): 2,
        ("p", "m2"): 1,
        ("other", "other"): 7,
    }
    assert totals.total.streams == 11
    assert totals.as_dict()["models"][-1] == {
        "provider": "other",
        "model": "other",
        **{key: 7 * count for key, count in totals.as_dict()["models"][0].items() if isinstance(count, int)},
        "tokens_by_source": {},
    }


def test_a_name_that_is_no_name_is_not_kept() -> None:
    totals = UsageAggregator()
    totals.add(USAGE, provider="p", model="m" * (LIMITS.model_name + 1))
    totals.add(USAGE, provider="p" * (LIMITS.model_name + 1), model="m")
    totals.add(USAGE, provider="p", model="m" * LIMITS.model_name)
    assert [(len(model), each.streams) for (_, model), each in totals.by_model.items()] == [(5, 2), (256, 1)]


async def test_async_streams_and_those_that_are_left_early() -> None:
    async def source() -> AsyncIterator[Any]:
        for event in stream(USAGE, USAGE):
            yield event

    totals = UsageAggregator()
    assert [event["type"] async for event in totals.awatch(source())] == ["start", "usage", "finish"]
    left = totals.watch(stream(USAGE, USAGE))
    next(left), next(left)
    left.close()
    assert (totals.total.streams, totals.total.input_tokens) == (2, 20)


# ---- counting --------------------------------------------------------------------------------------------------------


def words(text: str) -> int:
    return len(text.split())


ESTIMATED: Any = {**FINISH, "usage": {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16, "source": "estimated"}}


def counted(processor: UsageProcessor, *events: Any) -> Any:
    return through(processor, [START, delta("one t"), delta("wo", choice=1), *events])[-1].get("usage")


def test_an_estimate_is_replaced_by_a_count() -> None:
    expected = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5, "source": "counted"}
    assert counted(UsageProcessor(words, lambda: "a b c"), ESTIMATED) == expected
    assert counted(UsageProcessor(words, lambda: "a b c"), FINISH) == expected


def test_without_the_request_only_the_output_is_counted() -> None:
    expected = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "source": "estimated"}
    assert counted(UsageProcessor(words), ESTIMATED) == expected


@pytest.mark.parametrize("said", [USAGE, {**USAGE, "source": "partial"}, {"input_tokens": 0, "output_tokens": 0}])
def test_what_the_provider_said_stays(said: Any) -> None:
    assert counted(UsageProcessor(words, str), {**FINISH, "usage": said}) == said


@pytest.mark.parametrize(
    ("said", "into", "out"),
    [
        ({"output_tokens": 5}, 3, 5),
        ({"input_tokens": 7}, 7, 2),
        ({"output_tokens": 5, "cached_input_tokens": 2}, 3, 5),
        ({"output_tokens": 5, "cached_input_tokens": 20, "cache_write_input_tokens": 10}, 30, 5),
        ({"input_tokens": 7, "reasoning_tokens": 30}, 7, 30),
    ],
)
def test_a_count_that_is_missing_is_counted_and_is_no_less_than_its_parts(said: Any, into: int, out: int) -> None:
    counts = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, "source": "counted"}
    assert counted(UsageProcessor(words, lambda: "a b c"), {**FINISH, "usage": said}) == {**counts, **said}


def test_arguments_and_reasoning_are_output_and_a_reset_is_not() -> None:
    call: Any = {"type": "tool.call.delta", "arguments": " b"}
    reasoning: Any = {"type": "reasoning.delta", "text": " c"}
    assert counted(UsageProcessor(words), call, reasoning, FINISH)["output_tokens"] == 4
    assert counted(UsageProcessor(words), {"type": "stream.reset"}, reasoning, FINISH)["output_tokens"] == 1


def test_sound_and_images_are_output_and_what_a_reset_made_void_is_not() -> None:
    sound = {"type": "audio.delta", "audio": {"chunk": "A" * 3 * LIMITS.sound_token}}
    image = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}}
    partial = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png", "partial": True}}
    processor = UsageProcessor(len)
    for event in (sound, {"type": "stream.reset", "reason": "network"}, sound, image, partial):
        assert list(processor.process(cast("Event", event))) == [event]
    (finish,) = processor.process({"type": "finish"})
    assert finish["usage"]["output_tokens"] == 3 + LIMITS.image_tokens


def test_text_beyond_the_limit_is_counted_in_blocks_and_not_kept(change_limits: ChangeLimits) -> None:
    change_limits(counted_text=100)
    processor = UsageProcessor(len)
    for _ in range(30):
        list(processor.process({"type": "text.delta", "text": "x" * 10}))
        assert sum(map(len, processor._said)) <= 100
    (finish,) = processor.process({"type": "finish", "finish_reason": "stop"})
    assert finish["usage"]["output_tokens"] == 300
    list(processor.process({"type": "stream.reset", "reason": "reset"}))
    (finish,) = processor.process({"type": "finish", "finish_reason": "stop"})
    assert finish["usage"]["output_tokens"] == 0


def picky(text: str) -> int:
    """Counts characters, as a counter that refuses long texts."""
    if len(text) > LIMITS.counted_text:
        raise ValueError("Input too long to encode safely")
    return len(text)


def test_no_block_is_longer_than_a_counter_takes() -> None:
    size = 3 * LIMITS.counted_text + 7
    processor = UsageProcessor(picky, lambda: "p" * size)
    events: list[Any] = [delta("x" * size), *[delta("y" * (LIMITS.counted_text - 1))] * 3, FINISH]
    usage = through(processor, [START, *events])[-1]["usage"]
    assert usage["output_tokens"] == size + 3 * (LIMITS.counted_text - 1)
    assert (usage["input_tokens"], usage["source"]) == (size, "counted")


def test_text_beyond_what_is_counted_of_one_text_is_estimated(change_limits: ChangeLimits) -> None:
    change_limits(counted_text=10, counted_whole=100)
    usage = through(UsageProcessor(picky, lambda: "p" * 140), [START, delta("x" * 100), FINISH])[-1]["usage"]
    assert usage == {"input_tokens": 100 + 10, "output_tokens": 100, "total_tokens": 210, "source": "estimated"}


def test_text_that_the_counter_refuses_is_estimated() -> None:
    def refuse(text: str) -> int:
        raise ValueError("Input produces 201000 tokens which exceeds chunk limit 200000")

    usage = through(UsageProcessor(refuse, lambda: "p" * 40), [START, delta("x" * 400), FINISH])[-1]["usage"]
    assert usage == {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110, "source": "estimated"}


def test_counting_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "find_spec", lambda name: None)
    load_counter.cache_clear()
    with pytest.raises(ValueError, match=r"processor 'usage': counting needs the extra `tokens`"):
        read_processor({"use": "usage"})


@pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")  # the library's own
def test_a_real_vocabulary(unavailable: Callable[[str], NoReturn]) -> None:
    load_counter.cache_clear()
    try:
        count = load_counter()
    except ValueError:
        unavailable("bpe-openai, of the extra `tokens`")
    assert count("hello world") == 2
    assert count("<|endoftext|>") > 1
    made = read_processor({"use": "usage"}).processor(StreamInfo(prompt=lambda: "hello world"))
    assert made is not None
    assert through(made, [delta("hello"), delta(" world"), FINISH])[-1]["usage"]["total_tokens"] == 4


@pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")  # the library's own
@pytest.mark.parametrize("text", ["x" * 1_000_001, " a" * 201_000, "\U00013000" * 70_000])
def test_the_library_refuses_no_long_answer(text: str, unavailable: Callable[[str], NoReturn]) -> None:
    load_counter.cache_clear()
    try:
        count = load_counter()
    except ValueError:
        unavailable("bpe-openai, of the extra `tokens`")
    usage = through(UsageProcessor(count, lambda: text), [START, delta(text), FINISH])[-1]["usage"]
    assert usage["source"] == "counted"
    assert usage["input_tokens"] == usage["output_tokens"] > 100_000


def test_deltas_without_text_are_not_kept() -> None:
    processor = UsageProcessor(len)
    for _ in range(1000):
        processor.process({"type": "text.delta", "text": ""})
    assert processor._said == []
