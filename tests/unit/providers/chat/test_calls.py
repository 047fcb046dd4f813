"""Tool calls of the chat dialect: which call a fragment belongs to."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.events import Event
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import (
    between,
    call,
    calls_of,
    chunk,
    of_type,
    plain,
    read,
)

# DeepSeek adds nothing to how the dialect is read; what it refuses is in its own test.
DIALECT = "deepseek"


def _answered(asked: Any, *chunks: dict[str, Any]) -> list[Event]:
    """Returns the events of a stream that answers a request."""
    adapter = get_provider(DIALECT).adapter_for(asked, "m")
    events = [event for one in chunks for event in adapter.receive("", json.dumps(one))]
    return plain(events + adapter.finish())


class TestToolCalls:
    def test_fragments_are_one_call(self) -> None:
        events = read(
            DIALECT,
            chunk(call("", index=0, id="a", type="function", name="f")),
            chunk(call('{"x"', index=0)),
            chunk(call(": 1}", index=0)),
            chunk(finish="tool_calls"),
        )
        assert between(events) == [
            {"type": "tool.call.start", "call_id": "a", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": '{"x"'},
            {"type": "tool.call.delta", "call_id": "a", "index": 0, "arguments": ": 1}"},
            {"type": "tool.call", "call_id": "a", "tool_call": {"name": "f", "input": '{"x":1}'}},
        ]
        assert events[-1]["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize(
        "deltas",
        [
            [call("", index=0, id="a", name="f"), call('{"n":1}', index=0),
             call("", index=1, id="b", name="g"), call('{"n":2}', index=1)],
            # Every call is number 0: a new id opens a new slot.
            [call('{"n":1}', index=0, id="a", name="f"), call('{"n":2}', index=0, id="b", name="g")],
            [call("", index=0, id="a", name="f"), call('{"n":1}', index=0),
             call("", index=0, id="b", name="g"), call('{"n":2}', index=0)],
            # No index: what has no id continues the call before it.
            [call("", id="a", name="f"), call('{"n":1}'), call("", id="b", name="g"), call('{"n":2}')],
            # Fragments of two calls take turns; their ids distinguish them.
            [call("", index=0, id="a", name="f"), call("", index=0, id="b", name="g"),
             call('{"n":1}', index=0, id="a"), call('{"n":2}', index=0, id="b")],
            # The id is repeated on every fragment.
            [call("", index=0, id="a", name="f"), call('{"n":1}', index=0, id="a", name="f"),
             call("", index=3, id="b", name="g"), call('{"n":2}', index=3, id="b", name="g")],
        ],
        ids=["indices", "all-zero", "all-zero-in-fragments", "no-index", "taking-turns", "repeated-ids"],
    )  # fmt: skip
    def test_parallel_calls_are_told_apart(self, deltas: list[dict[str, Any]]) -> None:
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"n":1}'), ("b", "g", '{"n":2}')]
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1]

    @pytest.mark.parametrize(
        "deltas",
        [
            # A new id for every fragment, as vLLM once made them.
            [call("", index=0, id="a", name="f"), call('{"n":', index=0, id="b"), call("1}", index=0, id="c")],
            [call('{"n":', index=0, id="a", name="f"), call("1}", index=0, id="b", name="f")],
            [call('{"n":', id="a", name="f"), call("1}", id="b"), call("", id="c")],
            # One id for the beginning, another for all the rest.
            [call("", index=0, id="a", name="f"), call("", index=0, id="b"), call('{"n":', index=0, id="b"),
             call("1}", index=0, id="b"), call("", index=0, id="b"), call(" ", index=0, id="b")],
        ],
        ids=["every-fragment", "and-its-name", "no-index", "all-but-the-first"],
    )  # fmt: skip
    def test_an_id_that_changes_amid_a_call_begins_none(self, deltas: list[dict[str, Any]]) -> None:
        assert calls_of(read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))) == [("a", "f", '{"n":1}')]

    def test_fragments_without_ids_under_one_index_are_told_apart_by_another_name(self) -> None:
        deltas = [call("", name="f"), call('{"n":1}'), call("", name="g"), call('{"n"'), call(":2}", name="g")]
        found = calls_of(
            read(DIALECT, *(chunk({"tool_calls": [{"index": 0, **delta["tool_calls"][0]}]}) for delta in deltas))
        )
        assert [call[1:] for call in found] == [("f", '{"n":1}'), ("g", '{"n":2}')]

    def test_ids_made_by_us_are_unique_in_a_conversation_and_always_the_same(self) -> None:
        both = {"tool_calls": [call("{}", name=name)["tool_calls"][0] for name in "fg"]}

        def ids(answer: str) -> list[str]:
            adapter = get_provider(DIALECT).adapter()
            chunks = [json.dumps(chunk(both, index=at, id=answer)) for at in (0, 1)]
            events = [event for one in chunks for event in adapter.receive("", one)]
            return [event["call_id"] for event in of_type(events, "tool.call.start")]

        assert len({*ids("a1"), *ids("a2")}) == 8
        assert ids("a1") == ids("a1")

    @pytest.mark.parametrize("keys", [{}, {"index": 0}, {"index": 0, "id": ""}])
    def test_whole_calls_without_ids_are_told_apart_by_their_names(self, keys: dict[str, Any]) -> None:
        deltas = [call('{"n":1}', name="f", **keys), call('{"n":2}', name="f", **keys)]
        found = calls_of(read(DIALECT, *map(chunk, deltas)))
        assert [(name, arguments) for _, name, arguments in found] == [("f", '{"n":1}'), ("f", '{"n":2}')]
        assert found[0][0] != found[1][0]

    @pytest.mark.parametrize(
        "pieces", [['{"n":', "1}"], ['{"n', '":', "1", "}"], ['{"n":1}']], ids=["two", "four", "whole"]
    )
    @pytest.mark.parametrize("step", [0, 1], ids=["one other index", "an index for each fragment"])
    def test_arguments_alone_under_a_new_index_are_those_of_the_open_call(self, pieces: list[str], step: int) -> None:
        """Nebius and Cerebras count fragments by the index. A complete call does not go on."""
        deltas = [call("", index=0, id="a", name="f")]
        deltas += [call(piece, index=1 + at * step) for at, piece in enumerate(pieces)]
        deltas += [call("", index=9, id="b", name="g"), call("{}", index=9)]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"n":1}'), ("b", "g", "{}")]

    def test_arguments_alone_under_a_new_index_behind_a_complete_call_are_another_calls(self) -> None:
        deltas = [call('{"n":1}', index=0, id="a", name="f"), call('{"n":2}', index=1)]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert [arguments for _, _, arguments in calls_of(events)] == ['{"n":1}', '{"n":2}']

    def test_a_name_repeated_on_every_fragment_opens_no_call(self) -> None:
        deltas = [call('{"n"', index=0, name="f"), call(":1}", index=0, name="f"), call("", index=0, name="f")]
        assert len(calls_of(read(DIALECT, *map(chunk, deltas)))) == 1

    def test_empty_arguments_are_an_empty_object(self) -> None:
        events = read(DIALECT, chunk(call("", index=0, id="a", name="f")), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", "{}")]
        assert of_type(events, "tool.call.delta") == []

    def test_argument_objects_are_taken_verbatim(self) -> None:
        raw = (
            '{"choices":[{"delta":{"tool_calls":['
            '{"id":"a","function":{"name":"f","arguments":"{}"}},'
            '{"id":"b","function":{"name":"g","arguments":{"n": 12345678901234567890, "f": 1.10}}},'
            '{"id":"c","function":{"name":"h","arguments":null}}]}}]}'
        )
        events = read(DIALECT, raw)
        assert calls_of(events) == [
            ("a", "f", "{}"),
            ("b", "g", '{"n":12345678901234567890,"f":1.10}'),
            ("c", "h", "{}"),
        ]
        assert of_type(events, "tool.call.delta")[0]["arguments"] == '{"n": 12345678901234567890, "f": 1.10}'

    @pytest.mark.parametrize("repeated", [{}, {"id": "a"}, {"id": "a", "name": "f"}])
    @pytest.mark.parametrize(
        ("fragments", "expected"),
        [
            (["{}", '{"x":1}'], '{"x":1}'),
            (["{}", '{"x"', ":1}"], '{"x":1}'),
            ([{}, {"x": 1}], '{"x":1}'),
            (["{}", "{}"], "{}"),
            (["{}", ""], "{}"),
            (
                [{"x": "a"}, {"x": "ab", "y": [1]}, {"x": "ab", "y": [1, {}], "z": None}],
                '{"x":"ab","y":[1,{}],"z":null}',
            ),
            (['{"x":1}', '{"x":1,"y":2}', '{"x":12,"y":2.5}'], '{"x":12,"y":2.5}'),
        ],
    )
    def test_an_object_takes_the_place_of_the_one_from_which_it_has_grown(
        self, fragments: list[Any], expected: str, repeated: dict[str, Any]
    ) -> None:
        """openai-agents-js#712; llama.cpp and models behind Qianfan send all arguments so far with each chunk."""
        first, *rest = fragments
        chunks = [call(first, index=0, id="a", name="f"), *(call(each, index=0, **repeated) for each in rest)]
        events = read(DIALECT, *map(chunk, chunks), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", expected)]
        deltas = "".join(event["arguments"] for event in of_type(events, "tool.call.delta"))
        assert json.loads(deltas) == json.loads(expected)

    def test_calls_that_begin_with_an_empty_object_side_by_side_have_their_own_arguments(self) -> None:
        begun = [call("{}", index=0, id="a", name="f"), call("{}", index=1, id="b", name="g")]
        given = [call('{"x":1}', index=0), call('{"y":2}', index=1)]
        events = read(DIALECT, *map(chunk, [*begun, *given]), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]

    @pytest.mark.parametrize("another", ['{"y":1}', '{"x":2}', '{"x":[1]}', "x", '{"x"', '{"x":1}}'])
    def test_what_has_not_grown_from_the_object_before_it_is_added(self, another: str) -> None:
        """The arguments are then no JSON, which every client sees."""
        events = read(DIALECT, *map(chunk, [call('{"x":1}', index=0, id="a", name="f"), call(another, index=0)]),
                      chunk(finish="tool_calls"))  # fmt: skip
        assert calls_of(events) == [("a", "f", '{"x":1}' + another)]

    def test_no_piece_of_text_takes_the_place_of_another(self) -> None:
        pieces = [
            {"index": 0, "id": "a", "custom": {"name": "js", "input": "{}"}},
            {"index": 0, "custom": {"input": "{x}"}},
        ]
        events = read(DIALECT, *(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "js", "{}{x}")]

    def test_deltas_of_whole_calls_come_in_the_order_of_the_calls(self) -> None:
        whole = [call('{"x":1}', index=at, id=f"{at}", name="f") for at in range(3)]
        events = read(DIALECT, *map(chunk, whole), chunk(finish="tool_calls"))
        kinds = [event["type"] for event in events if event["type"].startswith("tool")]
        assert kinds == ["tool.call.start", "tool.call.delta"] * 3 + ["tool.call"] * 3

    @pytest.mark.parametrize(
        "form",
        [
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"0": {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}},
            [{"index": 0, "id": "a", "name": "f", "arguments": '{"x":1}'}],
            [{"index": 0, "id": "a", "name": "f", "arguments": {"x": 1}}],
            {"id": "a", "name": "f", "arguments": {"x": 1}},
            '[{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]',
            [{"id": "a", "function": "f", "arguments": '{"x":1}'}],
            [{"id": "a", "function": "f", "arguments": {"x": 1}}],
        ],
    )
    @pytest.mark.parametrize("part", ["delta", "message"])
    def test_calls_without_their_list_or_their_function_are_calls(self, form: Any, part: str) -> None:
        for name in ("tool_calls", "tool_call"):
            events = read(DIALECT, {"choices": [{part: {name: form}, "finish_reason": "tool_calls"}]})
            assert calls_of(events) == [("a", "f", '{"x":1}')]
            assert of_type(events, "warning") == []

    def test_calls_that_are_no_json_are_reported(self) -> None:
        events = read(DIALECT, chunk({"content": "a", "tool_calls": "[{"}), chunk(finish="tool_calls"))
        assert [event["type"] for event in between(events)] == ["text.delta", "warning"]

    def test_a_call_among_the_parts_is_reported(self) -> None:
        parts = [{"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "text", "text": "a"}]
        events = read(DIALECT, chunk({"content": parts}), chunk(finish="tool_calls"))
        assert [event["type"] for event in between(events)] == ["warning", "text.delta"]

    def test_arguments_of_a_function_call_may_be_an_object(self) -> None:
        events = read(DIALECT, chunk({"function_call": {"name": "f", "arguments": {"x": 1}}}))
        assert calls_of(events) == [("call_0", "f", '{"x":1}')]

    @pytest.mark.parametrize("pieces", [['{"x":1}'], ["", '{"x"', ":1}"], ["{}", '{"x":1}']])
    def test_a_function_call_beside_the_list_is_the_same_call(self, pieces: list[str]) -> None:
        deltas: list[Any] = []
        for at, arguments in enumerate(pieces):
            named = {} if at else {"name": "f"}
            listed = {"index": 0, **({} if at else {"id": "a"}), "function": {**named, "arguments": arguments}}
            deltas.append({"function_call": {**named, "arguments": arguments}, "tool_calls": [listed]})
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"x":1}')]

    def test_the_deprecated_function_call_is_a_call(self) -> None:
        deltas = [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": '{"x":1}'}}]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="function_call"))
        assert calls_of(events) == [("call_0", "f", '{"x":1}')]
        assert (events[-1]["finish_reason"], events[-1]["finish_reason_raw"]) == ("tool_calls", "function_call")

    def test_a_custom_tool_is_called_with_text(self) -> None:
        custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
        assert calls_of(read(DIALECT, chunk({"tool_calls": [custom]}))) == [("a", "sql", "SELECT 1")]

    @pytest.mark.parametrize(
        "deltas",
        [
            # All arguments so far, with each fragment.
            [call('{"n"', index=0, id="a", name="f"), call('{"n":', index=0, id="a", name="f"),
             call('{"n":1}', index=0, id="a", name="f"), call('{"n":1}', index=0, id="a", name="f")],
            # The whole call, behind its fragments.
            [call("", index=0, id="a", name="f"), call('{"n"', index=0), call(":1}", index=0),
             call('{"n":1}', index=0, id="a", name="f")],
            [call("", index=0, id="a", name="f"), call('{"n":1}', index=0), call('{"n":1}', index=0, id="a")],
            [call("", index=0, id="a", name="f"), call('{"n":1}', index=0), call('{"n":1}', index=0)],
        ],
        ids=["cumulative", "whole-call", "whole-call-by-id", "whole-arguments"],
    )  # fmt: skip
    def test_arguments_that_are_sent_again_are_not_added_again(self, deltas: list[dict[str, Any]]) -> None:
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"n":1}')]
        assert "".join(event["arguments"] for event in of_type(events, "tool.call.delta")) == '{"n":1}'

    @pytest.mark.parametrize("keys", [{}, {"index": 0}], ids=["no-index", "all-zero"])
    @pytest.mark.parametrize("in_one_chunk", [False, True])
    @pytest.mark.parametrize("names", ["wv", "ww"])
    def test_whole_calls_with_one_id_are_calls_of_their_own(
        self, names: str, in_one_chunk: bool, keys: dict[str, Any]
    ) -> None:
        """Some servers use the tool's name as the id (cloudwego/eino-ext#652)."""
        whole = [call(f'{{"x":{at}}}', id="w", name=name, **keys) for at, name in enumerate(names)]
        deltas = [{"tool_calls": [one["tool_calls"][0] for one in whole]}] if in_one_chunk else whole
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("w", "w", '{"x":0}'), ("w_1", names[1], '{"x":1}')]
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1]

    @pytest.mark.parametrize("keys", [{}, {"index": 0}], ids=["no-index", "all-zero"])
    def test_calls_with_one_id_may_come_in_fragments(self, keys: dict[str, Any]) -> None:
        pieces = [("w", '{"x"'), ("w", ":1}"), ("w", ""), ("v", ""), ("v", '{"y"'), ("v", ":2}"), ("v", '{"y"')]
        deltas = [call(piece, id="a", name=name, **keys) for name, piece in pieces]
        deltas += [call(piece, id="a", **keys) for piece in (":3", "}")]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "w", '{"x":1}'), ("a_1", "v", '{"y":2}'), ("a_2", "v", '{"y":3}')]

    @pytest.mark.parametrize("places", [(None, None), (0, 0), (0, 1)])
    @pytest.mark.parametrize("pieces", [['{"x":%d}'], ['{"x"', ":%d}"]], ids=["whole", "in-fragments"])
    @pytest.mark.parametrize("names", ["wv", "ww"])
    def test_a_chunk_that_repeats_all_calls_with_one_id_begins_none(
        self, names: str, pieces: list[str], places: tuple[int | None, int | None]
    ) -> None:
        whole: list[dict[str, Any]] = []
        deltas: list[dict[str, Any]] = []
        for number, (name, place) in enumerate(zip(names, places, strict=True)):
            keys: dict[str, Any] = {"id": "a"} if place is None else {"id": "a", "index": place}
            given = [piece % number if "%" in piece else piece for piece in pieces]
            deltas += [call(piece, name=name, **keys) for piece in given]
            whole += call("".join(given), name=name, **keys)["tool_calls"]
        events = read(DIALECT, *map(chunk, deltas), chunk({"tool_calls": whole}), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", names[0], '{"x":0}'), ("a_1", names[1], '{"x":1}')]

    @pytest.mark.parametrize("keys", [{}, {"index": 0}], ids=["no-index", "all-zero"])
    @pytest.mark.parametrize(
        "pieces",
        [
            ['{"n":', "1}"],
            ["", '{"n"', ":1}", "", " "],
            ['{"n":1}', '{"n":1}'],
            ['{"n":1}', "", "\n"],
            ["{}", '{"n":1}'],
            ["{}", '{"n"', ":1}"],
            ['{"n"', '{"n":', '{"n":1}', '{"n":1}'],
            ['{"n":null}', '{"n":1}'],
        ],
    )
    def test_an_id_and_a_name_with_every_fragment_are_one_call(self, pieces: list[str], keys: dict[str, Any]) -> None:
        deltas = [call(piece, id="a", name="f", **keys) for piece in pieces]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"n":1}')]

    @pytest.mark.parametrize("with_names", [False, True])
    @pytest.mark.parametrize("names", ["wv", "ww"])
    def test_the_index_separates_fragments_of_calls_with_one_id_that_alternate(
        self, names: str, with_names: bool
    ) -> None:
        deltas: list[dict[str, Any]] = []
        for turn, pieces in enumerate((('{"x":', '{"y":'), ("[1", "[2"), (",1]", ",2]"), ("}", "}"))):
            for at, piece in enumerate(pieces):
                named = {"name": names[at]} if with_names or not turn else {}
                deltas.append(call(piece, id="a", index=at, **named))
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", names[0], '{"x":[1,1]}'), ("a_1", names[1], '{"y":[2,2]}')]

    def test_the_index_separates_calls_with_one_id_that_the_first_of_them_gets_late(self) -> None:
        deltas = [
            call("", index=0, name="f"),
            call('{"x":', index=0, id="a"),
            call('{"y":', index=1, id="a", name="g"),
            call("1}", index=0, id="a"),
            call("2}", index=1, id="a"),
        ]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert [(name, arguments) for _, name, arguments in calls_of(events)] == [("f", '{"x":1}'), ("g", '{"y":2}')]

    def test_an_id_that_looks_like_another_with_a_suffix_is_an_id_of_its_own(self) -> None:
        deltas = [
            call('{"x":', id="a", index=0, name="f"),
            call('{"y":', id="a_1", index=1, name="g"),
            call("1}", id="a", index=0),
            call("2}", id="a_1", index=1),
        ]
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"x":1}'), ("a_1", "g", '{"y":2}')]

    def test_no_piece_of_text_begins_a_call(self) -> None:
        pieces = [{"index": 0, "id": "a", "custom": {"name": "js", "input": piece}} for piece in ("{}", "{x}")]
        events = read(DIALECT, *(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "js", "{}{x}")]

    def test_arguments_that_only_look_repeated_are_added(self) -> None:
        deltas = [call(piece, index=0, **({} if number else {"id": "a", "name": "f"})) for number, piece in
                  enumerate(['{"n":', '{"n":', '{"n":', "1}}}"])]  # fmt: skip
        events = read(DIALECT, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "f", '{"n":{"n":{"n":1}}}')]

    @pytest.mark.parametrize("keys", [{}, {"id": "a"}])
    @pytest.mark.parametrize("passed", [True, False])
    @pytest.mark.parametrize(
        ("pieces", "name"),
        [
            (["get_", "weather"], "get_weather"),
            (["get", "_wea", "ther"], "get_weather"),
            (["get_", "get_weather"], "get_weather"),
            (["get_", "get_", "weather"], "get_weather"),
            (["get_weather", "get_weather"], "get_weather"),
            (["get_", ""], "get_"),
            (["get_", "sun"], "get_"),
            (["look", "up"], "look"),
            (["get_wea", "ther", ""], "get_weather"),
        ],
    )
    def test_a_name_in_pieces_is_that_of_a_tool(
        self, pieces: list[str], name: str, passed: bool, keys: dict[str, Any]
    ) -> None:
        """openai-python adds the pieces, too. Other servers repeat the whole name."""
        tools = [{"name": each} for each in ("get_weather", "look")]
        asked: Any = {"tools": [{"type": "function", "function": each} for each in tools]}
        if not passed:
            asked = parse_request(json.dumps({"query": "Hi", "tools": tools}).encode())
        named = [call("", index=0, name=piece, **(keys if at else {"id": "a"})) for at, piece in enumerate(pieces)]
        for rest in (['{"x"', ":1}"], []):
            deltas = [*named, *(call(piece, index=0) for piece in rest)]
            events = _answered(asked, *map(chunk, deltas), chunk(finish="tool_calls"))
            assert calls_of(events) == [("a", name, '{"x":1}' if rest else "{}")]
            assert [event["tool_call"]["name"] for event in of_type(events, "tool.call.start")] == [name]
            assert events[-1]["finish_reason"] == "tool_calls"

    def test_pieces_of_names_may_come_with_those_of_the_arguments(self) -> None:
        """ankit373/hydra#957."""
        asked: Any = {"tools": [{"function": {"name": "get_weather"}}, {"function": {"name": "get_sun"}}]}
        first = [call('{"x"', index=0, id="a", name="get_wea"), call(":1}", index=0, name="ther")]
        # The other call keeps the piece, as nothing follows it.
        second = [call('{"y":2}', index=1, id="b", name="get_"), call("{}", index=2, id="c", name="get_sun")]
        events = _answered(asked, *map(chunk, [*first, *second]), chunk(finish="tool_calls"))
        assert calls_of(events) == [("a", "get_weather", '{"x":1}'), ("b", "get_", '{"y":2}'), ("c", "get_sun", "{}")]
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1, 2]

    def test_a_call_with_another_id_is_no_piece_of_a_name(self) -> None:
        """The first call names no tool, and its arguments were cut off. Some servers number all calls 0."""
        asked: Any = {"tools": [{"function": {"name": "get_weather"}}]}
        deltas = [call('{"x":', index=0, id="a", name="get"), call("{}", index=0, id="b", name="get_weather")]
        events = _answered(asked, *map(chunk, deltas), chunk(finish="tool_calls"))
        assert [name for _, name, _ in calls_of(events)] == ["get", "get_weather"]
        assert calls_of(events)[1] == ("b", "get_weather", "{}")

    def test_pieces_of_a_name_that_was_sent_in_place_of_another_are_the_clients_name(self) -> None:
        asked = parse_request(b'{"query": "Hi", "tools": [{"name": "my.tool"}]}')
        sent = json.loads(get_provider(DIALECT).build_request(asked, Target("m", "k")).body)
        name = sent["tools"][0]["function"]["name"]
        deltas = [call("", index=0, id="a", name=name[:5]), call("", index=0, name=name[5:]), call("{}", index=0)]
        assert calls_of(_answered(asked, *map(chunk, deltas), chunk(finish="tool_calls"))) == [("a", "my.tool", "{}")]

    def test_a_signature_belongs_to_its_call(self) -> None:
        extra = {"google": {"thought_signature": "s"}}
        events = read(DIALECT, chunk(call("{}", id="a", name="f", extra_content=extra)))
        assert of_type(events, "reasoning.signature") == [
            {"type": "reasoning.signature", "call_id": "a", "signature": "s"}
        ]
        assert events[-2]["type"] == "tool.call"


def test_long_fragments_that_begin_alike_cost_no_join_of_all_before_each() -> None:
    # An upstream can send 16 MiB of these: 18 s of CPU, in which no other stream went on.
    adapter = get_provider(DIALECT).adapter()
    adapter.receive("", json.dumps(chunk(call("{", index=0, id="a", name="f"))))
    again = json.dumps(chunk(call("{" + "a" * 4000, index=0)))
    began = process_time()
    for _ in range(3500):
        adapter.receive("", again)
    assert process_time() - began < 4
