"""The bytes of a WebSocket client (RFC 6455) that is no browser: its key and its mask are constant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.kernels._pure.messages import head_of

STREAM: Final = "a"
"""The client's id of each of its streams, one after the other."""
_MASKED: Final = 0x80
_MASK: Final = bytes(4)
"""A mask that changes nothing."""


def handshake(path: str, host: str) -> bytes:
    """Returns the request that opens a WebSocket of events.

    Args:
        path: The route.
        host: The `Host`.
    """
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: gai.events.v1\r\n\r\n"
    ).encode()


def request_message(request: Mapping[str, Any]) -> bytes:
    """Returns the message that starts a stream.

    Args:
        request: The native request.
    """
    payload = json.dumps({"stream": STREAM, "type": "request", "request": request}).encode()
    first, size, *more = head_of(len(payload))
    return bytes((first, size | _MASKED, *more)) + _MASK + payload
