"""Frames of Responses answers as messages, whatever form of SSE they have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.server.websocket.turn_events import TurnEvents, error_message, events_in
from tests.unit.formats.responses_reader import frame
from tests.unit.kernels._pure.test_messages import messages

OURS = "resp_ours"
CREATED = frame("response.created", 0, response={"tools": [{"id": "t"}], "id": "resp_1"})
DELTA = frame("response.output_text.delta", 1, delta="a")
COMPLETED = frame("response.completed", 2, response={"id": "resp_1"})
FAILED = frame("response.failed", 3, response={"id": "resp_1"})
ERROR = frame("error", 2, code="server_error", message="no", param=None)


def read(data: bytes) -> list[Any]:
    return [json.loads(each) for each in messages(data)]


def kinds(data: bytes) -> list[str]:
    return [each["type"] for each in read(data)]


def test_events_are_messages_and_the_id_is_known() -> None:
    events = TurnEvents()
    events.find_identifier(CREATED + DELTA, OURS)
    assert kinds(events.take(CREATED + DELTA)) == ["response.created", "response.output_text.delta"]
    assert events.identifier == "resp_1"
    assert kinds(events.take_copied(DELTA * 3)) == ["response.output_text.delta"] * 3
    assert kinds(events.take(COMPLETED)) == ["response.completed"]
    assert not events.has_failed
    assert events.rest() == b""


def test_the_id_is_the_upstreams_wherever_it_stands() -> None:
    events = TurnEvents()
    events.find_identifier(b": hello\n\n", OURS)
    assert events.identifier == ""
    frames = b'data: {"response":{"error":null,"id":"theirs"},"type":"response.created"}\r\n\r\n'
    events.find_identifier(frames, OURS)
    assert events.identifier == "theirs"


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (b'data: {"a":1}\n\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
        (b'data:{"a":1}\r\n\r\nevent: x\r\ndata:  {"b":2} \r\n\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'data: {"a":1}\r\rdata: {"b":2}\r\r', [b'{"a":1}', b'{"b":2}']),
        (b'data: {"a":\ndata: 1}\n\n', [b'{"a": 1}']),
        (b'data: {"a":1}\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
        (b'data: {"a":1}\nevent: y\ndata: {"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbfdata: {"a":1}', [b'{"a":1}']),
        (b": ping\n\nid: 7\nretry: 1\n\ndata: [DONE]\n\ndata: null\n\ndata\n\n", []),
        (b"", []),
    ],
)
def test_any_form_of_server_sent_events_is_read(frames: bytes, found: list[bytes]) -> None:
    assert [*events_in(frames)] == found
    assert read(TurnEvents().take_copied(frames)) == [json.loads(each) for each in found]


def test_ids_of_events_are_not_in_messages() -> None:
    assert read(TurnEvents().take(b"id: s.1\n" + DELTA)) == [json.loads(DELTA.partition(b"data: ")[2])]


def test_the_gateways_own_id_is_found_without_a_parser() -> None:
    events = TurnEvents()
    events.find_identifier(CREATED.replace(b"\n\n", b""), "resp_1")
    assert events.identifier == "resp_1"
    other = TurnEvents()
    other.find_identifier(CREATED, "resp_2")
    assert other.identifier == "resp_1"


@pytest.mark.parametrize("frames", [[DELTA, ERROR + FAILED], [DELTA, ERROR, FAILED], [DELTA, FAILED, ERROR]])
def test_an_error_beside_a_failure_is_not_sent(frames: list[bytes]) -> None:
    events = TurnEvents()
    sent = [kind for each in frames for kind in kinds(events.take(each))]
    assert sent == ["response.output_text.delta", "response.failed"]
    assert events.rest() == b""
    assert events.has_failed


def test_an_error_that_nothing_follows_is_the_sockets_error() -> None:
    events = TurnEvents()
    assert events.take(DELTA + ERROR) != b""
    [message] = read(events.rest())
    error = {"type": "server_error", "code": "server_error", "message": "no", "param": None}
    assert message == {"type": "error", "status": 500, "error": error}
    assert events.rest() == b""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {"error": {"type": "t", "code": "c", "message": "m", "param": "p", "more": 1}},
            {"type": "t", "code": "c", "message": "m", "param": "p"},
        ),
        (
            {"error": {"type": None, "code": None, "message": "m", "param": 7}},
            {"type": "server_error", "code": "ours", "message": "m", "param": None},
        ),
        ({"error": {"code": 429}}, {"code": "429"}),
        ({"error": "text"}, {"code": "ours"}),
        ([], {"code": "ours", "type": "server_error"}),
    ],
)
def test_an_error_has_four_members_and_its_code_is_a_text(body: Any, error: dict[str, Any]) -> None:
    [message] = read(error_message(json.dumps(body).encode(), 418, "ours"))
    assert (message["type"], message["status"]) == ("error", 418)
    assert list(message["error"]) == ["type", "code", "message", "param"]
    assert error.items() <= message["error"].items()
    assert isinstance(message["error"]["message"], str)


def test_what_is_not_json_is_an_error_too() -> None:
    assert read(error_message(b"<html>", 502, "internal"))[0]["error"]["code"] == "internal"


def test_the_work_is_linear() -> None:
    """Each line is looked at a bounded number of times: a long event of many lines takes one join."""
    many = b'data: {"type":"x",\n' + b'data: "a":1,\n' * 50_000 + b'data: "b":2}\n\n'
    [data] = events_in(many)
    assert json.loads(data)["b"] == 2
