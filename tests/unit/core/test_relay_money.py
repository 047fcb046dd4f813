"""The accounts of a relay's attempts: each is charged once, with its own tokens, however the stream ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from gai_fast.core.account import Account, Bill
from gai_fast.core.processing.processor import Processor
from gai_fast.core.relay import Relay
from gai_fast.core.transcript import Transcript
from gai_fast.library.decoding import OrderedEvents
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.money import UNIT
from gai_fast.model.settings import Price
from gai_fast.processors import Chain
from gai_fast.processors.usage import UsageProcessor
from gai_fast.providers import get_provider
from tests.legal import sse
from tests.limits import LIMITS

MICRO = UNIT // 10**6
PRICE = Price(input=UNIT, output=10 * UNIT, cached_input=UNIT, cache_write=UNIT, reasoning=10 * UNIT)
PROMPT = 400  # characters: 100 tokens, so 100 micro-dollars
CUT = Error("network", "cut", reason="truncated")


def chunk(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "model": "m", "choices": [choice], **more}


class Request:
    """A request that was sent, unless the test says otherwise."""

    sent = True


class Scene:
    """A relay whose attempts all cost the same, and what its client got."""

    def __init__(
        self, *, retries: int = 0, transcript: bool = False, chain: Chain | None = None, provider: str = "openai"
    ) -> None:
        self.retries = retries
        self.sink = OrderedEvents("compact")
        self.bill = Bill()
        self.request = Request()
        self._provider = provider
        self.attempt = 1
        self.relay = Relay(
            get_provider(provider).adapter(),
            self.sink,
            prompt_characters=PROMPT,
            chain=chain,
            failed=self._failed,
            transcript=Transcript() if transcript else None,
            account=self._account(),
        )
        self.relay.receive_head(200, {"content-type": "text/event-stream"})

    def _account(self) -> Account:
        upstream = str(self.attempt)
        return Account(self.bill, self.request, self._provider, upstream, PRICE, prompt_characters=PROMPT)

    def leave(self) -> dict[str, Any] | None:
        """The client is gone; returns the usage."""
        self.relay.close_account(is_abandoned=True)
        return self.relay.usage_so_far()

    def _failed(self, error: Error) -> bool:
        self.retries -= 1
        return self.retries >= 0

    def again(self, continued: Literal["verified", "prefill"] | None = None) -> None:
        self.attempt += 1
        adapter = get_provider(self._provider).adapter()
        self.relay.begin(adapter, self.sink, account=self._account(), continued=continued)
        self.relay.receive_head(200, {"content-type": "text/event-stream"})

    def say(self, *chunks: Any) -> None:
        self.relay.receive_data(sse(*chunks), 0)

    @property
    def costs(self) -> dict[str, int]:
        """Micro-dollars by attempt."""
        return {charge.upstream: charge.amount // MICRO for charge in self.bill.charges}

    @property
    def reported_cost(self) -> Any:
        """The micro-dollars in the stream's end. None if it has no cost."""
        end: Any = self.sink.take()[-2]
        cost = end.get("usage", {}).get("cost")
        return None if cost is None else round(cost["amount"] * 1e6)


def test_a_failed_attempt_is_charged_where_it_had_content() -> None:
    scene = Scene(retries=2)
    scene.relay.receive_eof(CUT)
    scene.again()
    scene.say(chunk("four" * 5))
    scene.relay.receive_eof(CUT)
    scene.again()
    scene.say(chunk("four"), chunk(finish="stop", usage={"prompt_tokens": 90, "completion_tokens": 1}), "[DONE]")
    assert scene.costs == {"2": 150, "3": 100}
    assert scene.reported_cost == 250


def test_an_attempt_that_repeats_is_charged_for_what_it_repeated() -> None:
    scene = Scene(retries=2, transcript=True)
    scene.say(chunk("four" * 5))
    scene.relay.receive_eof(CUT)
    scene.again("verified")
    scene.say(chunk("four" * 2))
    scene.relay.receive_eof(CUT)
    scene.again("verified")
    scene.say(chunk("four" * 6))
    scene.relay.stop("cancelled")
    assert scene.costs == {"1": 150, "2": 120, "3": 160}
    assert scene.reported_cost == 430


def test_an_attempt_that_goes_on_is_charged_for_the_rest_alone() -> None:
    scene = Scene(retries=1, transcript=True)
    scene.say(chunk("four" * 5))
    scene.relay.receive_eof(CUT)
    scene.again("prefill")
    scene.say(chunk("four" * 3), chunk(finish="stop"), "[DONE]")
    assert scene.costs == {"1": 150, "2": 130}
    assert scene.reported_cost == 280


@pytest.mark.parametrize("transcript", [False, True])
@pytest.mark.parametrize("how", ["stop", "leave", "give_up"])
def test_a_stream_that_ends_between_two_attempts_is_not_charged_twice(transcript: bool, how: str) -> None:
    scene = Scene(retries=1, transcript=transcript)
    scene.say(chunk("four" * 5))
    scene.relay.receive_eof(CUT)
    given = {"stop": ["cancelled"], "leave": [], "give_up": [Error("internal")]}[how]
    getattr(scene if how == "leave" else scene.relay, how)(*given)
    assert scene.costs == {"1": 150}
    if how != "leave":
        assert scene.reported_cost == 150


@pytest.mark.parametrize(
    ("text", "usage", "cost"),
    [
        ("four" * 5, {"prompt_tokens": 0, "completion_tokens": 0}, 150),
        ("four" * 5, {"prompt_tokens": 90, "completion_tokens": 0}, 140),
        ("four" * 5, {"prompt_tokens": 0, "completion_tokens": 2}, 20),
        ("", {"prompt_tokens": 0, "completion_tokens": 0}, 0),
    ],
)
@pytest.mark.parametrize("is_abandoned", [False, True])
def test_a_count_without_output_beside_a_text_is_none(
    text: str, usage: dict[str, int], cost: int, is_abandoned: bool
) -> None:
    """Servers that count nothing fill in zeros (mudler/LocalAI issue 9927). What is told is what is charged."""
    scene = Scene()
    scene.say(chunk(text), chunk(finish="stop", usage=usage))
    if is_abandoned:
        scene.leave()
    else:
        scene.say("[DONE]")
        told: Any = scene.sink.take()[-2]["usage"]  # type: ignore[typeddict-item]  # `finish` has it
        assert told["cost"]["amount"] == cost / 1e6
        assert told["input_tokens"] + 10 * told["output_tokens"] == cost
        assert told.get("source") == ("estimated" if text and not usage["completion_tokens"] else None)
    assert scene.costs == {"1": cost}


def reasons() -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"reasoning_content": "four"}, "finish_reason": None}]}


def calls() -> dict[str, Any]:
    call = {"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"a": 1}'}}
    return {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


@pytest.mark.parametrize(("said", "cost"), [(reasons, 110), (calls, 120)])
@pytest.mark.parametrize("usage", [{"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 100}])
def test_a_count_without_output_is_none_beside_reasoning_or_calls_alone(
    said: Callable[[], dict[str, Any]], cost: int, usage: dict[str, int]
) -> None:
    scene = Scene()
    scene.say(said(), chunk(finish="stop", usage=usage), "[DONE]")
    assert scene.costs == {"1": cost}


def test_zeros_are_zeros_where_the_provider_names_the_cost() -> None:
    """OpenRouter's answers from its cache."""
    scene = Scene(provider="openrouter")
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
    scene.say(chunk("four"), chunk(finish="stop", usage=usage), "[DONE]")
    assert scene.costs == {"1": 0}
    assert "source" not in scene.sink.take()[-2]["usage"]  # type: ignore[typeddict-item]  # `finish` has it


@pytest.mark.parametrize("price", [0, 10_000 * UNIT])
@pytest.mark.parametrize("how", ["end", "leave"])
def test_searches_that_have_a_price_cost_beside_the_tokens(
    monkeypatch: pytest.MonkeyPatch, price: int, how: str
) -> None:
    monkeypatch.setattr(f"{__name__}.PRICE", replace(PRICE, web_search=price // 1000))
    scene = Scene(provider="perplexity")
    usage = {"prompt_tokens": 90, "completion_tokens": 1, "num_search_queries": 2}
    scene.say(chunk("four"), chunk(finish="stop", usage=usage))
    cost = 100 + 2 * price // 10**6 // MICRO
    if how == "leave":
        result = scene.leave()
    else:
        scene.say("[DONE]")
        result = scene.sink.take()[-2]["usage"]  # type: ignore[typeddict-item]  # `finish` has it
    assert result is not None
    assert (scene.costs, result["cost"]["amount"]) == ({"1": cost}, cost / 1e6)
    assert result.get("web_search_requests") == (2 if price else None)


def sound(tokens: int) -> dict[str, Any]:
    audio = {"id": "a", "data": "A" * (tokens * LIMITS.sound_token)}
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"audio": audio}, "finish_reason": None}]}


def test_a_client_that_leaves_in_the_middle_of_sound_pays_for_what_was_generated() -> None:
    scene = Scene(provider="openai")
    scene.say(sound(20), sound(10))
    usage = scene.leave()
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["source"]) == (100, 30, "partial")
    assert scene.costs == {"1": 100 + 300}


def test_sound_and_images_are_estimated_where_the_upstream_counts_nothing() -> None:
    scene = Scene()
    scene.say(sound(20), chunk("four"), chunk(finish="stop"), "[DONE]")
    assert scene.costs == {"1": 100 + 200 + 10}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    scene = Scene(provider="openrouter")
    scene.say({"id": "c", "choices": [{"index": 0, "delta": {"images": [image]}, "finish_reason": None}]})
    scene.relay.stop("cancelled")
    assert scene.costs == {"1": 100 + LIMITS.image_tokens * 10}


def test_each_attempt_is_charged_for_its_own_sound() -> None:
    scene = Scene(retries=1)
    scene.say(sound(20))
    scene.relay.receive_eof(CUT)
    scene.again()
    scene.say(sound(5))
    scene.relay.stop("cancelled")
    assert scene.costs == {"1": 300, "2": 150}


def test_an_attempt_that_was_left_before_its_content_is_charged_for_the_prompt() -> None:
    scene = Scene()
    assert scene.leave() == {
        "input_tokens": 100, "output_tokens": 0, "total_tokens": 100, "source": "partial",
        "cost": {"amount": 0.0001, "currency": "USD"},
    }  # fmt: skip
    assert scene.costs == {"1": 100}


def test_an_attempt_that_was_not_sent_is_not_charged() -> None:
    scene = Scene()
    scene.request.sent = False
    assert scene.leave() is None
    scene = Scene()
    scene.request.sent = False
    scene.relay.stop("cancelled")
    assert scene.costs == {}
    assert scene.reported_cost is None


def test_an_error_before_any_content_is_not_charged_and_one_after_it_is() -> None:
    scene = Scene()
    scene.say({"id": "c", "model": "m", "choices": []})
    scene.relay.fail(CUT)
    assert (scene.costs, scene.reported_cost) == ({}, None)
    scene = Scene()
    scene.say(chunk("four"))
    scene.relay.fail(CUT)
    assert (scene.costs, scene.reported_cost) == ({"1": 110}, 110)


def test_the_providers_last_count_is_that_of_a_stream_that_is_left() -> None:
    scene = Scene(provider="openrouter")
    usage = {"prompt_tokens": 50, "completion_tokens": 30, "cost": 0.5}
    scene.say(chunk("four"), chunk(finish="stop", usage=usage))
    left = scene.leave()
    assert left is not None
    assert (left["input_tokens"], left["output_tokens"], left["cost"]["amount"]) == (50, 30, 0.5)


def test_a_fault_of_ours_is_charged_as_any_end() -> None:
    scene = Scene()
    scene.say(chunk("four"))
    scene.relay.break_off(RuntimeError("a bug"))
    assert (scene.costs, scene.reported_cost) == ({"1": 110}, 110)


def test_tokens_that_a_processor_counted_are_the_ones_that_cost() -> None:
    scene = Scene(chain=Chain([UsageProcessor(lambda text: 7, lambda: "prompt")]))
    scene.say(chunk("four"), chunk(finish="stop"), "[DONE]")
    assert scene.costs == {"1": 77}
    assert scene.relay.end["usage"]["source"] == "counted"
    assert scene.relay.end["usage"]["cost"] == {"amount": 0.000077, "currency": "USD"}
    assert scene.reported_cost == 77


def test_reading_the_figures_of_an_attempt_changes_nothing_that_it_will_cost() -> None:
    def look(scene: Scene) -> tuple[Any, Any]:
        return scene.relay.usage_so_far(), scene.relay.charges_so_far()

    scene = Scene(retries=1)
    usage, charges = look(scene)
    assert (usage["output_tokens"], [charge.amount // MICRO for charge in charges]) == (0, [100])
    scene.relay.receive_eof(CUT)
    assert scene.costs == {}, "the attempt failed before any content"
    scene.again()
    scene.request.sent = False
    assert look(scene) == (None, ())
    scene.request.sent = True
    scene.say(chunk("four" * 5))
    usage, charges = look(scene)
    assert (usage["output_tokens"], [charge.amount // MICRO for charge in charges]) == (5, [150])
    counted = {"prompt_tokens": 90, "completion_tokens": 1}
    scene.say(chunk(finish="stop", usage=counted), "[DONE]")
    assert (scene.costs, scene.reported_cost) == ({"2": 100}, 100)
    assert [charge.amount // MICRO for charge in look(scene)[1]] == [100]


@pytest.mark.parametrize("end", ["cancel", "fail", "leave", "cut", "restart"])
def test_the_providers_last_count_is_not_replaced_by_a_larger_estimate(end: str) -> None:
    scene = Scene(retries=1 if end == "restart" else 0)
    usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}
    scene.say(chunk("four" * 100), chunk(finish="error" if end == "restart" else "stop"), chunk(usage=usage))
    match end:
        case "cancel":
            scene.relay.stop("cancelled")
        case "fail":
            scene.relay.fail(CUT)
        case "leave":
            scene.leave()
        case "cut":
            scene.relay.receive_eof(CUT)
        case _:
            scene.relay.fail_attempt(CUT)
    assert scene.costs == {"1": 50 + 30}
    if end in ("cancel", "fail", "cut"):
        result = scene.relay.end["usage"]
        assert (result["output_tokens"], result.get("source")) == (3, None)


def test_a_count_before_the_providers_finish_reason_is_an_early_one() -> None:
    scene = Scene()
    scene.say(chunk("four" * 100, usage={"prompt_tokens": 50, "completion_tokens": 3}))
    scene.relay.stop("cancelled")
    assert scene.costs == {"1": 50 + 1000}
    assert scene.relay.end["usage"]["source"] == "partial"


class Swallowing(Processor):
    """Leaves the end out."""

    def process(self, event: Event, now_ms: int = 0) -> list[Event]:
        self.cost = event.get("usage", {}).get("cost")
        return [] if event["type"] == "finish" else [event]


def test_an_end_that_a_processor_leaves_out_is_charged() -> None:
    swallowing = Swallowing()
    scene = Scene(chain=Chain([swallowing]))
    scene.say(chunk("four"), chunk(finish="stop", usage={"prompt_tokens": 90, "completion_tokens": 1}))
    scene.relay.receive_eof()
    assert scene.costs == {"1": 100}
    assert [event["type"] for event in scene.sink.take()] == ["start", "text.delta", "done"]


def test_the_cost_that_processors_see_is_that_of_the_stream() -> None:
    class Seeing(Swallowing):
        def process(self, event: Event, now_ms: int = 0) -> list[Event]:
            super().process(event)
            costs.append(self.cost)
            return [event]

    costs: list[Any] = []
    scene = Scene(chain=Chain([Seeing()]))
    hedge = Account(scene.bill, scene.request, "openai", "hedge", PRICE, prompt_characters=PROMPT)
    scene.say(chunk("four"), chunk(finish="stop", usage={"prompt_tokens": 90, "completion_tokens": 1}), "[DONE]")
    assert (scene.costs, scene.reported_cost, hedge.is_closed) == ({"hedge": 100, "1": 100}, 200, True)
    assert {"amount": 0.0002, "currency": "USD"} in costs


def test_the_end_of_a_stream_gives_up_its_other_attempt() -> None:
    for sent, result in ((True, 200), (False, 100)):
        scene, request = Scene(), Request()
        request.sent = sent
        Account(scene.bill, request, "openai", "hedge", PRICE, prompt_characters=PROMPT)
        scene.say(chunk("four"), chunk(finish="stop", usage={"prompt_tokens": 90, "completion_tokens": 1}), "[DONE]")
        assert (scene.reported_cost, sum(scene.costs.values())) == (result, result)


def test_without_an_account_there_is_no_cost() -> None:
    sink = OrderedEvents("compact")
    relay = Relay(get_provider("openrouter").adapter(), sink, prompt_characters=PROMPT)
    relay.receive_data(sse(chunk("x"), chunk(finish="stop", usage={"prompt_tokens": 1, "cost": 1.0}), "[DONE]"))
    assert "cost" not in sink.take()[-2]["usage"]


TEXT = "four" * 25
"""25 tokens of an answer, by length; the prompt has 100."""
ANSWERS: dict[str, Callable[[dict[str, Any]], list[Any]]] = {
    "openai": lambda counts: [chunk(TEXT), chunk(finish="stop", usage=counts), "[DONE]"],
    "openai:responses": lambda counts: [
        {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
        {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": TEXT},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [], "usage": counts}},
    ],
    "anthropic": lambda counts: [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": counts},
        {"type": "message_stop"},
    ],
    "cohere": lambda counts: [
        {"type": "message-start", "id": "m"},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": TEXT}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": counts}}},
    ],
    "gemini": lambda counts: [
        {
            "candidates": [{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}],
            "usageMetadata": counts,
        }
    ],
    "ollama": lambda counts: [
        {"model": "m", "message": {"content": TEXT}, "done": False},
        {"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop", **counts},
    ],
}
"""The chunks of an answer with these counts, by API."""
NAMES = {
    "openai": ("prompt_tokens", "completion_tokens", "total_tokens"),
    "openai:responses": ("input_tokens", "output_tokens", "total_tokens"),
    "anthropic": ("input_tokens", "output_tokens", ""),
    "cohere": ("input_tokens", "output_tokens", ""),
    "gemini": ("promptTokenCount", "candidatesTokenCount", "totalTokenCount"),
    "ollama": ("prompt_eval_count", "eval_count", ""),
}
"""The names of the input, the output and the total; without a total, none of the API has one."""
NOT_COUNTED: tuple[Any, ...] = ("missing", None, True, False, -1, 2.5, 2**53, 2**70, "x", [1], 2**32 - 1)
"""Values that are no count of an answer."""


def answered(provider: str, into: Any, out: Any, total: Any = "missing") -> tuple[dict[str, Any], dict[str, int]]:
    """Returns the usage that the client is told, and the costs."""
    scene = Scene(provider=provider)
    names = zip(NAMES[provider], (into, out, total), strict=True)
    counts = {name: count for name, count in names if name and count != "missing"}
    chunks = ANSWERS[provider](counts)
    if provider == "ollama":
        scene.relay.receive_data(b"".join(json.dumps(each).encode() + b"\n" for each in chunks), 0)
    else:
        scene.say(*chunks)
    scene.relay.receive_eof()
    told: Any = scene.sink.take()[-2]["usage"]  # type: ignore[typeddict-item]  # `finish` has it
    assert told["cost"]["amount"] == round(sum(scene.costs.values()) * 1e-6, 12)
    assert scene.costs == {"1": told["input_tokens"] + 10 * told["output_tokens"]}, "what is told is what is charged"
    return {name: told.get(name) for name in ("input_tokens", "output_tokens", "total_tokens", "source")}, scene.costs


def told(into: int, out: int, source: str | None = "estimated") -> dict[str, Any]:
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, "source": source}


@pytest.mark.parametrize("provider", ANSWERS)
@pytest.mark.parametrize("wrong", NOT_COUNTED)
def test_a_count_that_is_not_measured_is_estimated_with_its_source(provider: str, wrong: Any) -> None:
    assert answered(provider, 7, 5)[0] == told(7, 5, None)
    assert answered(provider, 7.0, "5")[0] == told(7, 5, None)
    assert answered(provider, wrong, 5)[0] == told(100, 5)
    assert answered(provider, 7, wrong)[0] == told(7, 25)
    assert answered(provider, wrong, wrong)[0] == told(100, 25)


@pytest.mark.parametrize("provider", [name for name in ANSWERS if NAMES[name][2]])
@pytest.mark.parametrize("wrong", NOT_COUNTED[:-1])
def test_a_missing_count_is_the_total_less_the_other(provider: str, wrong: Any) -> None:
    assert answered(provider, wrong, 5, 60)[0] == told(55, 5, None)
    assert answered(provider, 7, wrong, 60)[0] == told(7, 53, None)
    assert answered(provider, wrong, 5, wrong)[0] == told(100, 5)
    assert answered(provider, wrong, 5, 4)[0] == told(100, 5), "a total that is less than the other is none"


def test_an_absurd_count_is_noted_for_the_log() -> None:
    scene = Scene()
    scene.say(chunk(TEXT), chunk(finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 2**32 - 1}), "[DONE]")
    assert (scene.costs, scene.bill.absurd_tokens) == ({"1": 7 + 250}, 2**32 - 1)


def test_a_count_far_above_the_text_is_measured_within_the_window() -> None:
    """Hidden reasoning has no characters."""
    scene = Scene()
    scene.say(chunk("four"), chunk(finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 900_000}), "[DONE]")
    assert (scene.costs, scene.bill.absurd_tokens) == ({"1": 7 + 9_000_000}, 0)


def whole(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()


@pytest.mark.parametrize("how", ["cut", "leave", "cancel", "retry"])
@pytest.mark.parametrize(
    ("body", "cost"),
    [
        (whole(TEXT).partition(b"four" * 10)[0] + b"four" * 10, 100 + 100),
        (whole(TEXT, usage={"prompt_tokens": 90, "completion_tokens": 3})[:-1], 90 + 30),
        (whole(TEXT, usage={"prompt_tokens": 90, "completion_tokens": 3})[:-2], 90 + 250),
        (b'{"id": "c", "choices": [', None),
        (b'{"error": {"message": "no', None),
    ],
)
def test_a_json_answer_that_is_cut_off_is_charged_for_what_has_come(body: bytes, cost: int | None, how: str) -> None:
    scene = Scene(retries=1 if how == "retry" else 0)
    scene.relay.receive_head(200, {"content-type": "application/json"})
    scene.relay.receive_data(body, 0)
    match how:
        case "cut" | "retry":
            scene.relay.receive_eof(CUT)
        case "leave":
            scene.leave()
        case "cancel":
            scene.relay.stop("cancelled")
    if cost is None:
        cost = 100 if how in ("leave", "cancel") else None  # the upstream has the prompt
    assert scene.costs == ({} if cost is None else {"1": cost})
    if how == "cut" and cost is not None:
        assert scene.reported_cost == cost
