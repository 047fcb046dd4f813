"""Parts of events that several adapters make: usage, citations, tools that a provider runs."""

from __future__ import annotations

from gai_fast.providers._events import citation, counted_usage, server_tool


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

    def test_what_the_provider_left_out_stays_out(self) -> None:
        assert counted_usage(None, 5, total=9) == {"output_tokens": 5}


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
