"""The messages of a client of a WebSocket of responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.turn_messages import Cancel, Create, Processed, read_turn


def read(text: str | bytes) -> Any:
    return read_turn(text.encode() if isinstance(text, str) else text)


def test_a_create_is_read_as_far_as_the_socket_needs() -> None:
    for members, continues in (
        ({}, ""),
        ({"previous_response_id": "resp_1"}, "resp_1"),
        ({"previous_response_id": None}, ""),
        ({"previous_response_id": 7}, ""),
        ({"previous_response_id": "x" * 5_000}, ""),
    ):
        data = json.dumps({"type": "response.create", "input": "é", **members}, ensure_ascii=False).encode()
        assert read(data) == Create(data, continues)
    escaped = b'{"type":"response\\u002ecreate"}'
    assert read(escaped) == Create(escaped, "")


@pytest.mark.parametrize(("member", "identifier"), [("", ""), (',"response_id":null', ""), (',"response_id":"r"', "r")])
def test_a_cancel_names_a_response_or_none(member: str, identifier: str) -> None:
    assert read('{"type":"response.cancel"' + member + "}") == Cancel(identifier)


def test_what_codex_has_processed_is_known() -> None:
    assert read('{"type":"response.processed","response_id":"r"}') == Processed()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "json"),
        ("{", "json"),
        ("nonsense", "json"),
        ("[]", "validation"),
        ("7", "validation"),
        ("{}", "validation"),
        ('{"type":7}', "validation"),
        ('{"type":"response.steer"}', "validation"),
        ('{"type":"' + "x" * 5_000 + '"}', "validation"),
        ('{"type":"response.cancel","response_id":7}', "validation"),
        ('{"type":"response.create","input":' + "[" * 100_000 + "]" * 100_000 + "}", "depth"),
    ],
)
def test_anything_else_is_an_error(text: str, reason: str) -> None:
    error = read(text)
    assert isinstance(error, Error)
    assert (error.code, error.status, error.reason) == ("invalid_request", 400, reason)


def test_bytes_that_are_no_text_close_the_socket() -> None:
    violation = read(b'{"type":"response.create\xff"}')
    assert isinstance(violation, Violation)
    assert violation.code == 1007
