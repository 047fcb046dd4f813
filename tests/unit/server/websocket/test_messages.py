"""The messages of a WebSocket's client, and what closes the socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.messages import Message, lead_of, read_message, read_plain
from tests.limits import LIMITS


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def test_the_five_messages_are_read() -> None:
    assert read_message(b'{"type":"ping"}') == Message("ping")
    assert read_message(b'{"stream":"s","type":"cancel","more":1}') == Message("cancel", "s")
    assert read_message(b'{"stream":"s","type":"ack","seq":7}') == Message("ack", "s", seq=7)
    assert read_message(b'{"stream":"s","type":"resume","after":"x.1"}') == Message("resume", "s", after="x.1")
    message = read_message(b'{"stream":"s","type":"request","request":{"query":1e400}}')
    assert isinstance(message, Message)
    assert bytes(message.request or b"") == b'{"query":1e400}'


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", 1007, "ends too early"),
        (b"{", 1007, "ends too early"),
        (b"\xff", 1007, "not UTF-8"),
        (b"nope", 1007, "not JSON"),
        (b"1", 1008, "Expected `object`"),
        (b"{}", 1008, "type"),
        (b'{"type":"x"}', 1008, "must be one of request, resume, cancel, ack, ping"),
        (b'{"type":"ack","stream":"s"}', 1008, "needs `seq`"),
        (b'{"type":"ack","stream":"s","seq":9007199254740992}', 1008, "`seq` is no number"),
        (b'{"type":"request","stream":"s"}', 1008, "needs `request`"),
        (b'{"type":"cancel"}', 1008, "needs `stream`"),
        (b'{"type":"cancel","stream":null}', 1008, "stream"),
        (json.dumps({"type": "cancel", "stream": "x" * 129}).encode(), 1008, "longer than"),
        (f'{{"type":"ping","x":{nested(LIMITS.json_depth + 1)}}}'.encode(), 1008, "nested deeper"),
    ],
)
def test_what_is_no_message_is_a_reason_to_close(data: bytes, code: int, words: str) -> None:
    problem = read_message(data)
    assert isinstance(problem, Violation)
    assert problem.code == code
    assert words in problem.reason
    assert len(problem.reason) <= 3 * LIMITS.close_reason


def test_a_request_may_be_nested_as_deep_as_one_over_http() -> None:
    body = nested(LIMITS.json_depth)
    message = read_message(f'{{"stream":"s","type":"request","request":{body}}}'.encode())
    assert isinstance(message, Message)
    assert bytes(message.request or b"") == body.encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"query":"x"}', Message("request", request=Raw(b'{"query":"x"}'))),
        (b'{"type":"ping"}', Message("ping")),
        (b'{"type":"pong"}', Message("request", request=Raw(b'{"type":"pong"}'))),
    ],
)
def test_without_a_subprotocol_a_message_is_a_request(data: bytes, expected: Any) -> None:
    assert read_plain(data) == expected


def test_without_a_subprotocol_too_it_must_be_an_object() -> None:
    for data, code in ((b"nope", 1007), (b"[]", 1008), (nested(LIMITS.json_depth + 1).encode(), 1008)):
        problem = read_plain(data)
        assert isinstance(problem, Violation)
        assert problem.code == code


def test_a_message_begins_with_the_stream_as_json() -> None:
    assert lead_of('a "b" é') == '{"stream":"a \\"b\\" é",'.encode()
