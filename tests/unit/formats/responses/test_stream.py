"""The Responses stream: frames, byte for byte, their numbers, and the deltas that kernels write."""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import pytest
from openai.types.responses import ResponseStreamEvent

from gai_fast.formats import FORMATS, Framing, StreamEncoder, get_format
from gai_fast.model.events import Event
from tests.conftest import ChangeLimits
from tests.unit.formats.responses_reader import RESPONSES, checked, streamed, types, written
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
    data_of,
    encoded,
    filled,
    finish,
    text,
)

AT = f'"item_id":"msg_{STREAM_ID}_0","output_index":0,"content_index":0'


def test_a_delta_byte_for_byte() -> None:
    body = streamed(text("Hi"), text(' "you" é\n'))
    assert body.decode().endswith(
        "event: response.output_text.delta\n"
        f'data: {{"type":"response.output_text.delta","sequence_number":5,{AT},"delta":" \\"you\\" é\\n",'
        '"logprobs":[]}\n\n'
    )


def test_the_order_of_a_text_answer() -> None:
    assert types(written(text("Hi"), finish(usage=USAGE), DONE)) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


DELTAS: dict[str, tuple[list[Event], str, Event]] = {
    "text": ([], "text", text("x")),
    "refusal": ([], "text", {"type": "refusal.delta", "text": "x"}),
    "reasoning": ([], "text", {"type": "reasoning.delta", "text": "x"}),
    "arguments": ([call_start()], "arguments", call_delta("x")),
    "custom input": ([call_start()], "arguments", call_delta("x")),
}


@pytest.mark.parametrize("name", DELTAS)
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
@pytest.mark.parametrize("ids", [True, False])
def test_the_parts_of_a_delta_are_what_the_encoder_writes(name: str, framing: Framing, ids: bool) -> None:
    before, key, delta = DELTAS[name]
    echo = {"tools": [{"type": "custom", "name": "weather"}]} if name == "custom input" else {}
    encoder = RESPONSES.encoder(framing, context(ids=ids, echo=echo))
    encoded(encoder, [START, *before])
    if key == "text":
        assert encoder.delta_parts(delta, key) is None  # its place is not open
    encoded(encoder, [delta])
    parts = encoder.delta_parts(delta, key)
    assert parts is not None
    assert filled(parts, encoder.seq + 1, b"x") == encoded(encoder, [delta])


def test_deltas_that_kernels_wrote_are_counted_and_repeated_at_the_end() -> None:
    encoder = RESPONSES.encoder("sse", context())
    assert encoder.collects_text
    assert encoder.has_blocks
    encoded(encoder, [START, text("one ")])
    assert encoder.seq == 4
    encoder.copied(text(""), "two three")
    encoder.append_frames(b"", 2)
    assert encoder.seq == 6
    body = encoded(encoder, [finish(), DONE])
    assert b'"sequence_number":7,' in body
    assert b'"text":"one two three"' in body


def test_the_text_of_a_place_that_is_closed_is_not_kept() -> None:
    encoder = RESPONSES.encoder("sse", context())
    encoded(encoder, [START, text("a")])
    encoder.copied({"type": "reasoning.delta"}, "b")
    assert b'"text":"a"' in encoded(encoder, [finish()])


def test_the_first_frame_of_a_stream_with_ids_is_no_template() -> None:
    encoder = RESPONSES.encoder("sse", context(ids=True, retry_ms=3000))
    assert encoder.delta_parts(text("a"), "text") is None


def test_ids_are_the_numbers_of_last_frames() -> None:
    body = streamed(text("a"), text("b"), finish(), DONE, ids=True, retry_ms=3000).decode()
    ids = [line.rsplit(".", 1)[1] for line in body.splitlines() if line.startswith("id: ")]
    assert ids == ["1", "4", "5", "9"]
    assert body.count("retry: 3000\n") == 1
    assert f"id: {STREAM_ID}.1\nretry: 3000\nevent: response.in_progress\n" in body


def test_events_of_a_log_keep_its_numbers_in_their_ids() -> None:
    events = [{**START, "seq": 1}, text("a", seq=2), text("bc", seq=4, from_seq=3), finish(seq=5), DONE]
    body = encoded(RESPONSES.encoder("sse", context(ids=True, follows=True)), events)
    ids = [line.rsplit(b".", 1)[1] for line in body.splitlines() if line.startswith(b"id: ")]
    assert ids == [b"1", b"2", b"4", b"5"]
    assert len(checked(body)) == 10


def test_joined_deltas_of_a_live_stream_are_one_frame() -> None:
    body = streamed(text("a"), text("bc", seq=4, from_seq=3), text("d"), ids=True)
    assert [line.rsplit(b".", 1)[1] for line in body.splitlines() if line.startswith(b"id: ")] == [
        b"1",
        b"4",
        b"5",
        b"6",
    ]


def test_an_early_error_still_has_a_beginning() -> None:
    body = encoded(RESPONSES.encoder("sse", context()), [ERROR, NOT_DONE])
    found = checked(body)
    assert types(found) == ["created", "in_progress", "error", "failed"]
    assert found[2] == {"type": "error", "sequence_number": 2, "code": "network", "message": 'cut "off"', "param": None}
    assert found[3]["response"]["status"] == "failed"


def test_a_follower_is_notified_of_a_failure_that_its_log_does_not_have() -> None:
    encoder = RESPONSES.encoder("sse", context(follows=True))
    body = encoded(encoder, [{**ERROR, "seq": 41}, NOT_DONE])
    assert body.count(b"event: ") == 2
    assert b'{"type":"error","sequence_number":41,' in body
    assert b'{"type":"response.failed","sequence_number":42,' in body


@pytest.mark.parametrize("reason", ["store", "store_sealed", "log_damaged", "log_behind", "gap"])
def test_a_failure_to_read_what_is_kept_is_none_of_the_response(reason: str) -> None:
    error = {**ERROR, "seq": 41, "error": {**ERROR["error"], "reason": reason}}
    body = encoded(RESPONSES.encoder("sse", context(follows=True)), [error, NOT_DONE])
    assert b'{"type":"error","sequence_number":41,' in body
    assert b"response.failed" not in body


def test_what_failed_midway_is_incomplete() -> None:
    events = [text("Hi"), call_start(), call_delta('{"a'), ERROR, NOT_DONE]
    found = written(*events)
    assert types(found)[-2:] == ["error", "failed"]
    assert [(item["type"], item["status"]) for item in found[-1]["response"]["output"]] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]
    assert found[-1]["response"]["output"][1]["arguments"] == '{"a'


@pytest.mark.parametrize("kind", ["safety", "step.end", "json.snapshot", "stream.gap", "usage", "warning"])
def test_events_without_a_place_write_nothing(kind: str) -> None:
    members: dict[str, Any] = {"usage": USAGE} if kind == "usage" else {"reason": "malformed_chunk"}
    event: Any = {"type": kind, "safety": {}, "step": 1, "json": {}, **members}
    encoder = RESPONSES.encoder("sse", context(ids=True))
    encoded(encoder, [START])
    assert encoded(encoder, [event]) == b""


def test_choices_beyond_the_first_write_nothing() -> None:
    assert types(written(text("a", choice=1), call("c", choice=1))) == ["created", "in_progress"]
    encoder = RESPONSES.encoder("sse", context())
    encoded(encoder, [START, text("a")])
    assert encoder.delta_parts(text("b", choice=1), "text") is None


def test_usage_that_came_before_the_end_counts_where_the_end_has_none() -> None:
    usage: Event = {"type": "usage", "usage": {**USAGE, "source": "estimated"}}
    last = written(text("a"), usage, finish(), DONE)[-1]["response"]
    assert (last["usage"]["total_tokens"], last["x_gai"]) == (30, {"usage_source": "estimated"})


def test_audio_is_reported_in_pieces() -> None:
    found = written({"type": "audio.delta", "audio": {"chunk": "eA==", "format": "mp3"}}, finish(), DONE)
    assert types(found)[2:4] == ["audio.delta", "audio.done"]
    assert found[2]["delta"] == "eA=="


def test_another_attempt_before_any_content_goes_on_with_the_same_response() -> None:
    events: list[Event] = [{"type": "stream.reset", "reason": "network"}, {**START, "model": "other"}, text("a")]
    found = written(*events, finish(), DONE)
    assert types(found)[:3] == ["created", "in_progress", "output_item.added"]
    assert found[-1]["response"]["model"] == "other"


def test_the_answer_that_is_kept_has_a_limit(change_limits: ChangeLimits) -> None:
    change_limits(collected=2000)
    encoder = get_format("responses").encoder("sse", context())
    with pytest.raises(Exception, match="larger than") as raised:
        for _ in range(100):
            encoder.event(text("a" * 20))
    assert getattr(raised.value, "reason", "") == "answer_too_large"


def test_each_frame_is_one_line_of_data() -> None:
    body = streamed(text("a\nb"), finish(), DONE)
    assert len(data_of(body)) == body.count(b"event: ")


def test_probabilities_of_tokens_are_in_the_deltas_and_at_the_end() -> None:
    hi = {"token": "Hé", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "Ha", "logprob": -2.0}, 5]}
    whole = {
        **hi,
        "bytes": [72, 195, 169],
        "top_logprobs": [{"token": "Ha", "logprob": -2.0, "bytes": [72, 97]}],
    }
    there = {"token": " you", "logprob": -0.1, "bytes": [32], "top_logprobs": []}
    sent = written({**text("Hé"), "logprobs": [hi]}, {**text(" you"), "logprobs": [there]}, text("!"))
    assert [one["logprobs"] for one in sent if one["type"] == "response.output_text.delta"] == [[whole], [there], []]
    ended = written({**text("Hé"), "logprobs": [hi]}, {**text(" you"), "logprobs": [there]}, finish(), DONE)
    [done] = [one for one in ended if one["type"] == "response.output_text.done"]
    assert done["logprobs"] == [whole, there]
    assert ended[-1]["response"]["output"][0]["content"][0]["logprobs"] == [whole, there]


@pytest.mark.parametrize("odd", [5, None, [5], {"token": "a"}])
def test_odd_probabilities_of_a_programs_own_event_are_left_out(odd: Any) -> None:
    event: Any = {**text("Hi"), "logprobs": odd}
    assert written(event)[-1]["logprobs"] == []
    [message] = written(event, finish(), DONE)[-1]["response"]["output"]
    assert message["content"][0]["logprobs"] == []


def test_a_delta_with_probabilities_is_no_template() -> None:
    encoder: Any = RESPONSES.encoder("sse", context())
    encoded(encoder, [START, text("a")])
    assert encoder.delta_parts(text("a"), "text") is not None
    assert encoder.delta_parts({**text("a"), "logprobs": []}, "text") is None


# ---- keep-alives -----------------------------------------------------------------------------------------------------


def kept_alive(number: int) -> bytes:
    return b'event: keepalive\ndata: {"type":"keepalive","sequence_number":%d}\n\n' % number


def for_codex(framing: Framing = "sse", *, ids: bool = False) -> StreamEncoder:
    return RESPONSES.for_program("codex_exec/0.169.0").encoder(framing, context(ids=ids))


@pytest.mark.parametrize("program", ["codex_cli_rs/0.169.0 (Debian; x86_64)", "codex-tui/1", "codex/1"])
def test_codex_gets_an_event_of_openais_own_with_the_last_events_number(program: str) -> None:
    encoder = RESPONSES.for_program(program).encoder("sse", context())
    encoder.heartbeat()
    assert encoder.take() == kept_alive(0)
    encoder.event(START)
    encoder.take()
    encoder.heartbeat()
    assert encoder.take() == kept_alive(1)
    encoder.event(text("Hi"))
    encoder.append_frames(b"", 5)
    encoder.heartbeat()
    encoder.event(text("!"))
    body = encoder.take()
    assert kept_alive(9) in body
    assert b'"sequence_number":10' in body.partition(kept_alive(9))[2], "it has taken no number"


@pytest.mark.parametrize(
    "program",
    [
        None,
        "",
        "codex",
        "Codex_cli_rs/1",
        "codexes/1",
        "my-codex_cli_rs/1",
        "OpenAI/Python 3.51.0",
        "claude-cli/2.1.330",
    ],
)
def test_everybody_else_gets_a_comment(program: str | None) -> None:
    encoder = RESPONSES.for_program(program).encoder("sse", context())
    encoder.heartbeat()
    assert encoder.take() == b": ping\n"


def test_no_keep_alive_has_an_id_and_ndjson_has_its_empty_line() -> None:
    encoder = for_codex(ids=True)
    encoder.event(START)
    encoder.take()
    encoder.heartbeat()
    assert encoder.take() == kept_alive(1)
    lines = for_codex("ndjson")
    lines.heartbeat()
    assert lines.take() == b"\n"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "responses"])
def test_no_other_format_tells_programs_apart(name: str) -> None:
    form = get_format(name)
    assert not form.tells_programs_apart
    assert form.for_program("codex_exec/1") is form


KNOWN: Final = frozenset(
    get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(ResponseStreamEvent)[0])
)
"""The types of the events that OpenAI's SDKs know; `keepalive` is none of them."""


def read_as_java(body: bytes, *, accumulates: bool) -> list[str]:
    """Returns the types of a stream's events as openai-java reads them, by its `SseHandler` and its services.

    A frame without data is none, and `[DONE]` is the end. An event with a member `error`, of any value, is a failure.
    With `responseValidation` an unknown type is one too, except exactly `keepalive`, which is handed on without a type.
    The `ResponseAccumulator` fails on every unknown type until the response is whole.
    """
    types: list[str] = []
    for block in body.decode().split("\n\n"):
        data = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if not data:
            continue
        if data[0].startswith("[DONE]"):
            break
        event = json.loads("\n".join(data))
        assert "error" not in event
        types.append(event["type"])
        is_whole = any(kind in types for kind in ("response.completed", "response.incomplete", "response.failed"))
        if accumulates and not is_whole:
            assert types[-1] in KNOWN, "Unknown ResponseStreamEvent"
        assert types[-1] in KNOWN or types[-1] == "keepalive"
    return types


@pytest.mark.parametrize("program", ["codex_exec/0.169.0", None])
def test_the_rule_of_openai_java_reads_over_keep_alives_that_its_accumulator_would_fail_on(program: str | None) -> None:
    encoder = RESPONSES.for_program(program).encoder("sse", context())
    encoder.heartbeat()
    for event in (START, text("Hi"), text("!"), finish(usage=USAGE), DONE):
        encoder.event(event)
        encoder.heartbeat()
    body = encoder.take()
    assert read_as_java(body, accumulates=False).count("keepalive") == (6 if program else 0)
    if program:
        with pytest.raises(AssertionError, match="Unknown ResponseStreamEvent"):
            read_as_java(body, accumulates=True)
    else:
        assert read_as_java(body, accumulates=True)[-1] == "response.completed"
