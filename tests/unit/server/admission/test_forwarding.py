"""The client's address, among those that proxies name."""

from __future__ import annotations

import pytest

from gai_fast.server.admission.forwarding import NO_TRUSTED_PROXY, Forwarding
from tests.limits import LIMITS

PROXY = "10.0.0.1"
BEHIND = Forwarding(("10.0.0.0/8", "2001:db8::/64", "unix:"))


def client(peer: str = PROXY, **headers: str) -> str:
    return BEHIND.client(peer, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9,10.0.0.3 , 10.0.0.2", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8:1::9]:4711", "2001:db8:1::9"),
        ("[2001:db8:1::9]", "2001:db8:1::9"),
        ("2001:db8:1::9", "2001:db8:1::9"),
        ("203.0.113.9, unknown", PROXY),
        ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.9,", PROXY),
        ('fe80::1%"evil', PROXY),
        ("127.1", PROXY),
        ("", PROXY),
        ("\n203.0.113.9 x", PROXY),
    ],
)
def test_the_first_address_from_the_end_that_is_no_proxys_is_the_clients(listed: str, expected: str) -> None:
    assert client(x_forwarded_for=listed) == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ('by=10.0.0.2;For="203.0.113.9:4711";proto=https', "203.0.113.9"),
        ('for="[2001:db8:1::9]:4711"', "2001:db8:1::9"),
        ("for=1.2.3.4, for=203.0.113.9;host=h, for=10.0.0.2", "203.0.113.9"),
        ("for=203.0.113.9, for=_hidden", PROXY),
        ("for=203.0.113.9, for=unknown", PROXY),
        ("for=203.0.113.9, proto=https", PROXY),
        ('for="1.2.3.4, for=203.0.113.9', "203.0.113.9"),
        ("before=1.2.3.4", PROXY),
        ('host="a;for=1.2.3.4;";for=203.0.113.9', "203.0.113.9"),
        ('for=203.0.113.9;host="a,for=1.2.3.4:80"', "203.0.113.9"),
        ('for=203.0.113.9;host="a\\",for=1.2.3.4;b=\\""', "203.0.113.9"),
        ('for=1.2.3.4;a=", for=203.0.113.9;host=";z="', "203.0.113.9"),
        ('for=1.2.3.4;a=", for=203.0.113.9;host="h"', "203.0.113.9"),
        ("for=1.2.3.4 , for=203.0.113.9 ; ;proto=https ", "203.0.113.9"),
        ("for=203.0.113.9, for=10.0.0.2,", PROXY),
        ("for=203.0.113.9, =", PROXY),
        (f"for=203.0.113.9;a={'b' * LIMITS.forwarded_text}", PROXY),
    ],
)
def test_forwarded_is_read_in_the_same_way(elements: str, expected: str) -> None:
    assert client(forwarded=elements) == expected


def test_two_headers_count_where_they_agree() -> None:
    """A proxy that writes one of them passes on the other as its client has made it up."""
    assert client(x_forwarded_for="203.0.113.9", forwarded="for=203.0.113.9") == "203.0.113.9"
    assert client(x_forwarded_for="203.0.113.9", forwarded="for=1.2.3.4") == PROXY


def test_nobody_else_is_believed() -> None:
    assert client("203.0.113.1", x_forwarded_for="1.2.3.4") == "203.0.113.1"
    assert NO_TRUSTED_PROXY.client("127.0.0.1", {"x-forwarded-for": "1.2.3.4"}) == "127.0.0.1"
    assert NO_TRUSTED_PROXY.client("", {"x-forwarded-for": "1.2.3.4"}) == ""
    assert not NO_TRUSTED_PROXY.trusts("127.0.0.1")


def test_a_unix_socket_is_a_proxy_where_it_is_named() -> None:
    assert client("", x_forwarded_for="203.0.113.9") == "203.0.113.9"
    assert Forwarding(("10.0.0.0/8",)).client("", {"x-forwarded-for": "203.0.113.9"}) == ""


def test_a_request_without_the_headers_is_the_proxys() -> None:
    assert client() == PROXY


def test_only_so_many_proxies_stand_in_a_row() -> None:
    hops = ["203.0.113.9", *["10.0.0.2"] * LIMITS.forwarded_hops]
    assert client(x_forwarded_for=",".join(hops)) == "10.0.0.2"
    assert client(x_forwarded_for=",".join(hops[:-1])) == "203.0.113.9"
