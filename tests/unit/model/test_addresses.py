"""Addresses in every notation that the operating system reads."""

from __future__ import annotations

import socket

import pytest

from gai_fast.model.addresses import (
    UNIX,
    Networks,
    address_of,
    is_forbidden_address,
    is_forbidden_host,
    is_local,
    is_loopback,
)

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


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("fe80::1", True),
        ("fe80::1%1", True),
        ("febf::1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("fd12::1", False),
        ("::ffff:10.0.0.1", False),
        ("104.18.7.192", False),
        ("2606:4700::1", False),
    ],
)
def test_link_local_and_metadata_addresses_are_forbidden_and_private_ones_are_not(
    address: str, forbidden: bool
) -> None:
    assert is_forbidden_address(address) is forbidden


@pytest.mark.parametrize(
    ("host", "forbidden"),
    [
        ("metadata.google.internal", True),
        ("metadata.goog", True),
        ("Metadata.Google.Internal.", True),
        ("metadata", True),
        ("instance-data.ec2.internal", True),
        ("169.254.169.254", True),
        ("0xa9fea9fe", True),
        ("::ffff:169.254.169.254", True),
        ("metadata.example.com", False),
        ("10.0.0.1", False),
        ("api.openai.com", False),
    ],
)
def test_a_metadata_service_is_known_by_its_name_too(host: str, forbidden: bool) -> None:
    assert is_forbidden_host(host) is forbidden


@pytest.mark.parametrize("name", [("127.0.0.1", 1), ("::1", 1, 0, 0), "/run/gai.sock", "", b"\0abstract"])
def test_a_socket_of_this_machine_is_on_loopback_or_has_a_path(name: object) -> None:
    assert is_local(name)


@pytest.mark.parametrize("name", [("0.0.0.0", 1), ("10.0.0.1", 1), ("::", 1, 0, 0)])
def test_any_other_socket_is_not_of_this_machine_alone(name: object) -> None:
    assert not is_local(name)


def test_networks_hold_addresses_in_any_notation() -> None:
    networks = Networks(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
    for host in ("10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::7", "2001:DB8::7"):
        assert networks.has(host)
    for host in ("11.0.0.1", "192.0.2.2", "2001:db9::1", "", "example"):
        assert not networks.has(host)
    assert Networks([UNIX]).has("")
    assert not Networks([UNIX]).has("127.0.0.1")
    assert (bool(networks), bool(Networks([UNIX])), bool(Networks([]))) == (True, True, False)


def test_a_network_of_mapped_addresses_is_that_of_what_they_hold() -> None:
    networks = Networks(["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"])
    for host in ("10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1"):
        assert networks.has(host)
    for host in ("11.0.0.1", "192.0.2.2", "2001:db8::1"):
        assert not networks.has(host)


@pytest.mark.parametrize("name", ["", "example", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Networks([name])
