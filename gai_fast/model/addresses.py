"""Addresses as people write them, parsed as the operating system parses them.

Owns the only test for loopback hosts: the rule for servers without a key, the `Host` rule and the origins of a demo's
pages all use it, and must never disagree. For the addresses of sockets, unix sockets count as loopback. Also owns the
hosts that are forbidden for upstreams, and the test whether a network contains an address.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from gai_fast.model.limits import SHARED

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix:"
"""Stands for all unix sockets in a list of networks, as in nginx's `set_real_ip_from`."""


def address_of(host: str) -> Address | None:
    """Parses a host as an address; returns None if it is a name.

    Accepts every notation that `getaddrinfo` accepts: IPv6 with a zone, and IPv4 as one to four numbers, each decimal,
    octal or hexadecimal (`127.1`, `2130706433`, `0x7f.1`). An IPv4-mapped IPv6 address is returned as its IPv4 address.

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
    """Returns whether a name or address is loopback, as a host to bind to and as a `Host` header.

    `localhost` and its subdomains are (RFC 6761, 6.3).

    Args:
        host: A name or an address, without brackets and port.
    """
    address = address_of(host)
    if address is not None:
        return address.is_loopback
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def client_network(address: str) -> str:
    """Returns what is counted as one client: its address, or its network if the address is IPv6.

    Args:
        address: A socket's address, or another name for the client; empty if there is none.
    """
    found = address_of(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))
    return address if found is None else str(found)


_HOST_BITS: Final = 64
"""The part of an IPv6 address that a host chooses itself (RFC 4291, 2.5.1)."""


@functools.lru_cache(SHARED.known_addresses)
def is_forbidden_address(address: str) -> bool:
    """Returns whether an IP address, also one embedded in IPv6, is link-local or a cloud's metadata service."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(ip.packed[-4:]) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or nat64 or ip
    return any(ip in network for network in _FORBIDDEN)


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # link-local: the metadata service of AWS, Google, Azure and most others
            "fe80::/10",
            "fd00:ec2::254/128",  # AWS
            "fd20:ce::254/128",  # Google
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure's host agent
            "192.0.0.192/32",  # Oracle
        ),
    )
)
_FORBIDDEN_NAMES: Final = frozenset(("metadata", "metadata.google.internal", "metadata.goog", "instance-data"))


def is_forbidden_host(host: str) -> bool:
    """Returns whether a host is a metadata service or link-local, judged by its name or address alone.

    Args:
        host: A name or an address, without brackets and port; a name is resolved by another machine.
    """
    address = address_of(host)
    if address is not None:
        return is_forbidden_address(str(address))
    name = host.lower().removesuffix(".")
    return name in _FORBIDDEN_NAMES or name.startswith("instance-data.")


def is_local(name: Any) -> bool:
    """Returns whether a socket's address is reachable from this machine only: on loopback, or at a path.

    Args:
        name: The address from `getsockname`.
    """
    return is_loopback(name[0]) if isinstance(name, tuple) else True


_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def _network(name: str) -> Network:
    """Parses a network. A network of IPv4-mapped IPv6 addresses becomes the IPv4 network, as in `address_of`.

    Raises:
        ValueError: The text is not a network.
    """
    network = ipaddress.ip_network(name)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        first = network.network_address.packed[-4:]
        return ipaddress.IPv4Network((first, network.prefixlen - _MAPPED.prefixlen))
    return network


class Networks:
    """A set of networks and addresses, which may hold all unix sockets.

    Args:
        names: Addresses, networks as `10.0.0.0/8`, and `UNIX`.

    Raises:
        ValueError: One of `names` is none of these.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._networks: list[Network] = []
        self._has_unix = False
        for name in names:
            if name == UNIX:
                self._has_unix = True
            else:
                self._networks.append(_network(name))

    def __bool__(self) -> bool:
        return self._has_unix or bool(self._networks)

    def has(self, host: str) -> bool:
        """Returns whether one of the networks contains an address.

        Args:
            host: An address; an empty text means a unix socket.
        """
        if not host:
            return self._has_unix
        address = address_of(host)
        return address is not None and any(address in network for network in self._networks)


def is_https_or_loopback(url: str) -> bool:
    """Returns whether secrets may be fetched from a URL: over https, or over http from this machine.

    Args:
        url: An absolute URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or "#" in url or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return not is_forbidden_host(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
