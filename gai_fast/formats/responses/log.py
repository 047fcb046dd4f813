"""Reads the log of a durable response: its last `response` object, and the frames after a number.

`stream.py` has written these frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from gai_fast.formats.responses.parts import failure_of
from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error

_RESPONSE: Final = re.compile(rb'^(?:data: )?\{"type":"response\.[a-z_]+","sequence_number":[0-9]+,"response":', re.M)
_NUMBER: Final = re.compile(rb'^data: \{"type":"[a-z_.]+","sequence_number":([0-9]+)', re.M)
_RUNNING: Final = ("queued", "in_progress")


def last_response(pieces: Sequence[bytes], *, whole: bool = False) -> dict[str, Any] | None:
    """Returns the last `response` object in a log, or None if the log has none.

    Args:
        pieces: The log's pieces, in order; each holds whole frames.
        whole: The only piece is a whole answer; it may be the upstream's own bytes.
    """
    for piece in reversed(pieces):
        if whole:
            return _parsed(piece)
        found = [*_RESPONSE.finditer(piece)]
        if found:
            begin = found[-1].end()
            return _parsed(piece[begin : piece.index(b"\n", begin) - 1])
    return None


def _parsed(response: bytes) -> dict[str, Any]:
    # An upstream's bytes may have a byte order mark, invalid UTF-8 or lone surrogates; the relay accepts these too.
    return parse_exact(response.decode("utf-8", "replace").removeprefix("\ufeff"))  # type: ignore[no-any-return]  # JSON of an object


def final_response(response: dict[str, Any], status: str, error: Error | None = None) -> dict[str, Any]:
    """Returns a response in its final state, for a log without the response's end.

    Args:
        response: The last `response` object in the log.
        status: The final status.
        error: The failure, or None if the response did not fail.
    """
    if has_ended(response):
        return response
    return {**response, "status": status, "error": None if error is None else failure_of(error)}


def has_ended(response: dict[str, Any]) -> bool:
    """Returns whether a `response` object is in a final state."""
    return response.get("status") not in _RUNNING


def last_number(piece: bytes, before: int) -> int:
    """Returns the sequence number of the last frame of a piece.

    Args:
        piece: Whole frames of SSE.
        before: The number before it, for a piece without frames.
    """
    found = _NUMBER.findall(piece)
    return int(found[-1]) if found else before


def frames_after(piece: bytes, number: int) -> bytes:
    """Returns the frames of a piece that come after a sequence number.

    Args:
        piece: Whole frames of SSE.
        number: The `sequence_number` of the last frame that the client has.
    """
    frames = piece.split(b"\n\n")[:-1]  # line ends in texts are escaped
    kept = []
    for frame in frames:
        found = _NUMBER.search(frame)
        if found is None or int(found[1]) > number:
            kept.append(frame + b"\n\n")
    return b"".join(kept)
