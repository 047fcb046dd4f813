"""Frames of a client that aiohttp would let pass are refused, however they are cut."""

from __future__ import annotations

import pytest

from gai_fast.server.websocket.frame_guard import FrameGuard, Violation
from tests.integration.websocket import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame
from tests.limits import LIMITS

LEGAL = (
    frame("a")
    + frame("b" * 125)
    + frame("c" * 126)
    + frame("d" * 70_000)
    + frame("e", final=False)
    + frame("", PING)
    + frame("f", CONTINUATION)
    + frame("")
)


def feed(data: bytes, size: int, now: float = 0.0) -> Violation | None:
    guard = FrameGuard()
    for at in range(0, len(data), size):
        problem = guard.feed(data[at : at + size], now)
        if problem is not None:
            return problem
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 1_000_000])
def test_legal_frames_pass(size: int) -> None:
    assert feed(LEGAL, size) is None


def test_a_message_that_is_not_whole_has_a_number() -> None:
    guard = FrameGuard()
    first, second = frame("one"), frame("t", final=False) + frame("", PING) + frame("wo", CONTINUATION)
    numbers = []
    for octet in first + second + frame("", PING):
        guard.feed(bytes((octet,)), 0.0)
        numbers.append(guard.message)
    head, ping = 2, len(frame("", PING))
    assert numbers[: len(first)] == [*[0] * (head - 1), *[1] * (len(first) - head), 0]
    assert numbers[len(first) :] == [*[0] * (head - 1), *[2] * (len(second) - head), 0, *[0] * ping]


def test_the_bytes_of_a_message_that_is_not_whole_are_known() -> None:
    guard = FrameGuard()
    begin, end = frame("x" * 100_000, final=False), frame("y" * 50_000, CONTINUATION)
    received = []
    for data in (begin[:60_000], begin[60_000:], frame("z" * 100, PING), end[:20_000], end[20_000:], frame("next")):
        assert guard.feed(data, 0.0) is None
        received.append(guard.received)
    head, short_head = 14, 8
    assert received == [60_000 - head, 100_000, 100_000, 120_000 - short_head, 0, 0]


@pytest.mark.parametrize("text", ["", "x", "é" * 60, "y" * 125, "y" * 126, "z" * 65_535])
def test_bytes_that_are_one_whole_message_of_text_are_taken(text: str) -> None:
    guard = FrameGuard()
    assert guard.take_text(frame(text)) == text.encode()
    assert guard.message == 0
    assert guard.feed(frame("next")[:-1], 0.0) is None
    assert guard.message == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame("x")[:1],
        frame("x")[:-1],
        frame("x") + b"\x81",
        frame("x", masked=False),
        frame("x" * 4, masked=False),
        frame("y" * 200)[:-1],
        frame("z" * 65_536),
        frame("z" * 65_536)[: 6 + 127],
        frame("x", final=False),
        frame("x", PING),
        frame("x", BINARY),
        frame("x", CLOSE),
        b"\xc1" + frame("x")[1:],
        b"\x91" + frame("x")[1:],
    ],
)
def test_all_other_bytes_are_not_taken_and_leave_no_trace(data: bytes) -> None:
    guard, other = FrameGuard(), FrameGuard()
    assert guard.take_text(data) is None
    assert (guard.feed(data, 0.0), guard.message) == (other.feed(data, 0.0), other.message)


@pytest.mark.parametrize("begun", [b"\x81", frame("x")[:3], frame("x", final=False), frame("abcdef", PING)[:-3]])
def test_behind_a_frame_that_is_not_whole_nothing_is_taken(begun: bytes) -> None:
    guard = FrameGuard()
    assert guard.feed(begun, 0.0) is None
    assert guard.take_text(frame("x")) is None


@pytest.mark.parametrize("size", [1, 5, 1_000_000])
@pytest.mark.parametrize("payload", ["", "x", "y" * 126, "z" * 70_000])
def test_a_frame_must_be_masked(size: int, payload: str) -> None:
    problem = feed(LEGAL + frame(payload, masked=False), size)
    assert problem == Violation(1002, "a frame is not masked")


def test_a_message_has_no_more_frames_than_the_limit() -> None:
    most = frame("", final=False) + frame("", CONTINUATION, final=False) * (LIMITS.socket_frames - 2)
    assert feed((most + frame("", CONTINUATION)) * 2, 1000) is None
    problem = feed(most + frame("", CONTINUATION, final=False) * 2, 1000)
    assert problem is not None
    assert problem.code == 1009


def test_control_frames_are_counted_in_a_window_of_time() -> None:
    guard, pings = FrameGuard(), frame("", PING) * LIMITS.socket_control
    assert guard.feed(pings, 0.0) is None
    assert guard.feed(pings, LIMITS.socket_control_window) is None
    problem = guard.feed(frame("", PING), LIMITS.socket_control_window)
    assert problem is not None
    assert problem.code == 1008


def head_of(size: int, opcode: int = CONTINUATION) -> bytes:
    """Returns the head of a frame of so many bytes, all of which are to come."""
    return bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_a_message_has_no_more_bytes_than_the_limit(size: int) -> None:
    begun = frame("x" * 200, final=False) + frame("", PING)
    assert feed(head_of(LIMITS.socket_message, TEXT), size) is None
    assert feed(begun + head_of(LIMITS.socket_message - 200), size) is None
    for data in (head_of(LIMITS.socket_message + 1, TEXT), begun + head_of(LIMITS.socket_message - 199)):
        problem = feed(data, size)
        assert problem is not None
        assert problem.code == 1009


def test_each_message_is_counted_alone() -> None:
    assert feed(frame("x" * (LIMITS.socket_message // 2 + 1)) * 2, 1_000_000) is None


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_behind_a_violation_the_close_of_the_client_is_found(size: int) -> None:
    guard = FrameGuard()
    rest = frame("y" * 300, masked=False) + frame("\x88" * 9, PING) + frame("z", final=False)
    assert guard.feed(frame("x", masked=False) + rest[:5], 0.0) is not None
    found = [guard.has_closed(rest[at : at + size]) for at in range(5, len(rest), size)]
    assert not any(found)
    assert guard.has_closed(frame((1009).to_bytes(2, "big"), CLOSE))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000_000])
@pytest.mark.parametrize("reason", ["", "bye", "x" * 123])
def test_a_close_has_a_code_that_an_endpoint_may_send(size: int, reason: str) -> None:
    for code in (999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000, 65535):
        problem = feed(frame(code.to_bytes(2, "big") + reason.encode(), CLOSE) + frame("a"), size)
        is_valid = code in (1000, 1003, 1007, 1014, 3000, 4999)
        assert (problem is None) is is_valid, code
        if problem is not None:
            assert problem.code == 1002


def test_a_close_without_a_code_passes_and_is_known() -> None:
    guard = FrameGuard()
    assert guard.feed(frame("", PING), 0.0) is None
    assert not guard.has_close
    assert guard.feed(frame("", CLOSE), 0.0) is None
    assert guard.has_close
