"""Passthrough of Anthropic's stream: the encoder of our own events, through the relay."""

from __future__ import annotations

import json

import anthropic
import pytest

from tests.unit.formats.messages_reader import (
    ANSWER,
    ANTHROPIC,
    BEGIN,
    CLOSE,
    COUNT,
    OPEN,
    OVERLOADED,
    PING,
    STOP,
    accumulated_by_sdk,
    delta,
    frame,
    objects_of,
    relayed,
)
from tests.unit.formats.relays import cut
from tests.unit.formats.streams import context


@pytest.mark.parametrize("size", [1, 2, 7, 64, len(ANSWER)])
def test_an_answer_is_byte_exact_however_it_is_cut(size: int) -> None:
    assert relayed(cut(ANSWER, size)) == ANSWER


def test_a_missing_message_stop_is_added() -> None:
    body = relayed([ANSWER.removesuffix(STOP)])
    assert body == ANSWER.removesuffix(STOP) + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_warnings_stand_on_one_ping_before_the_end() -> None:
    bad = b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": 0}\n\n'
    body = relayed([ANSWER.replace(CLOSE, bad + CLOSE + bad)])
    aside = b'event: ping\ndata: {"type":"ping","x_gai":{"warnings":[%b]}}\n\n' % b",".join(
        [b'{"reason":"malformed_chunk"}'] * 2
    )
    assert body == ANSWER.replace(STOP, aside + STOP)
    assert accumulated_by_sdk(body).stop_reason == "end_turn"


@pytest.mark.parametrize("end", range(1, len(ANSWER), 41))
def test_an_answer_cut_anywhere_ends_with_an_error_that_the_sdk_raises(end: int) -> None:
    body = relayed([ANSWER[:end]])
    if b'"usage": {"output_tokens": 9}}' in ANSWER[:end]:
        assert body.endswith(b'"message_stop"}\n\n')
        return
    last = body.removesuffix(b"\n\n").rpartition(b"\n\nevent: error\n")[2] or body
    assert json.loads(last.partition(b"data: ")[2])["error"]["details"] == {"error_code": "network"}
    with pytest.raises(anthropic.APIStatusError):
        accumulated_by_sdk(body)


def test_an_error_of_the_upstream_is_the_last_frame() -> None:
    assert relayed([BEGIN + OPEN + delta("Hi") + OVERLOADED + STOP]) == BEGIN + OPEN + delta("Hi") + OVERLOADED


def test_an_error_without_an_event_name_is_reported_again_since_sdks_ignore_it() -> None:
    nameless = OVERLOADED.replace(b"event: error\n", b"")
    body = relayed([BEGIN + OPEN + delta("Hi") + nameless])
    own = body.removeprefix(BEGIN + OPEN + delta("Hi") + nameless)
    assert own.startswith(b"event: error\n")
    assert json.loads(own.partition(b"data: ")[2])["error"]["message"] == "Overloaded"


def test_a_cancelled_answer_closes_the_block_that_is_open() -> None:
    head = BEGIN + OPEN + PING + delta("Hi")
    own = objects_of(relayed([head], cancel=True).removeprefix(head))
    assert [one["type"] for one in own] == ["content_block_stop", "message_delta", "message_stop"]
    assert own[0]["index"] == 0
    assert own[1]["x_gai"]["finish_reason"] == "cancelled"
    closed = objects_of(relayed([head + CLOSE], cancel=True).removeprefix(head + CLOSE))
    assert [one["type"] for one in closed] == ["message_delta", "message_stop"]


def test_an_answer_cancelled_before_its_start_begins_all_the_same() -> None:
    kinds = [one["type"] for one in objects_of(relayed([PING], cancel=True))]
    assert kinds == ["ping", "message_start", "message_delta", "message_stop"]


def test_an_answer_cancelled_behind_its_stop_reason_gets_no_second_one() -> None:
    body = relayed([ANSWER.removesuffix(STOP)], cancel=True)
    assert body == ANSWER.removesuffix(STOP) + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_a_block_of_the_upstream_is_reported_by_its_own_members_only() -> None:
    words = '{"type":"content_block_start","index":5}'
    tool = frame("content_block_start", index=3, content_block={"type": "tool_use", "id": "t", "name": words})
    own = objects_of(relayed([BEGIN + tool], cancel=True).removeprefix(BEGIN + tool))
    assert own[0] == {"type": "content_block_stop", "index": 3}


def test_an_answer_cancelled_before_its_first_frame_is_translated() -> None:
    kinds = [one["type"] for one in objects_of(relayed([], cancel=True))]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_a_whole_message_to_a_streamed_request_is_a_stream() -> None:
    answer = {"id": "m", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
    assert accumulated_by_sdk(relayed([json.dumps(answer).encode()])).content[0].text == "Hi"


def test_ndjson_and_streams_with_ids_are_translated() -> None:
    assert ANTHROPIC.passthrough("ndjson", context(), whole=False) is None
    assert ANTHROPIC.passthrough("sse", context(ids=True), whole=False) is None


def test_a_count_alone_is_no_end() -> None:
    assert relayed([BEGIN + OPEN + delta("Hi") + CLOSE + COUNT]).endswith(b'{"type":"message_stop"}\n\n')
