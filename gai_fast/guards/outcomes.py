"""The outcomes of guards: the event of a match, the end of a stream, and the errors. None of them repeats a match.

Owns their words (docs/events.md). `stages/stage.py` sees output; the gate of requests sees input.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Final, Literal

from gai_fast.core.processing.processor import Stop
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.settings import GuardSide

Action = Literal["mask", "stop", "flag"]
REASON: Final = "guard"
"""The `reason` of what a guard ends or refuses."""
FAILED: Final = "guard_failed"
"""The `reason` of a judge that gave no verdict."""
TOKENS: Final = "a prompt of token ids: send its text"
"""The form of a conversation in which nobody finds a text, for `closed`."""


def safety(
    guard: str, action: Action, category: str, on: GuardSide, *, score: float | None = None, choice: int = 0
) -> Event:
    """Returns the event of a match.

    Args:
        guard: The guard's name.
        action: What happened to the text.
        category: The category of the match.
        on: Where the text stood.
        score: The judge's score. None if it has none.
        choice: The choice of the text.
    """
    members: dict[str, Any] = {"category": category, "action": action}
    if score is not None:
        members["score"] = score
    event: Event = {"type": "safety", "safety": {**members, "guard": guard, "on": on}}
    if choice:
        event["choice"] = choice
    return event


def stopped() -> Stop:
    """Returns what ends a stream whose answer a guard stops."""
    return Stop("content_filter", REASON)


def refused(guard: str) -> Error:
    """Returns the error for a request that a guard stops.

    Args:
        guard: The guard's name, which the message has for clients of dialects without a member for it.
    """
    return Error(
        "content_filtered", f"the guard {guard!r} does not let this request through", reason=REASON, guard=guard
    )


def closed(guard: str, what: str) -> Error:
    """Returns the error for a request that a guard cannot look into.

    Args:
        guard: As for `refused`.
        what: What is asked for.
    """
    text = f"the guard {guard!r} holds here, and cannot look into {what}"
    return Error("unsupported", text, reason=REASON, temporary=False, guard=guard)


def judge_failed(guard: str) -> Error:
    """Returns the error for a text that cannot be judged or searched, if its guard is closed then.

    Args:
        guard: As for `refused`.
    """
    text = f"the guard {guard!r} cannot judge this text now"
    return Error("provider_unavailable", text, reason=FAILED, guard=guard)


def reworded(
    error: Error, message: str, reason: str | None, param: str | None, details: Mapping[str, Any] | None
) -> Error:
    """Returns an error with other words.

    Args:
        error: The error, which is not changed.
        message: As of `Error`.
        reason: As of `Error`.
        param: As of `Error`.
        details: As of `Error`.
    """
    other = copy(error)
    other.message, other.reason, other.param, other.details = message, reason, param, details
    other.args = (message,)
    return other


def unjudged(guard: str) -> Event:
    """Returns the event of a text that passes because its guard, which is open then, cannot judge it."""
    return {"type": "warning", "reason": FAILED, "guard": guard}
