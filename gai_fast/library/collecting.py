"""The result of events that come one after another, asynchronously."""

from __future__ import annotations

from collections.abc import AsyncIterable

from gai_fast.core.collector import Collector, collect_one
from gai_fast.core.result import Result
from gai_fast.model.events import Event


async def acollect(events: AsyncIterable[Event]) -> Result:
    """Works as `collect`, for asynchronous events."""
    collector = Collector()
    number = 0
    async for event in events:
        number += 1
        collect_one(collector, event, number)
    return collector.result()
