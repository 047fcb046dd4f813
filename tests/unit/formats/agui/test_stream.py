"""`gai_fast/formats/agui/stream.py`: events as those of a run, and where each stands.

`tests/integration/test_agui.py` reads them with the protocol's models, `tests/node/test_agui.py` with its client.
"""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.signatures import open_signature
from gai_fast.formats import get_format
from gai_fast.formats.agui.format import AGUIFormat
from gai_fast.formats.agui.stream import Run, RunEvents
from gai_fast.model.events import TYPES, Event
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    STREAM_ID,
    USAGE,
    call,
    call_delta,
    call_start,
    context,
    encoded,
    finish,
    objects_of,
    reasoning,
    text,
)

AGUI = AGUIFormat(Run("thread-1", "run-1"))
TOKENS = [{"provider": "test", "model": "test-model", "inputTokens": 10, "outputTokens": 20, "totalTokens": 30}]


def written(*events: Event, **said: Any) -> list[Any]:
    return objects_of(encoded(AGUI.encoder("sse", context(**said)), events))


def kinds(*events: Event) -> list[str]:
    return [event["type"] for event in written(*events)]


def test_a_run_with_a_text() -> None:
    place = {"messageId": f"{STREAM_ID}-1"}
    assert written(START, text("Hé "), text("you"), finish(usage=USAGE), DONE) == [
        {"type": "RUN_STARTED", "threadId": "thread-1", "runId": "run-1", "protocolVersion": "1.0"},
        {"type": "TEXT_MESSAGE_START", **place, "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", **place, "delta": "Hé "},
        {"type": "TEXT_MESSAGE_CONTENT", **place, "delta": "you"},
        {"type": "TEXT_MESSAGE_END", **place},
        {
            "type": "RUN_FINISHED",
            "threadId": "thread-1",
            "runId": "run-1",
            "result": {"finish_reason": "stop"},
            "usage": TOKENS,
        },
    ]


def test_a_client_without_names_gets_those_of_the_stream() -> None:
    started = objects_of(encoded(get_format("agui").encoder("sse", context()), [START]))[0]
    assert (started["threadId"], started["runId"]) == (STREAM_ID, STREAM_ID)


def test_messages_never_overlap() -> None:
    assert kinds(START, reasoning("a"), text("b"), reasoning("c"), finish(), DONE)[1:-1] == [
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
    ]


def test_a_refusal_is_text() -> None:
    found = written(START, text("a"), {"type": "refusal.delta", "text": "No."})
    assert [each["delta"] for each in found[2:]] == ["a", "No."]


@pytest.mark.parametrize("before", [[reasoning("Hm")], [text("Hi")], []])
@pytest.mark.parametrize("redacted", [False, True])
def test_a_signature_belongs_to_its_reasoning(before: list[Event], redacted: bool) -> None:
    signed: Event = {"type": "reasoning.signature", "signature": 's"', **({"redacted": True} if redacted else {})}
    found = written(START, *before, signed)
    value = next(each for each in found if each["type"] == "REASONING_ENCRYPTED_VALUE")
    own = open_signature(value["encryptedValue"], "$", "")
    assert own == {"provider": "test", "signature": 's"', **({"redacted": True} if redacted else {})}
    starts = [each["messageId"] for each in found if each["type"] == "REASONING_MESSAGE_START"]
    assert (value["subtype"], value["entityId"]) == ("message", starts[-1])
    assert len(starts) == 1 + (redacted and before == [reasoning("Hm")])
    assert found[-1]["type"] == "REASONING_END"


def test_a_call_belongs_to_the_message_of_the_text_before_it() -> None:
    found = written(START, text("Look"), call_start(), call_delta('{"city":"Oslo"}'), call())
    assert found[4:] == [
        {
            "type": "TOOL_CALL_START",
            "toolCallId": "call_1",
            "toolCallName": "weather",
            "parentMessageId": f"{STREAM_ID}-1",
        },
        {"type": "TOOL_CALL_ARGS", "toolCallId": "call_1", "delta": '{"city":"Oslo"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "call_1"},
    ]


def test_calls_without_a_text_share_a_message() -> None:
    found = written(START, call_start(), call(), call_start("call_2", 1), call("call_2"))
    assert {each["parentMessageId"] for each in found if "parentMessageId" in each} == {f"{STREAM_ID}-1"}


def test_arguments_that_came_whole_are_one_fragment() -> None:
    found = written(START, call_start(), call(arguments='{"n":1.10}'))
    assert found[2] == {"type": "TOOL_CALL_ARGS", "toolCallId": "call_1", "delta": '{"n":1.10}'}


@pytest.mark.parametrize("early", [False, True])
def test_the_signature_of_a_call_waits_for_its_start(early: bool) -> None:
    signed: Event = {"type": "reasoning.signature", "signature": "s", "call_id": "call_1"}
    events = [signed, call_start()] if early else [call_start(), signed]
    value = written(START, *events, call())[2]
    assert (value["subtype"], value["entityId"]) == ("tool-call", "call_1")


def test_a_call_that_was_cut_off_ends_before_its_run() -> None:
    found = kinds(START, call_start(), call_delta("{"), finish("length"), DONE)
    assert found[-2:] == ["TOOL_CALL_END", "RUN_FINISHED"]


def test_a_result_is_a_message_of_its_own() -> None:
    result: Event = {"type": "tool.result", "call_id": "call_1", "tool_result": {"t": 4}}
    assert written(START, result)[1] == {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{STREAM_ID}-1",
        "toolCallId": "call_1",
        "content": '{"t":4}',
    }


@pytest.mark.parametrize(
    ("event", "value"),
    [
        ({"type": "citations", "citations": [{"uri": "https://a.example"}]}, [{"uri": "https://a.example"}]),
        ({"type": "server_tool", "server_tool": {"name": "search"}}, {"name": "search"}),
        (
            {"type": "provider.block", "provider": "p", "block": {"a": 1}, "index": 0},
            {"provider": "p", "block": {"a": 1}},
        ),
        ({"type": "image", "image": {"data": "aGk="}}, {"data": "aGk="}),
        ({"type": "audio.delta", "audio": {"chunk": "aGk="}}, {"chunk": "aGk="}),
        ({"type": "json.snapshot", "json": {"a": 1}}, {"a": 1}),
        ({"type": "json.snapshot"}, None),
        ({"type": "safety", "safety": {"category": "x"}}, {"category": "x"}),
        ({"type": "warning", "reason": "malformed_chunk"}, "malformed_chunk"),
        ({"type": "step.end", "step": 1}, 1),
    ],
)
def test_what_has_no_counterpart_is_custom(event: Event, value: Any) -> None:
    assert written(START, event)[1] == {"type": "CUSTOM", "name": event["type"], "value": value}


def test_a_cancelled_run_says_so() -> None:
    assert written(START, text("Hi"), finish("cancelled"))[-1]["outcome"] == {"type": "cancelled"}


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_ends_the_run(begun: bool) -> None:
    failed: Event = {**ERROR, "usage": USAGE}
    found = written(*([START, text("Hi"), call_start()] if begun else []), failed, NOT_DONE)
    assert found[-1]["type"] == "RUN_ERROR"
    assert (found[-1]["message"], found[-1]["code"]) == ('cut "off"', "network")
    assert found[-1]["usage"][0]["totalTokens"] == 30


def test_the_last_usage_counts() -> None:
    counted: Event = {"type": "usage", "usage": {**USAGE, "cached_input_tokens": 5, "reasoning_tokens": 2}}
    usage = written(START, counted, finish())[-1]["usage"]
    assert usage == [{**TOKENS[0], "reasoningTokens": 2, "cachedInputTokens": 5}]


def test_a_run_begins_once() -> None:
    """The client refuses a second `RUN_STARTED`."""
    again: Event = {**START, "provider": "other", "model": "other-model"}
    found = written(START, {"type": "stream.reset", "reason": "network"}, again, text("Hi"), finish(usage=USAGE))
    assert [each["type"] for each in found if each["type"].startswith("RUN_")] == ["RUN_STARTED", "RUN_FINISHED"]
    assert (found[-1]["usage"][0]["provider"], found[-1]["usage"][0]["model"]) == ("other", "other-model")


def test_every_event_has_its_place() -> None:
    assert set(RunEvents.writers) == TYPES - {"stream.gap", "stream.reset", "step.reset", "done"}


def test_other_choices_are_left_out() -> None:
    assert written(START, text("b", choice=1), call_start(choice=1))[1:] == []


def test_arguments_of_a_call_whose_start_was_left_out_wait_for_the_call() -> None:
    found = written(START, call_delta('{"city":'), call())
    assert [each["type"] for each in found[1:]] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
    assert found[2]["delta"] == '{"city":"Oslo"}'


def test_the_first_fragment_of_a_call_is_noted() -> None:
    """A call that had none has its arguments at its end."""
    encoder = AGUI.encoder("sse", context())
    encoded(encoder, [START, call_start()])
    assert encoder.delta_parts(call_delta("a"), "arguments") is None
