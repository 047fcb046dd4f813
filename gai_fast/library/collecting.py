"""The result of events: functions with docstrings, which compiled ones lack."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from gai_fast.core.collector import Collector, collect_one
from gai_fast.core.result import Result
from gai_fast.model.events import Event


def collect(events: Iterable[Event]) -> Result:
    """Collects the events of one stream.

    Example:
        >>> collect([{"type": "start", "provider": "demo"}, {"type": "text.delta", "text": "Hi"}]).text
        'Hi'

    Raises:
        Error: The answer has more than `limits.collected` characters.
        ValueError: A member of an event is missing, or has another type than in docs/events.md. The text names the
            event and the member.
    """
    collector = Collector()
    for number, event in enumerate(events, 1):
        collect_one(collector, event, number)
    return collector.result()


async def acollect(events: AsyncIterable[Event]) -> Result:
    """Works as `collect`, for asynchronous events."""
    collector = Collector()
    number = 0
    async for event in events:
        number += 1
        collect_one(collector, event, number)
    return collector.result()
