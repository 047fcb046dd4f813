"""`gai_fast/grpc/metadata.py`: what a call brings, as headers for the gateway."""

from __future__ import annotations

import pytest

from gai_fast.grpc.metadata import address_of_peer, gateway_headers
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.settings import Secret

PEER = "ipv4:192.0.2.7:5000"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (PEER, "192.0.2.7"),
        ("ipv6:[2001:db8::1]:5000", "2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("unix:/tmp/socket", ""),
        ("unix-abstract:a:1", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_client(peer: str, address: str) -> None:
    assert address_of_peer(peer) == address


def test_what_goes_on() -> None:
    brought = [("authorization", "Bearer a"), ("x-request-id", "mine"), ("user-agent", "grpc"), ("x-bin", b"\0")]
    assert gateway_headers(brought, PEER, Secret("own")) == {
        "authorization": "Bearer a",
        "x-request-id": "mine",
        "x-forwarded-for": "192.0.2.7",
    }


def test_the_servers_key_stands_for_a_missing_one() -> None:
    headers = gateway_headers(None, "unix:", Secret("own"))
    assert headers["authorization"] == "Bearer own"
    assert len(headers["x-request-id"]) == 36
    assert "x-forwarded-for" not in headers
    assert "authorization" not in gateway_headers([], PEER, None)
    assert gateway_headers([("authorization", "")], PEER, Secret("own"))["authorization"] == ""


def test_an_entry_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="authorization twice"):
        gateway_headers([("authorization", "Bearer a"), ("authorization", "Bearer b")], PEER, None)
    assert gateway_headers([("cookie", "a"), ("cookie", "b")], PEER, None)


@pytest.mark.parametrize("value", ["Bearer a\r\nx-admin: 1", "a\0b", "a\nb", "\x7f"])
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="control characters"):
        gateway_headers([("authorization", value)], PEER, None)
    assert gateway_headers([("cookie", value), ("x-request-id", value)], PEER, None)["x-request-id"] != value
