"""Passthrough of the Responses stream: byte for byte, and the frames of ours that complete it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai._streaming import SSEDecoder
from openai.types.responses import Response

from gai_fast.formats import get_format
from tests.conftest import ChangeLimits
from tests.unit.formats.relays import cut
from tests.unit.formats.responses_reader import ended, frame, relayed, upstream
from tests.unit.formats.streams import context, objects_of

FRAMES = upstream(text=" ".join(f"word{number}" for number in range(60)))
ANSWER = b"".join(FRAMES)


@pytest.mark.parametrize("size", [1, 7, 64, 1000, len(ANSWER)])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_the_frames_are_passed_on_however_they_are_cut(size: int, line_end: bytes) -> None:
    body = ANSWER.replace(b"\n", line_end)
    assert relayed(cut(body, size)) == body


@pytest.mark.parametrize("size", [1, 64, len(ANSWER)])
def test_translated_frames_say_the_same_however_they_are_cut(size: int) -> None:
    assert relayed(cut(ANSWER, size), passes=False) == relayed([ANSWER], passes=False)


@pytest.mark.parametrize("frames", [1, 3, 20, len(FRAMES) - 1])
def test_a_cut_stream_goes_on_with_its_numbers_and_fails(frames: int) -> None:
    body = relayed([b"".join(FRAMES[:frames])])
    found = objects_of(body)
    assert body.startswith(b"".join(FRAMES[:1]))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert [one["type"] for one in found[-2:]] == ["error", "response.failed"]
    assert found[-1]["response"]["id"] == "resp_theirs"
    assert found[-1]["response"]["model"] == "gpt-x"


def test_frames_of_ours_count_from_the_upstreams_first_number_and_count_no_comments() -> None:
    later = [one.replace(b'"sequence_number":', b'"sequence_number":10') for one in FRAMES[:3]]
    body = relayed([later[0] + b": ping\n\n" + b"".join(later[1:])])
    found = objects_of(body.replace(b": ping\n\n", b""))
    assert [one["sequence_number"] for one in found] == [100, 101, 102, 103, 104]


def test_our_own_cancel_has_a_terminal_event() -> None:
    found = objects_of(ended([b"".join(FRAMES[:20])], provider="openai:responses", passes=True, cancel=True))
    assert (found[-1]["type"], found[-1]["sequence_number"]) == ("response.incomplete", 20)
    assert found[-1]["response"]["status"] == "cancelled"


def last(pieces: list[bytes], *, cancel: bool) -> Any:
    """Returns the terminal event of a stream that ends before its upstream's own."""
    return objects_of(ended(pieces, provider="openai:responses", passes=True, cancel=cancel))[-1]["response"]


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "cut"])
@pytest.mark.parametrize("size", [1, 300, len(ANSWER)])
def test_an_end_of_ours_repeats_what_was_passed_on_under_its_ids(size: int, cancel: bool) -> None:
    [item] = last([*cut(b"".join(FRAMES[:40]), size)], cancel=cancel)["output"]
    assert (item["id"], item["type"], item["status"]) == ("msg_1", "message", "incomplete")
    assert [part["text"] for part in item["content"]] == [" ".join(f"word{number}" for number in range(36))]


def test_an_end_of_ours_repeats_each_item() -> None:
    thought = {"id": "rs_1", "type": "reasoning", "summary": []}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": ""}
    at = {"item_id": "fc_1", "output_index": 2}
    frames = [
        frame("response.output_item.added", 2, output_index=0, item=thought),
        frame("response.reasoning_summary_text.delta", 3, item_id="rs_1", output_index=0, summary_index=0, delta="Hm."),
        frame("response.output_item.done", 4, output_index=0, item={**thought, "encrypted_content": "sealed"}),
        *(one.replace(b'"output_index":0', b'"output_index":1') for one in FRAMES[2:6]),
        frame("response.output_item.added", 9, output_index=2, item=call),
        frame("response.function_call_arguments.delta", 10, **at, delta='{"city":'),
        frame("response.function_call_arguments.delta", 11, **at, delta='"Os'),
    ]
    response = last([*FRAMES[:2], *frames], cancel=True)
    reasoning, message, cut_off = response["output"]
    assert (reasoning["id"], reasoning["encrypted_content"]) == ("rs_1", "sealed")
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert (message["id"], message["status"], message["content"][0]["text"]) == ("msg_1", "completed", "word0 word1")
    assert (cut_off["id"], cut_off["call_id"], cut_off["status"]) == ("fc_1", "call_1", "incomplete")
    assert cut_off["arguments"] == '{"city":"Os'
    Response.model_validate(response)


@pytest.mark.parametrize("size", [1, 300, 100_000])
@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "cut"])
def test_an_end_of_ours_repeats_texts_of_several_kinds_in_the_order_in_which_they_came(size: int, cancel: bool) -> None:
    """However many of them come in one read."""
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    number, frames = 4, FRAMES[:4]
    for text, refusal in (("One", "No"), (" two", "."), (" three", " Never"), (" four", "!")):
        frames = [
            *frames,
            frame("response.output_text.delta", number, **at, delta=text, logprobs=[]),
            frame("response.refusal.delta", number + 1, **{**at, "content_index": 1}, delta=refusal),
        ]
        number += 2
    [item] = last([*cut(b"".join(frames), size)], cancel=cancel)["output"]
    result = [(part["type"], part.get("text", part.get("refusal"))) for part in item["content"]]
    assert result == [
        ("output_text", "One"),
        ("refusal", "No"),
        ("output_text", " two"),
        ("refusal", "."),
        ("output_text", " three"),
        ("refusal", " Never"),
        ("output_text", " four"),
        ("refusal", "!"),
    ]


def test_two_messages_stay_two() -> None:
    first, second = FRAMES[2:6], [one.replace(b"msg_1", b"msg_2") for one in FRAMES[2:5]]
    found = last([*FRAMES[:2], *first, *second], cancel=True)["output"]
    result = [(item["id"], item["content"][0]["text"]) for item in found]
    assert result == [("msg_1", "word0 word1"), ("msg_2", "word0")]


def test_a_large_answer_is_passed_on_though_an_end_of_ours_cannot_repeat_it(change_limits: ChangeLimits) -> None:
    change_limits(collected=300)
    assert relayed([ANSWER]) == ANSWER
    assert last([b"".join(FRAMES[:40])], cancel=True)["output"] == []


def test_an_answer_cancelled_before_its_start_begins_all_the_same() -> None:
    alive = frame("keepalive", 0)
    found = objects_of(ended([alive], provider="openai:responses", passes=True, cancel=True))
    kinds = ["keepalive", "response.created", "response.in_progress", "response.incomplete"]
    assert [one["type"] for one in found] == kinds
    assert [one["sequence_number"] for one in found] == [0, 0, 1, 2]


def test_a_cancel_behind_the_terminal_event_adds_no_second_one() -> None:
    assert ended([ANSWER], provider="openai:responses", passes=True, cancel=True) == ANSWER


def test_an_upstream_that_failed_itself_is_passed_on_once() -> None:
    response = {"id": "resp_theirs", "status": "failed", "error": {"code": "server_error", "message": "no"}}
    frames = [*FRAMES[:6], frame("response.failed", 6, response=response)]
    assert relayed(frames) == b"".join(frames)


@pytest.mark.parametrize("explained", [True, False])
def test_an_error_behind_a_failure_without_words_is_passed_on(explained: bool) -> None:
    failed = frame("response.failed", 6, response={"id": "resp_theirs", "status": "failed", "error": None})
    error = frame("error", 7, error={"code": "content_policy_violation", "message": "no", "param": None})
    frames = [*FRAMES[:6], failed, *([error] if explained else [])]
    assert relayed(frames) == b"".join(frames)


def test_an_error_of_the_upstream_is_followed_by_the_end_of_the_response() -> None:
    error = frame("error", 6, code="server_error", message="no", param=None)
    body = relayed([*FRAMES[:6], error, frame("response.failed", 7, response={"id": "resp_theirs"})])
    assert body.startswith(b"".join([*FRAMES[:6], error]))
    found = objects_of(body)
    assert [one["sequence_number"] for one in found] == list(range(8))
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "server_error", "message": "no"}


def test_an_end_mark_of_a_chat_server_is_passed_on() -> None:
    body = ANSWER + b"data: [DONE]\n\n"
    assert relayed([body]) == body


def test_a_chunk_without_text_that_cannot_be_read_is_left_out() -> None:
    bent = b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": 0}\n\n'
    assert relayed([b"".join(FRAMES[:8]) + bent + b"".join(FRAMES[8:])]) == ANSWER


def test_a_terminal_event_is_passed_on_though_an_item_in_it_cannot_be_read() -> None:
    body = ANSWER.replace(b'"output":[{', b'"output":[5,{')
    assert body != ANSWER
    assert relayed([body]) == body


def test_an_answer_without_frames_is_translated() -> None:
    whole: Any = (
        b'{"id":"resp_theirs","object":"response","model":"gpt-x","status":"completed","output":[{"type":"message",'
        b'"id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[]}]}]}'
    )
    found = objects_of(relayed([whole]))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "Hi"


# ---- keep-alives -----------------------------------------------------------------------------------------------------

CREATED, IN_PROGRESS = FRAMES[:2]
DELTA = FRAMES[4]


def kept_alive(number: int) -> bytes:
    return b'event: keepalive\ndata: {"type":"keepalive","sequence_number":%d}\n\n' % number


def for_codex() -> Any:
    encoder = get_format("responses").for_program("codex_exec/1").passthrough("sse", context(), whole=False)
    assert encoder is not None
    return encoder


def test_codex_gets_keep_alives_before_the_first_event_and_with_the_number_of_what_was_passed_on() -> None:
    encoder = for_codex()
    encoder.heartbeat()
    assert encoder.take() == kept_alive(0)
    encoder.frame(CREATED, last=False)
    encoder.frame(IN_PROGRESS, last=False)
    encoder.heartbeat()
    assert encoder.take() == kept_alive(0), "frames that open parts are held until the first content"
    encoder.append_frames(DELTA, 1)
    encoder.heartbeat()
    assert encoder.take() == CREATED + IN_PROGRESS + DELTA + kept_alive(2)


@pytest.mark.parametrize(
    ("line_end", "rest", "said"),
    [
        (b"\n", b"", kept_alive(0)),
        (b"\r\n", b"", kept_alive(0)),
        (b"\r\n", b"\n", kept_alive(0).replace(b"\n", b"\r")),
        (b"\r", b"", kept_alive(0).replace(b"\n", b"\r")),
    ],
    ids=["LF", "CRLF", "CRLF, split", "CR"],
)
def test_a_keep_alive_stands_between_two_frames_whatever_their_line_ends_are(
    line_end: bytes, rest: bytes, said: bytes
) -> None:
    first, second = (one.replace(b"\n", line_end) for one in (CREATED, DELTA))
    encoder = for_codex()
    encoder.append_frames(first.removesuffix(rest), 1)
    encoder.heartbeat()
    encoder.append_frames(rest + second, 1)
    body = encoder.take()
    assert body == first.removesuffix(rest) + said + rest + second
    types = [json.loads(one.data)["type"] for one in SSEDecoder().iter_bytes(iter([body]))]
    assert types == ["response.created", "keepalive", "response.output_text.delta"]


def test_within_a_frame_a_comment_stands_in_place_of_the_event() -> None:
    encoder = for_codex()
    encoder.append_frames(DELTA[:-1], 1)
    encoder.heartbeat()
    assert encoder.take() == DELTA[:-1] + b": ping\n"


@pytest.mark.parametrize("number", [0, 1], ids=["takes no number", "takes one"])
def test_an_upstreams_own_keep_alive_is_passed_on_and_our_numbers_go_on(number: int) -> None:
    own = kept_alive(number)
    second = IN_PROGRESS.replace(b'"sequence_number":1', b'"sequence_number":%d' % (number + 1))
    body = relayed([CREATED + own + second])
    assert body.startswith(CREATED + own + second)
    assert [one["sequence_number"] for one in objects_of(body)][2:] == [number + 1, number + 2, number + 3]


def test_an_upstreams_keep_alive_before_its_first_event_is_not_that_event() -> None:
    body = relayed([kept_alive(0) + CREATED + IN_PROGRESS])
    assert [one["sequence_number"] for one in objects_of(body)] == [0, 0, 1, 2, 3]
