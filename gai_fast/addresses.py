"""Addresses as people write them, read as the operating system reads them.

Owns the one answer to "does this host mean this machine only?": whether a server may be open without a key, the `Host`
rule and the origins of a demo's pages all depend on it, and must never disagree.
"""

from __future__ import annotations

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> Address | None:
    """The address that a host is, or `None` where it is a name.

    Reads every notation that `getaddrinfo` reads: IPv6 with a zone, and IPv4 as one to four numbers, each decimal,
    octal or hexadecimal (`127.1`, `2130706433`, `0x7f.1`). An IPv6 address that holds an IPv4 address is that address.

    Args:
        host: A name or an address, without brackets and port.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _legacy_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def _legacy_address(host: str) -> Address | None:
    if not host.isascii() or not host.isprintable() or " " in host:
        return None  # inet_aton ignores everything after a blank; getaddrinfo does not
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine only, as a host to bind to and as a `Host` header.

    `localhost` and the names below it do (RFC 6761, 6.3).

    Args:
        host: A name or an address, without brackets and port.
    """
    address = address_of(host)
    if address is not None:
        return address.is_loopback
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")
