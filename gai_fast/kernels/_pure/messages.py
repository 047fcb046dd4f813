"""SSE frames of the gateway's own form → WebSocket messages, one for each event (RFC 6455, 5.2).

Owns the header of a server's frame, and the two members that a message adds to the event's own. Finds the number of an
event in its frame, and removes the mask of a client's frame. Knows no socket.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.limits import KIB

_TEXT: Final = 0x81
"""The first byte of a frame that holds a whole text message."""
_SHORT: Final = 126
_LONG: Final = 64 * KIB
_OBJECT: Final = b"data: {"
_ID: Final = b"id: "
_EVENT: Final = b"event: "
_SEQ: Final = re.compile(rb'"seq":([0-9]+)')
_MASK: Final = 4
_FRAME_LINES: Final = 3
"""The lines of a frame: its name, its data and an empty one."""


def frame_messages(frames: bytes, lead: bytes) -> bytes:
    """Returns the messages for the events in these frames. Comments and `retry:` lines become no message.

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


def event_messages(frames: bytes, begin: bytes) -> bytes | None:
    """Returns the messages for events that are a name and one line of data, as nearly all are.

    Args:
        frames: Whole frames.
        begin: The beginning of each frame: `event: ` and perhaps more of its name.

    Returns:
        The messages, which are the objects. `None` if one of the frames has another form or a CR, or there is none.
    """
    out: list[bytes] = []
    lines = frames.split(b"\n")
    if not begin.startswith(_EVENT) or b"\r" in frames or len(lines) == 1:
        return None
    if len(lines) % _FRAME_LINES != 1 or lines[-1]:
        return None
    for at in range(0, len(lines) - 1, _FRAME_LINES):
        name, data, last = lines[at : at + _FRAME_LINES]
        if not name.startswith(begin) or not data.startswith(_OBJECT) or last:
            return None
        message = data[len(_OBJECT) - 1 :]
        out += (head_of(len(message)), message)
    return b"".join(out)


def head_of(size: int, first: int = _TEXT) -> bytes:
    """Returns the header of an unmasked frame.

    Args:
        size: Bytes of its payload.
        first: Its first byte; by default, the first byte of a whole text message.
    """
    if size < _SHORT:
        return bytes((first, size))
    if size < _LONG:
        return bytes((first, _SHORT)) + size.to_bytes(2, "big")
    return bytes((first, _SHORT + 1)) + size.to_bytes(8, "big")


def last_seq(frames: bytes) -> int:
    """Returns the number of the last event in frames; 0 if no event has a number.

    An event's own number is the first `seq` in its JSON: only simple members precede it, and JSON holds no line end.

    Args:
        frames: Whole frames.
    """
    end = len(frames)
    while True:
        at = frames.rfind(b"\n" + _OBJECT, 0, end)
        if at < 0:
            return 0
        stop = frames.find(b"\n", at + 1)
        found = _SEQ.search(frames, at, len(frames) if stop < 0 else stop)
        if found is not None:
            return int(found[1])
        end = at


def unmasked(data: bytes, at: int) -> bytes:
    """Returns the payload of a client's frame without its mask (RFC 6455, 5.3).

    Args:
        data: The frame. It ends with the payload.
        at: The offset of the payload, right after the mask.

    Raises:
        ValueError: There is no room for a mask before `at`, or `at` is outside of the frame.
    """
    size = len(data) - at
    if at < _MASK or size < 0:
        raise ValueError("there is no mask")
    key = int.from_bytes((data[at - _MASK : at] * (size // _MASK + 1))[:size], "little")
    return (int.from_bytes(data[at:], "little") ^ key).to_bytes(size, "little")
