"""`gai_fast/formats/chat/completions_stream.py`: events as `text_completion` chunks, and the whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from gai_fast.formats import get_format
from gai_fast.model.events import Event
from tests.kernels import cuts
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.relays import received, relay_to
from tests.unit.formats.streams import (
    CREATED,
    DONE,
    ERROR,
    NOT_DONE,
    START,
    STREAM_ID,
    USAGE,
    context,
    data_of,
    encoded,
    filled,
    finish,
    objects_of,
    text,
)

COMPLETIONS = get_format("completions")
NAMES = {"id": f"cmpl-{STREAM_ID}", "object": "text_completion", "created": CREATED, "model": "test-model"}
COUNTS = {
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def chunks(*events: Event, usage: bool = False, **said: Any) -> list[Any]:
    return objects_of(encoded(COMPLETIONS.encoder("sse", context(usage=usage, **said)), events))


def choice(said: str, reason: str | None = None) -> dict[str, Any]:
    return {"text": said, "index": 0, "logprobs": None, "finish_reason": reason}


def test_a_text() -> None:
    body = encoded(COMPLETIONS.encoder("sse", context(usage=False)), [START, text('Hé "'), text("you"), finish(), DONE])
    assert data_of(body)[-1] == "[DONE]"
    assert objects_of(body) == [
        {**NAMES, "choices": [choice('Hé "')]},
        {**NAMES, "choices": [choice("you")]},
        {**NAMES, "choices": [choice("", "stop")]},
    ]


def test_usage_is_sent_where_it_was_asked_for() -> None:
    found = chunks(START, text("Hi"), {"type": "usage", "usage": USAGE}, finish(), usage=True)
    assert [chunk["usage"] for chunk in found] == [None, None, COUNTS]
    assert found[-1]["choices"] == []
    assert all("usage" not in chunk for chunk in chunks(START, text("Hi"), finish(usage=USAGE)))


def test_every_chunk_is_one_of_the_sdks() -> None:
    for chunk in chunks(*EVERY_EVENT, usage=True):
        for each in chunk["choices"]:  # the type leaves out that OpenAI sends `null` before the end
            each["finish_reason"] = each["finish_reason"] or "stop"
        Completion.model_validate(chunk, strict=True)


def test_only_text_is_written() -> None:
    found = chunks(*EVERY_EVENT)
    assert "".join(chunk["choices"][0]["text"] for chunk in found) == "Hi youmoreNo"
    assert found[-1]["x_gai"]["warnings"] == [{"reason": "malformed_chunk"}]
    assert chunks(START, text("b", choice=1)) == []


@pytest.mark.parametrize(
    ("reason", "expected", "aside"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("content_filter", "content_filter", None),
        ("tool_calls", "stop", {"finish_reason": "tool_calls"}),
        ("cancelled", "stop", {"finish_reason": "cancelled"}),
    ],
)
def test_finish_reasons(reason: str, expected: str, aside: Any) -> None:
    [last] = chunks(START, finish(reason))
    assert last["choices"][0]["finish_reason"] == expected
    assert last.get("x_gai") == aside


def test_an_error_is_the_last_frame() -> None:
    body = encoded(COMPLETIONS.encoder("sse", context()), [START, text("Hi"), ERROR, NOT_DONE])
    assert objects_of(body)[-1]["error"]["code"] == "network"
    assert "[DONE]" not in data_of(body)


def test_ndjson_has_the_same_objects_and_no_end_mark() -> None:
    body = encoded(COMPLETIONS.encoder("ndjson", context(usage=False)), [START, text("Hi"), finish(), DONE])
    assert [json.loads(line)["choices"][0]["text"] for line in body.splitlines()] == ["Hi", ""]


@pytest.mark.parametrize("said", [{}, {"ids": True}, {"ids": True, "usage": True}])
def test_a_delta_is_written_as_its_parts_say(said: dict[str, Any]) -> None:
    encoder = COMPLETIONS.encoder("sse", context(**said))
    encoded(encoder, [START, text("a")])
    parts = encoder.delta_parts(text("@"), "text")
    assert parts is not None
    assert filled(parts, encoder.seq + 1, b"@") == encoded(encoder, [text("@")])
    assert encoder.delta_parts({"type": "reasoning.delta", "text": "@"}, "text") is None
    assert encoder.delta_parts(text("@", choice=1), "text") is None


def test_only_the_first_frame_tells_when_to_come_back() -> None:
    body = encoded(COMPLETIONS.encoder("sse", context(ids=True, retry_ms=3000)), [START, text("a"), text("b")])
    frames = body.decode().split("\n\n")
    assert frames[0].startswith(f"id: {STREAM_ID}.2\nretry: 3000\ndata: ")
    assert frames[1].startswith(f"id: {STREAM_ID}.3\ndata: ")


def test_the_whole_answer() -> None:
    answer = json.loads(encoded(COMPLETIONS.whole(context()), EVERY_EVENT))
    Completion.model_validate(answer, strict=True)
    assert answer == {
        **NAMES,
        "choices": [choice("Hi youmoreNo", "stop")],
        "usage": COUNTS,
        "x_gai": {"finish_reason": "tool_calls", "warnings": [{"reason": "malformed_chunk"}]},
    }
    assert encoded(COMPLETIONS.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""


# ---- passthrough -----------------------------------------------------------------------------------------------------

CHUNK = (
    '{{"id":"cmpl-1","object":"text_completion","created":1,"model":"m-1","choices":[{{"text":"{}","index":{},'
    '"logprobs":{{"tokens":["{}"],"token_logprobs":[-0.5]}},"finish_reason":{}}}]}}'
)
FRAMES = [
    *(CHUNK.format(said, at % 2, said, "null") for at, said in enumerate(("Prompt", "Prompt", "One", "Uno"))),
    *(CHUNK.format("", at, "", '"stop"') for at in range(2)),
]
NATIVE = "".join(f"data: {frame}\n\n" for frame in [*FRAMES, "[DONE]"]).encode()


def relayed(chunks: list[bytes], *, cancelled: bool = False) -> bytes:
    output = COMPLETIONS.passthrough("sse", context(usage=False), whole=False)
    return received(relay_to(output, "openai:completions"), output, chunks, cancel=cancelled)


def test_the_bytes_of_an_upstream_of_the_dialect_pass_with_echo_logprobs_and_choices() -> None:
    for chunks in cuts(NATIVE):
        assert relayed(chunks) == NATIVE


def test_usage_that_the_upstream_has_not_sent_stands_before_the_end_mark_if_it_was_asked_for() -> None:
    output = COMPLETIONS.passthrough("sse", context(usage=True), whole=False)
    said = received(relay_to(output, "openai:completions", prompt_characters=8), output, [NATIVE])
    added = objects_of(said)[-1]
    assert said.startswith(NATIVE.removesuffix(b"data: [DONE]\n\n"))
    assert (added["choices"], added["x_gai"], data_of(said)[-1]) == ([], {"usage_source": "estimated"}, "[DONE]")
    assert added["usage"]["prompt_tokens"] == 2


def test_an_end_mark_that_is_missing_is_added_and_an_error_reported() -> None:
    assert relayed([NATIVE.removesuffix(b"data: [DONE]\n\n")]) == NATIVE
    broken = relayed([NATIVE[:300]])
    assert objects_of(broken)[-1]["error"]["code"] == "network"
    assert b"[DONE]" not in broken


def test_a_cancelled_answer_gets_a_chunk_of_ours() -> None:
    first = f"data: {FRAMES[0]}\n\n".encode()
    said = relayed([first], cancelled=True)
    assert said.startswith(first)
    last = objects_of(said)[-1]
    assert (last["id"], last["model"], last["x_gai"]) == ("cmpl-1", "m-1", {"finish_reason": "cancelled"})
    assert data_of(said)[-1] == "[DONE]"


def test_an_answer_cancelled_behind_its_finish_reason_gets_no_second_one() -> None:
    assert relayed([NATIVE.removesuffix(b"data: [DONE]\n\n")], cancelled=True) == NATIVE


def test_warnings_stand_on_a_chunk_before_the_end_mark() -> None:
    first = f"data: {FRAMES[0]}\n\n".encode()
    said = relayed([first + b"data: 5\n\n" + NATIVE[len(first) :]])
    assert objects_of(said)[-1] == {
        **objects_of(said)[-1],
        "choices": [],
        "x_gai": {"warnings": [{"reason": "malformed_chunk"}]},
    }
    assert data_of(said)[-1] == "[DONE]"


def test_an_answer_without_frames_is_translated() -> None:
    whole = json.dumps({"id": "c", "model": "m-1", "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}]})
    said = relayed([whole.encode()])
    assert "".join(chunk["choices"][0]["text"] for chunk in objects_of(said)) == "Hi"
