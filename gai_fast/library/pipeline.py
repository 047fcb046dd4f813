"""`StreamEventProcessor`: processors for library users, over any events. Provides the clock."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator

from gai_fast.core.callbacks import check_callable
from gai_fast.model.events import Event
from gai_fast.processors import Chain, Processor
from gai_fast.processors.batch import BatchProcessor
from gai_fast.processors.filter import FilterProcessor
from gai_fast.processors.transform import TransformProcessor
from gai_fast.runtime.clock import now_ms


class StreamEventProcessor:
    """A chain of steps that events pass in order: filter, transform, batch, or any processor.

    Each call adds a step and returns a new chain, so a chain can be kept and used for many streams.

    Args:
        clock: Returns milliseconds since the epoch.

    Example:
        >>> steps = StreamEventProcessor().filter(keep=["text.delta"]).batch(characters=4)
        >>> deltas = [{"type": "text.delta", "text": text} for text in ("a", "b", "c", "d", "e")]
        >>> [event["text"] for event in steps.apply(deltas)]
        ['abcd', 'e']
    """

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        check_callable("clock", clock, "a function that returns milliseconds")
        self._clock = clock
        self._steps: tuple[Callable[[], Processor], ...] = ()

    def filter(
        self,
        function: Callable[[Event], object] | None = None,
        *,
        keep: Iterable[str] | None = None,
        drop: Iterable[str] = (),
        choices: Iterable[int] | None = None,
    ) -> StreamEventProcessor:
        """Drops events. The events that frame a stream (`start`, `stream.reset`, …) always pass.

        Args:
            function: Called with each event that passes the other arguments; returns whether the event passes.
            keep: The types that pass. `None` if all types pass.
            drop: The types that do not pass.
            choices: The choices that pass, from 0. `None` if all choices pass.

        Raises:
            ValueError: A type is unknown or cannot be left out.
        """
        step = FilterProcessor(function=function, keep=keep, drop=drop, choices=choices)
        return self.then(lambda: step)  # a filter has no state

    def transform(self, function: Callable[[Event], Event | None]) -> StreamEventProcessor:
        """Replaces each event by the result of a function; `None` drops the event.

        Args:
            function: Called with every event but `start`, `finish`, `error` and `done`. It must not change its
                argument.
        """
        step = TransformProcessor(function)
        return self.then(lambda: step)

    def batch(self, *, characters: int | None = None, milliseconds: int | None = None) -> StreamEventProcessor:
        """Joins neighbouring deltas, up to a size or for a time. A joined event has `from_seq` … `seq`.

        Held deltas are released when the next event comes: no timer runs.

        Args:
            characters: Release the held deltas as soon as they have this many characters.
            milliseconds: Release deltas that have been held for this time.

        Raises:
            ValueError: Neither is given, or one is not positive.
        """
        BatchProcessor(characters=characters, milliseconds=milliseconds)
        return self.then(lambda: BatchProcessor(characters=characters, milliseconds=milliseconds))

    def then(self, make: Callable[[], Processor]) -> StreamEventProcessor:
        """Adds any processor.

        Args:
            make: Returns a new processor for each stream: processors have state.

        Raises:
            TypeError: It cannot be called.
        """
        check_callable("make", make, "a function that returns a processor")
        longer = StreamEventProcessor(self._clock)
        longer._steps = (*self._steps, make)
        return longer

    def apply(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yields the events of one stream after all steps.

        Raises:
            Error: A step ends the stream.
        """
        chain = Chain([make() for make in self._steps])
        for event in events:
            yield from self._step(chain, event)
        yield from chain.release()

    async def aapply(self, events: AsyncIterable[Event]) -> AsyncIterator[Event]:
        """Works as `apply`, for asynchronous events."""
        chain = Chain([make() for make in self._steps])
        async for event in events:
            for out in self._step(chain, event):
                yield out
        for out in chain.release():
            yield out

    def _step(self, chain: Chain, event: Event) -> Iterator[Event]:
        now = self._clock()
        yield from chain.flush(now)
        yield from chain.process(event, now)
