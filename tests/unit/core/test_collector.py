"""`gai_fast/core/collector.py`: what the events of an answer amount to, and that its message can be sent back."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import pytest

from gai_fast.core.collector import Collector, ReadCollector
from gai_fast.core.requests.reading import parse_request
from gai_fast.core.result import Result, ToolCallResult
from gai_fast.kernels import NDJSONEncoder, encode_json
from gai_fast.library.collecting import collect
from gai_fast.model import errors
from gai_fast.model.events import Event, JSONText
from gai_fast.model.request import AssistantMessage, ReasoningPart, ToolCallPart
from tests.conftest import ChangeLimits

START = {"type": "start", "provider": "anthropic", "model": "asked"}
FINISH = {"type": "finish", "provider": "anthropic", "model": "answered", "finish_reason": "stop"}
DONE = {"type": "done", "finished": True}


def text(said: str, kind: str = "text.delta", **keys: Any) -> dict[str, Any]:
    return {"type": kind, "text": said, **keys}


def fragment(arguments: str, call_id: str = "c1", **keys: Any) -> dict[str, Any]:
    return {"type": "tool.call.delta", "call_id": call_id, "index": 0, "arguments": arguments, **keys}


def call(value: Any, call_id: str = "c1", name: str = "weather", **keys: Any) -> dict[str, Any]:
    return {"type": "tool.call", "call_id": call_id, "tool_call": {"name": name, "input": value}, **keys}


def signature(said: str, **keys: Any) -> dict[str, Any]:
    return {"type": "reasoning.signature", "signature": said, **keys}


def collected(*events: dict[str, Any], end: dict[str, Any] = FINISH) -> Result:
    return collect(cast("list[Event]", [START, *events, end, DONE]))


def parts(*events: dict[str, Any]) -> list[dict[str, Any]]:
    message = collected(*events).message
    assert message["role"] == "assistant"
    return cast("list[dict[str, Any]]", message["content"])


# ---- the fields ------------------------------------------------------------------------------------------------------


def test_texts_of_each_kind_are_joined() -> None:
    result = collected(
        text("Hm", "reasoning.delta"),
        text("Hel"),
        text("lo"),
        text(".", "reasoning.delta"),
        text("No", "refusal.delta"),
    )
    assert (result.text, result.reasoning, result.refusal) == ("Hello", "Hm.", "No")


def test_the_finish_says_who_answered_and_why_it_ended() -> None:
    result = collected(end={**FINISH, "finish_reason": "length", "finish_reason_raw": "max_tokens"})
    assert (result.finish_reason, result.finish_reason_raw) == ("length", "max_tokens")
    assert (result.provider, result.model) == ("anthropic", "answered")
    assert result.error is None
    assert result.raise_for_error() is result


def test_the_start_says_who_answered_where_the_end_does_not() -> None:
    result = collected(end={"type": "error", "error": {"code": "network"}})
    assert (result.provider, result.model) == ("anthropic", "asked")


def test_of_several_usages_the_last_wins() -> None:
    first, last = {"input_tokens": 1}, {"input_tokens": 2}
    assert collected().usage is None
    assert collected({"type": "usage", "usage": first}).usage == first
    assert collected({"type": "usage", "usage": first}, end={**FINISH, "usage": last}).usage == last
    assert collected({"type": "usage", "usage": first}, {"type": "usage", "usage": last}).usage == last


def test_citations_are_gathered_in_order() -> None:
    one, two, three = ({"uri": uri} for uri in "abc")
    result = collected({"type": "citations", "citations": [one, two]}, {"type": "citations", "citations": [three]})
    assert result.citations == [one, two, three]


def test_a_failure_is_kept_with_all_that_came_before_it_and_raised_on_demand() -> None:
    error = {"code": "rate_limited", "message": "slow", "temporary": False, "retry_after_ms": 5, "phase": "mid_stream"}
    usage = {"input_tokens": 3, "source": "partial"}
    result = collected(text("Hel"), end={"type": "error", "error": error, "usage": usage})
    assert result.text == "Hel"
    assert result.finish_reason is None
    assert result.usage == usage
    assert type(result.error) is errors.RateLimited
    assert result.error.payload() == error
    assert result.error.provider == "anthropic"
    with pytest.raises(errors.RateLimited, match="slow"):
        result.raise_for_error()


def test_a_stream_without_events_is_an_empty_result() -> None:
    result = collect([])
    assert result == Result()
    assert result.message == {"role": "assistant", "content": []}
    assert result.metrics == {}


def test_unknown_events_and_those_for_eyes_only_change_nothing() -> None:
    asides = [
        {"type": kind}
        for kind in ("of.a.later.version", "warning", "safety", "server_tool", "image", "step.end", "tool.result")
    ]
    assert collected(text("a"), *asides, text("b")) == collected(text("a"), text("b"))


def test_further_choices_stay_out() -> None:
    second: dict[str, Any] = {"choice": 1}
    result = collected(
        text("a"), text("B", **second), text("B", "reasoning.delta", **second), fragment("{}", **second),
        call({}, **second), signature("B", **second), {"type": "citations", "citations": [{}], **second},
        text("c", choice=0),
    )  # fmt: skip
    assert result == collected(text("a"), text("c"))


def test_an_empty_text_is_no_text_and_no_fault() -> None:
    """An encoder leaves an empty `text` out of the event, which has its number."""
    assert collected({"type": "text.delta", "seq": 2}, text("a"), {"type": "reasoning.delta", "seq": 4}).text == "a"
    assert collected({"type": "tool.call.delta", "call_id": "c1", "seq": 2}, call({})).tool_calls[0].arguments == "{}"


def test_everything_before_a_reset_is_dropped() -> None:
    before = [
        text("a"),
        text("b", "reasoning.delta"),
        signature("s"),
        fragment("{"),
        call({}),
        {"type": "usage", "usage": {"x": 1}},
    ]
    again = {"type": "start", "provider": "groq", "model": "other"}
    fresh = collected(text("z"))
    result = collected(
        *before, {"type": "citations", "citations": [{}]}, {"type": "stream.reset", "reason": "retry"}, again, text("z")
    )
    assert result == fresh


def test_a_reset_whose_fresh_attempt_fails_still_knows_who_answered() -> None:
    result = collected(text("a"), {"type": "stream.reset"}, end={"type": "error", "error": {"code": "network"}})
    assert (result.text, result.provider, result.model) == ("", "anthropic", "asked")


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_has_its_parsed_input_and_its_text_as_it_came() -> None:
    value = {"city": "Oslo", "n": 12345678901234567890}
    result = collected(fragment('{ "city": "Oslo",'), fragment(' "n": 12345678901234567890}'), call(value))
    assert result.tool_calls == [ToolCallResult("c1", "weather", value, '{ "city": "Oslo", "n": 12345678901234567890}')]


def test_calls_keep_their_order_and_their_own_fragments() -> None:
    result = collected(
        fragment("[1", "a"), fragment("[2", "b"), fragment("]", "a"), fragment("]", "b"), call([2], "b"), call([1], "a")
    )  # fmt: skip
    assert [(one.call_id, one.arguments) for one in result.tool_calls] == [("b", "[2]"), ("a", "[1]")]


@pytest.mark.parametrize("came", [[], [""], ["", " \n"]])
def test_arguments_that_never_came_are_an_empty_object(came: list[str]) -> None:
    assert collected(*map(fragment, came), call({})).tool_calls[0].arguments == "{}"


def test_arguments_that_only_the_call_itself_held_are_written_canonically() -> None:
    assert collected(call({"a": [1, "ä"]})).tool_calls[0].arguments == '{"a":[1,"ä"]}'
    assert collected(call(JSONText('{"a":1.10}', {"a": 1.1}))).tool_calls[0].arguments == '{"a":1.10}'


def test_arguments_that_are_not_json_are_a_string() -> None:
    result = collected(fragment("{oops"), call("{oops"))
    assert (result.tool_calls[0].input, result.tool_calls[0].arguments) == ("{oops", "{oops")


def test_a_call_that_was_cut_off_is_no_call() -> None:
    assert collected(fragment('{"a')).tool_calls == []


def test_inside_the_package_input_stays_json_text() -> None:
    value = JSONText('{"n":12345678901234567890}', {"n": 12345678901234567890})
    for plain, kept in ((True, value.value), (False, value)):
        collector = Collector(plain=plain)
        collector.event(cast(Event, call(value)))
        result = collector.result()
        assert result.tool_calls[0].input == kept
        assert result.message["content"][0]["input"] == kept


# ---- the message -----------------------------------------------------------------------------------------------------


def test_parts_are_in_the_order_in_which_they_came() -> None:
    assert parts(text("a"), text("Hm", "reasoning.delta"), text("b"), text("c"), call({}), text("d")) == [
        {"type": "text", "text": "a"},
        {"type": "reasoning", "text": "Hm", "provider": "anthropic"},
        {"type": "text", "text": "bc"},
        {"type": "tool_call", "call_id": "c1", "name": "weather", "input": {}},
        {"type": "text", "text": "d"},
    ]


def test_a_signature_closes_its_reasoning() -> None:
    assert parts(text("a", "reasoning.delta"), signature("s1"), text("b", "reasoning.delta"), signature("s2")) == [
        {"type": "reasoning", "text": "a", "signature": "s1", "provider": "anthropic"},
        {"type": "reasoning", "text": "b", "signature": "s2", "provider": "anthropic"},
    ]


def test_a_signature_without_reasoning_is_a_part_of_its_own() -> None:
    assert parts(text("a"), signature("s")) == [
        {"type": "text", "text": "a"},
        {"type": "reasoning", "text": "", "signature": "s", "provider": "anthropic"},
    ]


def test_a_redacted_block_never_joins_the_reasoning_before_it() -> None:
    assert parts(text("a", "reasoning.delta"), signature("blob", redacted=True), signature("s")) == [
        {"type": "reasoning", "text": "a", "provider": "anthropic"},
        {"type": "reasoning", "text": "", "signature": "blob", "redacted": True, "provider": "anthropic"},
        {"type": "reasoning", "text": "", "signature": "s", "provider": "anthropic"},
    ]


@pytest.mark.parametrize(
    "events",
    [
        [signature("s", call_id="c1"), call({})],
        [call({}), signature("s", call_id="c1")],
        [call({}, signature="s")],
    ],
)
def test_the_signature_of_a_call_stands_on_the_call(events: list[dict[str, Any]]) -> None:
    assert parts(*events, call({}, "c2")) == [
        {"type": "tool_call", "call_id": "c1", "name": "weather", "input": {}, "signature": "s"},
        {"type": "tool_call", "call_id": "c2", "name": "weather", "input": {}},
    ]


def test_a_refusal_is_text_where_a_message_has_no_field_for_it() -> None:
    assert parts(text("I cannot", "refusal.delta")) == [{"type": "text", "text": "I cannot"}]


def test_the_message_can_be_sent_back_as_it_is() -> None:
    """The message can be appended to `messages` as it is."""
    big = {"n": 12345678901234567890}
    message = collected(
        text("Hm", "reasoning.delta"), signature("s"), signature("blob", redacted=True), text("a"),
        text("no", "refusal.delta"), call(big, signature="t"), call("{oops", "c2"), call(None, "c3"),
    ).message  # fmt: skip
    request = parse_request(
        json.dumps({"messages": [{"role": "user", "content": "q"}, message], "query": "?"}).encode()
    )
    sent = request.messages[1]
    assert isinstance(sent, AssistantMessage)
    assert not isinstance(sent.content, str)
    reasoning, redacted, said, first, second, third = sent.content
    assert reasoning == ReasoningPart(text="Hm", signature="s", provider="anthropic")
    assert redacted == ReasoningPart(signature="blob", redacted=True, provider="anthropic")
    assert said.text == "ano"
    assert isinstance(first, ToolCallPart)
    assert (json.loads(bytes(first.input)), first.signature) == (big, "t")
    assert [json.loads(bytes(one.input)) for one in (second, third)] == ["{oops", None]


def test_so_can_one_whose_input_is_json_text() -> None:
    collector = Collector(plain=False)
    collector.event(cast(Event, call(JSONText('{"x":1.10}', {"x": 1.1}))))
    body = b'{"messages":[' + encode_json(collector.result().message) + b"]}"
    part = parse_request(body).messages[0].content[0]
    assert isinstance(part, ToolCallPart)
    assert bytes(part.input) == b'{"x":1.10}'


# ---- a stream that was resumed ---------------------------------------------------------------------------------------


def test_a_gap_replaces_the_text_so_far_and_nothing_else() -> None:
    gap = {"type": "stream.gap", "seq": 9, "from": 3, "to": 9, "text": "Hello wor"}
    result = collected(text("Hmm", "reasoning.delta"), text("Hel"), gap, text("ld"))
    assert (result.text, result.reasoning) == ("Hello world", "Hmm")
    assert [part["text"] for part in result.message["content"]] == ["Hmm", "Hello world"]
    assert collected(gap).text == "Hello wor"


def test_an_empty_delta_is_no_part_of_the_message() -> None:
    assert parts(text(""), text("", "reasoning.delta"), call({})) == [
        {"type": "tool_call", "call_id": "c1", "name": "weather", "input": {}}
    ]


@pytest.mark.parametrize(
    "event",
    [
        text("x" * 40),
        text("x" * 40, "reasoning.delta"),
        fragment("x" * 40),
        {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "f", "input": {"x": "x" * 40}}},
        {"type": "citations", "citations": [{"uri": "x" * 40}]},
        {"type": "reasoning.signature", "signature": "x" * 40},
    ],
    ids=lambda event: str(event["type"]),
)
def test_an_answer_without_end_is_not_collected(event: Any, change_limits: ChangeLimits) -> None:
    change_limits(collected=1000)
    collector = Collector()
    collector.event(cast(Event, START))
    with pytest.raises(errors.ProviderUnavailable) as caught:
        for _ in range(10):
            collector.event(event)
    assert caught.value.reason == "answer_too_large"
    # What ends the stream is taken all the same.
    collector.event({"type": "error", "error": caught.value.payload()})
    assert collector.result().error is not None


def test_a_reset_makes_room_again(change_limits: ChangeLimits) -> None:
    change_limits(collected=1000)
    collector = Collector()
    for _ in range(30):
        collector.event(cast(Event, text("x" * 400)))
        collector.event({"type": "stream.reset", "reason": "reset"})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text.delta", "text": []},
        {"type": "stream.gap", "text": 5},
        {"type": "tool.call", "tool_call": 5},
        {"type": "tool.call.delta", "call_id": "c", "arguments": {}},
        {"type": "tool.call.delta", "arguments": "{"},
        {"type": "reasoning.signature"},
        {"type": "citations", "citations": 5},
        {"type": "usage"},
        {"type": "error", "error": "oops"},
    ],
)
def test_an_event_with_wrong_members_is_refused(event: Any) -> None:
    with pytest.raises(ValueError, match=f"not an event: a member of this {event['type']!r}"):
        collect([event])


def test_an_error_without_members_is_one() -> None:
    assert collect([{"type": "error"}, {"type": "done", "finished": False}]).error is not None


def test_what_a_result_has_no_member_for_may_stand_among_its_parts() -> None:
    tool: Any = {"type": "server_tool", "server_tool": {"name": "search", "status": "started"}}
    image: Any = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}}
    partial: Any = {"type": "image", "image": {"data": "a", "media_type": "image/png", "partial": True}}
    thought: Any = text("Hm", "reasoning.delta")
    collector, plain = Collector(others=("server_tool", "image")), Collector()
    for event in [thought, image, signature("s"), text("a"), tool, text("b"), partial, image, text("c"), FINISH, DONE]:
        collector.event(cast("Event", event))
        plain.event(cast("Event", event))
    assert (collector.others(), plain.others()) == ([image, tool, image], [])
    assert collector.result() == plain.result()
    reasoning = {"type": "reasoning", "text": "Hm", "signature": "s", "provider": "anthropic"}
    assert plain.parts() == [reasoning, {"type": "text", "text": "abc"}]
    among = [{"type": "text", "text": "a"}, {"type": "event", "event": tool}, {"type": "text", "text": "bc"}]
    assert collector.parts(among=("server_tool",)) == [reasoning, *among]


def test_an_event_that_is_no_json_is_not_kept() -> None:
    collector = Collector(others=("tool.result",))
    with pytest.raises(ValueError, match=r"'tool\.result'"):
        collector.event(cast("Event", {"type": "tool.result", "call_id": "c", "tool_result": math.inf}))
    assert collector.others() == []


@pytest.mark.timeout(100)
def test_a_text_that_events_part_is_joined_in_linear_time() -> None:
    """Each piece behind an event copied all pieces before it."""
    collector, sound = (
        Collector(others=("audio.delta",)),
        cast("Event", {"type": "audio.delta", "audio": {"chunk": ""}}),
    )
    for _ in range(300_000):
        collector.event(cast("Event", text("a")))
    for _ in range(150_000):
        collector.event(sound)
        collector.event(cast("Event", text("b")))
    assert collector.parts() == [{"type": "text", "text": "a" * 300_000 + "b" * 150_000}]


def test_an_answer_that_a_program_reads_fails_its_result_alone(change_limits: ChangeLimits) -> None:
    change_limits(collected=1000)
    large = [text("x" * 400)] * 10
    collector = ReadCollector()
    for event in (START, *large, FINISH):
        collector.event(cast(Event, event))
    with pytest.raises(errors.ProviderUnavailable, match="larger than 1000 characters: read it as events") as caught:
        collector.result()
    assert caught.value.reason == "answer_too_large"

    failed = ReadCollector()
    for event in (START, *large, {"type": "error", "error": {"code": "network", "message": "lost"}}):
        failed.event(cast(Event, event))
    with pytest.raises(errors.Network, match="lost"):
        failed.result()

    anew = ReadCollector()
    for event in (START, *large, {"type": "stream.reset"}, START, text("short"), FINISH):
        anew.event(cast(Event, event))
    assert anew.result().text == "short"


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([{"type": "text.delta"}], "a member of this 'text.delta' is missing: `text` - at event 1"),
        (
            [{"type": "start"}, {"type": "text.delta", "txt": "Hi"}],
            "a member of this 'text.delta' is missing: `text`; did you mean it by `txt`? - at event 2",
        ),
        ([{"type": "tool.call.delta", "call_id": "c"}], "a member of this 'tool.call.delta' is missing: `arguments`"),
        ([{"type": "tool.call", "call_id": "c"}], "a member of this 'tool.call' is missing: `tool_call` - at event 1"),
        ([{"text": "Hi"}], "not an event: its `type` is missing - at event 1"),
        (["Hi"], "not an event: a mapping with a `type` is needed, not str - at event 1"),
    ],
)
def test_a_missing_member_is_named_with_its_event(events: list[Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        collect(events)


def test_what_an_encoder_has_written_may_lack_its_empty_text() -> None:
    encoder = NDJSONEncoder()
    encoder.text_delta("")
    encoder.text_delta("Hi")
    assert collect([json.loads(line) for line in encoder.take().splitlines()]).text == "Hi"


# ---- blocks of a provider --------------------------------------------------------------------------------------------

BLOCK: dict[str, Any] = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"n": 2**70}}


def block(**keys: Any) -> dict[str, Any]:
    return {"type": "provider.block", "provider": "anthropic", "block": BLOCK, "index": 1, **keys}


def test_blocks_stand_in_their_place_between_texts_and_can_be_sent_back() -> None:
    result = parts(text("a"), block(), text("b"), block(choice=1), text("c"))
    part = {"type": "provider_block", "provider": "anthropic", "block": BLOCK}
    assert result == [{"type": "text", "text": "a"}, part, {"type": "text", "text": "bc"}]
    sent = parse_request(
        encode_json({"messages": [{"role": "assistant", "content": result}, {"role": "user", "content": "x"}]})
    )
    sent_back: Any = sent.messages[0].content[1]
    assert json.loads(bytes(sent_back.block)) == BLOCK


def test_a_reset_takes_blocks_back() -> None:
    assert parts(block(), {"type": "stream.reset", "reason": "failed"}, {**START}, text("a")) == [
        {"type": "text", "text": "a"}
    ]


@pytest.mark.parametrize("member", ["provider", "block"])
def test_a_block_without_a_member_is_refused_by_name(member: str) -> None:
    with pytest.raises(ValueError, match=f"`{member}`"):
        collected({key: value for key, value in block().items() if key != member})


def test_blocks_count_against_the_limit_of_an_answer(change_limits: ChangeLimits) -> None:
    change_limits(collected=1000)
    with pytest.raises(errors.Error, match="larger than 1000 characters"):
        collected(block(block={"data": "x" * 1001}))


# ---- a new owner of the stream ---------------------------------------------------------------------------------------

CALL = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": {}}}


def read(*events: dict[str, Any]) -> Result:
    collector = ReadCollector(can_void=True)
    for event in events:
        collector.event(cast(Event, event))
    return collector.result()


def numbered(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**event, "seq": seq} for seq, event in enumerate(events, 1)]


def taken_over(first: int, text: str) -> dict[str, Any]:
    return {"type": "stream.gap", "seq": 1000, "from": first, "to": 1000, "text": text, "reason": "taken_over"}


def test_all_that_a_new_owner_voids_is_forgotten() -> None:
    start, thought, said = {"type": "start"}, text("Hmm", "reasoning.delta"), text("Hel")
    void = [text("lo", "text.delta"), text("Oh", "reasoning.delta"), CALL]
    result = read(*numbered(start, thought, said, *void), taken_over(4, "Hel"), text("p"))
    assert (result.text, result.reasoning, result.tool_calls) == ("Help", "Hmm", [])
    assert [part["type"] for part in result.message["content"]] == ["reasoning", "text"]
    again = read(*numbered(start, thought, said, *void), taken_over(7, "Hello"), CALL | {"call_id": "d"})
    assert (again.text, again.reasoning, [call.call_id for call in again.tool_calls]) == ("Hello", "HmmOh", ["c", "d"])


def test_a_delta_that_is_void_in_part_leaves_the_text_of_the_log() -> None:
    joined = {**text("lo wor"), "seq": 9, "from_seq": 3}
    result = read(*numbered({"type": "start"}, text("Hel")), joined, taken_over(5, "Hello"), text("!"))
    assert result.text == "Hello!"


def test_a_second_owner_voids_what_the_first_had_sent() -> None:
    first = taken_over(3, "Hel")
    second = {**taken_over(1002, "Hello"), "seq": 3000, "to": 3000}
    more = [{**text("lo"), "seq": 1001}, {**text("x"), "seq": 1002}, {**CALL, "seq": 1003}]
    result = read(*numbered({"type": "start"}, text("Hel")), first, *more, second)
    assert (result.text, result.tool_calls) == ("Hello", [])


def test_what_a_reset_has_voided_is_not_collected_again() -> None:
    reset = {"type": "stream.reset", "seq": 3}
    result = read(*numbered({"type": "start"}, text("No")), reset, {**text("Yes"), "seq": 4}, taken_over(4, ""))
    assert result.text == ""
