"""The bytes that may be sent beyond the last event that a client has acknowledged."""

from __future__ import annotations

from gai_fast.server.websocket.ack_window import AckWindow
from tests.limits import LIMITS


def test_without_an_acknowledgement_nothing_is_bounded() -> None:
    window = AckWindow(100)
    for seq in range(1, 1000):
        assert window.may_send(seq, 100)
        window.note_sent(seq, 100)
    assert not window.is_full
    assert len(window._marks) <= LIMITS.ack_marks


def test_what_was_sent_before_the_first_acknowledgement_counts() -> None:
    window = AckWindow(100)
    for seq in range(1, 7):
        window.note_sent(seq, 30)
    assert window.acknowledge(1)
    assert window.is_full
    assert window.acknowledge(3)
    assert window.may_send(7, 10)
    assert not window.may_send(7, 11)
    assert not window.acknowledge(2)
    assert window.acknowledge(6)
    assert window.is_empty
    assert window.may_send(7, 100)
    assert not window.may_send(7, 101)


def test_nothing_acknowledged_is_an_acknowledgement_too() -> None:
    window = AckWindow(100)
    assert not window.acknowledge(0)
    assert window.is_used
    assert window.is_empty
    assert not window.may_send(1, 101)


def test_events_that_are_acknowledged_before_they_are_sent_fill_nothing() -> None:
    window = AckWindow(100)
    window.acknowledge(5)
    for seq in range(1, 6):
        assert window.may_send(seq, 1000)
        window.note_sent(seq, 1000)
    assert window.is_empty
    assert not window.may_send(6, 101)


def test_a_forgotten_place_counts_as_the_one_before_it() -> None:
    window, size = AckWindow(10_000), 10
    for seq in range(1, LIMITS.ack_marks + 2):
        window.note_sent(seq, size)
    kept = {seq for seq, _ in window._marks}
    assert LIMITS.ack_marks + 1 in kept
    forgotten = next(seq for seq in range(10, 100) if seq not in kept)
    window.acknowledge(forgotten)
    assert window._acked == max(seq for seq in kept if seq < forgotten) * size
    window.acknowledge(LIMITS.ack_marks + 1)
    assert window.is_empty
