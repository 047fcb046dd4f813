"""`gai_fast/net/tools/rpc.py`: what is a message, and what a server's texts may show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.net.tools.rpc import (
    Notice,
    ServerQuestion,
    ServerReply,
    ToolServerError,
    answer_bytes,
    depth_of,
    error_of,
    notice_bytes,
    read_messages,
    readable,
    request_bytes,
)
from tests.limits import LIMITS


def nested(depth: int) -> bytes:
    return b'{"id":1,"result":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('{"jsonrpc":"2.0","id":1,"result":{"a":1}}', [ServerReply(1, {"a": 1}, None)]),
        ('{"id":1,"error":{"code":-1,"message":"no"}}', [ServerReply(1, None, {"code": -1, "message": "no"})]),
        ('{"id":null,"error":{"code":-32700}}', [ServerReply(None, None, {"code": -32700})]),
        ('{"id":"1","result":{}}', [ServerReply(None, {}, None)]),
        ('{"id":true,"result":{}}', [ServerReply(None, {}, None)]),
        ('{"method":"notifications/x"}', [Notice("notifications/x", {})]),
        ('{"method":"notifications/x","params":[1]}', [Notice("notifications/x", {})]),
        ('{"id":"a","method":"ping"}', [ServerQuestion("a", "ping")]),
        ('[{"method":"x"},{"id":2,"result":{}}]', [Notice("x", {}), ServerReply(2, {}, None)]),
        ('{"id":1,"result":{"a":"\\uD83d\\uDE00 \\uDbff!"}}', [ServerReply(1, {"a": "\U0001f600 \ufffd!"}, None)]),
    ],
)
def test_a_message_is_read(text: str, messages: list[Any]) -> None:
    assert read_messages(text.encode()) == messages


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it sends what is not JSON"),
        (b"<html>", "it sends what is not JSON"),
        (b'{"id":1,"result":{}}{}', "it sends what is not JSON"),
        (b'{"id":1,"result":"\xff"}', "it sends what is not JSON"),
        (b'{"id":1,"result":{"a":NaN}}', "it sends what is not JSON"),
        (b'{"id":1,"result":{"a":"\\ud800","b":NaN}}', "it sends what is not JSON"),
        (b'{"id":1,"result":{"a":"\\ud800","b":1e999}}', "it sends what is not JSON"),
        (b'{"id":1,"result":{"a":"\\ud800"}', "it sends what is not JSON"),
        (b'{"id":1,"result":{"a":"\\ud800\xff"}}', "it sends what is not JSON"),
        (b"[" * 100_000, "it sends JSON that is nested too deep"),
        (nested(LIMITS.message_depth), "it sends JSON that is nested too deep"),
        (b"[" + b"1," * 3_000_000 + b"1]", "it sends JSON that is too large"),
        *[
            (text, "it sends JSON that is no message of JSON-RPC 2.0")
            for text in (
                b"1",
                b"[1]",
                b"{}",
                b'{"id":1}',
                b'{"id":1,"result":{},"error":{}}',
                b'{"id":1,"result":[]}',
                b'{"id":1,"error":"x"}',
                b'{"id":1.5,"method":"ping"}',
            )
        ],
    ],
    ids=range(20),
)
def test_anything_else_is_refused_without_a_word_of_it(data: bytes, text: str) -> None:
    with pytest.raises(ToolServerError) as raised:
        read_messages(data)
    assert (str(raised.value), raised.value.fault) == (text, "form")


def test_the_deepest_message_is_read() -> None:
    assert read_messages(nested(LIMITS.message_depth - 1))


def test_what_is_written_is_one_line() -> None:
    written = [
        request_bytes(7, "tools/call", {"a": "b\nc"}),
        notice_bytes("notifications/initialized", {}),
        notice_bytes("notifications/cancelled", {"requestId": 7}),
        answer_bytes(ServerQuestion("a", "ping")),
        answer_bytes(ServerQuestion(3, "roots/list")),
    ]
    assert not any(b"\n" in each for each in written)
    assert [json.loads(each) for each in written] == [
        {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"a": "b\nc"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}},
        {"jsonrpc": "2.0", "id": "a", "result": {}},
        {"jsonrpc": "2.0", "id": 3, "error": {"code": -32601, "message": "Method not found"}},
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"code": -32602, "message": "Unknown tool: x"}, "it answers: Unknown tool: x (code -32602)"),
        ({"code": -32602}, "it answers: an error without a message (code -32602)"),
        ({"message": "no"}, "it answers: the error 'no'"),
        ({"code": "x", "message": 1}, "it answers: an error without a message"),
        ({"code": 1, "message": "Bearer sk-canary-1 is bad"}, "it answers: Bearer *** is bad (code 1)"),
    ],
)
def test_an_error_is_shown_with_its_code(error: dict[str, Any], text: str) -> None:
    problem = error_of(ServerReply(1, None, error), [b"sk-canary-1"])
    assert (str(problem), problem.fault, problem.may_have_run) == (text, "refused", False)


def test_a_text_of_a_server_is_one_short_line() -> None:
    assert readable("a\x1b[2Jb\n\n c") == "a [2Jb c"
    assert len(readable("x" * 9999)) == LIMITS.tool_problem
    assert readable("x" + " " * 4 * LIMITS.tool_problem + "y") == "x"  # the rest is not looked at
    assert readable("key sk-ab, key sk-a", [b"sk-a", b"sk-ab"]) == "key ***, key ***"


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ({}, 1), ([{"a": [1]}, 2], 3)])
def test_depth_is_counted(value: Any, depth: int) -> None:
    assert depth_of(value) == depth


def test_a_batch_has_a_bounded_number_of_messages() -> None:
    one = '{"method":"m"}'
    assert len(read_messages(f"[{','.join([one] * LIMITS.message_batch)}]".encode())) == LIMITS.message_batch
    with pytest.raises(ToolServerError, match="limit message_batch"):
        read_messages(f"[{','.join([one] * (LIMITS.message_batch + 1))}]".encode())
