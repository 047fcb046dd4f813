"""Looks at the frames of a WebSocket's client before aiohttp reads them, for what aiohttp lets pass.

1. A client masks its frames (RFC 6455, 5.1): an unmasked frame ends the connection with 1002.
2. A message has at most as many bytes as the socket allows, in at most `limits.socket_frames` frames: more end with
   1009, at the head of the frame that is too much.
3. At most `limits.socket_control` control frames come in `limits.socket_control_window` seconds: more end with 1008.
4. A close frame has a code that an endpoint may send (RFC 6455, 7.4): any other ends with 1002. aiohttp lets 1006
   pass, which stands for a connection that was lost, and codes above 4999.
5. A read that is exactly one message of text, as most are, needs no other parser: `take_text` returns the message.

Sans-IO: it reads the heads of frames and the codes of closes, and skips all other payloads. aiohttp detects all other
errors in a frame. After a violation it only looks for the client's close.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gai_fast.kernels import unmasked
from gai_fast.server.limits import LIMITS

PROTOCOL_ERROR: Final = 1002
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
TRY_AGAIN_LATER: Final = 1013

_unmasked: Final = unmasked  # a constant: a name look-up costs 30 ns
_TEXT: Final = 0x81
"""A whole message of text in one frame."""
_FINAL: Final = 0x80
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_CLOSE: Final = 0x08
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MASK: Final = 4
_SHORTEST: Final = 2
_LENGTH_BYTES: Final = {_LENGTH_16: 2, _LENGTH_64: 8}
_CODE: Final = 2
"""Bytes of a close's code."""
_CODES: Final = (range(1000, 1004), range(1007, 1015), range(3000, 5000))
"""The codes that an endpoint may send: those of RFC 6455 and the IANA registry, libraries' and applications' own."""


class Violation(NamedTuple):
    """The reason to close a WebSocket.

    Attributes:
        code: The code of the close (RFC 6455, 7.4.1).
        reason: A text for people; it quotes nothing of the client's.
    """

    code: int
    reason: str


def too_big(most: int) -> Violation:
    """Returns the violation of a message that is too large.

    Args:
        most: The most bytes of a message.
    """
    return Violation(TOO_BIG, f"a message has more than {most} bytes")


class FrameGuard:
    """Reads the heads of one client's frames.

    Args:
        most: The most bytes of a message.

    Attributes:
        has_close: Whether the client's close has come.
    """

    def __init__(self, most: int = LIMITS.socket_message) -> None:
        self.has_close = False
        self._most = most
        self._head = b""  # the bytes of a head that is not whole; a close's code, with its mask, belongs to its head
        self._left = 0  # bytes of the payload under way, its mask among them
        self._is_last = False  # whether that payload ends a message
        self._frames = 0  # frames of the message under way
        self._bytes = 0  # bytes of its payloads
        self._messages = 0  # whole messages so far
        self._controls = 0
        self._window_ends = 0.0

    @property
    def message(self) -> int:
        """The number of the message of which a part has come, from 1; 0: there is none."""
        return self._messages + 1 if self._frames else 0

    @property
    def received(self) -> int:
        """The bytes that have come of a message that is not whole, up to the size of a control frame more or less."""
        return max(0, self._bytes - self._left)

    def feed(self, data: bytes, now: float) -> Violation | None:
        """Looks at the next bytes.

        Args:
            data: The bytes.
            now: Seconds of a monotonic clock.

        Returns:
            What is wrong with them; what follows is for `has_closed`.
        """
        problem = None
        for head in self._heads(data):
            problem = problem or self._look_at(head, now)
        return problem

    def take_text(self, data: bytes) -> bytes | None:
        """Returns the message if the next bytes are exactly one message of text in one frame, otherwise `None`.

        Args:
            data: The bytes; if they are anything else, `feed` must look at them.
        """
        if self._frames or self._left or self._head or len(data) < _SHORTEST + _MASK or data[0] != _TEXT:
            return None
        size, begin = data[1] - _MASKED, _SHORTEST + _MASK
        if size == _LENGTH_16:
            size = data[_SHORTEST] << 8 | data[_SHORTEST + 1]  # `int.from_bytes` takes 1,000 instructions
            begin += 2
            if size > self._most:
                return None
        elif not 0 <= size < _LENGTH_16:  # not masked, or of 64 KiB and more: rule 2 is `feed`'s
            return None
        if begin + size != len(data):
            return None
        self._messages += 1
        return _unmasked(data, begin)

    def has_closed(self, data: bytes) -> bool:
        """Searches the bytes after a violation for the client's close frame, which answers the server's.

        Args:
            data: The next bytes.
        """
        for head in self._heads(data):
            self.has_close = self.has_close or head[0] & _OPCODE == _CLOSE
        return self.has_close

    def _heads(self, data: bytes) -> Iterator[bytes]:
        """Yields the heads of frames that end within these bytes."""
        at = 0
        while at < len(data):
            if self._left:
                skipped = min(self._left, len(data) - at)
                self._left -= skipped
                at += skipped
                if self._is_last and not self._left:
                    self._is_last = False
                    self._frames = self._bytes = 0
                    self._messages += 1
                continue
            taken = min(self._missing, len(data) - at)
            self._head += data[at : at + taken]
            at += taken
            if not self._missing:
                head, self._head = self._head, b""
                self._left = _payload(head) + (_MASK if head[1] & _MASKED else 0) - (len(head) - _head_size(head))
                yield head

    @property
    def _missing(self) -> int:
        """Bytes of the head that have not come."""
        have = len(self._head)
        if have < _SHORTEST:
            return _SHORTEST - have
        size = _head_size(self._head)
        if self._head[0] & _OPCODE == _CLOSE and self._head[1] & _MASKED and self._head[1] & _LENGTH >= _CODE:
            size += _MASK + _CODE
        return size - have

    def _look_at(self, head: bytes, now: float) -> Violation | None:
        """Judges a frame by its head, which is whole."""
        first = head[0]
        if not head[1] & _MASKED:
            return Violation(PROTOCOL_ERROR, "a frame is not masked")
        if first & _CONTROL:
            if first & _OPCODE == _CLOSE:
                self.has_close = True
                return _judge_close(head)
            return self._count_control(now)
        self._frames += 1
        self._bytes += _payload(head)
        if self._bytes > self._most:
            return too_big(self._most)
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


def _payload(head: bytes) -> int:
    """Returns the length of a frame's payload."""
    size = _head_size(head)
    return int.from_bytes(head[_SHORTEST:size], "big") if size > _SHORTEST else head[1] & _LENGTH


def _head_size(head: bytes) -> int:
    """Returns the size of a frame's head without its mask; needs its first two bytes."""
    return _SHORTEST + _LENGTH_BYTES.get(head[1] & _LENGTH, 0)


def _judge_close(head: bytes) -> Violation | None:
    """Judges the code of a close; its mask and its code stand at the end of its head, if it has a code."""
    if len(head) == _head_size(head):
        return None  # without a code; aiohttp refuses a payload of one byte
    code = int.from_bytes(unmasked(head, _head_size(head) + _MASK), "big")
    if any(code in codes for codes in _CODES):
        return None
    return Violation(PROTOCOL_ERROR, f"the close code {code} is never sent")
