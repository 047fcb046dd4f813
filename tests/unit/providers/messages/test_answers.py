"""Anthropic Messages: answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.library.collecting import collect
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from tests.limits import LIMITS
from tests.unit.providers import answer_reading as answers
from tests.unit.providers.answer_reading import between, body, calls_of, of_type, plain, read_whole, text_of

PING = {"type": "ping"}
AUDIO = {"type": "audio", "data": "A", "media_type": "audio/wav"}
SIGNATURE = "EqQBCgIYAhIM+/1gbcDa9GJwZA2b3hGg=="
STOP = {"type": "message_stop"}
COMPACTION = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}
MESSAGE = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}
COMPACTED = {"input_tokens": 23_000, "output_tokens": 1000, "iterations": [COMPACTION, MESSAGE]}
"""The example on Anthropic's page about compaction."""


def head(identifier: str = "msg_1", **keys: Any) -> dict[str, Any]:
    message = {"id": identifier, "type": "message", "role": "assistant", "model": "claude", "content": [], **keys}
    return {"type": "message_start", "message": message}


def begin(index: int, kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **keys}}


def delta(index: int, kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **keys}}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def tail(reason: str | None = "end_turn", **keys: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, **keys}


def said(text: str, index: int = 0) -> list[dict[str, Any]]:
    return [begin(index, "text", text=""), delta(index, "text_delta", text=text), end(index)]


def tool(index: int = 0, *pieces: str, identifier: str = "toolu_1", given: Any = None) -> list[dict[str, Any]]:
    """Returns a call whose block is not closed yet."""
    fragments = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [begin(index, "tool_use", id=identifier, name="f", input=given or {}), *fragments]


def read(*chunks: Any) -> list[Event]:
    return answers.read("anthropic", *chunks, done=False)


def billed(*chunks: Any) -> dict[str, Any]:
    """Returns the counts that are charged."""
    adapter = get_provider("anthropic").adapter()
    for chunk in chunks:
        adapter.receive("", json.dumps(chunk))
    assert adapter.usage is not None
    return adapter.billed(adapter.usage)


class TestText:
    def test_deltas_become_events_between_start_and_finish(self) -> None:
        blocks = [begin(0, "text", text=""), PING, delta(0, "text_delta", text="Hi"), end(0)]
        assert read(head(), *blocks, tail(), STOP) == [
            {"type": "start", "provider": "anthropic", "model": "claude", "provider_metadata": {"id": "msg_1"}},
            {"type": "text.delta", "text": "Hi"},
            {
                "type": "finish",
                "provider": "anthropic",
                "model": "claude",
                "finish_reason": "stop",
                "finish_reason_raw": "end_turn",
            },
        ]

    def test_what_a_block_begins_with_counts(self) -> None:
        blocks = [begin(0, "thinking", thinking="hm", signature="s"), end(0), begin(1, "text", text="Hi"), end(1)]
        events = read(head(), *blocks, tail(), STOP)
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Hi")
        assert of_type(events, "reasoning.signature") == [{"type": "reasoning.signature", "block": 0, "signature": "s"}]

    def test_unknown_events_blocks_and_deltas_are_ignored(self) -> None:
        blocks = [begin(0, "text", text=""), delta(0, "unheard_delta", content="…"), end(0)]
        unknown = [{"type": "unheard_of"}, {"type": "keepalive", "message": "working"}]
        assert between(read(head(), *unknown, *blocks, end(7), tail(), STOP)) == []

    def test_a_delta_of_an_unknown_type_is_what_its_members_are(self) -> None:
        deltas = [delta(0, "thinking", thinking="hm"), delta(0, "text", text="Hi")]
        events = read(head(), begin(0, "text", text=""), *deltas, end(0), tail(), STOP)
        assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Hi")

    def test_input_of_a_block_without_a_type_is_reported(self) -> None:
        began = begin(0, "tool_use", id="a", name="f", input={})
        del began["content_block"]["type"]
        events = read(head(), began, delta(0, "input_json_delta", partial_json="{}"), end(0), tail(), STOP)
        assert [event["type"] for event in between(events)] == ["warning"]

    def test_the_event_name_is_taken_where_the_data_has_no_type(self) -> None:
        adapter = get_provider("anthropic").adapter()
        assert adapter.receive("message_start", '{"message":{"id":"m","model":"claude"}}')[0]["type"] == "start"
        adapter.receive("message_stop", "{}")
        assert adapter.ended

    def test_the_end_mark_of_another_dialect_says_nothing(self) -> None:
        assert read(head(), *said("Hi"), tail(), "[DONE]")[-1]["finish_reason"] == "stop"
        with pytest.raises(Error, match="before it was complete"):
            read(head(), *said("Hi"), "[DONE]")

    def test_start_comes_first_even_where_the_head_is_missing(self) -> None:
        assert [event["type"] for event in read(*said("Hi"), tail(), STOP)] == ["start", "text.delta", "finish"]


class TestReasoning:
    def test_the_signature_is_reported_when_the_block_closes_and_replaces(self) -> None:
        blocks = [
            begin(0, "thinking", thinking="", signature=""),
            delta(0, "thinking_delta", thinking="hm"),
            delta(0, "signature_delta", signature="old"),
            delta(0, "signature_delta", signature="new"),
            end(0),
        ]
        assert between(read(head(), *blocks, *said("a", 1), tail(), STOP)) == [
            {"type": "reasoning.delta", "text": "hm"},
            {"type": "reasoning.signature", "block": 0, "signature": "new"},
            {"type": "text.delta", "text": "a"},
        ]

    def test_a_redacted_block_is_its_data(self) -> None:
        events = read(head(), begin(2, "redacted_thinking", data="opaque"), end(2), tail(), STOP)
        assert between(events) == [
            {"type": "reasoning.signature", "block": 2, "signature": "opaque", "redacted": True},
        ]

    def test_what_an_open_block_holds_is_reported_at_the_end(self) -> None:
        blocks = [begin(0, "thinking", thinking="hm"), delta(0, "signature_delta", signature="s")]
        events = read(head(), *blocks, tail("max_tokens"), STOP)
        assert of_type(events, "reasoning.signature") == [{"type": "reasoning.signature", "block": 0, "signature": "s"}]


class TestTools:
    def test_a_call_is_complete_when_its_block_closes(self) -> None:
        events = read(head(), *said("Let me."), *tool(1, "", '{"x"', ": 1}"), end(1), tail("tool_use"), STOP)
        assert between(events)[1:] == [
            {"type": "tool.call.start", "call_id": "toolu_1", "tool_call": {"name": "f"}, "index": 0},
            {"type": "tool.call.delta", "call_id": "toolu_1", "index": 0, "arguments": '{"x"'},
            {"type": "tool.call.delta", "call_id": "toolu_1", "index": 0, "arguments": ": 1}"},
            {"type": "tool.call", "call_id": "toolu_1", "tool_call": {"name": "f", "input": '{"x":1}'}},
        ]
        assert events[-1]["finish_reason"] == "tool_calls"

    def test_a_call_without_arguments_has_an_empty_object(self) -> None:
        events = read(head(), *tool(0, ""), end(0), tail("tool_use"), STOP)
        assert calls_of(events) == [("toolu_1", "f", "{}")]

    def test_parallel_calls_are_numbered_among_calls(self) -> None:
        first, second = tool(1, '{"n":1}'), tool(3, '{"n":2}', identifier="toolu_2")
        events = read(head(), *first, end(1), *second, end(3), tail("tool_use"), STOP)
        assert [event["index"] for event in of_type(events, "tool.call.start")] == [0, 1]
        assert [call_id for call_id, _, _ in calls_of(events)] == ["toolu_1", "toolu_2"]

    def test_arguments_that_come_with_the_block_are_taken_verbatim(self) -> None:
        start = json.dumps(tool(0, given={"n": 1})[0]).replace('{"n": 1}', '{"n": 12345678901234567890, "f": 1.10}')
        events = read(head(), start, end(0), tail("tool_use"), STOP)
        assert calls_of(events) == [("toolu_1", "f", '{"n":12345678901234567890,"f":1.10}')]

    def test_fragments_replace_what_came_with_the_block(self) -> None:
        events = read(head(), *tool(0, '{"n":2}', given={"n": 1}), end(0), tail("tool_use"), STOP)
        assert calls_of(events) == [("toolu_1", "f", '{"n":2}')]

    @pytest.mark.parametrize(
        ("chunks", "reason", "expected"),
        [
            ([*tool(0, '{"n":'), end(0)], "max_tokens", 0),  # closed, but not JSON beside `length`
            (tool(0, '{"n":1}'), "max_tokens", 0),  # JSON, but not closed
            ([*tool(0, '{"n":1}'), end(0)], "max_tokens", 1),
            ([*tool(0, "nonsense"), end(0)], "tool_use", 1),  # the provider says that it is complete
            (tool(0, '{"n":1}'), "tool_use", 1),
        ],
    )
    def test_a_call_that_is_cut_off_is_not_reported(self, chunks: list[Any], reason: str, expected: int) -> None:
        events = read(head(), *chunks, tail(reason), STOP)
        assert len(calls_of(events)) == expected
        assert len(of_type(events, "tool.call.start")) == 1

    @pytest.mark.parametrize("reason", ["tool_use", "end_turn"])
    def test_a_call_that_breaks_off_amid_its_arguments_is_a_failure_of_a_complete_answer(self, reason: str) -> None:
        with pytest.raises(Error) as failed:
            read(head(), *tool(0, '{"n":'), tail(reason), STOP)
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")

    def test_an_open_call_is_cut_off_by_an_error(self) -> None:
        adapter = get_provider("anthropic").adapter()
        for one in (head(), *tool(0, '{"n":1}')):
            adapter.receive("", json.dumps(one))
        assert calls_of(plain(adapter.abort())) == []

    def test_tools_of_the_provider_are_reported_from_begin_to_end(self) -> None:
        result = [{"type": "web_search_result", "url": "u", "title": "t"}]
        blocks = [
            begin(0, "server_tool_use", id="srv_1", name="web_search", input={}),
            delta(0, "input_json_delta", partial_json='{"query":'),
            delta(0, "input_json_delta", partial_json='"x"}'),
            end(0),
            begin(1, "web_search_tool_result", tool_use_id="srv_1", content=result),
            end(1),
            begin(2, "mcp_tool_use", id="mcp_1", name="ask", input={"q": 1}, server_name="s"),
            end(2),
            begin(3, "mcp_tool_result", tool_use_id="mcp_1", is_error=True, content=[]),
            end(3),
            begin(4, "bash_code_execution_tool_result", tool_use_id="lost", content={"error_code": "unavailable"}),
            end(4),
        ]
        events = of_type(read(head(), *blocks, tail(), STOP), "server_tool")
        assert [event["server_tool"] for event in events] == [
            {"id": "srv_1", "name": "web_search", "status": "started", "input": {"query": "x"}},
            {"id": "srv_1", "name": "web_search", "status": "completed", "output": result},
            {"id": "mcp_1", "name": "ask", "status": "started", "input": {"q": 1}},
            {"id": "mcp_1", "name": "ask", "status": "failed"},
            {"id": "lost", "name": "bash_code_execution", "status": "failed", "output": {"error_code": "unavailable"}},
        ]


def test_citations_are_for_the_text_of_their_block() -> None:
    sources: list[dict[str, Any]] = [
        {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c"},
        {"type": "search_result_location", "source": "s", "title": None},
        {"type": "char_location", "file_id": "file_1", "document_title": "d", "start_char_index": 0},
        {"type": "page_location", "document_index": 3, "document_title": None},
    ]
    cited = [delta(1, "citations_delta", citation=source) for source in sources]
    blocks = [begin(1, "text", text="", citations=[]), *cited, delta(1, "text_delta", text="Grün 🌍"), end(1)]
    events = between(read(head(), *said("See: "), *blocks, tail(), STOP))
    span = {"start": 5, "end": 11}
    assert events[1:] == [
        {"type": "text.delta", "text": "Grün 🌍"},
        {
            "type": "citations",
            "citations": [
                {"uri": "u", "title": "t", "cited_text": "c", **span},
                {"uri": "s", **span},
                {"uri": "file_1", "title": "d", **span},
                {"uri": "document:3", **span},
            ],
        },
    ]


def test_the_id_of_a_message_is_its_callers_because_it_names_its_thread() -> None:
    adapter = get_provider("anthropic").adapter()
    for _ in range(2):
        adapter.receive("", json.dumps(head()))
    assert adapter.stored_ids == ["msg_1"]


def test_deltas_that_are_copied_count_for_the_span_of_citations() -> None:
    adapter = get_provider("anthropic").adapter()
    for one in (head(), begin(0, "text", text="")):
        adapter.receive("", json.dumps(one))
        assert not adapter.copyable
    result = adapter.receive("", json.dumps(delta(0, "text_delta", text="a")))[0]
    assert adapter.copyable
    adapter.copied(result, 4, "")
    adapter.copied({"type": "reasoning.delta", "text": "hm"}, 2, "")
    adapter.receive("", json.dumps(delta(0, "citations_delta", citation={"url": "u"})))
    assert adapter.receive("", json.dumps(end(0)))[0]["citations"] == [{"uri": "u", "start": 0, "end": 5}]


def test_text_is_expected_once_a_block_has_begun_and_only_its_deltas_are_plain() -> None:
    adapter = get_provider("anthropic").adapter()
    assert adapter.expected() is None
    adapter.receive("", json.dumps(head()))
    assert adapter.expected() is None
    adapter.receive("", json.dumps(begin(0, "text", text="")))
    assert (adapter.expected(), adapter.is_plain) == ({"type": "text.delta", "text": ""}, False)
    adapter.receive("", json.dumps(delta(0, "text_delta", text="a")))
    assert adapter.is_plain
    for other in (delta(0, "thinking_delta", thinking="hm"), {"type": "ping"}, end(0)):
        adapter.receive("", json.dumps(other))
        assert not adapter.is_plain


def test_citations_that_come_with_the_block_count() -> None:
    cited = [{"type": "web_search_result_location", "url": "u", "title": "t"}]
    events = read(head(), begin(0, "text", text="Hi", citations=cited), end(0), tail(), STOP)
    assert of_type(events, "citations")[0]["citations"] == [{"uri": "u", "title": "t", "start": 0, "end": 2}]


def test_a_call_without_an_id_gets_one_that_no_other_answer_has() -> None:
    ids = []
    for one in ("m1", "m2", "m1"):
        adapter = get_provider("anthropic").adapter()
        adapter.receive("", json.dumps(head(one)))
        ids.append(adapter.receive("", json.dumps(tool(identifier="")[0]))[0]["call_id"])
    assert ids[0] == ids[2] != ids[1]


class TestEnd:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("pause_turn", "pause"),
            ("refusal", "content_filter"),
            ("compaction", "other"),
        ],
    )
    def test_words_are_mapped_and_kept(self, word: str, reason: str) -> None:
        finish = read(head(), tail(word), STOP)[-1]
        assert (finish["finish_reason"], finish["finish_reason_raw"]) == (reason, word)

    def test_a_refusal_says_its_category(self) -> None:
        refused = tail("refusal")
        refused["delta"]["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": "…"}
        assert between(read(head(), PING, refused, STOP)) == [
            {"type": "safety", "safety": {"category": "cyber", "action": "refused"}}
        ]
        refused["delta"]["stop_details"]["category"] = None
        assert between(read(head(), refused, STOP)) == []

    def test_the_container_in_which_tools_ran_is_in_the_end(self) -> None:
        container = {"id": "c1", "expires_at": "2026-11-25T00:00:00Z", "skills": None}
        ended = tail()
        ended["delta"]["container"] = container
        assert read(head(), ended, ended, STOP)[-1]["provider_metadata"] == {"container": container}
        ended["delta"]["container"] = None
        assert "provider_metadata" not in read(head(), ended, STOP)[-1]

    def test_the_last_reason_wins(self) -> None:
        assert read(head(), tail("end_turn"), tail(None), tail("max_tokens"), STOP)[-1]["finish_reason"] == "length"

    def test_a_reason_is_enough_where_the_end_mark_is_missing(self) -> None:
        assert read(head(), tail())[-1]["finish_reason"] == "stop"

    def test_an_end_mark_without_a_reason_is_other_or_tool_calls(self) -> None:
        assert read(head(), STOP)[-1]["finish_reason"] == "other"
        assert read(head(), *tool(), end(0), STOP)[-1]["finish_reason"] == "tool_calls"

    def test_neither_is_truncated(self) -> None:
        with pytest.raises(Error) as failed:
            read(head(), *said("Hi"))
        assert (failed.value.code, failed.value.reason) == ("network", "truncated")


class TestUsage:
    def test_cached_tokens_are_added_to_the_input(self) -> None:
        counts = {
            "input_tokens": 10,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 5,
            "output_tokens": 1,
        }
        assert read(head(usage=counts), tail(usage={"output_tokens": 7}), STOP)[-1]["usage"] == {
            "input_tokens": 18,
            "output_tokens": 7,
            "total_tokens": 25,
            "cached_input_tokens": 5,
            "cache_write_input_tokens": 3,
        }

    def test_an_input_of_zero_at_the_end_counts_nothing(self) -> None:
        begin = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}
        zeros = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
        assert read(head(usage=begin), tail(usage={**zeros, "output_tokens": 7}), STOP)[-1]["usage"] == {
            "input_tokens": 15,
            "output_tokens": 7,
            "total_tokens": 22,
            "cached_input_tokens": 5,
        }
        moved = {"input_tokens": 0, "cache_read_input_tokens": 15, "output_tokens": 7}
        assert read(head(usage=begin), tail(usage=moved), STOP)[-1]["usage"]["input_tokens"] == 15

    def test_tokens_that_are_cached_for_an_hour_are_counted_apart(self) -> None:
        split = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
        counts = {"input_tokens": 10, "cache_creation_input_tokens": 3, "cache_creation": split, "output_tokens": 1}
        counted = read(head(usage=counts), tail(usage={"output_tokens": 7}), STOP)[-1]["usage"]
        assert (counted["cache_write_input_tokens"], counted["cache_write_1h_input_tokens"]) == (3, 2)

    @pytest.mark.parametrize("odd", [5, "x", [], None, {"ephemeral_1h_input_tokens": "x"}], ids=str)
    def test_a_split_that_cannot_be_read_costs_no_other_count(self, odd: Any) -> None:
        counts = {"input_tokens": 10, "cache_creation_input_tokens": 3, "cache_creation": odd, "output_tokens": 1}
        counted = read(head(usage=counts), tail(usage={"output_tokens": 7}), STOP)[-1]["usage"]
        assert counted["cache_write_input_tokens"] == 3
        assert "cache_write_1h_input_tokens" not in counted

    def test_totals_overwrite_and_what_is_absent_stays(self) -> None:
        later = [
            tail(None, usage={"output_tokens": 4, "input_tokens": None}),
            tail(usage={"input_tokens": 61, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}),
        ]
        assert read(head(usage={"input_tokens": 43, "output_tokens": 1}), *later, STOP)[-1]["usage"] == {
            "input_tokens": 61,
            "output_tokens": 9,
            "total_tokens": 70,
            "reasoning_tokens": 4,
        }

    def test_details_of_another_shape_are_left_out(self) -> None:
        usage = {"input_tokens": 4, "output_tokens": 2, "output_tokens_details": 5}
        assert read(head(), tail(usage=usage), STOP)[-1]["usage"]["total_tokens"] == 6

    @pytest.mark.parametrize("wrong", [True, -1, 2.5, 2**53, 2**70, "x", None])
    def test_a_count_that_cannot_be_read_replaces_none(self, wrong: Any) -> None:
        begun = head(usage={"input_tokens": 4, "output_tokens": 1})
        usage = {"input_tokens": wrong, "output_tokens": 2}
        assert read(begun, tail(usage=usage), STOP)[-1]["usage"] == {
            "input_tokens": 4,
            "output_tokens": 2,
            "total_tokens": 6,
        }

    def test_the_count_of_the_first_tokens_is_not_that_of_the_answer(self) -> None:
        begun = head(usage={"input_tokens": 4, "output_tokens": 1})
        assert read(begun, tail(), STOP)[-1]["usage"] == {"input_tokens": 4}

    def test_compactions_are_charged_and_are_no_tokens_of_the_answer(self) -> None:
        expected = {"input_tokens": 203_000, "output_tokens": 4500, "total_tokens": 207_500}
        assert billed(head(), tail(usage=COMPACTED), STOP) == expected
        assert read(head(), tail(usage=COMPACTED), STOP)[-1]["usage"]["total_tokens"] == 24_000
        adapter = get_provider("anthropic").adapter()
        adapter.receive_whole({"content": "Hi", "stop_reason": "end_turn", "usage": COMPACTED})
        assert adapter.usage is not None
        assert adapter.billed(adapter.usage) == expected

    def test_a_request_that_only_compacts_is_charged(self) -> None:
        usage = {"input_tokens": 0, "output_tokens": 0, "iterations": [COMPACTION]}
        counted = billed(head(usage={"input_tokens": 0, "output_tokens": 0}), tail("compaction", usage=usage), STOP)
        assert counted["total_tokens"] == 183_500

    def test_cached_tokens_of_a_compaction_are_counted(self) -> None:
        split = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
        cached = {"cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation": split}
        usage = {"input_tokens": 1, "output_tokens": 2, **cached, "iterations": [{**COMPACTION, **cached}]}
        assert billed(head(), tail(usage=usage), STOP) == {
            "input_tokens": 180_017,
            "output_tokens": 3502,
            "total_tokens": 183_519,
            "cached_input_tokens": 10,
            "cache_write_input_tokens": 6,
            "cache_write_1h_input_tokens": 4,
        }

    def test_later_iterations_replace_and_absent_ones_stay(self) -> None:
        first = {**COMPACTED, "iterations": [{**COMPACTION, "input_tokens": 7}]}
        later = [tail(None, usage=first), tail(usage=COMPACTED), tail(usage={"output_tokens": 1000})]
        assert billed(head(), *later, STOP)["total_tokens"] == 207_500

    @pytest.mark.parametrize(
        "odd",
        [
            5,
            "x",
            {"type": "compaction", "input_tokens": 9},
            [None, 1, "x", [COMPACTION]],
            [{**COMPACTION, "type": "advisor_message"}, {**COMPACTION, "type": ["compaction"]}],
            [{"type": "compaction", "input_tokens": -1, "output_tokens": "x", "cache_read_input_tokens": 1.5}],
            [{**COMPACTION, "input_tokens": 2**53 - 1, "output_tokens": 0}] * 2,
        ],
        ids=str,
    )
    def test_iterations_that_cannot_be_read_cost_no_other_count(self, odd: Any) -> None:
        counted = billed(head(), tail(usage={**COMPACTED, "iterations": odd}), STOP)
        assert counted == {"input_tokens": 23_000, "output_tokens": 1000, "total_tokens": 24_000}

    def test_no_usage_is_none(self) -> None:
        assert "usage" not in read(head(), tail(), STOP)[-1]


class TestErrors:
    @pytest.mark.parametrize("name", ["error", ""])
    def test_an_error_may_come_at_any_time(self, name: str) -> None:
        adapter = get_provider("anthropic").adapter()
        adapter.receive("message_start", json.dumps(head()))
        with pytest.raises(Error, match="Overloaded") as failed:
            adapter.receive(name, '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
        assert (failed.value.code, failed.value.temporary) == ("overloaded", True)

    @pytest.mark.parametrize(
        ("status", "error", "code", "temporary"),
        [
            (400, {"type": "invalid_request_error", "message": "bad"}, "invalid_request", False),
            (400, {"type": "invalid_request_error", "message": "prompt is too long"}, "context_length_exceeded", False),
            (401, {"type": "authentication_error", "message": "m"}, "unauthorized", False),
            (402, {"type": "billing_error", "message": "m"}, "forbidden", False),
            (413, {"type": "request_too_large", "message": "m"}, "invalid_request", False),
            (429, {"type": "rate_limit_error", "message": "m"}, "rate_limited", True),
            (429, {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}},
             "rate_limited", True),
            (429, {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}},
             "rate_limited", False),
            (500, {"type": "api_error", "message": "m"}, "internal", False),
            (504, {"type": "timeout_error", "message": "m"}, "timeout", True),
            (529, {"type": "overloaded_error", "message": "m"}, "overloaded", True),
        ],
    )  # fmt: skip
    def test_its_types_become_codes(self, status: int, error: Any, code: str, temporary: bool) -> None:
        result = json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
        found = get_provider("anthropic").decode_error(status, {}, result)
        assert (found.code, found.temporary, found.details) == (code, temporary, error)

    def test_the_same_message_again_changes_nothing(self) -> None:
        first, last = head(usage={"output_tokens": 1}), tail(usage={"output_tokens": 9})
        events = read(first, *said("Hi"), last, first, STOP)
        assert [event["type"] for event in events] == ["start", "text.delta", "finish"]
        assert events[-1]["usage"]["output_tokens"] == 9

    def test_another_message_after_deltas_of_no_block_is_a_failure(self) -> None:
        with pytest.raises(Error, match="within the first"):
            read(head("msg_1"), delta(0, "text_delta", text="Hi"), head("msg_2"))

    def test_an_error_may_be_flat(self) -> None:
        with pytest.raises(Error, match="later"):
            read(head(), {"type": "overloaded_error", "message": "later"})

    def test_another_message_before_any_content_corrects_the_usage(self) -> None:
        heads = [head("msg_1", usage={"input_tokens": 1, "output_tokens": 1}), head("msg_2", usage={"input_tokens": 2})]
        assert read(*heads, tail(), STOP)[-1]["usage"]["input_tokens"] == 2

    def test_another_message_amid_the_first_is_a_failure(self) -> None:
        with pytest.raises(Error) as failed:
            read(head("msg_1"), *said("Hi"), head("msg_2"))
        assert (failed.value.code, failed.value.reason) == ("provider_unavailable", "spliced_answer")

    @pytest.mark.parametrize(
        "one",
        [
            7,
            [],
            delta(0, "text_delta", text=1),
            {"index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            delta(0, "input_json_delta", partial_json='{"a":1}'),
        ],
    )
    def test_other_shapes_are_malformed(self, one: Any) -> None:
        with pytest.raises(Malformed):
            read(one)

    def test_open_blocks_have_a_limit(self) -> None:
        adapter = get_provider("anthropic").adapter()
        for index in range(LIMITS.content_blocks):
            adapter.receive("", json.dumps(begin(index, "text", text="")))
        with pytest.raises(Error, match="content blocks") as failed:
            adapter.receive("", json.dumps(begin(LIMITS.content_blocks, "text", text="")))
        assert failed.value.reason == "content_blocks"


def test_the_stop_sequence_is_reported_at_the_end() -> None:
    last = {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}}
    assert read(head(), *said("a"), last, STOP)[-1]["provider_metadata"] == {"stop_sequence": "END"}
    assert "provider_metadata" not in read(head(), *said("a"), tail(), STOP)[-1]


def test_the_cited_text_is_reported() -> None:
    cited = {"type": "char_location", "document_index": 0, "document_title": "D", "cited_text": "It is so."}
    chunks = [begin(0, "text", text=""), delta(0, "text_delta", text="So"), delta(0, "citations_delta", citation=cited)]
    (event,) = of_type(read(head(), *chunks, end(0), tail(), STOP), "citations")
    result = {"uri": "document:0", "title": "D", "cited_text": "It is so.", "start": 0, "end": 2}
    assert event["citations"] == [result]


class TestBlocks:
    """Blocks that only Anthropic understands."""

    def emitted(self, *chunks: Any, reason: str = "pause_turn") -> list[Event]:
        return [one for one in read(head(), *chunks, tail(reason), STOP) if one["type"] == "provider.block"]

    def test_a_paused_answer_has_the_blocks_that_go_on_with_it(self) -> None:
        use = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "caller": {"type": "direct"}}
        page = {"type": "web_search_result", "url": "u", "encrypted_content": "e", "page_age": None}
        found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [page]}
        chunks = [
            {"type": "content_block_start", "index": 0, "content_block": {**use, "input": {}}},
            delta(0, "input_json_delta", partial_json='{"query": "x", "n"'),
            delta(0, "input_json_delta", partial_json=": 12345678901234567890}"),
            end(0),
            {"type": "content_block_start", "index": 1, "content_block": found},
            end(1),
        ]
        given = {**use, "input": {"query": "x", "n": 12345678901234567890}}
        assert self.emitted(*chunks) == [
            {"type": "provider.block", "provider": "anthropic", "block": given, "index": 0},
            {"type": "provider.block", "provider": "anthropic", "block": found, "index": 1},
        ]
        events = read(head(), *chunks, tail("pause_turn"), STOP)
        assert events[-1]["finish_reason"] == "pause"
        assert [part["block"] for part in collect(events).message["content"]] == [given, found]

    def test_a_compaction_comes_with_its_delta_and_its_signature(self) -> None:
        chunks = [
            begin(0, "compaction", content=None, tool_changes=[]),
            delta(0, "compaction_delta", content="All of it.", encrypted_content="e"),
            delta(0, "signature_delta", signature="s"),
            end(0),
        ]
        whole = {"type": "compaction", "content": "All of it.", "tool_changes": [], "encrypted_content": "e"}
        assert [one["block"] for one in self.emitted(*chunks)] == [{**whole, "signature": "s"}]
        assert of_type(read(head(), *chunks, tail(), STOP), "reasoning.signature") == []

    @pytest.mark.parametrize("pieces", [['{"query": "x'], ["[" * 300 + "]" * 300]], ids=["cut off", "too deep"])
    def test_an_input_that_cannot_be_sent_back_makes_no_block(self, pieces: list[str]) -> None:
        fragments = [delta(0, "input_json_delta", partial_json=piece) for piece in pieces]
        use = begin(0, "server_tool_use", id="srv_1", name="web_search", input={})
        assert self.emitted(use, *fragments, end(0)) == []

    def test_a_block_that_is_cut_off_is_none(self) -> None:
        assert (
            self.emitted(begin(0, "server_tool_use", id="srv_1", name="web_search", input={}), reason="max_tokens")
            == []
        )

    def test_a_result_that_is_nested_too_deep_to_be_sent_back_is_reported_as_a_tool_alone(self) -> None:
        deep: Any = []
        for _ in range(100):
            deep = [deep]
        events = read(head(), begin(0, "mcp_tool_result", tool_use_id="m", content=deep), end(0), tail(), STOP)
        assert of_type(events, "provider.block") == []
        assert len(of_type(events, "server_tool")) == 1

    def test_what_open_blocks_hold_is_limited_and_given_back(self) -> None:
        adapter: Any = get_provider("anthropic").adapter()
        adapter.receive("", json.dumps(head()))
        before = adapter.room.remaining
        adapter.receive("", json.dumps(begin(0, "compaction", content="x" * 1000)))
        assert adapter.room.remaining < before - 1000
        adapter.receive("", json.dumps(end(0)))
        assert adapter.room.remaining == before


class TestWholeAnswer:
    TEXT = """{"id":"msg_1","type":"message","role":"assistant","model":"claude","stop_reason":"tool_use",
      "usage":{"input_tokens":4,"output_tokens":2},
      "content":[
        {"type":"thinking","thinking":"hm","signature":"s"},
        {"type":"redacted_thinking","data":"opaque"},
        {"type":"text","text":"Hi","citations":[{"type":"web_search_result_location","url":"u","title":"t"}]},
        {"type":"server_tool_use","id":"srv_1","name":"web_search","input":{"query":"x"}},
        {"type":"tool_use","id":"toolu_1","name":"f","input":{"n": 12345678901234567890}},
        {"type":"tool_use","id":"toolu_2","name":"g","input":{}}]}"""

    def test_it_has_the_events_of_a_stream(self) -> None:
        events = read_whole("anthropic", json.loads(self.TEXT), self.TEXT)
        assert [event["type"] for event in events] == [
            "start",
            "reasoning.delta",
            "reasoning.signature",
            "reasoning.signature",
            "text.delta",
            "citations",
            "provider.block",
            "server_tool",
            "tool.call.start",
            "tool.call.delta",
            "tool.call",
            "tool.call.start",
            "tool.call",
            "finish",
        ]
        assert calls_of(events) == [("toolu_1", "f", '{"n":12345678901234567890}'), ("toolu_2", "g", "{}")]
        assert of_type(events, "citations")[0]["citations"] == [{"uri": "u", "title": "t", "start": 0, "end": 2}]
        assert events[-1]["usage"] == {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}

    @pytest.mark.parametrize("text", [None, ""], ids=["text", "no text"])
    def test_an_input_that_is_null_is_an_empty_object(self, text: str | None) -> None:
        use = {"type": "tool_use", "id": "toolu_1", "name": "now", "input": None}
        answer = {"content": [use, {**use, "id": "toolu_2", "input": {"n": 1}}], "stop_reason": "tool_use"}
        calls = [("toolu_1", "now", "{}"), ("toolu_2", "now", '{"n":1}')]
        assert calls_of(read_whole("anthropic", answer, text)) == calls

    def test_arguments_are_written_anew_where_the_text_is_not_given(self) -> None:
        answer = json.loads(self.TEXT)
        assert calls_of(read_whole("anthropic", answer, "")) == calls_of(read_whole("anthropic", answer, self.TEXT))

    @pytest.mark.parametrize("answer", [7, {}, {"content": 5}])
    def test_without_content_it_is_no_answer(self, answer: Any) -> None:
        with pytest.raises(Malformed):
            read_whole("anthropic", answer)


def test_a_category_that_is_no_text_is_left_out() -> None:
    adapter = get_provider("anthropic").adapter()
    delta = {"stop_reason": "refusal", "stop_details": {"category": {"a": 1}}}
    assert adapter.receive("", json.dumps({"type": "message_delta", "delta": delta})) == []
    assert adapter.word() == "refusal"


def test_a_block_that_begins_again_ends_the_former_and_takes_no_more_room() -> None:
    adapter = get_provider("anthropic").adapter()
    adapter.receive("", json.dumps(head()))
    room = adapter.room.remaining
    block = {"type": "thinking", "thinking": "", "signature": "s" * 1000}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    for _ in range(5):
        events = adapter.receive("", json.dumps(start))
    assert [event["type"] for event in events] == ["reasoning.signature"]
    adapter.receive("", json.dumps({"type": "content_block_stop", "index": 0}))
    assert adapter.room.remaining == room


def test_the_start_of_a_call_that_is_repeated_begins_no_other_call() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    events = read(head(), start, start, delta(0, "input_json_delta", partial_json="{}"), tail("tool_use"), STOP)
    assert [event["call_id"] for event in events if event["type"] == "tool.call.start"] == ["t"]


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use"])
@pytest.mark.parametrize("identifier", ["t", 5])
def test_the_start_of_a_block_that_is_repeated_takes_no_room_and_makes_no_events(kind: str, identifier: Any) -> None:
    adapter = get_provider("anthropic").adapter()
    block = {"type": kind, "id": identifier, "name": "f", "input": {"a": "b"}}
    start = json.dumps({"type": "content_block_start", "index": 0, "content_block": block})
    adapter.receive("", json.dumps(head()))
    adapter.receive("", start)
    room = adapter.room.remaining
    assert [event for _ in range(50) for event in adapter.receive("", start)] == []
    assert adapter.room.remaining == room


def test_a_thinking_turn_survives_being_sent_back() -> None:
    """Signatures and redacted blocks byte for byte, in their order."""
    thinking = [begin(0, "thinking", thinking=""), delta(0, "thinking_delta", thinking="hm"),
                delta(0, "signature_delta", signature=SIGNATURE), end(0)]  # fmt: skip
    redacted = [begin(1, "redacted_thinking", data=SIGNATURE[::-1]), end(1)]
    chunks = [head(), *thinking, *redacted, *said("Let me look.", 2), *tool(3, '{"n": 1}'), tail("tool_use"), STOP]
    adapter = get_provider("anthropic").adapter()
    answer = [event for one in chunks for event in adapter.receive("", json.dumps(one))] + adapter.finish()
    result = {"role": "tool", "call_id": "toolu_1", "content": "4 °C"}
    turns = body("anthropic", query="So?", messages=[collect(answer).message, result])["messages"]
    assert turns[0] == {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "redacted_thinking", "data": SIGNATURE[::-1]},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"n": 1}},
    ]}  # fmt: skip
    assert [block["type"] for block in turns[1]["content"]] == ["tool_result", "text"]
