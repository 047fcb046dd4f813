"""The relay and its processors: what they make of a stream is a legal stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from gai_fast.core.processing.processor import Processor
from gai_fast.core.relay import Relay
from gai_fast.formats import StreamContext, get_format
from gai_fast.model.events import NO_EVENT, Event
from gai_fast.processors import Chain, StreamInfo, make_chain, read_processor
from gai_fast.providers import get_provider
from tests.legal import check_legal, sse

JSON = StreamInfo(wants_json=True, json_snapshots=20, request_id="r", stream_id="s")


def chunk(text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def body(texts: Iterable[str], finish: str = "stop") -> bytes:
    return sse(*map(chunk, texts), chunk(finish=finish), "[DONE]")


def relayed(chain: Chain | None, data: bytes, size: int = 1 << 20, wait: int = 10) -> tuple[bytes, Relay]:
    """Returns the bytes for a client, read by read, `wait` milliseconds apart."""
    now = 1000
    # A copied event has the time of its read, an encoded event the clock's: they are equal here.
    encoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", clock=lambda: now))
    deltas = None if chain is not None and chain.touches == "deltas" else encoder
    relay = Relay(get_provider("openai").adapter(), encoder, deltas=deltas, chain=chain)
    for at in range(0, len(data), size):
        relay.receive_data(data[at : at + size], now)
        now += wait
        if (relay.due_ms or now + 1) <= now:
            relay.tick(now)
    relay.receive_eof(None, now)
    assert relay.due_ms is None
    return encoder.take(), relay


def events(written: bytes) -> list[Any]:
    return [json.loads(line) for line in written.splitlines()]


ENTRIES: list[list[Mapping[str, Any]]] = [
    [{"use": "batch", "milliseconds": 30}],
    [{"use": "batch", "characters": 5}, {"use": "transform", "replace": {"fox": "dog"}}],
    [{"use": "json_stream", "recover": True}],
    [{"use": "json_stream", "on_invalid": "error"}],
    [{"use": "filter", "drop": ["text.delta"]}, {"use": "correlation", "on": "every"}],
    [{"use": "json_stream"}, {"use": "batch", "characters": 7}, {"use": "correlation"}],
]


@pytest.mark.parametrize("entries", ENTRIES, ids=lambda entries: "+".join(entry["use"] for entry in entries))
@pytest.mark.parametrize("size", [7, 190, 1 << 20])
@pytest.mark.parametrize(
    "texts", [list("The quick brown fox"), ['{"a": [1, ', '2], "b', '": "fox"}'], ["{}", "{}"], []]
)
def test_whatever_processors_do_the_stream_is_legal(entries: Any, size: int, texts: list[str]) -> None:
    for finish in ("stop", "length"):
        chain = make_chain([read_processor(entry) for entry in entries], JSON)
        result = events(relayed(chain, body(texts, finish), size)[0])
        check_legal(result)
        assert result[0]["type"] == "start"
        after = 0
        for event in result[:-1]:
            assert event.get("from_seq", event["seq"]) == after + 1
            after = event["seq"]


def test_a_processor_ends_the_stream_and_what_was_right_is_there() -> None:
    chain = make_chain([read_processor({"use": "json_stream", "on_invalid": "error"})], StreamInfo(wants_json=True))
    written, relay = relayed(chain, body(['{"a": ', "nope", "more"]))
    result = events(written)
    assert [event["type"] for event in result] == ["start", "text.delta", "text.delta", "error", "done"]
    assert result[2]["text"] == "n"
    error = result[3]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("provider_unavailable", "invalid_json", "mid_stream")
    assert relay.error is not None


def test_one_that_is_not_satisfied_with_the_end_turns_it_into_an_error() -> None:
    chain = make_chain([read_processor({"use": "json_stream", "on_invalid": "error"})], StreamInfo(wants_json=True))
    result = events(relayed(chain, body(['{"a": 1']))[0])
    assert [event["type"] for event in result] == ["start", "text.delta", "error", "done"]
    assert result[-1] == {"type": "done", "finished": False}


def test_what_waits_is_reported_before_a_cancelled_stream_ends() -> None:
    encoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", clock=lambda: 7))
    chain = make_chain([read_processor({"use": "batch", "characters": 100})], StreamInfo())
    relay = Relay(get_provider("openai").adapter(), encoder, chain=chain)
    relay.receive_data(sse(chunk("a"), chunk("b")), 0)
    relay.stop("cancelled")
    assert [event.get("text", event["type"]) for event in events(encoder.take())] == ["start", "ab", "finish", "done"]


def test_an_end_that_a_processor_makes_too_early_is_nobodys_end() -> None:
    """The end of a stream stays empty until it comes, and what stands there is shared by all streams."""

    class Early(Processor):
        def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
            yield {"type": "finish", "finish_reason": "stop", "usage": {"input_tokens": 7, "output_tokens": 7}}

    encoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", clock=lambda: 7))
    relay = Relay(get_provider("openai").adapter(), encoder, chain=Chain([Early()]))
    relay.receive_data(sse(chunk("a")), 0)
    assert relay.end == NO_EVENT == {}


def test_processors_that_need_no_deltas_leave_every_byte_as_it_is() -> None:
    data = body(str(number) for number in range(100))
    plain = relayed(None, data, 1000)
    for entry in ({"use": "filter", "drop": ["usage"]}, {"use": "correlation", "ids": ["request_id"]}):
        chain = make_chain([read_processor(entry)], StreamInfo(request_id="r"))
        written, relay = relayed(chain, data, 1000)
        assert written == plain[0]
        assert (relay.deltas, relay.others) == (plain[1].deltas, plain[1].others) == (100, 3)
