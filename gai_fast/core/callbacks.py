"""`EventManager`: a library user's functions that are called with the events of a stream.

Owns which event calls which function. Awaits nothing and catches nothing: `net/stream/callbacks.py` makes the calls and
isolates the stream from functions that raise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from gai_fast.model.events import DELTAS, Event

Callback = Callable[[Event], Awaitable[Any] | Any]

NAMES: Final = ("on_start", "on_delta", "on_usage", "on_complete", "on_error")


class NotCallable(TypeError, ValueError):
    """What a program has given is no function. A `ValueError` too, which it was in earlier versions."""


def check_callable(name: str, given: object, what: str) -> None:
    """Checks a function that a program gives.

    Args:
        name: The name of the argument.
        given: The function.
        what: What it must be, for the text.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(given):
        raise NotCallable(f"{name} must be {what}, not {type(given).__name__}")


class EventManager:
    """Callbacks of a stream, plain or async. Each gets one event, a dict that it must not change.

    Pass functions, assign them later, or write a subclass with methods of these names. Plain callbacks are called at
    once on the loop, so they must not block. Async callbacks run in order in one task per stream, and slow the stream
    down if they fall far behind. If a callback raises, the stream goes on; the exception is logged once per stream.

    Args:
        on_start: Called with `start`, and with the next `start` after a `stream.reset`.
        on_delta: Called with every delta: text, reasoning, refusal, tool arguments.
        on_usage: Called with every event that has `usage`: snapshots, `finish` or `error`.
        on_complete: Called with `finish`, which has `metrics` here.
        on_error: Called with `error`, which has `metrics` here.

    Example:
        >>> said = []
        >>> manager = EventManager(on_delta=lambda event: said.append(event["text"]))
        >>> for function in manager.wanted({"type": "text.delta", "text": "Hi"}):
        ...     function({"type": "text.delta", "text": "Hi"})
        >>> said
        ['Hi']
    """

    on_start: Callback | None = None
    on_delta: Callback | None = None
    on_usage: Callback | None = None
    on_complete: Callback | None = None
    on_error: Callback | None = None

    def __init__(
        self,
        *,
        on_start: Callback | None = None,
        on_delta: Callback | None = None,
        on_usage: Callback | None = None,
        on_complete: Callback | None = None,
        on_error: Callback | None = None,
    ) -> None:
        given = zip(NAMES, (on_start, on_delta, on_usage, on_complete, on_error), strict=True)
        for name, callback in given:
            if callback is not None:
                setattr(self, name, callback)
            elif (own := getattr(self, name)) is not None:
                callback = own
            if callback is not None:
                check_callable(name, callback, "a function of one event")

    def wanted(self, event: Event) -> list[Callback]:
        """Returns the functions to call with an event, in order."""
        kind = event["type"]
        first = self.on_delta if kind in DELTAS else self.on_start if kind == "start" else None
        usage = self.on_usage if "usage" in event else None
        last = self.on_complete if kind == "finish" else self.on_error if kind == "error" else None
        return [each for each in (first, usage, last) if each is not None]
