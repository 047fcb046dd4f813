"""The items of a Responses answer: which events they come from, and when they begin and end."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gai_fast.formats.responses.output import ResponsesOutput, discard
from gai_fast.model.events import Event
from tests.unit.formats.responses_reader import RESPONSES, checked, types, whole, written
from tests.unit.formats.streams import DONE, START, call, call_delta, call_start, context, encoded, finish, text

REASONING: Event = {"type": "reasoning.delta", "text": "Hm."}
REFUSAL: Event = {"type": "refusal.delta", "text": "No."}


def items(*events: Event, **changes: Any) -> list[Any]:
    """Returns the items of a finished answer; the stream and the whole answer have the same."""
    last = written(*events, finish(), DONE, **changes)[-1]["response"]["output"]
    assert last == whole(*events, finish(), **changes)["output"]
    return last


def test_each_item_ends_before_the_next_one_begins() -> None:
    found = written(REASONING, text("a"), REASONING, text("b"), finish(), DONE)
    named = [(one["type"], one["output_index"]) for one in found if "output_item" in one["type"]]
    assert named == [(f"response.output_item.{end}", index) for index in range(4) for end in ("added", "done")]
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"] * 2


def test_text_and_refusal_are_parts_of_one_message() -> None:
    (message,) = items(text("a"), text("b"), REFUSAL, text("c"))
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["ab", "No.", "c"]
    added = [one for one in written(text("a"), REFUSAL) if one["type"] == "response.content_part.added"]
    assert [one["content_index"] for one in added] == [0, 1]


@pytest.mark.parametrize(
    ("provider", "event", "content"),
    [
        ("openai", {}, "sig"),
        ("azure", {}, "sig"),
        ("anthropic", {}, 'gai:{"provider":"anthropic","signature":"sig"}'),
        ("anthropic", {"redacted": True}, 'gai:{"provider":"anthropic","signature":"sig","redacted":true}'),
        ("gemini", {"call_id": "c"}, 'gai:{"provider":"gemini","signature":"sig","call_id":"c"}'),
    ],
)
def test_a_signature_stands_on_its_reasoning_or_alone(provider: str, event: Any, content: str) -> None:
    start: Event = {**START, "provider": provider}
    signature: Event = {"type": "reasoning.signature", "signature": "sig", "block": 0, **event}
    found = items(start, REASONING, signature)
    assert [item.get("encrypted_content") for item in found] == ([None, content] if event else [content])
    alone = items(start, signature)
    assert [(item["summary"], item["encrypted_content"]) for item in alone] == [([], content)]


def test_citations_count_within_their_part() -> None:
    cited: list[Any] = [{"uri": "https://a.example", "title": "A", "start": 4, "end": 6}, {"uri": "https://b.example"}]
    found = items(text("one "), REFUSAL, text("two"), {"type": "citations", "citations": cited})
    notes = found[0]["content"][2]["annotations"]
    assert [(note["url"], note["start_index"], note["end_index"]) for note in notes] == [
        ("https://a.example", 0, 2),
        ("https://b.example", 3, 3),
    ]
    assert types(written({"type": "citations", "citations": cited}))[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.annotation.added",
        "output_text.annotation.added",
    ]


def test_calls_stand_beside_each_other() -> None:
    found = written(
        call_start("call_1", 0),
        call_start("call_2", 1),
        call_delta("{", "call_1", 0),
        call_delta("[", "call_2", 1),
        call_delta("}", "call_1", 0),
        call("call_1", "{}"),
        finish("tool_calls"),
        DONE,
    )
    deltas = [(one["output_index"], one["delta"]) for one in found if one["type"].endswith("arguments.delta")]
    assert deltas == [(0, "{"), (1, "["), (0, "}")]
    output = found[-1]["response"]["output"]
    assert [(one["arguments"], one["status"]) for one in output] == [("{}", "completed"), ("[", "incomplete")]


@pytest.mark.parametrize("before", [[], [call_delta("  ")]], ids=["no fragment", "only blanks"])
def test_arguments_that_never_came_are_one_fragment(before: list[Event]) -> None:
    found = written(call_start(), *before, call(arguments="{}"))
    assert [one["delta"] for one in found if one["type"].endswith(".delta")][-1] == "{}"


def test_a_call_whose_start_never_came_is_reported_whole() -> None:
    assert [(one["name"], one["arguments"]) for one in items(call())] == [("weather", '{"city":"Oslo"}')]
    assert items(call_delta("x"))[0]["name"] == ""


def test_the_call_of_a_tool_that_takes_text_is_one() -> None:
    echo = {"tools": [{"type": "custom", "name": "weather"}, {"type": "function", "name": "f"}]}
    complete: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "weather", "input": "Oslo?"}}
    (item,) = items(complete, echo=echo)
    assert (item["type"], item["input"], item["name"]) == ("custom_tool_call", "Oslo?", "weather")
    assert "custom_tool_call_input.done" in types(written(complete, echo=echo))


@pytest.mark.parametrize("name", ["mcp__docs__weather", "weather"])
def test_the_call_of_a_tool_in_a_namespace_names_both(name: str) -> None:
    """Codex resolves calls by both, and refuses a flat name (github.com/jundot/omlx/issues/3371)."""
    tools = [{"type": "function", "name": "weather"}]
    group = {"type": "namespace", "name": "mcp__docs__", "description": "Docs", "tools": tools}
    complete: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": name, "input": {}}}
    start: Event = {"type": "tool.call.start", "call_id": "c", "tool_call": {"name": name}}
    for events in ([complete], [start, complete]):
        echo = {"tools": [group]}
        (item,) = items(*events, echo=echo)
        assert (item["type"], item["name"], item["namespace"]) == ("function_call", "weather", "mcp__docs__")
        (added,) = [one["item"] for one in written(*events, echo=echo) if one["type"].endswith("output_item.added")]
        assert (added["name"], added["namespace"]) == ("weather", "mcp__docs__")


def test_a_signature_of_a_call_is_an_item_behind_it() -> None:
    found = items(call(signature="sig"))
    assert [item["type"] for item in found] == ["function_call", "reasoning"]


@pytest.mark.parametrize(("result", "output"), [({"tool_result": {"a": 1}}, '{"a":1}'), ({}, "")])
def test_the_result_of_a_call_that_the_client_did_not_run(result: Any, output: str) -> None:
    (item,) = items({"type": "tool.result", "call_id": "c", **result})
    assert (item["type"], item["call_id"], item["output"]) == ("function_call_output", "c", output)


def test_images_belong_to_the_run_that_draws_them() -> None:
    def run(status: str) -> Event:
        return {"type": "server_tool", "server_tool": {"id": "ig_1", "name": "image_generation", "status": status}}

    def image(data: str, **more: Any) -> Event:
        return {"type": "image", "image": {"data": data, "media_type": "image/webp", **more}}

    events = [run("started"), image("a", partial=True), image("b", partial=True), image("c"), run("completed")]
    (item,) = items(*events)
    assert (item["id"], item["result"], item["output_format"], item["status"]) == ("ig_1", "c", "webp", "completed")
    shown = [one for one in written(*events) if one["type"].endswith("partial_image")]
    assert [(one["partial_image_index"], one["partial_image_b64"]) for one in shown] == [(0, "a"), (1, "b")]
    assert [item["result"] for item in items(image("x"), image("y"))] == ["x", "y"]
    assert [item["result"] for item in items(image("a", partial=True), image("b", partial=True), image("c"))] == ["c"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "server_tool", "server_tool": {"id": "s", "name": "code", "status": "failed", "output": [math.inf]}},
        {"type": "server_tool", "server_tool": {"name": "web_search", "status": "started", "input": {"q": math.nan}}},
        {"type": "citations", "citations": [{"uri": "https://a.example", "start": 0, "end": math.inf}]},
        {"type": "tool.result", "call_id": "c", "tool_result": math.inf},
    ],
)
def test_what_is_no_json_leaves_nothing_behind(event: Any) -> None:
    """The relay leaves the event out; the end of the answer repeats all items, and numbers have no holes."""
    encoder, whole = RESPONSES.encoder("sse", context()), RESPONSES.whole(context())
    for one in (START, text("a")):
        encoder.event(one)
        whole.event(one)
    for output in (encoder, whole):
        with pytest.raises(ValueError, match="not JSON"):
            output.event(event)
    found = checked(encoder.take() + encoded(encoder, [text("b"), finish(), DONE]))
    assert found[-1]["response"]["output"] == json.loads(encoded(whole, [text("b"), finish(), DONE]))["output"]
    assert found[-1]["response"]["output"][0]["type"] == "message"


def test_what_begins_again_without_an_end_is_cut_off_there() -> None:
    searching: Event = {"type": "server_tool", "server_tool": {"name": "web_search", "status": "started"}}
    drawn: Event = {"type": "image", "image": {"data": "a", "media_type": "image/png"}}
    found = written(call_start(), call_delta("{"), call_start(), call(), searching, drawn, finish(), DONE)
    ended = [
        (one["output_index"], one["item"]["status"]) for one in found if one["type"] == "response.output_item.done"
    ]
    assert ended == [(0, "incomplete"), (1, "completed"), (2, "incomplete"), (3, "completed")]


def test_ids_of_items_differ_and_are_the_same_in_every_answer_of_a_stream() -> None:
    events = [REASONING, text("a"), call("call_1"), call("call_2")]
    ids = [item["id"] for item in items(*events)]
    assert len(set(ids)) == 4
    assert ids == [item["id"] for item in items(*events)]


@pytest.mark.timeout(100)
def test_an_image_finds_its_run_in_constant_time() -> None:
    """Each image looked through all runs that were open."""
    output = ResponsesOutput("s", frozenset(), discard)
    for at in range(20_000):
        name = "web_search" if at else "image_generation"
        output.take({"type": "server_tool", "server_tool": {"id": str(at), "name": name, "status": "started"}})
    for _ in range(400_000):
        output.take({"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}})
    assert (output.items[0]["result"], len(output.items)) == ("aGk=", 20_000)


@pytest.mark.parametrize(
    ("tools", "kind", "begin"), [((), "function_call", "fc_"), (("weather",), "custom_tool_call", "ctc_")]
)
def test_the_id_of_a_call_begins_as_openai_requires_of_its_kind(tools: tuple[str, ...], kind: str, begin: str) -> None:
    """Compiled code gave a function call the id of a custom tool's: OpenAI refuses it when it comes back."""
    output = ResponsesOutput("s", frozenset(tools), discard)
    output.take(call_start())
    output.take(call())
    (item,) = output.items
    assert item["type"] == kind
    assert item["id"].startswith(begin)
