"""The encoder of a durable `gai.events.v1` stream; the kernels' encoders write all other streams.

A module of its own, because mypyc cannot compile a class whose base class is in a kernel.
"""

from __future__ import annotations

from typing import Any

from gai_fast.kernels import SSEEncoder


class FirstRetry(SSEEncoder):
    """Writes SSE with `retry:` in the first frame, and what answers in the client's dialect repeat of its request."""

    __slots__ = ("first_echo", "first_retry")

    first_echo: dict[str, Any] | None
    first_retry: int | None

    def event(self, event: dict[str, Any], retry: int | None = None) -> None:
        """Writes an event."""
        if self.first_echo is not None:
            event, self.first_echo = {**event, "echo": self.first_echo}, None
        super().event(event, self.first_retry if retry is None else retry)
        self.first_retry = None
