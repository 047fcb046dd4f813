"""What every processor builds on: the interface event → events, and the chain that runs them in order.

A processor is one file: a settings type that a `[[processor]]` entry becomes, and the processor that one stream gets of
it. The chain stands between a stream's legal order (`relay.py`) and its encoder, owns the numbering of joined events,
and tells how much of the hot path may stay on. Nothing here awaits, opens anything or reads a clock: time comes in.

Rules:

1. `start`, `finish`, `error` and `done` pass in their place; a processor neither drops nor makes them.
2. Events keep their order. What a processor holds back it gives out before the next event that is no part of it.
3. A processor ends its stream early by raising `Error`, once; from then on it passes everything. The relay makes the
   `error` event of it.
4. In a chain whose events have no `seq` yet, one that joins n events has `seq` 0 and `from_seq` 1 - n: the chain
   counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gai_fast.events import Event

FRAME: Final = frozenset({"start", "finish", "error", "done"})
"""What makes a stream legal: passed on by every processor."""

Touches = Literal["events", "deltas"]
"""How much of a stream a processor must be given.

* `events`: it changes events that are no deltas; deltas may still be copied unread.
* `deltas`: every event takes the full path.
"""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a processor may know of its stream before the first event.

    Args:
        stream_id: The stream's id.
        request_id: The request's id.
        trace_id: The 32 hex digits of `traceparent`, where there is one.
        model: The model as the client asked for it.
        wants_json: Whether the request's `response_format` is JSON.
        schema: The JSON Schema of the response format, as its JSON text.
        json_snapshots: Milliseconds between two `json.snapshot` events, where the request asks for them.
        prompt: Gives the request's text, for a tokenizer.
    """

    stream_id: str = ""
    request_id: str = ""
    trace_id: str | None = None
    model: str = ""
    wants_json: bool = False
    schema: bytes | None = None
    json_snapshots: int | None = None
    prompt: Callable[[], str] | None = None


class Processor(ABC):
    """One stage of one stream: an event in, none, one or more out."""

    touches: Touches = "deltas"

    @abstractmethod
    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """What becomes of an event.

        Args:
            event: The next event; not to be changed, as others may hold it.
            now_ms: Milliseconds since any fixed moment.

        Raises:
            Error: The stream must end with it; events given out before it count.
        """

    @property
    def due_ms(self) -> int | None:
        """When `flush` must be called if no event comes before, in the time that `process` was given."""
        return None

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """What waits for time or for more."""
        return ()


class ProcessorSettings(Protocol):
    """A `[[processor]]` entry, read and checked."""

    def processor(self, stream: StreamInfo) -> Processor | None:
        """The processor that a stream gets of it; `None`: this stream has no use for it.

        Raises:
            Error: The request cannot be served so; nothing has been sent.
        """


class Chain:
    """The processors of one stream, in order.

    Args:
        processors: None of them may be in another chain.
    """

    __slots__ = ("_numbers", "_processors", "_seq", "touches")

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = tuple(processors)
        self._numbers: bool | None = None
        self._seq = 0
        self.touches: Touches = "deltas" if any(each.touches == "deltas" for each in processors) else "events"
        """What the chain as a whole must be given."""

    def process(self, event: Event, now_ms: int = 0) -> Iterator[Event]:
        """What becomes of an event, one after the other: what came before an `Error` has been given out."""
        if self._numbers is None:
            self._numbers = "seq" not in event
        return self._through(0, event, now_ms)

    @property
    def due_ms(self) -> int | None:
        """When `flush` must be called if no event comes before; only valid until the next call."""
        times = [due for each in self._processors if (due := each.due_ms) is not None]
        return min(times) if times else None

    def flush(self, now_ms: int | None = None) -> Iterator[Event]:
        """What waits.

        Args:
            now_ms: Only what is due at this time; `None`: all, since no event follows.
        """
        for at, each in enumerate(self._processors, 1):
            due = each.due_ms
            if now_ms is None or (due is not None and due <= now_ms):
                for event in each.flush(now_ms or 0):
                    yield from self._through(at, event, now_ms or 0)

    def _through(self, at: int, event: Event, now_ms: int) -> Iterator[Event]:
        if at < len(self._processors):
            for out in self._processors[at].process(event, now_ms):
                yield from self._through(at + 1, out, now_ms)
            return
        yield self._numbered(event) if self._numbers else event

    def _numbered(self, event: Event) -> Event:
        joined = joined_count(event)
        self._seq += joined
        if joined == 1:
            return event
        return {**event, "from_seq": self._seq - joined + 1, "seq": self._seq}


def joined_count(event: Event) -> int:
    """How many events an event stands for."""
    return event["seq"] - event["from_seq"] + 1 if "from_seq" in event else 1
