"""Events that a function of the user's makes: what may be missing, what is refused, and the request that it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import CLASSES, Error, Malformed
from gai_fast.providers import get_provider
from tests.unit.formats.run_events import CLIENT_CALLS, RUN_EVENTS, TEXT, as_read
from tests.unit.providers.answer_reading import body, read, text_of

DONE = {"type": "done", "finished": True}


def events(*given: Any) -> list[Any]:
    return read("python", *given, DONE, done=False)


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text.delta", "text": text, **more}


def test_a_text_alone_is_an_answer() -> None:
    start, text, finish = events(delta("Hi"))
    assert start == {"type": "start", "provider": "python"}
    assert text == delta("Hi")
    assert finish == {"type": "finish", "provider": "python", "finish_reason": "stop"}


def test_the_source_may_name_model_provider_reason_and_usage() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 9, "cached_input_tokens": 2}
    start, _, finish = events(
        {"type": "start", "provider": "anthropic", "model": "tiny", "seq": 1, "stream_id": "theirs"},
        delta("Hi", seq=2, unknown=1),
        {"type": "finish", "finish_reason": "length", "finish_reason_raw": "max", "usage": usage},
    )
    assert start == {"type": "start", "provider": "anthropic", "model": "tiny"}
    assert (finish["provider"], finish["model"], finish["finish_reason"]) == ("anthropic", "tiny", "length")
    assert finish["finish_reason_raw"] == "max"
    assert finish["usage"] == {**usage, "total_tokens": 7}


@pytest.mark.parametrize("kind", ["finish", "usage"])
@pytest.mark.parametrize(
    ("source", "expected"), [("estimated", True), ("partial", True), ("counted", True), ("x", False), (1, False)]
)
def test_a_source_may_say_that_its_usage_is_an_estimate(kind: str, source: Any, expected: bool) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    finish = events(delta("Hi"), {"type": kind, "finish_reason": "stop", "usage": {**usage, "source": source}})[-1]
    assert finish["usage"] == ({**usage, "source": source} if expected else usage)


def test_members_of_the_envelope_and_unknown_ones_are_left_out() -> None:
    assert events(delta("Hi", seq=7, ts=1, trace_id="t", unknown=1))[1] == delta("Hi")


def test_a_reason_that_is_none_is_other() -> None:
    assert events(delta("Hi"), {"type": "finish", "finish_reason": "tired"})[-1]["finish_reason"] == "other"


def test_a_call_may_come_whole() -> None:
    whole = {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "weather", "input": {"city": "Oslo"}}}
    _, start, piece, call, finish = events(whole)
    assert start == {"type": "tool.call.start", "call_id": "c1", "tool_call": {"name": "weather"}, "index": 0}
    assert piece["arguments"] == '{"city":"Oslo"}'
    assert call["tool_call"] == {"name": "weather", "input": '{"city":"Oslo"}'}
    assert finish["finish_reason"] == "tool_calls"


def test_a_call_may_come_in_pieces_whose_digits_are_kept() -> None:
    begun = {"type": "tool.call.start", "call_id": "c1", "tool_call": {"name": "f"}, "index": 5}
    pieces = [{"type": "tool.call.delta", "call_id": "c1", "arguments": piece} for piece in ('{"x":', "1.10}")]
    whole = {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "f", "input": {"x": 1.1}}}
    for result in ([begun, *pieces, whole], [begun, *pieces]):
        _, start, *_, call, _ = events(*result)
        assert start["index"] == 0
        assert call["tool_call"]["input"] == '{"x":1.10}'


def test_a_call_of_another_choice_stays_there() -> None:
    whole = {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "f", "input": {}}, "choice": 1}
    *calls, finish = events(delta("Hi"), whole)[2:]
    assert [call["choice"] for call in calls] == [1, 1, 1]
    assert finish["finish_reason"] == "stop"


def test_a_call_that_is_cut_off_is_left_out() -> None:
    adapter = get_provider("python").adapter()
    adapter.receive("", json.dumps({"type": "tool.call.start", "call_id": "c1", "tool_call": {"name": "f"}}))
    adapter.receive("", json.dumps({"type": "tool.call.delta", "call_id": "c1", "arguments": '{"x":'}))
    assert adapter.abort() == []


@pytest.mark.parametrize(
    "event",
    [
        {"type": "reasoning.delta", "text": "Hm"},
        {"type": "reasoning.signature", "signature": "s"},
        {"type": "refusal.delta", "text": "No"},
        {"type": "citations", "citations": [{"uri": "https://example.com"}]},
        {"type": "image", "image": {"data": "AA==", "media_type": "image/png"}},
        {"type": "server_tool", "server_tool": {"id": "1", "name": "search", "status": "started"}},
        {"type": "warning", "reason": "slow"},
        {"type": "usage", "usage": {"input_tokens": 1}},
        {"type": "step.end", "step": 1},
    ],
)
def test_other_events_are_passed_on(event: dict[str, Any]) -> None:
    assert events(event)[1] == event


def test_the_calls_of_a_run_of_another_gateway_are_left_out() -> None:
    found = events(*(event for event in as_read(RUN_EVENTS)[1:-2]))
    assert "".join(event.get("text", "") for event in found if event["type"] == "text.delta") == TEXT
    assert [event["call_id"] for event in found if event["type"] == "tool.call"] == CLIENT_CALLS
    assert {event["type"] for event in found} == {
        *("start", "reasoning.delta", "reasoning.signature", "text.delta", "step.end", "finish"),
        *("tool.call.start", "tool.call.delta", "tool.call"),
    }


@pytest.mark.parametrize("kind", ["json.snapshot", "stream.gap", "step.start", "tool.progress", "approval.required"])
def test_events_that_the_gateway_makes_are_left_out(kind: str) -> None:
    assert [event["type"] for event in events(delta("a"), {"type": kind})] == ["start", "text.delta", "finish"]


@pytest.mark.parametrize("code", CLASSES)
def test_an_error_has_the_code_that_it_is_given(code: str) -> None:
    with pytest.raises(CLASSES[code], match="no luck") as raised:
        events({"type": "error", "error": {"code": code, "message": "no luck", "phase": "connect"}})
    assert raised.value.phase is None


@pytest.mark.parametrize("given", [[DONE], [delta("a")], [delta("a"), {"type": "done", "finished": False}]])
def test_an_answer_without_any_event_or_without_its_end_is_truncated(given: list[Any]) -> None:
    with pytest.raises(Error) as raised:
        read("python", *given, done=False)
    assert (raised.value.code, raised.value.reason) == ("network", "truncated")


@pytest.mark.parametrize("kind", ["stream.reset", "step.reset"])
def test_an_answer_that_begins_again_cannot_be_passed_on(kind: str) -> None:
    with pytest.raises(Error) as raised:
        events(delta("a"), {"type": kind, "reason": "timeout"})
    assert raised.value.reason == "spliced_answer"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ([], "no event"),
        ({"type": "delta"}, "no event"),
        ({"text": "a"}, "no event"),
        (delta("a", choice="b"), "`choice` of a 'text.delta'"),
        (delta("a", index=-1), "`index` of a 'text.delta'"),
        ({"type": "text.delta", "text": 1}, "`text` of a 'text.delta' is no text"),
        ({"type": "tool.call.delta", "call_id": "c", "arguments": {}}, "`arguments` of a 'tool.call.delta'"),
        ({"type": "tool.call", "tool_call": {"name": "f", "input": {}}}, "without its `call_id`"),
        ({"type": "tool.call", "call_id": "c"}, "tool.call"),
        ({"type": "citations", "citations": 1}, "citations"),
        ({"type": "reasoning.signature"}, "reasoning.signature"),
        ({"type": "citations", "citations": []}, "without its `citations`"),
        ({"type": "citations", "citations": ["https://a.example"]}, "`citations` of a 'citations'"),
        ({"type": "citations", "citations": {"uri": "https://a.example"}}, "`citations` of a 'citations'"),
        ({"type": "citations", "citations": [{"uri": 1}]}, "`citations` of a 'citations'"),
        ({"type": "citations", "citations": [{"uri": "https://a.example", "start": -1}]}, "`citations`"),
        ({"type": "citations", "citations": [{"uri": "https://a.example", "end": "3"}]}, "`citations`"),
        ({"type": "safety"}, "without its `safety`"),
        ({"type": "safety", "safety": "hate"}, "`safety` of a 'safety'"),
        ({"type": "safety", "safety": {"category": ["hate"]}}, "`safety` of a 'safety'"),
        ({"type": "safety", "safety": {"category": "hate", "score": "high"}}, "`safety` of a 'safety'"),
        ({"type": "image", "image": "aGk="}, "`image` of a 'image'"),
        ({"type": "image", "image": {"url": "https://a.example/x.png"}}, "`image` of a 'image'"),
        ({"type": "image", "image": {"data": "aGk=", "partial": "no"}}, "`image` of a 'image'"),
        ({"type": "audio.delta", "audio": {"chunk": 1}}, "`audio` of a 'audio.delta'"),
        ({"type": "server_tool", "server_tool": {"id": "t", "name": "search"}}, "`server_tool`"),
        ({"type": "server_tool", "server_tool": {"name": "search", "status": "busy"}}, "`server_tool`"),
        ({"type": "provider.block", "block": {"type": "x"}}, "without its `provider`"),
        ({"type": "provider.block", "provider": "anthropic", "block": 1}, "whose `block` is no object"),
        ({"type": "tool.call", "call_id": "c", "tool_call": {"name": 1, "input": {}}}, "`tool_call`"),
        ({"type": "usage", "usage": [1]}, "`usage` of a 'usage'"),
        ({"type": "warning", "reason": 1}, "`reason` of a 'warning'"),
        ({"type": "finish", "provider_metadata": "x"}, "`provider_metadata` of a 'finish'"),
        (delta("a", logprobs=[{"token": 1}]), "`logprobs` of a 'text.delta'"),
        ({"type": "reasoning.signature", "signature": {"a": 1}}, "`signature`"),
    ],
)
def test_an_event_of_another_shape_is_named(event: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        events(event)


@pytest.mark.parametrize(
    "event",
    [
        {
            "type": "citations",
            "citations": [{"uri": "https://a.example", "start": 0, "end": 3, "own": 1}],
        },
        {"type": "citations", "citations": [{}]},
        {"type": "safety", "safety": {"category": "hate", "action": "flagged", "score": 1}},
        {"type": "image", "image": {"data": "aGk=", "media_type": "image/png", "partial": False}},
        {"type": "audio.delta", "audio": {"chunk": "aGk=", "format": "wav"}},
        {"type": "server_tool", "server_tool": {"name": "search", "status": "started", "input": {"q": None}}},
        {"type": "provider.block", "provider": "anthropic", "block": {"type": "x", "y": 2}},
    ],
)
def test_an_event_of_the_documented_shape_is_passed_on_as_it_is(event: Any) -> None:
    assert [each for each in events(event, delta("a")) if each["type"] == event["type"]] == [event]


def test_members_that_are_null_are_absent() -> None:
    citation = {"type": "citations", "citations": [{"uri": "https://a.example", "title": None}]}
    assert events(citation, delta("a"))[1] == {"type": "citations", "citations": [{"uri": "https://a.example"}]}


def test_the_request_is_native_and_its_messages_are_whole() -> None:
    asked = body(
        "python",
        model="tiny",
        system="Be brief.",
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
        query="Weather?",
        temperature=0.5,
        tools=[{"name": "weather", "parameters": {"type": "object"}}],
        metadata={"user_id": "u1"},
        extra={"beam": 4},
        provider_options={"python": {"adapter": "x"}},
        resumable=True,
        request_id="r",
    )
    assert [(each["role"], each["content"]) for each in asked.pop("messages")] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "Weather?"),
    ]
    [tool] = asked.pop("tools")
    assert (tool["name"], tool["parameters"]) == ("weather", {"type": "object"})
    rest = {"temperature": 0.5, "metadata": {"user_id": "u1"}, "beam": 4, "adapter": "x"}
    assert asked == {"model": "tiny", **rest}


def test_the_texts_of_an_answer_are_joined() -> None:
    assert text_of(events(delta("a"), delta(""), delta("b"))) == "ab"
