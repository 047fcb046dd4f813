"""Answers of the Responses dialect, and what providers do differently in them."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import StreamContext, get_format
from gai_fast.library.decoding import decode
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from gai_fast.providers.responses.answers import _Item, _paired
from tests.limits import LIMITS
from tests.unit.providers.answer_reading import (
    between,
    calls_of,
    of_type,
    plain,
    read_whole,
    text_of,
)
from tests.unit.providers.responses_streams import (
    BEGIN,
    OPENAI,
    added,
    done,
    end,
    event,
    fragment,
    message,
    read,
    response,
    said,
    text,
)

BAD_ITEMS: list[Any] = [
    5,
    None,
    {"type": 5},
    {"type": "message", "content": 5},
]


class TestText:
    def test_deltas_become_events_between_start_and_finish(self) -> None:
        assert read(BEGIN, added(0, "message"), text("Hi"), done(0, "message", content=[said("Hi")]), end()) == [
            {"type": "start", "provider": "openai", "model": "gpt", "provider_metadata": {"id": "resp_1"}},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": "openai",
                "model": "gpt",
                "finish_reason": "stop",
                "finish_reason_raw": "completed",
            },
        ]

    @pytest.mark.parametrize(
        "last",
        [
            event("output_text.done", output_index=0, content_index=0, text="Hi"),
            event("content_part.done", output_index=0, content_index=0, part=said("Hi")),
            done(0, "message", content=[said("Hi")]),
            end(output=[message(said("Hi"))]),
        ],
        ids=lambda chunk: chunk["type"],
    )
    def test_what_no_delta_carried_is_taken_from_where_it_stands(self, last: dict[str, Any]) -> None:
        assert text_of(read(BEGIN, added(0, "message"), last, end(output=[message(said("Hi"))]))) == "Hi"
        deltas = read(BEGIN, added(0, "message"), text("Hi"), last, end(output=[message(said("Hi"))]))
        assert text_of(deltas) == "Hi"

    def test_parts_are_told_apart_by_their_indices(self) -> None:
        whole = done(
            0, "message", content=[said("a"), said("b"), {"type": "refusal", "refusal": "no"}, {"type": "new"}]
        )
        assert between(read(BEGIN, added(0, "message"), text("a"), whole, end())) == [
            {"type": "text.delta", "text": "a"},
            {"type": "text.delta", "text": "b"},
            {"type": "refusal.delta", "text": "no"},
        ]

    @pytest.mark.parametrize("content", ["Hi", ["Hi"], [{"text": "Hi"}], [{"type": "text", "text": "Hi"}]])
    def test_parts_of_another_form_are_text(self, content: Any) -> None:
        whole = {"type": "message", "id": "i0", "content": content}
        for last in (done(0, "message", content=content), end(output=[whole])):
            assert text_of(read(BEGIN, added(0, "message"), last, end())) == "Hi"
            assert text_of(read(BEGIN, added(0, "message"), text("Hi"), last, end())) == "Hi"
        hidden = {"type": "reasoning", "id": "i0", "summary": content}
        assert text_of(read(BEGIN, end(output=[hidden])), "reasoning.delta") == "Hi"

    def test_an_event_without_a_type_is_malformed(self) -> None:
        with pytest.raises(Malformed):
            read(BEGIN, {"output_index": 0, "delta": "Hi"}, end())

    @pytest.mark.parametrize("part", [1, 7])
    @pytest.mark.parametrize("kind", ["output_text", "reasoning_text"])
    def test_the_index_of_a_part_may_run_on_across_items(self, kind: str, part: int) -> None:
        """gpt-oss on vLLM and Bedrock: the whole item numbers its parts from 0, its deltas did not."""
        member, item = "text", "message" if kind == "output_text" else "reasoning"
        where = {"output_index": 1, "content_index": part}
        whole = {"type": item, "id": "i1", "content": [{"type": kind, "text": "One two"}]}
        chunks = [
            event("reasoning_text.delta", output_index=0, content_index=0, delta="Hm"),
            added(1, item),
            event(f"{kind}.delta", **where, delta="One"),
            event(f"{kind}.delta", **where, delta=" two"),
            event(f"{kind}.done", **where, **{member: "One two"}),
            event("content_part.done", **{**where, "content_index": 0}, part={"type": kind, "text": "One two"}),
            event("output_item.done", output_index=1, item=whole),
            end(output=[{"type": "reasoning", "id": "i0", "content": []}, whole]),
        ]
        result = "".join(event["text"] for event in between(read(BEGIN, added(0, "reasoning"), *chunks)))
        assert result == "HmOne two"

    @pytest.mark.parametrize(
        ("deltas", "whole", "expected"),
        [
            ({1: "A"}, ["A1", "B"], "A1B"),
            ({1: "B"}, ["A", "B"], "BA"),
            ({2: "B"}, ["A", "B"], "BA"),
            ({1: "A", 2: "B"}, ["A", "B"], "AB"),
            ({5: "A", 6: "A"}, ["A", "A", "A"], "AAA"),
            ({1: "rewritten"}, ["A"], "rewritten"),
            ({0: "rewritten", 1: "B"}, ["A", "B"], "rewrittenB"),
        ],
    )
    def test_each_part_that_deltas_carried_stands_for_one_of_the_whole(
        self, deltas: dict[int, str], whole: list[str], expected: str
    ) -> None:
        item = message(*map(said, whole))
        chunks = [text(delta, part=part) for part, delta in deltas.items()]
        ended = event("output_item.done", output_index=0, item={**item, "id": "i0"})
        result = read(BEGIN, added(0, "message"), *chunks, ended, ended, end(output=[item]))
        assert text_of(result) == expected

    @pytest.mark.parametrize("index", ["0", "}", [0], {}, -1, 1e300, True, None])
    def test_an_index_that_is_no_number_is_that_of_the_first_part(self, index: Any) -> None:
        whole = said("Hello")
        events = read(BEGIN, text("Hello", part=index), done(0, "message", content=[whole]), end())
        assert text_of(events) == "Hello"
        events = read(BEGIN, {**text("", part=index), "type": "response.output_text.done", "text": "Hello"}, end())
        assert text_of(events) == "Hello"

    def test_ids_may_differ_from_event_to_event_and_in_the_terminal_output(self) -> None:
        chunks = [text("a", item_id="x"), text("b", item_id="y"), text("c", 1, item_id="x")]
        output = [{**message(said("c")), "id": "q"}, {**message(said("ab")), "id": "r"}]
        assert text_of(read(BEGIN, *chunks, end(output=output))) == "abc"

    def test_without_an_index_the_id_says_whose_an_event_is(self) -> None:
        first, second = added(0, "message"), {**message(said("b")), "id": "i9"}
        whole = event("output_item.done", item={**message(said("a")), "id": "i0"})
        chunks = [first, text("a"), whole, event("output_item.done", item=second)]
        assert text_of(read(BEGIN, *chunks, end(output=[]))) == "ab"

    def test_an_item_that_only_the_terminal_event_has_is_reported(self) -> None:
        output = [{**message(said("a")), "id": "i0"}, {**message(said("b")), "id": "i1"}]
        assert text_of(read(BEGIN, added(0, "message"), text("a"), end(output=output))) == "ab"

    def test_a_server_may_number_every_item_0(self) -> None:
        chunks = [added(0, "message"), text("a"), done(0, "message", content=[said("a")])]
        call = {"call_id": "c", "name": "f", "arguments": "{}"}
        events = read(BEGIN, *chunks, added(0, "function_call", **call), done(0, "function_call", **call), end())
        assert (text_of(events), calls_of(events)) == ("a", [("c", "f", "{}")])

    def test_a_server_may_number_items_of_all_kinds_0_even_while_they_are_open(self) -> None:
        thought = event("reasoning_summary_text.delta", output_index=0, summary_index=0, item_id="r", delta="hm")
        reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
        whole = [reasoning, {**message(said("Hi")), "id": "?"}]
        events = read(BEGIN, added(0, "message"), thought, text("Hi"), end(output=whole))
        assert (text_of(events), text_of(events, "reasoning.delta")) == ("Hi", "hm")

    def test_an_id_that_items_of_two_kinds_have_is_of_both(self) -> None:
        whole = [
            {"type": "reasoning", "id": "i0", "summary": [{"type": "summary_text", "text": "hm"}]},
            {**message(said("Hi")), "id": "i0"},
        ]
        events = read(BEGIN, added(0, "message"), text("Hi"), end(output=whole))
        assert (text_of(events), text_of(events, "reasoning.delta")) == ("Hi", "hm")

    def test_audio_and_what_it_says(self) -> None:
        events = read(BEGIN, event("audio.delta", delta="UklG"), event("audio.transcript.delta", delta="Hi"), end())
        assert between(events) == [
            {"type": "audio.delta", "audio": {"chunk": "UklG"}},
            {"type": "text.delta", "text": "Hi"},
        ]

    def test_what_is_unknown_or_follows_the_end_means_nothing(self) -> None:
        late = event("rate_limits.updated", rate_limits=[])
        events = read(BEGIN, event("unheard_of"), {"type": "keepalive"}, end(), late, text("late"), BEGIN, "[DONE]")
        assert between(events) == []

    @pytest.mark.parametrize("status", ["completed", "incomplete", "cancelled"])
    def test_after_the_terminal_event_only_the_end_mark_may_follow(self, status: str) -> None:
        adapter = get_provider(OPENAI).adapter()
        adapter.receive("", json.dumps({"type": f"response.{status}", "response": response(status=status)}))
        assert adapter.is_complete

    def test_start_comes_first_even_where_the_head_is_missing(self) -> None:
        events = read(text("Hi"), end())
        assert [one["type"] for one in events] == ["start", "text.delta", "finish"]
        assert events[-1]["model"] == "gpt"

    def test_the_event_name_is_taken_where_the_data_has_no_type(self) -> None:
        adapter = get_provider(OPENAI).adapter()
        assert adapter.receive("response.created", json.dumps({"response": response()}))[0]["type"] == "start"


class TestReasoning:
    def test_summaries_and_text_are_reasoning_and_the_signature_is_the_items_end(self) -> None:
        chunks = [
            added(0, "reasoning", encrypted_content="early"),
            event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
            event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
            done(0, "reasoning", summary=[], encrypted_content="sealed"),
            event("reasoning_text.delta", output_index=1, content_index=0, delta="c"),
        ]
        output = [{"type": "reasoning", "id": "i0", "encrypted_content": "again"}]
        assert between(read(BEGIN, *chunks, end(output=output))) == [
            {"type": "reasoning.delta", "text": "a"},
            {"type": "reasoning.delta", "text": "b"},
            {"type": "reasoning.signature", "block": 0, "signature": "sealed"},
            {"type": "reasoning.delta", "text": "c"},
        ]

    def test_open_responses_has_another_name_for_its_deltas(self) -> None:
        whole = done(0, "reasoning", content=[{"type": "reasoning_text", "text": "hm"}])
        for delta, result in (("h", "h"), ({"text": "h"}, "hm")):  # if a delta is no text, its item's end has it
            events = read(BEGIN, event("reasoning.delta", output_index=0, delta=delta), whole, end())
            assert text_of(events, "reasoning.delta") == result

    def test_what_no_delta_carried_is_reported_at_the_end_but_not_in_two_ways(self) -> None:
        both = {
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "t"}],
        }
        assert text_of(read(BEGIN, done(0, "reasoning", **both), end()), "reasoning.delta") == "st"
        delta = event("reasoning_text.delta", output_index=0, content_index=0, delta="t")
        assert text_of(read(BEGIN, delta, done(0, "reasoning", **both), end()), "reasoning.delta") == "t"

    @pytest.mark.parametrize("kinds", [("text", "summary_text"), ("summary_text", "text")])
    def test_what_is_sent_as_summary_and_as_content_is_said_once(self, kinds: tuple[str, str]) -> None:
        """peonist-ai/halogen-flash-server#67."""
        deltas = [
            event(f"reasoning_{kind}.delta", output_index=0, content_index=0, summary_index=0, delta=word)
            for word in ("The", " user")
            for kind in kinds
        ]
        ends = [event(f"reasoning_{kind}.done", output_index=0, text="The user") for kind in kinds]
        events = read(BEGIN, added(0, "reasoning"), *deltas, *ends, done(0, "reasoning"), end())
        assert text_of(events, "reasoning.delta") == "The user"

    def test_reasoning_that_waits_for_its_end_repeats_none_of_another_kind(self) -> None:
        update = event("reasoning_summary_text.delta", output_index=0, delta={"text": "The user"})
        deltas = [update, event("reasoning_text.delta", output_index=0, delta="The user")]
        for chunks in (deltas, deltas[::-1]):
            assert text_of(read(BEGIN, added(0, "reasoning"), *chunks, end()), "reasoning.delta") == "The user"

    def test_a_signature_that_only_the_terminal_event_has_is_reported(self) -> None:
        output = [{"type": "reasoning", "id": "i0", "summary": [], "encrypted_content": "sealed"}]
        events = read(BEGIN, added(0, "reasoning"), done(0, "reasoning"), end(output=output))
        assert of_type(events, "reasoning.signature")[0]["signature"] == "sealed"


class TestCalls:
    CALL: ClassVar[dict[str, Any]] = {"call_id": "c", "name": "f"}

    def test_fragments_then_the_call_when_its_arguments_end(self) -> None:
        chunks = [added(0, "function_call", **self.CALL, arguments=""), fragment('{"a"'), fragment(":1}")]
        whole = event("function_call_arguments.done", output_index=0, arguments='{"a":1}')
        adapter = get_provider(OPENAI).adapter()
        events: list[Event] = []
        for one in (BEGIN, *chunks, whole):
            events += adapter.receive("", json.dumps(one))
        assert between(plain(events)) == [
            {"type": "tool.call.start", "call_id": "c", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "c", "index": 0, "arguments": '{"a"'},
            {"type": "tool.call.delta", "call_id": "c", "index": 0, "arguments": ":1}"},
            {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": '{"a":1}'}},
        ]

    @pytest.mark.parametrize(
        "last",
        [
            event("function_call_arguments.done", output_index=0, arguments='{"a":1}'),
            done(0, "function_call", **CALL, arguments='{"a":1}'),
            done(0, "function_call", **CALL, arguments={"a": 1}),
            end(output=[{"type": "function_call", "id": "?", **CALL, "arguments": '{"a":1}'}]),
        ],
    )
    @pytest.mark.parametrize(
        "before", [[], [fragment('{"a"')], [fragment("{}")], [fragment("{}"), fragment('{"a":1}')]]
    )
    def test_arguments_that_no_delta_carried(self, last: dict[str, Any], before: list[Any]) -> None:
        events = read(BEGIN, added(0, "function_call", **self.CALL), *before, last, end())
        assert calls_of(events) == [("c", "f", '{"a":1}')]
        assert "".join(one["arguments"] for one in of_type(events, "tool.call.delta")) == '{"a":1}'
        assert events[-1]["finish_reason"] == "tool_calls"

    def test_the_end_says_what_the_arguments_are_where_a_fragment_is_missing(self) -> None:
        whole = done(0, "function_call", **self.CALL, arguments='{"a":1}')
        assert calls_of(read(BEGIN, added(0, "function_call", **self.CALL), fragment(":1}"), whole, end())) == [
            ("c", "f", '{"a":1}')
        ]

    def test_a_call_without_arguments_has_an_empty_object(self) -> None:
        whole = done(0, "function_call", **self.CALL, arguments="", status="completed")
        assert calls_of(read(BEGIN, added(0, "function_call", **self.CALL), whole, end())) == [("c", "f", "{}")]

    def test_the_terminal_event_closes_what_nothing_else_closed(self) -> None:
        assert calls_of(read(BEGIN, added(0, "function_call", **self.CALL), fragment("{}"), end())) == [
            ("c", "f", "{}")
        ]

    @pytest.mark.parametrize("status", ["incomplete", "completed"])
    def test_a_call_that_the_limit_cut_is_none(self, status: str) -> None:
        chunks = [added(0, "function_call", **self.CALL), fragment('{"a')]
        whole = done(0, "function_call", **self.CALL, arguments='{"a', status=status)
        events = read(BEGIN, *chunks, whole, end("incomplete", incomplete_details={"reason": "max_output_tokens"}))
        assert calls_of(events) == []
        assert events[-1]["finish_reason"] == "length"

    def test_the_end_of_the_arguments_need_not_repeat_them(self) -> None:
        last = event("function_call_arguments.done", output_index=0)
        events = read(BEGIN, added(0, "function_call", **self.CALL), fragment('{"a":1}'), last, end())
        assert calls_of(events) == [("c", "f", '{"a":1}')]

    def test_fragments_before_their_call_are_reported_with_it(self) -> None:
        whole = done(0, "function_call", **self.CALL, arguments='{"a":1}')
        for first in ([], [added(0, "function_call", **self.CALL)]):
            events = read(BEGIN, fragment('{"a"'), *first, whole, end())
            assert [one["arguments"] for one in of_type(events, "tool.call.delta")] == ['{"a":1}']

    @pytest.mark.parametrize("before", [[], [fragment("{}")], [fragment("{"), fragment("}")]])
    def test_an_empty_object_at_the_end_of_the_arguments_is_replaced_at_the_items_end(self, before: list[Any]) -> None:
        whole = event("function_call_arguments.done", output_index=0, arguments="{}")
        for last, arguments in (('{"a":1}', '{"a":1}'), ("{}", "{}"), ("", "{}")):
            ends = [whole, done(0, "function_call", **self.CALL, arguments=last)]
            events = read(BEGIN, added(0, "function_call", **self.CALL), *before, *ends, end())
            assert calls_of(events) == [("c", "f", arguments)]
        events = read(BEGIN, added(0, "function_call", **self.CALL), *before, whole, end())
        assert calls_of(events) == [("c", "f", "{}")]

    def test_a_call_that_breaks_off_amid_its_arguments_is_none_whatever_the_status(self) -> None:
        """earendil-works/pi#9897: the response was completed, the call was not."""
        with pytest.raises(Error) as failed:
            read(BEGIN, added(0, "function_call", **self.CALL), fragment('{"a":'), end())
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")
        whole = done(0, "function_call", **self.CALL, arguments='{"a":')
        events = read(BEGIN, added(0, "function_call", **self.CALL), fragment('{"a":'), whole, end())
        assert calls_of(events) == [("c", "f", '{"a":')], "its provider has ended it"

    ORDERS: ClassVar[dict[str, str]] = {
        "one after the other": "+a a1 a2 +b b1 b2 -a -b",
        "announced first": "+a +b a1 a2 b1 b2 -a -b",
        "interleaved": "+a a1 +b b1 a2 b2 -b -a",
        "whole at their ends": "+a +b -a -b",
        "whole at the response's end": "+a +b a1 b1",
    }

    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
    @pytest.mark.parametrize("has_index", [False, True])
    @pytest.mark.parametrize("has_id", [False, True])
    def test_each_call_gets_its_own_arguments(self, order: str, has_index: bool, has_id: bool) -> None:
        """llama.cpp's deltas named the `call_id` (ggml-org/llama.cpp#24882); others number all items 0."""
        place = {"output_index": 0} if has_index else {}
        items = {
            name: {"type": "function_call", **({"id": f"i{name}"} if has_id else {}), "call_id": name, "name": name}
            for name in "ab"
        }
        pieces = {"a": ('{"x":', '"a"}'), "b": ("{", "}")}
        chunks = []
        for step in order.split():
            name = step.strip("+-12")
            item_id = items[name].get("id", name)
            if step[0] == "+":
                chunks.append(event("output_item.added", **place, item={**items[name], "arguments": ""}))
            elif step[0] == "-":
                item = {**items[name], "arguments": "".join(pieces[name])}
                chunks.append(event("output_item.done", **place, item=item))
            else:
                piece = pieces[name][int(step[1]) - 1]
                chunks.append(event("function_call_arguments.delta", **place, item_id=item_id, delta=piece))
        output = [{**items[name], "arguments": "".join(pieces[name])} for name in "ba"]
        events = read(BEGIN, *chunks, end(output=output))
        assert sorted(calls_of(events)) == [("a", "a", '{"x":"a"}'), ("b", "b", "{}")]

    def test_a_call_whose_name_never_came_is_a_failure(self) -> None:
        with pytest.raises(Error) as failed:
            read(BEGIN, fragment('{"a":1}'), end())
        assert failed.value.reason == "malformed_chunk"
        cut_off = end("incomplete", incomplete_details={"reason": "max_output_tokens"})
        assert read(BEGIN, fragment('{"a"'), cut_off)[-1]["finish_reason"] == "length"

    def test_an_item_without_a_type_is_what_its_members_are(self) -> None:
        item = {"id": "i", **self.CALL, "arguments": '{"a":1}'}
        ended = event("output_item.done", output_index=0, item=item)
        assert calls_of(read(BEGIN, ended, end())) == [("c", "f", '{"a":1}')]
        assert calls_of(read(BEGIN, end(output=[item]))) == [("c", "f", '{"a":1}')]

    def test_a_custom_tools_input_is_text(self) -> None:
        chunks = [
            added(0, "custom_tool_call", **self.CALL, input=""),
            event("custom_tool_call_input.delta", output_index=0, delta="SELECT"),
            done(0, "custom_tool_call", **self.CALL, input="SELECT 1", status="completed"),
        ]
        assert calls_of(read(BEGIN, *chunks, end())) == [("c", "f", "SELECT 1")]

    @pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
    def test_a_call_whose_arguments_cannot_be_read_never_begins(self, kind: str) -> None:
        deep: Any = 1
        for _ in range(LIMITS.arguments_depth + 1):
            deep = [deep]
        raw = done(0, kind, call_id="c", name="f", arguments=deep, input=deep)
        body = b"".join(f"data: {json.dumps(one)}\n\n".encode() for one in (BEGIN, raw, end()))
        events = list(decode(OPENAI, [body]))
        assert [one["type"] for one in events] == ["start", "warning", "finish", "done"]
        assert events[-2]["finish_reason"] == "stop"

    def test_without_a_call_id_the_items_id_is_the_calls(self) -> None:
        assert calls_of(read(BEGIN, done(0, "function_call", name="f", arguments="{}"), end())) == [("i0", "f", "{}")]


class TestBlocks:
    """Items that only their provider understands."""

    @pytest.mark.parametrize("kind", ["web_search_call", "mcp_list_tools", "compaction", "shell_call", "new_call"])
    def test_an_item_is_a_block_at_its_end_and_once(self, kind: str) -> None:
        whole = done(2, kind, encrypted_content="e", extra={"n": [1]}, status="completed")
        events = read(BEGIN, added(2, kind), whole, whole, end(output=[whole["item"]]))
        (block,) = of_type(events, "provider.block")
        assert (block["provider"], block["block"]) == ("openai", whole["item"])

    def test_what_other_events_say_is_no_block(self) -> None:
        items = [done(0, "image_generation_call", result="iVBO"), done(1, "function_call", name="f", arguments="{}")]
        assert of_type(read(BEGIN, *items, end()), "provider.block") == []

    def test_an_item_that_only_the_end_has_is_a_block(self) -> None:
        item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "q"}}
        (block,) = of_type(read(BEGIN, end(output=[item])), "provider.block")
        assert block["block"] == item


class TestServerTools:
    def emitted(self, *chunks: dict[str, Any], provider: str = OPENAI) -> list[dict[str, Any]]:
        return [one["server_tool"] for one in of_type(read(BEGIN, *chunks, end(), provider=provider), "server_tool")]

    @pytest.mark.parametrize("beside", [{}, {"call_id": "c1"}], ids=["ids", "call"])
    def test_a_run_keeps_the_id_that_it_began_with(self, beside: dict[str, Any]) -> None:
        """Some proxies change the id of an item from event to event, and vLLM's last event may lack the call's."""
        begun = added(0, "web_search_call", status="in_progress", **beside)
        ended = done(0, "web_search_call", status="completed", action={"type": "search", "query": "q"})
        ended["item"]["id"] = "other"
        runs = [one["server_tool"] for one in of_type(read(BEGIN, begun, ended, end()), "server_tool")]
        assert [(run["id"], run["status"]) for run in runs] == [
            (beside.get("call_id", "i0"), "started"),
            (beside.get("call_id", "i0"), "completed"),
        ]

    @pytest.mark.parametrize(
        ("kind", "given", "name", "ended"),
        [
            ("web_search_call", {"action": {"query": "q"}}, "web_search", {"input": {"query": "q"}}),
            ("web_search_call", {"arguments": '{"q":1}', "name": "find"}, "find", {"input": {"q": 1}}),
            ("file_search_call", {"queries": ["q"], "results": None}, "file_search", {"input": {"queries": ["q"]}}),
            ("file_search_call", {"results": [{"text": "t"}]}, "file_search", {"output": [{"text": "t"}]}),
            ("code_interpreter_call", {"code": "1"}, "code_interpreter", {"input": {"code": "1"}}),
            ("mcp_list_tools", {"tools": [{"name": "f"}]}, "mcp_list_tools", {"output": [{"name": "f"}]}),
            ("image_generation_call", {"prompt": "p"}, "image_generation", {"input": {"prompt": "p"}}),
        ],
    )
    def test_an_item_begins_and_ends(self, kind: str, given: Any, name: str, ended: dict[str, Any]) -> None:
        assert self.emitted(added(0, kind, name=given.get("name")), done(0, kind, **given, status="completed")) == [
            {"id": "i0", "name": name, "status": "started"},
            {"id": "i0", "name": name, "status": "completed", **ended},
        ]

    @pytest.mark.parametrize("how", [{"status": "failed"}, {"status": "incomplete"}, {"error": {"code": 1}}])
    def test_one_that_failed(self, how: dict[str, Any]) -> None:
        assert self.emitted(done(0, "mcp_call", name="f", **how))[-1]["status"] == "failed"

    @pytest.mark.parametrize(
        ("kind", "given"),
        [
            ("shell_call", {"action": {"commands": ["ls"]}}),
            ("local_shell_call", {"action": {"command": ["ls"]}}),
            ("apply_patch_call", {"operation": {"type": "delete_file"}}),
            ("computer_call", {"action": {"type": "click"}}),
            ("tool_search_call", {"arguments": {"paths": ["a"]}}),
            ("program", {"code": "text(1)"}),
        ],
    )
    def test_of_some_the_outcome_is_an_item_of_its_own(self, kind: str, given: dict[str, Any]) -> None:
        name, value = kind.removesuffix("_call"), next(iter(given.values()))
        outcome = done(1, f"{kind}_output", call_id="c", output="done")
        assert self.emitted(added(0, kind, call_id="c"), done(0, kind, call_id="c", **given), outcome) == [
            {"id": "c", "name": name, "status": "started", "input": {"code": value} if kind == "program" else value},
            {"id": "c", "name": name, "status": "completed", "output": "done"},
        ]

    def test_an_approval_that_is_asked_for_says_of_what(self) -> None:
        asked = {"server_label": "s", "name": "f", "arguments": "{}"}
        assert self.emitted(done(0, "mcp_approval_request", **asked)) == [
            {"id": "i0", "name": "mcp_approval_request", "status": "started", "input": asked}
        ]

    def test_each_is_reported_once(self) -> None:
        item = {"type": "web_search_call", "id": "i0", "status": "completed"}
        chunks = [added(0, "web_search_call"), done(0, "web_search_call"), end(output=[item])]
        assert len(of_type(read(BEGIN, *chunks), "server_tool")) == 2

    @pytest.mark.parametrize(
        ("data", "form", "media_type"),
        [("AAAA", "webp", "image/webp"), ("/9j/AAAA", "", "image/jpeg"), ("iVBOR", "", "image/png")],
    )
    def test_images_and_their_previews(self, data: str, form: str, media_type: str) -> None:
        preview = event(
            "image_generation_call.partial_image", output_index=0, partial_image_b64=data, output_format=form
        )
        events = read(BEGIN, preview, done(0, "image_generation_call", result=data, output_format=form), end())
        assert [one["image"] for one in of_type(events, "image")] == [
            {"data": data, "media_type": media_type, "partial": True},
            {"data": data, "media_type": media_type},
        ]

    def test_a_custom_tool_of_xai_is_its_own(self) -> None:
        item = {"call_id": "c", "name": "x_keyword_search", "input": '{"q":1}', "status": "completed"}
        chunks = [added(0, "custom_tool_call", **item), done(0, "custom_tool_call", **item)]
        result = self.emitted(*chunks, provider="xai:responses")
        assert [(one["status"], one["input"]) for one in result] == [("started", {"q": 1}), ("completed", {"q": 1})]
        assert read(BEGIN, *chunks, end(), provider="xai:responses")[-1]["finish_reason"] == "stop"


class TestCitations:
    URL: ClassVar[dict[str, Any]] = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 2}

    def cited(self, *chunks: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for said in of_type(read(BEGIN, *chunks, end()), "citations") for one in said["citations"]]

    def annotated(self, annotation: Any, index: int = 0) -> dict[str, Any]:
        return event("output_text.annotation.added", output_index=index, content_index=0, annotation=annotation)

    def test_offsets_count_in_the_whole_text(self) -> None:
        chunks = [text("ü🌍. "), text("Sky", 1), self.annotated(self.URL, 1)]
        assert self.cited(*chunks) == [{"uri": "u", "title": "t", "start": 4, "end": 6}]

    @pytest.mark.parametrize("span", [{}, {"start_index": 0, "end_index": 0}, {"index": 7}, {"end_index": 3}])
    def test_what_has_no_span_has_none(self, span: dict[str, int]) -> None:
        annotation = {"type": "file_citation", "file_id": "f", "filename": "a.pdf", **span}
        assert self.cited(text("Hi "), text("x", 1), self.annotated(annotation, 1)) == [{"uri": "f", "title": "a.pdf"}]

    def test_each_is_reported_once_and_what_no_event_reported_at_the_end(self) -> None:
        whole = done(
            0, "message", content=[said("Sky", annotations=[self.URL, {**self.URL, "url": "v"}, {"type": "?"}])]
        )
        assert [one["uri"] for one in self.cited(text("Sky"), self.annotated(self.URL), whole)] == ["u", "v"]

    def test_one_that_cannot_be_read_is_not_met_again(self) -> None:
        adapter = get_provider(OPENAI).adapter()
        adapter.receive("", json.dumps(text("Sky")))
        [warning] = adapter.receive("", json.dumps(self.annotated(True)))
        assert warning["type"] == "warning"
        whole = done(0, "message", content=[said("Sky", annotations=[True, self.URL])])
        assert [one["type"] for one in adapter.receive("", json.dumps(whole))] == ["citations"]

    def test_deltas_that_are_copied_count(self) -> None:
        adapter = get_provider(OPENAI).adapter()
        result = adapter.receive("", json.dumps(text("a")))[-1]
        adapter.copied(result, 4, "")
        adapter.copied({"type": "reasoning.delta", "text": "hm"}, 2, "")
        adapter.receive("", json.dumps(text("b", 1)))
        cited = adapter.receive("", json.dumps(self.annotated(self.URL, 1)))[0]["citations"]
        assert cited == [{"uri": "u", "title": "t", "start": 5, "end": 7}]


class TestEnd:
    @pytest.mark.parametrize(
        ("status", "why", "reason"),
        [
            ("completed", None, "stop"),
            ("incomplete", "max_output_tokens", "length"),
            ("incomplete", "max_messages", "length"),
            ("incomplete", "content_filter", "content_filter"),
            ("incomplete", "steered", "other"),
            ("incomplete", None, "other"),
            ("cancelled", None, "cancelled"),
        ],
    )
    def test_the_status_or_its_reason_is_the_word(self, status: str, why: str | None, reason: str) -> None:
        last = read(BEGIN, end(status, incomplete_details=why and {"reason": why}))[-1]
        assert (last["finish_reason"], last["finish_reason_raw"]) == (reason, why or status)

    @pytest.mark.parametrize(
        ("last", "reason", "word"),
        [
            (event("done", response=response("completed")), "stop", "completed"),
            (event("done", response={"id": "r"}), "stop", "completed"),
            (
                event("done", response=response("incomplete", incomplete_details={"reason": "content_filter"})),
                "content_filter",
                "content_filter",
            ),
            (event("completed"), "stop", "completed"),
            (event("completed", response=None), "stop", "completed"),
            (event("incomplete", response=response(None)), "other", "incomplete"),
            (end("incomplete", incomplete_details="max_output_tokens"), "other", "incomplete"),
        ],
    )
    def test_a_terminal_event_of_another_shape_is_one_too(self, last: Any, reason: str, word: str) -> None:
        finish = read(BEGIN, text("Hi"), last)[-1]
        assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)

    def test_a_status_that_is_no_end_yields_to_the_events_name(self) -> None:
        last = event("incomplete", response=response("in_progress"))
        assert read(BEGIN, last)[-1]["finish_reason_raw"] == "incomplete"

    def test_usage_is_as_it_is_said_reasoning_inside(self) -> None:
        usage = {
            "input_tokens": 1875,
            "input_tokens_details": {"cached_tokens": 1578, "cache_write_tokens": 0},
            "output_tokens": 695,
            "output_tokens_details": {"reasoning_tokens": 397},
            "total_tokens": 2570,
        }
        assert read(BEGIN, end(usage=usage))[-1]["usage"] == {
            "input_tokens": 1875,
            "output_tokens": 695,
            "total_tokens": 2570,
            "cached_input_tokens": 1578,
            "reasoning_tokens": 397,
        }
        assert read(BEGIN, end(usage={"input_tokens": 0, "output_tokens": 0}))[-1]["usage"]["total_tokens"] == 0

    def test_an_end_mark_without_a_reason_is_other(self) -> None:
        assert read(BEGIN, text("Hi"), "[DONE]")[-1]["finish_reason"] == "other"
        call = added(0, "function_call", call_id="c", name="f")
        assert read(BEGIN, call, fragment("{}"), "[DONE]")[-1]["finish_reason"] == "tool_calls"

    def test_no_end_is_an_error(self) -> None:
        with pytest.raises(Error) as caught:
            read(BEGIN, text("Hi"))
        assert (caught.value.code, caught.value.reason) == ("network", "truncated")

    def test_another_answer_amid_the_first_is_a_failure(self) -> None:
        assert of_type(read(BEGIN, BEGIN, text("Hi"), end()), "start")
        with pytest.raises(Error) as caught:
            read(BEGIN, text("Hi"), event("created", response={**response(), "id": "resp_2"}))
        assert caught.value.reason == "spliced_answer"

    def test_the_head_of_the_same_answer_may_come_again(self) -> None:
        assert text_of(read(BEGIN, text("Hi"), BEGIN, text("!"), end())) == "Hi!"

    @pytest.mark.parametrize("bad", BAD_ITEMS, ids=range(len(BAD_ITEMS)))
    def test_items_of_the_terminal_event_are_read_beside_one_that_cannot_be(self, bad: Any) -> None:
        call = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": "{}"}
        events = between(read(BEGIN, end(output=[message(said("Hi")), bad, call])))
        assert [one["type"] for one in events] == [
            "text.delta",
            "tool.call.start",
            "tool.call.delta",
            "tool.call",
            "warning",
        ]

    @pytest.mark.parametrize("bad", [said("b", annotations=5), said("b", annotations=[5])], ids=["all", "one"])
    @pytest.mark.parametrize("way", ["part", "item", "end", "whole"])
    def test_annotations_that_cannot_be_read_lose_no_text(self, way: str, bad: Any) -> None:
        item = message(said("a"), bad)
        if way == "part":
            part = event("content_part.done", output_index=0, content_index=1, part=bad)
            events = read(BEGIN, text("a"), part, end(output=[item]))
        elif way == "item":
            events = read(BEGIN, done(0, "message", content=item["content"]), end(output=[item]))
        elif way == "end":
            events = read(BEGIN, end(output=[item]))
        else:
            events = read_whole(OPENAI, response("completed", output=[item]))
        assert text_of(events) == "ab"
        assert of_type(events, "warning")[0] == {"type": "warning", "reason": "malformed_chunk"}

    @pytest.mark.parametrize("keys", [{"output": 5}, {"output": [5]}], ids=str)
    def test_the_terminal_event_counts_though_it_cannot_be_read(self, keys: dict[str, Any]) -> None:
        events = read(BEGIN, text("Hi"), end(**keys))
        assert [one["type"] for one in events] == ["start", "text.delta", "warning", "finish"]

    @pytest.mark.parametrize("usage", [5, "x", [1], {"input_tokens": 1, "input_tokens_details": 5}], ids=str)
    def test_usage_of_another_shape_keeps_no_answer_from_its_end(self, usage: Any) -> None:
        assert read(BEGIN, text("Hi"), end(usage=usage))[-1]["finish_reason"] == "stop"


class TestErrors:
    INNER: ClassVar[dict[str, Any]] = {"type": "insufficient_quota", "code": "insufficient_quota", "message": "Over."}

    @pytest.mark.parametrize(
        ("name", "chunk"),
        [
            ("error", {"type": "error", "error": INNER}),
            ("", {"type": "error", "sequence_number": 2, "error": INNER}),
            ("", {"type": "error", "code": "insufficient_quota", "message": "Over.", "param": None}),
            ("error", {"code": "insufficient_quota", "message": "Over."}),
            ("", {"error": INNER}),
            ("", event("failed", response=response("failed", error=INNER))),
            ("", event("completed", response=response("failed", error=INNER))),
            ("", event("failed", response=response("completed", error=INNER))),
            ("", event("failed", error=INNER)),
            ("", event("error", error=INNER)),
            ("", event("done", response=response("failed", error=INNER))),
        ],
    )
    def test_a_failure_in_any_shape(self, name: str, chunk: Any) -> None:
        adapter = get_provider(OPENAI).adapter()
        adapter.receive("", json.dumps(BEGIN))
        with pytest.raises(Error) as caught:
            adapter.receive(name, json.dumps(chunk))
        error = caught.value
        assert (error.code, error.reason, error.message, error.temporary) == (
            "rate_limited",
            "insufficient_quota",
            "Over.",
            False,
        )

    def test_the_tokens_that_a_failed_answer_counts_are_no_estimate(self) -> None:
        usage = {"input_tokens": 5, "output_tokens": 1}
        chunks = [BEGIN, text("four" * 100), event("failed", response=response("failed", usage=usage))]
        stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        error = list(decode(OPENAI, [stream.encode()]))[-2]
        assert error["usage"] == {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}

    def test_one_failure_reported_twice_is_one_error(self) -> None:
        chunks = [BEGIN, {"type": "error", "error": self.INNER}, event("failed", response=response("failed"))]
        stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        assert [one["type"] for one in decode(OPENAI, [stream.encode()])] == ["start", "error", "done"]

    def test_a_tool_of_the_provider_may_fail_though_the_answer_does_not(self) -> None:
        events = read(BEGIN, event("mcp_call.failed", output_index=0, error={"message": "No."}), text("Hi"), end())
        assert text_of(events) == "Hi"

    def test_a_failure_without_words_is_internal(self) -> None:
        with pytest.raises(Error, match="openai failed") as caught:
            read(BEGIN, event("failed", response=response("failed", error=None)))
        assert caught.value.code == "internal"

    def test_an_error_behind_a_failure_without_words_says_why(self) -> None:
        """Azure's filter: maximhq/bifrost#6419."""
        why = {"code": "content_policy_violation", "message": "Filtered.", "type": "invalid_request_error"}
        chunks = [BEGIN, event("failed", response=response("failed", error=None)), {"type": "error", "error": why}]
        with pytest.raises(Error, match="Filtered") as caught:
            read(*chunks)
        assert (caught.value.code, caught.value.reason) == ("content_filtered", "content_policy_violation")

    def test_openrouter_says_more_beside_the_error(self) -> None:
        error = {"code": "invalid_prompt", "message": "Too much."}
        failed = response("failed", error=error, error_type="context_length_exceeded")
        with pytest.raises(Error) as caught:
            read(BEGIN, event("failed", response=failed), provider="openrouter:responses")
        assert caught.value.code == "context_length_exceeded"

    @pytest.mark.parametrize("metadata", [None, 5, "x", ["x"], {"error_type": 5}])
    def test_openrouter_may_say_it_in_any_shape(self, metadata: Any) -> None:
        body = json.dumps({"error": {"code": 429, "message": "Slow.", "metadata": metadata}}).encode()
        for status in (200, 429):
            first = next(iter(decode("openrouter:responses", [body], status=status)))
            assert (first["type"], first["error"]["code"]) == ("error", "rate_limited")

    def test_azure_says_more_inside_the_error(self) -> None:
        error = {"code": "x", "message": "No.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
        said = get_provider("azure:responses").decode_error(400, {}, json.dumps({"error": error}).encode())
        assert said.code == "content_filtered"

    @pytest.mark.parametrize("chunk", ["{", "[]", "5"])
    def test_what_cannot_be_read_is_malformed(self, chunk: str) -> None:
        with pytest.raises((Malformed, KeyError, AttributeError)):
            read(BEGIN, chunk)

    def test_more_open_items_or_parts_than_are_kept_are_an_error(self) -> None:
        for chunks in (
            [text("a", index) for index in range(LIMITS.content_blocks + 1)],
            [text("a", 0, part) for part in range(LIMITS.content_blocks + 1)],
        ):
            with pytest.raises(Error) as caught:
                read(*chunks)
            assert caught.value.reason == "content_blocks"

    def test_items_that_have_ended_are_not_counted(self) -> None:
        many = range(2 * LIMITS.content_blocks)
        searches = [one for at in many for one in (added(at, "web_search_call"), done(at, "web_search_call"))]
        calls = [done(at, "function_call", call_id=f"c{at}", name="f", arguments="{}") for at in many]
        events = read(BEGIN, *searches, *calls, end())
        assert len(of_type(events, "provider.block")) == len(of_type(events, "tool.call")) == len(many)

    def test_the_memory_for_all_items_is_limited(self) -> None:
        adapter: Any = get_provider(OPENAI).adapter()
        adapter.room.remaining = 10_000
        with pytest.raises(Error) as caught:
            for at in range(1000):
                adapter.receive("", json.dumps(done(at, "web_search_call")))
        assert caught.value.reason == "answer_too_large"


class TestWhole:
    OUTPUT: tuple[dict[str, Any], ...] = (
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "sealed"},
        message(said("Hi", annotations=[{"type": "url_citation", "url": "u"}])),
        {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": '{"n":12345678901234567890}'},
    )

    def test_a_whole_answer_becomes_a_legal_stream(self) -> None:
        events = read_whole(OPENAI, response("completed", output=list(self.OUTPUT), usage={"input_tokens": 1}))
        assert [one["type"] for one in events] == [
            "start",
            "reasoning.signature",
            "text.delta",
            "citations",
            "tool.call.start",
            "tool.call.delta",
            "tool.call",
            "finish",
        ]
        assert calls_of(events) == [("c", "f", '{"n":12345678901234567890}')]
        assert events[-1]["finish_reason"] == "tool_calls"

    def test_one_that_is_not_over_is_truncated(self) -> None:
        with pytest.raises(Error) as caught:
            read_whole(OPENAI, response("queued"))
        assert caught.value.reason == "truncated"

    def test_one_item_that_cannot_be_read_keeps_the_others_from_nobody(self) -> None:
        events = between(read_whole(OPENAI, response("completed", output=[5, message(said("Hi"))])))
        assert [one["type"] for one in events] == ["text.delta", "warning"]

    @pytest.mark.parametrize("answer", [{}, [], {"output": 5}, {"choices": []}])
    def test_what_is_no_answer_is_malformed(self, answer: Any) -> None:
        with pytest.raises(Malformed):
            read_whole(OPENAI, answer)


class TestCopying:
    def test_only_deltas_that_say_whose_they_are_may_be_copied(self) -> None:
        adapter = get_provider(OPENAI).adapter()
        for chunk, copyable in (
            (BEGIN, False),
            (added(0, "message"), False),
            (text("a"), True),
            (event("output_text.delta", item_id="i0", delta="b"), False),
            (end(), False),
        ):
            adapter.receive("", json.dumps(chunk))
            assert adapter.copyable is copyable

    def test_copied_fragments_are_the_calls(self) -> None:
        adapter = get_provider(OPENAI).adapter()
        adapter.receive("", json.dumps(added(0, "function_call", call_id="c", name="f")))
        result = adapter.receive("", json.dumps(fragment('{"a"')))[0]
        adapter.copied(result, 3, ":1}")
        whole = event("function_call_arguments.done", output_index=0, arguments='{"a":1}')
        assert calls_of(plain(adapter.receive("", json.dumps(whole)))) == [("c", "f", '{"a":1}')]

    @pytest.mark.native
    def test_frames_that_differ_in_number_padding_and_id_reach_the_adapter_once(self) -> None:
        frames = [text("Hey", sequence_number=n, item_id=f"i{n}", obfuscation="x" * (n % 16)) for n in range(500)]
        stream = b"".join(
            f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in [BEGIN, *frames, end()]
        )
        adapter = get_provider(OPENAI).adapter()
        received: list[str] = []
        receive = adapter.receive

        def counting(name: str, data: str) -> list[Event]:
            received.append(data)
            return receive(name, data)

        adapter.receive = counting
        encoder = get_format("gai").encoder("sse", StreamContext("s" * 22, "r", None, "m", lambda: 1))
        relay = Relay(adapter, encoder, deltas=encoder)
        relay.receive_data(stream)
        relay.receive_eof()
        assert encoder.take().count(b"event: text.delta") == 500
        assert len(received) <= 5


class TestSafety:
    def test_what_openai_flags(self) -> None:
        result = {"flagged": True, "categories": {"hate": True, "violence": False}, "category_scores": {"hate": 0.9}}
        events = read(BEGIN, end(moderation={"input": result, "output": None}))
        assert [one["safety"] for one in of_type(events, "safety")] == [
            {"category": "hate", "action": "flagged", "score": 0.9}
        ]

    def test_what_azure_filters(self) -> None:
        filters = [
            {"content_filter_results": {"hate": {"filtered": True, "severity": "high"}, "x": {"filtered": False}}}
        ]
        events = read(BEGIN, end(content_filters=filters), provider="azure:responses")
        assert [one["safety"] for one in of_type(events, "safety")] == [
            {"category": "hate", "action": "filtered", "score": 6}
        ]


def test_a_text_without_its_json_counts_like_an_event() -> None:
    """Only texts of an item's first part are known by the number of the item alone."""
    adapter = get_provider(OPENAI).adapter()
    for one in (BEGIN, added(0, "message"), text("a", part=1)):
        adapter.receive("", json.dumps(one))
        assert adapter.receive_text(0, "a") is None
    adapter.receive("", json.dumps(text("b")))
    assert adapter.receive_text(0, "c") == {"type": "text.delta", "text": "c"}
    assert adapter.receive_text(None, "d") is adapter.receive_text(1, "d") is None
    whole = [{"type": "output_text", "text": said} for said in ("bc", "a")]
    assert adapter.receive("", json.dumps(done(0, "message", content=whole))) == []
    adapter.receive("", json.dumps(end()))
    assert adapter.receive_text(0, "late") is None


# ---- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(100)
def test_an_item_that_the_end_repeats_is_paired_in_linear_time() -> None:
    """Each repetition was looked for among all items: 4 seconds for 3 MB."""
    adapter: Any = get_provider(OPENAI).adapter()
    items = [_Item("message", f"m{at}", at, True) for at in range(100_000)]
    paired = _paired(items, [("message", "m0", {})] * 100_000, adapter._new)
    assert {item for item, _ in paired} == {items[0]}


@pytest.mark.timeout(100)
def test_items_without_a_pair_are_found_in_linear_time() -> None:
    """The items of other kinds were searched for each of them: 8 seconds for 2 MB."""
    items = [_Item("web_search_call", f"ws{at}", at, True) for at in range(100_000)]
    other = _Item("reasoning", "", 0, False)
    paired = _paired(items, [("reasoning", "r", {})] * 100_000, lambda kind, identifier, index: other)
    assert {item for item, _ in paired} == {other}
