"""SSE frames of the format `gai` → WebSocket messages, one for each event (RFC 6455, 5.2).

Owns the head of a server's frame, and the two members that a message has besides the event's own. Knows no socket.
"""

from __future__ import annotations

from typing import Final

from gai_fast.limits import KIB

_TEXT: Final = 0x81
"""A whole message of text in one frame."""
_SHORT: Final = 126
_LONG: Final = 64 * KIB
_OBJECT: Final = b"data: {"
_ID: Final = b"id: "


def frame_messages(frames: bytes, lead: bytes) -> bytes:
    """Returns the messages for the events in these frames; comments and `retry:` lines have none.

    Args:
        frames: Whole frames: each event is one `data:` line with a JSON object that is not empty.
        lead: The beginning of each message, from its `{` to a comma; an event's id follows it as the member `id`.
    """
    out: list[bytes] = []
    identifier = b""
    for line in frames.split(b"\n"):
        if line.startswith(_OBJECT):
            message = b"%b%b%b" % (lead, identifier, line[len(_OBJECT) :])
            out += (head_of(len(message)), message)
            identifier = b""
        elif line.startswith(_ID):
            identifier = b'"id":"%b",' % line[len(_ID) :]
    return b"".join(out)


def head_of(size: int, first: int = _TEXT) -> bytes:
    """Returns the head of an unmasked frame.

    Args:
        size: Bytes of its payload.
        first: Its first byte; by default, that of a whole message of text.
    """
    if size < _SHORT:
        return bytes((first, size))
    if size < _LONG:
        return bytes((first, _SHORT)) + size.to_bytes(2, "big")
    return bytes((first, _SHORT + 1)) + size.to_bytes(8, "big")
