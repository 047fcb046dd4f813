"""How much text the processors of one stream get in a turn of the loop: others have their turns meanwhile.

1. Deltas of at most `limits.turn_text` characters pass in a turn. A longer one is cut, between tokens if it has their
   probabilities; the rest waits for the next turns, and all events behind it.
2. An end that does not wait has one turn more: what waits then is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import cast

from gai_fast.core.json.chunks import label
from gai_fast.core.processing.processor import FRAME, Processor
from gai_fast.model.events import DELTAS, Event
from gai_fast.model.limits import SHARED


class TextPace(Processor):
    """Stands before the processors of one stream."""

    def __init__(self) -> None:
        self._left = SHARED.turn_text
        self._turn_ms = -1
        """When the turn has begun."""
        self._later: deque[Event] = deque()
        self._size = 0
        """The characters that wait."""

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Passes an event, or as much of it as the turn has room for."""
        kind = event["type"]
        if now_ms != self._turn_ms:
            self._begin(now_ms)
        if self._later and kind != "start":
            if kind == "stream.reset":
                self._later.clear()
                self._size = 0
            elif kind in FRAME:
                return self._end(event)
            else:
                self._wait(event)
                return ()
        key = DELTAS.get(kind)
        size = 0 if key is None else _length(event, key)
        if size <= self._left:
            self._left -= size
            return (event,)
        self._wait(event)
        return self._pass()

    @property
    def holds(self) -> bool:
        """Whether text waits."""
        return bool(self._later)

    @property
    def waiting(self) -> int:
        """The characters that wait."""
        return self._size

    @property
    def due_ms(self) -> int | None:
        """The next turn, if something waits for it."""
        return 0 if self._later else None

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields what another turn has room for."""
        self._begin(now_ms)
        return self._pass()

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        """Returns nothing: what waits stays held."""
        return ()

    def _begin(self, now_ms: int) -> None:
        self._turn_ms = now_ms
        self._left = SHARED.turn_text

    def _wait(self, event: Event) -> None:
        self._later.append(event)
        key = DELTAS.get(event["type"])
        if key is not None:
            self._size += _length(event, key)

    def _pass(self) -> Iterator[Event]:
        later = self._later
        while later and self._left > 0:
            event = later.popleft()
            key = DELTAS.get(event["type"])
            if key is not None:
                size = _length(event, key)
                if size > self._left:
                    parts = _cut(event, key, self._left)
                    if parts is None:
                        later.appendleft(event)
                        break
                    event, rest = parts
                    size = _length(event, key)
                    later.appendleft(rest)
                self._left -= size
                self._size -= size
            yield event

    def _end(self, event: Event) -> Iterator[Event]:
        self._begin(self._turn_ms)
        yield from self._pass()
        self._later.clear()
        self._size = 0
        yield event


def _cut(event: Event, key: str, size: int) -> tuple[Event, Event] | None:
    """Returns a delta of at most so many characters, and the rest. None if its first token fits into a turn alone."""
    text: str = event[key]  # type: ignore[literal-required]  # the key depends on the type
    scores, count = event.get("logprobs", []), 0
    end = 0
    for score in scores:
        length = len(label(score.get("token")))
        if end + length > size:
            if not end and length <= SHARED.turn_text:
                return None
            break
        count += 1
        end += length
    size = end or size
    parts: list[Event] = []
    for part, own in ((text[:size], scores[:count]), (text[size:], scores[count:])):
        cut = {**event, key: part, "logprobs": own}
        if not own:
            del cut["logprobs"]
        parts.append(cast(Event, cut))
    return parts[0], parts[1]


def _length(event: Event, key: str) -> int:
    text: str = event.get(key, "")  # type: ignore[assignment]  # as in `_cut`
    return len(text)
