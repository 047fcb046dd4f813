"""Joins neighbouring deltas of one kind, up to a size or for a time.

A joined event has the first and the last number of its deltas (`from_seq` … `seq`). The first delta after a pause
passes without delay, so the first token comes as early as without batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, cast

import msgspec

from gai_fast.core.processing.chain import joined_count
from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.model.events import DELTAS, ENVELOPE_KEYS, Event
from gai_fast.processors.limits import LIMITS

_OWN: Final = frozenset({*ENVELOPE_KEYS, *DELTAS.values(), "seq", "from_seq"})
"""Joined deltas may differ in these keys."""


class BatchProcessor(Processor):
    """Joins neighbouring deltas of the same kind, choice, call and block.

    Args:
        characters: Release the held deltas as soon as they have this many characters.
        milliseconds: The longest time to hold a delta. `None` if only the size or another event releases it.

    Raises:
        ValueError: Neither is given, or one is not positive.
    """

    def __init__(self, *, characters: int | None = None, milliseconds: int | None = None) -> None:
        if characters is None and milliseconds is None:
            raise ValueError("a batch needs `characters` or `milliseconds`")
        if min(characters or 1, milliseconds or 1) < 1 or 0 in (characters, milliseconds):
            raise ValueError("`characters` and `milliseconds` must be positive")
        self._characters = characters
        self._milliseconds = milliseconds
        self._held: list[Event] = []
        self._size = 0
        self._since = 0
        self._now = 0
        self._released_at: int | None = None

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Holds a delta and yields the batch once it is complete. Yields other events at once."""
        if now_ms < self._now:  # the clock was set back: without this, held events would wait until it catches up
            self._since, self._released_at = now_ms, None
        self._now = now_ms
        key = DELTAS.get(event["type"])
        if key is None:
            yield from self.flush(now_ms)
            yield event
            return
        if self._held and _place(event) != _place(self._held[0]):
            yield from self.flush(now_ms)
        if not self._held:
            self._since = now_ms
        self._held.append(event)
        self._size += len(cast("dict[str, Any]", event).get(key, ""))
        limit = LIMITS.batch if self._characters is None else self._characters
        due = self.due_ms
        # A delta without text adds nothing to the size, so the number of held events is limited too.
        if self._size >= limit or len(self._held) >= LIMITS.batched or (due is not None and due <= now_ms):
            yield from self.flush(now_ms)

    @property
    def due_ms(self) -> int | None:
        """The time at which the held events must be released. `None` if there is no such time."""
        if not self._held or self._milliseconds is None:
            return None
        if self._released_at is None:
            return self._since
        return max(self._released_at + self._milliseconds, self._since)

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields the held events as one."""
        if self._held:
            held, self._held, self._size = self._held, [], 0
            self._released_at = now_ms
            yield held[0] if len(held) == 1 else _joined(held)


def _place(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in _OWN}


def _joined(events: list[Event]) -> Event:
    first, last = events[0], events[-1]
    key = DELTAS[first["type"]]
    text = "".join(cast("dict[str, Any]", event).get(key, "") for event in events)
    if first.get("seq", 0) > 0:
        begin, end = first.get("from_seq", first["seq"]), last["seq"]
    else:  # not numbered yet: the chain numbers the events later
        begin, end = 1 - sum(map(joined_count, events)), 0
    return cast(Event, {**first, key: text, "from_seq": begin, "seq": end})


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "batch"`: the arguments of `BatchProcessor`, at least one of the two."""

    characters: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.batch)] | None = None
    milliseconds: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.batch_ms)] | None = None

    def __post_init__(self) -> None:
        if self.characters is None and self.milliseconds is None:
            raise ValueError("needs `characters` or `milliseconds`")

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor for every stream."""
        return BatchProcessor(characters=self.characters, milliseconds=self.milliseconds)


SETTINGS: Final = BatchSettings
