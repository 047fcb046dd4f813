"""Parts of events that several adapters make: usage, citations, tools that a provider runs."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import FORMATS, StreamContext, get_format
from gai_fast.kernels import parse_exact
from gai_fast.providers import get_provider
from gai_fast.providers.answers.events import citation, counted_usage, server_tool
from gai_fast.providers.answers.room import Room
from gai_fast.providers.answers.tool_calls import ToolCalls
from tests.legal import sse
from tests.limits import LIMITS


class TestUsage:
    def test_keys_stand_in_order_and_zero_parts_are_absent(self) -> None:
        usage = counted_usage(10, 5, cached=0, written=2, reasoning=1)
        assert list(usage.items()) == [
            ("input_tokens", 10),
            ("output_tokens", 5),
            ("total_tokens", 15),
            ("cache_write_input_tokens", 2),
            ("reasoning_tokens", 1),
        ]

    def test_reasoning_outside_the_output_is_added_where_the_total_shows_it(self) -> None:
        assert counted_usage(307, 26, reasoning=227, total=560)["output_tokens"] == 253
        assert counted_usage(15, 78, reasoning=64, total=93)["output_tokens"] == 78
        assert counted_usage(15, 78, reasoning=64, total=1)["output_tokens"] == 78

    def test_a_missing_count_is_the_total_less_the_other(self) -> None:
        whole = {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}
        assert counted_usage(None, 5, total=9) == counted_usage(4, None, total=9) == whole
        assert counted_usage(None, None, total=9) == {}

    def test_what_the_provider_left_out_stays_out(self) -> None:
        assert counted_usage(None, 5) == {"output_tokens": 5}
        assert counted_usage(5, None) == {"input_tokens": 5}
        assert counted_usage(None, 5, total=3) == {"output_tokens": 5}


def test_a_citation_leaves_out_what_says_nothing() -> None:
    assert citation("u", "t", 0, 4) == {"uri": "u", "title": "t", "start": 0, "end": 4}
    assert citation("u", "", 0, 0) == {"uri": "u"}
    assert citation(None, None, "x", 4) == {}


def test_the_input_of_a_server_tool_is_its_value_or_its_text() -> None:
    assert server_tool("i", "search", "started", '{"q":"x"}')["server_tool"]["input"] == {"q": "x"}
    assert server_tool("i", "search", "started", '{"q"')["server_tool"]["input"] == '{"q"'
    assert server_tool("i", "search", "completed")["server_tool"] == {
        "id": "i",
        "name": "search",
        "status": "completed",
    }


@pytest.mark.parametrize("levels", range(LIMITS.arguments_depth - 9, LIMITS.arguments_depth + 3))
def test_arguments_of_any_depth_make_an_event_that_can_be_written_and_read(levels: int) -> None:
    """Inputs that just fitted the parser made events that did not: followers in another form got `internal`."""
    text = "[" * levels + "]" * levels
    calls = ToolCalls(Room())
    call, _ = calls.open("c", "f")
    calls.add(call, text)
    events = [*calls.close(call), server_tool("i", "search", "started", text)]
    encoder = get_format("gai").encoder("ndjson", StreamContext("s", "r", None, "m", lambda: 1))
    encoder.event({"type": "start"})
    encoder.take()
    for event, member, around in zip(events, ("tool_call", "server_tool"), (2, 8), strict=True):
        encoder.event(event)
        read: Any = parse_exact(encoder.take().decode())
        assert isinstance(read[member]["input"], str) is (levels > LIMITS.arguments_depth - around)


def test_the_output_of_a_server_tool_with_too_many_levels_is_its_text() -> None:
    for levels, is_text in ((LIMITS.arguments_depth - 8, False), (LIMITS.arguments_depth - 7, True)):
        deep: Any = 1
        for _ in range(levels):
            deep = [deep]
        result = server_tool("s", "search", "completed", output=deep)["server_tool"]["output"]
        assert result == ("[" * levels + "1" + "]" * levels if is_text else deep)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "raw"])
@pytest.mark.parametrize("levels", range(LIMITS.arguments_depth - 9, LIMITS.arguments_depth + 2))
def test_a_server_tools_values_of_any_depth_end_no_whole_answer(name: str, levels: int) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = [deep]
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": deep}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": deep}
    body = sse(
        {"type": "message_start", "message": {"id": "m", "model": "x"}},
        {"type": "content_block_start", "index": 0, "content_block": use},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": result},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    encoder = get_format(name).whole(StreamContext("s" * 22, "r", None, "m", lambda: 1))
    relay = Relay(get_provider("anthropic").adapter(), encoder)
    relay.receive_data(body)
    relay.receive_eof()
    assert (relay.fault, relay.error, relay.is_cut) == (None, None, False)
    assert encoder.take()
