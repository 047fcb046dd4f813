"""The encoder of a durable `gai.events.v1` stream; the kernels write all others as they are.

Apart from `gai.py`, because mypyc cannot compile a class whose base is a kernel's.

| event | frame |
|---|---|
| `start` `text.delta` `reasoning.delta` `refusal.delta` `reasoning.signature` | the event |
| `tool.call.start` `tool.call.delta` `tool.call` `tool.result` `server_tool` | the event |
| `citations` `image` `audio.delta` `json.snapshot` `safety` `warning` `usage` `step.end` | the event |
| `stream.reset` | the event; a second `start` or an `error` follows |
| `stream.gap` | the event, written for one follower and kept in no log |
| `finish` `error` | the event |
| `done` | the event, without a number |
"""

from __future__ import annotations

from typing import Any

from gai_fast._impl import SSEEncoder


class FirstRetry(SSEEncoder):
    """SSE with `retry:` in the first frame."""

    __slots__ = ("first_retry",)

    first_retry: int | None

    def event(self, event: dict[str, Any], retry: int | None = None) -> None:
        """Writes an event."""
        super().event(event, self.first_retry if retry is None else retry)
        self.first_retry = None
