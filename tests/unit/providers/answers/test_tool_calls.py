"""Tool calls while they come: indices, ids, each complete call once."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest.mock import patch

import pytest

from gai_fast.kernels import compact_json
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from gai_fast.providers.answers.room import Room
from gai_fast.providers.answers.tool_calls import ToolCalls
from tests.limits import LIMITS
from tests.unit.providers.answer_reading import call, chunk, plain


class TestToolCalls:
    def test_indices_are_dense_and_ids_unique(self) -> None:
        calls = ToolCalls(Room())
        opened = [calls.open(identifier, "f")[0] for identifier in ("a", "a", None, "call_2", "a")]
        assert [call.index for call in opened] == [0, 1, 2, 3, 4]
        assert calls.announced == opened
        assert len({call.call_id for call in opened}) == 5
        assert opened[0].call_id == "a"

    def test_an_id_that_is_made_is_reported_by_its_seed(self) -> None:
        made = [ToolCalls(Room()).open(None, "f", seed)[0].call_id for seed in ("", "a", "b", "a", "\ud83d")]
        assert made[0] == "call_0"
        assert made[1] == made[3]
        assert len(set(made)) == 4
        assert all(re.fullmatch("call_[0-9a-f]{1,24}", one) for one in made)

    def test_a_call_has_a_start_its_fragments_and_its_end(self) -> None:
        calls = ToolCalls(Room())
        call, events = calls.open("a", "f")
        events += calls.add(call, '{ "x"') + calls.add(call, "") + calls.add(call, ": 1 }") + calls.close(call)
        assert plain(events) == [
            {"type": "tool.call.start", "call_id": "a", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": '{ "x"'},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": ": 1 }"},
            {"type": "tool.call", "call_id": "a", "tool_call": {"name": "f", "input": '{"x":1}'}},
        ]
        assert calls.close(call) == []

    @pytest.mark.parametrize(
        ("fragments", "whole", "rest", "final"),
        [
            (['{"x"'], '{"x":1}', ":1}", '{"x":1}'),
            ([], '{"x":1}', "", '{"x":1}'),  # held: it may be a first fragment
            (['{"x":1}'], '{"y":1}', "", '{"y":1}'),
            (['{"x'], '{"y":1}', "", '{"y":1}'),
            (['{"x"', ":1}"], '{"y":1}', "", '{"x":1}'),
            (['{"x"', ":1}"], "", "", '{"x":1}'),
        ],
    )
    def test_the_whole_text_adds_its_rest_or_takes_the_place_of_what_is_no_value(
        self, fragments: list[str], whole: str, rest: str, final: str
    ) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        for fragment in fragments:
            calls.add(call, fragment)
        assert "".join(event["arguments"] for event in calls.add_rest(call, whole)) == rest
        assert call.arguments == final

    def test_the_last_signature_of_each_call_takes_room(self) -> None:
        calls = ToolCalls(Room(2000))
        call, _ = calls.open("a", "f")
        for _ in range(20):
            event = calls.sign(call, "s" * 900)
        assert event == {"type": "reasoning.signature", "call_id": "a", "signature": "s" * 900}
        another, _ = calls.open("b", "f")
        with pytest.raises(Error, match="kept in memory"):
            calls.sign(another, "s" * 900)

    def test_a_name_that_comes_late_is_reported_before_the_fragments(self) -> None:
        calls = ToolCalls(Room())
        call, events = calls.open("a", "")
        assert events == calls.add(call, "{") == []
        assert [event["type"] for event in calls.add(call, "}", "f")] == [
            "tool.call.start",
            "tool.call.delta",
            "tool.call.delta",
        ]

    def test_calls_are_numbered_as_they_are_reported(self) -> None:
        calls = ToolCalls(Room())
        nameless, _ = calls.open("a", "")
        _, (start,) = calls.open("b", "f")
        assert (start["call_id"], start["index"]) == ("b", 0)
        calls.add(nameless, "[1]")
        assert calls.close(nameless)[0]["index"] == 1

    @pytest.mark.parametrize("arguments", ["", " ", "{}"])
    def test_a_call_without_a_name_and_arguments_is_none(self, arguments: str) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "")
        calls.add(call, arguments)
        assert not calls
        assert calls.close(call) == []

    @pytest.mark.parametrize(
        ("arguments", "value"),
        [
            ("", "{}"),
            (" \n", "{}"),
            ('{"n": 12345678901234567890, "f": 1.10}', '{"n":12345678901234567890,"f":1.10}'),
            ("{oops", "{oops"),
            ("null", "null"),
        ],
    )
    def test_arguments_are_kept_verbatim_without_white_space(self, arguments: str, value: str) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, arguments)
        assert plain(calls.close(call))[-1]["tool_call"]["input"] == value

    @pytest.mark.parametrize(("arguments", "expected"), [("", 0), ('{"a":', 0), ('{"a":1}', 1)])
    def test_a_call_cut_off_is_reported_only_if_its_text_is_json(self, arguments: str, expected: int) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, arguments)
        assert [event["type"] for event in calls.close_all(cut_off=True)].count("tool.call") == expected

    def test_halves_of_a_character_in_two_fragments_are_joined(self) -> None:
        calls = ToolCalls(Room())
        call, _ = calls.open("a", "f")
        calls.add(call, '{"x":"\ud83c')
        calls.add(call, '\udf0d"}')
        assert plain(calls.close(call))[0]["tool_call"]["input"] == '{"x":"🌍"}'

    def test_calls_that_are_closed_are_not_counted(self) -> None:
        calls = ToolCalls(Room())
        for _ in range(3 * LIMITS.tool_calls):
            call, _ = calls.open(None, "f")
            assert calls.close(call)
            assert not calls.close(call)

    def test_there_is_a_limit(self) -> None:
        calls = ToolCalls(Room())
        for _ in range(LIMITS.tool_calls):
            calls.open(None, "f")
        with pytest.raises(Error, match=f"more than {LIMITS.tool_calls} tool calls") as failed:
            calls.open(None, "f")
        assert (failed.value.code, failed.value.reason) == ("provider_unavailable", "tool_calls")


class TestComplete:
    def test_the_text_is_parsed_once_however_often_it_is_asked_whether_it_is_complete(self) -> None:
        """Each fragment has an id of its own and ends with a brace, so each may begin another call."""
        parsed: list[str] = []

        def counted(text: str) -> str | None:
            parsed.append(text)
            return compact_json(text)

        fragments = ['{"0":{}', *[f',"{number}":{{}}' for number in range(1, 500)], ',"":{}}', "{}"]
        adapter: Any = get_provider("openai").adapter()
        with patch("gai_fast.core.json.object_scan.compact_json", counted):
            for number, arguments in enumerate(fragments):
                delta = call(arguments, index=0, id=f"id{number}", name=None if number else "f")
                adapter.receive("", json.dumps(chunk(delta)))
        assert len(parsed) == 1
        assert [call.arguments for call in adapter.choices[0].calls.calls] == ["".join(fragments[:-1]), "{}"]
