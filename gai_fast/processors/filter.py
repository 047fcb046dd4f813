"""Drops events by type or by choice. The events that frame a stream always pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec

from gai_fast.core.callbacks import check_callable
from gai_fast.core.processing.processor import FRAME, Processor, StreamInfo, Touches
from gai_fast.model.events import DELTAS, TYPES, Event
from gai_fast.model.limits import SHARED

_PASSED: Final = FRAME | {"stream.reset", "stream.gap"}
"""These types always pass: without them, later events would be misread."""


class FilterProcessor(Processor):
    """Passes only some events.

    Args:
        keep: The types that pass. `None` if all types pass.
        drop: The types that do not pass.
        choices: The choices that pass, from 0. `None` if all choices pass.
        function: Called with each event that passes the other arguments; returns whether the event passes.

    Raises:
        TypeError: `keep` or `drop` is one type instead of several, or `function` cannot be called.
        ValueError: A type is unknown or cannot be left out.
    """

    def __init__(
        self,
        *,
        function: Callable[[Event], object] | None = None,
        keep: Iterable[str] | None = None,
        drop: Iterable[str] = (),
        choices: Iterable[int] | None = None,
    ) -> None:
        kept = TYPES if keep is None else frozenset(_known(keep))
        dropped = frozenset(_known(drop))
        if dropped & _PASSED:
            raise ValueError(f"{min(dropped & _PASSED)!r} cannot be left out: it frames the stream")
        self._passed = (kept - dropped) | _PASSED
        if function is not None:
            check_callable("function", function, "a function of one event")
        self._choices = None if choices is None else frozenset(choices)
        self._function = function
        takes_deltas = self._passed >= DELTAS.keys() and self._choices is None and function is None
        self.touches: Touches = "events" if takes_deltas else "deltas"

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Returns the event, or nothing."""
        kind = event["type"]
        if kind in _PASSED:
            return (event,)
        if kind not in self._passed or (self._choices is not None and event.get("choice", 0) not in self._choices):
            return ()
        return (event,) if self._function is None or self._function(event) else ()


def _known(types: Iterable[str]) -> Iterable[str]:
    if isinstance(types, str):
        raise TypeError(f"`keep` and `drop` take several types, such as [{types!r}]")
    for name in types:
        if name not in TYPES:
            raise ValueError(f"there is no event type {name!r}; known: {', '.join(sorted(TYPES))}")
        yield name


class FilterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "filter"`: the arguments of `FilterProcessor` except `function`."""

    keep: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    choices: tuple[Annotated[int, msgspec.Meta(ge=0, lt=SHARED.choices)], ...] | None = None

    def __post_init__(self) -> None:
        self._build()

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor for every stream."""
        return self._build()

    def _build(self) -> FilterProcessor:
        return FilterProcessor(keep=self.keep, drop=self.drop, choices=self.choices)


SETTINGS: Final = FilterSettings
