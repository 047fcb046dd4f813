"""The PROXY header, versions 1 and 2: the client's address of a connection through a load balancer.

Owns the parsing of the header (haproxy.org/download/2.9/doc/proxy-protocol.txt), as a function without I/O. It accepts
exactly what that specification allows.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from gai_fast.server.limits import LIMITS

_START: Final = b"PROXY "
_LINE: Final = re.compile(rb"(TCP4|TCP6) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_MAX_LINE: Final = 107
"""The maximum size of a header of version 1 in bytes, including its end (2.1)."""
_MAX_PORT: Final = 65535

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
"""Bytes before the addresses of version 2."""
_LOCAL, _PROXY = 0x20, 0x21
_STREAM, _DATAGRAM = 1, 2
_SIZES: Final = {1: (4, 12), 2: (16, 36), 3: (108, 216)}
"""By address family: the size of an address, and the minimum size of all addresses, in bytes."""
_UNIX: Final = 3


class ProxyHeader(NamedTuple):
    """A parsed header.

    Attributes:
        size: The size of the header in bytes.
        peer: The client's address and port; None if the connection is the balancer's own, such as a health check.
    """

    size: int
    peer: tuple[str, int] | None


class BadHeader(ValueError):
    """A connection does not begin with a valid header."""


def read_header(data: bytes) -> ProxyHeader | None:
    """Parses the header at the start of a connection.

    Args:
        data: The first bytes.

    Returns:
        The header; None if it is incomplete.

    Raises:
        BadHeader: There is no valid header; the text names the problem, and contains nothing of the bytes.
    """
    if _may_start_with(data, _SIGNATURE):
        return _read_binary(data)
    if _may_start_with(data, _START):
        return _read_line(data)
    raise BadHeader("it does not begin with a PROXY header")


def _may_start_with(data: bytes, mark: bytes) -> bool:
    return data[: len(mark)] == mark[: len(data)]


def _read_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE)
    if end < 0:
        if len(data) >= _MAX_LINE:
            raise BadHeader(f"its PROXY header has no end within {_MAX_LINE} bytes")
        return None
    text, size = data[len(_START) : end], end + 2
    if text == b"UNKNOWN" or text.startswith(b"UNKNOWN "):
        return ProxyHeader(size, None)
    found = _LINE.fullmatch(text)
    if found is None:
        raise BadHeader("its PROXY header cannot be read")
    kind = ipaddress.IPv4Address if found[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        source, target = (str(kind(each.decode("ascii"))) for each in (found[2], found[3]))
    except ValueError:
        raise BadHeader("its PROXY header has an address that is none") from None
    port = int(found[4])
    if max(port, int(found[5])) > _MAX_PORT or "%" in source + target:
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
    each, min_length = _SIZES[family]
    if length < min_length:
        raise BadHeader("its PROXY header is too short for its addresses")
    if family == _UNIX:
        return ProxyHeader(size, ("", 0))
    source = ipaddress.ip_address(data[_FIXED : _FIXED + each])
    port = int.from_bytes(data[_FIXED + 2 * each : _FIXED + 2 * each + 2], "big")
    return ProxyHeader(size, (str(source), port))
