"""Passthrough of OpenAI's chat stream: the encoder, and through the relay."""

from __future__ import annotations

import json

import pytest

from gai_fast.formats.chat.parts import is_error_frame
from gai_fast.providers import get_provider
from tests.unit.formats.chat_reader import (
    ANSWER,
    DONE_FRAME,
    ERROR_FRAME,
    FINISH_FRAME,
    OPENAI,
    TEXT_FRAME,
    WARNING,
    passing,
    relayed,
    streamed,
)
from tests.unit.formats.relays import cut, relay_to
from tests.unit.formats.streams import (
    CREATED,
    DONE,
    ERROR,
    NOT_DONE,
    START,
    USAGE,
    call,
    context,
    encoded,
    finish,
    objects_of,
    text,
)


def test_frames_are_passed_on_unchanged_and_their_events_add_nothing() -> None:
    encoder = passing(b": OPENROUTER PROCESSING\n\n", TEXT_FRAME)
    encoder.event(text("Hi"))
    encoder.frame(FINISH_FRAME, last=False)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [call(), finish("stop", finish_reason_raw="stop", usage=USAGE), DONE])
    assert body == b": OPENROUTER PROCESSING\n\n" + TEXT_FRAME + FINISH_FRAME + DONE_FRAME


def test_a_comment_that_was_cut_off_does_not_swallow_the_next_attempts_first_chunk() -> None:
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    relay = relay_to(encoder, "openai", copies=False, failed=lambda error: True)
    relay.receive_data(b": OPENROUTER PROC")
    relay.receive_eof()
    relay.begin(get_provider("openai").adapter(), encoder, frames=encoder)
    relay.receive_head(200, {"content-type": "text/event-stream"})
    relay.receive_data(TEXT_FRAME)
    assert encoder.take() == b": OPENROUTER PROC\n\n" + TEXT_FRAME


@pytest.mark.parametrize("rest", [b"event: message", b"id: 7\r\n", b": ping\nretry: 5", b"dat"])
def test_the_fields_of_a_frame_that_was_cut_off_before_its_data_are_left_out(rest: bytes) -> None:
    """The SDKs' decoders make an event of them, and fail at its empty data."""
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    relay = relay_to(encoder, "openai", copies=False, failed=lambda error: False)
    relay.receive_data(TEXT_FRAME + rest)
    relay.receive_eof()
    body = encoder.take()
    assert body.startswith(TEXT_FRAME + b'data: {"error":')


@pytest.mark.parametrize(
    ("error", "tells"),
    [("null", False), ('""', False), ("{}", False), ("{ }", False), ('"no"', True), ('{"message":"no"}', True)],
)
def test_an_error_with_nothing_in_it_is_none_to_the_sdks(error: str, tells: bool) -> None:
    assert is_error_frame(f'data: {{"object":"error","error": {error}}}\n\n'.encode()) is tells


def test_a_missing_end_mark_is_added_after_a_finish() -> None:
    encoder = passing(TEXT_FRAME, FINISH_FRAME)
    assert encoded(encoder, [finish(), DONE]) == TEXT_FRAME + FINISH_FRAME + DONE_FRAME


def test_warnings_stand_on_one_extra_chunk_before_the_end_mark() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(FINISH_FRAME, last=False)
    encoder.event(WARNING)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [finish(), DONE])
    extra = (
        f'data: {{"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":{CREATED},"model":"gpt-x",'
        '"choices":[],"x_gai":{"warnings":[{"reason":"malformed_chunk"},{"reason":"malformed_chunk"}]}}\n\n'
    ).encode()
    assert body == TEXT_FRAME + FINISH_FRAME + extra + DONE_FRAME


def test_an_error_in_the_upstreams_own_words_is_reported_once() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(ERROR_FRAME, last=True)
    assert encoded(encoder, [ERROR, NOT_DONE]) == TEXT_FRAME + ERROR_FRAME


def test_an_error_that_no_frame_reported_is_reported_by_us() -> None:
    body = encoded(passing(TEXT_FRAME), [ERROR, NOT_DONE])
    assert body.startswith(TEXT_FRAME)
    assert list(json.loads(body[len(TEXT_FRAME) :].removeprefix(b"data: "))) == ["error"]


def test_an_error_on_a_line_that_no_client_reads_is_reported_by_us() -> None:
    encoder = passing(TEXT_FRAME)
    stray = b'{"error":{"message":"broke"}}\n\n'
    encoder.frame(stray, last=True)
    body = encoded(encoder, [ERROR, NOT_DONE])
    assert body.startswith(TEXT_FRAME + stray + b'data: {"error":')


def test_the_upstreams_end_mark_does_not_follow_an_error() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [ERROR, NOT_DONE])
    assert b"[DONE]" not in body
    assert body.startswith(TEXT_FRAME + b'data: {"error":')


@pytest.mark.parametrize("usage", [False, True])
def test_a_cancelled_answer_ends_with_chunks_of_ours(usage: bool) -> None:
    encoder = passing(TEXT_FRAME, usage=usage)
    body = encoded(encoder, [finish("cancelled", usage={**USAGE, "source": "partial"}), DONE])
    assert body.startswith(TEXT_FRAME)
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    own = objects_of(body)[1:]
    assert own[0]["id"] == "chatcmpl-theirs"
    assert own[0]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert own[0]["x_gai"] == {"finish_reason": "cancelled"}
    assert [chunk["choices"] for chunk in own[1:]] == ([[]] if usage else [])


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["mid-line", "no blank line", "no blank line, CRLF"])
def test_a_frame_of_ours_is_never_glued_to_a_part_of_theirs(end: bytes) -> None:
    cut = b'data: {"choices":[]}' + end
    body = encoded(passing(cut), [ERROR, NOT_DONE])
    assert body.startswith(cut + b"\n\ndata: ")


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\r\n\r"])
def test_a_whole_frame_of_theirs_needs_no_further_blank_line(blank: bytes) -> None:
    ended = b'data: {"choices":[]}' + blank
    assert encoded(passing(ended), [ERROR, NOT_DONE]).startswith(ended + b"data: ")


def test_a_heartbeat_between_cr_and_lf_makes_no_empty_line() -> None:
    encoder = passing(b'id: 1\r\ndata: {"choices":[]}\r\n\r')
    encoder.heartbeat()
    encoder.frame(b"\ndata: [DONE]\r\n\r\n", last=True)
    assert encoded(encoder, [finish(), DONE]) == (b'id: 1\r\ndata: {"choices":[]}\r\n\r: ping\r\ndata: [DONE]\r\n\r\n')


def test_a_heartbeat_is_a_comment_line() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.heartbeat()
    assert encoder.take() == TEXT_FRAME + b": ping\n"


def test_an_answer_without_frames_is_translated() -> None:
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    assert encoder is not None
    assert encoded(encoder, [START, text("Hi"), finish(), DONE]) == streamed(text("Hi"), finish(), DONE)


def test_ndjson_and_streams_with_ids_are_translated() -> None:
    assert OPENAI.passthrough("ndjson", context(), whole=False) is None
    assert OPENAI.passthrough("sse", context(ids=True), whole=False) is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(ANSWER)])
def test_a_relayed_answer_is_byte_exact_however_it_is_cut(size: int) -> None:
    assert relayed(cut(ANSWER + DONE_FRAME, size)) == ANSWER + DONE_FRAME


def test_a_relayed_answer_without_end_mark_gets_one() -> None:
    assert relayed([ANSWER]) == ANSWER + DONE_FRAME


@pytest.mark.parametrize("end", range(1, len(ANSWER), 5))
def test_a_relayed_answer_cut_anywhere_ends_in_whole_frames(end: int) -> None:
    body = relayed([ANSWER[:end]])
    is_finished = b'"finish_reason":"stop"}]}' in ANSWER[:end]
    assert body.endswith(DONE_FRAME) is is_finished
    assert (b'data: {"error":' in body) is not is_finished
    assert body.endswith(b"\n\n")
    last = body.rstrip(b"\n").rpartition(b"\n")[2]
    assert last.startswith(b"data: ")


def test_a_malformed_chunk_is_left_out_and_reported() -> None:
    head, tail = ANSWER[: ANSWER.index(b"event: x")], ANSWER[ANSWER.index(b"event: x") :]
    body = relayed([head, b"data: 5\n\n", tail, DONE_FRAME])
    extra = body.removeprefix(head + tail).removesuffix(DONE_FRAME)
    assert json.loads(extra.removeprefix(b"data: "))["x_gai"] == {"warnings": [{"reason": "malformed_chunk"}]}


@pytest.mark.parametrize(
    "theirs",
    [
        b'{"object":"error","message":"slow","code":"1300","raw_status_code":429}',
        b'{"error_code":"BAD","message":"no"}',
    ],
)
def test_an_error_in_words_that_no_sdk_reads_is_followed_by_one_of_ours(theirs: bytes) -> None:
    """The SDKs look for `error`: they would take the stream for complete."""
    head = ANSWER[: ANSWER.index(b"event: x")] + b"data: " + theirs + b"\n\n"
    own = relayed([head, DONE_FRAME]).removeprefix(head)
    assert "message" in json.loads(own.removeprefix(b"data: "))["error"]


@pytest.mark.parametrize(
    "rest", [b"data:", b"data: \n", b'event: error\ndata: {"message":"No'], ids=["blank", "line", "error"]
)
def test_a_frame_that_is_cut_off_is_not_passed_on_as_a_whole_one(rest: bytes) -> None:
    """SDKs fail at data that is no JSON, and never see the error behind it."""
    head = ANSWER[: ANSWER.index(b"event: x")]
    own = relayed([head + rest]).removeprefix(head)
    assert own.startswith(b'data: {"error":')
    assert "message" in json.loads(own.removeprefix(b"data: "))["error"]


def test_a_relayed_error_is_the_last_frame() -> None:
    head = ANSWER[: ANSWER.index(b"event: x")]
    assert relayed([head, ERROR_FRAME, DONE_FRAME]) == head + ERROR_FRAME


def test_a_relayed_answer_that_is_cancelled_says_so() -> None:
    head = ANSWER[: ANSWER.index(b"event: x")]
    own = relayed([head], cancel=True).removeprefix(head)
    assert objects_of(own)[0]["x_gai"] == {"finish_reason": "cancelled"}
    assert own.endswith(DONE_FRAME)


def test_an_answer_cancelled_behind_its_finish_reason_gets_no_second_one() -> None:
    assert relayed([ANSWER], cancel=True) == ANSWER + DONE_FRAME


def test_an_answer_cancelled_before_its_first_frame_is_translated() -> None:
    body = relayed([], cancel=True)
    assert [chunk["choices"][0]["finish_reason"] for chunk in objects_of(body)] == [None, "stop"]
    assert body.endswith(DONE_FRAME)


def test_a_whole_json_answer_to_a_streamed_request_is_a_stream() -> None:
    answer = {"id": "c", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    body = relayed([json.dumps(answer).encode()])
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in objects_of(body)) == "Hi"
    assert body.endswith(DONE_FRAME)
