"""PROXY headers of both versions, whole and cut, and what is none."""

from __future__ import annotations

import pytest

from gai_fast.server.edge.proxy_header import BadHeader, ProxyHeader, read_header
from tests.limits import LIMITS

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes((203, 0, 113, 9, 192, 0, 2, 1)) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
V6 = bytes.fromhex("20010db8000000000000000000000009" + "00" * 15 + "01") + V4[8:]


def binary(command: int, family: int, body: bytes = b"", length: int | None = None) -> bytes:
    """Returns a header of version 2."""
    size = len(body) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + body


GOOD = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", ("203.0.113.9", 4711)),
    (b"PROXY TCP6 2001:db8::9 ::1 65535 0\r\n", ("2001:db8::9", 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (binary(0x21, 0x11, V4), ("203.0.113.9", 4711)),
    (binary(0x21, 0x12, V4), ("203.0.113.9", 4711)),
    (binary(0x21, 0x21, V6), ("2001:db8::9", 4711)),
    (binary(0x21, 0x11, V4 + b"\x03\x00\x04abcd"), ("203.0.113.9", 4711)),
    (binary(0x21, 0x31, b"/run/x".ljust(216, b"\0")), ("", 0)),
    (binary(0x21, 0x00, b"anything"), None),
    (binary(0x20, 0x00), None),
    (binary(0x20, 0x11, V4), None),
    (binary(0x21, 0x11, V4.ljust(LIMITS.proxy_header - 16, b"\0")), ("203.0.113.9", 4711)),
]


@pytest.mark.parametrize(("header", "peer"), GOOD)
def test_a_header_tells_the_client_however_it_is_cut(header: bytes, peer: tuple[str, int] | None) -> None:
    for size in range(min(len(header), 300)):
        assert read_header(header[:size]) is None
    assert read_header(header) == ProxyHeader(len(header), peer)
    assert read_header(header + b"GET / HTTP/1.1\r\n") == ProxyHeader(len(header), peer)


BAD = [
    (b"GET / HTTP/1.1\r\n", "does not begin with a PROXY header"),
    (b"\x16\x03\x01", "does not begin with a PROXY header"),
    (b"PROXX", "does not begin with a PROXY header"),
    (b"\r\n\r\nx", "does not begin with a PROXY header"),
    (b"proxy TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", "does not begin with a PROXY header"),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n", "cannot be read"),
    (b"PROXY TCP4 203.0.113.9  192.0.2.1 4711 443\r\n", "cannot be read"),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n", "cannot be read"),
    (b"PROXY TCP5 203.0.113.9 192.0.2.1 4711 443\r\n", "cannot be read"),
    (b"PROXY UNKNOWNX\r\n", "cannot be read"),
    (b"PROXY TCP4 2001:db8::9 ::1 1 1\r\n", "an address that is none"),
    (b"PROXY TCP4 203.0.113.256 192.0.2.1 1 1\r\n", "an address that is none"),
    (b"PROXY TCP4 \xff\xff 192.0.2.1 1 1\r\n", "an address that is none"),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 1\r\n", "an address that is none"),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 1 65536\r\n", "an address that is none"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "an address that is none"),
    (b"PROXY TCP4 " + b"1" * 200, "has no end within 107 bytes"),
    (binary(0x11, 0x11, V4), "a version or a command that is unknown"),
    (binary(0x22, 0x11, V4), "a version or a command that is unknown"),
    (binary(0x21, 0x41, V4), "a family of addresses that is unknown"),
    (binary(0x21, 0x11, V4[:-1]), "too short"),
    (binary(0x21, 0x21, V6[:-1]), "too short"),
    (binary(0x21, 0x31, b"/x"), "too short"),
    (binary(0x21, 0x11, b"", LIMITS.proxy_header), f"larger than {LIMITS.proxy_header} bytes"),
]


@pytest.mark.parametrize(("data", "why"), BAD)
def test_anything_else_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadHeader, match=why):
        read_header(data)


def test_the_longest_line_is_taken() -> None:
    line = b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n"
    assert read_header(line) == ProxyHeader(107, None)
    with pytest.raises(BadHeader):
        read_header(line[:-2] + b"x\r\n")
