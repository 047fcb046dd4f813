"""Looks at the frames of a WebSocket's client before aiohttp reads them, for what aiohttp lets pass.

1. A client masks its frames (RFC 6455, 5.1): one that does not ends with 1002.
2. A message has at most `limits.socket_frames` frames: more end with 1009. aiohttp bounds the bytes of a message.
3. At most `limits.socket_control` control frames come in `limits.socket_control_window` seconds: more end with 1008.

Sans-IO: it reads the heads of frames and skips their payloads. aiohttp finds whatever else is wrong with a frame.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gai_fast.limits import LIMITS

PROTOCOL_ERROR: Final = 1002
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009

_FINAL: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MASK: Final = 4
_SHORTEST: Final = 2
_LENGTH_BYTES: Final = {_LENGTH_16: 2, _LENGTH_64: 8}


class Violation(NamedTuple):
    """The reason to close a WebSocket.

    Attributes:
        code: The code of the close (RFC 6455, 7.4.1).
        reason: A text for people; it quotes nothing of the client's.
    """

    code: int
    reason: str


class FrameGuard:
    """Reads the heads of one client's frames."""

    __slots__ = ("_controls", "_frames", "_head", "_is_last", "_left", "_messages", "_window_ends")

    def __init__(self) -> None:
        self._head = b""  # the bytes of a head that is not whole
        self._left = 0  # bytes of the payload under way, its mask among them
        self._is_last = False  # that payload is the end of a message
        self._frames = 0  # of the message under way
        self._messages = 0  # that are whole
        self._controls = 0
        self._window_ends = 0.0

    @property
    def message(self) -> int:
        """The number of the message of which a part has come, from 1; 0: there is none."""
        return self._messages + 1 if self._frames else 0

    def feed(self, data: bytes, now: float) -> Violation | None:
        """Looks at the next bytes.

        Args:
            data: The bytes.
            now: Seconds of a monotonic clock.

        Returns:
            What is wrong with them; nothing more must be fed then.
        """
        at = 0
        while at < len(data):
            if self._left:
                skipped = min(self._left, len(data) - at)
                self._left -= skipped
                at += skipped
                if self._is_last and not self._left:
                    self._is_last = False
                    self._frames = 0
                    self._messages += 1
                continue
            taken = min(self._missing, len(data) - at)
            self._head += data[at : at + taken]
            at += taken
            if not self._missing:
                problem = self._look_at(self._head, now)
                self._head = b""
                if problem is not None:
                    return problem
        return None

    @property
    def _missing(self) -> int:
        """Bytes of the head that have not come."""
        have = len(self._head)
        if have < _SHORTEST:
            return _SHORTEST - have
        return _SHORTEST + _LENGTH_BYTES.get(self._head[1] & _LENGTH, 0) - have

    def _look_at(self, head: bytes, now: float) -> Violation | None:
        """Judges a frame by its head, which is whole."""
        first, second = head[0], head[1]
        if not second & _MASKED:
            return Violation(PROTOCOL_ERROR, "a frame is not masked")
        self._left = _MASK + (int.from_bytes(head[_SHORTEST:], "big") if len(head) > _SHORTEST else second & _LENGTH)
        if first & _CONTROL:
            return self._count_control(now)
        self._frames += 1
        if self._frames > LIMITS.socket_frames:
            return Violation(TOO_BIG, f"a message has more than {LIMITS.socket_frames} frames")
        self._is_last = bool(first & _FINAL)
        return None

    def _count_control(self, now: float) -> Violation | None:
        if now >= self._window_ends:
            self._window_ends = now + LIMITS.socket_control_window
            self._controls = 0
        self._controls += 1
        if self._controls > LIMITS.socket_control:
            return Violation(POLICY_VIOLATION, "too many control frames")
        return None
