"""Bytes of HTTP, for tests that write or read a connection by hand."""

from __future__ import annotations


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
