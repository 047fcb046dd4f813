"""Usage of every recorded answer, through the relay as a server drives it: always there, and of a known source."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.library.decoding import OrderedEvents
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from tests.corpus.recordings import RECORDED, name_of, recordings_of

pytestmark = pytest.mark.usefixtures("judged")

PROMPT = 400
COUNTS = ["input_tokens", "output_tokens", "total_tokens"]


def begun(recording: Any, size: int | None = None, prompt: int | None = PROMPT) -> tuple[Relay, OrderedEvents]:
    """Returns a relay that has been given so many bytes of an answer."""
    sink = OrderedEvents("compact")
    relay = Relay(get_provider(name_of(recording)).adapter("asked"), sink, prompt_characters=prompt)
    relay.receive_head(recording.status, {name.lower(): value for name, value in recording.headers.items()})
    relay.receive_data(recording.body[:size])
    return relay, sink


def end_of(sink: OrderedEvents) -> Any:
    """Returns the `finish` or the `error`; `None` if nothing began before it."""
    events = sink.take()
    assert events[-1]["type"] == "done"
    return events[-2] if events[0]["type"] == "start" else None


def check(usage: Any, source: str | None) -> None:
    """A provider may tell one side only (Ollama does of a cached prompt, Databricks at the start); we never."""
    assert all(type(usage[name]) is int and usage[name] >= 0 for name in COUNTS), usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage
    assert usage.get("source") == source, usage


def is_measured(usage: dict[str, Any], relay: Relay) -> bool:
    return "total_tokens" in usage and bool(usage["output_tokens"] or not relay.deltas)


def source_of_early_end(relay: Relay, usage: dict[str, Any]) -> str | None:
    """Returns the `source` of the usage of an answer that was cut off, or that its provider ended with a failure.

    None if the provider had given its finish reason and its count: that count is final.
    """
    return "partial" if "source" in usage or not relay._answer.adapter.word() else None


@pytest.mark.parametrize("provider", RECORDED)
def test_every_finished_stream_says_what_it_used(provider: str) -> None:
    checked = 0
    for recording in recordings_of(provider):
        ends = []
        for prompt in (PROMPT, None):
            relay, sink = begun(recording, prompt=prompt)
            relay.receive_eof()
            ends.append(end_of(sink))
        end, said = ends
        if end is None:
            continue
        checked += 1
        if end["type"] == "error":
            check(end["usage"], source_of_early_end(relay, end["usage"]))
        elif (
            "usage" in said and "total_tokens" in said["usage"] and (said["usage"]["output_tokens"] or not relay.deltas)
        ):
            assert end["usage"] == said["usage"], "what the provider says stays"
            check(end["usage"], None)
        elif "usage" in said:  # one count is missing, or there is no output beside a text
            check(end["usage"], "estimated")
            counted = {name: tokens for name, tokens in said["usage"].items() if tokens and name != "total_tokens"}
            assert {name: end["usage"][name] for name in counted} == counted, "what the provider says stays"
        else:
            check(end["usage"], "estimated")
            assert end["usage"]["input_tokens"] == PROMPT // 4
    assert checked


@pytest.mark.parametrize("provider", RECORDED)
@pytest.mark.parametrize("how", ["cancelled", "broken"])
def test_every_stream_that_was_left_or_broke_says_what_it_had_used(provider: str, how: str) -> None:
    checked = 0
    for recording in recordings_of(provider):
        relay, sink = begun(recording, len(recording.body) // 2)
        if relay.is_over:
            continue
        if how == "cancelled":
            relay.stop("cancelled")
        else:
            relay.receive_eof(Error("network", "cut", reason="truncated"))
        end = end_of(sink)
        if end is not None and (end["type"] == "error" or end["finish_reason"] == "cancelled"):
            check(end["usage"], source_of_early_end(relay, end["usage"]))
            checked += 1
    assert checked
