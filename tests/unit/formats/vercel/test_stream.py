"""`gai_fast/formats/vercel/stream.py`: events as parts, and where each event stands.

`tests/node/test_vercel.py` reads the same streams with the SDK's own client.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.sinks import Inexpressible
from gai_fast.formats import get_format
from gai_fast.formats.vercel.stream import Parts
from gai_fast.model.errors import Error
from gai_fast.model.events import TYPES, Event
from tests.limits import LIMITS
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.run_events import VOIDED
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    USAGE,
    call,
    call_delta,
    call_start,
    context,
    data_of,
    encoded,
    finish,
    objects_of,
    reasoning,
    text,
)

VERCEL = get_format("vercel")
BEGIN = [{"type": "start"}, {"type": "start-step"}]
END = [{"type": "finish-step"}, {"type": "finish", "messageMetadata": {"usage": USAGE, "finish_reason": "stop"}}]


def parts(*events: Event, version: str = "5", **said: Any) -> list[Any]:
    return objects_of(encoded(VERCEL.version(version).encoder("sse", context(**said)), events))


def kinds(*events: Event, version: str = "5") -> list[str]:
    return [part["type"] for part in parts(*events, version=version)]


def test_a_text_stands_in_one_block() -> None:
    body = encoded(VERCEL.encoder("sse", context()), [START, text('Hé "'), text("you"), finish(usage=USAGE), DONE])
    assert data_of(body) == [
        '{"type":"start"}',
        '{"type":"start-step"}',
        '{"type":"text-start","id":"0"}',
        '{"type":"text-delta","id":"0","delta":"Hé \\""}',
        '{"type":"text-delta","id":"0","delta":"you"}',
        '{"type":"text-end","id":"0"}',
        '{"type":"finish-step"}',
        json.dumps(END[1], separators=(",", ":")),
        "[DONE]",
    ]


def test_blocks_never_overlap_and_never_share_an_id() -> None:
    found = parts(START, reasoning("a"), text("b"), reasoning("c"), reasoning("d"), text("e"), finish(), DONE)
    assert [(part["type"], part["id"]) for part in found if "id" in part] == [
        ("reasoning-start", "0"),
        ("reasoning-delta", "0"),
        ("reasoning-end", "0"),
        ("text-start", "1"),
        ("text-delta", "1"),
        ("text-end", "1"),
        ("reasoning-start", "2"),
        ("reasoning-delta", "2"),
        ("reasoning-delta", "2"),
        ("reasoning-end", "2"),
        ("text-start", "3"),
        ("text-delta", "3"),
        ("text-end", "3"),
    ]


def test_a_refusal_is_text() -> None:
    found = parts(START, {"type": "refusal.delta", "text": "No."}, text(" Sorry."), finish(), DONE)
    assert "".join(part["delta"] for part in found if part["type"] == "text-delta") == "No. Sorry."
    assert [part["type"] for part in found].count("text-start") == 1


def test_a_signature_ends_its_reasoning() -> None:
    found = parts(START, reasoning("Hm"), {"type": "reasoning.signature", "signature": "s"}, text("Hi"))
    assert found[4] == {
        "type": "reasoning-end",
        "id": "0",
        "providerMetadata": {"gai": {"signature": "s", "provider": "test"}},
    }


@pytest.mark.parametrize("before", [[], [text("Hi")], [reasoning("Hm")]])
def test_a_redacted_block_is_a_block_of_its_own(before: list[Event]) -> None:
    found = parts(START, *before, {"type": "reasoning.signature", "signature": "s", "redacted": True})
    assert [part["type"] for part in found[-2:]] == ["reasoning-start", "reasoning-end"]
    assert found[-1]["providerMetadata"]["gai"]["redacted"] is True
    assert found[-1]["id"] == found[-2]["id"] == str(len(before))


def test_a_call_with_its_fragments_and_its_signature() -> None:
    signed: Event = {"type": "reasoning.signature", "signature": "s", "call_id": "call_1"}
    found = parts(START, call_start(), call_delta('{"city":'), signed, call_delta('"Oslo"}'), call())
    assert found[2:] == [
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "weather"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city":'},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '"Oslo"}'},
        {
            "type": "tool-input-available",
            "toolCallId": "call_1",
            "toolName": "weather",
            "input": {"city": "Oslo"},
            "providerMetadata": {"gai": {"signature": "s", "provider": "test"}},
        },
    ]


def test_the_arguments_are_written_as_the_model_wrote_them() -> None:
    body = encoded(VERCEL.encoder("sse", context()), [START, call_start(), call(arguments='{"n":1.10,"i":1e2}')])
    assert b'"input":{"n":1.10,"i":1e2}' in body


@pytest.mark.parametrize(
    ("version", "kind"), [("5", "tool-input-available"), ("6", "tool-input-error"), ("7", "tool-input-error")]
)
def test_arguments_that_are_not_json_are_an_error_where_there_is_a_part_for_it(version: str, kind: str) -> None:
    broken: Event = {"type": "tool.call", "call_id": "call_1", "tool_call": {"name": "weather", "input": "{oops"}}
    part = parts(START, call_start(), broken, version=version)[-1]
    assert (part["type"], part["input"]) == (kind, "{oops")
    assert ("errorText" in part) == (kind == "tool-input-error")


def test_a_result_stands_at_its_call_or_is_data() -> None:
    known: Event = {"type": "tool.result", "call_id": "call_1", "tool_result": {"t": 4}}
    unknown: Event = {"type": "tool.result", "call_id": "other", "tool_result": 5}
    found = parts(START, call_start(), call(), known, unknown)
    assert found[-2:] == [
        {"type": "tool-output-available", "toolCallId": "call_1", "output": {"t": 4}},
        {"type": "data-tool-result", "data": {"call_id": "other", "tool_result": 5}},
    ]


def test_a_server_tool_without_a_start_has_its_input_first() -> None:
    ran: Event = {"type": "server_tool", "server_tool": {"name": "search", "status": "failed", "output": "no"}}
    assert parts(START, ran)[2:] == [
        {
            "type": "tool-input-available",
            "toolCallId": "server-search",
            "toolName": "search",
            "input": {},
            "providerExecuted": True,
        },
        {"type": "tool-output-error", "toolCallId": "server-search", "errorText": "no", "providerExecuted": True},
    ]


def test_ids_of_server_tools_are_kept_up_to_a_limit() -> None:
    def ran(identifier: str) -> Event:
        return {"type": "server_tool", "server_tool": {"id": identifier, "name": "search", "status": "completed"}}

    encoder = VERCEL.encoder("sse", context())
    encoded(encoder, [START] + 100 * [ran("a" * LIMITS.identifier)])
    with pytest.raises(Error, match="larger than"):
        encoded(encoder, (ran(f"{number}" + "a" * (LIMITS.kept_answer // 8)) for number in range(8)))


def test_a_server_tool_may_tell_its_input_at_the_end() -> None:
    ran = {"id": "s1", "name": "web_search"}
    events: list[Event] = [
        {"type": "server_tool", "server_tool": {**ran, "status": "started"}},
        {"type": "server_tool", "server_tool": {**ran, "status": "started"}},
        {"type": "server_tool", "server_tool": {**ran, "status": "completed", "input": {"q": "x"}}},
    ]
    place = {"toolCallId": "s1", "providerExecuted": True}
    assert parts(START, *events)[2:] == [
        {"type": "tool-input-start", "toolName": "web_search", **place},
        {"type": "tool-input-available", "toolName": "web_search", "input": {"q": "x"}, **place},
        {"type": "tool-output-available", "output": None, **place},
    ]


def test_a_partial_image_is_left_out() -> None:
    image: Event = {"type": "image", "image": {"data": "aGk=", "media_type": "image/webp"}}
    partial: Event = {"type": "image", "image": {**image["image"], "partial": True}}
    assert parts(START, partial, image)[2:] == [
        {"type": "file", "url": "data:image/webp;base64,aGk=", "mediaType": "image/webp"}
    ]


def test_a_step_ends_its_block_and_the_next_begins_with_what_follows() -> None:
    ended: Event = {"type": "step.end", "step": 1}
    assert kinds(START, text("a"), ended, ended, text("b"), finish(), DONE)[4:] == [
        "text-end",
        "finish-step",
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
    ]
    assert kinds(START, text("a"), ended, finish(), DONE)[-3:] == ["text-end", "finish-step", "finish"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool-calls"),
        ("content_filter", "content-filter"),
        ("pause", "other"),
        ("other", "other"),
    ],
)
def test_the_finish_reason_is_metadata_and_from_6_on_a_member(reason: str, expected: str) -> None:
    assert parts(START, finish(reason))[-1] == {"type": "finish", "messageMetadata": {"finish_reason": reason}}
    assert parts(START, finish(reason), version="6")[-1]["finishReason"] == expected


def test_a_usage_that_came_before_the_end_stands_at_the_end() -> None:
    assert parts(START, {"type": "usage", "usage": USAGE}, finish())[-1]["messageMetadata"]["usage"] == USAGE


def test_a_cancelled_answer_is_aborted() -> None:
    found = parts(START, text("Hi"), finish("cancelled", usage=USAGE), DONE)
    assert found[-3:] == [
        {"type": "text-end", "id": "0"},
        {"type": "message-metadata", "messageMetadata": {"usage": USAGE, "finish_reason": "cancelled"}},
        {"type": "abort"},
    ]


@pytest.mark.parametrize("usage", [None, USAGE])
def test_an_error_is_the_last_part(usage: Any) -> None:
    failed: Event = {**ERROR, "usage": usage} if usage else ERROR
    body = encoded(VERCEL.encoder("sse", context()), [START, text("Hi"), failed, NOT_DONE])
    assert data_of(body)[-1] == '{"type":"error","errorText":"cut \\"off\\""}'
    assert (b"message-metadata" in body) == (usage is not None)


def test_a_reset_drops_the_step_and_begins_a_new_block() -> None:
    reset: Event = {"type": "stream.reset", "reason": "network"}
    found = parts(START, text("a"), call_start(), reset, START, text("b"), finish(), DONE, version="7")
    assert [part["type"] for part in found].count("start") == 1
    assert found[6:9] == [
        {"type": "reset-step"},
        {"type": "text-start", "id": "1"},
        {"type": "text-delta", "id": "1", "delta": "b"},
    ]


@pytest.mark.parametrize(("version", "expected"), [("5", []), ("6", []), ("7", ["reset-step"])])
def test_an_attempt_that_failed_before_content_is_reported_to_clients_that_know_the_word(
    version: str, expected: list[str]
) -> None:
    reset: Event = {"type": "stream.reset", "reason": "network"}
    begin = ["start", "start-step", *expected, "text-start", "text-delta", "text-end"]
    found = kinds(START, reset, START, text("b"), finish(), DONE, version=version)
    assert found == [*begin, "finish-step", "finish"]


def test_a_reset_of_a_later_step_has_no_word() -> None:
    """The client would keep the steps before, which are void."""
    reset: Event = {"type": "stream.reset", "reason": "network"}
    step: Event = {"type": "step.end", "step": 1}
    begun = [START, text("a"), step, reset, START, text("b")]
    assert parts(*begun, version="7")[-3:] == [
        {"type": "start-step"},
        {"type": "text-start", "id": "1"},
        {"type": "text-delta", "id": "1", "delta": "b"},
    ]
    with pytest.raises(Inexpressible):
        parts(*begun, step, text("c"), reset, version="7")


def test_other_choices_are_left_out() -> None:
    assert parts(START, text("b", choice=1), call_start(choice=1))[2:] == []


def test_every_event_has_its_place() -> None:
    assert set(Parts.writers) == TYPES - {"stream.gap", "tool.progress"}
    every = {event["type"] for event in (*EVERY_EVENT, *VOIDED)}
    assert every == TYPES - {"stream.gap", "stream.reset", "error"}


def test_the_default_writes_only_what_5_0_0_knows() -> None:
    keys = {part["type"]: set(part) for part in parts(*EVERY_EVENT)}
    assert "finishReason" not in keys["finish"]
    assert keys == {kind: found & ALLOWED[kind] for kind, found in keys.items()}


ALLOWED = {
    "data-provider-block": {"type", "data"},
    "start": {"type", "messageId", "messageMetadata"},
    "start-step": {"type"},
    "text-start": {"type", "id", "providerMetadata"},
    "text-delta": {"type", "id", "delta", "providerMetadata"},
    "text-end": {"type", "id", "providerMetadata"},
    "reasoning-start": {"type", "id", "providerMetadata"},
    "reasoning-delta": {"type", "id", "delta", "providerMetadata"},
    "reasoning-end": {"type", "id", "providerMetadata"},
    "tool-input-start": {"type", "toolCallId", "toolName", "providerExecuted", "dynamic"},
    "tool-input-delta": {"type", "toolCallId", "inputTextDelta"},
    "tool-input-available": {
        "type", "toolCallId", "toolName", "input", "providerExecuted", "providerMetadata", "dynamic",
    },
    "tool-output-available": {"type", "toolCallId", "output", "providerExecuted", "dynamic"},
    "tool-output-error": {"type", "toolCallId", "errorText", "providerExecuted", "dynamic"},
    "source-url": {"type", "sourceId", "url", "title", "providerMetadata"},
    "source-document": {"type", "sourceId", "mediaType", "title", "filename", "providerMetadata"},
    "file": {"type", "url", "mediaType", "providerMetadata"},
    **{
        f"data-{name}": {"type", "id", "data", "transient"}
        for name in ("audio", "json", "safety", "tool-result", "warning")
    },
    "finish-step": {"type"},
    "finish": {"type", "messageMetadata"},
}  # fmt: skip
"""The strict objects of `ui-message-chunks.ts` in 5.0.0."""


def test_arguments_of_a_call_whose_start_was_left_out_wait_for_the_call() -> None:
    assert kinds(START, call_delta('{"city":'), call())[2:] == ["tool-input-available"]
