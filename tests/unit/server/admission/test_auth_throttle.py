"""Wrong keys: an address may send so many within a minute, and what becomes of it then."""

from __future__ import annotations

import logging

import pytest

from gai_fast.model.addresses import client_network
from gai_fast.model.errors import Error
from gai_fast.server.admission.auth_throttle import AuthThrottle
from tests.limits import LIMITS

MOST, MINUTE = LIMITS.wrong_keys, LIMITS.wrong_keys_time
HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def blocked(auth_throttle: AuthThrottle, address: str = HERE, count: int = MOST) -> AuthThrottle:
    for _ in range(count):
        auth_throttle.note_wrong(address)
    return auth_throttle


def test_so_many_wrong_keys_are_counted_and_the_next_is_refused_until_the_minute_is_over() -> None:
    clock = Clock()
    auth_throttle = blocked(AuthThrottle(clock))
    clock.now += 20.5
    for _ in range(3):
        with pytest.raises(Error, match="sent 100 wrong keys within a minute") as caught:
            auth_throttle.note_wrong(HERE)
    assert (caught.value.code, caught.value.reason) == ("rate_limited", "wrong_keys")
    assert caught.value.retry_after_ms == 39_501
    clock.now += MINUTE - 20.5
    blocked(auth_throttle)
    with pytest.raises(Error):
        auth_throttle.note_wrong(HERE)


def test_the_minute_begins_with_the_first_wrong_key_and_other_addresses_have_their_own() -> None:
    clock = Clock()
    auth_throttle = blocked(AuthThrottle(clock), count=MOST - 1)
    clock.now += MINUTE
    blocked(auth_throttle)
    blocked(auth_throttle, THERE)
    blocked(auth_throttle, "")


def test_a_blocked_address_is_let_in_with_no_key_but_those_that_it_has_come_with() -> None:
    clock = Clock()
    auth_throttle = AuthThrottle(clock)
    auth_throttle.note_right(HERE, "alice")
    blocked(auth_throttle)
    auth_throttle.note_right(HERE, "alice")
    for _ in range(2):
        with pytest.raises(Error) as caught:
            auth_throttle.note_right(HERE, "bob")
        assert (caught.value.status, caught.value.reason) == (429, "wrong_keys")
    auth_throttle.note_right(THERE, "bob")
    clock.now += MINUTE
    auth_throttle.note_right(HERE, "bob")


def test_right_keys_before_the_last_wrong_one_are_let_in() -> None:
    auth_throttle = blocked(AuthThrottle(Clock()), count=MOST - 1)
    auth_throttle.note_right(HERE, "alice")
    auth_throttle.note_wrong(HERE)
    auth_throttle.note_right(HERE, "alice")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, counted: str) -> None:
    assert client_network(address) == counted


def test_a_host_that_changes_its_ipv6_address_is_blocked_all_the_same() -> None:
    auth_throttle = AuthThrottle(Clock())
    for number in range(MOST):
        auth_throttle.note_wrong(f"2001:db8::{number:x}")
    with pytest.raises(Error):
        auth_throttle.note_wrong("2001:db8::ffff")
    auth_throttle.note_wrong("2001:db8:0:1::")


def test_what_other_workers_have_counted_counts_too_and_is_not_reported_again() -> None:
    auth_throttle, seen = AuthThrottle(Clock()), []
    auth_throttle.report = seen.append
    blocked(auth_throttle, count=2)
    auth_throttle.note_others(HERE, MOST - 2)
    for _ in range(2):
        with pytest.raises(Error):
            auth_throttle.note_wrong(HERE)
    assert seen == [HERE, HERE]


def test_the_log_has_one_line_for_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    auth_throttle = AuthThrottle(clock)
    for _ in range(2):
        blocked(auth_throttle)
        auth_throttle.note_others(HERE, 50)
        clock.now += MINUTE
    with caplog.at_level(logging.WARNING, "gai_fast.server"):
        blocked(auth_throttle, "")
    assert [record.getMessage() for record in caplog.records] == [
        *[f"{HERE} has sent {MOST} wrong keys within a minute: it is blocked"] * 2,
        f"unix: has sent {MOST} wrong keys within a minute: it is blocked",
    ]


def test_memory_is_bounded_and_the_address_that_was_silent_longest_is_forgotten() -> None:
    auth_throttle = AuthThrottle(Clock())
    blocked(auth_throttle, THERE, MOST - 1)
    blocked(auth_throttle, HERE)
    auth_throttle.note_wrong(THERE)
    for number in range(LIMITS.tracked_addresses - 1):
        auth_throttle.note_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    with pytest.raises(Error):
        auth_throttle.note_wrong(THERE)
    blocked(auth_throttle, HERE)
    assert len(auth_throttle._tallies) == LIMITS.tracked_addresses
    for number in range(LIMITS.known_callers + 10):
        auth_throttle.note_right(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "alice")
    assert len(auth_throttle._admitted) == LIMITS.known_callers
