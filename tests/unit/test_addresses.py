"""Addresses in every notation that the operating system reads."""

from __future__ import annotations

import socket

import pytest

from gai_fast.addresses import address_of, is_loopback

LOOPBACK = (
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "A.LocalHost."),
    *("127.0.0.1", "127.1.2.3", "127.1", "127.0.1", "2130706433", "0x7f.1", "017700000001", "0x7f000001"),
    *("::1", "0:0:0:0:0:0:0:1", "::1%lo", "::ffff:127.0.0.1", "::FFFF:7f00:1"),
)
OTHERS = (
    *("", ".", "example", "localhost.example", "notlocalhost", "127.0.0.1.example", "127.0.0.1 x", "127.0.0.1\t"),
    *("0.0.0.0", "0", "1", "10.0.0.1", "128.0.0.1", "::", "::2", "::ffff:10.0.0.1", "127.0.0.256", "é", "１27.1"),
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_every_notation_of_this_machine_is_loopback(host: str) -> None:
    """Defect A19: `127.1` and its like switched the `Host` rule off."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", OTHERS)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", [host for host in LOOPBACK + OTHERS if address_of(host) is not None and "%" not in host]
)
def test_an_address_is_read_as_the_resolver_reads_it(host: str) -> None:
    flags = socket.AI_NUMERICHOST
    found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=flags)[0][4][0]
    assert str(address_of(host)) == str(found).partition("%")[0].removeprefix("::ffff:")


@pytest.mark.parametrize("host", ["localhost", "example", "127.0.0.1 x", "127.0.0.1\n", "", "1.2.3.4.5", "é"])
def test_a_name_is_no_address(host: str) -> None:
    assert address_of(host) is None
