"""When a client must have sent more of its request."""

from __future__ import annotations

from gai_fast.limits import LIMITS


def body_due(began: float, received: int, now: float, timeout: float) -> float:
    """The time by which more of a request's body must come.

    `timeout` runs between two reads. A client that sends a byte just before it ends would hold its connection for
    hours, so the whole body must come with at least `limits.body_rate` besides.

    Args:
        began: Seconds of a monotonic clock when the head was complete.
        received: Bytes of the body that have come.
        now: Seconds of the same clock at the last read.
        timeout: Seconds, the `body_timeout` of the configuration.

    Returns:
        Seconds of the same clock.
    """
    return min(now, began + received / LIMITS.body_rate) + timeout
