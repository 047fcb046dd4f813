"""The PROXY header, versions 1 and 2: where a connection comes from that a load balancer passes on.

Owns its form (haproxy.org/download/2.9/doc/proxy-protocol.txt) as a function without I/O. It takes exactly what that
text allows.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from gai_fast.server.limits import LIMITS

_START: Final = b"PROXY "
_LINE: Final = re.compile(rb"(TCP4|TCP6) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_LONGEST_LINE: Final = 107
"""Bytes of a header of version 1, its end included (2.1)."""
_MOST_PORT: Final = 65535

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
"""Bytes before the addresses of version 2."""
_LOCAL, _PROXY = 0x20, 0x21
_STREAM, _DATAGRAM = 1, 2
_SIZES: Final = {1: (4, 12), 2: (16, 36), 3: (108, 216)}
"""By family: bytes of an address, and of all that must be there."""
_PATHS: Final = 3


class ProxyHeader(NamedTuple):
    """A header.

    Attributes:
        size: Its bytes.
        peer: The address and port of the client; `None`: the connection is the balancer's own, as for a health check.
    """

    size: int
    peer: tuple[str, int] | None


class BadHeader(ValueError):
    """A connection does not begin with a header."""


def read_header(data: bytes) -> ProxyHeader | None:
    """The header that a connection begins with.

    Args:
        data: The first bytes.

    Returns:
        The header; `None`: it is not whole.

    Raises:
        BadHeader: There is none; the text says why, and repeats nothing.
    """
    if _is_begun(data, _SIGNATURE):
        return _read_binary(data)
    if _is_begun(data, _START):
        return _read_line(data)
    raise BadHeader("it does not begin with a PROXY header")


def _is_begun(data: bytes, mark: bytes) -> bool:
    return data[: len(mark)] == mark[: len(data)]


def _read_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(data) >= _LONGEST_LINE:
            raise BadHeader(f"its PROXY header has no end within {_LONGEST_LINE} bytes")
        return None
    said, size = data[len(_START) : end], end + 2
    if said == b"UNKNOWN" or said.startswith(b"UNKNOWN "):
        return ProxyHeader(size, None)
    found = _LINE.fullmatch(said)
    if found is None:
        raise BadHeader("its PROXY header cannot be read")
    kind = ipaddress.IPv4Address if found[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        source, target = (str(kind(each.decode("ascii"))) for each in (found[2], found[3]))
    except ValueError:
        raise BadHeader("its PROXY header has an address that is none") from None
    port = int(found[4])
    if max(port, int(found[5])) > _MOST_PORT or "%" in source + target:
        raise BadHeader("its PROXY header has an address that is none")
    return ProxyHeader(size, (source, port))


def _read_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED:
        return None
    command, family, kind = data[12], data[13] >> 4, data[13] & 15
    length = int.from_bytes(data[14:_FIXED], "big")
    size = _FIXED + length
    if command not in (_LOCAL, _PROXY):
        raise BadHeader("its PROXY header has a version or a command that is unknown")
    if size > LIMITS.proxy_header:
        raise BadHeader(f"its PROXY header is larger than {LIMITS.proxy_header} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL or family == 0 or kind not in (_STREAM, _DATAGRAM):
        return ProxyHeader(size, None)
    if family not in _SIZES:
        raise BadHeader("its PROXY header has a family of addresses that is unknown")
    each, least = _SIZES[family]
    if length < least:
        raise BadHeader("its PROXY header is too short for its addresses")
    if family == _PATHS:
        return ProxyHeader(size, ("", 0))
    source = ipaddress.ip_address(data[_FIXED : _FIXED + each])
    port = int.from_bytes(data[_FIXED + 2 * each : _FIXED + 2 * each + 2], "big")
    return ProxyHeader(size, (str(source), port))
