"""`gai_fast/net/sharing/remainder.py`: the figures of a stream that left a call which others read on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.money import Charge
from gai_fast.model.settings import ModelSettings, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.sharing.remainder import NullClient, Remainder, remainder_spec


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_the_figures_are_those_of_the_stream_that_left_with_the_cost_of_the_call(outcome: Outcome) -> None:
    approved: list[str] = []
    call = cast(Any, SimpleNamespace(approve=lambda: approved.append("yes")))
    left = StreamMetrics(duration=1.0, outcome="disconnected", stream_id="s", deltas=2, usage={"output_tokens": 2})
    remainder = Remainder(call, left, (), lambda receiver: cast(Any, receiver))
    charge = Charge("openai", "up", 7, "USD")
    figures = StreamMetrics(
        duration=9.0, outcome=outcome, usage={"output_tokens": 50}, cost=7, currency="USD", charges=(charge,)
    )
    result = remainder.ended(cast(Any, None), figures, ())
    assert result is not None
    assert (result.duration, result.outcome, result.stream_id, result.deltas) == (1.0, "disconnected", "s", 2)
    usage = {"output_tokens": 50, "cost": {"amount": 7e-12, "currency": "USD"}}
    assert (result.usage, result.cost, result.currency, result.charges) == (usage, 7, "USD", (charge,))
    assert approved == (["yes"] if outcome == "finished" else [])
    assert remainder.finds(cast(Any, None))
    receiver: Any = object()
    assert remainder.open(cast(Any, None), receiver, cast(Any, None)) is receiver


BEFORE, PART, ALL = (Charge("openai", "up", amount, "USD") for amount in (100, 3, 7))


@pytest.mark.parametrize(
    ("earlier", "own", "of_the_call", "paid"),
    [
        ((BEFORE,), (BEFORE, PART), (ALL,), (BEFORE, ALL)),
        ((BEFORE,), (BEFORE,), (), (BEFORE,)),
        ((), (PART,), (), (PART,)),
        ((), (), (), ()),
    ],
)
def test_charges_of_earlier_attempts_add_up_and_none_is_lost(
    earlier: tuple[Charge, ...], own: tuple[Charge, ...], of_the_call: tuple[Charge, ...], paid: tuple[Charge, ...]
) -> None:
    """The charges of the call replaced all others."""
    left = StreamMetrics(duration=1.0, usage={"output_tokens": 2}, charges=own)
    remainder = Remainder(cast(Any, None), left, earlier, lambda receiver: cast(Any, receiver))
    result = remainder.ended(cast(Any, None), StreamMetrics(duration=9.0, outcome="failed", charges=of_the_call), ())
    assert result is not None
    assert result.charges == paid
    assert result.cost == (sum(charge.amount for charge in paid) if paid else None)
    assert result.usage is not None
    assert result.usage["output_tokens"] == 2


def test_the_stream_that_reads_on_writes_nothing_and_asks_nobody_again() -> None:
    stream = StreamSettings(on_malformed="error", on_midstream_failure="restart", heartbeat=5.0)
    upstream = UpstreamSettings("up", "openai", "", retries=2)
    model = ModelSettings("m", upstream, "gpt", stream, fallback=("n",), fallback_on={"timeout": "n"})
    spec = StreamSpec(model, {}, cast(Any, None), caller="anna", prompt_characters=5, endpoint="/v1")
    made = remainder_spec(spec, cast(Any, None))
    assert (made.model.upstream.retries, made.model.fallback, made.model.fallback_on) == (0, (), {})
    assert (made.model.stream.on_malformed, made.model.stream.on_midstream_failure) == ("error", "error")
    assert (made.caller, made.prompt_characters, made.endpoint) == ("anna", 5, "/v1")
    made.output.event({})
    made.output.heartbeat()
    assert made.output.take_pieces() == ()


def test_nobody_takes_everything() -> None:
    client = NullClient()
    client.commit()
    client.flush()
    client.write((b"x",))
    client.end(())
    client.fail(Error("internal"), ())
    client.abort(Error("internal"))
    assert client.direct is None
