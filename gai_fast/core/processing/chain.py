"""The chain that runs the processors of one stream in order; `processor.py` has their interface, and the rules.

It runs between a stream's legal order (`core/legal_stream.py`) and its encoder. It numbers joined events, and decides
how much of the hot path a stream may use. Compiled: each event of a guarded stream passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gai_fast.core.processing.processor import Processor, Touches
from gai_fast.model.errors import Error
from gai_fast.model.events import Event


class Chain:
    """The processors of one stream, in order.

    Args:
        processors: The processors. No other chain may use them.
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = tuple(processors)
        self._numbers: bool | None = None
        self._seq = 0
        self.size = len(processors)
        """The number of processors. Each of them may end the stream once."""
        self.touches: Touches = "deltas" if any(each.touches == "deltas" for each in processors) else "events"
        """The events that the chain must see."""
        self.hides_scores = any(each.hides_scores for each in processors)
        """Whether the client gets no probabilities of tokens, even if it asked for them."""

    def process(self, event: Event, now_ms: int = 0) -> Iterator[Event]:
        """Processes an event. Yields one event at a time, so events before an `Error` are emitted."""
        if self._numbers is None:
            self._numbers = "seq" not in event
        return self._through(0, event, now_ms)

    @property
    def due_ms(self) -> int | None:
        """The time to call `flush` if no event comes before. `None` if there is none. Valid until the next call."""
        earliest: int | None = None
        for each in self._processors:
            due = each.due_ms
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def flush(self, now_ms: int) -> Iterator[Event]:
        """Yields the held-back events that are due.

        Args:
            now_ms: As for `Processor.process`.
        """
        for at, each in enumerate(self._processors, 1):
            due = each.due_ms
            if due is not None and due <= now_ms:
                for event in each.flush(now_ms):
                    yield from self._through(at, event, now_ms)

    def release(self, now_ms: int = 0) -> Iterator[Event]:
        """Yields the events that are held back until more text, because no more comes.

        More may come for the processors behind one that waits for a verdict. Call it again after that.

        Args:
            now_ms: As for `Processor.process`.
        """
        for at, each in enumerate(self._processors, 1):
            for event in each.release(now_ms):
                yield from self._through(at, event, now_ms)
            if each.holds:
                return

    def number_after(self, seq: int) -> None:
        """Numbers events after those that another worker's processors have sent.

        Args:
            seq: The number of the last one.
        """
        self._seq = seq

    def count_one(self) -> None:
        """Counts an event that its sink has added."""
        self._seq += 1

    def behind(self, first: Processor) -> Chain:
        """Returns the chain with another processor before its own, in its place.

        Args:
            first: The processor.
        """
        return Chain((first, *self._processors))

    def leave_out(self, event: Event) -> None:
        """Takes back the number of an event that is not sent."""
        self._seq -= joined_count(event)

    @property
    def holds(self) -> bool:
        """Whether a processor holds text or waits for a verdict."""
        return any(each.holds for each in self._processors)

    @property
    def waiting(self) -> int:
        """The characters that wait for a verdict."""
        found = 0
        for each in self._processors:
            found += each.waiting
        return found

    def announce(self, finish: Event, now_ms: int = 0) -> Event:
        """Shows the processors a `finish` with `provider_metadata` before it comes; as `Processor.announce`."""
        for each in self._processors:
            finish = each.announce(finish, now_ms)
        return finish

    def told(self, error: Error) -> Error:
        """Returns an error as all processors let it be read; as `Processor.told`."""
        for each in self._processors:
            error = each.told(error)
        return error

    def connect(self, wake: Callable[[], None] | None) -> None:
        """Connects the processors with the stream that runs them; as `Processor.connect`."""
        for each in self._processors:
            each.connect(wake)

    def _through(self, at: int, event: Event, now_ms: int) -> Iterator[Event]:
        if at == self.size:
            yield self._numbered(event) if self._numbers else event
            return
        is_last = at + 1 == self.size  # nearly always: a level less for each event
        for out in self._processors[at].process(event, now_ms):
            if is_last:
                yield self._numbered(out) if self._numbers else out
            else:
                yield from self._through(at + 1, out, now_ms)

    def _numbered(self, event: Event) -> Event:
        joined = joined_count(event)
        self._seq += joined
        if joined == 1:
            return event
        return {**event, "from_seq": self._seq - joined + 1, "seq": self._seq}


def joined_count(event: Event) -> int:
    """Returns the number of events that a joined event replaces."""
    return event["seq"] - event["from_seq"] + 1 if "from_seq" in event else 1
