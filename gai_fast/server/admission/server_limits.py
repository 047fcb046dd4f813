"""The limits of the whole server (`[limits]`), and the refusals above them.

Owns the totals and the errors. Opens nothing: the engine asks it before a stream starts.
"""

from __future__ import annotations

from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import LimitSettings


class ServerLimits:
    """The totals of one server.

    Args:
        limits: `[limits]`.

    Attributes:
        is_short_of_memory: Whether the process uses more than `memory_high_water`; set by the memory watch.
        uploading: The received bytes of incomplete request bodies.
        refused: How often each limit has refused a stream or a connection.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self.is_short_of_memory = False
        self.uploading = 0
        self.refused = {"streams": 0, "streams_per_caller": 0, "connections": 0, "memory": 0, "upload": 0}

    def use(self, limits: LimitSettings) -> None:
        """Checks by other limits from now on.

        Args:
            limits: `[limits]`.
        """
        self._limits = limits

    def check(self, streams: int, of_caller: int) -> None:
        """Checks whether one more stream may start.

        Args:
            streams: Streams under way.
            of_caller: The streams of them that belong to the caller.

        Raises:
            Overloaded: There are too many streams, or there is too little memory.
            RateLimited: The caller has too many.
        """
        if streams >= self._limits.streams:
            raise self._refusal("overloaded", "streams", "the server has as many streams under way as it may")
        if of_caller >= self._limits.streams_per_caller:
            text = "this caller has as many streams under way as it may"
            raise self._refusal("rate_limited", "streams_per_caller", text)
        if self.is_short_of_memory:
            raise self._refusal("overloaded", "memory", "the server has too little memory for another stream")

    def begin_upload(self, size: int) -> None:
        """Counts received bytes of an incomplete request body; `end_upload` must follow.

        Args:
            size: The number of bytes that were received since the last call.

        Raises:
            Overloaded: The bodies under way have more than `upload_bytes`. These bytes are not counted.
        """
        if self.uploading + size > self._limits.upload_bytes:
            text = "the server receives as many bytes of request bodies as it may (see upload_bytes)"
            raise self._refusal("overloaded", "upload", text)
        self.uploading += size

    def end_upload(self, size: int) -> None:
        """Takes a body that is complete or lost off the count.

        Args:
            size: All its bytes that were counted.
        """
        self.uploading -= size

    def no_place(self) -> Error:
        """Counts a refused connection; returns the error that its client gets."""
        return self._refusal("overloaded", "connections", "the server has no place for another connection")

    def _refusal(self, code: Code, limit: str, text: str) -> Error:
        self.refused[limit] += 1
        return Error(code, text, reason=limit, retry_after_ms=SHARED.overloaded_ms)
